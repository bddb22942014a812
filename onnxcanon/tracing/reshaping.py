"""Reshaping: how labels and exponents travel through operators that only give axes another shape and order.

Merging two labelled axes makes products: fresh units, one per pair, tied to their parts by a relation;
splitting is the same relation read backwards. An axis that was split stays open (`DeferredSplit`)
until something reads its parts: what merges them again, in any order, has the labels they were split from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from onnxcanon.arrays import Ids, Shape
from onnxcanon.tracing.abstract_value import (
    FIXED,
    UNIFORM,
    AbstractValue,
    AxisState,
    DeferredSplit,
    ParameterView,
    State,
    constant,
)
from onnxcanon.tracing.factors import blocks, common_factors

if TYPE_CHECKING:
    from onnxcanon.tracing.context import Context


def transpose(ctx: Context, v: AbstractValue, perm: Sequence[int]) -> AbstractValue:
    """X[…] -> Y[…] with axis k of Y being axis perm[k] of X."""
    out = constant([v.shape[p] for p in perm])
    if v.view is not None:
        out.view = ParameterView(v.view.parameter, tuple(v.view.axes[p] for p in perm), v.view.taken)
    out.ids = [_moved(v.ids[p], perm) for p in perm]
    out.exponents = [_moved_exponent(v.exponents[p], perm) for p in perm]
    out.zero = v.zero
    out.splits = tuple(split.at(list(perm).index(a) for a in split.axes) for split in v.splits)
    return out


def insert(ctx: Context, v: AbstractValue, axis: int) -> AbstractValue:
    """A new axis of size 1."""
    shape = [*v.shape[:axis], 1, *v.shape[axis:]]
    out = constant(shape)
    if v.view is not None:
        out.view = ParameterView(
            v.view.parameter, (*v.view.axes[:axis], None, *v.view.axes[axis:]), v.view.taken
        )
    ids = [i if isinstance(i, State) else np.expand_dims(i, axis) for i in v.ids]
    exponents = [None if d is None else np.expand_dims(d, axis) for d in v.exponents]
    out.ids = [*ids[:axis], UNIFORM, *ids[axis:]]
    out.exponents = [*exponents[:axis], None, *exponents[axis:]]
    out.zero = v.zero
    out.splits = tuple(split.at(a + (a >= axis) for a in split.axes) for split in v.splits)
    return out


def squeeze(ctx: Context, v: AbstractValue, axis: int) -> AbstractValue:
    """Remove an axis of size 1; an exponent it carried moves to another axis."""
    view = v.view
    if view is not None:
        taken = dict(view.taken)
        if (shown := view.axes[axis]) is not None:
            taken[shown[0]] = 0 if shown[1] is None else int(shown[1][0])
        view = ParameterView(view.parameter, (*view.axes[:axis], *view.axes[axis + 1 :]), taken)
    exponents = list(v.exponents)
    carried = exponents[axis]
    if carried is not None:
        home = next((k for k in range(v.rank) if k != axis and carried.shape[k] > 1), None)
        home = next((k for k in range(v.rank) if k != axis), None) if home is None else home
        if home is None:
            ctx.constraints.exponent_zero(carried)
        else:
            exponents[home] = ctx.constraints.exponent_sum(exponents[home], carried)
    out = constant([n for k, n in enumerate(v.shape) if k != axis])
    keep = [k for k in range(v.rank) if k != axis]
    out.ids = [_squeezed(v.ids[k], axis) for k in keep]
    out.exponents = [None if (e := exponents[k]) is None else e.squeeze(axis) for k in keep]
    out.view, out.zero = view, v.zero
    out.splits = tuple(split.at(a - (a > axis) for a in split.axes) for split in v.splits)
    return out


def split_axis(ctx: Context, v: AbstractValue, axis: int, sizes: Sequence[int]) -> AbstractValue:
    """X[…, p·q·…, …] -> X[…, p, q, …, …] (row-major)."""
    out = _split(ctx, v, axis, sizes)
    ctx.materialize(out)
    return out


def _split(ctx: Context, v: AbstractValue, axis: int, sizes: Sequence[int]) -> AbstractValue:
    """X[…, p·q·…, …] -> X[…, p, q, …, …], the parts without labels of their own until something reads
    them."""
    ctx.bind(v)
    m = len(sizes)
    out = constant([*v.shape[:axis], *sizes, *v.shape[axis + 1 :]])
    out.zero = v.zero

    def widened(a: Ids) -> Ids:
        inner = list(sizes) if a.shape[axis] > 1 else [1] * m
        return a.reshape([*a.shape[:axis], *inner, *a.shape[axis + 1 :]])

    own = v.ids[axis]
    still = [UNIFORM if n == 1 or own is UNIFORM else FIXED for n in sizes]
    wide = [state if isinstance(state, State) else widened(state) for state in v.ids]
    out.ids = [*wide[:axis], *still, *wide[axis + 1 :]]
    exponents = [None if d is None else widened(d) for d in v.exponents]
    out.exponents = [*exponents[:axis], *[None] * (m - 1), *exponents[axis:]]
    again = False
    for split in v.splits:
        parts = [range(a, a + m) if a == axis else [a + (m - 1) * (a > axis)] for a in split.axes]
        axes = [a for part in parts for a in part]
        if axis in split.axes:
            _open(ctx, out, axes, split.whole.reshape([out.shape[a] for a in axes]))
            again = True
        else:
            out.splits += (split.at(axes),)
    if not isinstance(own, State) and not again:
        _label_parts(ctx, out, range(axis, axis + m), widened(own))
    return out


def _label_parts(ctx: Context, out: AbstractValue, axes: range, whole: Ids) -> None:
    """Label the axes that one of the labels `whole`, over all axes, was split into. Where these depend on
    other axes the parts get fresh units at once."""
    sizes = [whole.shape[k] for k in axes]
    if whole.size == prod(sizes):
        _open(ctx, out, axes, whole.reshape(sizes))
        return
    whole, varying = _varying(whole, axes)
    if len(varying) == 1:
        out.ids[varying[0]] = whole
    elif varying:
        parts = []
        for k in varying:
            shape = [n if j <= k or j >= axes.stop else 1 for j, n in enumerate(whole.shape)]
            parts.append(ctx.constraints.new_units(shape))
            out.ids[k] = parts[-1]
        lines = [tuple(varying), *((k,) for k in varying)]
        ctx.constraints.relate([whole, *parts], lines, tuple(whole.shape[k] for k in varying))
        for k in varying:
            ctx.in_context(out, k, axes)


def _open(ctx: Context, out: AbstractValue, axes: Sequence[int], whole: Ids) -> None:
    """Label axes together by `whole`, the labels of the one they were split from over them. Axes along
    which these repeat are positions; a single one along which they vary takes them over."""
    whole, varying = _varying(whole, range(len(axes)))
    whole = whole.reshape([whole.shape[k] for k in varying])
    stated = ctx.constraints
    split = DeferredSplit(whole, tuple(axes[k] for k in varying), stated.slot, stated.provenance)
    for axis in axes:
        out.ids[axis] = UNIFORM if out.shape[axis] == 1 else FIXED
    for axis in split.axes:
        out.ids[axis] = split.shown(whole, out.rank)
    if len(varying) > 1:
        out.splits += (split,)


def merge_axes(ctx: Context, v: AbstractValue, start: int, count: int) -> AbstractValue:
    """X[…, p, q, …, …] -> X[…, p·q·…, …] (row-major)."""
    ctx.bind(v)
    stop = start + count
    inside = _inside(ctx, v, start, stop)
    sizes = v.shape[start:stop]
    out = constant([*v.shape[:start], prod(sizes), *v.shape[stop:]])
    out.zero = v.zero

    def joined(a: Ids) -> Ids:
        if any(n > 1 for n in a.shape[start:stop]):
            a = np.broadcast_to(a, [*a.shape[:start], *sizes, *a.shape[stop:]])
            return a.reshape([*a.shape[:start], prod(sizes), *a.shape[stop:]])
        return a.reshape([*a.shape[:start], 1, *a.shape[stop:]])

    own = FIXED if inside else _product(ctx, v, start, stop)
    several = sum(not isinstance(state, State) for state in v.ids[start:stop]) > 1
    ids = [s if isinstance(s, State) else joined(s) for s in (*v.ids[:start], *v.ids[stop:])]
    out.ids = [*ids[:start], own if isinstance(own, State) else joined(own), *ids[start:]]
    total: Ids | None = None
    for d in v.exponents[start:stop]:
        total = ctx.constraints.exponent_sum(total, d)
    exponents = [None if d is None else joined(d) for d in (*v.exponents[:start], *v.exponents[stop:])]
    out.exponents = [*exponents[:start], None if total is None else joined(total), *exponents[start:]]
    for split in v.splits:
        axes = list(dict.fromkeys(a - max(0, min(a - start, count - 1)) for a in split.axes))
        if split is inside:
            index = np.arange(split.whole.size).reshape(split.whole.shape)
            _reopen(ctx, out, axes, split, joined(split.shown(index, v.rank)))
        else:
            out.splits += (split.at(axes),)
    if several and not inside:
        ctx.in_context(out, start)
    return out


def _inside(ctx: Context, v: AbstractValue, start: int, stop: int) -> DeferredSplit | None:
    """The split that all labels of the axes from start to stop are of; others are materialized."""
    axes = {k for k in range(start, stop) if not isinstance(v.ids[k], State)}
    positions = any(v.ids[k] is FIXED for k in range(start, stop))
    for split in v.splits:
        if axes and axes <= set(split.axes) and not (positions and axes < set(split.axes)):
            return split
    if any(axes & set(split.axes) for split in v.splits):
        ctx.materialize(v)
    return None


def _reopen(ctx: Context, out: AbstractValue, axes: Sequence[int], split: DeferredSplit, index: Ids) -> None:
    """Label axes by the labels of a split, of which `index` says the positions, over all axes."""
    order = [*axes, *(k for k in range(out.rank) if k not in axes)]
    index = index.transpose(order).reshape([out.shape[a] for a in axes])
    _open(ctx, out, axes, split.whole.reshape(-1)[index])
    if not np.array_equal(index.reshape(-1), np.arange(split.whole.size)):
        before = split.whole.reshape(1, -1)
        ctx.constraints.selection(before, before[:, index.reshape(-1)], index.reshape(-1))


def _product(ctx: Context, v: AbstractValue, start: int, stop: int) -> AxisState:
    """The labels of a merged block: those of its one labelled axis, repeated along the others; or fresh
    units for the combinations of several, related to these."""
    states = v.ids[start:stop]
    labelled = [k for k in range(start, stop) if not isinstance(v.ids[k], State)]
    if not labelled:
        return FIXED if any(s is FIXED for s in states) else UNIFORM
    parts = [x for k in labelled if not isinstance(x := v.ids[k], State)]
    if len(parts) == 1:
        return parts[0]
    still = [k for k in range(start, stop) if isinstance(v.ids[k], State)]
    parts = [_varying(part, still)[0] for part in parts]
    # A position that labels depend on tells combinations apart as another label would.
    placed = [k for k in still if any(part.shape[k] > 1 for part in parts)]
    for k in placed:
        line = [n if j == k else 1 for j, n in enumerate(v.shape)]
        parts.append(ctx.constraints.positions(v.shape[k]).reshape(line))
    axes = [*labelled, *placed]
    whole = np.broadcast_shapes(*(p.shape for p in parts))
    fresh = ctx.constraints.new_units(whole)
    lines = [tuple(sorted(axes)), *((k,) for k in axes)]
    ctx.constraints.relate([fresh, *parts], lines, tuple(v.shape[k] for k in axes))
    return fresh


def reshape(
    ctx: Context, v: AbstractValue, shape: Shape, before: Shape | None, after: Shape | None
) -> AbstractValue:
    """X[s…] -> Y[t…]; `before` and `after` are the shapes in the second sample."""
    out = ctx.reshape_openly(v, shape, before, after)
    ctx.materialize(out)
    return out


def reshape_openly(
    ctx: Context, v: AbstractValue, shape: Shape, before: Shape | None, after: Shape | None
) -> AbstractValue:
    """X[s…] -> Y[t…], with splits left open: what reads the parts has to materialize them.

    Both shapes are split into the finest common blocks; within a block axes split into the common factors
    and merge again. Where factors do not line up the block is flattened and split anew.
    """
    if v.shape == shape and before == after:
        return ctx.copy(v)
    alive_in = [k for k, n in enumerate(v.shape) if n != 1 or (before is not None and before[k] != 1)]
    alive_out = [k for k, n in enumerate(shape) if n != 1 or (after is not None and after[k] != 1)]
    if prod(v.shape) == 0 or before is None or after is None or len(before) != v.rank:
        ctx.fix_all(v, "reshaped to a size that is not known")
        return constant(shape)
    core = v
    for k in reversed(range(v.rank)):
        if k not in alive_in:
            core = ctx.squeeze(core, k)
    target = [(shape[k], after[k]) for k in alive_out]
    core = _reshape_core(ctx, core, [before[k] for k in alive_in], target)
    for k in range(len(shape)):
        if k not in alive_out:
            core = ctx.insert(core, k)
    return core


def _reshape_core(
    ctx: Context, v: AbstractValue, alt: Sequence[int], target: Sequence[tuple[int, int]]
) -> AbstractValue:
    """Reshape between shapes without size-1 axes, block by block from the left."""
    source = list(zip(v.shape, alt, strict=True))
    if source == list(target):
        return v
    parts = blocks(source, target)
    if parts is None:
        ctx.fix_all(v, "reshaped in a way that depends on a dynamic size")
        return constant([n for n, _ in target])
    at = 0
    for ins, outs in parts:
        if len(ins) == len(outs) == 1:
            at += 1
            continue
        v = _reshape_block(ctx, v, at, ins, outs)
        at += len(outs)
    return v


def _reshape_block(
    ctx: Context, v: AbstractValue, at: int, ins: Sequence[tuple[int, int]], outs: Sequence[tuple[int, int]]
) -> AbstractValue:
    fine = common_factors(list(ins), list(outs))
    if fine is None:
        if any(a != b for a, b in [*ins, *outs]):
            for k in range(at, at + len(ins)):
                v = ctx.gather_unknown(v, k, "reshaped in a way that depends on a dynamic size")
        v = ctx.merge_axes(v, at, len(ins))
        return _split(ctx, v, at, [a for a, _ in outs])
    fine_in, fine_out = fine
    for k in reversed(range(len(ins))):
        if len(fine_in[k]) > 1:
            v = _split(ctx, v, at + k, fine_in[k])
    for k, factors in enumerate(fine_out):
        if len(factors) > 1:
            v = ctx.merge_axes(v, at + k, len(factors))
    return v


def gather_unknown(ctx: Context, v: AbstractValue, axis: int, reason: str) -> AbstractValue:
    """Forget an axis whose positions are chosen at run time: it is fixed, and no context for others."""
    ctx.fix(v, axis, reason)
    out = ctx.copy(v)
    for k in range(v.rank):
        out.ids[k] = ctx.forget(v.ids[k], [axis])
        out.exponents[k] = ctx.exponent_forget(v.exponents[k], [axis])
    return out


def _varying(whole: Ids, axes: Iterable[int]) -> tuple[Ids, list[int]]:
    """Labels reduced to size 1 on those of the axes along which they do not vary, and the other axes."""
    varying = []
    for k in axes:
        first = whole.take([0], k)
        if whole.shape[k] > 1 and not (whole == first).all():
            varying.append(k)
        else:
            whole = first
    return whole, varying


def _moved(state: AxisState, perm: Sequence[int]) -> AxisState:
    return state if isinstance(state, State) else state.transpose(perm)


def _moved_exponent(exponent: Ids | None, perm: Sequence[int]) -> Ids | None:
    return None if exponent is None else exponent.transpose(perm)


def _squeezed(state: AxisState, axis: int) -> AxisState:
    return state if isinstance(state, State) else state.squeeze(axis)
