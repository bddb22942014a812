"""Values of two models of one graph on the same inputs, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from onnxcanon.arrays import Arrays, Floats
from onnxcanon.model import Model
from onnxcanon.runtime.batches import batches
from onnxcanon.runtime.inputs import input_specs
from onnxcanon.runtime.sessions import Session, open_session


def capture_values(
    models: Sequence[Model], values: Sequence[str], data: Mapping[str, np.ndarray], *, device: str
) -> Iterator[list[Arrays]]:
    """For every batch of the data the named values of each model, inputs of the graph among them.

    Raises:
        OnnxcanonError: the data does not fit, or holds no batch.
        RuntimeUnavailableError: a model does not run.
    """
    specs = input_specs(models[0].ir, any_type=True)
    inner = [name for name in values if name not in {spec.name for spec in specs}]
    with ExitStack() as stack:
        sessions: list[Session] = [
            stack.enter_context(open_session(model, device=device, optimize=True, extra_outputs=inner))
            for model in models
        ]
        for inputs in batches(specs, data, lambda first: _values(sessions[0], first, inner)):
            yield [{**inputs, **_values(session, inputs, inner)} for session in sessions]


def _values(session: Session, inputs: Arrays, names: Sequence[str]) -> Arrays:
    return session.run(inputs, outputs=names) if names else {}  # without names, all would be computed


class Covariance:
    """Of the units of two models how they vary together, in one pass.

    Batches are centered and joined as Chan, Golub and LeVeque (1983) do, so that single precision is enough
    within a batch.

    Args:
        units: how many units either model has.
    """

    def __init__(self, units: int) -> None:
        self.count = 0
        self.means = np.zeros((2, units))
        self.squares = np.zeros((2, units))
        self.products = np.zeros((units, units))

    def add(self, ours: NDArray[np.generic], theirs: NDArray[np.generic]) -> None:
        """Join a batch: the values of units on the same samples, [units, samples]."""
        new = ours.shape[1]
        if not new:
            return
        wide = [side.astype(np.float64) for side in (ours, theirs)]
        total = self.count + new
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite has no correlation
            means = np.stack([side.mean(1) for side in wide])
            one, other = (side - mean[:, None] for side, mean in zip(wide, means, strict=True))
            apart, share = means - self.means, self.count * new / total
            self.products += one.astype(np.float32) @ other.astype(np.float32).T + share * np.outer(*apart)
            self.squares += np.stack([(one**2).sum(1), (other**2).sum(1)]) + share * apart**2
            self.means += apart * (new / total)
        self.count = total

    def correlation(self, still: float) -> Floats:
        """The correlation of every unit of ours with every one of theirs, 0 where either deviates by less
        than the part `still` of its size, or is not finite."""
        deviation = np.sqrt(self.squares / max(self.count, 1))
        moving = np.isfinite(deviation) & (deviation > still * (np.abs(self.means) + deviation))
        products = np.where(moving[0][:, None] & moving[1], self.products / max(self.count, 1), 0.0)
        inverse = 1 / np.where(moving, deviation, 1.0)
        return np.asarray(products * inverse[0][:, None] * inverse[1])
