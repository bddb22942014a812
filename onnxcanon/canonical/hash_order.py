"""Hash order: siblings sorted by their colours, and what happens to those of equal colour.

Siblings of equal colour are either true twins (exchanging them changes no entry, so their order does not
matter) or are individualised: each in turn gets a colour of its own, the rest is refined, and the choice that
leads to the smallest sum of colours is taken. That sum moves with no unit, so the choice is canonical.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.arrays import Ids, Words
from onnxcanon.canonical.colours import Colours
from onnxcanon.canonical.entry_words import MovingParameter
from onnxcanon.model import Model
from onnxcanon.solving.group import WreathNode
from onnxcanon.solving.hashing import mix, salt
from onnxcanon.symmetry import Symmetry
from onnxcanon.transform import Transform

TRIALS = 4096
"""Cap on trials to tell siblings apart; beyond it they stay as stored, and a note says so."""

Keys = Callable[[WreathNode, Ids], NDArray[Any]]
"""Keys of the components [k, s] of an orbit, to sort them by."""


def hash_order(model: Model, symmetry: Symmetry, scaled: Transform | None = None) -> tuple[Ids, list[str]]:
    """The permutation of unit classes that sorts siblings by colour, and notes for the user.

    Args:
        model: the model.
        symmetry: its group.
        scaled: the scales and signs its weights are read with; as they are stored by default.
    """
    order = _HashOrder(Colours(model, symmetry, scaled))
    notes = order.individualise()
    return order.permutation(), notes


class _HashOrder:
    def __init__(self, colours: Colours) -> None:
        self.colours, self.solution = colours, colours.solution

    def individualise(self) -> list[str]:
        """Refine the colours until siblings of equal colour are true twins; notes for the user."""
        self.colours.refine()
        trials = TRIALS
        while (tied := self._tied()) is not None:
            trials -= len(tied)
            if trials < 0:
                return ["some siblings could not be told apart within the limit; they stay as stored"]
            self.colours.colour = min(map(self._individualised, tied), key=self._sum)
        return []

    def _individualised(self, sibling: Ids) -> Words:
        """The colours refined after one sibling has got a colour of its own."""
        before = self.colours.colour
        self.colours.colour = before.copy()
        self.colours.colour[sibling] = mix(before[sibling] + salt(16))
        self.colours.refine()
        after, self.colours.colour = self.colours.colour, before
        return after

    def _sum(self, colour: Words) -> int:
        """A number that stays the same when units change places."""
        return int(mix(colour[self.colours.moving]).sum(dtype=np.uint64))

    def _tied(self) -> Ids | None:
        """Siblings [k, s] of equal colour that are no true twins; None if there are none."""
        for orbit in self.solution.tree:
            tied = self._tied_in(orbit, orbit.members[None])
            if tied is not None:
                return tied
        return None

    def _tied_in(self, orbit: WreathNode, members: Ids) -> Ids | None:
        for block in members:
            key = self._keys(orbit, block)
            order = np.argsort(key, kind="stable")
            ranked = key[order]
            ends = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1], True])
            for k in np.flatnonzero(np.diff(ends) > 1):
                siblings: Ids = block[order[ends[k] : ends[k + 1]]]
                if not self._twins(siblings, orbit):
                    return siblings
            for child in orbit.children:
                inner = block[order][:, child.members]
                tied = self._tied_in(child, inner.reshape(-1, *child.members.shape))
                if tied is not None:
                    return tied
        return None

    def _keys(self, orbit: WreathNode, block: Ids) -> Words:
        """One word per component of an orbit: its units' colours, nested ones as sets."""
        nested = np.zeros(block.shape[1], bool)
        for child in orbit.children:
            nested[child.members] = True
        columns = np.arange(block.shape[1]).astype(np.uint64)
        columns[nested] = 0
        keys: Words = mix(self.colours.colour[block] + mix(columns + salt(21))).sum(1, dtype=np.uint64)
        return keys

    def _twins(self, group: Ids, orbit: WreathNode) -> bool:
        """Whether exchanging any two of the components [k, s] changes no entry."""
        whole = None if orbit.children else self._with_composites(group)
        if whole is None:
            return False
        column = np.full(self.solution.count, -1, np.int64)
        for row in whole:
            column[row] = np.arange(whole.shape[1])
        for parameter in self.colours.parameters:
            axes = [a for a, c in parameter.classes.items() if (column[c] >= 0).any()]
            if len(axes) > 1 or any(not self._alike(parameter, a, column) for a in axes):
                return False
        return True

    def _with_composites(self, group: Ids) -> Ids | None:
        """The components with the composites that follow them, aligned; None where they do not align."""
        for dependent in self.solution.dependent:
            for k in range(dependent.parts.shape[1]):
                columns = np.flatnonzero(np.isin(group[0], dependent.parts[:, k]))
                rest = np.delete(dependent.parts, k, 1)
                for c in columns:
                    rows = [np.flatnonzero(dependent.parts[:, k] == u) for u in group[:, c]]
                    keys = [np.lexsort((dependent.code[r], *rest[r].T)) for r in rows]
                    lines = [r[q] for r, q in zip(rows, keys, strict=True)]
                    others = [np.column_stack([rest[x], dependent.code[x]]) for x in lines]
                    if any(not np.array_equal(others[0], o) for o in others):
                        return None
                    group = np.concatenate([group, dependent.products[np.stack(lines)]], 1)
        return group

    def _alike(self, parameter: MovingParameter, axis: int, column: Ids) -> bool:
        """Whether the slices of equal columns are equal entry by entry along a parameter axis."""
        classes = parameter.classes[axis]
        if classes.size != classes.shape[axis]:
            return False
        place = column[classes.ravel()]
        for c in np.unique(place[place >= 0]):
            slices = parameter.words({axis: np.flatnonzero(place == c)})
            if not (slices == np.take(slices, [0], axis)).all():
                return False
        return True

    def permutation(self) -> Ids:
        """Every component goes to the slot of its rank among its siblings."""
        permutation = np.arange(self.solution.count)
        for orbit in self.solution.tree:
            source, target = sort_siblings(orbit, orbit.members, self._keys)
            permutation[source] = target
        return self.solution.extend(permutation)


def sort_siblings(orbit: WreathNode, members: Ids, keys: Keys) -> tuple[Ids, Ids]:
    """The permutation (from, to) that sorts the components `members` [k, s] of an orbit, inner ones first.

    Units 4, 5 and 6 with keys 30, 10 and 20 go to the places of rank 2, 0 and 1:

    >>> units, key = np.array([[4], [5], [6]]), {4: 30, 5: 10, 6: 20}
    >>> source, target = sort_siblings(WreathNode(units), units, lambda _, u: np.vectorize(key.get)(u[:, 0]))
    >>> source.tolist(), target.tolist()
    ([4, 5, 6], [6, 4, 5])
    """
    rank = np.empty(len(members), np.int64)
    rank[np.argsort(keys(orbit, members), kind="stable")] = np.arange(len(members))
    target = members[rank]
    for row, slot in zip(members, target, strict=True):
        by = np.argsort(row) if orbit.children else row
        for child in orbit.children:
            here, there = (
                by[np.searchsorted(row, units, sorter=by)]
                for units in sort_siblings(child, row[child.members], keys)
            )
            slot[here] = slot[there]
    return members.ravel(), target.ravel()
