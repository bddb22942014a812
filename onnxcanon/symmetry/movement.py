"""Movement: how labels and degrees travel through operators that only rearrange entries.

Everything is index arithmetic on the label arrays: a strided slice, a channel shuffle or a padded residual
is `take`, `split_axis`, `merge_axes` and `concat`. Merging two labelled axes makes composites: fresh units,
one per pair, tied to their parts by a relation; splitting is the same relation read backwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

import numpy as np

from onnxcanon.symmetry.constraints import Ids
from onnxcanon.symmetry.labels import (
    CONTEXT_LIMIT,
    FIXED,
    UNIFORM,
    AxisState,
    Cut,
    Labelled,
    Labels,
    State,
    View,
    constant,
)

Shape = tuple[int, ...]


class Movement(Labels):
    """Helpers for the movement operators; every helper returns a new value and leaves its argument alone."""

    # -- order and size-1 axes ----------------------------------------------------------------------

    def transpose(self, v: Labelled, perm: Sequence[int]) -> Labelled:
        """X[…] -> Y[…] with axis k of Y being axis perm[k] of X."""
        out = constant([v.shape[p] for p in perm])
        if v.view is not None:
            out.view = View(v.view.parameter, tuple(v.view.axes[p] for p in perm), v.view.taken)
        out.ids = [_moved(v.ids[p], perm) for p in perm]
        out.degrees = [_moved_degree(v.degrees[p], perm) for p in perm]
        out.zero = v.zero
        out.cuts = tuple(cut.at(list(perm).index(a) for a in cut.axes) for cut in v.cuts)
        return out

    def insert(self, v: Labelled, axis: int) -> Labelled:
        """A new axis of size 1."""
        shape = [*v.shape[:axis], 1, *v.shape[axis:]]
        out = constant(shape)
        if v.view is not None:
            out.view = View(v.view.parameter, (*v.view.axes[:axis], None, *v.view.axes[axis:]), v.view.taken)
        ids = [i if isinstance(i, State) else np.expand_dims(i, axis) for i in v.ids]
        degrees = [None if d is None else np.expand_dims(d, axis) for d in v.degrees]
        out.ids = [*ids[:axis], UNIFORM, *ids[axis:]]
        out.degrees = [*degrees[:axis], None, *degrees[axis:]]
        out.zero = v.zero
        out.cuts = tuple(cut.at(a + (a >= axis) for a in cut.axes) for cut in v.cuts)
        return out

    def squeeze(self, v: Labelled, axis: int) -> Labelled:
        """Remove an axis of size 1; a degree it carried moves to another axis."""
        view = v.view
        if view is not None and view.axes[axis] is not None:
            source, positions = view.axes[axis]  # type: ignore[misc]
            taken = {**view.taken, source: 0 if positions is None else int(positions[0])}
            view = View(view.parameter, (*view.axes[:axis], *view.axes[axis + 1 :]), taken)
        elif view is not None:
            view = View(view.parameter, (*view.axes[:axis], *view.axes[axis + 1 :]), view.taken)
        degrees = list(v.degrees)
        carried = degrees[axis]
        if carried is not None:
            home = next((k for k in range(v.rank) if k != axis and carried.shape[k] > 1), None)
            home = next((k for k in range(v.rank) if k != axis), None) if home is None else home
            if home is None:
                self.ledger.degree_zero(carried)
            else:
                degrees[home] = self.ledger.degree_sum(degrees[home], carried)
        out = constant([n for k, n in enumerate(v.shape) if k != axis])
        keep = [k for k in range(v.rank) if k != axis]
        out.ids = [_squeezed(v.ids[k], axis) for k in keep]
        out.degrees = [None if degrees[k] is None else degrees[k].squeeze(axis) for k in keep]  # type: ignore[union-attr]
        out.view, out.zero = view, v.zero
        out.cuts = tuple(cut.at(a - (a > axis) for a in cut.axes) for cut in v.cuts)
        return out

    # -- taking positions ---------------------------------------------------------------------------

    def take(self, v: Labelled, axis: int, index: Ids) -> Labelled:
        """X[…, n, …] -> X[…, index, …], index int64 [m] within 0 … n-1, repetitions allowed."""
        index = np.asarray(index, np.int64)
        n = v.shape[axis]
        if len(index) == n and n > 0 and bool((index == np.arange(n)).all()):
            return self.copy(v)
        shape = [*v.shape[:axis], len(index), *v.shape[axis + 1 :]]
        out = constant(shape)
        out.zero = v.zero
        if v.view is not None:
            source = v.view.axes[axis]
            if source is not None and len(set(index.tolist())) == len(index):
                old = source[1]
                new = (source[0], index if old is None else old[index])
                out.view = View(
                    v.view.parameter, (*v.view.axes[:axis], new, *v.view.axes[axis + 1 :]), v.view.taken
                )
                return out
            self.bind(v)
        for k in range(v.rank):
            out.ids[k] = _taken(v.ids[k], axis, index)
            degree = v.degrees[k]
            if degree is not None:
                out.degrees[k] = degree.take(index, axis) if degree.shape[axis] > 1 else degree
        self._record_take(v, out, axis, index)
        if len(index) == 1:
            out.ids[axis] = UNIFORM
        return out

    def _record_take(self, v: Labelled, out: Labelled, axis: int, index: Ids) -> None:
        before, after = v.ids[axis], out.ids[axis]
        if not isinstance(before, State) and not isinstance(after, State):
            self.column(out, axis)
            self.ledger.movement(
                np.moveaxis(before, axis, -1).reshape(-1, before.shape[axis]),
                np.moveaxis(after, axis, -1).reshape(-1, after.shape[axis]),
                index,
            )
        for k in range(v.rank):
            ids = out.ids[k]
            if k != axis and not isinstance(ids, State) and ids.shape[axis] > 1:
                self.column(out, k)

    def gather_unknown(self, v: Labelled, axis: int, reason: str) -> Labelled:
        """Forget an axis whose positions are chosen at run time: it is fixed, and no context for others."""
        self.fix(v, axis, reason)
        out = self.copy(v)
        for k in range(v.rank):
            out.ids[k] = self.forget(v.ids[k], [axis])
            out.degrees[k] = self.degree_forget(v.degrees[k], [axis])
        return out

    # -- splitting and merging ----------------------------------------------------------------------

    def split_axis(self, v: Labelled, axis: int, sizes: Sequence[int]) -> Labelled:
        """X[…, p·q·…, …] -> X[…, p, q, …, …] (row-major)."""
        out = self._split(v, axis, sizes)
        self.settle(out)
        return out

    def _split(self, v: Labelled, axis: int, sizes: Sequence[int]) -> Labelled:
        """The same, with the cut left open where it can be."""
        self.bind(v)
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
        degrees = [None if d is None else widened(d) for d in v.degrees]
        out.degrees = [*degrees[:axis], *[None] * (m - 1), *degrees[axis:]]
        again = False
        for cut in v.cuts:
            parts = [range(a, a + m) if a == axis else [a + (m - 1) * (a > axis)] for a in cut.axes]
            axes = [a for part in parts for a in part]
            if axis in cut.axes:
                self._open(out, axes, cut.whole.reshape([out.shape[a] for a in axes]))
                again = True
            else:
                out.cuts += (cut.at(axes),)
        if not isinstance(own, State) and not again:
            self._label_parts(out, range(axis, axis + m), widened(own))
        return out

    def _label_parts(self, out: Labelled, axes: range, whole: Ids) -> None:
        """Label the axes that one of the labels `whole`, over all axes, was cut into. Where these depend on
        other axes the parts get fresh units at once."""
        sizes = [whole.shape[k] for k in axes]
        if whole.size == prod(sizes):
            self._open(out, axes, whole.reshape(sizes))
            return
        whole, varying = _varying(whole, axes)
        if len(varying) == 1:
            out.ids[varying[0]] = whole
        elif varying:
            parts = []
            for k in varying:
                shape = [n if j <= k or j >= axes.stop else 1 for j, n in enumerate(whole.shape)]
                parts.append(self.ledger.new_units(shape))
                out.ids[k] = parts[-1]
            lines = [tuple(varying), *((k,) for k in varying)]
            self.ledger.relate([whole, *parts], lines, tuple(whole.shape[k] for k in varying))
            for k in varying:
                self.in_context(out, k, axes)

    def _open(self, out: Labelled, axes: Sequence[int], whole: Ids) -> None:
        """Label axes together by `whole`, the labels of the one they were cut from over them. Axes along
        which these repeat are positions; a single one along which they vary takes them over."""
        whole, varying = _varying(whole, range(len(axes)))
        whole = whole.reshape([whole.shape[k] for k in varying])
        cut = Cut(whole, tuple(axes[k] for k in varying), self.ledger.place, self.cause)
        for axis in axes:
            out.ids[axis] = UNIFORM if out.shape[axis] == 1 else FIXED
        for axis in cut.axes:
            out.ids[axis] = cut.shown(whole, out.rank)
        if len(varying) > 1:
            out.cuts += (cut,)

    def merge_axes(self, v: Labelled, start: int, count: int) -> Labelled:
        """X[…, p, q, …, …] -> X[…, p·q·…, …] (row-major)."""
        self.bind(v)
        stop = start + count
        inside = self._inside(v, start, stop)
        sizes = v.shape[start:stop]
        out = constant([*v.shape[:start], prod(sizes), *v.shape[stop:]])
        out.zero = v.zero

        def joined(a: Ids) -> Ids:
            if any(n > 1 for n in a.shape[start:stop]):
                a = np.broadcast_to(a, [*a.shape[:start], *sizes, *a.shape[stop:]])
                return a.reshape([*a.shape[:start], prod(sizes), *a.shape[stop:]])
            return a.reshape([*a.shape[:start], 1, *a.shape[stop:]])

        own = FIXED if inside else self._composite(v, start, stop)
        several = sum(not isinstance(state, State) for state in v.ids[start:stop]) > 1
        ids = [s if isinstance(s, State) else joined(s) for s in (*v.ids[:start], *v.ids[stop:])]
        out.ids = [*ids[:start], own if isinstance(own, State) else joined(own), *ids[start:]]
        total: Ids | None = None
        for d in v.degrees[start:stop]:
            total = self.ledger.degree_sum(total, d)
        degrees = [None if d is None else joined(d) for d in (*v.degrees[:start], *v.degrees[stop:])]
        out.degrees = [*degrees[:start], None if total is None else joined(total), *degrees[start:]]
        for cut in v.cuts:
            axes = list(dict.fromkeys(a - max(0, min(a - start, count - 1)) for a in cut.axes))
            if cut is inside:
                self._reopen(
                    out,
                    axes,
                    cut,
                    joined(cut.shown(np.arange(cut.whole.size).reshape(cut.whole.shape), v.rank)),
                )
            else:
                out.cuts += (cut.at(axes),)
        if several and not inside:
            self.in_context(out, start)
        return out

    def _inside(self, v: Labelled, start: int, stop: int) -> Cut | None:
        """The cut that all labels of the axes from start to stop are of; other cuts of these are settled."""
        axes = {k for k in range(start, stop) if not isinstance(v.ids[k], State)}
        positions = any(v.ids[k] is FIXED for k in range(start, stop))
        for cut in v.cuts:
            if axes and axes <= set(cut.axes) and not (positions and axes < set(cut.axes)):
                return cut
        if any(axes & set(cut.axes) for cut in v.cuts):
            self.settle(v)
        return None

    def _reopen(self, out: Labelled, axes: Sequence[int], cut: Cut, index: Ids) -> None:
        """Label axes by the labels of a cut, of which `index` says the positions, over all axes."""
        order = [*axes, *(k for k in range(out.rank) if k not in axes)]
        index = index.transpose(order).reshape([out.shape[a] for a in axes])
        self._open(out, axes, cut.whole.reshape(-1)[index])
        if not np.array_equal(index.reshape(-1), np.arange(cut.whole.size)):
            before = cut.whole.reshape(1, -1)
            self.ledger.movement(before, before[:, index.reshape(-1)], index.reshape(-1))

    def _composite(self, v: Labelled, start: int, stop: int) -> AxisState:
        """The labels of a merged block: those of its one labelled axis, repeated along the others; or fresh
        units for the combinations of several, related to these."""
        states = v.ids[start:stop]
        labelled = [k for k in range(start, stop) if not isinstance(v.ids[k], State)]
        if not labelled:
            return FIXED if any(s is FIXED for s in states) else UNIFORM
        parts = [x for k in labelled if not isinstance(x := v.ids[k], State)]
        if len(parts) == 1:
            return parts[0]
        whole = np.broadcast_shapes(*(p.shape for p in parts))
        fresh = self.ledger.new_units(whole)
        lines = [tuple(labelled), *((k,) for k in labelled)]
        self.ledger.relate([fresh, *parts], lines, tuple(v.shape[k] for k in labelled))
        return fresh

    def reshape(self, v: Labelled, shape: Shape, before: Shape | None, after: Shape | None) -> Labelled:
        """X[s…] -> Y[t…]; `before` and `after` are the shapes under the second probe."""
        out = self.reshape_openly(v, shape, before, after)
        self.settle(out)
        return out

    def reshape_openly(
        self, v: Labelled, shape: Shape, before: Shape | None, after: Shape | None
    ) -> Labelled:
        """The same, with cuts left open: whoever reads the result has to settle it.

        Both shapes are cut into the finest common blocks; within a block axes split into the common factors
        and merge again. Where factors do not line up the block is flattened and cut anew.
        """
        if v.shape == shape:
            return self.copy(v)
        alive_in = [k for k, n in enumerate(v.shape) if n != 1 or (before is not None and before[k] != 1)]
        alive_out = [k for k, n in enumerate(shape) if n != 1 or (after is not None and after[k] != 1)]
        if prod(v.shape) == 0 or before is None or after is None or len(before) != v.rank:
            self.fix_all(v, "reshaped to a size that is not known")
            return constant(shape)
        core = v
        for k in reversed(range(v.rank)):
            if k not in alive_in:
                core = self.squeeze(core, k)
        target = [(shape[k], after[k]) for k in alive_out]
        core = self._reshape_core(core, [before[k] for k in alive_in], target)
        for k in range(len(shape)):
            if k not in alive_out:
                core = self.insert(core, k)
        return core

    def _reshape_core(self, v: Labelled, alt: Sequence[int], target: Sequence[tuple[int, int]]) -> Labelled:
        """Reshape between shapes without size-1 axes, block by block from the left."""
        source = list(zip(v.shape, alt, strict=True))
        if source == list(target):
            return v
        blocks = _blocks(source, target)
        if blocks is None:
            self.fix_all(v, "reshaped in a way that depends on a dynamic size")
            return constant([n for n, _ in target])
        at = 0
        for ins, outs in blocks:
            if len(ins) == len(outs) == 1:
                at += 1
                continue
            v = self._reshape_block(v, at, ins, outs)
            at += len(outs)
        return v

    def _reshape_block(
        self, v: Labelled, at: int, ins: Sequence[tuple[int, int]], outs: Sequence[tuple[int, int]]
    ) -> Labelled:
        fine = _common_factors(list(ins), list(outs))
        if fine is None:
            if any(a != b for a, b in [*ins, *outs]):
                for k in range(at, at + len(ins)):
                    v = self.gather_unknown(v, k, "reshaped in a way that depends on a dynamic size")
            v = self.merge_axes(v, at, len(ins))
            return self._split(v, at, [a for a, _ in outs])
        fine_in, fine_out = fine
        for k in reversed(range(len(ins))):
            if len(fine_in[k]) > 1:
                v = self._split(v, at + k, fine_in[k])
        for k, factors in enumerate(fine_out):
            if len(factors) > 1:
                v = self.merge_axes(v, at + k, len(factors))
        return v

    # -- joining ------------------------------------------------------------------------------------

    def concat(self, values: Sequence[Labelled], axis: int) -> Labelled:
        """X1[…, n1, …], X2[…, n2, …] -> Y[…, n1 + n2, …]."""
        values = [v for v in values if v.shape[axis] > 0]
        if len(values) == 1:
            return self.copy(values[0])
        self.bind_together(values, values[0].rank)
        shape = list(values[0].shape)
        shape[axis] = sum(v.shape[axis] for v in values)
        out = constant(shape)
        out.zero = all(v.zero for v in values)
        for k in range(len(shape)):
            if k == axis:
                out.ids[k] = self._joined_axis(values, axis)
                out.degrees[k] = self._joined_degree(values, k, axis)
            else:
                out.ids[k] = self._beside(values, k, axis)
                out.degrees[k] = self._joined_degree(values, k, axis)
        return out

    def _joined_axis(self, values: Sequence[Labelled], axis: int) -> AxisState:
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
                state_ids = self.ledger.new_units(shape)
                alone = v.shape[axis] == 1
                with self.slot(slot):
                    if state is FIXED or not v.zero:
                        self.pin(
                            state_ids, "a single position" if alone else "concatenated with a fixed axis"
                        )
                    self.ledger.column(state_ids)
                pieces.append(state_ids)
            else:
                with self.slot(slot):
                    self.column(v, axis)
                pieces.append(state)
        around = np.broadcast_shapes(
            *([1 if k == axis else n for k, n in enumerate(p.shape)] for p in pieces)
        )
        wide = [
            np.broadcast_to(p, [p.shape[axis] if k == axis else n for k, n in enumerate(around)])
            for p in pieces
        ]
        joined = np.concatenate(wide, axis)
        rows = np.moveaxis(joined, axis, -1).reshape(-1, joined.shape[axis])
        ends = np.cumsum([p.shape[axis] for p in wide])
        for slot, (p, end) in enumerate(zip(wide, ends, strict=True)):
            with self.slot(slot):
                taken = np.arange(end - p.shape[axis], end)
                self.ledger.movement(rows, rows[:, taken], taken)
        return joined

    def _beside(self, values: Sequence[Labelled], k: int, axis: int) -> AxisState:
        """Labels of another axis: kept apart part by part while that is cheap, united beyond."""
        states = [v.ids[k] for v in values]
        labelled = [s for s in states if not isinstance(s, State)]
        if not labelled or any(s is FIXED for s in states):
            return self.meet(states, "concatenated with a fixed axis")
        if all(s is labelled[0] for s in labelled) and labelled[0].shape[axis] == 1:
            return labelled[0]
        total = sum(v.shape[axis] for v in values)
        around = np.broadcast_shapes(
            *([1 if j == axis else n for j, n in enumerate(s.shape)] for s in labelled)
        )
        if prod(around) * total > CONTEXT_LIMIT:
            return self.meet([self.forget(s, [axis]) for s in states])
        wide = []
        for v, s in zip(values, states, strict=True):
            chosen = labelled[0].take([0], axis) if isinstance(s, State) else s
            wide.append(
                np.broadcast_to(chosen, [v.shape[axis] if j == axis else n for j, n in enumerate(around)])
            )
        return np.concatenate(wide, axis)

    def _joined_degree(self, values: Sequence[Labelled], k: int, axis: int) -> Ids | None:
        """Degree column of axis `k` after concatenation along `axis`; zero parts take any degree."""
        degrees = [v.degrees[k] for v in values]
        known = [d for d in degrees if d is not None]
        if not known:
            return None
        if k != axis and all(d is known[0] for d in degrees) and known[0].shape[axis] == 1:
            return known[0]
        around = np.broadcast_shapes(*([1 if j == axis else n for j, n in enumerate(d.shape)] for d in known))
        total = sum(v.shape[axis] for v in values)
        if prod(around) * total > CONTEXT_LIMIT and k != axis:
            return self.degrees_meet([self.degree_forget(d, [axis]) for d in degrees])
        wide = []
        for v, d in zip(values, degrees, strict=True):
            shape = [v.shape[axis] if j == axis else n for j, n in enumerate(around)]
            if d is None:
                d = self.ledger.new_degrees(shape) if v.zero else np.zeros(shape, np.int64)
            wide.append(np.broadcast_to(d, shape))
        return np.concatenate(wide, axis)

    def pad(self, v: Labelled, axis: int, before: int, after: int, *, zero: bool) -> Labelled:
        """Constant padding of one axis: [n] -> [before + n + after]."""
        self.bind(v)
        if isinstance(v.ids[axis], State):
            out = self.copy(v)
            for k in range(v.rank):
                if k != axis:
                    out.ids[k] = self.forget(v.ids[k], [axis])
                    out.degrees[k] = self.degree_forget(v.degrees[k], [axis])
            if v.degrees[axis] is not None:
                self.ledger.degree_zero(v.degrees[axis])
                out.degrees[axis] = None
            if not zero:
                out = self.stop(out)
            out.shape = (*v.shape[:axis], before + v.shape[axis] + after, *v.shape[axis + 1 :])
            out.ids[axis] = FIXED
            out.zero = v.zero and zero
            return out

        def filler(n: int) -> Labelled:
            shape = [*v.shape[:axis], n, *v.shape[axis + 1 :]]
            return constant(shape, UNIFORM, zero=zero)

        return self.concat([filler(before), v, filler(after)], axis)

    def expand(self, v: Labelled, shape: Shape) -> Labelled:
        """Broadcast to a shape: the new positions are uniform."""
        return (
            self.elementwise([v, constant(shape, UNIFORM, zero=True)])
            if v.view is None
            else self._expand_view(v, shape)
        )

    def _expand_view(self, v: Labelled, shape: Shape) -> Labelled:
        full = np.broadcast_shapes(v.shape, shape)
        if full == v.shape:
            return self.copy(v)
        self.bind(v)
        return self.expand(v, shape)

    # -- reductions ---------------------------------------------------------------------------------

    def reduce(self, v: Labelled, axes: Sequence[int], *, keepdims: bool) -> Labelled:
        """A symmetric reduction (sum, mean, max, …) over axes; the degree along each must be constant."""
        self.bind(v)
        out = self.copy(v)
        for axis in axes:
            degree = v.degrees[axis]
            if degree is not None:
                out.degrees[axis] = self.degree_forget(degree, [axis])
        for k in range(v.rank):
            out.ids[k] = UNIFORM if k in axes else self.forget(v.ids[k], axes)
            out.degrees[k] = self.degree_forget(out.degrees[k], axes)
        out.shape = tuple(1 if k in axes else n for k, n in enumerate(v.shape))
        if not keepdims:
            for axis in sorted(axes, reverse=True):
                out = self.squeeze(out, axis)
        return out


def _varying(whole: Ids, axes: Iterable[int]) -> tuple[Ids, list[int]]:
    """Labels without the axes, of those given, along which they do not vary, and the others."""
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


def _moved_degree(degree: Ids | None, perm: Sequence[int]) -> Ids | None:
    return None if degree is None else degree.transpose(perm)


def _squeezed(state: AxisState, axis: int) -> AxisState:
    return state if isinstance(state, State) else state.squeeze(axis)


def _taken(state: AxisState, axis: int, index: Ids) -> AxisState:
    if isinstance(state, State) or state.shape[axis] == 1:
        return state
    return state.take(index, axis)


Sizes = list[tuple[int, int]]


def _blocks(source: Sizes, target: Sequence[tuple[int, int]]) -> list[tuple[Sizes, Sizes]] | None:
    """Cut two shapes, given as (first probe, second probe) pairs, into the finest blocks of equal product."""
    blocks: list[tuple[Sizes, Sizes]] = []
    i = j = 0
    while i < len(source) and j < len(target):
        ins, outs = [source[i]], [target[j]]
        (a, x), (b, y) = source[i], target[j]
        i, j = i + 1, j + 1
        while (a, x) != (b, y):
            if (a < b or (a == b and x < y)) and i < len(source):
                a, x = a * source[i][0], x * source[i][1]
                ins.append(source[i])
                i += 1
            elif j < len(target):
                b, y = b * target[j][0], y * target[j][1]
                outs.append(target[j])
                j += 1
            else:
                return None
        blocks.append((ins, outs))
    return blocks if i == len(source) and j == len(target) else None


def _common_factors(ins: Sizes, outs: Sizes) -> tuple[list[list[int]], list[list[int]]] | None:
    """The factors (first probe) both lists of sizes are products of, grouped for each list; None where they
    do not line up under both probes."""
    cuts = sorted({*_products(ins), *_products(outs)})
    factors, last = [], (1, 1)
    for cut in cuts:
        if cut[0] % last[0] or cut[1] % last[1]:
            return None
        factors.append((cut[0] // last[0], cut[1] // last[1]))
        last = cut

    def grouped(sizes: Sizes) -> list[list[int]]:
        groups, rest = [], iter(factors)
        for size in sizes:
            group, have = [], (1, 1)
            while have != size:
                f = next(rest)
                group.append(f[0])
                have = (have[0] * f[0], have[1] * f[1])
            groups.append(group)
        return groups

    return grouped(ins), grouped(outs)


def _products(sizes: Sizes) -> list[tuple[int, int]]:
    """Running products of (first, second) sizes."""
    out, a, b = [], 1, 1
    for x, y in sizes:
        a, b = a * x, b * y
        out.append((a, b))
    return out
