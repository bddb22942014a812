"""The one solve: from facts about units to a tree of permutation groups.

1. Equal units are united (connected components); relations that are the same function of the same units
   have equal values (congruence).
2. Colour refinement (Weisfeiler-Leman on the relations' rows): units start with the columns they appear in
   and take in the colours of the rows they stand in, until stable. A unit of a unique colour cannot move.
3. A relation whose parts form a full product and whose composites appear nowhere else constrains nothing:
   its composites are *dependent*, they follow their parts.
4. What is left falls into connected components. Components of equal colours may be exchanged: Sym(k) wreath
   the group of one component, which is found the same way inside it.
5. What stays irregular is held in place. A random element of the whole group is then checked against every
   fact; a part of the tree that fails is held as well and reported as a defect of ours.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onnxcanon.arrays import Ids, Words
from onnxcanon.solving.compiled_constraints import BranchSlot, CompiledConstraints, gather
from onnxcanon.solving.generator_check import GeneratorCheck, check_generators
from onnxcanon.solving.group import DependentUnits, Solution
from onnxcanon.solving.hashing import distinct, mix, salt
from onnxcanon.solving.individualize import exchanges, singled_out
from onnxcanon.solving.tables import Table, connected, distinct_within, unique_rows
from onnxcanon.solving.tree import Tree
from onnxcanon.tracing.constraints import Constraints, Slot


def solve(constraints: Constraints, branch_slots: Mapping[Slot, BranchSlot] | None = None) -> Solution:
    """Solve the constraints on units; `branch_slots` holds the slots that lie in interchangeable branches."""
    facts = gather(constraints, branch_slots or {})
    solution = _Solver(facts).run()
    check_generators(solution, facts)
    return solution


class _Solver:
    def __init__(self, facts: CompiledConstraints) -> None:
        self.facts, self.count = facts, facts.count
        self.pinned = facts.pinned
        self.tables: list[Table] = facts.tables
        self.dependent: list[DependentUnits] = []
        self.held: list[tuple[Ids, Words]] = []

    def run(self) -> Solution:
        colours = self._refine(self.facts.start())
        while True:
            colours = self._drop_products(colours)
            tree = Tree(self.tables, self.count, colours)
            orbits = tree.decompose(np.flatnonzero(~self._fixed(colours) & ~self._is_derived()))
            if not tree.stuck:
                break
            colours = self._hold(tree.stuck, colours)
        solution = Solution(self.facts.classes, self.count, orbits, self.dependent, np.zeros(0, np.int64), [])
        if self.held:
            self._exchange(solution)
        return solution

    def _hold(self, stuck: list[Ids], colours: Words) -> Words:
        """Hold the smallest set of alike units of every stuck component; the rest may then fall apart."""
        held = colours
        for members in stuck:
            _, index, counts = np.unique(colours[members], return_inverse=True, return_counts=True)
            smallest = np.argmin(np.where(counts > 1, counts, counts.max() + 1))
            chosen = np.sort(members.ravel()[index.ravel() == smallest])
            self.held.append((chosen, colours))
            held = singled_out(held, chosen)
        return self._refine(held)

    def _exchange(self, solution: Solution) -> None:
        """Take in joint motions of what was held; what then does not move is irregular."""
        follows = np.flatnonzero(self._is_derived())
        held = [(units, self._grown(colours)) for units, colours in self.held]
        check = GeneratorCheck(self.facts, self.dependent, self.count)
        solution.tree = exchanges(held, solution.tree, self._refine, follows, check)
        units = np.concatenate([units for units, _ in self.held])
        solution.irregular = units[~solution.moving[units]]

    def _grown(self, colours: Words) -> Words:
        """Colours that also cover classes made since."""
        out = np.full(self.count, salt(8), np.uint64)
        out[: len(colours)] = colours
        return out

    def _refine(self, colours: Words) -> Words:
        """Weisfeiler-Leman on the rows until the number of colours, of classes not pinned, is stable."""
        known = len(distinct(colours[~self.pinned]))
        while True:
            total = np.zeros(self.count, np.uint64)
            for table in self.tables:
                table.contribute(colours, total)
            fresh = mix(colours * np.uint64(3) + total)
            fresh[self.pinned] = colours[self.pinned]
            now = len(distinct(fresh[~self.pinned]))
            if now == known:
                return colours
            colours, known = fresh, now

    def _fixed(self, colours: Words) -> NDArray[np.bool_]:
        """The classes no motion can move: pinned, or of a colour of their own; bool [count]."""
        free = np.flatnonzero(~self.pinned[: len(colours)])
        order = np.argsort(colours[free])
        ranked = colours[free[order]]
        repeats = np.zeros(len(free) + 1, bool)
        repeats[1:-1] = ranked[1:] == ranked[:-1]
        out = np.ones(self.count, bool)
        out[free[order]] = ~(repeats[:-1] | repeats[1:])
        return out

    # -- dependent composites -------------------------------------------------------------------------

    def _is_derived(self) -> NDArray[np.bool_]:
        mask = np.zeros(self.count, bool)
        for d in self.dependent:
            mask[d.products] = True
        return mask

    def _drop_products(self, colours: Words) -> Words:
        """Take out composites over full products, which follow their parts, and refine without them.

        A product may be local: query heads times value dimensions inside each key/value head. Then the block
        itself becomes a unit its parts belong to.
        """
        self.tables = [t for t in self.tables if t.composite or not t.is_product()]
        known = len(self.dependent)
        fixed = self._fixed(colours)
        while self._derive(colours, fixed):
            pass
        return self._refine(self._grown(colours)) if len(self.dependent) > known else colours

    def _derive(self, colours: Words, fixed: NDArray[np.bool_]) -> bool:
        """Take out what allows it, the last table first: what it held may have kept an earlier one."""
        uses = np.zeros(self.count, np.int64)
        for table in self.tables:
            if not table.membership:
                uses[distinct(table.rows)] += 1
        found = False
        for n, table in reversed(list(enumerate(self.tables))):
            if not table.composite or (uses[table.rows[:, 0]] > 1).any():
                continue
            blocks = self._blocks(table, colours, fixed)
            if blocks is not None:
                found = True
                self.dependent.insert(0, DependentUnits(table.rows[:, 0], table.rows[:, 1:], table.code))
                uses[distinct(table.rows)] -= 1
                more = self._memberships(table, blocks)
                self.tables[n : n + 1] = more
                self._pass_on_branches(table)
                for extra in more:
                    members = distinct(extra.rows)
                    uses[members[members < len(uses)]] += 1
        return found

    def _pass_on_branches(self, table: Table) -> None:
        """What ties composites that are taken out to a branch ties their parts to it."""
        row = np.full(self.count, -1, np.int64)
        row[table.rows[:, 0]] = np.arange(len(table.rows))
        for n, member in reversed(list(enumerate(self.tables))):
            at = row[member.rows[:, 0]] if member.membership else np.zeros(0, np.int64)
            chosen = at >= 0
            if not chosen.any():
                continue
            branch, code = member.rows[chosen, 1], member.code[chosen]
            parts = table.rows[at[chosen], 1:]
            kept = Table(
                member.rows[~chosen], member.code[~chosen], member.number, composite=False, membership=True
            )
            ties = [np.stack([p, branch], 1) for p in parts.T if not self.pinned[p].all()]
            ties = [t for t in ties if len(unique_rows(t, t[:, 0])[0]) == len(distinct(t[:, 0]))]
            ties = ties or [np.concatenate([parts, branch[:, None]], 1)]
            made = [
                Table(*unique_rows(t, code), member.number, composite=False, membership=t.shape[1] == 2)
                for t in ties
            ]
            self.tables[n : n + 1] = [t for t in (kept, *made) if len(t.rows)]

    def _blocks(self, table: Table, colours: Words, fixed: NDArray[np.bool_]) -> Ids | None:
        """The block of each row, if the parts of every block form a full product with at least two factors in
        some block, or if there is one moving part; None otherwise."""
        whole, parts = table.rows[:, 0], table.rows[:, 1:]
        moving = [k for k in range(parts.shape[1]) if not fixed[parts[:, k]].all()]
        if not moving or len(distinct(whole)) < len(whole) or self.pinned[whole].any():
            return None
        key = mix(table.code.astype(np.uint64))
        for k in range(parts.shape[1]):
            key = mix(key + colours[parts[:, k]])
        if len(distinct(mix(key + mix(colours[whole])))) > len(distinct(key)):
            return None
        if len(moving) == 1:  # a channel at several fixed positions; a mere bijection stays
            alone = len(distinct(parts[:, moving])) == len(whole)
            repeated = len(unique_rows(parts, table.code)[0]) < len(whole)
            return None if alone or repeated else np.zeros(len(whole), np.int64)
        names, local = np.unique(parts[:, moving], return_inverse=True)
        local = local.reshape(len(parts), len(moving))
        block = connected(len(names), [local[:, 0]] * (len(moving) - 1), list(local[:, 1:].T))[local[:, 0]]
        _, block = np.unique(block, return_inverse=True)
        sizes = np.stack([distinct_within(block, column) for column in (*parts.T, table.code)])
        if (np.prod(sizes, 0, dtype=np.float64) != np.bincount(block)).any():
            return None
        return block if (np.sum(sizes[moving] > 1, 0) > 1).any() else None

    def _memberships(self, table: Table, blocks: Ids) -> list[Table]:
        """Tables that tie the parts of a local product to the unit of their block."""
        count = int(blocks.max()) + 1
        if count == 1:
            return []
        units = self.count + blocks
        self.count += count
        self.pinned = np.concatenate([self.pinned, np.zeros(count, bool)])
        out = []
        for k in range(1, table.rows.shape[1]):
            if not self.pinned[table.rows[:, k]].all():
                rows = np.stack([table.rows[:, k], units], 1)
                rows, code = unique_rows(rows, np.zeros(len(rows), np.int64))
                out.append(Table(rows, code, table.number, composite=False))
        return out
