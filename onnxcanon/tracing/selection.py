"""Positions are taken, repeated and reduced away: index arithmetic on label arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxcanon.arrays import Ids, Shape
from onnxcanon.tracing.abstract_value import UNIFORM, AbstractValue, AxisState, ParameterView, State, constant

if TYPE_CHECKING:
    from onnxcanon.tracing.context import Context


def take(ctx: Context, v: AbstractValue, axis: int, index: Ids) -> AbstractValue:
    """X[…, n, …] -> X[…, index, …], index int64 [m] within 0 … n-1, repetitions allowed."""
    index = np.asarray(index, np.int64)
    n = v.shape[axis]
    if len(index) == n and n > 0 and bool((index == np.arange(n)).all()):
        return ctx.copy(v)
    shape = [*v.shape[:axis], len(index), *v.shape[axis + 1 :]]
    out = constant(shape)
    out.zero = v.zero
    if v.view is not None:
        source = v.view.axes[axis]
        if source is not None and len(set(index.tolist())) == len(index):
            old = source[1]
            new = (source[0], index if old is None else old[index])
            out.view = ParameterView(
                v.view.parameter, (*v.view.axes[:axis], new, *v.view.axes[axis + 1 :]), v.view.taken
            )
            return out
        ctx.bind(v)
    for k in range(v.rank):
        out.ids[k] = _taken(v.ids[k], axis, index)
        exponent = v.exponents[k]
        if exponent is not None:
            out.exponents[k] = exponent.take(index, axis) if exponent.shape[axis] > 1 else exponent
    _record_take(ctx, v, out, axis, index)
    if len(index) == 1:
        out.ids[axis] = UNIFORM
    return out


def _record_take(ctx: Context, v: AbstractValue, out: AbstractValue, axis: int, index: Ids) -> None:
    before, after = v.ids[axis], out.ids[axis]
    if not isinstance(before, State) and not isinstance(after, State):
        ctx.column(out, axis)
        ctx.constraints.selection(
            np.moveaxis(before, axis, -1).reshape(-1, before.shape[axis]),
            np.moveaxis(after, axis, -1).reshape(-1, after.shape[axis]),
            index,
        )
    for k in range(v.rank):
        ids = out.ids[k]
        if k != axis and not isinstance(ids, State) and ids.shape[axis] > 1:
            ctx.column(out, k)


def expand(ctx: Context, v: AbstractValue, shape: Shape) -> AbstractValue:
    """Broadcast to a shape: the new positions are uniform."""
    return (
        ctx.elementwise([v, constant(shape, UNIFORM, zero=True)])
        if v.view is None
        else _expand_view(ctx, v, shape)
    )


def _expand_view(ctx: Context, v: AbstractValue, shape: Shape) -> AbstractValue:
    full = np.broadcast_shapes(v.shape, shape)
    if full == v.shape:
        return ctx.copy(v)
    ctx.bind(v)
    return ctx.expand(v, shape)


def reduce(ctx: Context, v: AbstractValue, axes: Sequence[int], *, keepdims: bool) -> AbstractValue:
    """A symmetric reduction (sum, mean, max, …) over axes; the exponent along each must be constant."""
    ctx.bind(v)
    out = ctx.copy(v)
    for axis in axes:
        exponent = v.exponents[axis]
        if exponent is not None:
            out.exponents[axis] = ctx.exponent_forget(exponent, [axis])
    for k in range(v.rank):
        out.ids[k] = UNIFORM if k in axes else ctx.forget(v.ids[k], axes)
        out.exponents[k] = ctx.exponent_forget(out.exponents[k], axes)
    out.shape = tuple(1 if k in axes else n for k, n in enumerate(v.shape))
    if not keepdims:
        for axis in sorted(axes, reverse=True):
            out = ctx.squeeze(out, axis)
    return out


def _taken(state: AxisState, axis: int, index: Ids) -> AxisState:
    if isinstance(state, State) or state.shape[axis] == 1:
        return state
    return state.take(index, axis)
