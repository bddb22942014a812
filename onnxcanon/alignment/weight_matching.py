"""Weight matching: the exchange of units that brings the parameters of one model nearest to another's.

The objective is the sum over all parameters of the inner products of both models' entries (Git Re-Basin,
Ainsworth et al. 2023, equation 2), which is as large as the squared distance is small. It is linear in the
exchange of one orbit's components while all others stay, so one assignment finds the best; orbits are visited
until none can gain. Where a parameter meets an orbit twice (recurrent matrices) the assignment is only a
proposal, and taken if the objective rises. So is an exchange of units that have several signs each (the real
and the imaginary row of a frequency), found by products without signs, with signs chosen anew thereafter.

The moved weights are kept, so a visit reads them as they are and its assignment is an exchange on top of all
earlier ones; orbits that share no parameter with one that moved since are not visited again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Set
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.action import Action
from onnxcanon.alignment.assignment import (
    Choice,
    Singles,
    assigned,
    choose,
    motion,
    weighed,
)
from onnxcanon.alignment.gains import GainTable
from onnxcanon.alignment.incidence import Branch, IncidenceFinder, Rows
from onnxcanon.alignment.nearest_signs import nearest_signs
from onnxcanon.alignment.row_signature import length, signature
from onnxcanon.arrays import Ids
from onnxcanon.symmetry import Symmetry
from onnxcanon.transform import Transform

SWEEPS = 100
"""Visits of all orbits after which matching ends in any case."""

LEAST = 1e-6
"""The least gain, relative to the size of what an orbit meets, that is not taken for rounding."""


class Matching:
    """The search for the element of a group that takes `theirs` nearest to `ours`.

    Its state is four things that only `_apply` (and `_undo`, which takes an exchange back) changes together:
    `moved`, the parameters of theirs as they are now; `actions`, what made them so from `start`; `gains`,
    tables that say what exchanges would gain at `moved`; `pending`, the orbits whose visit may gain.

    Args:
        symmetry: of both models.
        ours: the parameters of the reference, by their names in the symmetry; float32.
        theirs: those of the model that moves.
    """

    def __init__(
        self, symmetry: Symmetry, ours: Mapping[str, Singles], theirs: Mapping[str, Singles]
    ) -> None:
        self.symmetry, self.ours = symmetry, dict(ours)
        self.start = theirs
        self.sizes = {name: _norm(array) * _norm(theirs[name]) for name, array in ours.items()}
        survey = IncidenceFinder(symmetry)
        found = [survey.branch(orbit) for orbit in symmetry.solution.tree]
        self.branches = [branch for branch, _ in found]
        self.quadratic = [quadratic for _, quadratic in found]
        self.touched = [self.touched_by(branch) for branch in self.branches]
        self.neighbours = [
            {k for k, other in enumerate(self.touched) if other & names} for names in self.touched
        ]
        self.many_signed = [k for k in range(len(self.branches)) if self._several_signs(k)]
        self.support = self._axis_support()
        self.reset()

    def reset(self) -> None:
        """Back to the model as it was given."""
        self.moved: dict[str, Singles] = dict(self.start)
        self.actions: dict[str, Action] = {}
        self.gains: dict[int, GainTable] = {}
        self.pending = set(range(len(self.branches)))

    def fork(self) -> Matching:
        """Another search that goes on from here."""
        other = copy(self)
        other.moved, other.actions, other.gains = dict(self.moved), dict(self.actions), {}
        other.pending = set(range(len(self.branches)))
        return other

    def shuffle(self, rng: np.random.Generator) -> None:
        """Exchange the components of one orbit at random."""
        if not self.branches:
            return
        k = int(rng.integers(len(self.branches)))
        members = self.branches[k].orbit.members
        image = np.arange(self.symmetry.solution.count)
        image[members] = members[rng.permutation(len(members))]
        self._apply(image, np.zeros(0, np.int64), self.touched[k])
        self.pending = set(range(len(self.branches))) - {k}

    @property
    def transform(self) -> Transform:
        """The element found so far."""
        stacks = {n: m for n, m in self.symmetry.stacks.items() if n in self.actions}
        return Transform(dict(self.actions), self.symmetry.model, stacks)

    def objective(self) -> float:
        """The sum of inner products, in double precision."""
        return sum(_product(self.ours[name], array) for name, array in self.moved.items())

    def from_signatures(self, known: Collection[int] = ()) -> None:
        """Place the units of one orbit after the other by what does not depend on those not yet placed, at
        each step those that the most numbers tell apart; those of the orbits in `known` are in place."""
        rest, placed = set(range(len(self.branches))) - set(known), sum(1 << k for k in known)
        signed = np.zeros(self.symmetry.sign.count, bool)  # which signs are known to agree
        for k in known:
            signed[self.branches[k].all_signs()] = True
        while rest:
            k = max(rest, key=lambda k: (self._evidence(k, placed), -k))
            self.place(k, placed, signed)
            rest.discard(k)
            placed |= 1 << k
        self.turn(guess=True)

    def place(self, k: int, placed: int, signed: NDArray[np.bool_]) -> None:
        """Assign the components of an orbit by signatures; `signed` learns the signs that follow."""
        branch = self.branches[k]
        own = np.zeros_like(signed)
        own[branch.all_signs()] = True
        ours, theirs, unsigned = {}, {}, set()
        for rows in (c.rows for c in branch.incidences):
            loose = self.unplaced(rows, placed)
            hidden = self.unsure(rows, signed | own)
            if hidden or loose:
                unsigned.add(rows)
            hidden = hidden or (bool(loose) and self.unsure(rows, signed))
            ours[rows], theirs[rows] = (
                signature(rows, side[rows.name], loose, unsigned=hidden) for side in (self.ours, self.moved)
            )
        self.assign(k, branch, ours, theirs, near=True, unsigned=unsigned)
        signed |= own & (len(unsigned) < len(branch.incidences))

    def assign(
        self,
        k: int,
        branch: Branch,
        ours: Mapping[Rows, Singles],
        theirs: Mapping[Rows, Singles],
        *,
        near: bool = False,
        unsigned: Set[Rows] = frozenset(),
    ) -> None:
        """Move the components of an orbit to the best places for given features; as for `choose`."""
        choice, _ = choose(branch, ours, theirs, near=near, unsigned=unsigned)
        self._apply(*motion(branch, choice, self.symmetry.solution.count), self.touched[k])

    def unplaced(self, rows: Rows, placed: int) -> list[int]:
        """The columns' axes whose units have no place yet."""
        support = self.support[rows.name]
        return [a for a in rows.rest if rows.shape[a] > 1 and support.get(a, 0) & ~placed]

    def _evidence(self, k: int, placed: int) -> int:
        """How many numbers tell the components of an orbit apart."""
        return sum(
            c.slots.shape[1] * length(c.rows, self.unplaced(c.rows, placed))
            for c in self.branches[k].incidences
        )

    def unsure(self, rows: Rows, signed: NDArray[np.bool_]) -> bool:
        """Whether a sign that is not known acts on a parameter."""
        forms = self.symmetry.sign.forms
        exponents = self.symmetry.exponents[rows.name].values()
        return any(not signed[forms[variables.ravel()].indices].all() for variables in exponents)

    def _axis_support(self) -> dict[str, dict[int, int]]:
        """For every axis the orbits whose units it has, as the bits of a number."""
        bits = np.zeros(self.symmetry.solution.count, object)
        for k, branch in enumerate(self.branches):
            bits[branch.orbit.members] = 1 << k
        for dependent in self.symmetry.solution.dependent:
            bits[dependent.products] = np.bitwise_or.reduce(bits[dependent.parts], 1)
        return {
            name: {axis: int(np.bitwise_or.reduce(bits[np.unique(units)])) for axis, units in axes.items()}
            for name, axes in self.symmetry.classes.items()
        }

    def touched_by(self, branch: Branch) -> set[str]:
        """The parameters that an orbit moves."""
        return {c.rows.name for c in branch.incidences}

    def sweep(self, pending: set[int]) -> set[int]:
        """Visit the orbits in `pending`, in the order of the graph; those to visit next."""
        following: set[int] = set()
        for k in range(len(self.branches)):
            if k not in pending and k not in following:
                continue
            following.discard(k)
            if self.visit(k):
                following |= self.neighbours[k] if self.quadratic[k] else self.neighbours[k] - {k}
        return following

    def run(
        self, say: Callable[[str], None] = lambda _: None, *, sweeps: int = SWEEPS, enough: float = 0.0
    ) -> int:
        """Visit orbits, from where an earlier run ended, until none gains; the number of sweeps.

        Args:
            say: called before each sweep.
            sweeps: the most there are.
            enough: a sweep that raises the objective by no more than this part of it is the last.
        """
        value = self.objective() if enough else 0.0
        for count in range(sweeps):
            if not self.pending and not any(map(self.propose, self.many_signed)):
                return count
            say(f"sweep {count + 1}")
            self.pending = self.sweep(self.pending) | self.turn()
            if enough:
                before, value = value, self.objective()
                if value - before <= enough * abs(value):
                    return count + 1
        return sweeps

    def turn(self, *, guess: bool = False) -> set[int]:
        """Change signs where that gains; the orbits to visit then."""
        flips = nearest_signs(self.symmetry, self.ours, self.moved, guess=guess)
        if not len(flips):
            return set()
        before = dict(self.moved)
        self._apply(np.arange(self.symmetry.solution.count), flips, list(self.moved))
        changed = {name for name, array in self.moved.items() if array is not before[name]}
        return {k for k, touched in enumerate(self.touched) if touched & changed}

    def visit(self, k: int) -> bool:
        """Exchange one orbit's components for the best; whether that gained."""
        branch = self.branches[k]
        if not branch.incidences:
            return False
        least = LEAST * sum(self.sizes[c.rows.name] for c in branch.incidences)
        if branch.children or self.quadratic[k]:
            choice, gain = choose(branch, *self._rows(branch))
        else:
            table = self.gains.pop(k, None) or GainTable(branch, self.ours, self.moved)
            choice, gain = table.best()
            if gain > least:
                table.take(choice)
            self.gains[k] = table
        if gain <= least:
            return False
        image, flips = motion(branch, choice, self.symmetry.solution.count)
        if not self.quadratic[k]:
            self._apply(image, flips, self.touched[k], by=k)
            return True
        return self._try(image, flips, self.touched[k])

    def propose(self, k: int) -> bool:
        """Exchange components by products without the signs of rows, which are chosen anew thereafter, if the
        objective rises with both."""
        branch = self.branches[k]
        value = np.zeros((branch.orbit.size, branch.orbit.size), np.float32)
        for incidence in branch.incidences:
            one, other = (incidence.components(side[incidence.rows.name]) for side in (self.ours, self.moved))
            if self._signed(incidence.rows):
                value += sum(np.abs(weighed(one, other, slot)) for slot in np.eye(one.shape[1], dtype=bool))
            else:
                value += weighed(one, other, np.ones(one.shape[1], bool))
        source = assigned(value)[0][None, None]
        image, _ = motion(branch, Choice(source, source < 0), self.symmetry.solution.count)
        before, moved, actions = self.objective(), dict(self.moved), dict(self.actions)
        self._apply(image, np.zeros(0, np.int64), self.touched[k])
        turned = self.turn()
        if self.objective() > before + LEAST * abs(before):
            self.pending |= self.neighbours[k] | turned
            return True
        self._undo(moved, actions, set(moved))
        return False

    def _several_signs(self, k: int) -> bool:
        """Whether signs act on the rows of an orbit, but not one for each component; none is nested in it."""
        branch = self.branches[k]
        plain = not branch.children and not self.quadratic[k] and not len(branch.signs)
        return plain and any(self._signed(c.rows) for c in branch.incidences)

    def _signed(self, rows: Rows) -> bool:
        """Whether signs act along the axes of some rows."""
        exponents = self.symmetry.exponents[rows.name]
        return any(self.symmetry.sign.act(exponents[axis]) for axis in rows.axes if axis in exponents)

    def _rows(self, branch: Branch) -> tuple[dict[Rows, Singles], dict[Rows, Singles]]:
        """Both models' parameters as an orbit meets them."""
        return (
            {c.rows: c.rows.matrix(self.ours[c.rows.name]) for c in branch.incidences},
            {c.rows: c.rows.matrix(self.moved[c.rows.name]) for c in branch.incidences},
        )

    def _try(self, image: Ids, flips: Ids, names: set[str]) -> bool:
        """Apply an exchange if the objective rises with it."""
        moved, actions = dict(self.moved), dict(self.actions)
        before = sum(_product(self.ours[n], self.moved[n]) for n in names)
        self._apply(image, flips, names)
        after = sum(_product(self.ours[n], self.moved[n]) for n in names)
        if after > before + LEAST * abs(before):
            return True
        self._undo(moved, actions, names)
        return False

    def _undo(self, moved: dict[str, Singles], actions: dict[str, Action], names: Set[str]) -> None:
        """Back to an earlier state; tables that read any of these parameters say nothing about it."""
        self.moved, self.actions = moved, actions
        self.gains = {k: table for k, table in self.gains.items() if not names & self.touched[k]}

    def _apply(self, image: Ids, flips: Ids, names: Iterable[str], by: int | None = None) -> None:
        """Move units, then change signs; the table of the orbit that moves has followed."""
        image = self.symmetry.solution.extend(image)
        sign = None
        if len(flips):
            sign = np.zeros(self.symmetry.sign.count, np.int64)
            sign[flips] = 1
        for name in list(names):
            action = self._action(name, image, sign)
            if action.index or action.factor:
                before, self.moved[name] = self.moved[name], action(self.moved[name])
                # Tables follow one parameter at a time, from `before` to what it is now: the parameters not
                # yet moved are still those that the tables were made of.
                self._follow(name, action, before, by)
                known = self.actions.get(name)
                self.actions[name] = action if known is None else known.then(action)

    def _follow(self, name: str, action: Action, before: Singles, by: int | None) -> None:
        """Bring the tables up to date with what was done to a parameter, or drop them."""
        for k in [k for k in self.gains if k != by and name in self.touched[k]]:
            if not self.gains[k].follow(name, action, before, self.moved[name]):
                del self.gains[k]

    def _action(self, name: str, image: Ids, sign: Ids | None) -> Action:
        shape = self.symmetry.trace.parameters[name].shape
        index = self.symmetry.indices(name, image)
        factor = {}
        if sign is not None:
            for axis, variables in self.symmetry.exponents[name].items():
                forms = self.symmetry.sign.forms
                factor[axis] = 1.0 - 2.0 * ((forms @ sign) % 2)[variables]
        return Action(shape, index, {a: f for a, f in factor.items() if (f != 1).any()})


def _product(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The inner product, accumulated in double precision piece by piece."""
    x, y = one.reshape(-1), other.reshape(-1)
    return sum(
        float(np.dot(x[k : k + 65536].astype(np.float64), y[k : k + 65536].astype(np.float64)))
        for k in range(0, len(x), 65536)
    )


def _norm(array: NDArray[Any]) -> float:
    return float(np.linalg.norm(array.reshape(-1)))
