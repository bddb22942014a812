"""Small graphs whose symmetries can be told by hand."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def model(
    text: str, weights: dict[str, tuple[int, ...]], *, seed: int = 0, ir_version: int = 10
) -> onnx.ModelProto:
    """A model from the text of a graph (onnx.parser) and random weights of the given shapes."""
    graph = onnx.parser.parse_graph(text)
    rng = np.random.default_rng(seed)
    for name, shape in weights.items():
        values = rng.normal(size=shape).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(values, name))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=ir_version)


def mlp(activation: str = "Relu", hidden: int = 8, seed: int = 0) -> onnx.ModelProto:
    """x[n, 4] -> hidden -> y[n, 3]."""
    text = f"""mlp (float[n, 4] x) => (float[n, 3] y) {{
        a = Gemm(x, w1, b1)
        h = {activation}(a)
        y = Gemm(h, w2, b2)
    }}"""
    return model(text, {"w1": (4, hidden), "b1": (hidden,), "w2": (hidden, 3), "b2": (3,)}, seed=seed)


def experts(count: int = 3, hidden: int = 5) -> onnx.ModelProto:
    """A mixture whose experts may change places, and the hidden units within each."""
    text = """moe (float[n, 4] x) => (float[n, 2] y) {
        r = MatMul(x, router)
        p = Softmax(r)
        h = Einsum <equation = "ni,eih->neh"> (x, w1)
        g = Relu(h)
        z = Einsum <equation = "neh,eho->neo"> (g, w2)
        y = Einsum <equation = "ne,neo->no"> (p, z)
    }"""
    weights = {"router": (4, count), "w1": (count, 4, hidden), "w2": (count, hidden, 2)}
    return model(text, weights)


def normalized() -> onnx.ModelProto:
    """A hidden stream of fixed order (it is an output) whose sign is free between two normalizations."""
    text = """stream (float[n, 4] x) => (float[n, 6] y) {
        a = MatMul(x, w1)
        s = LayerNormalization(a, g1, c1)
        t = MatMul(s, w2)
        u = Add(s, t)
        y = LayerNormalization(u, g2, c2)
    }"""
    shapes = {"w1": (4, 6), "g1": (6,), "c1": (6,), "w2": (6, 6), "g2": (6,), "c2": (6,)}
    return model(text, shapes)


def convolution() -> onnx.ModelProto:
    """x[1, 3, 8, 8] -> 4 channels -> 2 values, flattened on the way."""
    text = """cnn (float[1, 3, 8, 8] x) => (float[1, 2] y) {
        a = Conv <pads = [1, 1, 1, 1]> (x, k, b)
        h = Relu(a)
        p = GlobalAveragePool(h)
        f = Flatten(p)
        y = MatMul(f, w)
    }"""
    return model(text, {"k": (4, 3, 3, 3), "b": (4,), "w": (4, 2)})


def opaque() -> onnx.ModelProto:
    """A model with an operator that nobody knows, after one hidden layer."""
    proto = mlp()
    node = helper.make_node("Mystery", ["h"], ["m"], name="oracle", domain="some.where")
    proto.graph.node.insert(2, node)
    proto.graph.node[3].input[0] = "m"
    proto.opset_import.append(helper.make_opsetid("some.where", 1))
    return proto


def overridable() -> onnx.ModelProto:
    """An MLP whose weights are graph inputs as well: the caller may replace them."""
    proto = mlp()
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.dims))
    return proto
