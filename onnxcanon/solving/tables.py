"""Relations over unit classes: tables of rows that any permutation maps to rows, and the numbering of
repeats.

Where a label stands several times along an axis its k-th occurrence goes to the k-th: occurrence numbers are
the codes that distinguish such rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxcanon.arrays import Ids, Words
from onnxcanon.solving.blocks import unite_blocks
from onnxcanon.solving.hashing import add_at, distinct, mix, salt
from onnxcanon.tracing.constraints import Constraints, Relation


@dataclass(slots=True)
class RelationTable:
    """A relation over classes.

    Attributes:
        rows: int64 [n, arity].
        code: int64 [n], distinguishes rows that repeat.
        number: enters the hashes of rows.
        product: whether the first class of a row is the product of the others.
        membership: whether it ties classes to the branch they are stated in.

    Two groups of two members, as (group, member); a member's colour changes with that of its group:

    >>> rows = np.array([[0, 2], [0, 3], [1, 4], [1, 5]])
    >>> table = RelationTable(rows, np.zeros(4, np.int64), 1, product=False)
    >>> total = np.zeros(6, np.uint64)
    >>> table.contribute(np.array([7, 8, 0, 0, 0, 0], np.uint64), total)
    >>> bool(total[2] == total[3]), bool(total[2] == total[4])
    (True, False)
    """

    rows: Ids
    code: Ids
    number: int
    product: bool
    membership: bool = False

    def words(self, which: Ids, rows: Ids) -> Words:
        """A hash of each of the rows `which`, if their classes were `rows`; uint64 [n]."""
        total = self.code[which].astype(np.uint64) * np.uint64(0x51ED) + salt(4, self.number)
        for k in range(rows.shape[1]):
            total = mix(total + rows[:, k].astype(np.uint64))
        return total

    def contribute(self, colours: Words, total: Words) -> None:
        """Add each row's colour to its members."""
        row = self.code.astype(np.uint64) * np.uint64(0x51ED) + salt(5, self.number)
        for k in range(self.rows.shape[1]):
            row = row + mix(colours[self.rows[:, k]] + salt(6, k))
        row = mix(row)
        for k in range(self.rows.shape[1]):
            add_at(total, self.rows[:, k], mix(row + salt(7, k)))

    def is_full_product(self) -> bool:
        """Whether every combination of the columns' members is a row, for each code: then it says nothing."""
        counts = [_distinct(self.rows[:, k]) for k in range(self.rows.shape[1])]
        return float(np.prod(counts, dtype=np.float64)) * _distinct(self.code) == len(self.rows)

    def is_full_product_within(self, which: Ids, inside: NDArray[np.bool_]) -> bool:
        """Whether, in the rows `which`, every combination of members inside is there for each combination of
        those outside; `inside` is bool [rows, arity]."""
        chosen = inside[0]
        if not (inside == chosen).all():
            return False
        rows = self.rows[which]
        _, outer = np.unique(row_numbers(*rows[:, ~chosen].T, self.code[which]), return_inverse=True)
        size = np.bincount(outer)
        combinations = np.ones(len(size))
        for k in np.flatnonzero(chosen):
            combinations *= distinct_within(outer, rows[:, k])
            if combinations.min(initial=1) > size.max(initial=0):
                return False
        return bool((combinations == size).all())


class RowIndex:
    """Which rows, of arrays of classes stacked on each other, a class stands in."""

    def __init__(self, arrays: Sequence[Ids], count: int) -> None:
        flat = [np.zeros(0, np.int64), *(a.ravel() for a in arrays)]
        owner = [np.zeros(0, np.int64), *(np.full(a.size, k) for k, a in enumerate(arrays))]
        rows = [np.zeros(0, np.int64), *(np.repeat(np.arange(len(a)), a.shape[1]) for a in arrays)]
        classes = np.concatenate(flat)
        order = np.argsort(classes, kind="stable")
        self.owner, self.row = np.concatenate(owner)[order], np.concatenate(rows)[order]
        self.start = np.searchsorted(classes[order], np.arange(count + 1))

    def of(self, classes: Ids) -> dict[int, Ids]:
        """The rows of each array in which any of the classes stands."""
        lengths = self.start[classes + 1] - self.start[classes]
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        at = np.repeat(self.start[classes] - (ends - lengths), lengths) + np.arange(total)
        owner, row = self.owner[at], self.row[at]
        return {int(k): distinct(row[owner == k]) for k in distinct(owner)}


def unite(constraints: Constraints) -> tuple[Ids, int]:
    """Classes of equal units, closed under congruence: the class of each unit, and how many there are.

    A relation with a key is a function of its parts, and its parts are one of the product. So where two
    relations with one key have the same parts, their products are the same units: two reshapes of [2, 2] to
    [4], of values whose axes are one pair of axes, give the same four units.

    >>> constraints = Constraints()
    >>> outer, inner = constraints.new_units((2, 1)), constraints.new_units((1, 2))
    >>> for _ in range(2):
    ...     constraints.relate([constraints.new_units((2, 2)), outer, inner], [(0, 1), (0,), (1,)], (2, 2))
    >>> unite(constraints)
    (array([0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7]), 8)
    """
    blocks = unite_blocks(
        constraints.unit_blocks, constraints.units, ((a, b, 1) for a, b in constraints.equals)
    )
    left, right = [a for a, _, _ in blocks.pairs], [b for _, b, _ in blocks.pairs]
    functions = [r for r in constraints.relations if r.key is not None]
    while True:
        classes = connected(blocks.count, left, right)[blocks.index]
        first_seen: dict[tuple[object, ...], tuple[Ids, Ids]] = {}
        grown = False
        for relation in functions:
            rows = classes[relation.rows]
            for side, lead in (("whole", [0]), ("parts", list(range(1, rows.shape[1])))):
                chosen = function_of(rows, lead)
                if chosen is None:
                    continue
                # The same units in another order are another axis to split, but the same parts to join.
                order = chosen.tobytes() if side == "whole" else b""
                mark = (relation.key, side, rows.shape[1], order, rows[chosen][:, lead].tobytes())
                other, units = first_seen.setdefault(mark, (rows[chosen], relation.rows[chosen]))
                if not np.array_equal(other, rows[chosen]):
                    left.extend(blocks.index[units].T)
                    right.extend(blocks.index[relation.rows[chosen]].T)
                    grown = True
        if not grown:  # else classes that became one may make more relations agree
            return classes, int(classes.max()) + 1 if len(classes) else 0


def function_of(rows: Ids, lead: list[int]) -> Ids | None:
    """Indices of the distinct rows, sorted by their leading columns; None unless these determine the rest.

    >>> function_of(np.array([[5, 0], [6, 1], [5, 0]]), [1])
    array([0, 1])
    >>> function_of(np.array([[5, 0], [6, 0]]), [1]) is None
    True
    """
    rest = [k for k in range(rows.shape[1]) if k not in lead]
    order = np.lexsort(rows[:, [*rest, *lead]].T)
    ranked = rows[order]
    differ = ranked[1:] != ranked[:-1]
    fresh = np.r_[True, differ.any(1)]
    if not differ[:, lead].any(1)[fresh[1:]].all():
        return None
    return order[fresh]


def connected(n: int, left: Sequence[Ids], right: Sequence[Ids]) -> Ids:
    """Connected components of n nodes under the given edges, numbered from 0 by their smallest member.

    >>> connected(5, [np.array([0, 1])], [np.array([3, 4])])
    array([0, 1, 2, 0, 1])

    Roots of trees hook to the smaller root at the other end of an edge, trees are flattened, until no edge
    joins two (Shiloach and Vishkin 1982): a few passes over whole arrays, without the overhead of a sparse
    matrix.
    """
    a = np.concatenate([np.zeros(0, np.int64), *left])
    b = np.concatenate([np.zeros(0, np.int64), *right])
    root = np.arange(n)
    while True:
        a, b = root[a], root[b]
        open_ = a != b
        if not open_.any():
            break
        a, b = a[open_], b[open_]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(flat := root[root], root):
            root = flat
    first = root == np.arange(n)
    return np.asarray((np.cumsum(first) - 1)[root], np.int64)


def row_numbers(*columns: Ids) -> Ids:
    """A number for each row of a table given by its columns: equal rows have equal numbers, and numbers are
    ordered as the rows are."""
    total, span = np.zeros(len(columns[0]), np.int64), 1
    for column in columns:
        width = int(column.max(initial=0)) + 1
        if column.min(initial=0) < 0 or width > 1 << 31:
            _, column = np.unique(column, return_inverse=True)
            width = int(column.max(initial=0)) + 1
        if span > (1 << 62) // width:
            _, total = np.unique(total, return_inverse=True)
            span = int(total.max(initial=0)) + 1
        total = total * width + column
        span *= width
    return total


def unique_rows(rows: Ids, code: Ids) -> tuple[Ids, Ids]:
    """Rows and codes without repetitions."""
    _, first = np.unique(row_numbers(*rows.T, code), return_index=True)
    return rows[first], code[first]


def distinct_within(block: Ids, values: Ids) -> Ids:
    """How many different values each block 0 … n-1 of rows has, int64 [n]."""
    _, first = np.unique(row_numbers(block, values), return_index=True)
    return np.bincount(block[first], minlength=int(block.max(initial=-1)) + 1)


def _distinct(values: Ids) -> int:
    """How many different values there are."""
    return len(distinct(values))


def occurrence_code(rows: Ids, relation: Relation) -> Ids:
    """For each row, which occurrence of its label each part is along its own line, as one number."""
    code = np.zeros(len(rows), np.int64)
    for k, axes in enumerate(relation.lines):
        grid = np.moveaxis(rows[:, k].reshape(relation.shape), axes, range(-len(axes), 0))
        flat = grid.reshape(-1, int(np.prod([relation.shape[a] for a in axes], dtype=np.int64)))
        which = occurrences(flat)
        if which is not None:
            back = np.moveaxis(which.reshape(grid.shape), range(-len(axes), 0), axes)
            code = code * (int(which.max()) + 1) + back.reshape(-1)
    return code


def occurrences(lines: Ids) -> Ids | None:
    """For each entry, how often its value stood before it in its row; None where nothing repeats.

    >>> occurrences(np.array([[7, 7, 4, 7]]))
    array([[0, 1, 0, 2]])
    """
    order = np.argsort(lines, 1, kind="stable")
    ranked = np.take_along_axis(lines, order, 1)
    fresh = np.ones(lines.shape, bool)
    fresh[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    if fresh.all():
        return None
    position = np.broadcast_to(np.arange(lines.shape[1]), lines.shape)
    start = np.maximum.accumulate(np.where(fresh, position, 0), 1)
    out = np.empty(lines.shape, np.int64)
    np.put_along_axis(out, order, position - start, 1)
    return out
