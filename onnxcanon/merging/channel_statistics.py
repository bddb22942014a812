"""Mean and variance of the channels of intermediate values over data, streamed batch by batch.

Two batches of n and m entries are joined as Chan, Golub and LeVeque (1983) do, in double precision:
mean = mean₁ + d m / (n + m) and M₂ = M₂₁ + M₂₂ + d² n m / (n + m), d being the difference of their means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcanon.arrays import Floats
from onnxcanon.errors import OnnxcanonError
from onnxcanon.graph.traversal import reads
from onnxcanon.model import Model, load
from onnxcanon.runtime.batches import batches
from onnxcanon.runtime.inputs import input_specs
from onnxcanon.runtime.sessions import INLINE_LIMIT, open_session


@dataclass(slots=True)
class Moments:
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


def measure(
    model: Model, values: Mapping[str, int], data: Mapping[str, np.ndarray], *, device: str = "auto"
) -> dict[str, Moments]:
    """The moments of values of the main graph, given with the axis of their channels, in one pass over data.

    Only what leads to these values is run: onnxruntime computes all of a graph whatever is asked for, so the
    graph is cut.

    Raises:
        OnnxcanonError: the data does not fit, holds no example, or makes a value infinite.
        RuntimeUnavailableError: the model does not run.
    """
    found = {name: Moments() for name in values}
    part = cut(model, tuple(values))
    with open_session(part, device=device, optimize=True, extra_outputs=values) as session:
        specs = input_specs(model.ir, any_type=True)
        for inputs in batches(specs, data, lambda first: session.run(first, outputs=values)):
            for name, array in session.run(inputs, outputs=values).items():
                found[name].add(array, values[name])
    for name, moments in found.items():
        if not moments.count or not np.isfinite(moments.squares).all():
            what = "not finite" if moments.count else "empty"
            raise OnnxcanonError(f"{model.name}: on this data the value '{name}' is {what}; give other data")
    return found


def cut(model: Model, values: tuple[str, ...]) -> Model:
    """The part of the graph that leads to some values, which become its outputs; all of it where the model is
    too large for one message."""
    if model.serialized_size() >= INLINE_LIMIT:
        return model
    proto = model.to_proto()
    graph = proto.graph
    needed = _needed(model.ir.graph, values)
    nodes = [node for node in graph.node if needed.intersection(node.output)]
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    inputs = [value for value in graph.input if value.name in needed]
    del graph.node[:], graph.initializer[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    graph.input.extend(inputs)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in values)
    return load(proto)


def _needed(graph: ir.Graph, values: tuple[str, ...]) -> set[str | None]:
    """The names that values depend on, their own among them."""
    makers = {value.name: node for node in graph for value in node.outputs}
    needed: set[str | None] = set()
    waiting: list[str | None] = list(values)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += [value.name for value in reads(makers[name])] if name in makers else []
    return needed
