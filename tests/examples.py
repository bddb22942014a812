"""Small networks whose every weight a test can choose, and what models hold, to compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxcanon.model import Model, load

Array = NDArray[Any]
Layer = tuple[Array, Array]
"""Weight [inputs, outputs] and bias [outputs]."""


def build(text: str, tensors: Mapping[str, Array], opset: int = 21) -> Model:
    """A model from the text of its graph (onnx.parser) and its initializers."""
    graph = onnx.parser.parse_graph(text)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in tensors.items())
    return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10))


def layers(*sizes: int, seed: int = 0) -> list[Layer]:
    """Random layers between the given sizes."""
    rng = np.random.default_rng(seed)
    return [
        ((rng.normal(size=(n, m)) / n**0.5).astype(np.float32), rng.normal(0, 0.3, m).astype(np.float32))
        for n, m in pairwise(sizes)
    ]


def network(theta: Sequence[Layer], activation: str = "Relu") -> Model:
    """Multilayer perceptron with parameters w0, b0, w1, b1, …"""
    last = len(theta) - 1
    lines, value = [], "x"
    for k in range(last):
        lines += [f"a{k} = Gemm({value}, w{k}, b{k})", f"h{k} = {activation}(a{k})"]
        value = f"h{k}"
    lines.append(f"y = Gemm({value}, w{last}, b{last})")
    head = f"mlp (float[n, {theta[0][0].shape[0]}] x) => (float[n, {theta[-1][0].shape[1]}] y)"
    tensors = {f"{kind}{k}": a for k, layer in enumerate(theta) for kind, a in zip("wb", layer, strict=True)}
    return build(f"{head} {{\n" + "\n".join(lines) + "\n}", tensors)


def theta_of(model: Model) -> list[Layer]:
    """The layers of a `network`."""
    return [(model.tensor(f"w{k}"), model.tensor(f"b{k}")) for k in range(len(model.tensor_names()) // 2)]


def quantized(theta: Sequence[Layer]) -> Model:
    """The same network with weights of one bit and a sign, each output channel with a scale of its own."""
    last = len(theta) - 1
    lines, value, tensors = [], "x", {}
    for k, (weight, bias) in enumerate(theta):
        out = "y" if k == last else f"a{k}"
        lines += [f"d{k} = DequantizeLinear <axis = 1> (q{k}, s{k})", f"{out} = Gemm({value}, d{k}, b{k})"]
        if k < last:
            lines.append(f"h{k} = Sigmoid(a{k})")
            value = f"h{k}"
        tensors[f"q{k}"] = np.sign(np.round(weight / weight.std())).astype(np.int8)
        tensors[f"s{k}"] = np.full(weight.shape[1], weight.std(), np.float32)
        tensors[f"b{k}"] = (np.round(bias * 4) / 4).astype(np.float32)
    head = f"qdq (float[n, {theta[0][0].shape[0]}] x) => (float[n, {theta[-1][0].shape[1]}] y)"
    return build(f"{head} {{\n" + "\n".join(lines) + "\n}", tensors)


def attention(heads: int = 3, width: int = 4, seed: int = 0) -> Model:
    """One attention, its heads written out: [1, t, c] -> [1, t, heads * width] -> [1, t, c]."""
    rng = np.random.default_rng(seed)
    inner, channels = heads * width, 5
    text = f"""attention (float[1, 6, {channels}] x) => (float[1, 6, {channels}] y) {{
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        v = MatMul(x, wv)
        q1 = Reshape(q, split)
        k1 = Reshape(k, split)
        v1 = Reshape(v, split)
        q2 = Transpose <perm = [0, 2, 1, 3]> (q1)
        k2 = Transpose <perm = [0, 2, 3, 1]> (k1)
        v2 = Transpose <perm = [0, 2, 1, 3]> (v1)
        s = MatMul(q2, k2)
        p = Softmax <axis = -1> (s)
        o = MatMul(p, v2)
        o1 = Transpose <perm = [0, 2, 1, 3]> (o)
        o2 = Reshape(o1, join)
        y = MatMul(o2, wo)
    }}"""
    shapes = dict.fromkeys(("wq", "wk", "wv"), (channels, inner)) | {"wo": (inner, channels)}
    tensors: dict[str, Array] = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    tensors |= {"split": np.array([1, 6, heads, width]), "join": np.array([1, 6, inner])}
    return build(text, tensors)


def experts(count: int = 3, hidden: int = 5, seed: int = 0) -> Model:
    """A dense mixture of experts in stacked tensors: experts change places, and hidden units within each."""
    rng = np.random.default_rng(seed)
    text = """experts (float[n, 4] x) => (float[n, 2] y) {
        r = MatMul(x, router)
        p = Softmax(r)
        h = Einsum <equation = "ni,eih->neh"> (x, w1)
        g = Relu(h)
        z = Einsum <equation = "neh,eho->neo"> (g, w2)
        y = Einsum <equation = "ne,neo->no"> (p, z)
    }"""
    shapes = {"router": (4, count), "w1": (count, 4, hidden), "w2": (count, hidden, 2)}
    return build(text, {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()})


def contents(model: Model) -> dict[str, object]:
    """Every tensor of a model, bit for bit."""
    arrays = {name: model.tensor(name) for name in model.tensor_names()}
    return {name: a.tolist() if a.dtype == object else a.tobytes() for name, a in arrays.items()}


def values(model: Model) -> dict[str, Array]:
    """Every tensor of a model."""
    return {name: model.tensor(name) for name in model.tensor_names()}


def bits(array: Array) -> bytes:
    """The bits of an array in which -0 counts as 0."""
    return (array + np.zeros((), array.dtype)).tobytes() if array.dtype.kind == "f" else array.tobytes()
