"""What the solve finds: a tree of permutation groups over unit classes, and how to draw from it."""

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

    `members` int64 [k, s] holds unit classes for an orbit at the top of the tree, and positions in the parent
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
        """Sizes of the orbit and everything inside it, equal for isomorphic orbits."""
        return (self.members.shape, tuple(c.shape() for c in self.children))


def random_permutation(orbits: Sequence[WreathNode], width: int, rng: np.random.Generator) -> tuple[Ids, Ids]:
    """A uniformly random element of the product of orbits: (positions, images), both int64."""
    source, target = [], []
    for orbit in orbits:
        k, s = orbit.members.shape
        sigma = rng.permutation(k)
        if not orbit.children:
            source.append(orbit.members.ravel())
            target.append(orbit.members[sigma].ravel())
            continue
        for i in range(k):
            inner = np.arange(s)
            a, b = random_permutation(orbit.children, s, rng)
            inner[a] = b
            source.append(orbit.members[i])
            target.append(orbit.members[sigma[i]][inner])
    if not source:
        empty = np.zeros(0, np.int64)
        return empty, empty
    return np.concatenate(source), np.concatenate(target)


@dataclass(frozen=True, slots=True)
class DependentUnits:
    """Composites [n] that follow their parts [n, p]; `code` [n] numbers the composites of equal parts."""

    products: Ids
    parts: Ids
    code: Ids


@dataclass(slots=True)
class Solution:
    """What the solve found: `classes` [units] maps units to classes 0 … count-1, `orbits` is the tree,
    `dependent` lists composites that follow their parts, in order of evaluation."""

    classes: Ids
    count: int
    tree: list[WreathNode]
    dependent: list[DependentUnits]
    irregular: Ids  # classes held because their structure is irregular
    failures: list[str]

    @property
    def moving(self) -> NDArray[np.bool_]:
        """Which classes some element of the group moves, bool [count]."""
        mask = np.zeros(self.count, bool)
        for orbit in self.tree:
            mask[orbit.members] = True
        for dependent in self.dependent:
            mask[dependent.products] = True
        return mask

    def extend(self, motion: Ids) -> Ids:
        """Complete a motion of classes (int64 [count]) on dependent composites."""
        for d in self.dependent:
            here = np.lexsort((d.code, *d.parts.T))
            there = np.lexsort((d.code, *motion[d.parts].T))  # the same rows, in the order they come to
            motion[d.products[there]] = d.products[here]
        return motion

    def random(self, rng: np.random.Generator) -> Ids:
        """A uniformly random element of the group: the image of every class."""
        motion = np.arange(self.count)
        source, target = random_permutation(self.tree, self.count, rng)
        motion[source] = target
        return self.extend(motion)
