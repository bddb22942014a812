"""Labels and exponents of an axis: how they meet, are pinned, and forget what they depend on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np

from onnxcanon.arrays import Ids
from onnxcanon.tracing.abstract_value import FIXED, UNIFORM, AbstractValue, AxisState, State, ValueSequence
from onnxcanon.tracing.constraints import Provenance, Reason, System

if TYPE_CHECKING:
    from onnxcanon.tracing.context import Context


def at_slot(ctx: Context, number: int) -> AbstractContextManager[None]:
    """Constraints stated inside are about one input or output of the node."""
    constraints = ctx.constraints
    return constraints.stated_by(constraints.provenance, (constraints.slot[0], number))


def pin(ctx: Context, ids: AxisState, reason: str) -> None:
    """The labels of an axis, if it has any, may not move."""
    if not isinstance(ids, State):
        ctx.constraints.pin(ids, Provenance(ctx.constraints.provenance.node, reason))


def fix(ctx: Context, value: AbstractValue, axis: int, reason: str) -> None:
    """Pin one axis of a value: positions, the same ones in every context that moves, scale and sign."""
    ctx.bind(value)
    ctx.materialize(value)
    around = (k for k, s in enumerate(value.ids) if k != axis and not isinstance(s, State))
    value.ids[axis] = ctx.forget(value.ids[axis], around)
    _hold(ctx, value, axis, reason)


def fix_all(ctx: Context, value: AbstractValue, reason: str) -> None:
    """Pin every axis of a value (of every tensor of a sequence)."""
    if isinstance(value, ValueSequence):
        for member in value.members:
            ctx.fix_all(member, reason)
    ctx.bind(value)
    ctx.materialize(value)
    for axis in range(value.rank):
        _hold(ctx, value, axis, reason)


def _hold(ctx: Context, value: AbstractValue, axis: int, reason: str) -> None:
    ctx.pin(value.ids[axis], reason)
    ctx.constraints.exponent_zero(value.exponents[axis])
    value.exponents[axis] = None
    if value.shape[axis] != 1:
        value.ids[axis] = FIXED


def meet(
    ctx: Context, states: Sequence[AxisState], reason: str = Reason.MEETS_FIXED, around: Iterable[int] = ()
) -> AxisState:
    """The common state of axes whose positions are paired; labels become equal.

    Where one is fixed, the positions are the same ones in every context: labels become equal along the
    axes `around`, which may move.
    """
    labelled = [s for s in states if not isinstance(s, State)]
    if not labelled:
        return FIXED if any(s is FIXED for s in states) else UNIFORM
    base = min(labelled, key=lambda s: s.size)
    for other in labelled:
        ctx.constraints.equal(base, other)
    if any(s is FIXED for s in states):
        ctx.pin(ctx.forget(base, around), reason)
        return FIXED
    return base


def forget(ctx: Context, state: AxisState, axes: Iterable[int]) -> AxisState:
    """Drop the context of labels on some axes: the labels along them become one (union)."""
    if isinstance(state, State):
        return state
    for axis in axes:
        if state.shape[axis] > 1:
            first = state.take([0], axis)
            ctx.constraints.equal(first, state)
            state = first
    return state


def column(ctx: Context, value: AbstractValue, axis: int) -> None:
    """Record that the labels of an axis map onto themselves, per position of every fixed context axis."""
    ids = value.ids[axis]
    if isinstance(ids, State):
        return
    code = np.zeros((1,) * ids.ndim, np.int64)
    for k in range(ids.ndim):
        if k != axis and ids.shape[k] > 1 and isinstance(value.ids[k], State):
            shape = [1] * ids.ndim
            shape[k] = ids.shape[k]
            code = code * ids.shape[k] + np.arange(ids.shape[k]).reshape(shape)
    ctx.constraints.column(ids, code)


def in_context(ctx: Context, value: AbstractValue, axis: int, own: Iterable[int] = ()) -> None:
    """Record that fresh labels of an axis follow their context (except the axes `own`)."""
    ids = value.ids[axis]
    if isinstance(ids, State):
        return
    ctx.column(value, axis)
    for k, outer in enumerate(value.ids):
        if k != axis and k not in own and ids.shape[k] > 1 and not isinstance(outer, State):
            _relate_context(ctx, ids, axis, outer, k)


def _relate_context(ctx: Context, ids: Ids, axis: int, outer: Ids, k: int) -> None:
    """Relate labels to the positions of the axis they depend on.

    The four outputs of a convolution in two groups see inputs as [[4, 5], [4, 5], [6, 7], [6, 7]]: an input
    belongs to a group of outputs, not to one of them. Positions in a row that see the same labels therefore
    share a unit, here one for each group, to which both inputs and outputs are related: as many rows as there
    are inputs and outputs, where pairs of both would be their product.
    """
    lines = np.moveaxis(ids, k, 0).reshape(ids.shape[k], -1)
    starts = np.flatnonzero(np.r_[True, (lines[1:] != lines[:-1]).any(1)])
    if len(starts) == len(lines) or outer.size != len(lines):
        ctx.constraints.relate([ids, outer], [(axis,), (k,)])
        return
    runs = ctx.constraints.new_units([len(starts) if j == k else 1 for j in range(ids.ndim)])
    ctx.constraints.relate([ids.take(starts, k), runs], [(axis,), (k,)])
    lengths = np.diff(np.r_[starts, len(lines)])
    ctx.constraints.relate([outer, np.repeat(runs, lengths, k)], [(k,), ()])


def copy(ctx: Context, value: AbstractValue) -> AbstractValue:
    """The same labels for another tensor of the same shape (a view stays a view)."""
    return AbstractValue(
        value.shape, list(value.ids), list(value.exponents), value.view, value.zero, value.splits
    )


# -- exponents --------------------------------------------------------------------------------------


def exponents_meet(ctx: Context, exponents: Sequence[Ids | None]) -> Ids | None:
    """The common exponent of terms that are added: all equal."""
    present = [d for d in exponents if d is not None]
    if not present:
        return None
    base = min(present, key=lambda d: d.size)
    if len(present) < len(exponents):
        for d in present:
            ctx.constraints.exponent_zero(d)
        return None
    for d in present:
        ctx.constraints.exponent_equal(base, d)
    return base


def exponent_forget(
    ctx: Context, exponent: Ids | None, axes: Iterable[int], system: System = System.BOTH
) -> Ids | None:
    """Drop the context of an exponent column: the exponents along it become one."""
    for axis in axes:
        if exponent is not None and exponent.shape[axis] > 1:
            first = exponent.take([0], axis)
            ctx.constraints.exponent_equal(first, exponent, system)
            exponent = first
    return exponent


def cancel(ctx: Context, exponents: Sequence[Ids]) -> None:
    """The exponents along a contracted axis add up to zero."""
    if len(exponents) == 2:
        ctx.constraints.exponent_opposite(exponents[0], exponents[1])
    else:
        for d in exponents:
            ctx.constraints.exponent_zero(d)


def stop(ctx: Context, value: AbstractValue, system: System = System.BOTH) -> AbstractValue:
    """A copy whose exponents are zero in the given system(s), as demanded of the input.

    In one system the function is odd or homogeneous and keeps 0; in both it is any function.
    """
    ctx.bind(value)
    out = ctx.copy(value)
    out.zero = value.zero and system != System.BOTH
    for axis, exponent in enumerate(value.exponents):
        ctx.constraints.exponent_zero(exponent, system)
        if system == System.BOTH:
            out.exponents[axis] = None
    return out


def without(ctx: Context, value: AbstractValue, system: System) -> AbstractValue:
    """A copy whose exponents are zero in `system` where the input's stay free (an even function)."""
    ctx.bind(value)
    out = ctx.copy(value)
    other = System.BOTH ^ system
    for axis, exponent in enumerate(value.exponents):
        if exponent is not None:
            fresh = ctx.constraints.new_exponents(exponent.shape)
            ctx.constraints.exponent_zero(fresh, system)
            if other:
                ctx.constraints.exponent_equal(fresh, exponent, other)
            out.exponents[axis] = fresh
    return out


def opposite(ctx: Context, value: AbstractValue) -> AbstractValue:
    """A copy with negated exponents (the reciprocal)."""
    ctx.bind(value)
    out = ctx.copy(value)
    out.zero = False
    for axis, exponent in enumerate(value.exponents):
        if exponent is not None:
            fresh = ctx.constraints.new_exponents(exponent.shape)
            ctx.constraints.exponent_opposite(fresh, exponent)
            out.exponents[axis] = fresh
    return out
