"""Loss and error along the path between two models, and the barrier that stands there.

With L(a) the loss (or the error) at θ(a), θ(0) = A and θ(1) = B, three barriers are in use, each the supremum
over the points of the curve:

    barrier         L(a) - [(1-a) L(A) + a L(B)]    above the line between the ends (Entezari et al. 2022)
    barrier_mean    L(a) - [L(A) + L(B)] / 2        above the mean of the ends (Frankle et al. 2020)
    barrier_worse   L(a) - max(L(A), L(B))          above the worse end

The ends are points of the curve, measured like all others: where every point is repaired, so are they. The
first and the last barrier are therefore never negative.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxcanon.alignment import align
from onnxcanon.arrays import Floats
from onnxcanon.choices import PATH_ALIGNERS, REPAIRS, PathAligner, Repair
from onnxcanon.errors import OnnxcanonError, check_choice
from onnxcanon.landscape.paths import LINEAR, PATHS, Path, cache_replacements, path
from onnxcanon.merging.averaging import expressed_in
from onnxcanon.merging.repair import NONE as NO_REPAIR
from onnxcanon.merging.repair import RESCALE, RESET, Rescaler, reset_bn
from onnxcanon.model import Model
from onnxcanon.results import Brief, Result, curves_html
from onnxcanon.runtime.evaluation import Evaluation, Evaluator
from onnxcanon.runtime.weights.on_device import DeviceLine, line_fits_device
from onnxcanon.settings import Settings
from onnxcanon.symmetry import symmetry
from onnxcanon.text import table

ABOVE = {"": "the line between the ends", "_mean": "the mean of the ends", "_worse": "the worse end"}
"""What a barrier is measured from, by the end of its name."""

NONE = "none"
POINTS = 25

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, repr=False)
class Curve(Brief):
    """What was measured along a path.

    Attributes:
        alphas: where, from 0 to 1.
        loss: the mean loss at each point.
        accuracy: the accuracy at each; None for regression.
    """

    alphas: tuple[float, ...]
    loss: tuple[float, ...]
    accuracy: tuple[float, ...] | None

    @property
    def error(self) -> tuple[float, ...] | None:
        """The share of labels that are not the likeliest class, at each point."""
        return None if self.accuracy is None else tuple(1 - share for share in self.accuracy)

    @property
    def levels(self) -> dict[str, tuple[float, ...]]:
        """What there is at each point, by name."""
        found = {"loss": self.loss, "accuracy": self.accuracy, "error": self.error}
        return {name: level for name, level in found.items() if level is not None}

    @property
    def barrier_loss(self) -> float:
        """How far the loss rises above the line between the ends."""
        return _above_line(self.alphas, self.loss)

    @property
    def barrier_error(self) -> float | None:
        """How far the error rises above the line between the ends."""
        return None if self.error is None else _above_line(self.alphas, self.error)

    @property
    def barrier_loss_mean(self) -> float:
        """How far the loss rises above the mean of the ends."""
        return _above_mean(self.loss)

    @property
    def barrier_error_mean(self) -> float | None:
        """How far the error rises above the mean of the ends."""
        return None if self.error is None else _above_mean(self.error)

    @property
    def barrier_loss_worse(self) -> float:
        """How far the loss rises above that of the worse end."""
        return _above_worse(self.loss)

    @property
    def barrier_error_worse(self) -> float | None:
        """How far the error rises above that of the worse end."""
        return None if self.error is None else _above_worse(self.error)

    def to_json(self) -> dict[str, Any]:
        """The curve and its barriers, as JSON values."""
        return {
            "alphas": list(self.alphas),
            "loss": list(self.loss),
            "accuracy": None if self.accuracy is None else list(self.accuracy),
            **{name: getattr(self, name) for name in BARRIERS},
        }


BARRIERS = tuple(f"barrier_{what}{suffix}" for what in ("loss", "error") for suffix in ABOVE)
"""The barriers of a curve by name."""


@dataclass(frozen=True, slots=True, repr=False)
class Barrier(Curve, Result):
    """What stands between two models: the curve between them as they are, and the one after alignment.

    Attributes:
        a: the model at 0.
        b: the model at 1.
        path: the kind of path.
        align: how `b` was aligned to `a` for the second curve.
        repair: how every point was repaired.
        measure: what the loss is.
        samples: the number of labels.
        device: where the models ran.
        aligned: the curve from `a` to the aligned `b`; None if that was not asked for.
    """

    a: str
    b: str
    path: str
    align: str
    repair: str
    measure: str
    samples: int
    device: str
    aligned: Curve | None

    @property
    def curves(self) -> dict[str, Curve]:
        """Both curves by name."""
        return {"before": self} if self.aligned is None else {"before": self, "aligned": self.aligned}

    def to_json(self) -> dict[str, Any]:
        """Both curves as JSON values."""
        told = ("a", "b", "path", "align", "repair", "measure", "samples", "device")
        return {
            **{name: getattr(self, name) for name in told},
            **Curve.to_json(self),
            "aligned": None if self.aligned is None else self.aligned.to_json(),
        }

    def to_csv(self) -> str:
        """A line for each point under a line of names, with commas."""
        columns: dict[str, tuple[float, ...]] = {"alpha": self.alphas}
        for name, curve in self.curves.items():
            prefix = "" if curve is self else f"{name}_"
            columns |= {f"{prefix}{what}": level for what, level in curve.levels.items()}
        lines = [",".join(columns)]
        lines += [",".join(f"{x:.10g}" for x in row) for row in zip(*columns.values(), strict=True)]
        return "\n".join(lines) + "\n"

    def __str__(self) -> str:
        names = [(what, name) for name in self.curves for what in self.levels if what != "accuracy"]
        rows = [["barrier", *(f"{what} {name}" for what, name in names)]]
        for suffix, told in ABOVE.items():
            found = (getattr(self.curves[name], f"barrier_{what}{suffix}") for what, name in names)
            rows.append([f"above {told}", *(f"{height:.4f}" for height in found)])
        how = "" if self.aligned is None else f", B aligned by {self.align}"
        how += "" if self.repair == NO_REPAIR else f", every point repaired by {self.repair}"
        lines = [
            f"A  {self._end(0)}  {self.a}",
            f"B  {self._end(-1)}  {self.b}",
            f"{self.path} path: {len(self.alphas)} points, {self.samples:,} labels{how}",
        ]
        return "\n".join([*lines, "", table(rows, right=set(range(1, len(rows[0]))))])

    def _repr_html_(self) -> str:
        losses = {f"{self.measure} {name}": curve.loss for name, curve in self.curves.items()}
        return curves_html(self.alphas, losses) + Result._repr_html_(self)

    def _end(self, k: int) -> str:
        right = "" if self.accuracy is None else f"accuracy {self.accuracy[k]:.4f}  "
        return f"{right}{self.measure} {self.loss[k]:.6g}"


def barrier(
    a: Model,
    b: Model,
    *,
    kind: str = LINEAR,
    points: int = POINTS,
    method: PathAligner = "weights",
    repair: Repair = "none",
    repair_data: Mapping[str, np.ndarray] | None = None,
    output: str | None = None,
    batch: int = 256,
    settings: Settings,
) -> Barrier:
    """Loss and error along the path from `a` to `b`, and to `b` aligned to `a`.

    Args:
        a: the model at 0.
        b: the model at 1, of the same structure.
        kind: `linear` or `geodesic`.
        points: how many points, evenly from 0 to 1, ends included.
        method: how `b` is aligned to `a`; `none` leaves the second curve out.
        repair: how every point, ends included, is repaired before it is measured: one of `REPAIRS`.
        repair_data: inputs by name that statistics are measured on; by default those of `data`.
        output: the output to judge, by name; by default the first.
        batch: how many examples run at a time where the model takes any number.
        settings: the data is inputs by name and the labels `y`; alignment runs models on it, too.

    Raises:
        OnnxcanonError: the models have different structures, the data does not fit, there is no such path,
            method or repair, or there are fewer than two points.
        RuntimeUnavailableError: a model does not run.
    """
    for what, choice, choices in (
        ("path", kind, PATHS),
        ("alignment", method, PATH_ALIGNERS),
        ("repair", repair, REPAIRS),
    ):
        check_choice(what, choice, choices)
    if points < 2:
        raise OnnxcanonError("a path has two ends; give two points or more")
    say = settings.progress
    ends = {"before": expressed_in(a, b)}
    evaluate = Evaluator(a, Settings(device=settings.device, data=settings.data), output=output, batch=batch)
    if method != "none":
        say(f"aligning {b.name}")
        aligned = align(a, b, method=method, scale="norms", settings=settings)
        ends["aligned"] = expressed_in(a, aligned.model)
    group = None if kind == LINEAR else symmetry(a, settings.sizes)
    alphas = tuple(float(x) for x in np.linspace(0, 1, points))
    measured_on = settings.data if repair_data is None else repair_data
    evaluation = _PointEvaluation(evaluate, repair, Settings(device=settings.device, data=measured_on))
    measured: dict[str, list[Evaluation]] = {}
    for name, end in ends.items():
        with ExitStack() as stack:
            stays = kind == LINEAR and repair == NO_REPAIR and line_fits_device(a, end, settings.device)
            along = path(kind, a, end, group)
            at = evaluation.on_device(a, end, stack) if stays else evaluation.swapped(along)
            measured[name] = []
            for k, alpha in enumerate(alphas, 1):
                say(f"{name}: point {k} of {points}")
                measured[name].append(at(alpha))
    one = measured["before"][0]
    return Barrier(
        alphas,
        *_levels(measured["before"]),
        a=a.name,
        b=b.name,
        path=kind,
        align=method,
        repair=repair,
        measure=one.measure,
        samples=one.samples,
        device=one.device,
        aligned=Curve(alphas, *_levels(measured["aligned"])) if "aligned" in measured else None,
    )


@dataclass(frozen=True, slots=True)
class _PointEvaluation:
    """How points are repaired and judged; the attributes are as for `barrier`."""

    evaluate: Evaluator
    repair: str
    quiet: Settings

    def swapped(self, along: Path) -> Callable[[float], Evaluation]:
        """What is found at each point of a path, in sessions that are given its weights."""
        fixed = self._repairer(along)
        return lambda alpha: self.evaluate(fixed(along(alpha), alpha))

    def on_device(self, a: Model, b: Model, stack: ExitStack) -> Callable[[float], Evaluation]:
        """The same for the straight line, with weights that stay on the device until the stack is left."""
        mix = stack.enter_context(DeviceLine(a, b, device=self.quiet.device, optimize=True))
        return lambda alpha: self.evaluate.in_session(a, mix.at(alpha))

    def _repairer(self, along: Path) -> Callable[[Model, float], Model]:
        """What is done to the model of a point; endpoints that are measured are measured once."""
        if self.repair == RESET:
            return lambda model, _: cache_replacements(reset_bn(model, self.quiet).model)
        if self.repair == RESCALE:
            rescale = Rescaler((along(0), along(1)), self.quiet)
            return lambda model, alpha: cache_replacements(
                rescale(cache_replacements(model), (1 - alpha, alpha)).model
            )
        return lambda model, _: model


def _levels(found: list[Evaluation]) -> tuple[tuple[float, ...], tuple[float, ...] | None]:
    """Losses and accuracies."""
    right = tuple(one.accuracy for one in found if one.accuracy is not None)
    return tuple(one.loss for one in found), right or None


def _above_line(alphas: tuple[float, ...], level: tuple[float, ...]) -> float:
    a, values = np.asarray(alphas), np.asarray(level)
    return _top(values - ((1 - a) * values[0] + a * values[-1]))


def _above_mean(level: tuple[float, ...]) -> float:
    return _top(np.asarray(level) - (level[0] + level[-1]) / 2)


def _above_worse(level: tuple[float, ...]) -> float:
    return _top(np.asarray(level) - max(level[0], level[-1]))


def _top(values: Floats) -> float:
    """The largest; not a number if one is none."""
    return float(values.max())
