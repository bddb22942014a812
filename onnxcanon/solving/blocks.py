"""Whole blocks first: ids that were handed out together and that constraints pair in order are one block.

Nearly every constraint pairs one whole axis with another, position by position: it says of two blocks what it
says of all their ids. Blocks are united at once, by a union-find over blocks instead of ids; only what is
left, about parts of blocks or in another order, needs to be solved id by id, and over far fewer ids.

Blocks 1 2 3 and 4 5 6, of which the second is minus the first; that 1 equals 2 is left for later:

>>> whole = (np.array([1, 2, 3]), np.array([4, 5, 6]), -1)
>>> united = unite_blocks([0, 1, 4], 7, [whole, (np.array([1]), np.array([2]), 1)])
>>> united.index, united.signs
(array([0, 1, 2, 3, 1, 2, 3]), array([ 1, 1, 1, 1, -1, -1, -1]))
>>> united.pairs
[(array([1]), array([2]), array([1]))]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from onnxcanon.arrays import Ids

BlockPair = tuple[Ids, Ids, int]
"""Two arrays of ids that are equal entry by entry, up to a sign: a = s·b."""

Entries = tuple[Ids, Ids, Ids]
"""Two arrays of ids and the sign of each entry: a = s·b."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Ids in terms of those that are left when blocks are united.

    Attributes:
        index: the number of each id among those left, int64 [ids], in the order of the ids.
        signs: the id is this sign times the one left, int64 [ids]; None where all are +1.
        count: how many are left.
        pairs: what was said beyond whole blocks, in numbers of those left.
    """

    index: Ids
    signs: Ids | None
    count: int
    pairs: list[Entries]

    def mapped(self, pairs: Iterable[BlockPair]) -> list[Entries]:
        """Pairs in numbers of those left."""
        out = []
        for a, b, s in pairs:
            (a, p), (b, q) = self.signed(a), self.signed(b)
            out.append((a, b, p * s * q))
        return out

    def variables(self, ids: Ids) -> Ids:
        """Numbers of ids, where an id that is minus the number k has the number count + k."""
        numbers, signs = self.signed(ids)
        return numbers if self.signs is None else numbers + self.count * (signs < 0)

    def signed(self, ids: Ids) -> tuple[Ids, Ids]:
        """Numbers and signs of ids."""
        signs = np.ones(ids.shape, np.int64) if self.signs is None else self.signs[ids]
        return self.index[ids], signs


def unite_blocks(starts: list[int], count: int, pairs: Iterable[BlockPair], *, zero: bool = False) -> Blocks:
    """Unite the blocks that pairs equate.

    Args:
        starts: the first id of each block; a block ends where the next one begins.
        count: the number of ids.
        pairs: what is equal; with `zero` block 0 is the number 0, and what equals it is zero.
    """
    united = _Union(starts, count)
    rest = [(a, b, s) for a, b, s in pairs if len(a) and not united.take(a, b, s, zero=zero)]
    return united.blocks(rest, zero=zero)


class _Union:
    """A union-find over blocks; the root of a tree is its first block, and edges carry signs."""

    def __init__(self, starts: list[int], count: int) -> None:
        self.starts = starts
        self.ids = np.arange(count)
        self.number = {start: k for k, start in enumerate(starts)}
        self.ends = [*starts[1:], count]
        self.parent = list(range(len(starts)))
        self.sign = [1] * len(starts)

    def take(self, a: Ids, b: Ids, s: int, *, zero: bool) -> bool:
        """Take in a pair if it is about whole blocks."""
        left, right = (0 if zero and not ids.any() else self._whole(ids) for ids in (a, b))
        if left is None or right is None:
            return False
        (first, p), (second, q) = self._find(left), self._find(right)
        sign = p * s * q
        if first == second:  # a block that is minus itself is zero: left for the solve, id by id
            return sign > 0 or (zero and first == 0)
        later, earlier = max(first, second), min(first, second)
        self.parent[later], self.sign[later] = earlier, sign
        return True

    def _whole(self, ids: Ids) -> int | None:
        """The block that the ids are, in order; None where they are not one."""
        start = int(ids[0])
        number = self.number.get(start)
        if number is None:
            return None
        end = self.ends[number]
        if len(ids) != end - start or not np.array_equal(ids, self.ids[start:end]):
            return None
        return number

    def _find(self, block: int) -> tuple[int, int]:
        """The root of a block's tree, and the block's sign against it."""
        path = []
        while self.parent[block] != block:
            path.append(block)
            block = self.parent[block]
        sign = 1
        for member in reversed(path):
            sign *= self.sign[member]
            self.parent[member], self.sign[member] = block, sign
        return block, sign

    def blocks(self, rest: list[BlockPair], *, zero: bool) -> Blocks:
        """The result, with the pairs that were not taken in."""
        starts = np.array(self.starts, np.int64)
        sizes = np.diff(np.r_[starts, len(self.ids)])
        roots = [self._find(k) for k in range(len(starts))]
        root = np.array([r for r, _ in roots], np.int64)
        leads = root == np.arange(len(root))
        left = np.cumsum(np.where(leads, sizes, 0)) - np.where(leads, sizes, 0)
        index = self.ids + np.repeat(left[root] - starts, sizes)
        if zero:
            index[np.repeat(root == 0, sizes)] = 0
        sign = np.array([s for _, s in roots], np.int64)
        signs = None if (sign > 0).all() else np.repeat(sign, sizes)
        out = Blocks(index, signs, int(sizes[leads].sum()), [])
        out.pairs.extend(out.mapped(rest))
        return out
