"""The best exchange of components for a linear gain, nested ones inside each pair included.

The gain of putting component y of one model in the place of component x of the other is a sum over slots,
plus the best assignment of what is nested in them. So what is nested is solved inside every pair of
components first, and the components are assigned by what that leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.alignment.incidence import Branch, Rows
from onnxcanon.arrays import Floats, Ids

Singles = NDArray[np.float32]
"""A parameter, or rows of it, in single precision."""

MANY = 1 << 26
"""Pairs of nested components that are weighed at a time."""

AUCTIONED = 64
"""Components of an orbit from which on an auction is worth its time."""

LEFT = 0.004
"""The part of all rows without a column with which an auction ends."""

BIDS = 0.25
"""Rounds of bids, for each row, after which it ends in any case: they are to take less than the solver."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which component takes whose place, for every pair of a block of one model with one of the other.

    Attributes:
        source: int64 [blocks of ours, blocks of theirs, components]: the component of theirs that moves to
            the place of each of ours.
        flipped: bool, of the same shape: whether it changes its sign.
        children: of each nested orbit, whose blocks are the components of this one.
    """

    source: Ids
    flipped: NDArray[np.bool_]
    children: tuple[Choice, ...] = ()


def choose(
    branch: Branch,
    ours: Mapping[Rows, Singles],
    theirs: Mapping[Rows, Singles],
    *,
    near: bool = False,
    unsigned: Set[Rows] = frozenset(),
) -> tuple[Choice, float]:
    """The exchange of an orbit's components of largest gain, and by how much it beats leaving all in place.

    The gain of a pair of rows is their inner product (Ainsworth et al. 2023, equation 3), or minus half their
    squared distance, which is the same where rows are not features but the weights themselves.

    Args:
        branch: the orbit.
        ours: the rows of one model, float32 [rows, columns].
        theirs: those of the model whose components are exchanged.
        near: whether the distance counts, not the inner product.
        unsigned: rows that do not change with the sign of their component.
    """
    one, other = ([side[c.rows][None] for c in branch.incidences] for side in (ours, theirs))
    choice, best, kept = _Search(near, unsigned).solve(branch, one, other)
    return choice, float(best[0, 0] - kept[0, 0])


@dataclass(frozen=True, slots=True)
class _Search:
    near: bool
    unsigned: Set[Rows]

    def solve(
        self, branch: Branch, ours: Sequence[Singles], theirs: Sequence[Singles]
    ) -> tuple[Choice, Floats, Floats]:
        """For blocks of rows [x, slots, columns] and [y, …] of each incidence: the choice, the gain of it and
        that of leaving all in place, both [x, y]."""
        size = branch.orbit.size
        if len(ours[0]) > 1 and len(ours[0]) * len(theirs[0]) * size * size > MANY:
            half = len(ours[0]) // 2
            parts = [[rows[part] for rows in ours] for part in (slice(half), slice(half, None))]
            return _stacked([self.solve(branch, part, theirs) for part in parts])
        one, other = (
            [c.of_blocks(rows) for rows, c in zip(side, branch.incidences, strict=True)]
            for side in (ours, theirs)
        )
        value, kept, flipped = self._loose(branch, one, other)
        children = []
        for child in branch.children:
            inside = {c.rows for c in child.incidences}
            shared = [k for k, c in enumerate(branch.incidences) if c.rows in inside]
            if shared:
                choice, best, still = self.solve(child, [one[k] for k in shared], [other[k] for k in shared])
                value, kept = value + best, kept + still
            else:
                choice = unmoved(child, len(value), value.shape[1])
            children.append(choice)
        value, kept, flipped = (_by_block(table, size) for table in (value, kept, flipped))
        source = np.array([[assigned(table)[0] for table in line] for line in value])
        taken = source[..., None]
        best = np.take_along_axis(value, taken, -1).sum((-1, -2), dtype=np.float64)
        turned = np.take_along_axis(flipped, taken, -1)[..., 0]
        return Choice(source, turned, tuple(children)), best, np.einsum("xyii->xy", kept, dtype=np.float64)

    def _loose(
        self, branch: Branch, one: Sequence[Singles], other: Sequence[Singles]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
        """The gains of what no nested orbit moves: at best, with the sign as it is, and whether best is with
        the other sign."""
        plain = np.zeros((len(one[0]), len(other[0])), np.float32)
        turning = np.zeros_like(plain)
        for incidence, ours, theirs in zip(branch.incidences, one, other, strict=True):
            flips = incidence.flips & (incidence.rows not in self.unsigned)
            for total, chosen in ((plain, incidence.loose & ~flips), (turning, incidence.loose & flips)):
                if chosen.any():
                    total += weighed(ours, theirs, chosen)
                    if self.near:
                        x, y = (_half_squares(side[:, chosen]) for side in (ours, theirs))
                        plain -= x[:, None] + y
        return plain + np.abs(turning), plain + turning, turning < 0


def weighed(ours: Singles, theirs: Singles, slots: NDArray[np.bool_]) -> Singles:
    """The inner products of components [x, slots, columns] and [y, …] over some slots, [x, y]."""
    x, y = ((m if slots.all() else m[:, slots]).reshape(len(m), -1) for m in (ours, theirs))
    return np.asarray(x @ y.T)


def _half_squares(rows: Singles) -> Singles:
    """Half the squared length of every component."""
    return np.asarray(0.5 * np.square(rows).sum((1, 2)))


def unmoved(branch: Branch, ours: int, theirs: int) -> Choice:
    """The choice that leaves everything in place, for so many blocks of each model."""
    size = branch.orbit.size
    source = np.broadcast_to(np.arange(size), (ours, theirs, size))
    children = tuple(unmoved(child, ours * size, theirs * size) for child in branch.children)
    return Choice(source, np.zeros(source.shape, bool), children)


def assigned(gain: NDArray[np.floating[Any]], prices: Floats | None = None) -> tuple[Ids, Floats]:
    """For each row of a square matrix a column, each column once, of largest total.

    Prices of columns change no total, but where they are nearly those of the best assignment each row finds
    its column almost at once. A short auction (Bertsekas 1988) brings them there; what it leaves open, an
    exact solver decides on the gains less prices.

    Args:
        gain: float32 or float64 [n, n].
        prices: of the columns where a similar matrix was assigned, float64 [n].

    Returns:
        The column of each row, and the prices.

    Rows 0 and 1 both want column 1; row 1 loses less by taking its second best:

        >>> gain = np.array([[1.0, 9, 2, 0], [8, 9, 1, 0], [0, 1, 7, 3], [2, 0, 3, 6]])
        >>> assigned(gain)[0].tolist()
        [1, 0, 2, 3]
    """
    prices = np.zeros(len(gain)) if prices is None else prices
    columns: Ids = gain.argmax(1)
    if _each_once(columns):
        return columns, prices
    if len(gain) >= AUCTIONED:
        prices = _auction(gain, prices)
    from scipy.optimize import linear_sum_assignment

    cost = prices - gain
    cost -= cost.min(1, keepdims=True)
    columns = cost.argmin(1)
    if not _each_once(columns):
        columns = np.asarray(linear_sum_assignment(cost)[1], np.int64)
    return columns, prices


def _each_once(columns: Ids) -> bool:
    return bool((np.bincount(columns, minlength=len(columns)) == 1).all())


def _auction(gain: NDArray[np.floating[Any]], prices: Floats) -> Floats:
    """Prices after all rows without a column bid at once, again and again, until few have none.

    A row bids for the column that is worth most to it, up to where the second best is worth as much; the
    highest bid takes the column from the row that has it. So no price rises above what its holder would pay,
    and the prices are those of an assignment that is best but for `least` per row.
    """
    prices = prices.astype(gain.dtype)
    # Without a least raise, rows that value two columns alike would outbid each other by nothing for ever.
    least = gain.std() / len(gain)
    holder = np.full(len(gain), -1)
    free = np.arange(len(gain))
    for _ in range(int(BIDS * len(gain))):
        if len(free) <= LEFT * len(gain):
            break
        worth, places = gain[free] - prices, np.arange(len(free))
        column = worth.argmax(1)
        best = worth[places, column]
        worth[places, column] = -np.inf
        bid = prices[column] + (best - worth.max(1) + least)
        # By column, then by bid: the last of each column's run is its highest bid.
        order = np.lexsort((bid, column))
        last = np.ones(len(free), bool)
        last[:-1] = column[order[1:]] != column[order[:-1]]
        highest = order[last]
        taken = column[highest]
        lost = holder[taken]
        holder[taken], prices[taken] = free[highest], bid[highest]
        free = np.concatenate([free[order[~last]], lost[lost >= 0]])
    return np.asarray(prices, np.float64)


def motion(branch: Branch, choice: Choice, count: int) -> tuple[Ids, Ids]:
    """What a choice for an orbit at the top of the tree does: the image of every unit class, int64 [count]
    (dependent classes are left for `Solution.extend`), and the sign freedoms that change thereafter."""
    image = np.arange(count)
    flips: list[Ids] = []
    _move(branch, choice, branch.orbit.members, branch.orbit.members, (0, 0), image, flips)
    return image, np.concatenate([np.zeros(0, np.int64), *flips])


def _move(
    branch: Branch,
    choice: Choice,
    target: Ids,
    source: Ids,
    block: tuple[int, int],
    image: Ids,
    flips: list[Ids],
) -> None:
    pairs, size = choice.source[block], branch.orbit.size
    image[source[pairs]] = target
    if choice.flipped[block].any():
        flips.append(branch.signs[block[0] * size + np.flatnonzero(choice.flipped[block])])
    for child, inner in zip(branch.children, choice.children, strict=True):
        columns = child.orbit.members
        for i, j in enumerate(pairs.tolist()):
            inside = block[0] * size + i, block[1] * size + j
            _move(child, inner, target[i][columns], source[j][columns], inside, image, flips)


def _by_block(table: NDArray[Any], size: int) -> NDArray[Any]:
    """From components of blocks [x · k, y · k] to [x, y, k, k]."""
    x, y = (n // size for n in table.shape)
    return table.reshape(x, size, y, size).transpose(0, 2, 1, 3)


def _stacked(parts: Sequence[tuple[Choice, Floats, Floats]]) -> tuple[Choice, Floats, Floats]:
    """Results for some blocks of ours after those for others."""

    def join(choices: Sequence[Choice]) -> Choice:
        inner = zip(*(c.children for c in choices), strict=True)
        source, flipped = (
            np.concatenate(a) for a in zip(*((c.source, c.flipped) for c in choices), strict=True)
        )
        return Choice(source, flipped, tuple(join(children) for children in inner))

    best, kept = (np.concatenate([p[k] for p in parts]) for k in (1, 2))
    return join([p[0] for p in parts]), best, kept
