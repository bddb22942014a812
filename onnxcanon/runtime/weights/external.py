"""One graph, opened in onnxruntime with one set of weights after the other.

    sessions = WeightSessions(model, device="cpu", optimize=True)
    for step in steps:
        with sessions.open(model.with_tensors(step)) as session:
            session.run(inputs)

The large weights are left out of what is serialized, as external data, and given to each session by
`SessionOptions.add_external_initializers`: onnxruntime puts them into the graph before it optimizes, so that
fusions and folding see them. (`add_initializer` looks alike but shares values after the fact: under a fused
convolution and normalization the old weights go on to count.) Small tensors and those that are no
floating-point numbers stay in the bytes, where shape inference reads them, and so do constants of nested
graphs and of nodes.
"""

from __future__ import annotations

import numpy as np

from onnxcanon.graph.element_types import NUMPY_TYPES
from onnxcanon.model import Model
from onnxcanon.runtime.devices import onnxruntime
from onnxcanon.runtime.sessions import INLINE_LIMIT, Session, open_session, our_errors, session_options, start
from onnxcanon.runtime.weights.as_inputs import main_initializers

SMALLEST = 1024
"""Smaller tensors, in bytes, cost less inside the message."""


class WeightSessions:
    """Opens sessions on one graph with different weights.

    Args:
        model: the model whose graph it is.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        optimize: as for `open_session`.
    """

    def __init__(self, model: Model, *, device: str = "auto", optimize: bool = False) -> None:
        self.model = model
        self.device = device
        self.optimize = optimize
        self.names = tuple(external_initializers(model))

    def open(self, model: Model) -> Session:
        """Opens `model`, which is best this graph with other tensors; any other is opened from its start.

        Raises:
            ModelError: a replaced tensor has not the shape and type of the old one.
            RuntimeUnavailableError: the device is not there, or onnxruntime rejects the model.
        """
        if not model.shares_graph(self.model) or self._rest(model) >= INLINE_LIMIT:
            return open_session(model, device=self.device, optimize=self.optimize)
        options = session_options(self.optimize)
        # onnxruntime takes memory as it is, in the order of C, and keeps it.
        arrays = [np.ascontiguousarray(model.tensor(name)) for name in self.names]
        ort = onnxruntime()
        with our_errors(f"{model.name}: onnxruntime does not take its weights"):
            values = [ort.OrtValue.ortvalue_from_numpy(array) for array in arrays]
            options.add_external_initializers(list(self.names), values)
        return start(model.name, model.without(self.names), options, self.device, arrays=arrays)

    def _rest(self, model: Model) -> int:
        """How many bytes the tensors take that stay in the message."""
        return model.serialized_size() - sum(model.tensor_size(name) for name in self.names)


def external_initializers(model: Model) -> list[str]:
    """The initializers of the main graph that are left out: large, floating, and not a caller's inputs."""
    callers = set(model.overridable())
    names = [name for name in main_initializers(model, NUMPY_TYPES) if name not in callers]
    return [name for name in names if model.tensor_size(name) >= SMALLEST]
