"""Positions of an axis: taken, repeated, joined, padded and reduced. Index arithmetic on label arrays."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from onnxcanon.arrays import Ids, Shape
from onnxcanon.tracing.abstract_value import (
    FIXED,
    UNIFORM,
    AbstractValue,
    AxisState,
    ParameterView,
    State,
    constant,
)
from onnxcanon.tracing.constraints import Reason

if TYPE_CHECKING:
    from onnxcanon.tracing.context import Context

CONTEXT_LIMIT = 1 << 16
"""Entries up to which a concatenation keeps separate labels per part; beyond it they are united (sound)."""


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
    if v.view is not None:
        if np.broadcast_shapes(v.shape, shape) == v.shape:
            return ctx.copy(v)
        ctx.bind(v)
    return ctx.elementwise([v, constant(shape, UNIFORM, zero=True)])


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


# -- joining ----------------------------------------------------------------------------------------


def concat(ctx: Context, values: Sequence[AbstractValue], axis: int) -> AbstractValue:
    """X1[…, n1, …], X2[…, n2, …] -> Y[…, n1 + n2, …]."""
    values = [v for v in values if v.shape[axis] > 0]
    if len(values) == 1:
        return ctx.copy(values[0])
    ctx.bind_together(values, values[0].rank)
    shape = list(values[0].shape)
    shape[axis] = sum(v.shape[axis] for v in values)
    out = constant(shape)
    out.zero = all(v.zero for v in values)
    for k in range(len(shape)):
        if k == axis:
            out.ids[k] = _joined_axis(ctx, values, axis)
            out.exponents[k] = _joined_exponent(ctx, values, k, axis)
        else:
            out.ids[k] = _beside(ctx, values, k, axis)
            out.exponents[k] = _joined_exponent(ctx, values, k, axis)
    return out


def _joined_axis(ctx: Context, values: Sequence[AbstractValue], axis: int) -> AxisState:
    """Labels of the concatenated axis itself."""
    if all(isinstance(v.ids[axis], State) for v in values):
        return FIXED if sum(v.shape[axis] for v in values) > 1 else UNIFORM
    rank = values[0].rank
    pieces: list[Ids] = []
    for slot, v in enumerate(values):
        state = v.ids[axis]
        if isinstance(state, State):
            shape = [1] * rank
            shape[axis] = v.shape[axis]
            state_ids = ctx.constraints.new_units(shape)
            alone = v.shape[axis] == 1
            with ctx.at_slot(slot):
                if state is FIXED or not v.zero:
                    ctx.pin(state_ids, "a single position" if alone else Reason.JOINED_WITH_FIXED)
                ctx.constraints.column(state_ids)
            pieces.append(state_ids)
        else:
            with ctx.at_slot(slot):
                ctx.column(v, axis)
            pieces.append(state)
    around = np.broadcast_shapes(*([1 if k == axis else n for k, n in enumerate(p.shape)] for p in pieces))
    wide = [
        np.broadcast_to(p, [p.shape[axis] if k == axis else n for k, n in enumerate(around)]) for p in pieces
    ]
    joined = np.concatenate(wide, axis)
    rows = np.moveaxis(joined, axis, -1).reshape(-1, joined.shape[axis])
    ends = np.cumsum([p.shape[axis] for p in wide])
    for slot, (p, end) in enumerate(zip(wide, ends, strict=True)):
        with ctx.at_slot(slot):
            taken = np.arange(end - p.shape[axis], end)
            ctx.constraints.selection(rows, rows[:, taken], taken)
    return joined


def _beside(ctx: Context, values: Sequence[AbstractValue], k: int, axis: int) -> AxisState:
    """Labels of another axis: kept apart part by part while that is cheap, united beyond."""
    states = [v.ids[k] for v in values]
    labelled = [s for s in states if not isinstance(s, State)]
    if not labelled or any(s is FIXED for s in states):
        return ctx.meet(states, Reason.JOINED_WITH_FIXED)
    if all(s is labelled[0] for s in labelled) and labelled[0].shape[axis] == 1:
        return labelled[0]
    total = sum(v.shape[axis] for v in values)
    around = np.broadcast_shapes(*([1 if j == axis else n for j, n in enumerate(s.shape)] for s in labelled))
    if prod(around) * total > CONTEXT_LIMIT:
        return ctx.meet([ctx.forget(s, [axis]) for s in states])
    wide = []
    for v, s in zip(values, states, strict=True):
        chosen = labelled[0].take([0], axis) if isinstance(s, State) else s
        wide.append(
            np.broadcast_to(chosen, [v.shape[axis] if j == axis else n for j, n in enumerate(around)])
        )
    return np.concatenate(wide, axis)


def _joined_exponent(ctx: Context, values: Sequence[AbstractValue], k: int, axis: int) -> Ids | None:
    """Exponent column of axis `k` after concatenation along `axis`; zero parts take any exponent."""
    exponents = [v.exponents[k] for v in values]
    present = [d for d in exponents if d is not None]
    if not present:
        return None
    if k != axis and all(d is present[0] for d in exponents) and present[0].shape[axis] == 1:
        return present[0]
    around = np.broadcast_shapes(*([1 if j == axis else n for j, n in enumerate(d.shape)] for d in present))
    total = sum(v.shape[axis] for v in values)
    if prod(around) * total > CONTEXT_LIMIT and k != axis:
        return ctx.exponents_meet([ctx.exponent_forget(d, [axis]) for d in exponents])
    wide = []
    for v, d in zip(values, exponents, strict=True):
        shape = [v.shape[axis] if j == axis else n for j, n in enumerate(around)]
        if d is None:
            d = ctx.constraints.new_exponents(shape) if v.zero else np.zeros(shape, np.int64)
        wide.append(np.broadcast_to(d, shape))
    return np.concatenate(wide, axis)


def pad(ctx: Context, v: AbstractValue, axis: int, before: int, after: int, *, zero: bool) -> AbstractValue:
    """Constant padding of one axis: [n] -> [before + n + after]."""
    ctx.bind(v)
    if isinstance(v.ids[axis], State):
        out = ctx.copy(v)
        for k in range(v.rank):
            if k != axis:
                out.ids[k] = ctx.forget(v.ids[k], [axis])
                out.exponents[k] = ctx.exponent_forget(v.exponents[k], [axis])
        if v.exponents[axis] is not None:
            ctx.constraints.exponent_zero(v.exponents[axis])
            out.exponents[axis] = None
        if not zero:
            out = ctx.stop(out)
        out.shape = (*v.shape[:axis], before + v.shape[axis] + after, *v.shape[axis + 1 :])
        out.ids[axis] = FIXED
        out.zero = v.zero and zero
        return out

    def filler(n: int) -> AbstractValue:
        shape = [*v.shape[:axis], n, *v.shape[axis + 1 :]]
        return constant(shape, UNIFORM, zero=zero)

    return ctx.concat([filler(before), v, filler(after)], axis)
