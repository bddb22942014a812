"""Hidden dimensions: the wreath tree and the rescaling group in terms of parameter axes.

A dimension is a node of the tree (k interchangeable components) or, where the order is fixed but scale or
sign is free, the units of one such axis. It *occurs* at an axis of a parameter where its units stand; the
units of a nested one belong to the outer ones too. Where labels depend on the position along another axis
(their context), it is that axis which carries the outer dimension.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from onnxcanon.arrays import Ids
from onnxcanon.explaining.counting import RescalingCounts
from onnxcanon.solving.group import Solution, WreathNode
from onnxcanon.solving.hashing import distinct
from onnxcanon.symmetry import Symmetry
from onnxcanon.tracing.abstract_value import AbstractValue, State

Mask = NDArray[np.bool_]
SAMPLE = 64
"""How many labels along an axis of an activation are looked at to see which dimensions it carries."""


@dataclass(slots=True)
class DimensionDraft:
    """A dimension while it is being described: `sites` maps (parameter, axis) to a number of positions."""

    size: int
    permute: bool
    outer: DimensionDraft | None = None
    copies: int = 1
    scale: bool = False
    sign: bool = False
    sites: dict[tuple[str, int], int] = field(default_factory=dict)
    values: list[str] = field(default_factory=list)


@dataclass(slots=True)
class AxisTable:
    """All labelled axes of all parameters; most have the labels of many others, which are looked at once.

    Attributes:
        names: the axes, each with the number of its labels.
        labels: the different label arrays in one flat table: which array, the position along the axis and the
            unit class of every entry.
        context: whether the classes of an array depend on other axes, bool [arrays].
    """

    names: list[tuple[tuple[str, int], int]]
    labels: tuple[Ids, Ids, Ids]
    context: Mask

    @classmethod
    def of(cls, symmetry: Symmetry) -> AxisTable:
        """The entries of every label array, in order."""
        names: list[tuple[tuple[str, int], int]] = []
        numbers: dict[tuple[bytes, int, int], int] = {}
        arrays: list[Ids] = []
        for name, axes in symmetry.classes.items():
            for axis, rows in axes.items():
                if rows.shape[axis] > 1:
                    mark = rows.tobytes(), rows.shape[axis], prod(rows.shape[axis + 1 :])
                    number = numbers.setdefault(mark, len(arrays))
                    if number == len(arrays):
                        arrays.append(rows)
                    names.append(((name, axis), number))
        sizes = np.array([a.size for a in arrays], np.int64)
        length = np.array([length for _, length, _ in numbers], np.int64)
        stride = np.array([stride for _, _, stride in numbers], np.int64)
        which = np.repeat(np.arange(len(arrays)), sizes)
        within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        position = within // stride[which] % length[which]
        return cls(names, (which, position, _joined(a.ravel() for a in arrays)), sizes > length)


class Membership:
    """Which dimensions each unit class belongs to: `label` [classes] numbers distinct sets of dimensions."""

    def __init__(self, solution: Solution) -> None:
        self.drafts: list[DimensionDraft] = []
        self.sets: list[frozenset[int]] = [frozenset()]  # all dimensions, outer ones included
        self.inner: list[frozenset[int]] = [frozenset()]  # the innermost ones only
        self.label = np.zeros(solution.count, np.int64)
        for orbit in solution.tree:
            self._enter(orbit, orbit.members, None, frozenset(), 1)
        for dependent in solution.dependent:
            self._derive(dependent.products, dependent.parts)

    def _enter(
        self,
        node: WreathNode,
        members: Ids,
        outer: DimensionDraft | None,
        around: frozenset[int],
        copies: int,
    ) -> None:
        """Label the classes of a node, int64 [components, columns], then those of the nodes inside."""
        draft = DimensionDraft(node.size, True, outer, copies)
        number = len(self.drafts)
        self.drafts.append(draft)
        chain = around | {number}
        self.label[members.ravel()] = self._number(chain, frozenset({number}))
        for child in node.children:
            inside = members[:, child.members].reshape(-1, child.members.shape[1])
            self._enter(child, inside, draft, chain, copies * node.size)

    def add(self, draft: DimensionDraft, classes: Ids) -> None:
        """One more dimension of the given classes."""
        number = frozenset({len(self.drafts)})
        self.drafts.append(draft)
        self.label[classes] = self._number(number, number)

    def _number(self, chain: frozenset[int], inner: frozenset[int]) -> int:
        self.sets.append(chain)
        self.inner.append(inner)
        return len(self.sets) - 1

    def _derive(self, composites: Ids, parts: Ids) -> None:
        """A composite belongs to the dimensions of all its parts."""
        kinds, index = np.unique(self.label[parts], axis=0, return_inverse=True)
        numbers = [
            self._number(_union(self.sets[k] for k in row), _union(self.inner[k] for k in row))
            for row in kinds.tolist()
        ]
        self.label[composites] = np.array(numbers, np.int64)[index.reshape(-1)]


def find_dimensions(symmetry: Symmetry, counts: RescalingCounts) -> tuple[list[DimensionDraft], Mask]:
    """The dimensions, outer ones before those inside, and which classes may move (bool [classes])."""
    membership = Membership(symmetry.solution)
    axes = AxisTable.of(symmetry)
    _place(membership, axes)
    moving = membership.label > 0
    _free_exponents(symmetry, counts, membership)
    _name_values(symmetry, membership)
    return _in_order(symmetry, membership.drafts), moving


def _place(membership: Membership, axes: AxisTable) -> None:
    """Fill in the sites of every dimension."""
    which, position, classes = axes.labels
    labels = membership.label[classes]
    moving = labels > 0
    span = int(position.max(initial=0)) + 1
    code = (which[moving] * len(membership.sets) + labels[moving]) * span + position[moving]
    pairs, counts = np.unique(distinct(code) // span, return_counts=True)
    positions: dict[int, list[tuple[int, int]]] = {}
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        number, label = divmod(pair, len(membership.sets))
        positions.setdefault(number, []).append((label, count))
    for name, number in axes.names:
        for label, count in positions.get(number, ()):
            for dimension in (membership.inner if axes.context[number] else membership.sets)[label]:
                sites = membership.drafts[dimension].sites
                sites[name] = sites.get(name, 0) + count


# -- scale and sign ---------------------------------------------------------------------------------


def _free_exponents(symmetry: Symmetry, counts: RescalingCounts, membership: Membership) -> None:
    """Mark the dimensions that scale or flip; gather the free exponents of fixed order as dimensions."""
    scale, sign = counts.scaling, counts.flipping
    entries = _free_entries(symmetry, scale | sign)
    labels = membership.label[entries.classes]
    for label in distinct(labels[scale[entries.variables]]).tolist():
        for number in membership.inner[label]:
            membership.drafts[number].scale = True
    for label in distinct(labels[sign[entries.variables]]).tolist():
        for number in membership.inner[label]:
            membership.drafts[number].sign = True
    ordered = (labels == 0) & (scale | sign)[entries.variables]
    if ordered.any():
        for draft, units in _ordered_dimensions(symmetry, entries.only(ordered)):
            membership.add(draft, units)


def _free_entries(symmetry: Symmetry, free: Mask) -> _Entries:
    """Where free exponents stand. An axis along which the multiplier does not vary, in a parameter that has
    other free axes, is left out: the same factor is listed there."""
    words = _words(symmetry)
    names: list[tuple[str, int]] = []
    classes: list[Ids] = []
    variables: list[Ids] = []
    for name, axes in symmetry.exponents.items():
        able = [a for a, d in axes.items() if d.shape[a] > 1 and free[d].any()]
        for axis in able:
            exponents = axes[axis]
            if len(able) > 1 and (words[exponents] == words[exponents.take([0], axis)]).all():
                continue
            if axis in symmetry.classes[name]:
                rows, columns = np.broadcast_arrays(symmetry.classes[name][axis], exponents)
                names.append((name, axis))
                classes.append(rows.ravel())
                variables.append(columns.ravel())
    site = np.repeat(np.arange(len(names)), [len(c) for c in classes])
    return _Entries(names, site, _joined(classes), _joined(variables))


def _words(symmetry: Symmetry) -> Ids:
    """A hash of every exponent variable's forms: equal for variables that always change alike."""
    rng = np.random.default_rng(0)
    total = np.zeros(symmetry.scale.forms.shape[0], np.int64)
    for freedom in (symmetry.scale, symmetry.sign):
        total += freedom.forms @ rng.integers(1 << 40, 1 << 62, freedom.count)
    return total


@dataclass(slots=True)
class _Entries:
    """Pairs of a unit class and an exponent variable, with the axis where they meet."""

    names: list[tuple[str, int]]
    site: Ids
    classes: Ids
    variables: Ids

    def only(self, chosen: Mask) -> _Entries:
        """Some of the entries."""
        return _Entries(self.names, self.site[chosen], self.classes[chosen], self.variables[chosen])


def _ordered_dimensions(symmetry: Symmetry, entries: _Entries) -> list[tuple[DimensionDraft, Ids]]:
    """Dimensions of fixed order with their classes: axes that share units, or generators, are one."""
    scale, sign = symmetry.scale.forms, symmetry.sign.forms
    count = len(entries.names)
    names, unit = np.unique(entries.classes, return_inverse=True)
    nodes = count + len(names)
    links = coo_matrix((np.ones(len(unit), np.int8), (entries.site, count + unit)), shape=(nodes, nodes))
    cluster = connected_components(links, directed=False)[1][entries.site]
    merged: dict[tuple[bytes, bytes], tuple[DimensionDraft, Ids]] = {}
    for number in dict.fromkeys(cluster.tolist()):
        mine = cluster == number
        variables = distinct(entries.variables[mine])
        scales, signs = distinct(scale[variables].indices), distinct(sign[variables].indices)
        units = distinct(entries.classes[mine])
        mark = (scales.tobytes(), signs.tobytes())
        fresh = DimensionDraft(len(units), False, scale=scales.size > 0, sign=signs.size > 0), units[:0]
        draft, before = merged.get(mark, fresh)
        draft.size = min(draft.size, len(units))
        sites, positions = np.unique(entries.site[mine], return_counts=True)
        for site, n in zip(sites.tolist(), positions.tolist(), strict=True):
            name, axis = entries.names[site]
            draft.sites[name, axis] = min(n, symmetry.trace.parameters[name].shape[axis])
        merged[mark] = draft, np.concatenate([before, units])
    return list(merged.values())


# -- names and order --------------------------------------------------------------------------------


def activations(symmetry: Symmetry) -> Iterable[tuple[str, AbstractValue]]:
    """The labelled values that nodes compute, in the order of the graph."""
    trace = symmetry.trace
    constants = trace.parameters.keys() | trace.fixed_constants.keys() | trace.data_constants.keys()
    return ((name, value) for name, value in trace.values.items() if name not in constants)


def _name_values(symmetry: Symmetry, membership: Membership) -> None:
    """Note for every dimension the activations that carry it, as far as a sample of their labels shows."""
    names: list[str] = []
    samples: list[Ids] = []
    context: list[bool] = []
    for name, value in activations(symmetry):
        for axis, ids in enumerate(value.ids):
            if not isinstance(ids, State) and value.shape[axis] > 1:
                flat = ids.ravel()
                names.append(name)
                context.append(len(flat) > value.shape[axis])
                samples.append(flat[:: -(-len(flat) // SAMPLE)])
    if not names:
        return
    owner = np.repeat(np.arange(len(names)), [len(s) for s in samples])
    labels = membership.label[symmetry.solution.classes[_joined(samples)]]
    pairs = distinct((owner * len(membership.sets) + labels)[labels > 0])
    for pair in pairs.tolist():
        at, label = divmod(pair, len(membership.sets))
        for number in (membership.inner if context[at] else membership.sets)[label]:
            values = membership.drafts[number].values
            if not values or values[-1] != names[at]:
                values.append(names[at])


def _in_order(symmetry: Symmetry, drafts: list[DimensionDraft]) -> list[DimensionDraft]:
    """Dimensions as the graph meets them, each followed by those inside it; ones without a site left out."""
    parameter = {name: k for k, name in enumerate(symmetry.trace.parameters)}
    value = {name: k for k, name in enumerate(symmetry.trace.values)}

    def key(d: DimensionDraft) -> tuple[int, int, int]:
        first = min((parameter[name], axis) for name, axis in d.sites)
        return min((value[v] for v in d.values), default=len(value)), *first

    children: dict[int, list[DimensionDraft]] = {}
    for d in drafts:
        if d.sites:
            children.setdefault(id(d.outer), []).append(d)
    out: list[DimensionDraft] = []

    def visit(outer: DimensionDraft | None) -> None:
        for d in sorted(children.get(id(outer), []), key=key):
            out.append(d)
            visit(d)

    visit(None)
    return out


def _joined(arrays: Iterable[Ids]) -> Ids:
    return np.concatenate([np.zeros(0, np.int64), *arrays])


def _union(sets: Iterable[frozenset[int]]) -> frozenset[int]:
    return frozenset().union(*sets)
