"""The search: individualization and refinement on the colours that running the graph gives.

Entries start in one cell. With θ constant on the cells, f(θ + a·e_i) depends only on the orbit of entry i, so
different values cut cells apart; so does f(θ + a·(e_i + e_j)) for pairs. The rest is the usual search for the
automorphisms of a coloured graph (McKay 1981): fix a base point by point, and at each level, from the last,
look for one element that takes the base point to each place of its cell which those known do not reach. Every
element found is run (`Function.keeps`); the order is the product of the orbits' sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import prod

import numpy as np
from numpy.typing import NDArray

from tests.brute_force.function import TOLERANCE, Function, Places, Values
from tests.brute_force.groups import orbit

Colours = NDArray[np.int64]
STEPS = 3000
"""Refinements for one class before the graph counts as too hard; most need as many as generators."""

BASES = 3


class TooHard(Exception):
    """The search does not end in reasonable time."""


@dataclass
class Found:
    """A group of permutations of entries: generators and order."""

    generators: list[Places] = field(default_factory=list)
    order: int = 1


def clusters(rows: Sequence[Values]) -> Colours:
    """Numbers of equal vectors (up to rounding)."""
    table = np.nan_to_num(np.stack(rows), nan=3e3, posinf=2e3, neginf=-2e3)
    table = table / max(1.0, float(np.abs(table).max()))
    weights = np.random.default_rng(5).normal(0, 1, (table.shape[1], 2))
    colours = np.zeros(len(table), np.int64)
    for line in (table @ weights).T:
        order = np.lexsort((line, colours))
        fresh = (np.diff(line[order]) > TOLERANCE / 10) | (np.diff(colours[order]) != 0)
        colours[order] = np.cumsum(np.r_[0, fresh])
    return colours


class Oracle:
    """The coloured graph of one function's entries."""

    def __init__(self, f: Function) -> None:
        self.f = f
        self.cells = self._cells()
        _, index, counts = np.unique(self.cells, return_inverse=True, return_counts=True)
        self.loose = np.flatnonzero((counts[index] > 1) & f.read)
        self.pairs = self._pairs()
        self.steps = 0

    def _base(self, cells: Colours) -> Values:
        """Parameters that are constant on the cells."""
        rng = self.f.rng
        count = int(cells.max()) + 1
        values = rng.uniform(0.3, 0.9, count) * rng.choice([-1.0, 1.0], count)
        values[np.unique(cells[self.f.positive])] *= np.sign(values[np.unique(cells[self.f.positive])])
        return values[cells]

    def _cells(self) -> Colours:
        cells = np.where(self.f.read, 0, 1)
        stable = 0
        while stable < 3:
            theta = self._base(cells)
            rows = []
            for k in range(self.f.count):
                moved = theta.copy()
                moved[k] += 0.37
                rows.append(self.f(moved))
            both = np.stack([cells, clusters(rows)], 1)
            fresh = np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)
            stable = stable + 1 if fresh.max() == cells.max() else 0
            cells = fresh
        return cells

    def _pairs(self) -> Colours:
        """Colours of pairs of loose entries, [m, m], from several base points: at one, a unit may be dead."""
        m = len(self.loose)
        out = np.zeros((m, m), np.int64)
        pairs = np.array(list(combinations(range(m), 2))).reshape(-1, 2)
        colours = []
        for _ in range(BASES if m else 0):
            theta = self._base(self.cells)
            rows = []
            for pair in pairs:
                moved = theta.copy()
                moved[self.loose[pair]] += 0.37
                rows.append(self.f(moved))
            colours.append(clusters(rows))
        if m:
            a, b = pairs.T
            out[a, b] = out[b, a] = _numbered(np.stack(colours, 1)) + 1
        return out

    # -- classes of permutations ----------------------------------------------------------------------

    def group(self, kind: str) -> Found:
        """The permutations of a class ('axes', 'within' or 'all') that keep the function."""
        pairs = self.pairs
        cells = self.cells[self.loose]
        if kind != "all":
            cells = _numbered(np.stack([cells, self._owner()], 1))
        if kind == "axes":
            pairs = _numbered(np.stack([pairs.ravel(), self._agreement().ravel()], 1)).reshape(pairs.shape)
        return self._search(cells, pairs)

    def _owner(self) -> Colours:
        owner = np.zeros(self.f.count, np.int64)
        for n, where in enumerate(self.f.slices.values()):
            owner[where] = n
        return owner[self.loose]

    def _agreement(self) -> Colours:
        """For each pair, the parameter both are in and the axes along which they agree, as a number."""
        m = len(self.loose)
        out = np.zeros((m, m), np.int64)
        for name, where in self.f.slices.items():
            inside = np.flatnonzero((self.loose >= where.start) & (self.loose < where.stop))
            at = np.stack(np.unravel_index(self.loose[inside] - where.start, self.f.shapes[name]), 1)
            agree = (at[:, None] == at[None]) @ (1 << np.arange(at.shape[1]))
            out[np.ix_(inside, inside)] = 1 + agree
        return out

    # -- search -----------------------------------------------------------------------------------------

    def _search(self, cells: Colours, pairs: Colours) -> Found:
        base, colours = [], [_refined([cells], pairs)[0]]
        while (u := _target(colours[-1])) is not None:
            base.append(u)
            colours.append(_refined([_alone(colours[-1], u)], pairs)[0])
        self.steps = 0
        local: list[Places] = []
        sizes = []
        for level in reversed(range(len(base))):
            u, here = base[level], colours[level]
            failed: set[int] = set()
            known = orbit(u, local)
            for v in np.flatnonzero(here == here[u]).tolist():
                if v in known or v in failed:
                    continue
                g = self._extend(_alone(here, u), _alone(here, v), pairs)
                if g is None:
                    failed |= orbit(v, local)
                else:
                    local.append(g)
                    known = orbit(u, local)
            sizes.append(len(known))
        return Found([self._whole(g) for g in local], prod(sizes))

    def _extend(self, left: Colours, right: Colours, pairs: Colours) -> Places | None:
        """A permutation that keeps the function and takes left colours to right ones."""
        self.steps += 1
        if self.steps > STEPS:
            raise TooHard("too many refinements")
        refined = _refined([left, right], pairs)
        if refined is None:
            return None
        left, right = refined
        u = _target(left)
        if u is None:
            g = np.empty(len(left), np.int64)
            g[np.argsort(left)] = np.argsort(right)
            return g if self.f.keeps(self._whole(g)) else None
        for v in np.flatnonzero(right == left[u]).tolist():
            g = self._extend(_alone(left, u), _alone(right, v), pairs)
            if g is not None:
                return g
        return None

    def _whole(self, local: Places) -> Places:
        places = np.arange(self.f.count)
        places[self.loose] = self.loose[local]
        return places


def _numbered(rows: Colours) -> Colours:
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)


def _alone(colours: Colours, u: int) -> Colours:
    """Individualize one entry."""
    out = colours.copy()
    out[u] = colours.max(initial=0) + 1
    return out


def _target(colours: Colours) -> int | None:
    """The first entry of the smallest cell that is not single; None if all are."""
    if not len(colours):
        return None
    _, first, counts = np.unique(colours, return_index=True, return_counts=True)
    open_cells = np.flatnonzero(counts > 1)
    if not len(open_cells):
        return None
    return int(first[open_cells[np.argmin(counts[open_cells])]])


def _refined(sides: Sequence[Colours], pairs: Colours) -> list[Colours] | None:
    """Colour refinement of one or two sides together; None as soon as they differ."""
    m = len(pairs)
    if not m:
        return list(sides)
    width = int(pairs.max()) + 1
    colours = _numbered(np.concatenate(sides)[:, None])
    while True:
        parts = colours.reshape(len(sides), m)
        if len(sides) == 2 and not np.array_equal(np.sort(parts[0]), np.sort(parts[1])):
            return None
        rows = np.concatenate([np.sort(c[None, :] * width + pairs, 1) for c in parts])
        fresh = _numbered(np.concatenate([colours[:, None], rows], 1))
        if fresh.max() == colours.max():
            return list(parts)
        colours = fresh
