"""Where freedoms act: the scaled axes of each parameter, with the form of every position."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from onnxcanon.arrays import Floats, Ids
from onnxcanon.solving.rescaling import RescalingGroup


@dataclass(slots=True)
class ScaledAxis:
    """One scaled axis of a parameter: the form (free exponents and coefficients) at each position.

    `rows` are the positions of the entries that `forms` stores.
    """

    axis: int
    shape: tuple[int, ...]
    forms: csr_matrix  # [positions, freedoms]
    rows: Ids = field(init=False)

    def __post_init__(self) -> None:
        self.rows = np.repeat(np.arange(self.forms.shape[0]), np.diff(self.forms.indptr))

    def solvable(self, known: NDArray[np.bool_]) -> tuple[Ids, Ids, Ids]:
        """Positions with exactly one unknown freedom: (positions, freedoms, coefficients ±1)."""
        open_ = ~known[self.forms.indices]
        rows, columns, values = self.rows[open_], self.forms.indices[open_], self.forms.data[open_]
        count = np.bincount(rows, minlength=self.forms.shape[0])
        one = (count[rows] == 1) & (np.abs(values) == 1)
        return rows[one], columns[one], values[one].astype(np.int64)

    def open_positions(self, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Positions whose form holds an unknown freedom, in the site's shape."""
        return self.open_count(known) > 0

    def open_count(self, known: NDArray[np.bool_]) -> Floats:
        """How many unknown freedoms each position's form holds, in the site's shape."""
        held = np.abs(self.forms.data) * ~known[self.forms.indices]
        return np.bincount(self.rows, held, self.forms.shape[0]).astype(np.float64).reshape(self.shape)

    def exponents(self, t: Floats) -> Floats:
        """The exponent at each position, for the freedoms' current values."""
        return np.asarray(self.forms @ t).reshape(self.shape)


def undetermined(
    known: NDArray[np.bool_],
    sites: Mapping[str, Sequence[ScaledAxis]],
    read: Callable[[str], NDArray[Any]],
    what: str,
) -> list[str]:
    """A note on freedoms that were not determined though they act on entries that are not zero: their factors
    stand only beside each other."""
    found = np.zeros(len(known), bool)
    for name, axes in sites.items():
        hidden = [site.open_positions(known) for site in axes]
        if not any(h.any() for h in hidden):
            continue
        array = read(name) != 0
        for site, unknown in zip(axes, hidden, strict=True):
            rest = tuple(k for k, n in enumerate(site.shape) if n == 1 and array.shape[k] > 1)
            rows = np.flatnonzero((array.any(rest, keepdims=True) & unknown).reshape(-1))
            found[site.forms[rows].indices] = True
    count = int((found & ~known).sum())
    return [f"{count} {what} act only on each other's entries and stay as stored"] if count else []


def scaled_axes(freedom: RescalingGroup, exponents: Mapping[int, Ids]) -> list[ScaledAxis]:
    """The axes of one parameter on which some freedom acts."""
    return [ScaledAxis(a, d.shape, freedom.forms[d.ravel()]) for a, d in exponents.items() if freedom.act(d)]
