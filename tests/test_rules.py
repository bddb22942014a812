"""Forms of operators that look like others and are not: random elements keep what they compute."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.fuzz.builder import Array
from tests.fuzz.check import check
from tests.fuzz.graphs import Case


def weights(*shape: int) -> Array:
    """Normal numbers in single precision."""
    return np.random.default_rng(list(shape)).normal(size=shape).astype(np.float32)


def case(text: str, constants: dict[str, Array], opset: int = 17) -> Case:
    """A model from the text of a graph and its constants, with random inputs."""
    graph = onnx.parser.parse_graph(text)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    rng = np.random.default_rng(1)
    shapes = {v.name: [d.dim_value or 3 for d in v.type.tensor_type.shape.dim] for v in graph.input}
    return Case(proto, [{name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}])


def hidden(body: str, constants: dict[str, Array], opset: int = 17) -> Case:
    """x[n, 4] -> a[n, 6] -> the body's h[n, 6] -> y[n, 3]."""
    text = f"""g (float[n, 4] x) => (float[n, 3] y) {{
        a = MatMul(x, w1)
        {body}
        y = MatMul(h, w2)
    }}"""
    return case(text, {"w1": weights(4, 6), "w2": weights(6, 3), **constants}, opset)


def kept(example: Case) -> None:
    """Random elements of the group change no output."""
    assert [check(example, seed).problem for seed in range(4)] == [""] * 4


def test_a_prelu_with_slope_zero_is_not_zero() -> None:
    body = """p = PRelu(a, s)
        q = Add(p, b)
        h = Relu(q)"""
    kept(hidden(body, {"s": np.zeros(1, np.float32), "b": weights(6)}))


def test_a_quantized_zero_less_its_zero_point_is_not_zero() -> None:
    body = """c = DequantizeLinear(q, s, z)
        b = Add(a, c)
        h = Relu(b)"""
    zero = np.zeros((), np.uint8)
    kept(hidden(body, {"q": zero, "s": np.array(0.1, np.float32), "z": zero + np.uint8(10)}))


def test_a_clip_between_crossed_bounds_is_not_odd() -> None:
    kept(hidden("h = Clip(a, l, u)", {"l": np.array(1, np.float32), "u": np.array(-1, np.float32)}))


def test_a_reduction_over_no_axes_still_takes_squares_and_norms() -> None:
    for operator in ("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "ReduceSum", "ReduceMax"):
        body = f"""p = {operator}<noop_with_empty_axes = 1>(a)
            h = Tanh(p)"""
        kept(hidden(body, {}, opset=18))


def test_a_power_whose_exponent_has_more_axes() -> None:
    text = """g (float[4] x) => (float[1, 3] y) {
        a = MatMul(x, w1)
        p = Pow(a, e)
        y = MatMul(p, w2)
    }"""
    constants = {"w1": weights(4, 6), "e": np.full((1, 1), 2, np.float32), "w2": weights(6, 3)}
    kept(case(text, constants))


def test_local_response_normalization_mixes_what_its_channels_hold() -> None:
    text = """g (float[1, 5, 3, 4] x) => (float[1, 5, 3, 2] y) {
        a = MatMul(x, w1)
        p = LRN<size = 3, alpha = 1.0>(a)
        y = MatMul(p, w2)
    }"""
    kept(case(text, {"w1": weights(5, 4, 6), "w2": weights(5, 6, 2)}))


def test_an_axis_may_keep_its_size_and_be_resized() -> None:
    text = """g (float[1, 2, 3, 4] x) => (float[1, 3, 6, 4] y) {
        a = Conv(x, w1)
        p = %s
        y = Conv(p, w2)
    }"""
    constants = {"w1": weights(4, 2, 1, 1), "w2": weights(3, 4, 1, 1)}
    scales = np.array([1, 1.2, 2, 1], np.float32)
    kept(case(text % "Upsample(a, s)", {**constants, "s": scales}, opset=9))
    resize = """Resize<coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">(a, , s)"""
    kept(case(text % resize, {**constants, "s": scales}))


def test_two_recurrent_layers_that_share_their_input_weights() -> None:
    text = """g (float[5, 2, 4] x) => (float[5, 1, 2, 3] y, float[5, 1, 2, 3] z) {
        a = MatMul(x, w1)
        r = Relu(a)
        y = LSTM<hidden_size = 3>(r, w, rec)
        b = MatMul(x, w2)
        t = Tanh(b)
        z = LSTM<hidden_size = 3>(t, w, rec)
    }"""
    shapes = {"w1": (4, 6), "w2": (4, 6), "w": (1, 12, 6), "rec": (1, 12, 3)}
    kept(case(text, {name: weights(*shape) for name, shape in shapes.items()}))


def test_an_integer_weight_that_shape_arithmetic_reads_stays() -> None:
    body = """k = Cast<to = 6>(a)
        s = Add(k, p)
        h = Cast<to = 1>(s)
        z = MatMul(h, w2)
        f = Cast<to = 1>(p)
        g = Gather(f, first)"""
    constants = {"p": 7 * np.arange(6, dtype=np.int32), "first": np.zeros(1, np.int64)}
    example = hidden(body, {**constants, "w1": 5 * weights(4, 6)})
    last = example.proto.graph.node[-1]
    last.CopyFrom(helper.make_node("Add", ["z", "g"], ["y"]))
    kept(example)


def test_normalization_across_channels_has_one_sign() -> None:
    text = """g (float[2, 3, 2, 2] x) => (float[2, 2, 2, 2] y) {
        a = Conv(x, w1)
        p = MeanVarianceNormalization<across_channels = 1, normalize_variance = 0>(a)
        q = Tanh(p)
        y = Conv(q, w2)
    }"""
    kept(case(text, {"w1": weights(6, 3, 1, 1), "w2": weights(2, 6, 1, 1)}, opset=8))


def test_scramble_loses_no_bit_of_subnormal_weights() -> None:
    """Entries at the lowest bit of the type keep their scale: undoing the twin gives every byte back."""
    import onnxcanon as oc

    tiny = np.float32(2.0**-149) * np.arange(1, 25, 2, dtype=np.float32).reshape(4, 3)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "subnormal",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 2])],
        [
            numpy_helper.from_array(tiny, "w"),
            numpy_helper.from_array(np.ones((3, 2), np.float32) + tiny[:3, :2], "v"),
        ],
    )
    model = oc.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    for seed in range(8):
        twin = oc.scramble(model, seed=seed)
        back = oc.apply(twin.model, twin.transform, inverse=True)
        for name in ("w", "v"):
            assert back.tensor(name).tobytes() == model.tensor(name).tobytes()
