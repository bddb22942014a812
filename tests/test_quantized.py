"""Quantized operators: what may move is found and no more, and no integer of an output changes."""

from __future__ import annotations

from collections.abc import Callable
from math import factorial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

import onnxcanon
from onnxcanon.model import Model, load
from onnxcanon.symmetry import symmetry
from onnxcanon.verifying.overflow_guard import guarded
from tests.fuzz.builder import CONTRIB, Array
from tests.fuzz.check import as_it_is, check
from tests.fuzz.graphs import Case

RNG = np.random.default_rng(0)
FRESH = RNG.bit_generator.state
SCALE, ZERO = np.array(0.25, np.float32), np.array(3, np.uint8)
OUT_SCALE, OUT_ZERO = np.array(8, np.float32), np.array(100, np.uint8)
NUMBERS = {"s": SCALE, "z": ZERO, "t": OUT_SCALE, "o": OUT_ZERO}


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Every test draws the same numbers, whichever others run."""
    RNG.bit_generator.state = FRESH


def ints(*shape: int, dtype: Any = np.int8, low: int = -9, high: int = 10) -> Array:
    return RNG.integers(low, high, shape).astype(dtype)


def scales(*shape: int) -> Array:
    """Powers of two: what they multiply stays exact."""
    return (2.0 ** RNG.integers(-4, 0, shape)).astype(np.float32)


def case(text: str, constants: dict[str, Array], opset: int = 21) -> Case:
    """A model from the text of a graph and its constants, with random inputs of its types."""
    graph = onnx.parser.parse_graph(text)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(CONTRIB, 1)]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=10)

    def feed(value: onnx.ValueInfoProto) -> Array:
        kind = value.type.tensor_type
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        drawn = RNG.integers(0, 60, [d.dim_value or 3 for d in kind.shape.dim])
        return (drawn / 8 - 4).astype(dtype) if dtype.kind == "f" else drawn.astype(dtype)

    return Case(proto, [{v.name: feed(v) for v in graph.input} for _ in range(2)])


def order(example: Case) -> int:
    """How many permutations are found."""
    return round(10.0 ** symmetry(load(example.proto)).log10_orbit)


def moves(example: Case, expected: int, ran: Callable[[Model], onnx.ModelProto] = as_it_is) -> None:
    """The group has the expected order, and its elements keep the outputs; half of one does not."""
    assert order(example) == expected
    reports = [check(example, seed, ran) for seed in range(4)]
    assert [r.problem for r in reports] == [""] * 4
    assert not any(r.barriers for r in reports)
    controls = [r.control for r in reports if r.control is not None]
    assert any(controls) == (expected > 1)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("domain", ["", "com.microsoft."])
def test_channels_of_quantized_convolutions_move_with_their_scales(per_channel: bool, domain: str) -> None:
    last = domain != ""
    shape = "2, 4, 4, 3" if last else "2, 3, 4, 4"
    flag = "channels_last = 1, " if last else ""
    text = f"""g (uint8[{shape}] x) => (uint8[2, u, v, w] y) {{
        a = {domain}QLinearConv<{flag}pads = [1, 1, 1, 1]>(x, s, z, w1, ws, wz, t, o, b)
        r = com.microsoft.QLinearLeakyRelu<alpha = 0.5>(a, t, o, t, z)
        y = {domain}QLinearConv<{flag}group = 1>(r, t, z, w2, s, n, t, o)
    }}"""
    width = (5,) if per_channel else ()
    weights = {
        "w1": ints(5, 3, 3, 3), "ws": scales(*width), "wz": 0 * ints(*width), "b": ints(5, dtype=np.int32),
        "w2": ints(2, 5, 1, 1), "n": np.array(0, np.int8),
    }  # fmt: skip
    moves(case(text, {**NUMBERS, **weights}), factorial(5))


def test_groups_of_a_quantized_convolution_move_whole() -> None:
    text = """g (uint8[2, 3, 4, 4] x) => (uint8[2, 2, u, v] y) {
        a = QLinearConv(x, s, z, w1, s, n, t, o)
        r = QLinearConv<group = 2>(a, t, o, w2, ws, n2, t, o)
        y = QLinearConv(r, t, o, w3, s, n, t, o)
    }"""
    weights = {
        "w1": ints(4, 3, 1, 1), "w2": ints(6, 2, 1, 1), "ws": scales(6), "n2": ints(6) * 0,
        "w3": ints(2, 6, 1, 1), "n": np.array(0, np.int8),
    }  # fmt: skip
    moves(case(text, {**NUMBERS, **weights}), 2 * (2 * 6) ** 2)


def test_integer_convolutions_move_with_their_zero_points() -> None:
    text = """g (uint8[2, 3, 4, 4] x) => (int32[2, 2, u, v] y) {
        a = ConvInteger<pads = [1, 1, 1, 1]>(x, w1, z, wz)
        c = Cast<to = 1>(a)
        q = QuantizeLinear(c, t, o)
        y = ConvInteger(q, w2, o)
    }"""
    weights = {"w1": ints(5, 3, 3, 3), "w2": ints(2, 5, 1, 1)}
    moves(case(text, {**NUMBERS, **weights, "wz": np.array(2, np.int8)}), factorial(5))
    # onnxruntime does not run zero points for each channel; the standard has them.
    assert order(case(text, {**NUMBERS, **weights, "wz": ints(5)})) == factorial(5)


def test_columns_of_quantized_matrices_move_with_their_scales() -> None:
    text = """g (uint8[n, 4] x) => (uint8[n, 3] y) {
        a = QLinearMatMul(x, s, z, w1, ws, wz, t, o)
        y = QLinearMatMul(a, t, o, w2, s, n, t, o)
    }"""
    weights = {"w1": ints(4, 6), "ws": scales(6), "wz": ints(6), "w2": ints(6, 3), "n": np.array(0, np.int8)}
    moves(case(text, {**NUMBERS, **weights}), factorial(6))


def test_each_matrix_of_a_batch_has_columns_of_its_own() -> None:
    text = """g (uint8[2, 3, 4] x) => (uint8[2, 3, 3] y) {
        a = QLinearMatMul(x, s, z, w1, ws, wz, t, o)
        y = QLinearMatMul(a, t, o, w2, s, n, t, o)
    }"""
    weights = {
        "w1": ints(2, 4, 5), "ws": scales(2, 1, 5), "wz": ints(2, 1, 5), "w2": ints(2, 5, 3),
        "n": np.array(0, np.int8),
    }  # fmt: skip
    moves(case(text, {**NUMBERS, **weights}), factorial(5) ** 2)


def test_dynamic_quantization_moves_whole_tensors() -> None:
    text = """g (float[n, 4] x) => (float[n, 3] y) {
        q, qs, qz = DynamicQuantizeLinear(x)
        a = MatMulInteger(q, w1, qz, wz)
        c = Cast<to = 1>(a)
        d = Mul(c, ws)
        e = Mul(d, t)
        r = Relu(e)
        p, ps, pz = DynamicQuantizeLinear(r)
        f = MatMulInteger(p, w2, pz)
        y = Cast<to = 1>(f)
    }"""
    weights = {"w1": ints(4, 6), "ws": scales(6), "wz": ints(6), "w2": ints(6, 3)}
    moves(case(text, {**NUMBERS, **weights}), factorial(6))


def test_onnxruntime_products_of_integers() -> None:
    text = """g (float[n, 4] x) => (float[n, 3] y) {
        a = com.microsoft.DynamicQuantizeMatMul(x, w1, ws, wz, b)
        q = QuantizeLinear(a, s, z)
        y = com.microsoft.MatMulIntegerToFloat(q, w2, s, v, z, n, c)
    }"""
    weights = {
        "w1": ints(4, 6), "ws": scales(6), "wz": ints(6), "b": scales(6), "w2": ints(6, 3), "v": scales(3),
        "n": ints(3), "c": scales(3),
    }  # fmt: skip
    moves(case(text, {**NUMBERS, **weights}), factorial(6))


@pytest.mark.parametrize("rounded", [False, True])
def test_quantized_gemm(rounded: bool) -> None:
    tail = ", , t, o" if rounded else ""
    text = f"""g (uint8[n, 4] x) => ({"uint8" if rounded else "float"}[n, 3] y) {{
        a = com.microsoft.QGemm<transB = 1>(x, s, z, w1, ws, wz, b, t, o)
        y = com.microsoft.QGemm(a, t, o, w2, s, n{tail})
    }}"""
    weights = {
        "w1": ints(6, 4), "ws": scales(6), "wz": ints(6), "b": ints(6, dtype=np.int32),
        "w2": ints(6, 3), "n": np.array(0, np.int8),
    }  # fmt: skip
    moves(case(text, {**NUMBERS, **weights}), factorial(6))


POINTWISE = {
    "add": ("h = com.microsoft.QLinearAdd(a, t, o, v, s, z, t, o)", 720),
    "multiply": ("h = com.microsoft.QLinearMul(a, t, o, v, s, z, t, o)", 720),
    "sigmoid": ("h = com.microsoft.QLinearSigmoid(a, t, o, e, z)", 720),
    "softmax": ("h = com.microsoft.QLinearSoftmax<axis = 1, opset = 13>(a, t, o, e, z)", 720),
    "where": ("h = com.microsoft.QLinearWhere(m, a, t, o, v, s, z, t, o)", 720),
    "concatenation": (
        """k = com.microsoft.QLinearConcat<axis = 1>(t, o, a, t, o, v2, s, z)
        h = Slice(k, one, seven, one)""", 120,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_operators_pass_their_axes(name: str) -> None:
    body, expected = POINTWISE[name]
    text = f"""g (uint8[3, 4] x) => (uint8[3, 3] y) {{
        a = QLinearMatMul(x, s, z, w1, s, n, t, o)
        {body}
        y = QLinearMatMul(h, t, o, w2, s, n, t, o)
    }}"""
    weights = {
        "w1": ints(4, 6), "w2": ints(6, 3), "n": np.array(0, np.int8), "e": np.array(2.0**-8, np.float32),
        "v": ints(6, dtype=np.uint8, low=0), "v2": ints(3, 2, dtype=np.uint8, low=0),
        "m": np.array([[True], [False], [True]]), "one": np.array([1]), "seven": np.array([7]),
    }  # fmt: skip
    moves(case(text, {**NUMBERS, **weights}), expected)


POOLS = {
    "average": "p = com.microsoft.QLinearAveragePool<kernel_shape = [2, 2]>(a, t, o, t, o)",
    "global": "p = com.microsoft.QLinearGlobalAveragePool(a, t, o, t, o)",
    "last": """i = Transpose<perm = [0, 2, 3, 1]>(a)
        j = com.microsoft.QLinearGlobalAveragePool<channels_last = 1>(i, t, o, t, o)
        p = Transpose<perm = [0, 3, 1, 2]>(j)""",
    "maximum": """i = Transpose<perm = [0, 2, 3, 1]>(a)
        j = com.microsoft.NhwcMaxPool<kernel_shape = [2, 2]>(i)
        p = Transpose<perm = [0, 3, 1, 2]>(j)""",
}


@pytest.mark.parametrize("name", POOLS)
def test_pooling_passes_channels(name: str) -> None:
    text = f"""g (uint8[2, 3, 4, 4] x) => (uint8[2, 2, u, v] y) {{
        a = QLinearConv(x, s, z, w1, s, n, t, o)
        {POOLS[name]}
        y = QLinearConv(p, t, o, w2, s, n, t, o)
    }}"""
    weights = {"w1": ints(5, 3, 1, 1), "w2": ints(2, 5, 1, 1), "n": np.array(0, np.int8)}
    moves(case(text, {**NUMBERS, **weights}), factorial(5))


def test_blocks_move_whole_and_positions_within_them() -> None:
    """Twelve inputs in three blocks of four: the blocks change places, and the four of each."""
    text = """g (float[n, 4] x) => (float[n, 3] y) {
        a = MatMul(x, w1)
        r = Tanh(a)
        d = DequantizeLinear<axis = 0, block_size = 4>(q, bs, bz)
        y = MatMul(r, d)
    }"""
    weights = {"w1": scales(4, 12), "q": ints(12, 3), "bs": scales(3, 3), "bz": ints(3, 3)}
    moves(case(text, weights), factorial(3) * factorial(4) ** 3)


def test_activations_quantized_in_blocks() -> None:
    text = """g (float[3, 4] x) => (float[3, 3] y) {
        a = MatMul(x, w1)
        q = QuantizeLinear<axis = 1, block_size = 2>(a, bs)
        d = DequantizeLinear<axis = 1, block_size = 2>(q, bs)
        y = MatMul(d, w2)
    }"""
    weights = {"w1": scales(4, 6), "w2": scales(6, 3), "bs": scales(3, 3)}
    example = case(text, weights)
    assert order(example) == factorial(3) * 2**3
    assert [check(example, seed, as_it_is).problem for seed in range(4)] == [""] * 4


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.float8_e4m3fn])
def test_small_types_move_with_their_scales(dtype: Any) -> None:
    text = """g (float[n, 4] x) => (float[n, 3] y) {
        d = DequantizeLinear<axis = 1>(q, ws)
        a = MatMul(x, d)
        r = Relu(a)
        e = DequantizeLinear<axis = 0>(p, vs)
        y = MatMul(r, e)
    }"""
    small = {"q": ints(4, 6, low=0, high=8).astype(dtype), "p": ints(6, 3, low=0, high=8).astype(dtype)}
    moves(case(text, {**small, "ws": scales(6), "vs": scales(6)}), factorial(6))


def packed(n: int, k: int, block: int, bits: int, prefix: str, zero_points: bool) -> dict[str, Array]:
    blocks = k // block
    made = {
        f"{prefix}w": RNG.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8),
        f"{prefix}s": scales(n * blocks),
    }
    if zero_points:
        size = n * -(-blocks * bits // 8)
        made[f"{prefix}z"] = RNG.integers(0, 256, size).astype(np.uint8)
    return made


@pytest.mark.parametrize(
    ("bits", "zero_points", "expected"),
    [(4, False, 6), (8, False, 6), (8, True, 6), (4, True, 1)],
)
def test_packed_weights_move_in_whole_blocks(bits: int, zero_points: bool, expected: int) -> None:
    """A hidden axis of 48 that the second product reads in three blocks of 16."""
    z = "vz" if zero_points else ""
    text = f"""g (float[n, 4] x) => (float[n, 3] y) {{
        a = MatMul(x, w1)
        r = Relu(a)
        y = com.microsoft.MatMulNBits<K = 48, N = 3, bits = {bits}, block_size = 16>(r, vw, vs, {z})
    }}"""
    moves(case(text, {"w1": scales(4, 48), **packed(3, 48, 16, bits, "v", zero_points)}), expected)


@pytest.mark.parametrize("zero_points", [False, True])
def test_rows_of_packed_weights_move(zero_points: bool) -> None:
    z = "vz" if zero_points else ""
    text = f"""g (float[n, 32] x) => (float[n, 3] y) {{
        a = com.microsoft.MatMulNBits<K = 32, N = 6, bits = 4, block_size = 16>(x, vw, vs, {z}, , b)
        r = Relu(a)
        y = MatMul(r, w2)
    }}"""
    weights = {"w2": scales(6, 3), "b": scales(6), **packed(6, 32, 16, 4, "v", zero_points)}
    moves(case(text, weights), factorial(6))


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu", "Clip", "HardSigmoid", "Tanh", "Sigmoid"])
def test_fused_convolutions(activation: str) -> None:
    parameters = {"LeakyRelu": "0.1", "Clip": "-1.0, 2.0", "HardSigmoid": "0.2, 0.5"}.get(activation)
    extra = f", activation_params = [{parameters}]" if parameters else ""
    text = f"""g (float[2, 3, 4, 4] x) => (float[2, 2, u, v] y) {{
        a = Conv(x, w1)
        h = com.microsoft.FusedConv<activation = "{activation}"{extra}>(x, w3, b, a)
        y = Conv(h, w2)
    }}"""
    weights = {"w1": scales(5, 3, 1, 1), "w3": scales(5, 3, 1, 1), "b": scales(5), "w2": scales(2, 5, 1, 1)}
    moves(case(text, weights), factorial(5))


def test_fused_gemm() -> None:
    text = """g (float[n, 4] x) => (float[n, 3] y) {
        a = com.microsoft.FusedGemm<activation = "Tanh", transB = 1>(x, w1, b)
        y = MatMul(a, w2)
    }"""
    moves(case(text, {"w1": scales(6, 4), "b": scales(6), "w2": scales(6, 3)}), factorial(6))


def test_a_scale_for_each_position_of_a_contracted_axis_is_refused() -> None:
    text = """g (uint8[n, 4] x) => (uint8[n, 3] y) {
        a = QLinearMatMul(x, s, z, w1, s, n, t, o)
        y = com.microsoft.QLinearAdd(a, v, o, a, t, o, t, o)
    }"""
    constants = {**NUMBERS, "w1": ints(4, 3), "n": np.array(0, np.int8), "v": scales(3)}
    found = symmetry(load(case(text, constants).proto))
    assert [b.reason for b in found.trace.unsupported] == ["a scale or zero point of more than one number"]


def lstm(directions: int, per_row: bool, path: Path) -> Case:
    """What dynamic quantization makes of x[t, n, 5] -> LSTM with 6 units -> y[t, n, 3]."""
    h, direction = 6, "bidirectional" if directions == 2 else "forward"
    text = f"""lstm (float[t, n, 5] x) => (float[t, n, 3] y) {{
        a = LSTM<hidden_size = {h}, direction = "{direction}">(x, w, r, b)
        m = Transpose<perm = [0, 2, 1, 3]>(a)
        f = Reshape(m, s)
        y = MatMul(f, v)
    }}"""
    constants = {
        "w": RNG.normal(size=(directions, 4 * h, 5)), "r": RNG.normal(size=(directions, 4 * h, h)),
        "b": RNG.normal(size=(directions, 8 * h)), "v": RNG.normal(size=(directions * h, 3)),
    }  # fmt: skip
    floats = {name: (array / 2).astype(np.float32) for name, array in constants.items()}
    onnx.save(case(text, {**floats, "s": np.array([0, 0, directions * h])}, 17).proto, path)
    quantize_dynamic(path, path, op_types_to_quantize=["LSTM", "MatMul"], per_channel=per_row)
    proto = onnx.load(path)
    assert "DynamicQuantizeLSTM" in {node.op_type for node in proto.graph.node}
    return Case(proto, [{"x": RNG.normal(size=(4, 2, 5)).astype(np.float32)} for _ in range(2)])


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("directions", [1, 2])
def test_units_of_a_quantized_lstm_move_with_their_gates(
    directions: int, per_row: bool, tmp_path: Path
) -> None:
    example = lstm(directions, per_row, tmp_path / "lstm.onnx")
    # Some processors saturate sums of bytes, in an order of their own; apart from that no bit changes.
    moves(example, factorial(6) ** directions, lambda model: guarded(model).to_proto())
    model = load(example.proto)
    twin = onnxcanon.scramble(model, seed=1)
    assert twin.transform.changes.keys() >= {"w_quantized", "r_quantized", "b", "v_quantized"}
    assert onnxcanon.verify(model, twin.model).same
    assert onnxcanon.fingerprint(model) == onnxcanon.fingerprint(twin.model)


def test_one_changed_entry_of_a_quantized_lstm_shows(tmp_path: Path) -> None:
    model = load(lstm(1, False, tmp_path / "lstm.onnx").proto)
    entries = model.tensor("r_quantized").copy()
    entries[0, 0, 0] ^= 8
    assert not onnxcanon.verify(model, model.with_tensors({"r_quantized": lambda: entries})).same
