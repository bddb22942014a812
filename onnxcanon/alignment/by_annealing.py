"""Simulated annealing: exchanges of single units, judged by the loss of the average.

Entezari et al. (2022), started from weight matching. A step exchanges two components of an orbit, nested
orbits included; one that raises the loss by Δ is taken with the probability exp(-Δ / T). The temperature T
starts at a part of the median by which exchanges change the loss, and falls geometrically. The best state
that was seen is the result, so on the data that was looked at it is never worse than weight matching.

The loss is that of evaluation where the data has labels, else the mean squared difference to the mean of what
the models say. A step is cheap (`annealing_state`). Any number of models may move at once, and what the
average will be repaired by may be a part of the graph that judges it; of two models that are aligned, one
moves, and nothing is repaired.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxcanon.alignment.annealing_state import AnnealingState, GraphRepair, MovingModel, inverse
from onnxcanon.alignment.by_weights import match_weights
from onnxcanon.alignment.capture import capture_values
from onnxcanon.alignment.frame import Frame
from onnxcanon.alignment.method import MethodResult, data_for
from onnxcanon.arrays import Arrays, Ids
from onnxcanon.errors import OnnxcanonError
from onnxcanon.runtime.evaluation import LABELS, Evaluator, labels_of
from onnxcanon.runtime.session_values import SessionValue
from onnxcanon.runtime.sessions import Session
from onnxcanon.settings import Settings

STEPS = 1000
"""Exchanges that are tried."""

PROBES = 32
"""Exchanges that are tried first, and taken back, to set the temperature."""

HEAT = 0.1
"""The first temperature as a part of what an exchange changes: weight matching is a start worth keeping."""

COOLING = 1e-2
"""The last temperature as a part of the first."""

EXAMPLES = 256
"""How many examples the loss is taken of, for each model that moves: the more may move, the more fits."""

NOTHING_MOVES = "no exchange of units can be tried one by one: they were matched by weights alone"


def by_annealing(frame: Frame, settings: Settings) -> MethodResult:
    """The element of the lowest loss of the average of both models that was seen, from weight matching on.

    Raises:
        OnnxcanonError: there is no data, or it does not fit.
        RuntimeUnavailableError: a model does not run.
    """
    data_for("annealing", settings)
    matching = frame.matching()
    return anneal([MovingModel(frame, matching, match_weights(matching, settings), 0.5)], settings)[0]


def anneal(
    moving_models: Sequence[MovingModel], settings: Settings, repair: GraphRepair | None = None
) -> list[MethodResult]:
    """The elements of the lowest loss that was seen of the average of a reference and all that move.

    Args:
        moving_models: the models that move, with one reference.
        settings: data, seed and device.
        repair: what is done to every average before it is judged.

    Raises:
        OnnxcanonError: there is no data, or it does not fit.
        RuntimeUnavailableError: a model does not run.
    """
    data, frame = data_for("annealing", settings), moving_models[0].frame
    rng = np.random.default_rng(settings.seed)
    average = AnnealingState(moving_models, () if repair is None else repair.companions)
    starts = [moving.start for moving in moving_models]
    if not average.swap_sets:
        return [MethodResult(element, (NOTHING_MOVES,)) for element in starts]
    some = _sample(_with_labels(moving_models, data, settings.device), EXAMPLES * len(moving_models), rng)
    with closing(average.session(settings.device, repair)) as session:
        evaluator = Evaluator(frame.reference, Settings(data=some), batch=len(labels_of(some)))
        fed = SessionWithWeights(session, average.inputs)

        def loss() -> float:
            return evaluator.in_session(frame.reference, fed).loss

        first = loss()
        images = _images(average, loss, first, rng, settings)
        found = [e.then(frame.ours.action(image)) for e, image in zip(starts, images, strict=True)]
        average.put(found)
        if loss() > first:  # an exchange of rows was not what the group makes of it
            found = starts
    return [MethodResult(element) for element in found]


def _images(
    average: AnnealingState,
    loss: Callable[[], float],
    first_loss: float,
    rng: np.random.Generator,
    settings: Settings,
) -> list[Ids]:
    """The image of every unit class of each model in the best state."""
    changes = []
    for _ in range(PROBES):
        swap = average.draw(rng)
        average.exchange(*swap)
        changes.append(abs(loss() - first_loss))
        average.exchange(*swap)
    first = HEAT * float(np.median(changes))
    current = best = first_loss
    kept = average.source.copy()
    for step in range(STEPS):
        if step % 50 == 0:
            settings.progress(f"annealing, step {step} of {STEPS}: loss {best:.6g}")
        temperature = first * COOLING ** (step / STEPS)
        swap = average.draw(rng)
        average.exchange(*swap)
        now = loss()
        if now > current and rng.random() >= _chance(now - current, temperature):
            average.exchange(*swap)
            continue
        current = now
        if current < best:
            best, kept = current, average.source.copy()
    return [average.symmetry.solution.extend(inverse(source)) for source in kept]


def _chance(rise: float, temperature: float) -> float:
    """With which probability a step that raises the loss is taken."""
    return float(np.exp(-rise / temperature)) if temperature > 0 else 0.0


@dataclass(frozen=True, slots=True)
class SessionWithWeights:
    """A session that is given some inputs again and again."""

    session: Session
    inputs: Arrays

    @property
    def device(self) -> str:
        """Where it runs."""
        return self.session.device

    @property
    def outputs(self) -> tuple[SessionValue, ...]:
        """What it returns."""
        return self.session.outputs

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """The outputs by name."""
        return self.session.run({**inputs, **self.inputs})


def _with_labels(
    moving_models: Sequence[MovingModel], data: Mapping[str, np.ndarray], device: str
) -> Mapping[str, np.ndarray]:
    """The data with labels; where it has none, with the mean of what the models say."""
    if LABELS in data:
        return data
    reference = moving_models[0].frame.reference
    output = reference.ir.graph.outputs[0].name or ""
    models = [
        moving_models[0].frame.models[0],
        *(moving.frame.models[1] for moving in moving_models),
    ]
    weights = [
        1 - sum(moving.weight for moving in moving_models),
        *(moving.weight for moving in moving_models),
    ]
    means = [
        sum(weight * said[output] for weight, said in zip(weights, each, strict=True))
        for each in capture_values(models, [output], data, device=device)
    ]
    if not np.ndim(means[0]):
        raise OnnxcanonError(f"{reference.name}: output '{output}' says nothing of single examples")
    labels = np.concatenate(means)
    names = {value.name for value in reference.ir.graph.inputs}
    inputs = {name: np.asarray(array) for name, array in data.items() if name in names}
    rows = max((len(array) for array in inputs.values() if array.ndim), default=0)
    # What fills no whole set, where the model takes a fixed number of examples, has not run.
    ran = {n: a[: len(labels)] if a.ndim and len(a) == rows else a for n, a in inputs.items()}
    return {**ran, LABELS: labels}


def _sample(data: Mapping[str, np.ndarray], most: int, rng: np.random.Generator) -> Arrays:
    """Some examples of the data."""
    count = len(labels_of(data))
    chosen = np.sort(rng.permutation(count)[:most])
    return {
        name: np.asarray(array)[chosen] if np.ndim(array) and len(array) == count else np.asarray(array)
        for name, array in data.items()
    }
