"""From colours to a tree of orbits: connected components, exchanged where they are alike.

Components of equal colours may be exchanged: Sym(k) wreath the group of one component, which is found the
same way inside it. A component without a unit of its own colour that does not fall apart is *stuck*: its
structure is irregular, or regular in a way that this tree has no word for.
"""

from __future__ import annotations

import numpy as np

from onnxcanon.arrays import Ids, Words
from onnxcanon.solving.group import WreathNode
from onnxcanon.solving.hashing import add_at, distinct, mix
from onnxcanon.solving.tables import Index, Table, connected

Inside = tuple[Ids, list[tuple[object, ...]], list[WreathNode]]


class Tree:
    """Orbits among classes under stable colours.

    Attributes:
        stuck: components [k, s] of equal colours in which no orbits were found.
    """

    def __init__(self, tables: list[Table], count: int, colours: Words) -> None:
        self.tables, self.count, self.colours = tables, count, colours
        self.stuck: list[Ids] = []
        self.index = Index([t.rows for t in tables], count)
        self.local = np.full(count, -1, np.int64)  # the place of each class among the units looked at

    def _components(self, units: Ids) -> Ids:
        """Component number of each unit; rows connect only their members among `units`."""
        self.local[units] = np.arange(len(units))
        left, right = [], []
        for number, which in self.index.of(units).items():
            table = self.tables[number]
            at = self.local[table.rows[which]]
            some = (at >= 0).sum(1) >= 2
            if not some.any() or table.product_within(which[some], at[some] >= 0):
                continue
            at = at[some]
            anchor = at.max(1)
            for k in range(at.shape[1]):
                ok = at[:, k] >= 0
                left.append(anchor[ok])
                right.append(at[ok, k])
        self.local[units] = -1
        return connected(len(units), left, right)

    def decompose(self, units: Ids) -> list[WreathNode]:
        """Orbits among units whose colours are shared (members as classes)."""
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
        orbits = []
        for mark in distinct(marks):
            chosen = np.flatnonzero(marks == mark)
            rows = starts[chosen][:, None] + np.arange(sizes[chosen[0]])
            orbits.extend(self._orbit(units[rows]))
        return orbits

    def _orbit(self, members: Ids) -> list[WreathNode]:
        """One orbit from aligned components [k, s], each sorted by colour; nested where colours repeat."""
        first = self.colours[members[0]]
        if len(distinct(first)) == members.shape[1]:
            return [WreathNode(members)] if len(members) > 1 else []
        aligned, inner = self._aligned(members)
        if aligned is None or inner is None:
            self.stuck.append(members)
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
        if not any(o.children for o in first[2]):
            together = self._alike(members, first)
            if together is not None:
                return together, first
        inner = [first, *(self._inside(row) for row in members[1:])]
        if any(i is None for i in inner) or len({repr(i[1]) for i in inner if i is not None}) > 1:
            return None, None
        return np.stack([i[0] for i in inner if i is not None]), first

    def _alike(self, members: Ids, first: Inside) -> Ids | None:
        """The alignment where the smaller components inside are not nested further, so that any order among
        those of one kind will do; None where the insides are not of the same kinds."""
        colours = self.colours[members]
        if (colours != colours[0]).any():  # the rows are sorted by colour
            return None
        _, index, counts = np.unique(colours[0], return_inverse=True, return_counts=True)
        inner = counts[index] > 1
        component = np.full(members.shape, -1, np.int64)
        rest = members[:, inner]
        component[:, inner] = self._components(rest.ravel()).reshape(rest.shape)
        marks = np.zeros(int(component.max(initial=0)) + 2, np.uint64)
        add_at(marks, component.ravel() + 1, mix(colours.ravel()))
        kind = marks[component + 1]
        order = np.stack([np.lexsort(keys) for keys in zip(colours, component, kind, strict=True)])
        for key in (kind, colours):
            ranked = np.take_along_axis(key, order, 1)
            if (ranked != ranked[0]).any():
                return None
        lined = np.take_along_axis(members, order, 1)
        place = {int(u): k for k, u in enumerate(lined[0])}
        return lined[:, [place[int(u)] for u in first[0]]]

    def _inside(self, units: Ids) -> Inside | None:
        """Decompose one component: its units in canonical alignment, the shapes of its orbits, the orbits."""
        _, index, counts = np.unique(self.colours[units], return_inverse=True, return_counts=True)
        single = counts[index] == 1
        rest = units[~single]
        if not single.any() and len(distinct(self._components(rest))) == 1:
            return None
        before = len(self.stuck)
        orbits = self.decompose(rest)
        if len(self.stuck) > before:
            return None
        covered = [o.members.ravel() for o in orbits]
        loose = np.setdiff1d(rest, np.concatenate([np.zeros(0, np.int64), *covered]))
        if len(loose):
            loose = loose[np.argsort(self.colours[loose], kind="stable")]
        order = np.concatenate([units[single], loose, *covered])
        shapes: list[tuple[object, ...]] = [(len(units[single]), len(loose)), *(o.shape() for o in orbits)]
        return order, shapes, orbits

    def _children(self, inner: Inside) -> list[WreathNode]:
        """The orbits inside a component with members as positions in its aligned columns."""
        order, _, orbits = inner
        place = {int(u): k for k, u in enumerate(order)}
        return [_lower(o, place) for o in orbits]


def _lower(orbit: WreathNode, place: dict[int, int]) -> WreathNode:
    """Members from classes to positions in a component; children already are positions in theirs."""
    return WreathNode(np.vectorize(place.__getitem__, otypes=[np.int64])(orbit.members), orbit.children)


def _lift(orbit: WreathNode, columns: Ids) -> WreathNode:
    """Members from positions in a component to classes."""
    return WreathNode(columns[orbit.members], orbit.children)
