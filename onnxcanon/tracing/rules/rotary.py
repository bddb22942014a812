"""Rotary position embedding: pairs of inner dimensions of a head turn by angles that depend on the position.

    y_j = cos(θ_j p) · x_j - sin(θ_j p) · x_j',   y_j' = sin(θ_j p) · x_j + cos(θ_j p) · x_j'

The angles are data, so a pair stays where it is in its head; whole heads move. The turn is linear: what
scales or flips both members of a pair comes out of it. Dimensions past the turned ones are left alone.
"""

from __future__ import annotations

import numpy as np

from onnxcanon.graph.operators import BOTH
from onnxcanon.tracing.abstract_value import AbstractValue, State
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.attention import heads, merged
from onnxcanon.tracing.rules.registry import Outputs, SymmetryNode, Unsupported, register


def rotated(ctx: Context, x: AbstractValue, width: int, *, interleaved: bool) -> AbstractValue:
    """X[B, g, e, S, d] -> X with the first `width` of each head's d inner dimensions turned in pairs."""
    inner = x.rank - 1
    for axis in (0, inner - 1):
        ctx.fix(x, axis, "turned by an angle of its position")
    turned = ctx.take(x, inner, np.arange(width))
    order = np.arange(width).reshape(-1, 2) if interleaved else np.arange(width).reshape(2, -1).T
    for k in range(x.rank):
        exponent = turned.exponents[k]
        if exponent is not None and exponent.shape[inner] > 1:
            ctx.constraints.exponent_equal(
                exponent.take(order[:, 0], inner), exponent.take(order[:, 1], inner)
            )
        turned.ids[k] = ctx.forget(turned.ids[k], [0, inner - 1] if k == inner else [inner])
    ids = turned.ids[inner]
    if not isinstance(ids, State):  # a position goes to the same position, of any head
        ctx.column(turned, inner)
        ctx.constraints.column(
            ids, np.arange(width).reshape([-1 if k == inner else 1 for k in range(x.rank)])
        )
    if width == x.shape[inner]:
        return turned
    return ctx.concat([turned, ctx.take(x, inner, np.arange(width, x.shape[inner]))], inner)


@register("RotaryEmbedding", domain=BOTH)
def rotary_embedding(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[B, S, H·d] or X[B, H, S, d], cos[…, r/2], sin[…, r/2], positions -> X, r of each head's d turned."""
    x = op.x(0)
    count, size, width = _sizes(op, x.shape)
    shapes = op.in_shapes(0)
    turned = rotated(
        ctx, heads(ctx, x, shapes[1], count, 1), width, interleaved=bool(op.attr("interleaved", 0))
    )
    b2, s2 = shapes[1][0], shapes[1][1 if x.rank == 3 else 2]
    return merged(ctx, turned, (b2, count, 1, s2, size), shapes)


def _sizes(op: SymmetryNode, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Number of heads, their size, and how many dimensions of each turn, where the node says so plainly."""
    width, stated_width = 2 * op.in_shapes(2)[0][-1], op.attr("rotary_embedding_dim", 0)
    stated = op.attr("num_heads", 0)
    if len(shape) == 4:
        count, size = shape[1], shape[3]
    elif len(shape) == 3 and (stated or not stated_width):
        count = stated or shape[2] // width
        size = shape[2] // count
    else:
        raise Unsupported("RotaryEmbedding without the number of heads")
    if width != (stated_width or size) or width > size or (len(shape) == 3 and count * size != shape[2]):
        raise Unsupported("RotaryEmbedding whose angles do not fit its heads")
    return count, size, width
