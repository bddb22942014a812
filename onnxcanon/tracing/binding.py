"""Parameters get their labels, at the first real use of each axis.

A parameter behind a Transpose, Slice or Cast is a `ParameterView`: which positions of which of its axes stand
where. Only the node that computes with it knows on which other axes the labels of an axis depend (experts,
heads and groups: its *context*), hence labels are handed out there and not where the parameter is read first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxcanon.arrays import Ids
from onnxcanon.tracing.abstract_value import AbstractValue, ParameterView
from onnxcanon.tracing.constraints import ZERO, Reason

if TYPE_CHECKING:
    from onnxcanon.tracing.context import Context


def without_circles(context: Mapping[int, Sequence[int]]) -> dict[int, list[int]]:
    """Contexts by axis in which no two axes depend on each other, as no permutation of a tensor could: of
    such dependencies the one on the outer axis is kept, and labels along the other are united."""
    out: dict[int, list[int]] = {}

    def reaches(axis: int, goal: int) -> bool:
        return axis == goal or any(reaches(k, goal) for k in out.get(axis, ()))

    edges = ((outer, axis) for axis, around in context.items() for outer in around)
    for outer, axis in sorted(edges, key=lambda e: (e[0] > e[1], e)):
        if not reaches(outer, axis):
            out.setdefault(axis, []).append(outer)
    return out


def bind(
    ctx: Context,
    value: AbstractValue,
    axes: Iterable[int] | None = None,
    context: Mapping[int, Sequence[int]] | None = None,
    carried: Iterable[int] | None = None,
    groups: int = 1,
) -> AbstractValue:
    """Label a parameter's axes at its first real use; a value that is bound already stays as it is.

    `context` names for an axis the other axes on which its labels depend (batch-like ones), which they do
    by `groups` of equal size if there are several; the exponents of `carried` axes are zero because
    others that depend on them carry them (default: all contexts).
    """
    view = value.view
    if view is None:
        return value
    value.view = None
    context = without_circles(context or {})
    parameter = view.parameter
    wanted = set(range(value.rank) if axes is None else axes)
    if carried is None:
        carried = {c for cs in context.values() for c in cs}
    carried = set(carried)
    for axis, size in enumerate(value.shape):
        shown = view.axes[axis]
        if shown is None or parameter.shape[shown[0]] == 1:
            continue
        sources = (view.axes[c] for c in context.get(axis, ()))
        around = [source[0] for source in sources if source is not None]
        bound = _bind_axis(ctx, view, parameter.ids, shown[0], around, units=True, groups=groups)
        ids = _as_viewed(view, bound)
        exponents = None
        if parameter.scalable:
            still = axis in carried or axis not in wanted
            exponents = _bind_axis(
                ctx, view, parameter.exponents, shown[0], around, units=False, zero=still, groups=groups
            )
            exponents = _as_viewed(view, exponents)
        if axis not in wanted:
            ctx.pin(ids, Reason.OWN_MEANING)
            ctx.constraints.exponent_zero(exponents)
            continue
        value.exponents[axis] = exponents
        if size > 1:
            value.ids[axis] = ids
        else:
            ctx.pin(ids, "one position of it is taken")
        ctx.shown.append((view, shown[0]))
    for source in view.taken:
        if parameter.shape[source] > 1:
            ctx.pin(
                _bind_axis(ctx, view, parameter.ids, source, (), units=True),
                "one position of it is taken",
            )
            if parameter.scalable:
                ctx.constraints.exponent_zero(
                    _bind_axis(ctx, view, parameter.exponents, source, (), units=False, zero=True)
                )
    if view.taken or any(shown is not None and shown[1] is not None for shown in view.axes):
        for axis in range(value.rank):
            ctx.column(value, axis)
    return value


def materialize(ctx: Context, value: AbstractValue) -> None:
    """Label the parts of axes that were split, each by units of its own: they are going to be read."""
    constraints = ctx.constraints
    for split in value.splits:
        sizes = split.whole.shape
        count = len(sizes)
        parts = [constraints.new_units([*sizes[: k + 1], *[1] * (count - k - 1)]) for k in range(count)]
        lines = [tuple(range(count)), *((k,) for k in range(count))]
        with constraints.stated_by(split.provenance, split.slot):
            constraints.relate([split.whole, *parts], lines, sizes)
            for axis, part in zip(split.axes, parts, strict=True):
                value.ids[axis] = split.shown(part, value.rank)
                constraints.column(part)
    value.splits = ()


def _bind_axis(
    ctx: Context,
    view: ParameterView,
    store: list[Ids | None],
    source: int,
    around: Sequence[int],
    *,
    units: bool,
    zero: bool = False,
    groups: int = 1,
) -> Ids:
    """Allocate what is missing of a parameter axis and return what the view shows of it, over the
    parameter's axes; `around` are the parameter axes it depends on."""
    shape = view.parameter.shape
    bound = store[source]
    view.parameter.readers[source] = view.parameter.readers[source] or ctx.constraints.provenance.node
    new = ctx.constraints.new_units if units else ctx.constraints.new_exponents
    if bound is None:
        # Other taken positions are no context for one that is taken, which stays whatever they are.
        context = {*around, *(() if source in view.taken else view.taken)}
        wide = [n if k == source or k in context else 1 for k, n in enumerate(shape)]
        if groups == 1 and view.whole:
            bound = store[source] = np.full(wide, ZERO) if zero else new(wide)
            return bound
        bound = store[source] = np.full(wide, -1, np.int64)
    chosen = _chosen(view, bound)
    fresh = np.zeros(bound.shape, bool)
    fresh[chosen] = True
    fresh &= bound < 0
    count = int(fresh.sum())
    if count:
        if zero:
            bound[fresh] = ZERO
        elif groups > 1 and count == bound.size and len(around) == 1:
            each = bound.shape[around[0]] // groups
            narrow = [groups if k == around[0] else n for k, n in enumerate(bound.shape)]
            bound[...] = np.repeat(new(narrow), each, around[0])
        else:
            bound[fresh] = new((count,))
    return bound[chosen]


def record_shown(ctx: Context) -> None:
    """Record how the positions that views show lie in their parameters (matters where labels repeat);
    to be called once every position has its unit."""
    for view, source in ctx.shown:
        positions = next(shown[1] for shown in view.axes if shown is not None and shown[0] == source)
        bound = view.parameter.ids[source]
        if positions is None or bound is None or bound.shape[source] == 1:
            continue
        mesh = list(_chosen(view, bound))
        mesh[source] = np.arange(bound.shape[source]).reshape(
            [-1 if k == source else 1 for k in range(bound.ndim)]
        )
        rows = np.moveaxis(bound[tuple(mesh)], source, -1).reshape(-1, bound.shape[source])
        ctx.constraints.selection(rows, rows[:, positions], positions)


def _chosen(view: ParameterView, bound: Ids) -> tuple[Ids, ...]:
    """The open mesh of the positions the view shows, in the parameter's own axes."""
    picks: list[Ids] = [np.arange(n) for n in bound.shape]
    for source in view.axes:
        if source is not None and source[1] is not None and bound.shape[source[0]] > 1:
            picks[source[0]] = source[1]
    for axis, position in view.taken.items():
        if bound.shape[axis] > 1:
            picks[axis] = np.array([position])
    return np.ix_(*picks)


def _as_viewed(view: ParameterView, array: Ids) -> Ids:
    """Reorder an array over the parameter's axes into the view's axes."""
    order = [source[0] for source in view.axes if source is not None]
    rest = [k for k in range(array.ndim) if k not in order]
    sizes = [1 if source is None else array.shape[source[0]] for source in view.axes]
    return array.transpose(order + rest).reshape(sizes)
