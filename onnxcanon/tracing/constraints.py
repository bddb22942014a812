"""The constraints: what the rules say about units and exponents, before anything is solved.

A *unit* is one position of one axis of one parameter, or a product of such positions; an *exponent* is the
unknown logarithm of the factor by which the entries at one position are scaled, or flipped. Rules only ever
add constraints:

- ``equal(a, b)``       the units are one unit                       (elementwise meeting, contraction)
- ``pin(a, why)``       the units may not move                       (graph output, unknown operator, …)
- ``relate(rows)``      rows of units that can only move together    (flatten, heads, gates, groups)
- ``column(ids)``       a set of units that maps onto itself         (slice, concatenation, parameter axis)
- ``selection(a, b)``   the units b were taken from a in this order  (matters where a unit repeats)

and for exponents ``exponent_equal``, ``exponent_opposite``, ``exponent_zero`` and ``exponent_sum``. Scales
(exponents over the integers) and signs (over GF(2)) share the variables and differ in which of these hold.

Four units of a bias meet the four columns of a weight, and the first is pinned:

>>> constraints = Constraints()
>>> columns, bias = constraints.new_units((1, 4)), constraints.new_units((4,))
>>> with constraints.stated_by(Provenance("Add_3"), (3, -1)):
...     constraints.equal(columns, bias)
...     constraints.pin(bias[:1], Provenance("Add_3", "a reason"))
>>> constraints.equals, constraints.equal_nodes
([(array([0, 1, 2, 3]), array([4, 5, 6, 7]))], ['Add_3'])
>>> constraints.pins
[(array([4]), Provenance(node='Add_3', reason='a reason'), (3, -1))]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntFlag, StrEnum

import numpy as np

from onnxcanon.arrays import Ids

Slot = tuple[int, int]
"""Where in the graph a constraint was stated: the number of a node (or parameter), and the number of one of
its inputs or outputs, or -1 for the node as a whole."""

NOWHERE: Slot = (-1, -1)

ZERO = 0
"""The exponent variable that is zero in both systems."""


class System(IntFlag):
    """The system of equations that a constraint on exponents belongs to."""

    SCALE = 1
    SIGN = 2
    BOTH = 3


class Reason(StrEnum):
    """Reasons of pins and of unsupported nodes that code asks about; all others are sentences for people."""

    POSITION = "a position"
    OWN_MEANING = "its positions have a meaning here"
    NEVER_READ = "never read"
    MEETS_FIXED = "meets a fixed axis"
    JOINED_WITH_FIXED = "concatenated with a fixed axis"
    CONTRACTED_WITH_FIXED = "contracted with a fixed axis"
    UNKNOWN_SHAPE = "an input has no known shape"
    OTHER_SHAPE = "its result has not the shape that was inferred or declared"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Who states a constraint, a node by its name, and why: one of `Reason`, or a sentence."""

    node: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Relation:
    """Rows of units; any permutation maps rows to rows. `rows` int64 [n, arity], the flattened grid of
    `shape`; `lines[k]` are the grid's axes along which part k lies as labels of an axis: where a label
    repeats there, its k-th occurrence maps to the k-th. `key` None or a tag that makes two relations with
    equal keys and equal first columns the same function (congruence)."""

    rows: Ids
    shape: tuple[int, ...]
    lines: tuple[tuple[int, ...], ...]
    key: tuple[int, ...] | None
    slot: Slot
    node: str = ""


def _paired(a: Ids, b: Ids) -> tuple[Ids, Ids]:
    """The arrays broadcast against each other, without the repetitions where neither varies along an axis."""
    a, b = _narrow(a, b.shape), _narrow(b, a.shape)
    a, b = np.broadcast_arrays(a, b)
    return a, b


def _narrow(array: Ids, other: Sequence[int]) -> Ids:
    """Without an axis along which neither the array nor the other one, of shape `other`, varies."""
    for axis in range(-1, -1 - array.ndim, -1):
        single = -axis > len(other) or other[axis] == 1
        if single and array.shape[axis] > 1:
            first = array.take([0], axis)
            if (first == array).all():
                array = first
    return array


@dataclass(slots=True)
class Constraints:
    """What the rules have stated; `equal_nodes[k]` is the node that stated `equals[k]`. Ids handed out
    together are a block; `unit_blocks` and `exponent_blocks` hold the first id of each."""

    units: int = 0
    exponents: int = 1  # variable 0 is ZERO
    provenance: Provenance = Provenance("")
    equals: list[tuple[Ids, Ids]] = field(default_factory=list)
    equal_nodes: list[str] = field(default_factory=list)
    pins: list[tuple[Ids, Provenance, Slot]] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    columns: list[tuple[Ids, Ids, Slot]] = field(default_factory=list)
    selections: list[tuple[Ids, Ids, Ids, Slot]] = field(default_factory=list)
    exponent_pairs: list[tuple[Ids, Ids, int, System]] = field(default_factory=list)
    exponent_sums: list[tuple[Ids, Ids, Ids, System]] = field(default_factory=list)
    unit_blocks: list[int] = field(default_factory=list)
    exponent_blocks: list[int] = field(default_factory=lambda: [ZERO])
    slot: Slot = NOWHERE  # of what is stated now
    _positions: Ids = field(default_factory=lambda: np.zeros(0, np.int64))

    @contextmanager
    def stated_by(self, provenance: Provenance, slot: Slot) -> Iterator[None]:
        """What is stated inside is noted beside this node and slot, afterwards beside those of before."""
        before = self.provenance, self.slot
        self.provenance, self.slot = provenance, slot
        try:
            yield
        finally:
            self.provenance, self.slot = before

    def new_units(self, shape: Sequence[int]) -> Ids:
        """Fresh unit ids, int64 of the given shape."""
        n = int(np.prod(shape, dtype=np.int64))
        ids = np.arange(self.units, self.units + n, dtype=np.int64).reshape(shape)
        if n:
            self.unit_blocks.append(self.units)
        self.units += n
        return ids

    def new_exponents(self, shape: Sequence[int]) -> Ids:
        """Fresh exponent variables, int64 of the given shape."""
        n = int(np.prod(shape, dtype=np.int64))
        ids = np.arange(self.exponents, self.exponents + n, dtype=np.int64).reshape(shape)
        if n:
            self.exponent_blocks.append(self.exponents)
        self.exponents += n
        return ids

    def positions(self, n: int) -> Ids:
        """Units that stand for positions 0 … n-1 of a fixed axis; they never move."""
        have = len(self._positions)
        if n > have:
            more = self.new_units((n - have,))
            self.pin(more, Provenance("", Reason.POSITION))
            self._positions = np.concatenate([self._positions, more])
        return self._positions[:n]

    def equal(self, a: Ids, b: Ids) -> None:
        """Broadcast `a` against `b`: each pair is one unit."""
        if a is not b:
            a, b = _paired(a, b)
            self.equals.append((a.ravel(), b.ravel()))
            self.equal_nodes.append(self.provenance.node)

    def pin(self, ids: Ids, provenance: Provenance) -> None:
        """None of the units may move."""
        self.pins.append((ids.ravel(), provenance, self.slot))

    def relate(
        self, parts: Sequence[Ids], lines: Sequence[Sequence[int]], key: tuple[int, ...] | None = None
    ) -> None:
        """Broadcast the parts against each other; each entry is one row. `lines` as in `Relation`."""
        grids = np.broadcast_arrays(*parts)
        rows = np.stack([p.ravel() for p in grids], 1)
        lined = tuple(map(tuple, lines))
        self.relations.append(Relation(rows, grids[0].shape, lined, key, self.slot, self.provenance.node))

    def column(self, ids: Ids, code: Ids | None = None) -> None:
        """The units of each code form a set that maps onto itself; all of them, by default."""
        codes = (
            np.zeros(1, np.int64)
            if code is None or code.size == 1
            else np.broadcast_to(code, ids.shape).ravel()
        )
        self.columns.append((ids.ravel(), codes, self.slot))

    def selection(self, before: Ids, after: Ids, index: Ids) -> None:
        """`after` [r, m] is `before` [r, n] taken at `index` [m] (matters where labels repeat)."""
        self.selections.append((before, after, index, self.slot))

    def exponent_equal(self, a: Ids, b: Ids, system: System = System.BOTH) -> None:
        """Broadcast: deg(a) = deg(b)."""
        if a is not b:
            a, b = _paired(a, b)
            self.exponent_pairs.append((a.ravel(), b.ravel(), 1, system))

    def exponent_opposite(self, a: Ids, b: Ids, system: System = System.BOTH) -> None:
        """Broadcast: deg(a) = -deg(b)."""
        a, b = _paired(a, b)
        self.exponent_pairs.append((a.ravel(), b.ravel(), -1, system))

    def exponent_zero(self, a: Ids | None, system: System = System.BOTH) -> None:
        """deg(a) = 0; None is already zero."""
        if a is not None:
            self.exponent_pairs.append((a.ravel(), np.zeros(a.size, np.int64), 1, system))

    def exponent_sum(self, a: Ids | None, b: Ids | None) -> Ids | None:
        """The exponent of a product: deg(a) + deg(b), broadcast."""
        if a is None:
            return b
        if b is None:
            return a
        total = self.new_exponents(np.broadcast_shapes(a.shape, b.shape))
        a, b, _ = np.broadcast_arrays(a, b, total)
        self.exponent_sums.append((total.ravel(), a.ravel(), b.ravel(), System.BOTH))
        return total
