"""Fused attention, written out: heads are blocks; inside, one map for queries and keys, another for values.

    scores = Q · Kᵀ per head; Y = softmax(f(scores) + mask) · V, f pointwise

With fewer key/value heads than query heads (grouped queries) a query head belongs to its key/value head.
Keys and values of earlier calls are concatenated before the new ones: what the caller holds of them pins
the heads and their inner dimensions, what the graph holds does not.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnxcanon.arrays import Shape
from onnxcanon.tracing.abstract_value import AbstractValue
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.rearrangement import resized_unknown
from onnxcanon.tracing.rules.registry import Outputs, SymmetryNode, register

SAMPLES, QUERIES, KEYS = 0, 3, 4
"""Axes of the scores [B, groups, each, S, T]."""


def heads(ctx: Context, x: AbstractValue, alt: Shape, groups: int, each: int) -> AbstractValue:
    """X[B, S, H·d] or X[B, H, S, d] -> [B, groups, each, S, d] with H = groups · each."""
    if x.rank == 3:
        (b, s, n), (b2, s2, _) = x.shape, alt
        count, inner = groups * each, n // (groups * each)
        whole, other = (b, s, count, inner), (b2, s2, count, inner)
        x = ctx.reshape(x, whole, alt, other)  # as graphs cut it that do more with a head
        x = ctx.reshape(x, (b, s, groups, each, inner), other, (b2, s2, groups, each, inner))
        return ctx.transpose(x, (0, 2, 3, 1, 4))
    (b, _, s, d), (b2, _, s2, _) = x.shape, alt
    return ctx.reshape(x, (b, groups, each, s, d), alt, (b2, groups, each, s2, d))


def grouped(ctx: Context, x: AbstractValue, alt: Shape, groups: int) -> AbstractValue:
    """X[B, L, G·d] or X[B, G, L, d] -> [B, G, L, d]."""
    return ctx.squeeze(heads(ctx, x, alt, groups, 1), 2)


def appended(
    ctx: Context, op: SymmetryNode, past: int, new: AbstractValue, *, dynamic: bool
) -> AbstractValue:
    """past[B, G, P, d] (an input, if given), new[B, G, L, d] -> [B, G, P + L, d]; `dynamic`: L is."""
    if not op.has(past):
        return new
    first, second = op.in_shapes(past)
    return lengthened(ctx, op.x(past), new, dynamic=dynamic or first[2] != second[2])


def lengthened(ctx: Context, past: AbstractValue, new: AbstractValue, *, dynamic: bool) -> AbstractValue:
    """past[B, G, P, d], new[B, G, L, d] -> [B, G, P + L, d]; `dynamic`: P or L is."""
    ctx.bind_together([past, new], 4)
    if dynamic:
        for v in (past, new):
            ctx.fix(v, 2, "appended to a cache whose length is dynamic")
    return ctx.concat([past, new], 2)


def attend(
    ctx: Context,
    q: AbstractValue,
    k: AbstractValue,
    v: AbstractValue,
    added: Sequence[AbstractValue],
    fixed: Sequence[int],
) -> tuple[AbstractValue, AbstractValue]:
    """Q[B, g, e, S, d], K[B, g, T, d], V[B, g, T, v] -> Y[B, g, e, S, v], weights[B, g, e, S, T].

    `added` broadcast to the scores; `fixed` are axes of the scores whose positions a mask tells apart.
    """
    q = ctx.copy(ctx.bind(q))
    q.ids[4] = ctx.forget(q.ids[4], [2])  # the queries of a group meet the same keys
    scores = ctx.contract([q, k], [list("bgesd"), list("bgtd")], list("bgest"))
    for axis in fixed:
        ctx.fix(scores, axis, "positions under a mask")
    if added:
        scores = ctx.elementwise([scores, *added])
    weights = ctx.stop(scores)
    for axis in range(4):
        weights.ids[axis] = ctx.forget(weights.ids[axis], [4])
    return ctx.contract([weights, v], [list("bgest"), list("bgtv")], list("bgesv")), weights


def merged(ctx: Context, y: AbstractValue, alt: Shape, out: tuple[Shape, Shape]) -> AbstractValue:
    """Y[B, g, e, S, v] -> [B, S, H·v] or [B, H, S, v], as the output's rank asks."""
    if len(out[0]) == 3:
        y = ctx.transpose(y, (0, 3, 1, 2, 4))
        alt = tuple(alt[p] for p in (0, 3, 1, 2, 4))
    at = 2 if len(out[0]) == 3 else 1  # groups and their heads
    whole, other = ((*s[:at], s[at] * s[at + 1], *s[at + 2 :]) for s in (y.shape, alt))
    return ctx.reshape(ctx.reshape(y, whole, alt, other), out[0], other, out[1])


def per_head(ctx: Context, op: SymmetryNode, i: int, groups: int, each: int) -> AbstractValue:
    """Input i, added to the scores: […, S, T] with up to four axes -> […, g, e, S, T].

    What differs by head moves along if it is a parameter, and else fixes the heads that it tells apart.
    """
    mask = ctx.stop(op.x(i))
    a, b = op.in_shapes(i)
    if mask.rank < 3:
        return mask
    lead = mask.rank - 3
    if a[lead] == 1:
        return ctx.insert(mask, lead)
    return ctx.reshape(
        mask,
        (*a[:lead], groups, each, *a[lead + 1 :]),
        b,
        (*b[:lead], groups, each, *b[lead + 1 :]),
    )


def along_samples(ctx: Context, v: AbstractValue) -> AbstractValue:
    """A vector [B] laid along the samples of the scores."""
    for axis in range(1, 5):
        v = ctx.insert(v, axis)
    return ctx.stop(v)


@register("Attention")
def attention(ctx: Context, op: SymmetryNode) -> Outputs:
    """Q, K, V, mask, past K, past V, lengths[B] -> Y, present K, present V, QK (opset 23 and 24)."""
    q, k, v = op.x(0), op.x(1), op.x(2)
    count = op.attr("q_num_heads") or q.shape[1]
    groups = op.attr("kv_num_heads") or (k.shape[1] if k.rank == 4 else count)
    each = count // groups
    alt = [op.in_shapes(i)[1] for i in range(3)]
    length = -2 if k.rank == 4 else 1
    dynamic = k.shape[length] != alt[1][length]
    query = heads(ctx, q, alt[0], groups, each)
    key = appended(ctx, op, 4, grouped(ctx, k, alt[1], groups), dynamic=dynamic)
    value = appended(ctx, op, 5, grouped(ctx, v, alt[2], groups), dynamic=dynamic)
    added, fixed = _mask(ctx, op, groups, each, key.shape[2])
    y, weights = attend(ctx, query, key, value, added, fixed)
    (b2, s2) = (alt[0][0], alt[0][1] if q.rank == 3 else alt[0][2])
    outputs = [merged(ctx, y, (b2, groups, each, s2, y.shape[4]), op.out_shapes()), key, value]
    if op.used(3):  # before or after the mask, a cap or the softmax: always without scale and sign
        shapes = op.out_shapes(3)
        outputs.append(merged(ctx, weights, (b2, groups, each, *shapes[1][2:]), shapes))
    return outputs[: len(op.node.outputs)]


def _mask(
    ctx: Context, op: SymmetryNode, groups: int, each: int, keys: int
) -> tuple[list[AbstractValue], list[int]]:
    """What is added to the scores, and the axes of the scores whose positions are told apart."""
    added, fixed = [], [QUERIES, KEYS] if op.attr("is_causal", 0) else []
    if op.has(3):
        mask = per_head(ctx, op, 3, groups, each)
        if op.version >= 24 and mask.shape[-1] != keys:  # the last keys are masked
            mask = resized_unknown(ctx, mask, mask.rank - 1, keys, "a mask shorter than its keys")
            fixed.append(KEYS)
        added.append(mask)
    if op.has(6):
        added.append(along_samples(ctx, op.x(6)))
        fixed.append(KEYS)
    return added, fixed
