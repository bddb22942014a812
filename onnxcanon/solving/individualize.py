"""Individualization: permutations for which a tree of components has no form of its own, such as the groups
on both sides of a channel shuffle that does not line up, which move only all together.

Where a component is irregular, the smallest set of alike units in it is *individualized*: each gets a colour
of its own, colours are refined again, and the rest falls apart (individualization-refinement, as in nauty:
McKay and Piperno 2014). Which permutations of these units extend to one of everything is then tried: the
units are individualized in one order and in another, both are refined, and units of equal colours correspond.
What passes the generator check becomes a node whose components are what moves with each of the units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, takewhile

import numpy as np

from onnxcanon.arrays import Ids, Words
from onnxcanon.solving.generator_check import GeneratorCheck, generators
from onnxcanon.solving.group import WreathNode
from onnxcanon.solving.hashing import mix, salt

TRIED = 8
"""How many alike units are tried; of more, only what moves with each alone is found."""
MATCHED = 6
"""Of how many units all sets of disjoint pairs are tried."""

Refine = Callable[[Words], Words]


def individualize(colours: Words, units: Ids) -> Words:
    """The colours with one of its own for each unit, by the order in which they are listed."""
    out = colours.copy()
    out[units] = mix(np.arange(len(units)).astype(np.uint64) + salt(23))
    return out


class Extensions:
    """Permutations of all classes by what they do to the individualized units.

    The classes `dependent` (products that follow others) are left out.
    """

    def __init__(self, units: Ids, colours: Words, refine: Refine, dependent: Ids) -> None:
        self.units, self.colours, self.refine, self.dependent = units, colours, refine, dependent
        self.listed = refine(individualize(colours, units))
        self.results: dict[bytes, Ids | None] = {}

    def of(self, order: Ids) -> Ids | None:
        """The permutation that brings the units into an order; None if colours show none."""
        mark = order.tobytes()
        if mark not in self.results:
            self.results[mark] = self._extended(self.units[order])
        return self.results[mark]

    def _extended(self, images: Ids) -> Ids | None:
        colours = self.refine(individualize(self.colours, images))
        here, there = np.argsort(self.listed, kind="stable"), np.argsort(colours, kind="stable")
        if not np.array_equal(self.listed[here], colours[there]):
            return None
        permutation = np.empty(len(colours), np.int64)
        permutation[here] = there
        permutation[self.dependent] = self.dependent
        return permutation


def with_joint_nodes(
    individualized: Sequence[tuple[Ids, Words]],
    tree: list[WreathNode],
    refine: Refine,
    dependent: Ids,
    check: GeneratorCheck,
) -> list[WreathNode]:
    """The tree with permutations of individualized units taken in, as far as they pass the check.

    Args:
        individualized: sets of alike units, with the colours before.
        tree: the nodes found after they were individualized.
        refine: makes colours stable.
        dependent: classes that follow others.
        check: the generator check.
    """
    for units, colours in individualized:
        if len(units) > TRIED:
            continue
        extensions = Extensions(units, colours, refine, dependent)
        for orders in _candidates(len(units)):
            results = takewhile(lambda p: p is not None, map(extensions.of, orders))
            permutations = [p for p in results if p is not None]
            joint = _joint_node(tree, permutations) if len(permutations) == len(orders) else None
            if joint is not None and all(check.holds(*pair) for pair in generators(joint[0])):
                tree = [*joint[1], joint[0]]
                break
    return tree


def _candidates(n: int) -> Iterator[list[Ids]]:
    """Sets of involutions that exchange the first of some units with each other one; then those that exchange
    several pairs at once."""
    for size in range(n, 1, -1):
        for chosen in combinations(range(n), size):
            yield [_swapped(n, [(chosen[0], k)]) for k in chosen[1:]]
    if n <= MATCHED:
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


def _joint_node(
    tree: list[WreathNode], permutations: Sequence[Ids]
) -> tuple[WreathNode, list[WreathNode]] | None:
    """The node that the permutations generate, and the nodes that remain beside it; None if they do not fit.

    Each permutation carries a first component to another one, so the components are the first and its images.
    Whole nodes of the tree that move become children. Two pairs that move only together:

    >>> pairs = [WreathNode(np.array([[0], [1]])), WreathNode(np.array([[2], [3]]))]
    >>> joint, others = _joint_node(pairs, [np.array([2, 3, 0, 1])])
    >>> print(joint, joint.members.tolist(), others)
    Sym(2) wr Sym(2) [[0, 1], [2, 3]] []
    """
    # What some permutations move and others do not lies in another component, the image of a first one.
    moved = np.logical_and.reduce([p != np.arange(len(p)) for p in permutations])
    first = permutations[0]
    owner = np.full(len(first), -1, np.int64)
    for number, node in enumerate(tree):
        owner[node.members] = number
    own: list[int] = []  # nodes in the first component
    used: set[int] = set()  # these and their images
    for k, node in enumerate(tree):
        if not moved[node.members].any():
            continue
        images = [np.unique(owner[p[node.members]]) for p in permutations]
        if not moved[node.members].all() or any(len(i) > 1 or i[0] in (-1, k) for i in images):
            return None  # a part of a node moves, or a node moves into itself or is torn apart
        if k not in used:
            own.append(k)
            used |= {k, *(int(i[0]) for i in images)}
    loose = np.flatnonzero(moved & (owner < 0))
    if len(permutations) == 1:  # an involution moves both components: take the side with the smaller number
        loose = loose[loose < first[loose]]
    columns = np.concatenate([loose, *(tree[k].members.ravel() for k in own)])
    members = np.stack([columns, *(p[columns] for p in permutations)])
    if len(np.unique(members)) < members.size:
        return None
    start = len(loose)
    children = []
    for k in own:
        shape = tree[k].members.shape
        children.append(WreathNode(start + np.arange(shape[0] * shape[1]).reshape(shape), tree[k].children))
        start += shape[0] * shape[1]
    return WreathNode(members, children), [node for k, node in enumerate(tree) if k not in used]
