"""Convolutions. Channels carry labels; kernel positions and image positions do not move.

A grouped convolution sees its input channels as [group, C/group] and its output channels as
[group, M/group]: permutations within a group on either side, and whole groups where both sides agree.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnxcanon.arrays import Ids
from onnxcanon.tracing.abstract_value import UNIFORM, AbstractValue, State, constant
from onnxcanon.tracing.constraints import Reason
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.registry import Outputs, SymmetryNode, Unsupported, register

REASON = "image positions under a convolution"


def still_positions(ctx: Context, x: AbstractValue, axes: Sequence[int], reason: str) -> AbstractValue:
    """Fix the spatial axes and forget them (and the batch) as context of the channel labels."""
    for axis in axes:
        ctx.fix(x, axis, reason)
    out = ctx.copy(x)
    for k in range(x.rank):
        out.ids[k] = ctx.forget(x.ids[k], axes)
        out.exponents[k] = ctx.exponent_forget(x.exponents[k], axes)
    return out


def convolve(
    ctx: Context, x: AbstractValue, w: AbstractValue, groups: int, shape: tuple[int, ...], *, transposed: bool
) -> AbstractValue:
    """X[N, C, *S] * W[M, C/g, *K] (transposed: W[C, M/g, *K]) -> Y[N, M, *S']."""
    ctx.bind(x)
    x = still_positions(ctx, x, range(2, x.rank), REASON)
    for k in (0, 1):
        x.ids[k] = ctx.forget(x.ids[k], [1 - k])
        x.exponents[k] = ctx.exponent_forget(x.exponents[k], [1 - k])
    ctx.bind(w, (0, 1), {1: [0]} if groups > 1 else None, (), groups)
    w = still_positions(ctx, w, range(2, w.rank), "kernel positions of a convolution")
    out = constant(shape)
    out.ids[0], out.exponents[0] = x.ids[0], x.exponents[0]
    if groups == 1:
        _dense(ctx, x, w, out, transposed=transposed)
    else:
        _grouped(ctx, x, w, out, groups, transposed=transposed)
    return out


def _dense(ctx: Context, x: AbstractValue, w: AbstractValue, out: AbstractValue, *, transposed: bool) -> None:
    inner, outer = (0, 1) if transposed else (1, 0)
    ctx.meet(
        [_line(x.ids[1], 1), _line(ctx.forget(w.ids[inner], [outer]), inner)], Reason.CONTRACTED_WITH_FIXED
    )
    ctx.cancel(
        [
            d
            for d in (_row(x.exponents[1]), _row(ctx.exponent_forget(w.exponents[inner], [outer])))
            if d is not None
        ]
    )
    _put(out, ctx.forget(w.ids[outer], [inner]), ctx.exponent_forget(w.exponents[outer], [inner]))


def _grouped(
    ctx: Context, x: AbstractValue, w: AbstractValue, out: AbstractValue, groups: int, *, transposed: bool
) -> None:
    """Channels as [g, c], the weight [g·m, c] as [g, m, c] (transposed: [g·c, m] as [g, c, m]): a product for
    each group."""
    channels = _flat(x, (1,))
    grid = (groups, channels.shape[0] // groups)
    channels = ctx.reshape(channels, grid, channels.shape, grid)
    weight = _flat(w, (0, 1))
    parts = (groups, weight.shape[0] // groups, weight.shape[1])
    weight = ctx.reshape(weight, parts, weight.shape, parts)
    y = ctx.contract([channels, weight], ["gc", "gcm" if transposed else "gmc"], "gm")
    y = ctx.reshape(y, (out.shape[1],), y.shape, (out.shape[1],))
    _put(out, y.ids[0], y.exponents[0])


def _flat(v: AbstractValue, axes: tuple[int, ...]) -> AbstractValue:
    """The given axes alone, whose labels depend on no others."""
    flat = constant([v.shape[k] for k in axes])

    def alone(a: Ids) -> Ids:
        return a.reshape([a.shape[k] for k in axes])

    for n, k in enumerate(axes):
        state, exponent = v.ids[k], v.exponents[k]
        flat.ids[n] = state if isinstance(state, State) else alone(state)
        flat.exponents[n] = None if exponent is None else alone(exponent)
    return flat


def _line(state: Ids | State, axis: int) -> Ids | State:
    """Labels of one axis, free of context, as a flat array."""
    return state if isinstance(state, State) else state.reshape(-1)


def _row(exponent: Ids | None) -> Ids | None:
    return None if exponent is None else exponent.reshape(-1)


def _put(out: AbstractValue, ids: Ids | State, exponent: Ids | None) -> None:
    shape = [1] * out.rank
    if isinstance(ids, State):
        out.ids[1] = ids if out.shape[1] > 1 else UNIFORM
    else:
        shape[1] = out.shape[1]
        out.ids[1] = ids.reshape(shape)
    if exponent is not None:
        shape[1] = exponent.size
        out.exponents[1] = exponent.reshape(shape)


def add_bias(ctx: Context, y: AbstractValue, bias: AbstractValue) -> AbstractValue:
    """Y[N, M, *S] + B[M]."""
    for _ in range(y.rank - 2):
        bias = ctx.insert(bias, bias.rank)
    return ctx.elementwise([y, bias])


@register("Conv")
def conv(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[N, C, *S], W[M, C/group, *K], B[M] -> Y[N, M, *S']."""
    y = convolve(ctx, op.x(0), op.x(1), int(op.attr("group", 1)), op.out_shapes()[0], transposed=False)
    return add_bias(ctx, y, op.x(2)) if op.has(2) else y


@register("ConvTranspose")
def conv_transpose(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[N, C, *S], W[C, M/group, *K], B[M] -> Y[N, M, *S']."""
    y = convolve(ctx, op.x(0), op.x(1), int(op.attr("group", 1)), op.out_shapes()[0], transposed=True)
    return add_bias(ctx, y, op.x(2)) if op.has(2) else y


@register("DeformConv")
def deformable_conv(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[N, C, *S], W[M, C/group, *K], offset[N, …], B[M], mask[N, …] -> Y[N, M, *S']: displaced positions."""
    if op.attr("offset_group", 1) != 1:
        raise Unsupported("offsets for groups of channels")
    for i in (2, 4):
        if op.has(i):
            ctx.fix_all(op.x(i), "offsets of image positions")
    x = op.x(0)
    ctx.fix(x, 0, "each picture has its own offsets")
    y = convolve(ctx, x, op.x(1), int(op.attr("group", 1)), op.out_shapes()[0], transposed=False)
    return add_bias(ctx, y, op.x(3)) if op.has(3) else y
