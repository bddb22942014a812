"""The one solve: from facts about units to a tree of permutation groups.

1. Equal units are united (connected components); relations that are the same function of the same units
   have equal values (congruence).
2. Colour refinement (Weisfeiler-Leman on the relations' rows): units start with the columns they appear in
   and take in the colours of the rows they stand in, until stable. A unit of a unique colour cannot move.
3. A relation whose parts form a full product and whose composites appear nowhere else constrains nothing:
   its composites are *derived*, they follow their parts.
4. What is left falls into connected components. Components of equal colours may be exchanged: Sym(k) wreath
   the group of one component, which is found the same way inside it.
5. What stays irregular is held in place. A random element of the whole group is then checked against every
   fact; a part of the tree that fails is held as well and reported as a defect of ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onnxcanon.symmetry.constraints import NOWHERE, Ids, Ledger, Place
from onnxcanon.symmetry.group import Derived, Orbit, Solution
from onnxcanon.symmetry.hashing import Words, add_at, mix, salt
from onnxcanon.symmetry.tables import (
    Table,
    connected,
    occurrence_code,
    occurrences,
    unique_rows,
    unite,
)

Home = tuple[int, int]
"""For a place inside a branch: a number that it shares with the matched places of other branches, and the
unit of its own branch."""


def solve(ledger: Ledger, homes: Mapping[Place, Home] | None = None) -> Solution:
    """Solve the ledger's facts about units; `homes` holds the places that lie in interchangeable branches."""
    return _Solver(ledger, homes or {}).run()


class _Numbers:
    """Numbers of facts: one each, or one for the matched facts of interchangeable branches."""

    def __init__(self, homes: Mapping[Place, Home]) -> None:
        self.homes = homes
        self.next = 0
        self.known: dict[tuple[str, int, int], int] = {}
        self.met: Counter[tuple[str, Place]] = Counter()

    def number(self, kind: str, place: Place) -> tuple[int, int | None]:
        """The number of the next fact of a kind found at a place, and the unit of the branch it is in."""
        self.next += 1
        home = self.homes.get(place)
        if home is None:
            return self.next, None
        turn = self.met[kind, place]
        self.met[kind, place] += 1
        return self.known.setdefault((kind, home[0], turn), self.next), home[1]


class _Solver:
    def __init__(self, ledger: Ledger, homes: Mapping[Place, Home]) -> None:
        self.ledger = ledger
        self.facts_in = _Numbers(homes)
        self.classes, self.count = unite(ledger)
        self.pinned = np.zeros(self.count, bool)
        self.tables: list[Table] = []
        self.derived: list[Derived] = []
        self.rigid: list[Ids] = []
        self.held: list[Ids] = []
        self.memberships: dict[int, list[tuple[Ids, Ids]]] = {}

    def run(self) -> Solution:
        self.columns = self._columns()
        self.facts = self.tables = self._tables()
        self._pin_shared()
        colours = self._refine(self._start())
        colours = self._drop_products(colours)
        moving = ~self._fixed(colours) & ~self._is_derived()
        orbits = self._decompose(np.flatnonzero(moving), colours)
        solution = Solution(
            self.classes, self.count, orbits, self.derived,
            np.concatenate([np.zeros(0, np.int64), *self.rigid]), [],
        )  # fmt: skip
        self._certify(solution)
        return solution

    # -- facts over classes -------------------------------------------------------------------------

    def _columns(self) -> tuple[Ids, Words]:
        """All column facts as (class, word) pairs; the word names the column and position code."""
        index, words = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]

        def enter(cls: Ids, word: Words, number: int, branch: int | None) -> None:
            index.append(cls)
            words.append(word)
            if branch is not None and len(cls):
                self._belong(cls, word.view(np.int64), number, branch)

        for ids, codes, place in self.ledger.columns:
            number, branch = self.facts_in.number("column", place)
            word = mix(codes.astype(np.uint64) * np.uint64(0x10001) + salt(1, number))
            enter(self.classes[ids], word, number, branch)
        for before, after, taken, place in self.ledger.movements:
            number, branch = self.facts_in.number("movement", place)
            cls, word = self.occurrences(self.classes[before], self.classes[after], taken, number)
            enter(cls, word, number, branch)
        for ids, _, place in self.ledger.pins:
            number, branch = self.facts_in.number("pin", place)
            if branch is None:
                self.pinned[self.classes[ids]] = True
            else:  # held within its branch, which may move as a whole
                enter(
                    self.classes[ids],
                    mix(np.arange(len(ids)).astype(np.uint64) + salt(9, number)),
                    number,
                    branch,
                )
                self.held.append(self.classes[ids])
        return np.concatenate(index), np.concatenate(words)

    def _pin_shared(self) -> None:
        """What is held within several branches at once does not move with any."""
        rows = [table.rows for table in self.tables if table.membership]
        if rows and self.held:
            pairs = np.concatenate(rows)
            ties, _ = unique_rows(pairs, np.zeros(len(pairs), np.int64))
            shared = np.bincount(ties[:, 0], minlength=self.count) > 1
            held = np.concatenate(self.held)
            self.pinned[held[shared[held]]] = True

    def _belong(self, cls: Ids, code: Ids, number: int, branch: int) -> None:
        """Tie the classes of a fact to the branch it was found in."""
        rows, code = unique_rows(np.stack([cls, np.full(len(cls), self.classes[branch])], 1), code)
        self.memberships.setdefault(number, []).append((rows, code))

    @staticmethod
    def occurrences(before: Ids, after: Ids, taken: Ids, number: int) -> tuple[Ids, Words]:
        """Where labels repeat along an axis the k-th occurrence maps to the k-th: classes whose occurrences a
        movement reorders differently get different words."""
        which, later = occurrences(before), occurrences(after)
        if which is None:
            return np.zeros(0, np.int64), np.zeros(0, np.uint64)
        number_after = np.zeros(after.shape, np.int64) if later is None else later
        words = which[:, taken].astype(np.uint64) * np.uint64(0x1F1F1F1F) + number_after.astype(np.uint64)
        chosen = which.any(1)  # rows where nothing repeats say nothing
        return after[chosen].ravel(), mix(words[chosen] + salt(2, number)).ravel()

    def _tables(self) -> list[Table]:
        tables: dict[int, Table] = {}
        seen: set[bytes] = set()
        for relation in self.ledger.relations:
            number, branch = self.facts_in.number("relation", relation.place)
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
            composite = relation.key is not None
            twin = tables.get(number)
            if twin is not None and (twin.rows.shape[1], twin.composite) != (rows.shape[1], composite):
                number, twin = self.facts_in.number("unmatched", NOWHERE)[0], None
            if twin is not None:
                rows, code = unique_rows(np.concatenate([twin.rows, rows]), np.concatenate([twin.code, code]))
            tables[number] = Table(rows, code, number, composite)
        return list(tables.values()) + self._membership_tables()

    def _membership_tables(self) -> list[Table]:
        out = []
        for number, parts in self.memberships.items():
            rows, code = (np.concatenate([p[k] for p in parts]) for k in (0, 1))
            out.append(Table(rows, code, number, composite=False, membership=True))
        return out

    def _start(self) -> Words:
        colours = np.full(self.count, 1, np.uint64)
        add_at(colours, *self.columns)
        pinned = np.flatnonzero(self.pinned)
        colours[pinned] = mix(pinned.astype(np.uint64) + salt(3))
        return colours

    def _refine(self, colours: Words) -> Words:
        """Weisfeiler-Leman on the rows until the number of colours is stable."""
        distinct = len(np.unique(colours))
        while True:
            total = np.zeros(self.count, np.uint64)
            for table in self.tables:
                table.contribute(colours, total)
            fresh = mix(colours * np.uint64(3) + total)
            fresh[self.pinned] = colours[self.pinned]
            now = len(np.unique(fresh))
            if now == distinct:
                return colours
            colours, distinct = fresh, now

    def _fixed(self, colours: Words) -> NDArray[np.bool_]:
        """The classes no motion can move: pinned, or of a colour of their own; bool [count]."""
        _, index, counts = np.unique(colours, return_inverse=True, return_counts=True)
        alone = counts[index] == 1
        out = np.ones(self.count, bool)
        out[: len(alone)] = alone | self.pinned[: len(alone)]
        return out

    # -- derived composites -------------------------------------------------------------------------

    def _is_derived(self) -> NDArray[np.bool_]:
        mask = np.zeros(self.count, bool)
        for d in self.derived:
            mask[d.composites] = True
        return mask

    def _drop_products(self, colours: Words) -> Words:
        """Take out composites over full products, which follow their parts, and refine without them.

        A product may be local: query heads times value dimensions inside each key/value head. Then the block
        itself becomes a unit its parts belong to.
        """
        self.tables = [t for t in self.tables if t.composite or not t.is_product()]
        before = self.count
        while self._derive_one(colours):
            pass
        grown = np.full(self.count, salt(8), np.uint64)
        grown[:before] = colours
        return self._refine(grown) if self.derived else colours

    def _derive_one(self, colours: Words) -> bool:
        """Take out the last table that allows it; what it held may have kept an earlier one."""
        uses = np.zeros(self.count, np.int64)
        for table in self.tables:
            if not table.membership:
                uses[np.unique(table.rows)] += 1
        for n, table in reversed(list(enumerate(self.tables))):
            if not table.composite or (uses[table.rows[:, 0]] > 1).any():
                continue
            blocks = self._blocks(table, colours)
            if blocks is not None:
                self.derived.insert(0, Derived(table.rows[:, 0], table.rows[:, 1:], table.code))
                self.tables[n : n + 1] = self._memberships(table, blocks)
                return True
        return False

    def _blocks(self, table: Table, colours: Words) -> Ids | None:
        """The block of each row, if the parts of every block form a full product with at least two factors in
        some block, or if there is one moving part; None otherwise."""
        whole, parts = table.rows[:, 0], table.rows[:, 1:]
        fixed = self._fixed(colours)
        moving = [k for k in range(parts.shape[1]) if not fixed[parts[:, k]].all()]
        if not moving or len(np.unique(whole)) < len(whole) or self.pinned[whole].any():
            return None
        key = mix(table.code.astype(np.uint64))
        for k in range(parts.shape[1]):
            key = mix(key + colours[parts[:, k]])
        if len(np.unique(mix(key + mix(colours[whole])))) > len(np.unique(key)):
            return None
        if len(moving) == 1:  # a channel at several fixed positions; a mere bijection stays
            alone = len(np.unique(parts[:, moving])) == len(whole)
            repeated = len(unique_rows(parts, table.code)[0]) < len(whole)
            return None if alone or repeated else np.zeros(len(whole), np.int64)
        names, local = np.unique(parts[:, moving], return_inverse=True)
        local = local.reshape(len(parts), len(moving))
        block = connected(len(names), [local[:, 0]] * (len(moving) - 1), list(local[:, 1:].T))[local[:, 0]]
        factors = False
        for number in np.unique(block):
            rows = parts[block == number]
            sizes = [len(np.unique(rows[:, k])) for k in range(rows.shape[1])]
            if np.prod(sizes, dtype=np.float64) * len(np.unique(table.code[block == number])) != len(rows):
                return None
            factors |= sum(sizes[k] > 1 for k in moving) > 1
        return block if factors else None

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

    # -- the tree -----------------------------------------------------------------------------------

    def _components(self, units: Ids) -> Ids:
        """Component number of each unit; rows connect only their members among `units`."""
        local = np.full(self.count, -1, np.int64)
        local[units] = np.arange(len(units))
        left, right = [], []
        for table in self.tables:
            at = local[table.rows]
            some = (at >= 0).sum(1) >= 2
            if not some.any() or table.product_within(at >= 0, some):
                continue
            at = at[some]
            anchor = at.max(1)
            for k in range(at.shape[1]):
                ok = at[:, k] >= 0
                left.append(anchor[ok])
                right.append(at[ok, k])
        return connected(len(units), left, right)

    def _decompose(self, units: Ids, colours: Words) -> list[Orbit]:
        """Orbits among units whose colours are shared (members as classes)."""
        if not len(units):
            return []
        component = self._components(units)
        order = np.lexsort((colours[units], component))
        units, component = units[order], component[order]
        starts = np.flatnonzero(np.r_[True, component[1:] != component[:-1]])
        sizes = np.diff(np.r_[starts, len(units)])
        marks = np.zeros(len(starts), np.uint64)
        add_at(marks, np.repeat(np.arange(len(starts)), sizes), mix(colours[units]))
        marks = mix(marks + sizes.astype(np.uint64))
        orbits = []
        for mark in np.unique(marks):
            chosen = np.flatnonzero(marks == mark)
            rows = starts[chosen][:, None] + np.arange(sizes[chosen[0]])
            orbits.extend(self._orbit(units[rows], colours))
        return orbits

    def _orbit(self, members: Ids, colours: Words) -> list[Orbit]:
        """One orbit from aligned components [k, s], each sorted by colour; nested where colours repeat."""
        first = colours[members[0]]
        if len(np.unique(first)) == members.shape[1]:
            return [Orbit(members)] if len(members) > 1 else []
        inner = [self._inside(row, colours) for row in members]
        if any(i is None for i in inner) or len({repr(i[1]) for i in inner if i is not None}) > 1:
            self.rigid.append(members.ravel())
            return []
        aligned = np.stack([i[0] for i in inner if i is not None])
        children = self._children(inner[0])
        if len(members) == 1:
            return [_lift(c, aligned[0]) for c in children]
        return [Orbit(aligned, children)]

    def _inside(self, units: Ids, colours: Words) -> tuple[Ids, list[tuple[int, ...]], list[Orbit]] | None:
        """Decompose one component: its units in canonical alignment, the shapes of its orbits, the orbits."""
        _, index, counts = np.unique(colours[units], return_inverse=True, return_counts=True)
        single = counts[index] == 1
        rest = units[~single]
        if not single.any() and len(np.unique(self._components(rest))) == 1:
            return None
        before = len(self.rigid)
        orbits = self._decompose(rest, colours)
        if len(self.rigid) > before:
            return None
        covered = [o.members.ravel() for o in orbits]
        loose = np.setdiff1d(rest, np.concatenate([np.zeros(0, np.int64), *covered]))
        if len(loose):
            loose = loose[np.argsort(colours[loose], kind="stable")]
        order = np.concatenate([units[single], loose, *covered])
        shapes = [(len(units[single]), len(loose)), *(o.shape() for o in orbits)]
        return order, shapes, orbits  # type: ignore[return-value]

    def _children(self, inner: tuple[Ids, list[tuple[int, ...]], list[Orbit]] | None) -> list[Orbit]:
        """The orbits inside a component with members as positions in its aligned columns."""
        assert inner is not None
        order, _, orbits = inner
        place = {int(u): k for k, u in enumerate(order)}
        return [_lower(o, place) for o in orbits]

    # -- certificate --------------------------------------------------------------------------------

    def _certify(self, solution: Solution) -> None:
        """Check random elements against every fact; hold the orbits that fail."""
        rng = np.random.default_rng(0)
        if all(self._holds(solution.random(rng)) for _ in range(2)):
            return
        good = []
        for orbit in solution.orbits:
            alone = Solution(solution.classes, solution.count, [orbit], solution.derived, solution.rigid, [])
            if all(self._holds(alone.random(rng)) for _ in range(2)):
                good.append(orbit)
            else:
                solution.defects.append(f"an orbit of {orbit.size} components broke a fact and is held")
        solution.orbits = good
        if not all(self._holds(solution.random(rng)) for _ in range(2)):
            solution.defects.append("orbits that hold one by one broke a fact together; all are held")
            solution.orbits = []

    def _holds(self, motion: Ids) -> bool:
        """Whether a motion maps every column, row and pin to itself."""
        if (motion[self.pinned] != np.flatnonzero(self.pinned)).any():
            return False
        index, words = self.columns
        before, after = np.zeros(self.count, np.uint64), np.zeros(self.count, np.uint64)
        add_at(before, index, words)
        add_at(after, motion[index], words)
        if not np.array_equal(before, after):
            return False
        return all(t.invariant(motion) for t in self.facts)


def _lower(orbit: Orbit, place: dict[int, int]) -> Orbit:
    """Members from classes to positions in a component; children already are positions in theirs."""
    return Orbit(np.vectorize(place.__getitem__, otypes=[np.int64])(orbit.members), orbit.children)


def _lift(orbit: Orbit, columns: Ids) -> Orbit:
    """Members from positions in a component to classes."""
    return Orbit(columns[orbit.members], orbit.children)
