"""Mean and variance of the channels of intermediate values over data, streamed batch by batch.

Two batches of n and m entries are joined as Chan, Golub and LeVeque (1983) do, in double precision:
mean = mean₁ + d m / (n + m) and M₂ = M₂₁ + M₂₂ + d² n m / (n + m), d being the difference of their means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxcanon.arrays import Floats
from onnxcanon.errors import OnnxcanonError
from onnxcanon.model import Model
from onnxcanon.runtime.batches import batches
from onnxcanon.runtime.inputs import input_specs
from onnxcanon.runtime.sessions import open_session
from onnxcanon.settings import Settings


@dataclass(slots=True)
class ChannelStatistics:
    """Of each channel: how many entries were seen, their mean [channels] and sum of squared deviations."""

    count: int = 0
    mean: Floats = field(default_factory=lambda: np.zeros(1))
    squares: Floats = field(default_factory=lambda: np.zeros(1))

    def add(self, array: NDArray[np.generic], axis: int) -> None:
        """Join a batch; all axes but `axis` count as examples."""
        rows = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis]).astype(np.float64)
        if not len(rows):
            return
        mean = rows.mean(0)
        squares = ((rows - mean) ** 2).sum(0)
        total = self.count + len(rows)
        apart = mean - self.mean
        self.mean = self.mean + apart * (len(rows) / total)
        self.squares = self.squares + squares + apart**2 * (self.count * len(rows) / total)
        self.count = total

    @property
    def variance(self) -> Floats:
        """The population variance [channels]."""
        return np.asarray(self.squares / max(self.count, 1))

    @property
    def deviation(self) -> Floats:
        """Its square root."""
        return np.asarray(np.sqrt(self.variance))


def measure_channels(
    model: Model, values: Mapping[str, int], settings: Settings
) -> dict[str, ChannelStatistics]:
    """Statistics of values of the main graph, named with the axis of their channels, in one pass over data.

    Only what leads to these values is run (`open_session(only=…)`).

    Raises:
        OnnxcanonError: the data does not fit, holds no example, or makes a value infinite.
        RuntimeUnavailableError: the model does not run.
    """
    statistics = {name: ChannelStatistics() for name in values}
    with open_session(model, device=settings.device, optimize=True, only=values) as session:
        inputs_read = {value.name for value in session.inputs}
        specs = [spec for spec in input_specs(model.ir, any_type=True) if spec.name in inputs_read]
        for inputs in batches(specs, settings.data or {}, lambda first: session.run(first, outputs=values)):
            for name, array in session.run(inputs, outputs=values).items():
                statistics[name].add(array, values[name])
    for name, moments in statistics.items():
        if not moments.count or not np.isfinite(moments.squares).all():
            what = "not finite" if moments.count else "empty"
            raise OnnxcanonError(f"{model.name}: on this data the value '{name}' is {what}; give other data")
    return statistics
