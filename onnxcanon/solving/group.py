"""The permutation group of a model: a tree of wreath products over unit classes, and how to draw from it.

The group that permutes k alike components of s units as wholes, and acts inside each by a group G, is the
wreath product of Sym(k) and G, of order k! · |G|^k. Two heads of three hidden units each:

>>> inside = WreathNode(np.array([[0], [1], [2]]))  # positions within a component
>>> heads = WreathNode(np.arange(6).reshape(2, 3), [inside])
>>> print(heads, round(10 ** heads.log10_order()))
Sym(2) wr Sym(3) 72
>>> random_permutation([heads], 6, np.random.default_rng(1))
(array([0, 1, 2, 3, 4, 5]), array([0, 1, 2, 5, 3, 4]))

Units 0, 1, 2 are the first head, 3, 4, 5 the second. Here both heads
stay, and the units of the second move in a cycle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import lgamma, log

import numpy as np
from numpy.typing import NDArray

from onnxcanon.arrays import Ids


@dataclass(slots=True)
class WreathNode:
    """k interchangeable components of s units each, aligned column by column.

    `members` int64 [k, s] holds unit classes for a node at the top of the tree, and positions in the parent
    component's columns for a nested one; `children` act inside every component.
    """

    members: Ids
    children: list[WreathNode] = field(default_factory=list)

    @property
    def size(self) -> int:
        """How many components may be exchanged."""
        return len(self.members)

    def log10_order(self) -> float:
        """log10 of k! · (order inside one component)^k."""
        inner = sum(c.log10_order() for c in self.children)
        return lgamma(self.size + 1) / log(10) + self.size * inner

    def shape(self) -> tuple[object, ...]:
        """Sizes of the node and everything inside it, equal for isomorphic nodes."""
        return (self.members.shape, tuple(c.shape() for c in self.children))

    def __str__(self) -> str:
        inner = " x ".join(map(str, self.children))
        if not inner:
            return f"Sym({self.size})"
        return f"Sym({self.size}) wr " + (f"({inner})" if len(self.children) > 1 else inner)


def random_permutation(nodes: Sequence[WreathNode], width: int, rng: np.random.Generator) -> tuple[Ids, Ids]:
    """A uniformly random element of the product of nodes: (positions, images), both int64."""
    source, target = [], []
    for node in nodes:
        k, s = node.members.shape
        sigma = rng.permutation(k)
        if not node.children:
            source.append(node.members.ravel())
            target.append(node.members[sigma].ravel())
            continue
        for i in range(k):
            inner = np.arange(s)
            a, b = random_permutation(node.children, s, rng)
            inner[a] = b
            source.append(node.members[i])
            target.append(node.members[sigma[i]][inner])
    if not source:
        empty = np.zeros(0, np.int64)
        return empty, empty
    return np.concatenate(source), np.concatenate(target)


@dataclass(frozen=True, slots=True)
class DependentUnits:
    """Products [n] that follow their parts [n, p]; `code` [n] numbers the products of equal parts."""

    products: Ids
    parts: Ids
    code: Ids


@dataclass(slots=True)
class Solution:
    """The solved constraints on units.

    Attributes:
        classes: the class of each unit, int64 [units].
        count: the number of classes.
        tree: wreath nodes on disjoint classes; the group is the product of theirs.
        dependent: products that follow their parts, those that are parts of others first.
        irregular: classes that stay because the tree has no form for how they could move.
        failures: what failed the generator check and stays; each is a defect of this package.
    """

    classes: Ids
    count: int
    tree: list[WreathNode]
    dependent: list[DependentUnits]
    irregular: Ids
    failures: list[str]

    def __str__(self) -> str:
        return " x ".join(map(str, self.tree)) or "1"

    @property
    def moving(self) -> NDArray[np.bool_]:
        """Which classes some element of the group moves, bool [count]."""
        mask = np.zeros(self.count, bool)
        for node in self.tree:
            mask[node.members] = True
        for dependent in self.dependent:
            mask[dependent.products] = True
        return mask

    def extend(self, permutation: Ids) -> Ids:
        """Complete a permutation of classes (int64 [count]) on dependent products, in place."""
        for d in self.dependent:
            # Sorted by their parts, and by where these go, the same rows stand at the same positions.
            here = np.lexsort((d.code, *d.parts.T))
            there = np.lexsort((d.code, *permutation[d.parts].T))
            permutation[d.products[there]] = d.products[here]
        return permutation

    def random(self, rng: np.random.Generator) -> Ids:
        """A uniformly random element of the group: the image of every class."""
        permutation = np.arange(self.count)
        source, target = random_permutation(self.tree, self.count, rng)
        permutation[source] = target
        return self.extend(permutation)
