"""Both answers side by side, and the reason where the analyzer's is smaller."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, islice, permutations

import numpy as np

from onnxcanon.action import move
from onnxcanon.model import load
from onnxcanon.symmetry import Symmetry, symmetry
from onnxcanon.tracing.abstract_value import AbstractValue, State
from tests.brute_force.function import Function, Places
from tests.brute_force.groups import chain, products
from tests.brute_force.oracle import Oracle, TooHard
from tests.fuzz.graphs import Case


class Reason(StrEnum):
    """Why the analyzer's group may be smaller than the one searched for: the whole list."""

    IRREGULAR = "an axis permutation is missed: the analyzer reports an irregular structure it holds"
    PINNED = "an axis permutation is missed: the analyzer pins units it moves, with a cause"
    BARRIER = "an axis permutation is missed: the analyzer reports a node it does not see through"
    REPEATED = "positions of an axis that read the same unit change places; ours keep the order of occurrence"
    REJOINED = "an axis permutation is missed: slices joined again as they were are held each to itself"
    ARITHMETIC = "operands of a commutative operator change roles, or terms of one sum"
    CONTEXT = "a permutation of an axis that depends on the position along another"
    ENTRIES = "entries of one parameter change places one by one"
    PARAMETERS = "whole parameters change places"
    ACROSS = "entries of different parameters change places one by one"


class Failure(StrEnum):
    """What must not happen."""

    UNSOUND = "an element of the analyzer's group changes the function"
    UNFAITHFUL = "the analyzer's group does not have the order it says"
    DEFECT = "the certificate failed"
    MISSED = "an axis permutation is missed for no stated reason"


GENERATORS = 16
"""Random elements that stand for a group; so many generate it but for one case in thousands."""

MOST, TRIED = 8, 24
"""Axes that bear one unit repeatedly, and orders of its positions, that are tried."""


@dataclass
class Result:
    """Orders of the analyzer's group and of the one searched for; an element the analyzer misses."""

    ours: int = 1
    whole: int = 1
    reason: Reason | Failure | None = None
    missed: Places | None = None
    hard: bool = False

    @property
    def failed(self) -> bool:
        return isinstance(self.reason, Failure)

    @property
    def word(self) -> str:
        return "too hard to search" if self.hard else self.reason.name if self.reason else "equal"


def compare(case: Case, seed: int = 0) -> Result:
    """The analyzer's group and the brute-force one of the same graph."""
    f = Function(case, seed)
    found = symmetry(load(case.proto))
    if found.solution.failures:
        return Result(reason=Failure.DEFECT)
    ours = chain(f.count, lambda: _drawn(f, found))
    result = Result(ours.order)
    if not all(f.keeps(_drawn(f, found)) for _ in range(6)):
        result.reason = Failure.UNSOUND
    elif abs(np.log10(float(ours.order)) - found.log10_orbit) > 1e-6:
        result.reason = Failure.UNFAITHFUL
    else:
        _search(case, f, found, result)
    return result


def _search(case: Case, f: Function, found: Symmetry, result: Result) -> None:
    """Find the whole group; if it is larger, an element of the smallest class that shows it."""
    drawn = [_drawn(f, found) for _ in range(GENERATORS)]
    if any((f.read[g] != f.read).any() for g in drawn):
        result.hard = True  # the samples leave some entries idle that others tell apart
        return
    drawn = [np.where(f.read, g, np.arange(f.count)) for g in drawn]
    ours = chain(f.count, lambda: np.where(f.read, _drawn(f, found), np.arange(f.count)))
    try:
        oracle = Oracle(f)
        whole = oracle.group("all")
        result.whole = whole.order
        if ours.order == whole.order:
            return
        repeats = [g for g in _repeats(f, found) if f.keeps(g)]
        repeats += [g for g in oracle.group("axes").generators if _keeps_units(f, found, g)]
        wider = chain(f.count, products([*drawn, *repeats], f.rng)) if repeats else ours
        for kind in ("axes", "within", "all"):
            group = whole if kind == "all" else oracle.group(kind)
            if missing := [g for g in group.generators if g not in wider]:
                result.missed = missing[0]
                result.reason = _reason(f, found, kind, missing[0])
                if result.reason == Failure.MISSED and _joins_slices(found, f, missing[0]):
                    result.reason = Reason.REJOINED
                if kind == "axes" and not Function(case, tagged=True).keeps(missing[0]):
                    result.reason = Reason.ARITHMETIC
                return
        result.reason = Reason.REPEATED if ours.order < whole.order else Failure.UNSOUND
    except TooHard:
        result.hard = True


def _repeats(f: Function, found: Symmetry) -> Iterator[Places]:
    """Other orders of the positions along an axis that bear the same unit, on some of the axes that have as
    many of them."""
    sites: dict[tuple[int, ...], list[tuple[str, int, list[int]]]] = {}
    for name, axis, classes in _labelled_axes(f, found):
        lines = np.moveaxis(classes, axis, 0).reshape(classes.shape[axis], -1)
        _, line = np.unique(lines, axis=0, return_inverse=True)
        for number in np.flatnonzero(np.bincount(line.reshape(-1)) > 1):
            at = np.flatnonzero(line.reshape(-1) == number).tolist()
            sites.setdefault((*np.unique(lines[at[0]]), -len(at)), []).append((name, axis, at))
    for known in sites.values():
        for chosen in (c for n in range(1, len(known) + 1) for c in combinations(known[:MOST], n)):
            for order in islice(permutations(range(len(known[0][2]))), 1, TRIED):
                places = _reordered(f, chosen, order)
                if (f.read[places] == f.read).all():
                    yield np.where(f.read, places, np.arange(f.count))


def _keeps_units(f: Function, found: Symmetry, g: Places) -> bool:
    """Whether every entry goes to positions that bear the same units; along axes without any it stays."""
    units = {(name, axis): classes for name, axis, classes in _labelled_axes(f, found)}
    for name, where in f.slices.items():
        for axis, positions in enumerate(np.indices(f.shapes[name])):
            own = np.broadcast_to(units.get((name, axis), positions), positions.shape).reshape(-1)
            if (own[g[where] - where.start] != own).any():
                return False
    return True


def _labelled_axes(f: Function, found: Symmetry) -> Iterator[tuple[str, int, Places]]:
    """Parameters, those in stacks one by one, with their axes and the classes along these; composites of the
    same parts count as one class."""
    alike = np.arange(found.solution.count)
    for relation in (r for r in found.trace.constraints.relations if r.key is not None):
        rows = found.solution.classes[relation.rows]
        _, first, number = np.unique(rows[:, 1:], axis=0, return_index=True, return_inverse=True)
        alike[rows[:, 0]] = alike[rows[first[number.reshape(-1)], 0]]
    for name, axes in found.classes.items():
        members = found.stacks.get(name)
        for axis, classes in ((a, alike[c]) for a, c in axes.items()):
            if members is None and name in f.slices:
                yield name, axis, classes
            elif members is not None and axis > 0:
                each = np.broadcast_to(classes, (len(members), *classes.shape[1:]))
                yield from ((m, axis - 1, own) for m, own in zip(members, each, strict=True))


def _reordered(f: Function, sites: Sequence[tuple[str, int, list[int]]], order: Sequence[int]) -> Places:
    """Positions along axes of parameters in another order."""
    places = np.arange(f.count)
    for name, axis, at in sites:
        entries = places[f.slices[name]].reshape(f.shapes[name])
        source = np.arange(entries.shape[axis])
        source[at] = [at[k] for k in order]
        places[f.slices[name]] = np.take(entries, source, axis).reshape(-1)
    return places


def _drawn(f: Function, found: Symmetry) -> Places:
    """A random element of the analyzer's group as a permutation of entries."""
    element = found.random(f.rng, scale=False, sign=False)
    places = np.arange(f.count)
    for name, (source, action) in element.changes.items():
        here = np.arange(f.count)[f.slices[source]].reshape(f.shapes[source])
        places[f.slices[name]] = move(here, action.index).reshape(-1)
    return places


def _reason(f: Function, found: Symmetry, kind: str, missed: Places) -> Reason | Failure:
    if kind == "axes":
        if len(found.solution.irregular):
            return Reason.IRREGULAR
        if found.trace.unsupported:
            return Reason.BARRIER
        return Reason.PINNED if _moves_pinned(f, found, missed) else Failure.MISSED
    if kind == "within":
        return Reason.CONTEXT if all(_nested(f, n, missed) for n in f.shapes) else Reason.ENTRIES
    return Reason.PARAMETERS if _whole_parameters(f, missed) else Reason.ACROSS


def _joins_slices(found: Symmetry, f: Function, g: Places) -> bool:
    """Whether slices of an axis are joined again, and an axis permutation moves units from one to another."""
    values, names = found.trace.values, found.trace.names
    for node in (n for n in found.trace.nodes if n.op_type == "Concat"):
        makers = [v.producer() for v in node.inputs if v is not None]
        if len({m.inputs[0] for m in makers if m is not None and m.op_type in ("Slice", "Split")}) != 1:
            continue
        pieces = [_units(values[names[v]], found) for v in node.inputs if v is not None]
        if any(_moves_between(f, found, g, p, q) for p, q in combinations(pieces, 2)):
            return True
    return False


def _units(value: AbstractValue, found: Symmetry) -> set[int]:
    """The classes of the labels on a value."""
    return {
        int(c) for ids in value.ids if not isinstance(ids, State) for c in found.solution.classes[ids].ravel()
    }


def _moves_between(f: Function, found: Symmetry, g: Places, ours: set[int], others: set[int]) -> bool:
    """Whether an axis permutation takes a position of one set of units to one of another."""
    for name, _, classes in _labelled_axes(f, found):
        shape = f.shapes[name]
        own = np.broadcast_to(classes, shape).reshape(-1)
        source = own[g[f.slices[name]] - f.slices[name].start]
        mine, theirs = np.isin(own, list(ours - others)), np.isin(source, list(others - ours))
        if (mine & theirs).any():
            return True
    return False


def _moves_pinned(f: Function, found: Symmetry, g: Places) -> bool:
    """Whether an axis permutation moves a position whose unit the analyzer pinned for a cause it names."""
    units = [ids.ravel() for ids, cause, _ in found.trace.constraints.pins if cause.reason]
    pinned = np.unique(found.solution.classes[np.concatenate([np.zeros(0, np.int64), *units])])
    for name, axes in found.classes.items():
        if name not in f.slices:
            continue
        shape = f.shapes[name]
        moved = g[f.slices[name]] - f.slices[name].start
        for axis, classes in axes.items():
            before, after = (np.unravel_index(k, shape)[axis] for k in (np.arange(len(moved)), moved))
            own = np.broadcast_to(classes, shape).reshape(-1)
            if np.isin(own[before != after], pinned).any():
                return True
    return False


def _nested(f: Function, name: str, g: Places) -> bool:
    """Whether entries that agree along the first k axes, in some order of the axes, still do after moving."""
    shape, start = f.shapes[name], f.slices[name].start
    before = np.stack(np.unravel_index(np.arange(int(np.prod(shape))), shape), 1)
    after = np.stack(np.unravel_index(g[f.slices[name]] - start, shape), 1)
    return any(
        all(_function(before[:, order[:k]], after[:, order[:k]]) for k in range(1, len(shape)))
        for order in map(list, permutations(range(len(shape))))
    )


def _function(a: Places, b: Places) -> bool:
    """Whether the rows of a determine those of b."""
    return len(np.unique(np.concatenate([a, b], 1), axis=0)) == len(np.unique(a, axis=0))


def _whole_parameters(f: Function, g: Places) -> bool:
    """Whether every parameter comes whole from one parameter."""
    owner = np.concatenate([np.full(s.stop - s.start, k) for k, s in enumerate(f.slices.values())])
    return all(len(np.unique(owner[g[s]])) == 1 for s in f.slices.values())
