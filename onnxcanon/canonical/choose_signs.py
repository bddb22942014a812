"""The choice of signs: the first nonzero sum of the entries a freedom flips is made positive.

Sums are exact, over entries rounded to 2^-30 of the largest, so that their order cannot matter. Where a sum
vanishes (a row of a sine wave) entries are weighted by their position, then scattered by an odd hash. All
three are odd functions of the entries, so a flip of the entries flips the sum.

Three units with incoming weights (1, 2), (-2, 1) and (1, -1): the plain sum decides the first two, the second
of which is flipped; weights 1 and 3 by position flip the third.

>>> whole = np.array([[1, 2], [-2, 1], [1, -1]], np.int32)
>>> whole.sum(1).tolist(), (whole * np.array([1, 3])).sum(1).tolist()
([3, -1, 0], [7, 1, -2])
>>> bool((_scattered(-whole, ...) == -_scattered(whole, ...)).all())
True
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.action import rows_of
from onnxcanon.arrays import Ids, Rows
from onnxcanon.canonical.scaled_axes import Candidates, ScaledAxis, all_scaled_axes, sweep, undetermined
from onnxcanon.model import Model
from onnxcanon.solving.hashing import mix
from onnxcanon.symmetry import Symmetry

Whole = NDArray[np.signedinteger[Any]]
"""Entries as integers."""

RowBlock = tuple[Rows, NDArray[Any]]
"""Some rows of a parameter, and which these are."""

Odd = Callable[[Whole, Rows], Whole]
"""An odd function of the entries of a parameter in some of its rows."""

READ_ONCE_ENTRIES = 1 << 21
"""Entries up to which a parameter is read once for several passes."""


def choose_signs(model: Model, symmetry: Symmetry) -> tuple[Ids | None, list[str]]:
    """0 or 1 for each sign freedom (None: leave them), and notes for the user."""
    if not symmetry.acting[1].any():
        return None, []
    choice = SignChoice(model, symmetry)
    sweep(choice.axes, choice.determined, choice.solve)
    read = partial(symmetry.read, model)
    return choice.flips, undetermined(choice.determined, choice.axes, read, "signs")


class SignChoice:
    """The signs that are determined so far: 0 or 1 in `flips` for each freedom."""

    def __init__(self, model: Model, symmetry: Symmetry) -> None:
        self.model, self.symmetry = model, symmetry
        self.axes = all_scaled_axes(symmetry.sign, symmetry.exponents)
        self.flips = np.zeros(symmetry.sign.count, np.int64)
        self.determined = ~symmetry.acting[1]

    def solve(self, candidates: Candidates) -> bool:
        """Flip the freedoms whose entries have a negative sum, by the first sum that is not zero."""
        name, site = candidates.name, candidates.site
        blocks = self._blocks(name)
        unit = _unit(block for _, block in blocks())
        if unit is None:
            return False
        # Known signs are taken out of the entries; where a sign is not known the entry is (times 0).
        signs = [
            self._sign(other, self.flips) * ~hidden
            for other, hidden in zip(candidates.others, candidates.hidden, strict=True)
        ]
        signs.append(self._sign(site, self.flips * self.determined))
        signs = [sign for sign in signs if (sign != 1).any()]
        freedoms, inverse = np.unique(candidates.freedoms, return_inverse=True)
        decided = np.zeros(len(freedoms), bool)
        for odd in (_plain, self._weighted(name), _scattered):
            total = np.zeros(len(freedoms), np.int64)
            sums = _sums(blocks(), site, unit, signs, odd).reshape(-1)[candidates.positions]
            np.add.at(total, inverse, sums)
            fresh = (total != 0) & ~decided
            self.flips[freedoms[fresh]] = total[fresh] < 0
            decided |= fresh
            if decided.all():
                break
        self.determined[freedoms[decided]] = True
        return bool(decided.any())

    def _blocks(self, name: str) -> Callable[[], Iterable[RowBlock]]:
        """The entries of a parameter, read once if they are few, else whenever they are asked for."""
        read = partial(self.symmetry.blocks, self.model, name)
        if prod(self.symmetry.trace.parameters[name].shape) > READ_ONCE_ENTRIES:
            return read
        blocks = list(read())
        return lambda: blocks

    @staticmethod
    def _sign(site: ScaledAxis, flips: Ids) -> NDArray[np.int32]:
        """The sign at each position of an axis."""
        return (1 - 2 * (site.exponents(flips.astype(np.float64)) % 2)).astype(np.int32)

    def _weighted(self, name: str) -> Odd:
        """The entries weighted by their position along axes that do not move (sums of waves are zero)."""
        lines = []
        shape = self.symmetry.trace.parameters[name].shape
        for axis, n in enumerate(shape):
            classes = self.symmetry.classes[name].get(axis)
            if n > 1 and (classes is None or not self.symmetry.moving[classes].any()):
                line = [1] * len(shape)
                line[axis] = n
                lines.append((2 * np.arange(n, dtype=np.int64) + 1).reshape(line))

        def odd(whole: Whole, here: Rows) -> Ids:
            out = whole.astype(np.int64)
            for line in lines:
                out = out * rows_of(line, here)
            return out

        return odd


def _unit(blocks: Iterable[NDArray[Any]]) -> float | None:
    """What the largest of all entries is multiplied by to lie in [2^29, 2^30); None where that is zero or
    infinite."""
    tops = [0.0]
    for block in map(_floating, blocks):
        tops += [float(block.max(initial=0)), -float(block.min(initial=0))]
    top = float(np.max(tops))
    return float(np.exp2(float(30 - np.frexp(top)[1]))) if np.isfinite(top) and top else None


def _sums(
    blocks: Iterable[RowBlock], site: ScaledAxis, unit: float, signs: Sequence[NDArray[np.int32]], odd: Odd
) -> Ids:
    """The sum of an odd function of the entries at each position of an axis."""
    total = np.zeros(site.shape, np.int64)
    rest = tuple(k for k, n in enumerate(site.shape) if n == 1)
    for here, block in blocks:
        whole = _whole(block, unit)
        for sign in signs:
            whole = whole * rows_of(sign, here)
        part = rows_of(total, here)
        part += odd(whole, here).sum(rest, dtype=np.int64, keepdims=True)
    return total


def _plain(whole: Whole, _: Rows) -> Whole:
    return whole


def _scattered(whole: Whole, _: Rows) -> Ids:
    """An odd function of the entries without linear relations."""
    words = mix(np.abs(whole).astype(np.uint64)) >> np.uint64(8)
    return np.sign(whole) * words.astype(np.int64)


def _floating(array: NDArray[Any]) -> NDArray[Any]:
    """The entries in single or double precision."""
    return array if array.dtype.kind == "f" and array.itemsize >= 4 else array.astype(np.float64)


def _whole(array: NDArray[Any], unit: float) -> Whole:
    """The entries times a power of two, rounded to integers below 2^30."""
    array = _floating(array) if 2.0**-100 < unit < 2.0**100 else array.astype(np.float64)
    whole = array * array.dtype.type(unit)
    return np.asarray(np.rint(whole, out=whole), np.int32)
