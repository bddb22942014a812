"""Graphs whose weights are inputs: one session for many sets of weights.

Nothing that is an input can be folded, fused or laid out ahead, which costs convolutions on a CPU twice their
time; but giving a session other weights costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from onnx_ir import DataType

from onnxcanon.files import wire
from onnxcanon.graph.element_types import NUMPY_TYPES
from onnxcanon.model import Model
from onnxcanon.runtime.sessions import Session, session_options, start

if TYPE_CHECKING:
    import onnx

INPUT_TYPES = NUMPY_TYPES | {DataType.BFLOAT16}
"""Types of weights that a session takes as inputs."""


def main_initializers(model: Model, types: Collection[DataType]) -> list[str]:
    """The initializers of the main graph that go by their own name, of some types."""
    values = model.ir.graph.initializers.values()
    names = [value.name for value in values if value.name is not None and model.key(value) == value.name]
    return [name for name in names if model.tensor_info(name)[1] in types]


def input_tensors(model: Model) -> set[str]:
    """The tensors that can be inputs: initializers of the main graph, of types that a session takes."""
    return set(main_initializers(model, INPUT_TYPES))


def open_with_inputs(
    model: Model,
    names: Collection[str],
    *,
    device: str = "auto",
    optimize: bool = False,
    change: Callable[[onnx.ModelProto], None] | None = None,
) -> Session:
    """A session on the graph of `model` that is given the named tensors (`input_tensors`) as inputs.

    Args:
        model: the model.
        names: the tensors.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        optimize: as for `open_session`.
        change: what else is done to the graph.

    Raises:
        ModelError: the rest does not fit into one protobuf message (2 GB).
        RuntimeUnavailableError: the device is not there, or onnxruntime rejects the graph.
    """
    proto = wire.parse(memoryview(model.without(names)))
    _make_inputs(model, proto.graph, names)
    if change is not None:
        change(proto)
    return start(model.name, proto.SerializeToString(), session_options(optimize), device)


def _make_inputs(model: Model, graph: onnx.GraphProto, names: Collection[str]) -> None:
    from onnx import helper

    constants = [tensor for tensor in graph.initializer if tensor.name not in names]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    inputs = {value.name for value in graph.input}
    for name in names:
        if name not in inputs:
            shape, dtype = model.tensor_info(name)
            graph.input.append(helper.make_tensor_value_info(name, dtype.value, shape))
