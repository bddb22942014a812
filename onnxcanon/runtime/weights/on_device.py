"""One graph at many points of the straight line between two sets of weights, which stay on the device.

    with DeviceLine(a, b, device="cuda") as mix:
        for alpha in alphas:
            mix.at(alpha).run(inputs)

One session computes θ(α) = (1-α) A + α B, in single precision or better; its results stay where they are and
are inputs of a second session, on the graph of the models. So no weight goes to a GPU twice, and no session
is made anew. What is equal in both models stays a constant of the graph. On a GPU a curve is as fast
that way as the same runs of one model; on a CPU convolutions lose more than that saves, and `WeightSessions`
is for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx_ir import DataType

from onnxcanon.arrays import Array, Arrays
from onnxcanon.graph.element_types import NUMPY_TYPES
from onnxcanon.model import Model
from onnxcanon.runtime.devices import providers_for
from onnxcanon.runtime.session_values import SessionValue
from onnxcanon.runtime.sessions import INLINE_LIMIT, Session, session_options, start
from onnxcanon.runtime.weights.as_inputs import input_tensors, open_with_inputs

if TYPE_CHECKING:
    import onnx

SHARE = "share"
OPSET = 13


def differing(a: Model, b: Model) -> list[str]:
    """The tensors in which two models that share a graph differ, in bits."""
    names = []
    for name in a.tensor_names():
        if a.tensor_info(name)[1] != DataType.STRING:
            ours, theirs = a.tensor(name), b.tensor(name)
            if ours.tobytes() != theirs.tobytes():
                names.append(name)
    return names


class DeviceLine(AbstractContextManager["DeviceLine", None]):
    """Sessions for the straight line between two models that share a graph; close it, or use it as a context.

    Args:
        a: the model at 0.
        b: the model at 1; what differs must be `input_tensors`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        optimize: as for `open_session`.

    Raises:
        ModelError: all but the weights does not fit into one protobuf message (2 GB).
        RuntimeUnavailableError: the device is not there, or onnxruntime rejects the graph.
    """

    def __init__(self, a: Model, b: Model, *, device: str = "auto", optimize: bool = False) -> None:
        self._names = differing(a, b)
        self._model = open_with_inputs(a, self._names, device=device, optimize=optimize)
        self.device = self._model.device
        self.outputs: tuple[SessionValue, ...] = self._model.outputs
        self._mixer = _mixer(a, self._names, self.device)
        self._ends = {
            f"{end}{k}": self._mixer.on_device(model.tensor(name))
            for k, name in enumerate(self._names)
            for end, model in (("a", a), ("b", b))
        }
        self._weights: dict[str, Any] = {}
        self.at(0)

    def at(self, alpha: float) -> DeviceLine:
        """Move to another point of the line, and return this object."""
        weights = self._mixer.run_on_device({**self._ends, SHARE: np.array(alpha, np.float64)})
        self._weights = {name: weights[f"w{k}"] for k, name in enumerate(self._names)}
        return self

    def run(self, inputs: Mapping[str, Array], outputs: Iterable[str] | None = None) -> Arrays:
        """Values of the named outputs (default: all) at this point.

        Raises:
            RuntimeUnavailableError: an input is missing, or onnxruntime refuses or fails on these values.
        """
        names = [value.name for value in self.outputs] if outputs is None else list(outputs)
        values = self._model.run_on_device({**inputs, **self._weights}, names)
        return {name: value.numpy() for name, value in values.items()}

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases both sessions and their weights."""
        self._ends, self._weights = {}, {}
        self._mixer.close()
        self._model.close()


def line_fits_device(a: Model, b: Model, device: str) -> bool:
    """Whether a line between two models that share a graph is faster here than by `WeightSessions`: on a GPU,
    where all that differs can be an input.

    Raises:
        RuntimeUnavailableError: the device is not there.
    """
    if providers_for(device)[0] == "cpu":
        return False
    names = differing(a, b)
    rest = a.serialized_size() - sum(map(a.tensor_size, names))
    if rest >= INLINE_LIMIT:
        return False
    return input_tensors(a).issuperset(names) and all(a.tensor_info(n)[1] in NUMPY_TYPES for n in names)


def _mixer(model: Model, names: Sequence[str], device: str) -> Session:
    """A session that computes wₖ = (1 - share) aₖ + share bₖ for the k-th of the named tensors."""
    from onnx import TensorProto, helper

    share = helper.make_tensor_value_info(SHARE, TensorProto.DOUBLE, [])
    graph = helper.make_graph([], "mix", [share], [])
    for k, name in enumerate(names):
        _mix(graph, k, *model.tensor_info(name))
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    return start(f"mix of {model.name}", proto.SerializeToString(), session_options(True), device)


def _mix(graph: onnx.GraphProto, k: int, shape: Sequence[int], dtype: DataType) -> None:
    """The nodes for one tensor; halves are mixed in single precision."""
    from onnx import TensorProto, helper

    wide = TensorProto.DOUBLE if dtype == DataType.DOUBLE else TensorProto.FLOAT
    node = helper.make_node
    graph.node.extend(
        [
            node("Cast", [SHARE], [f"share{k}"], to=wide),
            node("Constant", [], [f"one{k}"], value=helper.make_tensor("one", wide, [], [1.0])),
            node("Sub", [f"one{k}", f"share{k}"], [f"rest{k}"]),
            node("Cast", [f"a{k}"], [f"wide_a{k}"], to=wide),
            node("Cast", [f"b{k}"], [f"wide_b{k}"], to=wide),
            node("Mul", [f"wide_a{k}", f"rest{k}"], [f"part_a{k}"]),
            node("Mul", [f"wide_b{k}", f"share{k}"], [f"part_b{k}"]),
            node("Add", [f"part_a{k}", f"part_b{k}"], [f"sum{k}"]),
            node("Cast", [f"sum{k}"], [f"w{k}"], to=dtype.value),
        ]
    )
    info = helper.make_tensor_value_info
    graph.input.extend(info(f"{end}{k}", dtype.value, shape) for end in "ab")
    graph.output.append(info(f"w{k}", dtype.value, shape))
