"""Colours of units that weigh the parameters: which units the weights themselves tell apart.

Weighted colour refinement: each entry of each parameter hashes its bits together with the colours of the
units on all of its axes (positions, where an axis does not move) and adds the word to every one of these
units; colours then gather within each component of the group's tree. Sums modulo 2^64 do not depend on any
order, so colours move with the units.

A layer of three units and two inputs; the second unit has the weights of the others in another order. While
both inputs have one colour all units get the same sum; once the inputs have colours of their own the second
unit has, too, and the other two stay alike: exchanging them changes no entry.

>>> from onnxcanon.canonical.entry_words import entry_words
>>> words = entry_words(np.array([[1, 2], [2, 1], [1, 2]], np.float32))
>>> def colours(inputs):
...     return stir(words + mix(np.array(inputs, np.uint64))).sum(1, dtype=np.uint64)
>>> len(set(colours([7, 7]).tolist()))
1
>>> first, second, third = colours([7, 8]).tolist()
>>> first == third, first == second
(True, False)
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from onnxcanon.arrays import Ids, Words
from onnxcanon.canonical.entry_words import MovingParameter, Picks, stir
from onnxcanon.model import Model
from onnxcanon.solving.group import WreathNode
from onnxcanon.solving.hashing import add_at, mix, salt
from onnxcanon.symmetry import Symmetry
from onnxcanon.transform import Transform

CACHED_ENTRIES = 1 << 22
"""Entries that are cached between rounds; those of larger models are read again where they are needed."""

LIGHT_ENTRIES = 1 << 14
"""Entries up to which a parameter counts as light: these tell most units apart, and cost nothing."""

SAMPLED_POSITIONS = 16
"""Positions along the other axes of a heavy parameter that are looked at before all are."""

ALL_POSITIONS = 1 << 62


class Colours:
    """Colours of all unit classes, uint64 [classes]."""

    def __init__(self, model: Model, symmetry: Symmetry, scaled: Transform | None = None) -> None:
        self.symmetry, self.solution = symmetry, symmetry.solution
        self.moving = symmetry.moving
        self.colour = np.arange(self.solution.count, dtype=np.uint64)  # fixed units: themselves
        self.colour = mix(self.colour + salt(11))
        for number, orbit in enumerate(self.solution.tree):
            self.colour[orbit.members] = salt(12, number)
            _start(self.colour, orbit, orbit.members[None])
        for dependent in self.solution.dependent:
            self.colour[dependent.products] = mix(dependent.code.astype(np.uint64) + salt(13))
        self.shared = self.moving  # units that share their colour with another
        self.parameters = self._parameters(model, scaled or Transform({}))

    def _parameters(self, model: Model, scaled: Transform) -> list[MovingParameter]:
        """The parameters some of whose units move."""
        shapes = {name: parameter.shape for name, parameter in self.symmetry.trace.parameters.items()}
        numbers = {
            name: number
            for number, (name, classes) in enumerate(self.symmetry.classes.items())
            if any(self.moving[rows].any() for rows in classes.values())
        }
        cached = sum(prod(shapes[name]) for name in numbers) <= CACHED_ENTRIES
        return [
            MovingParameter(model, self.symmetry, scaled, name, number, cached=cached)
            for name, number in numbers.items()
        ]

    def refine(self) -> None:
        """Take in the parameters until siblings are distinct or nothing changes.

        Light parameters first, then heavy ones at a few positions, then all of them; what is told apart
        already is not looked at again.
        """
        light = [p for p in self.parameters if prod(p.shape) <= LIGHT_ENTRIES]
        for parameters, sample in (
            (light, ALL_POSITIONS),
            (self.parameters, SAMPLED_POSITIONS),
            (self.parameters, ALL_POSITIONS),
        ):
            before = -1
            while (count := self._count()) > before:
                if not self.shared.any():
                    return
                before = count
                self._round(parameters, sample)

    def _count(self) -> int:
        """The number of colours of moving units; which units share theirs is noted in `shared`."""
        units = np.flatnonzero(self.moving)
        _, index, counts = np.unique(self.colour[units], return_inverse=True, return_counts=True)
        self.shared = np.zeros(len(self.colour), bool)
        self.shared[units] = counts[index] > 1
        return len(counts)

    def _round(self, parameters: Sequence[MovingParameter], sample: int) -> None:
        total = self.colour.copy()
        for parameter in parameters:
            for axis, rows in parameter.classes.items():
                picks = self._picks(parameter, axis, sample) if self.shared[rows].any() else None
                if picks is not None:
                    self._contribute(parameter, axis, picks, total)
        self.colour = np.where(self.shared, mix(total), self.colour)
        self._follow_parts()
        for number, orbit in enumerate(self.solution.tree):
            self._gather(orbit, orbit.members[None], number)

    def _picks(self, parameter: MovingParameter, axis: int, sample: int) -> Picks | None:
        """The positions of a parameter to look at, to tell apart the units along an axis: theirs, and along
        other axes at most `sample` whose units have colours of their own; None where there are none.

        Most weights of a large model are never read here: some dozen entries of its row tell a unit apart.
        """
        rows = parameter.classes[axis]
        others = tuple(k for k in range(rows.ndim) if k != axis)
        picks: Picks = {axis: np.flatnonzero(self.shared[rows].any(others))}
        for k, n in enumerate(parameter.shape):
            if k == axis or n <= sample or rows.shape[k] > 1:
                continue
            classes = parameter.classes.get(k)
            if classes is None:
                picks[k] = np.arange(sample)
                continue
            # A sample has to move with the units, or equivalent models would look at different entries. Units
            # of one colour cannot be chosen from without choosing by position; those of unique colours can,
            # and are taken in the order of their colours. Where a context moves along there is no such order.
            flat = classes.ravel()
            unique = np.flatnonzero(~self.shared[flat]) if len(flat) == n else flat[:0]
            if not len(unique):
                return None
            picks[k] = unique[np.argsort(self.colour[flat[unique]], kind="stable")[:sample]]
        return picks

    def _contribute(self, parameter: MovingParameter, axis: int, picks: Picks, total: Words) -> None:
        words = parameter.words(picks)
        for k in parameter.classes:
            words = words + mix(self.colour[parameter.along(k, picks)] + salt(17, k))
        words = stir(words)
        classes = parameter.along(axis, picks)
        rest = tuple(k for k, n in enumerate(classes.shape) if n == 1 and words.shape[k] > 1)
        sums = words.sum(rest, keepdims=True, dtype=np.uint64)
        add_at(total, classes.ravel(), mix(sums.ravel() + salt(18, axis)))

    def _follow_parts(self) -> None:
        """Composites over full products gather their parts' colours and give them theirs."""
        for dependent in self.solution.dependent:
            composites, parts = dependent.products, dependent.parts
            for k in range(parts.shape[1]):
                others = np.zeros(len(parts), np.uint64)
                for j in range(parts.shape[1]):
                    if j != k:
                        others = mix(others + self.colour[parts[:, j]])
                total = np.zeros(len(self.colour), np.uint64)
                add_at(total, parts[:, k], mix(others + self.colour[composites]))
                touched = np.unique(parts[:, k])
                touched = touched[self.moving[touched]]
                self.colour[touched] = mix(self.colour[touched] + total[touched])
            whole = self.colour[composites]
            for j in range(parts.shape[1]):
                whole = mix(whole + self.colour[parts[:, j]])
            self.colour[composites] = whole

    def _gather(self, orbit: WreathNode, members: Ids, number: int) -> Words:
        """Colour of each component [b, k] of an orbit, given its units [b, k, s]; the units take it in."""
        loose = np.ones(orbit.members.shape[1], bool)
        inner = []
        for child in orbit.children:
            loose[child.members] = False
            inner.append(members[..., child.members].reshape(-1, *child.members.shape))
        columns = np.flatnonzero(loose)
        own = self.colour[members[..., columns]]
        total = mix(own + mix(columns.astype(np.uint64) + salt(19))).sum(-1, dtype=np.uint64)
        for c, (child, part) in enumerate(zip(orbit.children, inner, strict=True)):
            colours = self._gather(child, part, number)
            total = total + mix(colours + salt(20, c)).sum(-1, dtype=np.uint64).reshape(total.shape)
        total = mix(total)
        flat = members.reshape(-1, members.shape[-1])
        self.colour[flat] = mix(self.colour[flat] + total.reshape(-1, 1))
        return total


def _start(colour: Words, orbit: WreathNode, members: Ids) -> None:
    """First colours inside an orbit: the column, shared by the siblings of nested orbits."""
    columns = np.arange(members.shape[-1]).astype(np.uint64)
    for number, child in enumerate(orbit.children):
        columns[child.members] = salt(22, number)
    colour[members] = mix(colour[members] + columns)
    for child in orbit.children:
        _start(colour, child, members[..., child.members].reshape(-1, *child.members.shape))
