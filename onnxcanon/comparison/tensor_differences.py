"""What a map between two models leaves, tensor by tensor, and how much of it rounding explains.

Rounding is known to do two things. Where the map multiplies by powers of two, only an exporter can have
rounded, and it rounds the weights of whole units: entries that are few or lie about were changed, however
small the difference is. Elsewhere an entry may be off by some of its last places, or by what moving the
original weights by one in the last place makes of it, if it was folded from several of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxcanon.arrays import Array, Floats
from onnxcanon.comparison.correspondence import Pair
from onnxcanon.model import Model
from onnxcanon.transform import Transform

Noise = tuple[Model, Model]
"""Both models, every folded entry replaced by how far rounding may move it, all others by zero."""

ROUNDING = 2.0**-20
"""What rounding may do to an entry that was multiplied by other factors than powers of two: this much of the
entry itself, whose factors are known from norms as exactly as single precision allows, and of the median
of its tensor, for terms may have cancelled where an exporter folded a rescaled normalization."""

CANCELLED = 4.0
"""How many times what a unit in the last place of its sources makes of an entry that we computed rounding may
make of it: it was rounded more than once."""

FEW_UNEXPLAINED, DENSE = 8, 1 / 4
"""Fewer entries than this that differ though the map multiplies them by powers of two were changed and not
rounded, and so were entries that are less than this part of the units they lie in: an exporter that folds
a rescaled normalization rounds the weights of whole units, and about half of them move."""

QUANTIZED_VALUES = 256
"""Different values that the entries of a quantized tensor have at most."""

CHUNK_ENTRIES = 1 << 17
"""Entries that are compared together, so that what is computed of them stays in the processor's cache."""


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """How far a tensor of the first model, mapped, is from its counterpart in the second.

    Attributes:
        name: the tensor in the first model.
        counterpart: the tensor in the second.
        entries: how many it has.
        equal: how many of them are the same bit for bit (0 and -0 are).
        within_rounding: how many differ by no more than rounding.
        zeroed: how many are zero in the second model only.
        unexplained: how many differ though the map multiplies them by powers of two; of tensors
            that are not the models' own, but computed from several of them, none.
        density: which part they are of the slices they lie in, one of each aside, along the axis where it is
            largest; None of a vector, whose slices are single entries.
        values: how many different values the second model's entries have, where they are so few that they
            look quantized; else 0.
        fits_fp16: whether the second model's entries fit into half precision and the first one's do not.
        largest: the largest difference of two entries, relative to the larger of them.
        distance: the root mean square of all differences, relative to that of the second tensor's entries.
    """

    name: str
    counterpart: str
    entries: int
    equal: int
    within_rounding: int
    zeroed: int
    largest: float
    distance: float
    unexplained: int = 0
    density: float | None = None
    values: int = 0
    fits_fp16: bool = False

    @property
    def rounded(self) -> bool:
        """Whether rounding explains all of the difference."""
        return self.within_rounding == self.entries


def differences(
    transform: Transform,
    a: Model,
    b: Model,
    pairs: Sequence[Pair],
    folded: frozenset[Pair] = frozenset(),
    noise: Noise | None = None,
) -> list[TensorDifference]:
    """How far every tensor of `a`, transformed, is from its counterpart in `b`.

    Args:
        transform: the map, which acts on `a`.
        a: the first model.
        b: the second model.
        pairs: tensors and their counterparts.
        folded: those of them that were computed from several weights.
        noise: how far rounding moves these, if it was measured.
    """
    mapped = transform.apply(a)
    mapped_noise = None if noise is None else (transform.apply(noise[0]), noise[1])
    out = []
    for pair in pairs:
        name, counterpart = pair
        ours, theirs = mapped.tensor(name), b.tensor(counterpart)
        tolerance = np.zeros(theirs.size)
        if pair not in folded:
            tolerance += ROUNDING * _median_magnitude(theirs)
        elif mapped_noise is not None:
            moves = [model.tensor(tensor) for model, tensor in zip(mapped_noise, pair, strict=True)]
            if moves[0].size == moves[1].size:
                for move in moves:
                    tolerance += CANCELLED * np.abs(move.astype(np.float64)).reshape(-1)
        difference = _difference(pair, ours, theirs, tolerance)
        if difference.equal < difference.entries and pair not in folded:
            factors = transform.apply(a.with_tensors({name: np.ones(ours.shape, ours.dtype)})).tensor(name)
            difference = _with_unexplained(difference, ours, theirs, factors)
        out.append(difference)
    return out


def _with_unexplained(
    difference: TensorDifference, ours: Array, theirs: Array, factors: Array
) -> TensorDifference:
    """Count the entries that differ though the map multiplies them by powers of two, which rounds nothing."""
    if ours.shape != theirs.shape or ours.dtype.kind != "f" or ours.dtype != theirs.dtype:
        return replace(difference, unexplained=difference.entries - difference.equal, density=1.0)
    exact = np.abs(np.frexp(factors)[0]) == 0.5
    unexplained = exact & (ours != theirs) & ~(np.isnan(ours) & np.isnan(theirs))
    return replace(difference, unexplained=int(unexplained.sum()), density=density(unexplained, theirs != 0))


def density(chosen: NDArray[np.bool_], among: NDArray[np.bool_]) -> float | None:
    """Which part of the slices they lie in the chosen entries are, along the axis where it is largest.

    None of a vector, whose slices are single entries. Rounding a unit leaves a dense row, changing weights
    here and there does not:

    >>> everything = np.ones((3, 4), bool)
    >>> density(np.array([[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool), everything)
    1.0
    >>> density(np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], bool), everything)
    0.0
    """
    long = [axis for axis, n in enumerate(chosen.shape) if n > 1]
    if len(long) < 2:
        return None
    shares = [0.0]
    for axis in long:
        rest = tuple(k for k in range(chosen.ndim) if k != axis)
        # Only slices with a chosen entry are looked at. The entry that selects a slice proves nothing about
        # it, and would be a large share of a short one, so one entry of each is left out on both sides.
        count, size = (mask.sum(rest) - 1 for mask in (chosen, among | chosen))
        shares.append(float(count[count >= 0].sum() / max(1, size[count >= 0].sum())))
    return max(shares)


def unexplained_by_rounding(differences: Sequence[TensorDifference]) -> bool:
    """Whether entries of the models' own were changed, however little: those that differ are few, or all
    differences are small and do not fill units. Vectors show no units; they follow other tensors."""
    suspects = [d for d in differences if d.unexplained]
    if sum(d.unexplained for d in suspects) < FEW_UNEXPLAINED:
        return bool(suspects)
    densities = [d.density for d in suspects if d.density is not None]
    return min(densities, default=0.0) < DENSE and all(d.rounded for d in differences)


def _median_magnitude(array: Array) -> float:
    """The median of the magnitudes, of a sample if there are many."""
    if array.dtype.kind != "f" or not array.size:
        return 0.0
    flat = array.reshape(-1)
    return float(np.median(np.abs(flat[:: -(-len(flat) // CHUNK_ENTRIES)])))


def _difference(pair: Pair, ours: Array, theirs: Array, tolerance: Floats) -> TensorDifference:
    """Of two tensors whose entries may be `tolerance` apart beside what is relative to them."""
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape or ours.dtype.kind not in "fV":
        equal = int((ours == theirs).sum()) if ours.shape == theirs.shape else 0
        whole = max(ours.size, theirs.size)
        apart = float(equal < whole)
        return TensorDifference(*pair, whole, equal, equal, 0, apart, apart)
    x, y = ours.reshape(-1), theirs.reshape(-1)
    total = _Accumulator()
    for start in range(0, len(x), CHUNK_ENTRIES):
        chunk = slice(start, start + CHUNK_ENTRIES)
        total.add(x[chunk], y[chunk], tolerance[chunk])
    size = np.sqrt(total.size)
    distance = float(np.sqrt(total.apart) / size) if size else float(total.apart > 0)
    counts = x.size, total.equal, total.within_rounding, total.zeroed
    values, fits_fp16 = 0, False
    if total.within_rounding < x.size:
        values, fits_fp16 = _coarse(x[:CHUNK_ENTRIES], y[:CHUNK_ENTRIES])
    return TensorDifference(*pair, *counts, total.largest, distance, values=values, fits_fp16=fits_fp16)


def _coarse(ours: Array, theirs: Array) -> tuple[int, bool]:
    """How many values theirs are if they look quantized, and whether they alone fit into half precision."""
    before, after = len(np.unique(ours)), len(np.unique(theirs))
    with np.errstate(over="ignore"):
        fits = [bool((a.astype(np.float16).astype(a.dtype) == a).all()) for a in (ours, theirs)]
    return after if after <= QUANTIZED_VALUES and 2 * after < before else 0, fits == [False, True]


class _Accumulator:
    """What the chunks of two tensors add up to."""

    def __init__(self) -> None:
        self.equal = self.within_rounding = self.zeroed = 0
        self.largest = self.apart = self.size = 0.0

    def add(self, ours: Array, theirs: Array, tolerance: Floats) -> None:
        """One more chunk; entries may be `tolerance` apart beside what is relative to them."""
        x, y = ours.astype(np.float64), theirs.astype(np.float64)
        with np.errstate(invalid="ignore"):
            self.size += float(np.dot(y, y))
            same = (x == y) | (np.isnan(x) & np.isnan(y))
            self.equal += int(same.sum())
            if same.all():
                self.within_rounding += len(x)
                return
            apart = np.where(same, 0.0, np.abs(x - y))
            size = np.maximum(np.abs(x), np.abs(y))
            self.within_rounding += int((same | (apart <= ROUNDING * size + tolerance)).sum())
            self.zeroed += int(((y == 0) & (x != 0)).sum())
            self.apart += float(np.dot(apart, apart))
            relative = np.divide(apart, size, out=np.zeros_like(apart), where=size > 0)
            self.largest = max(self.largest, float(relative.max()))
