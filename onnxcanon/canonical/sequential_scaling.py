"""The choices `pow2` and `unit`: a walk over the parameters in the order of their use.

Each freedom is determined at the first parameter where its factor is the only unknown one, so that no choice
depends on a later one; `unit` takes in the vectors that it alone acts on in the same way (the bias). `pow2`
uses exact quantities only and loses no bit: a unit whose incoming weights are next to nothing stops where the
lowest bit of its outgoing ones would fall out of the type.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from onnxcanon.arrays import Floats, Ids
from onnxcanon.canonical.parallel import for_each
from onnxcanon.canonical.scaled_axes import ScaledAxis, scaled_axes, undetermined
from onnxcanon.model import Model
from onnxcanon.symmetry import Symmetry
from onnxcanon.transform import rows_of, spread

IMBALANCES = (40, 20, 10, -1)
"""Where bits would be lost, units whose sides differ by 2^40 give way first, then those by 2^20, 2^10,
then all."""
LAST_BIT = {4: -149, 8: -1074}
"""The exponent of the smallest subnormal, by size of the type in bytes."""


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

    def together(self, levels: Floats, groups: Ids, count: int) -> Floats:
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


def last_bit(values: Floats) -> Floats:
    """The exponent of the lowest bit set in each number; inf for zero."""
    mantissa, exponent = np.frexp(values)
    whole = np.abs(mantissa * 2.0**53).astype(np.int64)
    with np.errstate(divide="ignore"):
        out = np.log2((whole & -whole).astype(np.float64)) + exponent - 53
    out[values == 0] = np.inf
    return out


def powers_of_two(model: Model, symmetry: Symmetry) -> tuple[Floats, list[str]]:
    """Integral exponents whose powers of two lose no bit.

    A unit whose incoming weights are next to nothing (2^-100, say) would push its outgoing ones into
    subnormals; such units stop where the lowest bit would be lost. Which ones they are depends on the target
    alone, so every twin decides alike.
    """
    late = np.zeros(symmetry.scale.count, bool)
    ranges = ExponentRanges(model, symmetry)
    for uneven in IMBALANCES:
        while True:
            walk = SequentialScaling(model, symmetry, Measure(exact=True), late, ranges)
            t = walk.run()
            lossy = lossy_freedoms(ranges, t)
            if not (lossy & (t != 0)).any():
                return t, walk.left_alone()
            plus, minus = walk.extents(t)
            with np.errstate(invalid="ignore"):
                more = lossy & ~late & (np.abs(plus - minus) > uneven)
            if not more.any():
                break
            late |= more
    exact, notes = exact_exponents(ranges, t)
    return exact, [*notes, *walk.left_alone()]


class ExponentRanges:
    """Between which powers of two the entries of each parameter lie; each is read once."""

    def __init__(self, model: Model, symmetry: Symmetry) -> None:
        self.model, self.symmetry = model, symmetry
        self.known: dict[str, tuple[int, int] | None] = {}

    def stay_normal(self, name: str, levels: Iterable[Ids]) -> bool:
        """Whether powers of two, given by their exponents for each axis, leave all entries of a parameter
        within the normal numbers of single precision: then no bit can be lost."""
        up = down = 0
        for exponents in levels:
            up += max(int(exponents.max(initial=0)), 0)
            down += min(int(exponents.min(initial=0)), 0)
        if up == down == 0:
            return True
        self.read([name])
        found = self.known[name]
        return found is not None and found[0] + down > 0 and found[1] + up < 255

    def read(self, names: Iterable[str]) -> None:
        """Read several parameters at once, those that were not read yet."""
        unknown = [name for name in names if name not in self.known]
        self.known.update(zip(unknown, for_each(unknown, self._exponents), strict=True))

    def _exponents(self, name: str) -> tuple[int, int] | None:
        """The smallest and the largest biased exponent of entries in single precision, zeros aside."""
        smallest, largest = (1 << 32) - 1, 0
        for _, block in self.symmetry.blocks(self.model, name):
            if block.dtype != np.float32:
                return None
            shifted = np.ascontiguousarray(block).view(np.uint32) << np.uint32(1)  # without the sign
            largest = max(largest, int(shifted.max(initial=0)))
            shifted -= np.uint32(1)  # zero becomes the largest
            smallest = min(smallest, int(shifted.min(initial=smallest)))
        return (smallest + 1) >> 24, largest >> 24


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
    hidden: tuple[NDArray[np.bool_], ...]


class SequentialScaling:
    """Determine freedoms one parameter after the other; repeated until nothing more can be determined.

    Those marked `late` wait for all others; then they go as near to their target as the lowest bits of their
    entries allow.
    """

    def __init__(
        self,
        model: Model,
        symmetry: Symmetry,
        measure: Measure,
        deferred: NDArray[np.bool_] | None = None,
        ranges: ExponentRanges | None = None,
    ) -> None:
        self.model, self.symmetry, self.measure = model, symmetry, measure
        self.ranges = ranges or ExponentRanges(model, symmetry)
        self.sites = {n: s for n, d in symmetry.exponents.items() if (s := scaled_axes(symmetry.scale, d))}
        self.t = np.zeros(symmetry.scale.count)
        self.known = ~symmetry.acting[0]
        self.deferred = np.zeros(symmetry.scale.count, bool) if deferred is None else deferred
        self.anchors: list[Anchor] = []
        vectors = {} if measure.exact else {name: self._vector(name) for name in self.sites}
        self.biases = {name: squares for name, squares in vectors.items() if squares is not None}

    def _vector(self, name: str) -> Floats | None:
        """The squares [2, freedoms] of the entries of a vector that one freedom alone multiplies, divides."""
        squares = self.symmetry.read(self.model, name).astype(np.float64).ravel() ** 2
        forms = self.sites[name][0].forms
        if len(self.sites[name]) > 1 or forms.shape[0] != len(squares):
            return None
        squares[np.diff(forms.indptr) != 1] = 0
        return np.stack([squares @ (forms == sign) for sign in (1, -1)])

    def run(self) -> Floats:
        """log2 exponent of every freedom."""
        while True:
            if sum(self._visit(name, partial=False) for name in self.sites):
                continue
            if not any(self._visit(name, partial=True) for name in self.sites):
                break
        self._settle_late()
        return self.t

    def left_alone(self) -> list[str]:
        """A note on what could not be determined."""
        return undetermined(self.known, self.sites, partial(self.symmetry.read, self.model), "scales")

    def _settle_late(self) -> None:
        """The late freedoms, those of one parameter after those of another."""
        for sites in self.sites.values():
            touched = np.zeros(len(self.t), bool)
            for site in sites:
                touched[site.forms.indices] = True
            group = touched & self.deferred & ~self.known
            if group.any():
                plus, minus = self.extents(self.t)
                target = np.where(np.isfinite(plus), -plus, np.where(np.isfinite(minus), minus, 0.0))
                up, down = self._slack(~self.known)
                nearest = np.where(
                    up + down < 0, np.floor((down - up) / 2), np.clip(target, -up, np.maximum(down, -up))
                )
                self.t[group] = nearest[group]
                self.known |= group

    def _slack(self, unknown: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """By how many powers of two the entries each freedom multiplies, and divides, may shrink before their
        lowest bit is lost; inf for none.

        Entries that two unknown freedoms act on do not count.
        """
        out = np.full((2, len(self.t)), np.inf)
        for name, sites in self.sites.items():
            array = self.symmetry.read(self.model, name)
            lowest = last_bit(array.astype(np.float64)) - LAST_BIT[array.dtype.itemsize]
            for site in sites:
                lowest = lowest + site.exponents(self.t)
            several = sum((site.open_count(~unknown) for site in sites), np.zeros(()))
            lowest = np.where(several <= 1, lowest, np.inf)
            for site in sites:
                rest = tuple(k for k, n in enumerate(site.shape) if n == 1 and lowest.shape[k] > 1)
                level = lowest.min(rest, keepdims=True, initial=np.inf).reshape(-1)
                entries = site.forms.tocoo()
                for side, chosen in enumerate((entries.data > 0, entries.data < 0)):
                    np.minimum.at(out[side], entries.col[chosen], level[entries.row[chosen]])
        return out[0], out[1]

    def extents(self, t: Floats) -> tuple[Floats, Floats]:
        """The exponents of the largest entries each freedom multiplies and divides; -inf for none."""
        out = np.full((2, len(t)), -np.inf)
        for name, sites in self.sites.items():
            values = np.abs(self.symmetry.read(self.model, name).astype(np.float64))
            for site in sites:
                values = values * np.exp2(site.exponents(t))
            for site in sites:
                level = self.measure.of_positions(values, site.shape)
                entries = site.forms.tocoo()
                for side, chosen in enumerate((entries.data > 0, entries.data < 0)):
                    np.maximum.at(out[side], entries.col[chosen], level[entries.row[chosen]])
        return out[0], out[1]

    def _visit(self, name: str, *, partial: bool) -> bool:
        """Solve what one parameter determines; `partial` skips entries whose other factors are unknown."""
        sites = self.sites[name]
        moved = False
        for site in sites:
            positions, freedoms, signs = site.solvable(self.known)
            wanted = ~self.deferred[freedoms]
            positions, freedoms, signs = positions[wanted], freedoms[wanted], signs[wanted]
            if not len(positions):
                continue
            others = [s for s in sites if s is not site]
            hidden = [s.open_positions(self.known) for s in others]
            if any(h.any() for h in hidden) and not partial:
                continue
            moved |= self._solve(name, site, others, hidden, positions, freedoms, signs)
        return moved

    def _solve(
        self,
        name: str,
        site: ScaledAxis,
        others: list[ScaledAxis],
        hidden: list[NDArray[np.bool_]],
        positions: Ids,
        freedoms: Ids,
        signs: Ids,
    ) -> bool:
        factors = [np.exp2(s.exponents(self.t)) * ~h for s, h in zip(others, hidden, strict=True)]
        factors.append(np.exp2(site.exponents(self.t * self.known)))
        level = self._levels(name, site, [factor for factor in factors if (factor != 1).any()])
        names, inverse = np.unique(freedoms, return_inverse=True)
        solved = np.zeros(len(names), bool)
        for side, sign in enumerate((1, -1)):  # where a freedom acts both ways, what it multiplies decides
            chosen = signs == sign
            size = self.measure.together(level[positions[chosen]], inverse[chosen], len(names))
            here = np.unique(inverse[chosen])
            for bias in (b for other, b in self.biases.items() if other != name):
                with np.errstate(divide="ignore"):
                    size[here] = 0.5 * np.log2(np.exp2(2 * size[here]) + bias[side, names[here]])
            fresh = np.isfinite(size) & ~solved
            self.t[names[fresh]] = -sign * size[fresh]
            solved |= fresh
            found = chosen & fresh[inverse]
            self.anchors.append(Anchor(name, site, positions[found], freedoms[found], sign, tuple(hidden)))
        self.known[names[solved]] = True
        return bool(solved.any())

    def _levels(self, name: str, site: ScaledAxis, factors: list[Floats]) -> Floats:
        """The size of the entries times factors at each position of a site."""
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


def exact_exponents(ranges: ExponentRanges, t: Floats) -> tuple[Floats, list[str]]:
    """Exponents with those taken back whose powers of two would overflow or lose bits to subnormals."""
    t = t.copy()
    held = 0
    while (lossy := lossy_freedoms(ranges, t) & (t != 0)).any():
        held += int(lossy.sum())
        t[lossy] = 0
    notes = (
        [f"{held} units keep their scale: a power of two would leave the range of their type"] if held else []
    )
    return t, notes


def lossy_freedoms(ranges: ExponentRanges, t: Floats) -> NDArray[np.bool_]:
    """The freedoms that act on an entry which the exponents t do not bring back exactly."""
    model, symmetry = ranges.model, ranges.symmetry
    lossy = np.zeros(len(t), bool)
    actions = symmetry.action(None, t).actions
    ranges.read(
        name for name, action in actions.items() if any((f != 1).any() for f in action.factor.values())
    )
    for name, action in actions.items():
        if ranges.stay_normal(name, [np.frexp(f)[1] - 1 for f in action.factor.values()]):
            continue
        array = symmetry.read(model, name)
        moved = action(array)
        with np.errstate(invalid="ignore"):
            wrong = (action.inverse()(moved) != array) & np.isfinite(array)
        if not wrong.any():
            continue
        for site in scaled_axes(symmetry.scale, symmetry.exponents[name]):
            rest = tuple(k for k, n in enumerate(site.shape) if n == 1 and wrong.shape[k] > 1)
            rows = np.flatnonzero(wrong.any(rest, keepdims=True).reshape(-1))
            lossy[site.forms[rows].indices] = True
    return lossy
