"""Small graphs with constants of every kind: data, weights that look like data, and both at once."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from tests import small_models


def rotary(*, picked: bool = False) -> onnx.ModelProto:
    """Queries of one head of four, rotated by tables [3, 4] and compared with keys.

    x[3, 5] -> q[3, 4] -> q·cos + rotated(q)·sin -> scores with keys, rotated alike. With `picked` the rows of
    the tables are chosen by the position ids of the caller.
    """
    inputs = "float[3, 5] x, int64[3] ids" if picked else "float[3, 5] x"
    chosen = "c = Gather(cos, ids) s = Gather(sin, ids)" if picked else "c = Identity(cos) s = Identity(sin)"
    text = f"""rotary ({inputs}) => (float[3, 3] y) {{
        zero = Constant <value_ints = [0]> ()
        two = Constant <value_ints = [2]> ()
        four = Constant <value_ints = [4]> ()
        last = Constant <value_ints = [1]> ()
        {chosen}
        q = MatMul(x, wq)
        q1 = Slice(q, zero, two, last)
        q2 = Slice(q, two, four, last)
        q3 = Neg(q2)
        qr = Concat <axis = 1> (q3, q1)
        qc = Mul(q, c)
        qs = Mul(qr, s)
        qq = Add(qc, qs)
        k = MatMul(x, wk)
        k1 = Slice(k, zero, two, last)
        k2 = Slice(k, two, four, last)
        k3 = Neg(k2)
        kr = Concat <axis = 1> (k3, k1)
        kc = Mul(k, c)
        ks = Mul(kr, s)
        kk = Add(kc, ks)
        kt = Transpose <perm = [1, 0]> (kk)
        y = MatMul(qq, kt)
    }}"""
    return small_models.model(text, {"wq": (5, 4), "wk": (5, 4), "cos": (3, 4), "sin": (3, 4)})


def masked(combine: str = "Add") -> onnx.ModelProto:
    """Scores of six units each against themselves, with a mask [6, 6] before the Softmax."""
    text = f"""masked (float[6, 4] x) => (float[6, 3] y) {{
        a = MatMul(x, w)
        t = Transpose <perm = [1, 0]> (a)
        s = MatMul(a, t)
        m = {combine}(s, mask)
        p = Softmax <axis = -1> (m)
        y = MatMul(p, v)
    }}"""
    return small_models.model(text, {"w": (4, 5), "mask": (6, 6), "v": (6, 3)})


def frequencies(*, bias: bool = False) -> onnx.ModelProto:
    """Sines of integer positions times a vector of six, and a layer on them."""
    shifted = "a = Add(f, bias)" if bias else "a = Identity(f)"
    text = f"""waves (int64[n] ids) => (float[n, 3] y) {{
        axis = Constant <value_ints = [1]> ()
        i = Unsqueeze(ids, axis)
        p = Cast <to = 1> (i)
        f = Mul(p, freq)
        {shifted}
        s = Sin(a)
        y = MatMul(s, w)
    }}"""
    weights = {"freq": (6,), "w": (6, 3)} | ({"bias": (6,)} if bias else {})
    return small_models.model(text, weights)


def product(body: str, table: tuple[int, ...] = (3, 6)) -> onnx.ModelProto:
    """x[3, 4] -> a[3, 6] -> `body`, which makes b[3, 6] of it with `table` -> y[3, 2]."""
    text = f"""product (float[3, 4] x) => (float[3, 2] y) {{
        a = MatMul(x, w1)
        {body}
        y = MatMul(b, w2)
    }}"""
    weights = {"w1": (4, 6), "table": table, "w2": (6, 2)}
    return small_models.model(text, weights | ({"other": table} if "other" in body else {}))


def embedding_under_a_mask() -> onnx.ModelProto:
    """Rows picked from an embedding [7, 6], times a mask that the caller gives."""
    text = """embedded (int64[n] ids, float[n, 1] mask) => (float[n, 2] y) {
        e = Gather(embedding, ids)
        b = Mul(e, mask)
        y = MatMul(b, w)
    }"""
    return small_models.model(text, {"embedding": (7, 6), "w": (6, 2)})


def cached() -> onnx.ModelProto:
    """An operator of onnxruntime that is given cosines and sines."""
    text = """cached (float[1, 3, 4] x, int64[1, 3] ids) => (float[1, 3, 4] y) {
        q = MatMul(x, w)
        y = Identity(q)
    }"""
    proto = small_models.model(text, {"w": (4, 4), "cos": (9, 2), "sin": (9, 2)})
    proto.graph.node[1].CopyFrom(
        helper.make_node("RotaryEmbedding", ["q", "ids", "cos", "sin"], ["y"], domain="com.microsoft")
    )
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


def sliced() -> onnx.ModelProto:
    """Eight hidden units of which five are read, and a branch that leads nowhere."""
    text = """sliced (float[n, 4] x) => (float[n, 3] y) {
        a = MatMul(x, w1)
        h = Relu(a)
        zero = Constant <value_ints = [0]> ()
        five = Constant <value_ints = [5]> ()
        last = Constant <value_ints = [1]> ()
        s = Slice(h, zero, five, last)
        y = MatMul(s, w2)
        lost = MatMul(h, w3)
    }"""
    return small_models.model(text, {"w1": (4, 8), "w2": (5, 3), "w3": (8, 6)})


def half() -> onnx.ModelProto:
    """An MLP in half precision."""
    proto = small_models.mlp()
    for tensor in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).astype("float16")
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return proto
