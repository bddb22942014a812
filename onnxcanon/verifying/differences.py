"""Differences between values of two models, against the noise of one of them.

For each value compared, over all runs r (a kind of inputs each):

    difference_r = max |a_r - b_r| / scale_r       scale_r = max |a_r|, or 1 for a probability
    floor_r      = max over twins n of max |a_r - n_r| / scale_r, n as `noise` makes them
    tolerance    = max(8 units in the last place, K * max floor_r)

A run says nothing where K * floor_r is above a cap: noise alone could hide anything there. Such a run still
counts against the models when the difference is above K * floor_r. A value that no run says anything about is
skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxcanon.arrays import Arrays
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


def noise_limits(coarsest: float, jumps: bool, rtol: float | None = None) -> NoiseLimits:
    """The limits for a model whose least precise type has the unit `coarsest`.

    The caps are what real models need: in single precision tolerances of 1e-6 to 9e-4 for all but outputs
    that nearly vanish, in half precision up to 3e-2, in quantized models up to 0.2.
    """
    if jumps:
        return NoiseLimits(FACTOR_JUMPS, (0.25,), rtol)
    if coarsest <= 2.0**-23:
        return NoiseLimits(FACTOR, (1e-3, 3e-2), rtol)
    return NoiseLimits(FACTOR, (0.05,) if coarsest <= 2.0**-10 else (0.2,), rtol)


@dataclass(frozen=True, slots=True)
class ComparedValue:
    """One value of each model to compare.

    Attributes:
        label: how reports name it: the output's name, with a remark for a value before it.
        a: the value's name in the first model.
        b: the same in the second.
        forget: for a value before a saturating operator, what that operator forgets.
        scores: for labels, the values before the ArgMax operators that decide them, of both models.
        bounded: whether its natural size is 1 (a probability).
    """

    label: str
    a: str
    b: str
    forget: Probe | None = None
    scores: tuple[tuple[Probe, Probe], ...] = ()
    bounded: bool = False

    def names(self, side: int) -> list[str]:
        """The values it needs of the first (0) or second (1) model."""
        return [self.b if side else self.a, *(pair[side].value for pair in self.scores)]


@dataclass(frozen=True, slots=True)
class PairedRun:
    """What one set of inputs led to: in the first model, the second, and the nudged twins of the first."""

    kind: str
    a: Arrays
    b: Arrays
    twins: tuple[Arrays, ...]


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


def compare(channel: ComparedValue, runs: Sequence[PairedRun], limits: NoiseLimits) -> OutputDifference | str:
    """Judges one channel over all runs; a sentence where nothing can be said about it."""
    first = runs[0].a[channel.a]
    if _is_discrete(first.dtype):
        return _judge(
            [_discrete(channel, run) for run in runs], runs, 0.0, NoiseLimits(limits.factor, (CAP_DISCRETE,))
        )
    normal = [_normalized(channel, run) for run in runs]
    if channel.forget is not None and any(a.shape != b.shape for a, b, _ in normal):
        return "the two models lay it out differently"
    if not any(np.isfinite(a).any() for a, _, _ in normal):
        return f"it is {'never finite' if any(a.size for a, _, _ in normal) else 'always empty'}"
    sizes = [_size(a) for a, _, _ in normal]
    usual = _FADED * float(np.median(sizes))
    rows = []
    for (a, b, twins), size in zip(normal, sizes, strict=True):
        scale = max(size, usual, 1.0 if channel.bounded else 0.0) or 1.0
        floor = max((difference(a, twin) for twin in twins), default=0.0)
        apart = difference(a, b)
        rows.append((apart, apart / scale, floor / scale))
    return _judge(rows, runs, 8 * max(unit(first.dtype), unit(np.dtype(np.float64))), limits)


def outputs_equal(a: Arrays, b: Arrays, tolerance: float) -> bool:
    """Whether two results agree by name, shape and, relative to each array's largest magnitude, value."""
    return a.keys() == b.keys() and all(
        difference(a[name], b[name]) <= tolerance * (_size(a[name]) or 1.0) for name in a
    )


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """max |a - b|; infinite where the shapes differ, or NaNs and infinities are not at the same places."""
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


def _judge(
    rows: Sequence[tuple[float, float, float]], runs: Sequence[PairedRun], base: float, limits: NoiseLimits
) -> OutputDifference | str:
    """The verdict from (absolute difference, relative difference, relative floor) of each run."""
    floors = [floor for _, _, floor in rows]
    for cap in limits.caps:
        telling = [limits.rtol is not None or limits.factor * floor <= cap for floor in floors]
        if any(telling):
            break
    floor = max((floor for floor, tells in zip(floors, telling, strict=True) if tells), default=0.0)
    tolerance = max(base, limits.factor * floor) if limits.rtol is None else limits.rtol
    allowed = [
        tolerance if tells else limits.factor * own for own, tells in zip(floors, telling, strict=True)
    ]
    # The run to report: the one furthest above what it is allowed, else the furthest apart that says
    # something.
    excess = [row[1] - limit if row[1] > limit else 0.0 for row, limit in zip(rows, allowed, strict=True)]
    if not any(excess) and not any(telling):
        return f"rounding alone moves it by {min(floors):.1e} of its size"
    quiet = [row[1] if tells else -1.0 for row, tells in zip(rows, telling, strict=True)]
    worst = int(np.argmax(excess if any(excess) else quiet))
    if not telling[worst]:
        floor, tolerance = floors[worst], allowed[worst]
    return OutputDifference(
        not any(excess), rows[worst][0], rows[worst][1], floor, tolerance, runs[worst].kind
    )


def _normalized(channel: ComparedValue, run: PairedRun) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    values = run.a[channel.a], run.b[channel.b], *(twin[channel.a] for twin in run.twins)
    forget = channel.forget
    a, b, *twins = (_wide(value if forget is None else forget.normal(value)) for value in values)
    return a, b, twins


def _discrete(channel: ComparedValue, run: PairedRun) -> tuple[float, float, float]:
    """Shares of entries that differ: labels decided by a near tie are equal."""
    share = _labels_apart(channel, run, run.b, 1)
    floor = max((_labels_apart(channel, run, twin, 0) for twin in run.twins), default=0.0)
    return (difference(run.a[channel.a], run.b[channel.b]) if share else 0.0), share, floor


def _labels_apart(channel: ComparedValue, run: PairedRun, other: Arrays, side: int) -> float:
    """The share of labels that differ from those of the second model (side 1) or of a twin (side 0)."""
    a, b = run.a[channel.a], other[channel.b if side else channel.a]
    if a.shape != b.shape:
        return float("inf")
    apart = np.count_nonzero(a != b)
    if apart and apart == sum(_flips(pair[0], pair[side], run, other) for pair in channel.scores):
        return 0.0
    return apart / a.size if apart else 0.0


def _flips(tap: Probe, twin: Probe, run: PairedRun, other: Arrays) -> int:
    """How many labels of one ArgMax differ, if all by near ties (scores as close as their noise); else 0."""
    sign = -1.0 if tap.op_type == "ArgMin" else 1.0
    values = run.a[tap.value], other[twin.value], *(nudged[tap.value] for nudged in run.twins)
    a, b, *twins = (sign * tap.normal(scores) for scores in values)
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return 0
    # Scores are in units of their own deviation; each of the two may move by the noise.
    noise = max([8 * unit(np.dtype(np.float32)), *(FACTOR * difference(a, nudged) for nudged in twins)])
    best_a, best_b = (np.expand_dims(scores.argmax(tap.axis), tap.axis) for scores in (a, b))
    gap = np.take_along_axis(a, best_a, tap.axis) - np.take_along_axis(a, best_b, tap.axis)
    return int(np.count_nonzero(best_a != best_b)) if gap.max(initial=0.0) <= 2 * noise else 0


def _size(a: np.ndarray) -> float:
    a = _wide(a)
    return float(np.abs(a[np.isfinite(a)]).max(initial=0.0))


def _wide(a: np.ndarray) -> np.ndarray:
    return a if a.dtype.kind == "c" else a.astype(np.float64)


def _is_discrete(dtype: np.dtype) -> bool:
    """Labels, indices and text; eight-bit integers are quantized numbers."""
    return dtype.kind in "bOSUT" or (dtype.kind in "iu" and dtype.itemsize > 1)
