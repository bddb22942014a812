"""Exchanges: motions that a tree of components has no word for, such as the groups on both sides of a channel
shuffle that does not line up, which move only all together.

Where a component is stuck, the smallest set of alike units in it is held, and the rest falls apart. Which
permutations of the held units extend to a motion of everything is then tried: the units are given distinct
colours in one order and in another, both are refined, and units of equal colours correspond. What passes the
certificate becomes an orbit whose components are what moves with each held unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, takewhile

import numpy as np

from onnxcanon.arrays import Ids, Words
from onnxcanon.solving.generator_check import GeneratorCheck, generators
from onnxcanon.solving.group import WreathNode
from onnxcanon.solving.hashing import mix, salt

LARGEST = 8
"""How many alike units are tried; of more, only what moves with each alone is found."""

Refine = Callable[[Words], Words]


def singled_out(colours: Words, units: Ids) -> Words:
    """The colours with one of its own for each unit, told apart by the order they are given in."""
    out = colours.copy()
    out[units] = mix(np.arange(len(units)).astype(np.uint64) + salt(23))
    return out


class Extensions:
    """Motions that permute the held units and take every other class along.

    The classes `still` (composites that follow others) are left out.
    """

    def __init__(self, units: Ids, colours: Words, refine: Refine, still: Ids) -> None:
        self.units, self.colours, self.refine, self.still = units, colours, refine, still
        self.one = refine(singled_out(colours, units))
        self.known: dict[bytes, Ids | None] = {}

    def of(self, permutation: Ids) -> Ids | None:
        """The motion with a permutation of the units; None if there is none that colours show."""
        mark = permutation.tobytes()
        if mark not in self.known:
            self.known[mark] = self._find(self.units[permutation])
        return self.known[mark]

    def _find(self, images: Ids) -> Ids | None:
        other = self.refine(singled_out(self.colours, images))
        here, there = np.argsort(self.one, kind="stable"), np.argsort(other, kind="stable")
        if not np.array_equal(self.one[here], other[there]):
            return None
        motion = np.empty(len(other), np.int64)
        motion[here] = there
        motion[self.still] = self.still
        return motion


def exchanges(
    held: Sequence[tuple[Ids, Words]],
    orbits: list[WreathNode],
    refine: Refine,
    still: Ids,
    check: GeneratorCheck,
) -> list[WreathNode]:
    """The orbits with exchanges of held units taken in, as far as they pass the certificate.

    Args:
        held: sets of alike units that were held, with the colours before.
        orbits: the orbits found while they were held.
        refine: makes colours stable.
        still: classes that follow others.
        check: the certificate.
    """
    for units, colours in held:
        if len(units) > LARGEST:
            continue
        known = Extensions(units, colours, refine, still)
        for group in _candidates(len(units)):
            motions = [m for m in takewhile(lambda m: m is not None, map(known.of, group)) if m is not None]
            made = _joined(orbits, motions) if len(motions) == len(group) else None
            if made is not None and all(check.holds(*pair) for pair in generators(made[0])):
                orbits = [*made[1], made[0]]
                break
    return orbits


def _candidates(n: int) -> Iterator[list[Ids]]:
    """Sets of involutions that exchange unit 0 of some with each other one; then those that move more."""
    for size in range(n, 1, -1):
        for chosen in combinations(range(n), size):
            yield [_swapped(n, [(chosen[0], k)]) for k in chosen[1:]]
    if n <= 6:
        for pairs in _matchings(list(range(n))):
            if len(pairs) > 1:
                yield [_swapped(n, pairs)]


def _swapped(n: int, pairs: Sequence[tuple[int, int]]) -> Ids:
    out = np.arange(n)
    for a, b in pairs:
        out[[a, b]] = out[[b, a]]
    return out


def _matchings(points: list[int]) -> Iterator[list[tuple[int, int]]]:
    """All sets of disjoint pairs, larger ones first among those that begin alike."""
    if not points:
        yield []
        return
    first, rest = points[0], points[1:]
    for k in rest:
        for more in _matchings([p for p in rest if p != k]):
            yield [(first, k), *more]
    yield from _matchings(rest)


def _joined(orbits: list[WreathNode], motions: Sequence[Ids]) -> tuple[WreathNode, list[WreathNode]] | None:
    """The orbit that the motions generate, and the orbits that remain beside it; None if they do not fit."""
    moved = np.logical_and.reduce([m != np.arange(len(m)) for m in motions])
    first = motions[0]
    home = np.full(len(first), -1, np.int64)
    for number, orbit in enumerate(orbits):
        home[orbit.members] = number
    taken = [k for k, orbit in enumerate(orbits) if moved[orbit.members].any()]
    own: list[int] = []
    gone: set[int] = set()
    for k in taken:
        images = [np.unique(home[m[orbits[k].members]]) for m in motions]
        if not moved[orbits[k].members].all() or any(len(i) > 1 or i[0] in (-1, k) for i in images):
            return None
        if k not in gone:
            own.append(k)
            gone |= {k, *(int(i[0]) for i in images)}
    loose = np.flatnonzero(moved & (home < 0))
    if len(motions) == 1:
        loose = loose[loose < first[loose]]
    columns = np.concatenate([loose, *(orbits[k].members.ravel() for k in own)])
    members = np.stack([columns, *(m[columns] for m in motions)])
    if len(np.unique(members)) < members.size:
        return None
    start = len(loose)
    children = []
    for k in own:
        shape = orbits[k].members.shape
        children.append(WreathNode(start + np.arange(shape[0] * shape[1]).reshape(shape), orbits[k].children))
        start += shape[0] * shape[1]
    return WreathNode(members, children), [orbit for k, orbit in enumerate(orbits) if k not in gone]
