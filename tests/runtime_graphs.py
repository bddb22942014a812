"""Small models the runtime tests are made on, and where larger ones may lie."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxcanon.model import Model, load

SHARED = Path(__file__).resolve().parents[2] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no models at {SHARED}")

Shape = Sequence[int | str | None]


def value(name: str, shape: Shape | None, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 18,
) -> Model:
    tensors = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "test", inputs, outputs, tensors)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return load(helper.make_model(graph, opset_imports=imports, ir_version=8))


def weights(rng: np.random.Generator, *sizes: int) -> dict[str, np.ndarray]:
    """w0, b0, w1, b1, … of a multilayer perceptron of these sizes."""
    made: dict[str, np.ndarray] = {}
    for index, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        made[f"w{index}"] = (rng.standard_normal((fan_in, fan_out)) / np.sqrt(fan_in / 2)).astype(np.float32)
        made[f"b{index}"] = rng.normal(0, 0.3, fan_out).astype(np.float32)
    return made


def mlp_nodes(depth: int, last: str = "y", activation: str = "Relu") -> list[onnx.NodeProto]:
    nodes = []
    for index in range(depth):
        source = "x" if index == 0 else f"h{index - 1}"
        target = last if index == depth - 1 else f"s{index}"
        nodes.append(helper.make_node("Gemm", [source, f"w{index}", f"b{index}"], [target]))
        if index < depth - 1:
            nodes.append(helper.make_node(activation, [f"s{index}"], [f"h{index}"]))
    return nodes


def mlp(
    seed: int = 0,
    sizes: tuple[int, ...] = (8, 32, 16, 5),
    tail: Sequence[onnx.NodeProto] = (),
    output: onnx.ValueInfoProto | None = None,
) -> Model:
    """x[batch, 8] -> Gemm, Relu, … -> y, or -> `tail`, which reads y."""
    made = weights(np.random.default_rng(seed), *sizes)
    outputs = [output or value("y", ["batch", sizes[-1]])]
    return model([*mlp_nodes(len(sizes) - 1), *tail], [value("x", ["batch", sizes[0]])], outputs, made)


def permuted(base: Model, seed: int = 1, scale: bool = False) -> Model:
    """A twin of an `mlp`: hidden units in another order, and rescaled if `scale`."""
    rng = np.random.default_rng(seed)
    new = {name: base.tensor(name) for name in base.tensor_names()}
    layer = 0
    while f"w{layer + 1}" in new:
        size = new[f"w{layer}"].shape[1]
        order = rng.permutation(size)
        factor = rng.uniform(0.2, 5, size).astype(np.float32) if scale else np.ones(size, np.float32)
        new[f"w{layer}"] = (new[f"w{layer}"] * factor)[:, order]
        new[f"b{layer}"] = (new[f"b{layer}"] * factor)[order]
        new[f"w{layer + 1}"] = (new[f"w{layer + 1}"] / factor[:, None])[order]
        layer += 1
    return base.with_tensors({name: array.astype(base.tensor(name).dtype) for name, array in new.items()})


def changed(base: Model, name: str, by: float = 0.01, where: tuple[int, ...] = (0, 0)) -> Model:
    """One entry of one tensor changed by a part of the tensor's deviation."""
    array = base.tensor(name).copy()
    array[where] += np.asarray(by * array.astype(np.float64).std(), array.dtype)
    return base.with_tensors({name: array})
