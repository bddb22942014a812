"""From stable colours to a tree of wreath products: connected components, exchanged where they are alike.

Components of equal colours may be exchanged: Sym(k) wreath the group of one component, which is found the
same way inside it. Two groups of two members, where groups share a colour and members do:

>>> rows = np.array([[0, 2], [0, 3], [1, 4], [1, 5]])
>>> table = RelationTable(rows, np.zeros(4, np.int64), 1, product=False)
>>> tree = Decomposition([table], 6, np.array([1, 1, 2, 2, 2, 2], np.uint64))
>>> [node] = tree.decompose(np.arange(6))
>>> print(node)
Sym(2) wr Sym(2)
>>> node.members, node.children[0].members
(array([[0, 2, 3],
       [1, 4, 5]]), array([[1],
       [2]]))

A component without a unit of its own colour that does not fall apart is *irregular*, or regular in a way for
which this tree has no form.
"""

from __future__ import annotations

import numpy as np

from onnxcanon.arrays import Ids, Words
from onnxcanon.solving.group import WreathNode
from onnxcanon.solving.hashing import add_at, distinct, mix
from onnxcanon.solving.tables import RelationTable, RowIndex, connected

Inside = tuple[Ids, list[tuple[object, ...]], list[WreathNode]]
"""One component decomposed: its units in canonical order, the shapes of its nodes, the nodes."""


class Decomposition:
    """Wreath nodes among classes under stable colours.

    Attributes:
        irregular: components [k, s] of equal colours in which no nodes were found.
    """

    def __init__(self, tables: list[RelationTable], count: int, colours: Words) -> None:
        self.tables, self.count, self.colours = tables, count, colours
        self.irregular: list[Ids] = []
        self.index = RowIndex([t.rows for t in tables], count)
        self.local = np.full(count, -1, np.int64)  # the position of each class among the units looked at

    def _components(self, units: Ids) -> Ids:
        """Component number of each unit; rows connect only their members among `units`."""
        self.local[units] = np.arange(len(units))
        left, right = [], []
        for number, which in self.index.of(units).items():
            table = self.tables[number]
            at = self.local[table.rows[which]]
            several = (at >= 0).sum(1) >= 2
            if not several.any() or table.is_full_product_within(which[several], at[several] >= 0):
                continue
            at = at[several]
            anchor = at.max(1)
            for k in range(at.shape[1]):
                present = at[:, k] >= 0
                left.append(anchor[present])
                right.append(at[present, k])
        self.local[units] = -1
        return connected(len(units), left, right)

    def decompose(self, units: Ids) -> list[WreathNode]:
        """Nodes among units whose colours are shared (members as classes)."""
        if not len(units):
            return []
        component = self._components(units)
        order = np.lexsort((self.colours[units], component))
        units, component = units[order], component[order]
        starts = np.flatnonzero(np.r_[True, component[1:] != component[:-1]])
        sizes = np.diff(np.r_[starts, len(units)])
        marks = np.zeros(len(starts), np.uint64)
        add_at(marks, np.repeat(np.arange(len(starts)), sizes), mix(self.colours[units]))
        marks = mix(marks + sizes.astype(np.uint64))
        nodes = []
        for mark in distinct(marks):
            chosen = np.flatnonzero(marks == mark)
            rows = starts[chosen][:, None] + np.arange(sizes[chosen[0]])
            nodes.extend(self._node(units[rows]))
        return nodes

    def _node(self, members: Ids) -> list[WreathNode]:
        """One node from aligned components [k, s], each sorted by colour; nested where colours repeat."""
        first = self.colours[members[0]]
        if len(distinct(first)) == members.shape[1]:
            return [WreathNode(members)] if len(members) > 1 else []
        aligned, inner = self._aligned(members)
        if aligned is None or inner is None:
            self.irregular.append(members)
            return []
        children = self._children(inner)
        if len(members) == 1:
            return [_lift(c, aligned[0]) for c in children]
        return [WreathNode(aligned, children)]

    def _aligned(self, members: Ids) -> tuple[Ids, Inside] | tuple[None, None]:
        """Components of one kind, their columns in an order that all share, and the inside of the first."""
        first = self._inside(members[0])
        if first is None:
            return None, None
        if not any(node.children for node in first[2]):
            aligned = self._aligned_together(members, first)
            if aligned is not None:
                return aligned, first
        inner = [first, *(self._inside(row) for row in members[1:])]
        if any(i is None for i in inner) or len({repr(i[1]) for i in inner if i is not None}) > 1:
            return None, None
        return np.stack([i[0] for i in inner if i is not None]), first

    def _aligned_together(self, members: Ids, first: Inside) -> Ids | None:
        """The components [k, s] aligned with the inside of the first, all at once; None if not alike.

        Decomposing each of a thousand heads alone takes a thousand walks over the tables. Where no node
        inside has children one walk over all of them does: every unit is sorted by what it belongs to (the
        kind of its smaller component, which one, its colour), and equally sorted columns correspond. Which
        smaller component of a kind goes to which is free, because all permutations of them are in the group.
        """
        colours = self.colours[members]
        if (colours != colours[0]).any():  # the rows are sorted by colour
            return None
        _, index, counts = np.unique(colours[0], return_inverse=True, return_counts=True)
        inner = counts[index] > 1  # units of a colour of their own hold the component together: without them
        component = np.full(members.shape, -1, np.int64)
        rest = members[:, inner]
        component[:, inner] = self._components(rest.ravel()).reshape(rest.shape)
        # The kind of a smaller component: a hash of the multiset of its colours.
        marks = np.zeros(int(component.max(initial=0)) + 2, np.uint64)
        add_at(marks, component.ravel() + 1, mix(colours.ravel()))
        kind = marks[component + 1]
        order = np.stack([np.lexsort(keys) for keys in zip(colours, component, kind, strict=True)])
        for key in (kind, colours):
            ranked = np.take_along_axis(key, order, 1)
            if (ranked != ranked[0]).any():
                return None
        lined = np.take_along_axis(members, order, 1)
        position = {int(u): k for k, u in enumerate(lined[0])}
        return lined[:, [position[int(u)] for u in first[0]]]

    def _inside(self, units: Ids) -> Inside | None:
        """Decompose one component; None where that fails."""
        _, index, counts = np.unique(self.colours[units], return_inverse=True, return_counts=True)
        single = counts[index] == 1
        rest = units[~single]
        if not single.any() and len(distinct(self._components(rest))) == 1:
            return None
        before = len(self.irregular)
        nodes = self.decompose(rest)
        if len(self.irregular) > before:
            return None
        covered = [node.members.ravel() for node in nodes]
        loose = np.setdiff1d(rest, np.concatenate([np.zeros(0, np.int64), *covered]))
        if len(loose):
            loose = loose[np.argsort(self.colours[loose], kind="stable")]
        order = np.concatenate([units[single], loose, *covered])
        shapes: list[tuple[object, ...]] = [(len(units[single]), len(loose)), *(n.shape() for n in nodes)]
        return order, shapes, nodes

    def _children(self, inner: Inside) -> list[WreathNode]:
        """The nodes inside a component with members as positions in its aligned columns."""
        order, _, nodes = inner
        position = {int(u): k for k, u in enumerate(order)}
        return [_lower(node, position) for node in nodes]


def _lower(node: WreathNode, position: dict[int, int]) -> WreathNode:
    """Members from classes to positions in a component; children already are positions in theirs."""
    return WreathNode(np.vectorize(position.__getitem__, otypes=[np.int64])(node.members), node.children)


def _lift(node: WreathNode, columns: Ids) -> WreathNode:
    """Members from positions in a component to classes."""
    return WreathNode(columns[node.members], node.children)
