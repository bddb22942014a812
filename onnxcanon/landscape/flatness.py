"""Flatness: how much loss and error rise, on average, under noise on the normalized weights.

The local energy of Pittorino et al. 2022: with the weights in the scale `unit` and z standard normal,

    δE(σ) = E_z[ E(w + σ w⊙z) ] - E(w)

The noise is in proportion to each weight, and the scale is chosen first, so that two models of one function
are equally flat. Statistics that a normalization has measured, and data, are left as they are.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.comparison.metrics import wide
from onnxcanon.errors import OnnxcanonError
from onnxcanon.landscape.paths import cache_replacements
from onnxcanon.landscape.spheres import unit_scale
from onnxcanon.model import Model
from onnxcanon.results import Result
from onnxcanon.runtime.evaluation import Evaluation, Evaluator
from onnxcanon.settings import Settings
from onnxcanon.symmetry import symmetry
from onnxcanon.text import table
from onnxcanon.weights import learned_names

SIGMAS = (0.05, 0.1, 0.2, 0.5)
DRAWS = 10


@dataclass(frozen=True, slots=True)
class NoiseEffect:
    """How much worse a model is under noise of one strength.

    Attributes:
        sigma: the noise, relative to each weight.
        loss: the mean rise of the loss over all draws.
        loss_stderr: the standard error of that mean.
        error: the mean rise of the error; None for regression.
        error_stderr: the standard error of that mean.
    """

    sigma: float
    loss: float
    loss_stderr: float
    error: float | None
    error_stderr: float | None


@dataclass(frozen=True, slots=True, repr=False)
class Flatness(Result):
    """The rise of loss and error around a model.

    Attributes:
        model: the model.
        loss: its loss.
        accuracy: its accuracy; None for regression.
        measure: what the loss is.
        samples: the number of labels.
        device: where it ran.
        draws: how often noise was drawn for each strength.
        seed: what it was drawn from.
        rises: one for each strength.
    """

    model: str
    loss: float
    accuracy: float | None
    measure: str
    samples: int
    device: str
    draws: int
    seed: int
    rises: tuple[NoiseEffect, ...]

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON values."""
        return {**asdict(self), "rises": [asdict(rise) for rise in self.rises]}

    def __str__(self) -> str:
        right = "" if self.accuracy is None else f"accuracy {self.accuracy:.4f}  "
        head = f"{right}{self.measure} {self.loss:.6g}  {self.samples:,} labels  {self.model}"
        rows = [("noise", "rise of the loss", "rise of the error")]
        for rise in self.rises:
            error = "" if rise.error is None else f"{rise.error:.4f} ± {rise.error_stderr:.4f}"
            rows.append((f"{rise.sigma:g}", f"{rise.loss:.4f} ± {rise.loss_stderr:.4f}", error))
        return (
            f"{head}\n\n{table(rows, right={0, 1, 2})}\n\nmeans of {self.draws} draws ± their standard errors"
        )


def flatness(
    model: Model,
    *,
    sigmas: Sequence[float] = SIGMAS,
    draws: int = DRAWS,
    output: str | None = None,
    batch: int = 256,
    settings: Settings,
) -> Flatness:
    """The mean rise of loss and error under noise of several strengths.

    Args:
        model: the model.
        sigmas: the strengths, relative to each weight.
        draws: how often noise is drawn for each, two times or more. The k-th draw is the same noise at every
            strength.
        output: the output to judge, by name; by default the first.
        batch: how many examples run at a time where the model takes any number.
        settings: the data is inputs by name and the labels `y`; training data, for the measure of the paper.
            Noise is drawn from the seed and the names of the tensors.

    Raises:
        OnnxcanonError: the data does not fit, a strength is negative, or there are fewer than two draws.
        RuntimeUnavailableError: the model does not run.
    """
    if draws < 2 or not all(0 <= sigma < np.inf for sigma in sigmas):
        raise OnnxcanonError("noise has a finite strength of 0 or more, and is drawn two times or more")
    say = settings.progress
    group = symmetry(model, settings.sizes)
    scaled = cache_replacements(unit_scale(model, group).apply(model))
    names = learned_names(model, group)
    evaluate = Evaluator(
        model, Settings(device=settings.device, data=settings.data), output=output, batch=batch
    )
    reference = evaluate(scaled)
    rises = []
    for sigma in sigmas:
        evaluations = []
        for draw in range(draws):
            say(f"noise {sigma:g}: draw {draw + 1} of {draws}")
            noisy = {name: partial(_noisy, scaled, name, sigma, (settings.seed, draw)) for name in names}
            evaluations.append(evaluate(scaled.with_tensors(noisy)))
        rises.append(_rise(sigma, reference, evaluations))
    quiet = (reference.loss, reference.accuracy, reference.measure, reference.samples, reference.device)
    return Flatness(model.name, *quiet, draws, settings.seed, tuple(rises))


def _noisy(model: Model, name: str, sigma: float, seed: tuple[int, ...]) -> NDArray[Any]:
    """w + σ w⊙z for one tensor."""
    array = model.tensor(name)
    rng = np.random.default_rng([*seed, zlib.crc32(name.encode())])
    noise = rng.standard_normal(array.shape)
    with np.errstate(over="ignore"):  # too much noise for the type is infinite
        return np.asarray(wide(array) * (1 + sigma * noise)).astype(array.dtype)


def _rise(sigma: float, reference: Evaluation, evaluations: Sequence[Evaluation]) -> NoiseEffect:
    loss = _mean([noisy.loss - reference.loss for noisy in evaluations])
    if reference.error is None:
        return NoiseEffect(sigma, *loss, None, None)
    errors = [noisy.error - reference.error for noisy in evaluations if noisy.error is not None]
    return NoiseEffect(sigma, *loss, *_mean(errors))


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
