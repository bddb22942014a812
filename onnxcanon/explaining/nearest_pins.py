"""The shortest way from a unit that does not move to the pin that holds it, as the nodes on the way.

Constraints are edges between units, and each names the node that stated it. One breadth-first search
from all pinned units at once reaches every unit that does not move, in three rounds: over equalities from the
pins that name a node, over equalities from those that do not, then over relations as well. What an earlier
round reaches is nearer, for "it is pinned there" explains more than "it moves only together with what is".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from onnxcanon.arrays import Ids
from onnxcanon.solving.hashing import distinct
from onnxcanon.tracing.constraints import Constraints

ROUND = 1 << 40
"""Added to the distance from round to round."""


@dataclass(frozen=True, slots=True)
class _Edges:
    """Neighbours of every unit u: `target[start[u]:start[u + 1]]`, and the number of the node in between."""

    start: Ids
    target: Ids
    node: Ids

    @classmethod
    def of(cls, count: int, pairs: Sequence[tuple[Ids, Ids, int]]) -> _Edges:
        """Edges in both directions from (units, units, node) entries."""
        left = np.concatenate([np.zeros(0, np.int64), *(a for a, _, _ in pairs)])
        right = np.concatenate([np.zeros(0, np.int64), *(b for _, b, _ in pairs)])
        sizes, nodes = [len(a) for a, _, _ in pairs], [node for _, _, node in pairs]
        between = np.repeat(np.array(nodes, np.int64), np.array(sizes, np.int64))
        source, target = np.concatenate([left, right]), np.concatenate([right, left])
        order = np.argsort(source, kind="stable")
        start = np.r_[0, np.cumsum(np.bincount(source, minlength=count))].astype(np.int64)
        return cls(start, target[order], np.concatenate([between, between])[order])

    def around(self, units: Ids) -> tuple[Ids, Ids, Ids]:
        """Every edge that leaves the units: where from, where to, which node.

        >>> edges = _Edges.of(3, [(np.array([0, 0]), np.array([1, 2]), 7)])  # node 7 ties 0 to 1 and to 2
        >>> [array.tolist() for array in edges.around(np.array([0, 2]))]
        [[0, 0, 2], [1, 2, 0], [7, 7, 7]]
        """
        # The slices start[u]:start[u + 1] of all units at once: position k of the output is the first edge of
        # its unit plus how far k is from where that unit's edges begin in the output.
        counts = self.start[units + 1] - self.start[units]
        first = np.repeat(self.start[units] - (np.cumsum(counts) - counts), counts)
        at = first + np.arange(int(counts.sum()))
        return np.repeat(units, counts), self.target[at], self.node[at]


class NearestPins:
    """The ways to the pins of a model's constraints.

    Args:
        constraints: what rules stated.
        classes: the class of every unit, int64 [units].
        moving: the classes that move, bool [classes]; they have no way to a pin and are left out.
    """

    def __init__(self, constraints: Constraints, classes: Ids, moving: NDArray[np.bool_]) -> None:
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._fixed = fixed = ~moving[classes]
        self._place = place = np.cumsum(fixed) - 1  # among the units that do not move
        equal = [
            (place[a[fixed[a]]], place[b[fixed[a]]], self._number(node))
            for (a, b), node in zip(constraints.equals, constraints.equal_nodes, strict=True)
        ]
        related = []
        for relation in constraints.relations:
            number = self._number(relation.node)
            whole = relation.rows[:, 0]
            for part in relation.rows[:, 1:].T:
                both = fixed[whole] & fixed[part]
                related.append((place[whole[both]], place[part[both]], number))
        count = int(fixed.sum())
        self.pin = np.full(count, -1, np.int64)
        self.distance = np.full(count, np.iinfo(np.int64).max)
        self._parent = np.full(count, -1, np.int64)
        self._via = np.full(count, -1, np.int64)
        edges = _Edges.of(count, equal)
        named = [bool(cause.node) for _, cause, _ in constraints.pins]
        for number, wanted in enumerate((True, False)):
            seeds = self._seed(
                constraints, (k for k, has in enumerate(named) if has == wanted), number * ROUND
            )
            self._spread(edges, seeds, number * ROUND)
        self._spread(_Edges.of(count, equal + related), np.flatnonzero(self.pin >= 0), 2 * ROUND)

    def of(self, units: Ids) -> tuple[int, list[str]] | None:
        """The pin nearest to any of the units and the nodes on the way to it; None where none is reached."""
        units = self._place[units[self._fixed[units]]]
        if not len(units):
            return None
        nearest = units[np.argmin(self.distance[units])]
        if self.pin[nearest] < 0:
            return None
        pin, nodes = int(self.pin[nearest]), []
        while self._parent[nearest] >= 0:
            nodes.append(self._names[self._via[nearest]])
            nearest = self._parent[nearest]
        return pin, [name for name, _ in groupby(nodes) if name]

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self._names)
            self._names.append(name)
        return self._numbers[name]

    def _seed(self, constraints: Constraints, pins: Iterable[int], distance: int) -> Ids:
        seeds = [np.zeros(0, np.int64)]
        for number in pins:
            ids = self._place[constraints.pins[number][0]]
            fresh = ids[self.pin[ids] < 0]
            self.pin[fresh] = number
            self.distance[fresh] = distance
            seeds.append(fresh)
        return distinct(np.concatenate(seeds))

    def _spread(self, edges: _Edges, front: Ids, distance: int) -> None:
        """Reach what the edges lead to from the units in front, level by level."""
        while len(front):
            distance += 1
            source, target, node = edges.around(front)
            fresh = np.flatnonzero(self.pin[target] < 0)
            front, first = np.unique(target[fresh], return_index=True)
            chosen = fresh[first]
            self._parent[front] = source[chosen]
            self._via[front] = node[chosen]
            self.pin[front] = self.pin[source[chosen]]
            self.distance[front] = distance
