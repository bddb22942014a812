"""Differences between values of two models, against the noise of one of them.

For each value compared, over all runs r (a kind of inputs each):

    difference_r = max |a_r - b_r| / scale_r       scale_r = max |a_r|, or 1 for a probability
    floor_r      = max over noisy reruns n of max |a_r - n_r| / scale_r, n as `noise` makes them
    tolerance    = max(8 units in the last place, K * max floor_r)

A run says nothing where K * floor_r is above a cap: noise alone could hide anything there. Such a run still
counts against the models when the difference is above K * floor_r. A value that no run says anything about is
skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxcanon.arrays import Array, Arrays
from onnxcanon.verifying.compared_values import ComparedValue
from onnxcanon.verifying.noise import unit
from onnxcanon.verifying.probes import Probe

# What the floor is multiplied with: 2.5 was the most seen among equal models. The moves of `noise` for models
# that jump are a thousand times larger than rounding, so there the floor is an upper bound already.
FACTOR, FACTOR_JUMPS = 8.0, 1.0
# Labels and indices: the share of entries that may differ where noise alone makes them differ.
CAP_DISCRETE = 0.1
# Magnitudes of an output differ between inputs; where it nearly vanishes, its usual size is the measure.
_FADED = 1e-3


@dataclass(frozen=True, slots=True)
class NoiseLimits:
    """How much is noise.

    Attributes:
        factor: what floors are multiplied with.
        caps: the largest tolerance that still counts as evidence; the next one where no run is below the
            first.
        rtol: the caller's own tolerance for floating values, instead of a measured one.
    """

    factor: float
    caps: tuple[float, ...]
    rtol: float | None = None


def noise_limits(coarsest: float, rounds: bool, rtol: float | None = None) -> NoiseLimits:
    """The limits for a model whose least precise type has the unit `coarsest`.

    The caps are what real models need: in single precision tolerances of 1e-6 to 9e-4 for all but outputs
    that nearly vanish, in half precision up to 3e-2, in quantized models up to 0.2.
    """
    if rounds:
        return NoiseLimits(FACTOR_JUMPS, (0.25,), rtol)
    if coarsest <= 2.0**-23:
        return NoiseLimits(FACTOR, (1e-3, 3e-2), rtol)
    return NoiseLimits(FACTOR, (0.05,) if coarsest <= 2.0**-10 else (0.2,), rtol)


@dataclass(frozen=True, slots=True)
class PairedRun:
    """What one set of inputs led to: in the first model, the second, and the noisy reruns of the first."""

    kind: str
    a: Arrays
    b: Arrays
    reruns: tuple[Arrays, ...]


@dataclass(frozen=True, slots=True)
class OutputDifference:
    """How far a value of the second model is from the first's, in units of the value's size.

    For labels and indices the relative numbers are shares of entries instead.
    """

    same: bool
    max_abs_difference: float
    max_relative_difference: float
    noise_floor: float
    tolerance: float
    kind: str


def compare(value: ComparedValue, runs: Sequence[PairedRun], limits: NoiseLimits) -> OutputDifference | str:
    """Judges one value over all runs; a sentence where nothing can be said about it."""
    first = runs[0].a[value.a]
    if _is_discrete(first.dtype):
        return _verdict(
            [_discrete(value, run) for run in runs], runs, 0.0, NoiseLimits(limits.factor, (CAP_DISCRETE,))
        )
    normal = [_normalized(value, run) for run in runs]
    if value.forget is not None and any(a.shape != b.shape for a, b, _ in normal):
        return "the two models lay it out differently"
    if not any(np.isfinite(a).any() for a, _, _ in normal):
        return f"it is {'never finite' if any(a.size for a, _, _ in normal) else 'always empty'}"
    sizes = [_size(a) for a, _, _ in normal]
    usual = _FADED * float(np.median(sizes))
    rows = []
    for (a, b, reruns), size in zip(normal, sizes, strict=True):
        scale = max(size, usual, 1.0 if value.bounded else 0.0) or 1.0
        floor = max((difference(a, rerun) for rerun in reruns), default=0.0)
        apart = difference(a, b)
        rows.append((apart, apart / scale, floor / scale))
    return _verdict(rows, runs, 8 * max(unit(first.dtype), unit(np.dtype(np.float64))), limits)


def difference(a: Array, b: Array) -> float:
    """max |a - b|; infinite where the shapes differ, or NaNs and infinities are not at the same places.

    >>> difference(np.array([1.0, np.inf]), np.array([1.5, np.inf]))
    0.5
    >>> difference(np.array([1.0, np.inf]), np.array([1.5, 2.0]))
    inf
    """
    if a.shape != b.shape:
        return float("inf")
    if a.dtype.kind in "OSUT":
        return float(np.any(a != b))
    a, b = _wide(a), _wide(b)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(
        a[~finite], b[~finite], equal_nan=True
    ):
        return float("inf")
    return float(np.abs(a[finite] - b[finite]).max(initial=0.0))


def _verdict(
    rows: Sequence[tuple[float, float, float]], runs: Sequence[PairedRun], base: float, limits: NoiseLimits
) -> OutputDifference | str:
    """The verdict from (absolute difference, relative difference, relative floor) of each run."""
    floors = [floor for _, _, floor in rows]
    # A run is evidence where noise hides little: below the strictest cap that leaves any run. Outputs that
    # nearly vanish are noisier than the first cap in every run, and are judged by the next.
    for cap in limits.caps:
        evidence = [limits.rtol is not None or limits.factor * floor <= cap for floor in floors]
        if any(evidence):
            break
    floor = max((floor for floor, counts in zip(floors, evidence, strict=True) if counts), default=0.0)
    tolerance = max(base, limits.factor * floor) if limits.rtol is None else limits.rtol
    # A run that is no evidence of equality still is of a difference beyond its own noise.
    allowed = [
        tolerance if counts else limits.factor * own for own, counts in zip(floors, evidence, strict=True)
    ]
    # The run to report: the one furthest above what it is allowed, else the furthest apart that says
    # something.
    excess = [row[1] - limit if row[1] > limit else 0.0 for row, limit in zip(rows, allowed, strict=True)]
    if not any(excess) and not any(evidence):
        return f"rounding alone moves it by {min(floors):.1e} of its size"
    quiet = [row[1] if counts else -1.0 for row, counts in zip(rows, evidence, strict=True)]
    worst = int(np.argmax(excess if any(excess) else quiet))
    if not evidence[worst]:
        floor, tolerance = floors[worst], allowed[worst]
    return OutputDifference(
        not any(excess), rows[worst][0], rows[worst][1], floor, tolerance, runs[worst].kind
    )


def _normalized(value: ComparedValue, run: PairedRun) -> tuple[Array, Array, list[Array]]:
    arrays = run.a[value.a], run.b[value.b], *(rerun[value.a] for rerun in run.reruns)
    forget = value.forget
    a, b, *reruns = (_wide(array if forget is None else forget.normal(array)) for array in arrays)
    return a, b, reruns


def _discrete(value: ComparedValue, run: PairedRun) -> tuple[float, float, float]:
    """Shares of entries that differ: labels decided by a near tie are equal."""
    share = _labels_apart(value, run, run.b, 1)
    floor = max((_labels_apart(value, run, rerun, 0) for rerun in run.reruns), default=0.0)
    return (difference(run.a[value.a], run.b[value.b]) if share else 0.0), share, floor


def _labels_apart(value: ComparedValue, run: PairedRun, other: Arrays, side: int) -> float:
    """The share of labels that differ from those of the second model (side 1) or a noisy rerun (side 0)."""
    a, b = run.a[value.a], other[value.b if side else value.a]
    if a.shape != b.shape:
        return float("inf")
    apart = np.count_nonzero(a != b)
    if apart and apart == sum(_flips(pair[0], pair[side], run, other) for pair in value.scores):
        return 0.0
    return apart / a.size if apart else 0.0


def _flips(probe: Probe, other_probe: Probe, run: PairedRun, other: Arrays) -> int:
    """How many labels of one ArgMax differ, if all by near ties (scores as close as their noise); else 0."""
    sign = -1.0 if probe.op_type == "ArgMin" else 1.0
    values = run.a[probe.value], other[other_probe.value], *(rerun[probe.value] for rerun in run.reruns)
    a, b, *reruns = (sign * probe.normal(scores) for scores in values)
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return 0
    # Scores are in units of their own deviation; each of the two may move by the noise.
    noise = max([8 * unit(np.dtype(np.float32)), *(FACTOR * difference(a, rerun) for rerun in reruns)])
    best_a, best_b = (np.expand_dims(scores.argmax(probe.axis), probe.axis) for scores in (a, b))
    gap = np.take_along_axis(a, best_a, probe.axis) - np.take_along_axis(a, best_b, probe.axis)
    return int(np.count_nonzero(best_a != best_b)) if gap.max(initial=0.0) <= 2 * noise else 0


def _size(a: Array) -> float:
    a = _wide(a)
    return float(np.abs(a[np.isfinite(a)]).max(initial=0.0))


def _wide(a: Array) -> Array:
    return a if a.dtype.kind == "c" else a.astype(np.float64)


def _is_discrete(dtype: np.dtype) -> bool:
    """Labels, indices and text; eight-bit integers are quantized numbers."""
    return dtype.kind in "bOSUT" or (dtype.kind in "iu" and dtype.itemsize > 1)
