"""Constraints between classes: what is left of the constraints on units once equal units are one class.

Columns and relations are numbered, and colours are hashes of these numbers. Matched constraints of
interchangeable branches share a number, as if one constraint spoke of all branches; *membership* tables tie
what is said inside a branch to the unit of that branch, so that it moves with the branch or not at all.

>>> from onnxcanon.tracing.constraints import Provenance
>>> constraints = Constraints()
>>> first, second = constraints.new_units((4,)), constraints.new_units((4,))
>>> constraints.equal(first, second)
>>> constraints.pin(second[:1], Provenance("node", "a reason"))
>>> compiled = compile_constraints(constraints, {})
>>> compiled.classes, compiled.pinned
(array([0, 1, 2, 3, 0, 1, 2, 3]), array([ True, False, False, False]))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxcanon.arrays import Ids, Words
from onnxcanon.solving.hashing import add_at, mix, salt
from onnxcanon.solving.tables import RelationTable, occurrence_code, occurrences, unique_rows, unite
from onnxcanon.tracing.constraints import NOWHERE, Constraints, Slot

BranchSlot = tuple[int, int]
"""For a slot inside a branch: a number that it shares with the matched slots of other branches, and the unit
of its own branch."""


@dataclass(slots=True)
class CompiledConstraints:
    """All that a permutation of classes has to respect.

    Attributes:
        classes: the class of each unit, int64 [units].
        count: the number of classes.
        pinned: which classes may not move, bool [count].
        columns: pairs of a class and the word of a column it stands in.
        tables: the relations.
    """

    classes: Ids
    count: int
    pinned: NDArray[np.bool_]
    columns: tuple[Ids, Words]
    tables: list[RelationTable]

    def start(self) -> Words:
        """First colours: the columns of each class; a pinned class has a colour of its own."""
        colours = np.full(self.count, 1, np.uint64)
        add_at(colours, *self.columns)
        pinned = np.flatnonzero(self.pinned)
        colours[pinned] = mix(pinned.astype(np.uint64) + salt(3))
        return colours


def compile_constraints(
    constraints: Constraints, branch_slots: Mapping[Slot, BranchSlot]
) -> CompiledConstraints:
    """The constraints on classes; `branch_slots` holds the slots that lie in interchangeable branches."""
    return _Compiler(constraints, branch_slots).run()


class _Numbering:
    """Numbers of constraints: one each, or one for the matched ones of interchangeable branches."""

    def __init__(self, branch_slots: Mapping[Slot, BranchSlot]) -> None:
        self.branch_slots = branch_slots
        self.last = 0
        self.shared: dict[tuple[str, int, int], int] = {}
        self.met: Counter[tuple[str, Slot]] = Counter()

    def next(self, kind: str, slot: Slot) -> tuple[int, int | None]:
        """The number of the next constraint of a kind that was stated at a slot, and the unit of its
        branch."""
        self.last += 1
        matched = self.branch_slots.get(slot)
        if matched is None:
            return self.last, None
        # The n-th of a kind at one slot stands for the n-th at each matched slot: rules are deterministic.
        turn = self.met[kind, slot]
        self.met[kind, slot] += 1
        return self.shared.setdefault((kind, matched[0], turn), self.last), matched[1]


class _Compiler:
    def __init__(self, constraints: Constraints, branch_slots: Mapping[Slot, BranchSlot]) -> None:
        self.constraints = constraints
        self.numbering = _Numbering(branch_slots)
        self.classes, self.count = unite(constraints)
        self.pinned = np.zeros(self.count, bool)
        self.pinned_in_branches: list[Ids] = []
        self.memberships: dict[int, list[tuple[Ids, Ids]]] = {}

    def run(self) -> CompiledConstraints:
        columns = self._columns()
        tables = self._tables()
        self._pin_shared(tables)
        return CompiledConstraints(self.classes, self.count, self.pinned, columns, tables)

    def _columns(self) -> tuple[Ids, Words]:
        """Columns, selections and pins as (class, word) pairs; the word names the constraint and the position
        code: classes may only be exchanged if they have the same words."""
        index, words = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]

        def enter(cls: Ids, word: Words, number: int, branch: int | None) -> None:
            index.append(cls)
            words.append(word)
            if branch is not None and len(cls):
                self._belong(cls, word.view(np.int64), number, branch)

        for ids, codes, slot in self.constraints.columns:
            number, branch = self.numbering.next("column", slot)
            word = mix(codes.astype(np.uint64) * np.uint64(0x10001) + salt(1, number))
            enter(self.classes[ids], np.broadcast_to(word, ids.shape), number, branch)
        for before, after, taken, slot in self.constraints.selections:
            number, branch = self.numbering.next("selection", slot)
            cls, word = self._reordered(self.classes[before], self.classes[after], taken, number)
            enter(cls, word, number, branch)
        for ids, _, slot in self.constraints.pins:
            number, branch = self.numbering.next("pin", slot)
            if branch is None:
                self.pinned[self.classes[ids]] = True
            else:  # fixed within its branch, which may move as a whole: a word for each position
                word = mix(np.arange(len(ids)).astype(np.uint64) + salt(9, number))
                enter(self.classes[ids], word, number, branch)
                self.pinned_in_branches.append(self.classes[ids])
        return np.concatenate(index), np.concatenate(words)

    def _pin_shared(self, tables: list[RelationTable]) -> None:
        """What is pinned within several branches at once does not move with any."""
        rows = [table.rows for table in tables if table.membership]
        if rows and self.pinned_in_branches:
            pairs = np.concatenate(rows)
            ties, _ = unique_rows(pairs, np.zeros(len(pairs), np.int64))
            shared = np.bincount(ties[:, 0], minlength=self.count) > 1
            pinned = np.concatenate(self.pinned_in_branches)
            self.pinned[pinned[shared[pinned]]] = True

    def _belong(self, cls: Ids, code: Ids, number: int, branch: int) -> None:
        """Tie the classes of a constraint to the branch it was stated in."""
        rows, code = unique_rows(np.stack([cls, np.full(len(cls), self.classes[branch])], 1), code)
        self.memberships.setdefault(number, []).append((rows, code))

    @staticmethod
    def _reordered(before: Ids, after: Ids, taken: Ids, number: int) -> tuple[Ids, Words]:
        """Where labels repeat along an axis the k-th occurrence maps to the k-th. A selection may bring the
        occurrences of one class into another order than those of the next; a permutation that exchanged
        these classes would not commute with it. The word of a class is where its occurrences went."""
        which, later = occurrences(before), occurrences(after)
        if which is None:
            return np.zeros(0, np.int64), np.zeros(0, np.uint64)
        number_after = np.zeros(after.shape, np.int64) if later is None else later
        words = which[:, taken].astype(np.uint64) * np.uint64(0x1F1F1F1F) + number_after.astype(np.uint64)
        chosen = which.any(1)  # rows where nothing repeats say nothing
        return after[chosen].ravel(), mix(words[chosen] + salt(2, number)).ravel()

    def _tables(self) -> list[RelationTable]:
        tables: dict[int, RelationTable] = {}
        seen: set[bytes] = set()
        for relation in self.constraints.relations:
            number, branch = self.numbering.next("relation", relation.slot)
            rows = self.classes[relation.rows]
            code = occurrence_code(rows, relation)
            mark = rows.tobytes() + code.tobytes() + repr((rows.shape, relation.key is None)).encode()
            if branch is None and mark in seen:
                continue
            seen.add(mark)
            if branch is not None:
                for k in range(rows.shape[1]):
                    self._belong(rows[:, k], np.full(len(rows), k), number, branch)
            rows, code = unique_rows(rows, code)
            product = relation.key is not None
            matched = tables.get(number)
            if matched is not None and (matched.rows.shape[1], matched.product) != (rows.shape[1], product):
                number, matched = self.numbering.next("unmatched", NOWHERE)[0], None
            if matched is not None:  # the same relation of another branch: one table for both
                rows = np.concatenate([matched.rows, rows])
                rows, code = unique_rows(rows, np.concatenate([matched.code, code]))
            tables[number] = RelationTable(rows, code, number, product)
        return list(tables.values()) + self._membership_tables()

    def _membership_tables(self) -> list[RelationTable]:
        out = []
        for number, parts in self.memberships.items():
            rows, code = (np.concatenate([p[k] for p in parts]) for k in (0, 1))
            out.append(RelationTable(rows, code, number, product=False, membership=True))
        return out
