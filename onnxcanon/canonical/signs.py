"""The choice of signs: the first nonzero sum of the entries a freedom flips is made positive.

Sums are exact, over entries rounded to 2^-30 of the largest, so that their order cannot matter. Where a sum
vanishes (a row of a sine wave) entries are weighted by their position, then scattered by an odd hash.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.canonical.sites import Site, sites_of
from onnxcanon.model import Model
from onnxcanon.symmetry.analysis import Symmetry
from onnxcanon.symmetry.constraints import Ids
from onnxcanon.symmetry.hashing import mix

Whole = NDArray[np.signedinteger[Any]]
"""Entries as integers."""


class Signs:
    """Signs in the order of use, by exact integer sums of the entries rounded to 2^-30 of the largest."""

    def __init__(self, model: Model, symmetry: Symmetry) -> None:
        self.model = model
        forms = symmetry.sign.forms
        self.sites = {n: s for n, d in symmetry.degrees.items() if (s := sites_of(forms, d))}
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
        site: Site,
        others: Iterable[tuple[Site, NDArray[np.bool_]]],
        positions: Ids,
        freedoms: Ids,
    ) -> bool:
        whole = _whole(self.symmetry.read(self.model, name))
        if whole is None:
            return False
        self.model.drop_pages(whole)
        for s, h in others:
            sign = self._sign(s, self.flips) * ~h
            whole = whole if (sign == 1).all() else whole * sign
        sign = self._sign(site, self.flips * self.known)
        whole = whole if (sign == 1).all() else whole * sign
        rest = tuple(k for k, n in enumerate(site.shape) if n == 1 and whole.shape[k] > 1)
        names, inverse = np.unique(freedoms, return_inverse=True)
        decided = np.zeros(len(names), bool)
        for odd in (lambda: whole, lambda: self._placed(name, whole), lambda: self._scattered(whole)):
            total = np.zeros(len(names), np.int64)
            np.add.at(total, inverse, odd().sum(rest, dtype=np.int64).reshape(-1)[positions])
            fresh = (total != 0) & ~decided
            self.flips[names[fresh]] = total[fresh] < 0
            decided |= fresh
            if decided.all():
                break
        self.known[names[decided]] = True
        return bool(decided.any())

    @staticmethod
    def _sign(site: Site, flips: Ids) -> NDArray[np.int32]:
        """The sign at each position of a site."""
        return (1 - 2 * (site.exponents(flips.astype(np.float64)) % 2)).astype(np.int32)

    def _placed(self, name: str, whole: Whole) -> Ids:
        """The entries weighted by their position along axes that do not move (sums of waves are zero)."""
        whole = whole.astype(np.int64)
        for axis, n in enumerate(whole.shape):
            classes = self.symmetry.classes[name].get(axis)
            if n > 1 and (classes is None or not self.symmetry.moving[classes].any()):
                line = [1] * whole.ndim
                line[axis] = n
                whole = whole * (2 * np.arange(n, dtype=np.int64) + 1).reshape(line)
        return whole

    @staticmethod
    def _scattered(whole: Whole) -> Ids:
        """An odd function of the entries without linear relations."""
        words = mix(np.abs(whole).astype(np.uint64)) >> np.uint64(8)
        return np.sign(whole) * words.astype(np.int64)


def _whole(array: NDArray[Any]) -> Whole | None:
    """The entries in units of 2^-30 of the largest, rounded; None where that is zero or infinite."""
    if array.dtype.kind != "f" or array.itemsize < 4:
        array = array.astype(np.float64)
    top = max(float(array.max(initial=0)), -float(array.min(initial=0)))
    if not np.isfinite(top) or top == 0:
        return None
    unit = np.exp2(float(30 - np.frexp(top)[1]))
    if not 2.0**-100 < unit < 2.0**100:
        array = array.astype(np.float64)
    whole: Whole = np.rint(array * array.dtype.type(unit)).astype(np.int32)
    return whole
