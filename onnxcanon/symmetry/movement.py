"""Movement: how labels and degrees travel through operators that only rearrange entries.

Everything is index arithmetic on the label arrays: a strided slice, a channel shuffle or a padded residual
is `take`, `split_axis`, `merge_axes` and `concat`. Merging two labelled axes makes composites: fresh units,
one per pair, tied to their parts by a relation; splitting is the same relation read backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from onnxcanon.symmetry.constraints import Ids
from onnxcanon.symmetry.labels import (
    CONTEXT_LIMIT,
    FIXED,
    UNIFORM,
    AxisState,
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
        self.bind(v)
        m = len(sizes)
        out = constant([*v.shape[:axis], *sizes, *v.shape[axis + 1 :]])
        out.zero = v.zero

        def widened(a: Ids) -> Ids:
            inner = list(sizes) if a.shape[axis] > 1 else [1] * m
            return a.reshape([*a.shape[:axis], *inner, *a.shape[axis + 1 :]])

        parts, fresh = self._split_labels(v.ids[axis], axis, sizes, widened)
        wide = [state if isinstance(state, State) else widened(state) for state in v.ids]
        out.ids = [*wide[:axis], *parts, *wide[axis + 1 :]]
        degrees = [None if d is None else widened(d) for d in v.degrees]
        out.degrees = [*degrees[:axis], *[None] * (m - 1), *degrees[axis:]]
        for k in fresh:
            self.in_context(out, k, range(axis, axis + m))
        return out

    def _split_labels(
        self, own: AxisState, axis: int, sizes: Sequence[int], widened: Callable[[Ids], Ids]
    ) -> tuple[list[AxisState], list[int]]:
        """The states of the axes that an axis splits into, and which of them got fresh units. Axes along
        which the labels repeat are positions; a single one along which they vary takes them over."""
        parts: list[AxisState] = [own if isinstance(own, State) else FIXED for _ in sizes]
        fresh: list[int] = []
        if not isinstance(own, State):
            whole = widened(own)
            varying = []
            for k, n in enumerate(sizes, axis):
                first = whole.take([0], k)
                if n > 1 and not (whole == first).all():
                    varying.append(k)
                else:
                    whole = first
            if len(varying) == 1:
                parts[varying[0] - axis] = whole
            elif varying:
                for k in varying:
                    shape = [n if j <= k or j >= axis + len(sizes) else 1 for j, n in enumerate(whole.shape)]
                    parts[k - axis] = self.ledger.new_units(shape)
                lines = [tuple(varying), *((k,) for k in varying)]
                labels = [x for k in varying if not isinstance(x := parts[k - axis], State)]
                self.ledger.relate([whole, *labels], lines, tuple(sizes[k - axis] for k in varying))
                fresh = varying
        return [UNIFORM if n == 1 else s for n, s in zip(sizes, parts, strict=True)], fresh

    def merge_axes(self, v: Labelled, start: int, count: int) -> Labelled:
        """X[…, p, q, …, …] -> X[…, p·q·…, …] (row-major)."""
        self.bind(v)
        sizes = v.shape[start : start + count]
        stop = start + count
        out = constant([*v.shape[:start], prod(sizes), *v.shape[stop:]])
        out.zero = v.zero

        def joined(a: Ids) -> Ids:
            if any(n > 1 for n in a.shape[start:stop]):
                a = np.broadcast_to(a, [*a.shape[:start], *sizes, *a.shape[stop:]])
                return a.reshape([*a.shape[:start], prod(sizes), *a.shape[stop:]])
            return a.reshape([*a.shape[:start], 1, *a.shape[stop:]])

        own = self._composite(v, start, stop)
        several = sum(not isinstance(state, State) for state in v.ids[start:stop]) > 1
        ids = [s if isinstance(s, State) else joined(s) for s in (*v.ids[:start], *v.ids[stop:])]
        out.ids = [*ids[:start], own if isinstance(own, State) else joined(own), *ids[start:]]
        total: Ids | None = None
        for d in v.degrees[start:stop]:
            total = self.ledger.degree_sum(total, d)
        degrees = [None if d is None else joined(d) for d in (*v.degrees[:start], *v.degrees[stop:])]
        out.degrees = [*degrees[:start], None if total is None else joined(total), *degrees[start:]]
        if several:
            self.in_context(out, start)
        return out

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
        """X[s…] -> Y[t…]; `before` and `after` are the shapes under the second probe.

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
            return self.split_axis(v, at, [a for a, _ in outs])
        fine_in, fine_out = fine
        for k in reversed(range(len(ins))):
            if len(fine_in[k]) > 1:
                v = self.split_axis(v, at + k, fine_in[k])
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
