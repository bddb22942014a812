"""The one solve: from constraints on units to a tree of permutation groups.

1. Equal units are united (connected components); relations that are the same function of the same units
   have equal values (congruence).
2. Colour refinement (Weisfeiler-Leman on the relations' rows): units start with the columns they appear in
   and take in the colours of the rows they stand in, until stable. A unit of a unique colour cannot move.
3. A relation whose parts form a full product and whose products appear nowhere else constrains nothing:
   its products are *dependent*, they follow their parts.
4. What is left falls into connected components. Components of equal colours may be exchanged: Sym(k) wreath
   the group of one component, which is found the same way inside it.
5. Of a component that does not fall apart some units are individualized (`individualize.py`); what then does
   not move is irregular and stays.
6. Every generator of the group is checked against every constraint. A part of the tree that fails is left out
   and reported as a defect of this package.

Six units that are the rows of one weight and the columns of the next may be permuted at will. If a reshape
makes two heads of three of them, heads move as wholes and units within their head:

>>> constraints = Constraints()
>>> rows, columns = constraints.new_units((6,)), constraints.new_units((6,))
>>> constraints.equal(rows, columns)
>>> constraints.column(rows)
>>> print(solve(constraints))
Sym(6)
>>> head, inner = constraints.new_units((2, 1)), constraints.new_units((2, 3))
>>> constraints.relate([columns.reshape(2, 3), head, inner], [(0, 1), (0,), (1,)], (2, 3))
>>> print(solve(constraints))
Sym(2) wr Sym(3)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onnxcanon.arrays import Ids, Words
from onnxcanon.solving.compiled_constraints import BranchSlot, CompiledConstraints, compile_constraints
from onnxcanon.solving.generator_check import GeneratorCheck, check_generators
from onnxcanon.solving.group import DependentUnits, Solution
from onnxcanon.solving.hashing import distinct, mix, salt
from onnxcanon.solving.individualize import individualize, with_joint_nodes
from onnxcanon.solving.tables import RelationTable, connected, distinct_within, unique_rows
from onnxcanon.solving.tree import Decomposition
from onnxcanon.tracing.constraints import Constraints, Slot


def solve(constraints: Constraints, branch_slots: Mapping[Slot, BranchSlot] | None = None) -> Solution:
    """Solve the constraints on units; `branch_slots` holds the slots that lie in interchangeable branches."""
    compiled = compile_constraints(constraints, branch_slots or {})
    solution = _Solver(compiled).run()
    check_generators(solution, compiled)
    return solution


class _Solver:
    def __init__(self, constraints: CompiledConstraints) -> None:
        self.constraints, self.count = constraints, constraints.count
        self.pinned = constraints.pinned
        self.tables: list[RelationTable] = constraints.tables
        self.dependent: list[DependentUnits] = []
        self.individualized: list[tuple[Ids, Words]] = []  # sets of units, with the colours before

    def run(self) -> Solution:
        colours = self._refine(self.constraints.start())
        while True:
            colours = self._drop_products(colours)
            parts = Decomposition(self.tables, self.count, colours)
            tree = parts.decompose(np.flatnonzero(~self._fixed(colours) & ~self._is_dependent()))
            if not parts.irregular:
                break
            colours = self._individualize(parts.irregular, colours)
        nothing = np.zeros(0, np.int64)
        solution = Solution(self.constraints.classes, self.count, tree, self.dependent, nothing, [])
        if self.individualized:
            self._join(solution)
        return solution

    def _individualize(self, irregular: list[Ids], colours: Words) -> Words:
        """Individualize the smallest set of alike units of every irregular component, so that the rest falls
        apart: the smaller the set, the fewer permutations of it are to be tried."""
        out = colours
        for members in irregular:
            _, index, counts = np.unique(colours[members], return_inverse=True, return_counts=True)
            smallest = np.argmin(np.where(counts > 1, counts, counts.max() + 1))
            chosen = np.sort(members.ravel()[index.ravel() == smallest])
            self.individualized.append((chosen, colours))
            out = individualize(out, chosen)
        return self._refine(out)

    def _join(self, solution: Solution) -> None:
        """Take in joint permutations of individualized units; those that then do not move are irregular."""
        dependent = np.flatnonzero(self._is_dependent())
        sets = [(units, self._grown(colours)) for units, colours in self.individualized]
        check = GeneratorCheck(self.constraints, self.dependent, self.count)
        solution.tree = with_joint_nodes(sets, solution.tree, self._refine, dependent, check)
        units = np.concatenate([units for units, _ in self.individualized])
        solution.irregular = units[~solution.moving[units]]

    def _grown(self, colours: Words) -> Words:
        """Colours that also cover classes made since."""
        out = np.full(self.count, salt(8), np.uint64)
        out[: len(colours)] = colours
        return out

    def _refine(self, colours: Words) -> Words:
        """Weisfeiler-Leman on the rows until the number of colours, of classes not pinned, is stable."""
        count = len(distinct(colours[~self.pinned]))
        while True:
            total = np.zeros(self.count, np.uint64)
            for table in self.tables:
                table.contribute(colours, total)
            refined = mix(colours * np.uint64(3) + total)
            refined[self.pinned] = colours[self.pinned]
            now = len(distinct(refined[~self.pinned]))
            if now == count:
                return colours
            colours, count = refined, now

    def _fixed(self, colours: Words) -> NDArray[np.bool_]:
        """The classes no permutation can move: pinned, or of a colour of their own; bool [count]."""
        free = np.flatnonzero(~self.pinned[: len(colours)])
        order = np.argsort(colours[free])
        ranked = colours[free[order]]
        repeats = np.zeros(len(free) + 1, bool)
        repeats[1:-1] = ranked[1:] == ranked[:-1]
        out = np.ones(self.count, bool)
        out[free[order]] = ~(repeats[:-1] | repeats[1:])
        return out

    # -- dependent products ---------------------------------------------------------------------------

    def _is_dependent(self) -> NDArray[np.bool_]:
        mask = np.zeros(self.count, bool)
        for d in self.dependent:
            mask[d.products] = True
        return mask

    def _drop_products(self, colours: Words) -> Words:
        """Take out products over full products of parts, which follow their parts, and refine without them.

        A product may be local: query heads times value dimensions inside each key/value head. Then the block
        itself becomes a unit its parts belong to.
        """
        self.tables = [t for t in self.tables if t.product or not t.is_full_product()]
        before = len(self.dependent)
        fixed = self._fixed(colours)
        while self._take_out(colours, fixed):
            pass
        return self._refine(self._grown(colours)) if len(self.dependent) > before else colours

    def _take_out(self, colours: Words, fixed: NDArray[np.bool_]) -> bool:
        """Take out tables whose products are dependent; whether there were any.

        Products that another table uses too are constrained by it. The last table comes first, since its
        parts are often the products of an earlier one, which then are used no more.
        """
        uses = np.zeros(self.count, np.int64)
        for table in self.tables:
            if not table.membership:
                uses[distinct(table.rows)] += 1
        some = False
        for n, table in reversed(list(enumerate(self.tables))):
            if not table.product or (uses[table.rows[:, 0]] > 1).any():
                continue
            blocks = self._blocks(table, colours, fixed)
            if blocks is not None:
                some = True
                self.dependent.insert(0, DependentUnits(table.rows[:, 0], table.rows[:, 1:], table.code))
                uses[distinct(table.rows)] -= 1
                more = self._memberships(table, blocks)
                self.tables[n : n + 1] = more
                self._pass_on_branches(table)
                for extra in more:
                    members = distinct(extra.rows)
                    uses[members[members < len(uses)]] += 1
        return some

    def _pass_on_branches(self, table: RelationTable) -> None:
        """What ties products that are taken out to a branch ties their parts to it: each part alone where it
        is in one branch only, else the parts together."""
        row = np.full(self.count, -1, np.int64)
        row[table.rows[:, 0]] = np.arange(len(table.rows))
        for n, member in reversed(list(enumerate(self.tables))):
            at = row[member.rows[:, 0]] if member.membership else np.zeros(0, np.int64)
            chosen = at >= 0
            if not chosen.any():
                continue
            branch, code = member.rows[chosen, 1], member.code[chosen]
            parts = table.rows[at[chosen], 1:]
            others = RelationTable(
                member.rows[~chosen], member.code[~chosen], member.number, product=False, membership=True
            )
            ties = [np.stack([p, branch], 1) for p in parts.T if not self.pinned[p].all()]
            ties = [t for t in ties if len(unique_rows(t, t[:, 0])[0]) == len(distinct(t[:, 0]))]
            ties = ties or [np.concatenate([parts, branch[:, None]], 1)]
            tables = [
                RelationTable(*unique_rows(t, code), member.number, product=False, membership=t.shape[1] == 2)
                for t in ties
            ]
            self.tables[n : n + 1] = [t for t in (others, *tables) if len(t.rows)]

    def _blocks(self, table: RelationTable, colours: Words, fixed: NDArray[np.bool_]) -> Ids | None:
        """The block of each row, if the parts of every block form a full product with at least two factors in
        some block, or if there is one moving part; None otherwise."""
        whole, parts = table.rows[:, 0], table.rows[:, 1:]
        moving = [k for k in range(parts.shape[1]) if not fixed[parts[:, k]].all()]
        if not moving or len(distinct(whole)) < len(whole) or self.pinned[whole].any():
            return None
        # Rows of equal parts but different products would make products differ where their parts do not.
        key = mix(table.code.astype(np.uint64))
        for k in range(parts.shape[1]):
            key = mix(key + colours[parts[:, k]])
        if len(distinct(mix(key + mix(colours[whole])))) > len(distinct(key)):
            return None
        if len(moving) == 1:  # a channel at several fixed positions; a mere bijection stays
            alone = len(distinct(parts[:, moving])) == len(whole)
            repeated = len(unique_rows(parts, table.code)[0]) < len(whole)
            return None if alone or repeated else np.zeros(len(whole), np.int64)
        # Rows that share a part, directly or through others, are a block.
        names, local = np.unique(parts[:, moving], return_inverse=True)
        local = local.reshape(len(parts), len(moving))
        block = connected(len(names), [local[:, 0]] * (len(moving) - 1), list(local[:, 1:].T))[local[:, 0]]
        _, block = np.unique(block, return_inverse=True)
        sizes = np.stack([distinct_within(block, column) for column in (*parts.T, table.code)])
        if (np.prod(sizes, 0, dtype=np.float64) != np.bincount(block)).any():
            return None
        return block if (np.sum(sizes[moving] > 1, 0) > 1).any() else None

    def _memberships(self, table: RelationTable, blocks: Ids) -> list[RelationTable]:
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
                out.append(RelationTable(rows, code, table.number, product=False))
        return out
