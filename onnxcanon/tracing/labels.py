"""The helpers every rule is written with: labels are bound, meet, are pinned and contracted.

They read and write `AbstractValue` values and add facts to the constraints; they solve nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np

from onnxcanon.arrays import Ids
from onnxcanon.tracing.abstract_value import (
    FIXED,
    UNIFORM,
    AbstractValue,
    AxisState,
    ParameterView,
    State,
    ValueSequence,
    constant,
)
from onnxcanon.tracing.constraints import ZERO, Constraints, Provenance, Reason, System

CONTEXT_LIMIT = 1 << 16
"""Entries up to which a concatenation keeps separate labels per part; beyond it they are united (sound)."""


def without_circles(context: Mapping[int, Sequence[int]]) -> dict[int, list[int]]:
    """Contexts by axis in which no two axes depend on each other, as no motion of a tensor could: of such
    dependencies the one on the outer axis is kept, and labels along the other are united."""
    kept: dict[int, list[int]] = {}

    def reaches(axis: int, goal: int) -> bool:
        return axis == goal or any(reaches(k, goal) for k in kept.get(axis, ()))

    edges = ((outer, axis) for axis, around in context.items() for outer in around)
    for outer, axis in sorted(edges, key=lambda e: (e[0] > e[1], e)):
        if not reaches(outer, axis):
            kept.setdefault(axis, []).append(outer)
    return kept


class Labels:
    """The helpers. They read and write `AbstractValue`s and add to the constraints; they solve nothing."""

    def __init__(self, constraints: Constraints) -> None:
        self.constraints = constraints
        self.shown: list[tuple[ParameterView, int]] = []

    def at_slot(self, number: int) -> AbstractContextManager[None]:
        """Constraints stated inside are about one input or output of the node."""
        constraints = self.constraints
        return constraints.stated_by(constraints.provenance, (constraints.slot[0], number))

    # -- parameters ---------------------------------------------------------------------------------

    def bind(
        self,
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
            bound = self._bind_axis(view, parameter.ids, shown[0], around, units=True, groups=groups)
            ids = self._as_viewed(view, bound)
            exponents = None
            if parameter.scalable:
                still = axis in carried or axis not in wanted
                exponents = self._bind_axis(
                    view, parameter.exponents, shown[0], around, units=False, zero=still, groups=groups
                )
                exponents = self._as_viewed(view, exponents)
            if axis not in wanted:
                self.pin(ids, Reason.OWN_MEANING)
                self.constraints.exponent_zero(exponents)
                continue
            value.exponents[axis] = exponents
            if size > 1:
                value.ids[axis] = ids
            else:
                self.pin(ids, "one position of it is taken")
            self.shown.append((view, shown[0]))
        for source in view.taken:
            if parameter.shape[source] > 1:
                self.pin(
                    self._bind_axis(view, parameter.ids, source, (), units=True),
                    "one position of it is taken",
                )
                if parameter.scalable:
                    self.constraints.exponent_zero(
                        self._bind_axis(view, parameter.exponents, source, (), units=False, zero=True)
                    )
        if view.taken or any(shown is not None and shown[1] is not None for shown in view.axes):
            for axis in range(value.rank):
                self.column(value, axis)
        return value

    def materialize(self, value: AbstractValue) -> None:
        """Label the parts of axes that were cut, each by units of its own: they are going to be read."""
        constraints = self.constraints
        for cut in value.cuts:
            sizes = cut.whole.shape
            count = len(sizes)
            parts = [constraints.new_units([*sizes[: k + 1], *[1] * (count - k - 1)]) for k in range(count)]
            lines = [tuple(range(count)), *((k,) for k in range(count))]
            with constraints.stated_by(cut.provenance, cut.slot):
                constraints.relate([cut.whole, *parts], lines, sizes)
                for axis, part in zip(cut.axes, parts, strict=True):
                    value.ids[axis] = cut.shown(part, value.rank)
                    constraints.column(part)
        value.cuts = ()

    def _bind_axis(
        self,
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
        view.parameter.readers[source] = view.parameter.readers[source] or self.constraints.provenance.node
        new = self.constraints.new_units if units else self.constraints.new_exponents
        if bound is None:
            # Other taken positions are no context for one that is taken, which is held whatever they are.
            context = {*around, *(() if source in view.taken else view.taken)}
            wide = [n if k == source or k in context else 1 for k, n in enumerate(shape)]
            if groups == 1 and view.whole:
                bound = store[source] = np.full(wide, ZERO) if zero else new(wide)
                return bound
            bound = store[source] = np.full(wide, -1, np.int64)
        chosen = self._chosen(view, bound)
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

    def record_shown(self) -> None:
        """Record how the positions that views show lie in their parameters (matters where labels repeat);
        to be called once every position has its unit."""
        for view, source in self.shown:
            positions = next(shown[1] for shown in view.axes if shown is not None and shown[0] == source)
            bound = view.parameter.ids[source]
            if positions is None or bound is None or bound.shape[source] == 1:
                continue
            mesh = list(self._chosen(view, bound))
            mesh[source] = np.arange(bound.shape[source]).reshape(
                [-1 if k == source else 1 for k in range(bound.ndim)]
            )
            rows = np.moveaxis(bound[tuple(mesh)], source, -1).reshape(-1, bound.shape[source])
            self.constraints.selection(rows, rows[:, positions], positions)

    @staticmethod
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

    @staticmethod
    def _as_viewed(view: ParameterView, array: Ids) -> Ids:
        """Reorder an array over the parameter's axes into the view's axes."""
        order = [source[0] for source in view.axes if source is not None]
        rest = [k for k in range(array.ndim) if k not in order]
        sizes = [1 if source is None else array.shape[source[0]] for source in view.axes]
        return array.transpose(order + rest).reshape(sizes)

    # -- meeting ------------------------------------------------------------------------------------

    def pin(self, ids: AxisState, reason: str) -> None:
        """The labels of an axis, if it has any, may not move."""
        if not isinstance(ids, State):
            self.constraints.pin(ids, Provenance(self.constraints.provenance.node, reason))

    def fix(self, value: AbstractValue, axis: int, reason: str) -> None:
        """Pin one axis of a value: positions, the same ones in every context that moves, scale and sign."""
        self.bind(value)
        self.materialize(value)
        around = (k for k, s in enumerate(value.ids) if k != axis and not isinstance(s, State))
        value.ids[axis] = self.forget(value.ids[axis], around)
        self._hold(value, axis, reason)

    def _hold(self, value: AbstractValue, axis: int, reason: str) -> None:
        self.pin(value.ids[axis], reason)
        self.constraints.exponent_zero(value.exponents[axis])
        value.exponents[axis] = None
        if value.shape[axis] != 1:
            value.ids[axis] = FIXED

    def fix_all(self, value: AbstractValue, reason: str) -> None:
        """Pin every axis of a value (of every tensor of a sequence)."""
        if isinstance(value, ValueSequence):
            for member in value.members:
                self.fix_all(member, reason)
        self.bind(value)
        self.materialize(value)
        for axis in range(value.rank):
            self._hold(value, axis, reason)

    def meet(
        self, states: Sequence[AxisState], reason: str = Reason.MEETS_FIXED, around: Iterable[int] = ()
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
            self.constraints.equal(base, other)
        if any(s is FIXED for s in states):
            self.pin(self.forget(base, around), reason)
            return FIXED
        return base

    def exponents_meet(self, exponents: Sequence[Ids | None]) -> Ids | None:
        """The common exponent of terms that are added: all equal."""
        known = [d for d in exponents if d is not None]
        if not known:
            return None
        base = min(known, key=lambda d: d.size)
        if len(known) < len(exponents):
            for d in known:
                self.constraints.exponent_zero(d)
            return None
        for d in known:
            self.constraints.exponent_equal(base, d)
        return base

    def forget(self, state: AxisState, axes: Iterable[int]) -> AxisState:
        """Drop the context of labels on some axes: the labels along them become one (union)."""
        if isinstance(state, State):
            return state
        for axis in axes:
            if state.shape[axis] > 1:
                first = state.take([0], axis)
                self.constraints.equal(first, state)
                state = first
        return state

    def exponent_forget(
        self, exponent: Ids | None, axes: Iterable[int], system: System = System.BOTH
    ) -> Ids | None:
        """Drop the context of a exponent column: the exponents along it become one."""
        for axis in axes:
            if exponent is not None and exponent.shape[axis] > 1:
                first = exponent.take([0], axis)
                self.constraints.exponent_equal(first, exponent, system)
                exponent = first
        return exponent

    def column(self, value: AbstractValue, axis: int) -> None:
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
        self.constraints.column(ids, code)

    def in_context(self, value: AbstractValue, axis: int, own: Iterable[int] = ()) -> None:
        """Record that fresh labels of an axis follow their context (except the axes `own`)."""
        ids = value.ids[axis]
        if isinstance(ids, State):
            return
        self.column(value, axis)
        for k, outer in enumerate(value.ids):
            if k != axis and k not in own and ids.shape[k] > 1 and not isinstance(outer, State):
                self._relate_context(ids, axis, outer, k)

    def _relate_context(self, ids: Ids, axis: int, outer: Ids, k: int) -> None:
        """Labels and the positions of an axis they depend on; positions in a row that see the same labels, as
        the outputs of one group do, are related through a unit of their own."""
        lines = np.moveaxis(ids, k, 0).reshape(ids.shape[k], -1)
        starts = np.flatnonzero(np.r_[True, (lines[1:] != lines[:-1]).any(1)])
        if len(starts) == len(lines) or outer.size != len(lines):
            self.constraints.relate([ids, outer], [(axis,), (k,)])
            return
        runs = self.constraints.new_units([len(starts) if j == k else 1 for j in range(ids.ndim)])
        self.constraints.relate([ids.take(starts, k), runs], [(axis,), (k,)])
        lengths = np.diff(np.r_[starts, len(lines)])
        self.constraints.relate([outer, np.repeat(runs, lengths, k)], [(k,), ()])

    # -- elementwise --------------------------------------------------------------------------------

    def elementwise(self, values: Sequence[AbstractValue], *, product: bool = False) -> AbstractValue:
        """Broadcasting pointwise combination X…, Y… -> Z. Exponents agree (sum) or add up (`product`)."""
        shape = np.broadcast_shapes(*(v.shape for v in values))
        rank = len(shape)
        self.bind_together(values, rank)
        out = constant(shape)
        moving = _moving([[self._padded(v, axis, rank)[0] for v in values] for axis in range(rank)])
        for axis in range(rank):
            states = [self._padded(v, axis, rank) for v in values]
            out.ids[axis] = self.meet([s for s, _ in states], around=moving - {axis})
            exponents = [d for (_, d), v in zip(states, values, strict=True) if product or not v.zero]
            if product:
                total: Ids | None = None
                for d in exponents:
                    total = self.constraints.exponent_sum(total, d)
                out.exponents[axis] = total
            elif exponents:
                out.exponents[axis] = self.exponents_meet(exponents)
        if product:
            out.zero = any(v.zero for v in values)
        else:
            out.zero = all(v.zero for v in values)
        return out

    def bind_together(self, values: Sequence[AbstractValue], rank: int) -> None:
        """Bind parameters with the contexts that the labels they meet already have."""
        context: dict[int, set[int]] = {}
        for v in values:
            if v.view is None:
                pad = rank - v.rank
                for axis, ids in enumerate(v.ids):
                    if not isinstance(ids, State):
                        near = {k + pad for k in range(v.rank) if k != axis and ids.shape[k] > 1}
                        context[axis + pad] = context.get(axis + pad, near) & near
        for v in values:
            if v.view is not None:
                pad = rank - v.rank
                around = {
                    axis - pad: [k - pad for k in near if k >= pad and v.shape[k - pad] > 1]
                    for axis, near in context.items()
                    if axis >= pad
                }
                self.bind(v, None, around)

    @staticmethod
    def _padded(v: AbstractValue, axis: int, rank: int) -> tuple[AxisState, Ids | None]:
        """State and exponent of axis `axis` of the broadcast result, as operand `v` sees it."""
        pad = rank - v.rank
        if axis < pad:
            return UNIFORM, None
        state, exponent = v.ids[axis - pad], v.exponents[axis - pad]
        if pad:
            if not isinstance(state, State):
                state = state.reshape((1,) * pad + state.shape)
            if exponent is not None:
                exponent = exponent.reshape((1,) * pad + exponent.shape)
        return state, exponent

    def copy(self, value: AbstractValue) -> AbstractValue:
        """The same labels for another tensor of the same shape (a view stays a view)."""
        return AbstractValue(
            value.shape, list(value.ids), list(value.exponents), value.view, value.zero, value.cuts
        )

    # -- contraction --------------------------------------------------------------------------------

    def contract(
        self, values: Sequence[AbstractValue], letters: Sequence[Sequence[str]], out: Sequence[str]
    ) -> AbstractValue:
        """Einstein summation: sum over the letters absent from `out` of the product of the operands.

        A contracted letter makes its labels equal and its exponents cancel; a kept letter makes its labels
        equal and its exponents add up.
        """
        order = list(dict.fromkeys([*out, *(x for word in letters for x in word)]))
        self._bind_contracted(values, letters, out)
        sizes = dict.fromkeys(order, 1)
        for v, word in zip(values, letters, strict=True):
            for n, x in zip(v.shape, word, strict=True):
                sizes[x] = max(sizes[x], n)
        gone = [k for k, x in enumerate(order) if x not in out]
        result = constant([sizes[x] for x in out])
        moving = _moving(
            [[v.ids[w.index(x)] for v, w in zip(values, letters, strict=True) if x in w] for x in order]
        )
        for k, x in enumerate(order):
            seen = [
                (self._spread(v.ids[word.index(x)], word, order), self._spread_exponent(v, word, x, order))
                for v, word in zip(values, letters, strict=True)
                if x in word
            ]
            state = self.meet([s for s, _ in seen], around=moving - {k})
            exponents = [d for _, d in seen if d is not None]
            if k in gone:
                self.cancel(exponents)
                continue
            kept = self.forget(state, gone)
            result.ids[k] = kept if isinstance(kept, State) else kept.reshape(kept.shape[: len(out)])
            total: Ids | None = None
            for d in exponents:
                total = self.constraints.exponent_sum(total, d)
            total = self.exponent_forget(total, gone)
            result.exponents[k] = None if total is None else total.reshape(total.shape[: len(out)])
        return result

    def _bind_contracted(
        self, values: Sequence[AbstractValue], letters: Sequence[Sequence[str]], out: Sequence[str]
    ) -> None:
        """Bind parameters: a contracted letter depends on the batch letters it shares with another operand,
        a kept letter on the kept letters before it."""
        for v, word in zip(values, letters, strict=True):
            if v.view is None:
                continue
            kept = [k for k, x in enumerate(word) if x in out and v.shape[k] > 1]
            context: dict[int, list[int]] = {}
            for k, x in enumerate(word):
                if x in out:
                    context[k] = [c for c in kept if c < k]
                else:
                    near = {
                        y
                        for u, w in zip(values, letters, strict=True)
                        if u is not v and x in w
                        for y, n in zip(w, u.shape, strict=True)
                        if n > 1
                    }
                    context[k] = [c for c in kept if word[c] in near]
            carried = {c for k, cs in context.items() if k in kept for c in cs}
            self.bind(v, None, context, carried)

    @staticmethod
    def _spread(state: AxisState, word: Sequence[str], order: Sequence[str]) -> AxisState:
        """Move labels over an operand's letters into the space of all letters."""
        return state if isinstance(state, State) else _letters(state, word, order)

    @staticmethod
    def _spread_exponent(
        v: AbstractValue, word: Sequence[str], letter: str, order: Sequence[str]
    ) -> Ids | None:
        exponent = v.exponents[word.index(letter)]
        return None if exponent is None else _letters(exponent, word, order)

    def cancel(self, exponents: Sequence[Ids]) -> None:
        """The exponents along a contracted axis add up to zero."""
        if len(exponents) == 2:
            self.constraints.exponent_opposite(exponents[0], exponents[1])
        else:
            for d in exponents:
                self.constraints.exponent_zero(d)

    # -- exponents ------------------------------------------------------------------------------------

    def stop(self, value: AbstractValue, system: System = System.BOTH) -> AbstractValue:
        """A copy whose exponents are zero in the given system(s), as demanded of the input.

        In one system the function is odd or homogeneous and keeps 0; in both it is any function.
        """
        self.bind(value)
        out = self.copy(value)
        out.zero = value.zero and system != System.BOTH
        for axis, exponent in enumerate(value.exponents):
            self.constraints.exponent_zero(exponent, system)
            if system == System.BOTH:
                out.exponents[axis] = None
        return out

    def without(self, value: AbstractValue, system: System) -> AbstractValue:
        """A copy whose exponents are zero in `system` where the input's stay free (an even function)."""
        self.bind(value)
        out = self.copy(value)
        other = System.BOTH ^ system
        for axis, exponent in enumerate(value.exponents):
            if exponent is not None:
                fresh = self.constraints.new_exponents(exponent.shape)
                self.constraints.exponent_zero(fresh, system)
                if other:
                    self.constraints.exponent_equal(fresh, exponent, other)
                out.exponents[axis] = fresh
        return out

    def opposite(self, value: AbstractValue) -> AbstractValue:
        """A copy with negated exponents (the reciprocal)."""
        self.bind(value)
        out = self.copy(value)
        out.zero = False
        for axis, exponent in enumerate(value.exponents):
            if exponent is not None:
                fresh = self.constraints.new_exponents(exponent.shape)
                self.constraints.exponent_opposite(fresh, exponent)
                out.exponents[axis] = fresh
        return out


def _moving(states: Sequence[Sequence[AxisState]]) -> set[int]:
    """The axes that are labelled and meet no fixed one, by the states that meet on each."""
    return {
        axis
        for axis, met in enumerate(states)
        if not any(s is FIXED for s in met) and any(not isinstance(s, State) for s in met)
    }


def _letters(array: Ids, word: Sequence[str], order: Sequence[str]) -> Ids:
    """Transpose an array over `word` into the axes of `order`, with size 1 where a letter is absent."""
    present = [x for x in order if x in word]
    moved = array.transpose([list(word).index(x) for x in present])
    sizes = iter(moved.shape)
    return moved.reshape([next(sizes) if x in word else 1 for x in order])
