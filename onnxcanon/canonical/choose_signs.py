"""The choice of signs: the first nonzero sum of the entries a freedom flips is made positive.

Sums are exact, over entries rounded to 2^-30 of the largest, so that their order cannot matter. Where a sum
vanishes (a row of a sine wave) entries are weighted by their position, then scattered by an odd hash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.arrays import Ids
from onnxcanon.canonical.scaled_axes import ScaledAxis, scaled_axes
from onnxcanon.model import Model
from onnxcanon.solving.hashing import mix
from onnxcanon.symmetry import Symmetry
from onnxcanon.transform import rows_of

Whole = NDArray[np.signedinteger[Any]]
"""Entries as integers."""

Block = tuple[slice, NDArray[Any]]
"""Some rows of a parameter, and which these are."""

Odd = Callable[[Whole, slice], Whole]
"""An odd function of the entries of a parameter in some of its rows."""

READ_ONCE_ENTRIES = 1 << 21
"""Entries up to which a parameter is read once for several passes."""


class SignChoice:
    """Signs in the order of use, by exact integer sums of the entries rounded to 2^-30 of the largest."""

    def __init__(self, model: Model, symmetry: Symmetry) -> None:
        self.model = model
        self.sites = {n: s for n, d in symmetry.exponents.items() if (s := scaled_axes(symmetry.sign, d))}
        self.symmetry = symmetry
        self.flips = np.zeros(symmetry.sign.count, np.int64)
        self.known = ~symmetry.acting[1]

    def run(self) -> NDArray[np.int64]:
        """0 or 1 per freedom."""
        while True:
            if sum(self._visit(name, partial=False) for name in self.sites):
                continue
            if not any(self._visit(name, partial=True) for name in self.sites):
                return self.flips

    def _visit(self, name: str, *, partial: bool) -> bool:
        sites = self.sites[name]
        moved = False
        for site in sites:
            positions, freedoms, _ = site.solvable(self.known)
            if not len(positions):
                continue
            others = [s for s in sites if s is not site]
            hidden = [s.open_positions(self.known) for s in others]
            if any(h.any() for h in hidden) and not partial:
                continue
            moved |= self._solve(name, site, list(zip(others, hidden, strict=True)), positions, freedoms)
        return moved

    def _solve(
        self,
        name: str,
        site: ScaledAxis,
        others: Iterable[tuple[ScaledAxis, NDArray[np.bool_]]],
        positions: Ids,
        freedoms: Ids,
    ) -> bool:
        blocks = self._blocks(name)
        unit = _unit(block for _, block in blocks())
        if unit is None:
            return False
        signs = [self._sign(s, self.flips) * ~h for s, h in others]
        signs.append(self._sign(site, self.flips * self.known))
        signs = [sign for sign in signs if (sign != 1).any()]
        names, inverse = np.unique(freedoms, return_inverse=True)
        decided = np.zeros(len(names), bool)
        for odd in (_plain, self._placed(name), _scattered):
            total = np.zeros(len(names), np.int64)
            np.add.at(total, inverse, _sums(blocks(), site, unit, signs, odd).reshape(-1)[positions])
            fresh = (total != 0) & ~decided
            self.flips[names[fresh]] = total[fresh] < 0
            decided |= fresh
            if decided.all():
                break
        self.known[names[decided]] = True
        return bool(decided.any())

    def _blocks(self, name: str) -> Callable[[], Iterable[Block]]:
        """The entries of a parameter, read once if they are few, else whenever they are asked for."""
        read = partial(self.symmetry.blocks, self.model, name)
        if prod(self.symmetry.trace.parameters[name].shape) > READ_ONCE_ENTRIES:
            return read
        kept = list(read())
        return lambda: kept

    @staticmethod
    def _sign(site: ScaledAxis, flips: Ids) -> NDArray[np.int32]:
        """The sign at each position of a site."""
        return (1 - 2 * (site.exponents(flips.astype(np.float64)) % 2)).astype(np.int32)

    def _placed(self, name: str) -> Odd:
        """The entries weighted by their position along axes that do not move (sums of waves are zero)."""
        lines = []
        shape = self.symmetry.trace.parameters[name].shape
        for axis, n in enumerate(shape):
            classes = self.symmetry.classes[name].get(axis)
            if n > 1 and (classes is None or not self.symmetry.moving[classes].any()):
                line = [1] * len(shape)
                line[axis] = n
                lines.append((2 * np.arange(n, dtype=np.int64) + 1).reshape(line))

        def odd(whole: Whole, here: slice) -> Ids:
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
    blocks: Iterable[Block], site: ScaledAxis, unit: float, signs: Sequence[NDArray[np.int32]], odd: Odd
) -> Ids:
    """The sum of an odd function of the entries at each position of a site."""
    total = np.zeros(site.shape, np.int64)
    rest = tuple(k for k, n in enumerate(site.shape) if n == 1)
    for here, block in blocks:
        whole = _whole(block, unit)
        for sign in signs:
            whole = whole * rows_of(sign, here)
        part = rows_of(total, here)
        part += odd(whole, here).sum(rest, dtype=np.int64, keepdims=True)
    return total


def _plain(whole: Whole, _: slice) -> Whole:
    return whole


def _scattered(whole: Whole, _: slice) -> Ids:
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
