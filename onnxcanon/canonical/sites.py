"""Where freedoms act: the scaled axes of each parameter, with the form of every position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from onnxcanon.symmetry.constraints import Ids

Floats = NDArray[np.float64]


@dataclass(slots=True)
class Site:
    """One scaled axis of a parameter: the form (free degrees and coefficients) at each position."""

    axis: int
    shape: tuple[int, ...]
    forms: csr_matrix  # [positions, freedoms]

    def solvable(self, known: NDArray[np.bool_]) -> tuple[Ids, Ids, Ids]:
        """Positions with exactly one unknown freedom: (positions, freedoms, coefficients ±1)."""
        entries = self.forms.tocoo()
        rows, columns, values = entries.row, entries.col, entries.data
        open_ = ~known[columns]
        rows, columns, values = rows[open_], columns[open_], values[open_]
        count = np.bincount(rows, minlength=self.forms.shape[0])
        one = (count[rows] == 1) & (np.abs(values) == 1)
        return rows[one], columns[one], values[one].astype(np.int64)

    def open_positions(self, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Positions whose form holds an unknown freedom, in the site's shape."""
        return self.open_count(known) > 0

    def open_count(self, known: NDArray[np.bool_]) -> Floats:
        """How many unknown freedoms each position's form holds, in the site's shape."""
        return np.asarray(abs(self.forms) @ (~known).astype(np.float64)).reshape(self.shape)

    def exponents(self, t: Floats) -> Floats:
        """The exponent at each position, for the freedoms' current values."""
        return np.asarray(self.forms @ t).reshape(self.shape)


def sites_of(forms: csr_matrix, degrees: Mapping[int, Ids]) -> list[Site]:
    """The axes of one parameter on which some freedom acts."""
    return [Site(a, d.shape, forms[d.ravel()]) for a, d in degrees.items() if forms[d.ravel()].nnz]
