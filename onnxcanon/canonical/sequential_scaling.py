"""The choices `pow2` and `unit`: scales set at one parameter after the other, in the order of their use.

Each freedom is determined at the first parameter where its factor is the only unknown one, so that no choice
depends on a later one; `unit` takes in the vectors that it alone acts on in the same way (the bias). `pow2`
uses exact quantities only and loses no bit: a unit whose incoming weights are next to nothing stops where the
lowest bit of its outgoing ones would fall out of the type.

Three units whose largest incoming weights are 3, 0.75 and 0: the first is divided by 2^2, so that its weight
lies in [1/2, 1), the second is there already, the third keeps its scale.

>>> binary_exponent(np.array([3.0, 0.75, 0.0]))
array([  2.,   0., -inf])
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from onnxcanon.action import rows_of, spread
from onnxcanon.arrays import Floats, Ids
from onnxcanon.canonical.exact_scaling import (
    SMALLEST_EXPONENT,
    ExponentRanges,
    exact_exponents,
    lossy_freedoms,
    lowest_bit,
)
from onnxcanon.canonical.scaled_axes import Candidates, Mask, ScaledAxis, all_scaled_axes, sweep, undetermined
from onnxcanon.model import Model
from onnxcanon.symmetry import Symmetry

IMBALANCES = (40, 20, 10, -1)
"""Where bits would be lost, units whose sides differ by 2^40 are deferred first, then those by 2^20, 2^10,
then all."""


@dataclass(frozen=True, slots=True)
class Measure:
    """The size of a set of magnitudes, as log2: by its largest (exact) or by its Euclidean norm."""

    exact: bool

    def of_positions(self, values: Floats, shape: tuple[int, ...]) -> Floats:
        """The size of the entries at each position of an array that broadcasts to `values`; -inf for 0."""
        rest = tuple(k for k, n in enumerate(shape) if n == 1)
        if self.exact:
            return binary_exponent(values.max(rest, keepdims=True, initial=0.0)).reshape(-1)
        with np.errstate(divide="ignore"):
            squares = np.square(values, dtype=np.float64)
            level: Floats = 0.5 * np.log2(squares.sum(rest, keepdims=True)).reshape(-1)
        return level

    def of_unions(self, levels: Floats, groups: Ids, count: int) -> Floats:
        """The size of the union of sets whose sizes are known, per group."""
        if self.exact:
            out = np.full(count, -np.inf)
            np.maximum.at(out, groups, levels)
            return out
        with np.errstate(divide="ignore"):
            return 0.5 * np.log2(np.bincount(groups, np.exp2(2 * levels), count))


def binary_exponent(largest: Floats) -> Floats:
    """e with 2^(e-1) <= x < 2^e; -inf for zero."""
    out = np.frexp(largest)[1].astype(np.float64)
    out[largest == 0] = -np.inf
    return out


def powers_of_two(model: Model, symmetry: Symmetry) -> tuple[Floats, list[str]]:
    """Integral exponents whose powers of two lose no bit.

    A unit whose incoming weights are next to nothing (2^-100, say) would push its outgoing ones into
    subnormals; such units are deferred, and stop where the lowest bit would be lost. Which ones they are
    depends on the target alone, so every equivalent model decides alike.
    """
    deferred = np.zeros(symmetry.scale.count, bool)
    ranges = ExponentRanges(model, symmetry)
    for imbalance in IMBALANCES:
        while True:
            scaling = SequentialScaling(model, symmetry, Measure(exact=True), deferred, ranges)
            t = scaling.run()
            lossy = lossy_freedoms(ranges, t)
            if not (lossy & (t != 0)).any():
                return t, scaling.notes()
            multiplied, divided = scaling.extents(t)
            with np.errstate(invalid="ignore"):
                more = lossy & ~deferred & (np.abs(multiplied - divided) > imbalance)
            if not more.any():
                break
            deferred |= more
    exact, notes = exact_exponents(ranges, t)
    return exact, [*notes, *scaling.notes()]


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where freedoms were determined: what they multiply there is what was brought to size 1.

    Attributes:
        name: the parameter.
        site: its axis.
        positions: positions of the axis.
        freedoms: the freedom at each.
        sign: 1 where it multiplies the entries, -1 where it divides them.
        hidden: entries that did not count, for their other factors were not known: arrays that broadcast
            against the parameter.
    """

    name: str
    site: ScaledAxis
    positions: Ids
    freedoms: Ids
    sign: int
    hidden: tuple[Mask, ...]


class SequentialScaling:
    """Determine freedoms one parameter after the other.

    Those that are `deferred` wait for all others; then they go as near to their target as the lowest bits of
    their entries allow.
    """

    def __init__(
        self,
        model: Model,
        symmetry: Symmetry,
        measure: Measure,
        deferred: Mask | None = None,
        ranges: ExponentRanges | None = None,
    ) -> None:
        self.model, self.symmetry, self.measure = model, symmetry, measure
        self.ranges = ranges or ExponentRanges(model, symmetry)
        self.axes = all_scaled_axes(symmetry.scale, symmetry.exponents)
        self.t = np.zeros(symmetry.scale.count)
        self.determined = ~symmetry.acting[0]
        self.deferred = np.zeros(symmetry.scale.count, bool) if deferred is None else deferred
        self.anchors: list[Anchor] = []
        vectors = {} if measure.exact else {name: self._vector(name) for name in self.axes}
        self.biases = {name: squares for name, squares in vectors.items() if squares is not None}

    def _vector(self, name: str) -> Floats | None:
        """The squares [2, freedoms] of the entries of a vector that one freedom alone multiplies, divides."""
        squares = self.symmetry.read(self.model, name).astype(np.float64).ravel() ** 2
        forms = self.axes[name][0].forms
        if len(self.axes[name]) > 1 or forms.shape[0] != len(squares):
            return None
        squares[np.diff(forms.indptr) != 1] = 0
        return np.stack([squares @ (forms == sign) for sign in (1, -1)])

    def run(self) -> Floats:
        """log2 exponent of every freedom."""
        sweep(self.axes, self.determined, self._solve, self.deferred)
        self._solve_deferred()
        return self.t

    def notes(self) -> list[str]:
        """A note on what could not be determined."""
        return undetermined(self.determined, self.axes, partial(self.symmetry.read, self.model), "scales")

    def _solve_deferred(self) -> None:
        """The deferred freedoms, those of one parameter after those of another."""
        for sites in self.axes.values():
            touched = np.zeros(len(self.t), bool)
            for site in sites:
                touched[site.forms.indices] = True
            group = touched & self.deferred & ~self.determined
            if group.any():
                multiplied, divided = self.extents(self.t)
                target = np.where(
                    np.isfinite(multiplied), -multiplied, np.where(np.isfinite(divided), divided, 0.0)
                )
                up, down = self._slack(~self.determined)
                # What a freedom multiplies may shrink by 2^up, what it divides by 2^down: -up <= t <= down.
                # Where bits are lost already there is no such t, and the middle shares the loss.
                nearest = np.where(
                    up + down < 0, np.floor((down - up) / 2), np.clip(target, -up, np.maximum(down, -up))
                )
                self.t[group] = nearest[group]
                self.determined |= group

    def _slack(self, unknown: Mask) -> Floats:
        """By how many powers of two the entries each freedom multiplies, and divides, may shrink before their
        lowest bit is lost: [2, freedoms], inf for none.

        Entries that two unknown freedoms act on do not count.
        """
        out = np.full((2, len(self.t)), np.inf)
        for name, sites in self.axes.items():
            array = self.symmetry.read(self.model, name)
            lowest = lowest_bit(array.astype(np.float64)) - SMALLEST_EXPONENT[array.dtype.itemsize]
            for site in sites:
                lowest = lowest + site.exponents(self.t)
            several = sum((site.unknown_count(~unknown) for site in sites), np.zeros(()))
            lowest = np.where(several <= 1, lowest, np.inf)
            for site in sites:
                level = lowest.min(site.others(lowest), keepdims=True, initial=np.inf).reshape(-1)
                site.reduce_at(np.minimum, level, out)
        return out

    def extents(self, t: Floats) -> Floats:
        """The exponents of the largest entries each freedom multiplies, and divides: [2, freedoms], -inf for
        none."""
        out = np.full((2, len(t)), -np.inf)
        for name, sites in self.axes.items():
            values = np.abs(self.symmetry.read(self.model, name).astype(np.float64))
            for site in sites:
                values = values * np.exp2(site.exponents(t))
            for site in sites:
                site.reduce_at(np.maximum, self.measure.of_positions(values, site.shape), out)
        return out

    def _solve(self, candidates: Candidates) -> bool:
        """Bring what each freedom multiplies (or divides) at its positions to size 1."""
        name, site, positions = candidates.name, candidates.site, candidates.positions
        factors = [
            np.exp2(other.exponents(self.t)) * ~hidden
            for other, hidden in zip(candidates.others, candidates.hidden, strict=True)
        ]
        factors.append(np.exp2(site.exponents(self.t * self.determined)))
        level = self._levels(name, site, [factor for factor in factors if (factor != 1).any()])
        freedoms, inverse = np.unique(candidates.freedoms, return_inverse=True)
        solved = np.zeros(len(freedoms), bool)
        for side, sign in enumerate((1, -1)):  # where a freedom acts both ways, what it multiplies decides
            chosen = candidates.signs == sign
            size = self.measure.of_unions(level[positions[chosen]], inverse[chosen], len(freedoms))
            here = np.unique(inverse[chosen])
            for bias in (squares for other, squares in self.biases.items() if other != name):
                with np.errstate(divide="ignore"):
                    size[here] = 0.5 * np.log2(np.exp2(2 * size[here]) + bias[side, freedoms[here]])
            fresh = np.isfinite(size) & ~solved
            self.t[freedoms[fresh]] = -sign * size[fresh]
            solved |= fresh
            used = chosen & fresh[inverse]
            self.anchors.append(
                Anchor(name, site, positions[used], candidates.freedoms[used], sign, tuple(candidates.hidden))
            )
        self.determined[freedoms[solved]] = True
        return bool(solved.any())

    def _levels(self, name: str, site: ScaledAxis, factors: list[Floats]) -> Floats:
        """The size of the entries times factors at each position of an axis."""
        if not self.measure.exact:
            values = np.abs(self.symmetry.read(self.model, name).astype(np.float64))
            for factor in factors:
                values *= factor
            return self.measure.of_positions(values, site.shape)
        # Single precision takes powers of two (or 0) as well where no product leaves its normal numbers.
        single = self.ranges.stay_normal(name, [np.log2(f[f > 0]).astype(np.int64) for f in factors])
        largest = np.zeros(site.shape)
        rest = tuple(k for k, n in enumerate(site.shape) if n == 1)
        for here, block in self.symmetry.blocks(self.model, name):
            values = np.abs(block if single else block.astype(np.float64))
            for factor in factors:
                values *= spread(rows_of(factor, here).astype(values.dtype), block.shape)
            part = rows_of(largest, here)
            np.maximum(part, values.max(rest, keepdims=True), out=part)
        return binary_exponent(largest).reshape(-1)
