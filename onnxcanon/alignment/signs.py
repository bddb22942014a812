"""The signs that bring one model nearest to another, its units being where they are.

The objective is a sum of inner products, so a sign freedom gains if the products of the entries that it flips
add up to less than zero. Freedoms are flipped one at a time until none gains; a parameter enters by a
small table, its products summed over the axes that no sign acts on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csc_matrix

from onnxcanon.alignment.assignment import Floats, Singles
from onnxcanon.canonical.sites import sites_of
from onnxcanon.symmetry.analysis import Symmetry
from onnxcanon.symmetry.constraints import Ids

PASSES = 20


@dataclass(slots=True)
class _Table:
    """A parameter: products over its signed positions; for every axis the freedoms that flip a position."""

    products: Floats
    axes: list[tuple[tuple[int, ...], csc_matrix]]

    def freedoms(self) -> Ids:
        """Those that flip some entry."""
        return np.unique(np.concatenate([np.flatnonzero(np.diff(forms.indptr)) for _, forms in self.axes]))

    def flipped(self, freedom: int) -> Floats:
        """The products with those that a freedom flips negated."""
        factor = np.ones(())
        for shape, forms in self.axes:
            line = np.ones(forms.shape[0])
            line[forms.indices[forms.indptr[freedom] : forms.indptr[freedom + 1]]] = -1
            factor = factor * line.reshape(shape)
        return np.asarray(self.products * factor)


def nearest_signs(symmetry: Symmetry, ours: Mapping[str, Singles], theirs: Mapping[str, Singles]) -> Ids:
    """The sign freedoms to flip so that `theirs` comes nearest to `ours`, int64."""
    tables = [t for name in theirs if (t := _table(symmetry, name, ours[name], theirs[name])) is not None]
    acting: dict[int, list[_Table]] = {}
    for table in tables:
        for freedom in table.freedoms().tolist():
            acting.setdefault(freedom, []).append(table)
    turned = np.zeros(symmetry.sign.count, bool)
    rest = list(acting)
    for _ in range(PASSES):
        gaining = [f for f in rest if _gains(f, acting[f])]
        for freedom in gaining:
            turned[freedom] ^= True
        if not gaining:
            break
    return np.flatnonzero(turned)


def _gains(freedom: int, tables: list[_Table]) -> bool:
    """Flip a freedom if that gains."""
    after = [table.flipped(freedom) for table in tables]
    gain = sum(float(new.sum() - table.products.sum()) for new, table in zip(after, tables, strict=True))
    if gain <= 0:
        return False
    for table, new in zip(tables, after, strict=True):
        table.products = new
    return True


def _table(symmetry: Symmetry, name: str, ours: Singles, theirs: Singles) -> _Table | None:
    sites = sites_of(symmetry.sign.forms, symmetry.degrees[name])
    if not sites:
        return None
    wide = np.broadcast_shapes(*(site.shape for site in sites))
    rest = tuple(k for k, n in enumerate(wide) if n == 1 and ours.shape[k] > 1)
    products = np.multiply(ours, theirs, dtype=np.float64).sum(rest, keepdims=True)
    return _Table(products, [(site.shape, site.forms.tocsc()) for site in sites])
