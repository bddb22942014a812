"""Where the units of an orbit meet the parameters, component by component and slot by slot.

A parameter is cut into groups of axes whose labels depend on each other (heads and what is inside them); the
positions of such a group are rows, everything else columns. An orbit touches some rows. Rows that exchanging
its components brings to each other have one *slot*: the same row after all its units were replaced by those
of the first component. So row `rows[i, t]` belongs to component i, and component i takes the place of
component j by moving `rows[j]` to `rows[i]`. Nested orbits cut the slots of one component in the same way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from onnxcanon.arrays import Ids
from onnxcanon.solving.group import WreathNode
from onnxcanon.symmetry import Symmetry

NONE, SEVERAL = -1, -2
"""A unit of no component; a composite of units of several components."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A group of axes of a parameter, whose positions are rows of a matrix.

    Attributes:
        name: the parameter.
        axes: the axes of the group.
        shape: the parameter's shape.
    """

    name: str
    axes: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many rows there are."""
        return prod(self.shape[a] for a in self.axes)

    @property
    def rest(self) -> tuple[int, ...]:
        """The axes that are columns."""
        return tuple(a for a in range(len(self.shape)) if a not in self.axes)

    def matrix(self, array: NDArray[Any]) -> NDArray[Any]:
        """The parameter as rows and columns [count, columns]."""
        return array.transpose(*self.axes, *self.rest).reshape(self.count, -1)

    def labels(self, labels: Ids) -> Ids:
        """What an array that broadcasts along the group, and depends on no other axis, says of each row."""
        kept = [labels.shape[a] if a in self.axes else 1 for a in range(len(self.shape))]
        wide = [self.shape[a] if a in self.axes else 1 for a in range(len(self.shape))]
        return np.broadcast_to(labels.reshape(kept), wide).reshape(-1)


@dataclass(frozen=True, slots=True)
class Incidence:
    """Rows of one parameter that an orbit moves.

    Attributes:
        rows: whose rows.
        slots: int64 [components, slots], numbers of rows, or of the outer component's slots.
        loose: bool [slots], those that no nested orbit moves.
        flips: bool [slots], those whose entries change sign with the component's own sign.
    """

    rows: Rows
    slots: Ids
    loose: NDArray[np.bool_]
    flips: NDArray[np.bool_]

    def components(self, array: NDArray[Any]) -> NDArray[Any]:
        """The parameter, or some columns of it, by components [components, slots, columns]; for an orbit at
        the top of the tree."""
        return self.of_blocks(self.rows.matrix(array)[None])

    def of_blocks(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The rows of every component of every block: [blocks · components, slots, columns]."""
        size, slots = self.slots.shape
        flat = self.slots.reshape(-1)
        whole = rows.shape[1] == len(flat) and bool((flat == np.arange(len(flat))).all())
        picked = rows if whole else rows[:, flat]
        return picked.reshape(len(rows) * size, slots, rows.shape[-1])


@dataclass(frozen=True, slots=True)
class Branch:
    """An orbit with its incidences, and what is nested in it.

    Attributes:
        orbit: the orbit; its members are unit classes, or columns of the outer component.
        incidences: where it meets parameters.
        children: the orbits nested in each component.
        signs: int64 [blocks · components], the sign freedom of each component alone; empty if none.
    """

    orbit: WreathNode
    incidences: tuple[Incidence, ...]
    children: tuple[Branch, ...] = ()
    signs: Ids = field(default_factory=lambda: np.zeros(0, np.int64))

    def all_signs(self) -> Ids:
        """The sign freedoms of single components, nested ones included."""
        return np.concatenate([self.signs, *(child.all_signs() for child in self.children)])

    def only(self, kept: Collection[Rows]) -> Branch:
        """The same with some of the incidences."""
        return replace(
            self,
            incidences=tuple(c for c in self.incidences if c.rows in kept),
            children=tuple(child.only(kept) for child in self.children),
        )

    def levels(self, blocks: Mapping[Rows, Ids] | None = None) -> Iterator[tuple[Branch, list[Ids]]]:
        """This orbit and all inside it, with the rows of their components in each incidence, int64
        [components of all blocks, slots].

        Args:
            blocks: the rows of the outer components, int64 [blocks, slots]; of the whole by default.
        """
        if blocks is None:
            blocks = {c.rows: np.arange(c.rows.count)[None] for c in self.incidences}
        found = [blocks[c.rows][:, c.slots].reshape(-1, c.slots.shape[1]) for c in self.incidences]
        yield self, found
        inside = {c.rows: rows for c, rows in zip(self.incidences, found, strict=True)}
        for child in self.children:
            yield from child.levels(inside)


class IncidenceFinder:
    """Finds the incidences of orbits in the parameters of a symmetry.

    A hidden layer of four units is a column of the first weight and a row of the second:

        >>> import onnx.parser
        >>> from onnxcanon.model import load
        >>> from onnxcanon.symmetry import symmetry
        >>> text = '''<ir_version: 8, opset_import: ["": 17]>
        ... mlp (float[N, 1] x) => (float[N, 1] y) <float[1, 4] w = {1,2,3,4}, float[4, 1] v = {1,1,1,1}>
        ... { h = MatMul(x, w) r = Tanh(h) y = MatMul(r, v) }'''
        >>> group = symmetry(load(onnx.parser.parse_model(text)))
        >>> branch, quadratic = IncidenceFinder(group).branch(group.solution.tree[0])
        >>> for incidence in branch.incidences:
        ...     print(incidence.rows.name, incidence.rows.axes, incidence.slots.tolist(), incidence.flips)
        w (1,) [[0], [1], [2], [3]] [ True]
        v (0,) [[0], [1], [2], [3]] [ True]
        >>> branch.signs, quadratic  # tanh is odd: each unit has a sign of its own
        (array([0, 1, 2, 3]), False)
    """

    def __init__(self, symmetry: Symmetry) -> None:
        self.symmetry = symmetry
        moving = symmetry.moving
        shapes = {name: p.shape for name, p in symmetry.trace.parameters.items()}
        self.groups = [
            Rows(name, axes, shapes[name])
            for name, classes in symmetry.classes.items()
            for axes in axis_groups(classes)
            if any(moving[classes[a]].any() for a in axes if a in classes)
        ]

    def branch(self, orbit: WreathNode) -> tuple[Branch, bool]:
        """The incidences of an orbit at the top of the tree, and whether some parameter meets it twice, so
        that what it changes there is not linear in one exchange."""
        component, image = _projection(self.symmetry, orbit.members)
        incidences, twice = [], False
        for rows in self.groups:
            owner, key = self._keys(rows, component, image)
            slots = _slots(owner, key, orbit.size)
            twice |= bool((owner == SEVERAL).any())
            if slots is not None:
                incidences.append((rows, slots))
        names = [rows.name for rows, _ in incidences]
        return self._branch_inside(orbit, orbit.members[None], incidences), twice or len(set(names)) < len(
            names
        )

    def _branch_inside(
        self, orbit: WreathNode, members: Ids, incidences: Sequence[tuple[Rows, Ids]]
    ) -> Branch:
        """The branch of an orbit inside blocks that are alike: its members are classes [blocks, k, s], the
        slots of its incidences rows [blocks · k, slots]."""
        first = members[0, 0]
        covered = [np.zeros(slots.shape[1], bool) for _, slots in incidences]
        children = []
        for child in orbit.children:
            component, image = _projection(self.symmetry, first[child.members])
            found = []
            for (rows, slots), mask in zip(incidences, covered, strict=True):
                owner, key = self._keys(rows, component, image)
                inside = _slots(owner[slots[0]], key[slots[0]], child.size)
                if inside is not None:
                    mask[inside] = True
                    found.append((rows, inside, slots))
            inner = members.reshape(-1, members.shape[-1])[:, child.members]
            children.append(self._nested(child, inner, found))
        signs, flips = self._own_signs(incidences)
        made = tuple(
            Incidence(rows, slots[: orbit.size], ~mask, flip)
            for (rows, slots), mask, flip in zip(incidences, covered, flips, strict=True)
        )
        return Branch(orbit, made, tuple(children), signs)

    def _nested(self, child: WreathNode, inner: Ids, found: Sequence[tuple[Rows, Ids, Ids]]) -> Branch:
        """A nested branch: built from rows, its slots then said of the outer component's."""
        whole = [(rows, outer[:, inside].reshape(-1, inside.shape[1])) for rows, inside, outer in found]
        branch = self._branch_inside(child, inner, whole)
        incidences = tuple(
            replace(incidence, slots=inside)
            for incidence, (_, inside, _) in zip(branch.incidences, found, strict=True)
        )
        return replace(branch, incidences=incidences)

    def _keys(self, rows: Rows, component: Ids, image: Ids) -> tuple[Ids, Ids]:
        """For each row the component it belongs to, and a key that its twins in other components share."""
        classes = self.symmetry.classes[rows.name]
        owner = np.full(rows.count, NONE)
        keys = []
        for axis in rows.axes:
            if axis not in classes:
                continue
            units = rows.labels(classes[axis])
            owner = _joined(owner, component[units])
            keys.append(image[units])
        bare = [rows.shape[a] for a in rows.axes if a not in classes]
        if bare:  # a context without units of its own: its positions are told apart by number
            index = np.indices([rows.shape[a] for a in rows.axes]).reshape(len(rows.axes), -1)
            keys += [index[k] for k, a in enumerate(rows.axes) if a not in classes]
        if len(keys) == 1:
            return owner, keys[0]
        _, key = np.unique(np.stack(keys), axis=1, return_inverse=True)
        return owner, key.reshape(-1)

    def _own_signs(self, incidences: Sequence[tuple[Rows, Ids]]) -> tuple[Ids, list[NDArray[np.bool_]]]:
        """The sign freedom that belongs to each component alone, and which slots it flips."""
        nothing = np.zeros(0, np.int64), [np.zeros(slots.shape[1], bool) for _, slots in incidences]
        if not incidences:
            return nothing
        forms = self.symmetry.sign.forms
        elsewhere = self._acting_outside(incidences)
        acting = []
        for rows, slots in incidences:
            freedom = np.full((rows.count, len(rows.axes)), -1)
            for column, axis in enumerate(rows.axes):
                variables = self.symmetry.exponents[rows.name].get(axis)
                if variables is None:
                    continue
                if any(variables.shape[a] > 1 for a in rows.rest):
                    return nothing
                freedom[:, column] = _single(forms, rows.labels(variables))
            found = freedom[slots].max(-1)
            if ((freedom[slots] != found[..., None]) & (freedom[slots] != -1)).any():
                return nothing
            outside = np.ones(rows.count, bool)
            outside[slots] = False
            elsewhere[freedom[outside][freedom[outside] >= 0]] = True
            acting.append(found)
        signs = np.array(
            [max((int(f[i].max()) for f in acting), default=-1) for i in range(len(incidences[0][1]))]
        )
        if (signs < 0).any() or elsewhere[signs].any() or len(np.unique(signs)) < len(signs):
            return nothing
        if any(((f != -1) & (f != signs[:, None])).any() for f in acting):
            return nothing
        flips = [(f == signs[:, None]).all(0) for f in acting]
        if any(((f == signs[:, None]) != flip).any() for f, flip in zip(acting, flips, strict=True)):
            return nothing
        return signs, flips

    def _acting_outside(self, incidences: Sequence[tuple[Rows, Ids]]) -> NDArray[np.bool_]:
        """Which sign freedoms act on axes that are not among those of the incidences."""
        times = self._signed_axes.copy()
        for key in {(rows.name, axis) for rows, _ in incidences for axis in rows.axes}:
            times[self._signs_of.get(key, [])] -= 1
        return times > 0

    @cached_property
    def _signs_of(self) -> dict[tuple[str, int], Ids]:
        """The sign freedoms that act on each axis of a parameter, each once."""
        forms = self.symmetry.sign.forms
        return {
            (name, axis): np.unique(forms[variables.ravel()].indices).astype(np.int64)
            for name, exponents in self.symmetry.exponents.items()
            for axis, variables in exponents.items()
        }

    @cached_property
    def _signed_axes(self) -> Ids:
        """On how many axes each sign freedom acts."""
        acting = [*self._signs_of.values(), np.zeros(0, np.int64)]
        return np.bincount(np.concatenate(acting), minlength=self.symmetry.sign.forms.shape[1])


def _single(forms: csr_matrix, variables: Ids) -> Ids:
    """The freedom that acts on each variable, -1 for none, -2 for several."""
    picked = forms[variables]
    count = np.diff(picked.indptr)
    out = np.where(count == 0, -1, -2)
    out[count == 1] = picked.indices[picked.indptr[:-1][count == 1]]
    return out


def axis_groups(classes: dict[int, Ids]) -> list[tuple[int, ...]]:
    """Axes with labels, those together whose labels depend on each other's position."""
    root = {a: a for a in classes}

    def find(a: int) -> int:
        while root[a] != a:
            a = root[a]
        return a

    for axis, rows in classes.items():
        for other, size in enumerate(rows.shape):
            if other != axis and size > 1:
                root.setdefault(other, other)
                root[find(axis)] = find(other)
    groups: dict[int, list[int]] = {}
    for axis in sorted(root):
        groups.setdefault(find(axis), []).append(axis)
    return [tuple(axes) for axes in groups.values()]


def _projection(symmetry: Symmetry, members: Ids) -> tuple[Ids, Ids]:
    """For each class the component [k, s] of `members` it belongs to, and a number for what becomes of it
    when every component is replaced by the first."""
    count = symmetry.solution.count
    component = np.full(count, NONE)
    component[members] = np.arange(len(members))[:, None]
    image = np.arange(count)
    image[members] = members[0]
    fresh = count
    for dependent in symmetry.solution.dependent:
        owner = np.full(len(dependent.products), NONE)
        for part in dependent.parts.T:
            owner = _joined(owner, component[part])
        component[dependent.products] = owner
        touched = owner != NONE
        if touched.any():
            key = np.column_stack([dependent.code, image[dependent.parts]])
            _, number = np.unique(key, axis=0, return_inverse=True)
            image[dependent.products] = fresh + number.reshape(-1)
            fresh += len(key)
    return component, image


def _joined(one: Ids, other: Ids) -> Ids:
    """The component of what belongs to two things."""
    clash = (one != other) & (one != NONE) & (other != NONE)
    return np.where(clash, SEVERAL, np.where(one == NONE, other, one))


def _slots(owner: Ids, key: Ids, size: int) -> Ids | None:
    """Positions by component and slot, int64 [size, slots]; None where the components have none."""
    touched = np.flatnonzero(owner >= 0)
    if not len(touched):
        return None
    order = touched[np.lexsort((touched, key[touched], owner[touched]))]
    if len(order) % size or (np.bincount(owner[touched], minlength=size) * size != len(order)).any():
        return None
    return order.reshape(size, -1)
