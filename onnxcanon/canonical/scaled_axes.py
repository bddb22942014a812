"""Where freedoms act: the scaled axes of each parameter, and the order in which freedoms are determined.

A freedom t multiplies the entries it acts on by 2^t or 2^-t. Along a scaled axis every position has a *form*:
how often each freedom stands in the exponent of the factor there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from onnxcanon.arrays import Floats, Ids
from onnxcanon.solving.rescaling import RescalingGroup

Mask = NDArray[np.bool_]


@dataclass(slots=True)
class ScaledAxis:
    """One scaled axis of a parameter: the form (freedoms and coefficients) at each position.

    Three positions: the first is multiplied by freedom 0, the second divided by freedom 1, the third
    multiplied by both. Once freedom 0 is determined, the second and the third determine freedom 1:

    >>> axis = ScaledAxis(0, (3,), csr_matrix([[1, 0], [0, -1], [1, 1]]))
    >>> axis.exponents(np.array([2.0, 1.0]))
    array([ 2., -1.,  3.])
    >>> positions, freedoms, coefficients = axis.solvable(np.array([True, False]))
    >>> positions.tolist(), freedoms.tolist(), coefficients.tolist()
    ([1, 2], [1, 1], [-1, 1])

    Attributes:
        axis: the axis.
        shape: the shape of an array of its positions that broadcasts against the parameter.
        forms: the coefficients [positions, freedoms].
        rows: the positions of the entries that `forms` stores.
    """

    axis: int
    shape: tuple[int, ...]
    forms: csr_matrix
    rows: Ids = field(init=False)

    def __post_init__(self) -> None:
        self.rows = np.repeat(np.arange(self.forms.shape[0]), np.diff(self.forms.indptr))

    def solvable(self, determined: Mask) -> tuple[Ids, Ids, Ids]:
        """Positions with exactly one undetermined freedom: (positions, freedoms, coefficients ±1)."""
        unknown = ~determined[self.forms.indices]
        rows, columns, values = self.rows[unknown], self.forms.indices[unknown], self.forms.data[unknown]
        count = np.bincount(rows, minlength=self.forms.shape[0])
        single = (count[rows] == 1) & (np.abs(values) == 1)
        return rows[single], columns[single], values[single].astype(np.int64)

    def unknown(self, determined: Mask) -> Mask:
        """Positions whose form holds an undetermined freedom, in the axis's shape."""
        return self.unknown_count(determined) > 0

    def unknown_count(self, determined: Mask) -> Floats:
        """How many undetermined freedoms each position's form holds, in the axis's shape."""
        count = np.abs(self.forms.data) * ~determined[self.forms.indices]
        return np.bincount(self.rows, count, self.forms.shape[0]).astype(np.float64).reshape(self.shape)

    def exponents(self, t: Floats) -> Floats:
        """The exponent at each position, for given values of the freedoms."""
        return np.asarray(self.forms @ t).reshape(self.shape)

    def others(self, array: NDArray[Any]) -> tuple[int, ...]:
        """The axes of a parameter's entries along which the form does not vary, but they do."""
        return tuple(k for k, n in enumerate(self.shape) if n == 1 and array.shape[k] > 1)

    def freedoms_at(self, entries: Mask) -> Ids:
        """The freedoms that act on some of the chosen entries of the parameter."""
        positions = np.flatnonzero(entries.any(self.others(entries), keepdims=True).reshape(-1))
        return np.asarray(self.forms[positions].indices)

    def reduce_at(self, ufunc: np.ufunc, levels: Floats, out: Floats) -> None:
        """Reduce levels [positions] into out [2, freedoms]: what each freedom multiplies, and divides."""
        entries = self.forms.tocoo()
        for side, chosen in enumerate((entries.data > 0, entries.data < 0)):
            ufunc.at(out[side], entries.col[chosen], levels[entries.row[chosen]])


Axes = Mapping[str, Sequence[ScaledAxis]]
"""The scaled axes of each parameter, in the order of use."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Freedoms that one scaled axis of a parameter can determine, each the only unknown of its positions.

    Attributes:
        name: the parameter.
        site: its axis.
        positions: positions of the axis.
        freedoms: the freedom at each.
        signs: 1 where it multiplies the entries, -1 where it divides them.
        others: the other scaled axes.
        hidden: for each of these the positions whose factors are not known: entries there do not count.
    """

    name: str
    site: ScaledAxis
    positions: Ids
    freedoms: Ids
    signs: Ids
    others: list[ScaledAxis]
    hidden: list[Mask]


def sweep(
    axes: Axes, determined: Mask, solve: Callable[[Candidates], bool], deferred: Mask | None = None
) -> None:
    """Determine freedoms at one parameter after the other, until nothing more can be determined.

    Whole slices come first. Only where they determine nothing in any parameter are slices taken of which
    some entries have to be skipped: these depend on the choices made before, so after one pass whole slices
    have their turn again.

    Args:
        axes: the scaled axes of each parameter, in the order of use.
        determined: which freedoms are; `solve` marks more of them.
        solve: determines candidates, and says whether any was.
        deferred: freedoms that are left alone.
    """

    def visit(name: str, *, partial: bool) -> bool:
        progress = False
        for site in axes[name]:
            positions, freedoms, signs = site.solvable(determined)
            if deferred is not None:
                wanted = ~deferred[freedoms]
                positions, freedoms, signs = positions[wanted], freedoms[wanted], signs[wanted]
            if not len(positions):
                continue
            others = [other for other in axes[name] if other is not site]
            hidden = [other.unknown(determined) for other in others]
            if partial or not any(mask.any() for mask in hidden):
                progress |= solve(Candidates(name, site, positions, freedoms, signs, others, hidden))
        return progress

    while True:
        if sum(visit(name, partial=False) for name in axes):
            continue
        if not any(visit(name, partial=True) for name in axes):
            return


def undetermined(determined: Mask, axes: Axes, read: Callable[[str], NDArray[Any]], what: str) -> list[str]:
    """A note on freedoms that were not determined though they act on entries that are not zero: their factors
    stand only beside each other."""
    acting = np.zeros(len(determined), bool)
    for name, sites in axes.items():
        unknown = [site.unknown(determined) for site in sites]
        if any(mask.any() for mask in unknown):
            nonzero = read(name) != 0
            for site, mask in zip(sites, unknown, strict=True):
                acting[site.freedoms_at(nonzero & mask)] = True
    count = int((acting & ~determined).sum())
    return [f"{count} {what} act only on each other's entries and stay as stored"] if count else []


def scaled_axes(freedom: RescalingGroup, exponents: Mapping[int, Ids]) -> list[ScaledAxis]:
    """The axes of one parameter on which some freedom acts."""
    return [ScaledAxis(a, e.shape, freedom.forms[e.ravel()]) for a, e in exponents.items() if freedom.act(e)]


def all_scaled_axes(
    freedom: RescalingGroup, exponents: Mapping[str, Mapping[int, Ids]]
) -> dict[str, list[ScaledAxis]]:
    """The scaled axes of every parameter that has some, in the order of use."""
    return {name: axes for name, e in exponents.items() if (axes := scaled_axes(freedom, e))}
