"""Operators that read some axes by position: those stay, the others pass, and no more than that."""

from __future__ import annotations

from math import factorial

import numpy as np
import onnx
import pytest

from onnxcanon.model import load
from onnxcanon.symmetry import symmetry
from onnxcanon.tracing.rules import SYMMETRIES
from tests.fuzz.builder import Array
from tests.fuzz.check import check
from tests.fuzz.graphs import Case
from tests.test_quantized import case, fresh, order, scales  # noqa: F401 - a fixture

INT = np.int64
SIX = factorial(6)
DEAD = 24 * 2 * 2
"""Four columns that are kept, two that are written, and the two of the first weight that are lost by that."""


def i(*values: int) -> Array:
    return np.array(values, INT)


def kept(example: Case, expected: int) -> None:
    """The permutations number `expected`; random elements keep the outputs, and half of one does not."""
    assert order(example) == expected
    reports = [check(example, seed) for seed in range(4)]
    assert [r.problem for r in reports] == [""] * 4
    assert not any(r.barriers for r in reports)
    controls = [r.control for r in reports if r.control is not None]
    assert not controls or any(controls) or expected == 1


MATRICES: dict[str, tuple[str, dict[str, Array], int]] = {
    # x[3, 4] -> a[3, 6] -> h[*, 6] -> y[*, 3]
    "gathered rows": ("h = GatherND(a, r)", {"r": np.array([[2], [0], [1]])}, SIX),
    "gathered entries": ("h = GatherND(a, r)", {"r": np.array([[[0, k] for k in (3, 1, 2, 0, 5, 4)]])}, 1),
    "gathered along rows": (
        "h = GatherElements<axis = 0>(a, r)", {"r": np.array([[2], [2], [0]]).repeat(6, 1)}, SIX,
    ),
    "gathered along rows, each column by itself": (
        "h = GatherElements<axis = 0>(a, r)", {"r": np.array([[0, 1, 2, 0, 1, 2], [1, 1, 1, 0, 0, 0]])}, 1,
    ),
    "gathered columns": (
        "h = GatherElements<axis = 1>(a, r)", {"r": np.array([[5, 4, 3, 2, 1, 0]] * 3)}, SIX,
    ),
    "scattered rows": (
        "h = ScatterND(a, r, u)", {"r": np.array([[2], [0]]), "u": scales(2, 6)}, SIX,
    ),
    "added rows": (
        'h = ScatterND<reduction = "add">(a, r, u)', {"r": np.array([[2], [2]]), "u": scales(2, 6)}, SIX,
    ),
    "a scattered block": (
        "h = ScatterND(a, r, u)",
        {"r": np.array([[[p, c] for c in range(6)] for p in (2, 0)]), "u": scales(2, 6)}, SIX,
    ),
    "some scattered columns": (
        "h = ScatterND(a, r, u)",
        {"r": np.array([[[p, c] for c in (4, 1)] for p in range(3)]), "u": scales(3, 2)}, DEAD,
    ),
    "scattered entries": ("h = ScatterND(a, r, u)", {"r": np.array([[0, 1], [2, 5]]), "u": scales(2)}, 1),
    "scattered along rows": (
        "h = ScatterElements<axis = 0>(a, r, u)", {"r": np.array([[1] * 6]), "u": scales(1, 6)}, SIX,
    ),
    "scattered along columns": (
        "h = ScatterElements<axis = 1>(a, r, u)", {"r": np.array([[5, 0]] * 3), "u": scales(3, 2)}, DEAD,
    ),
    "multiplied along rows": (
        'h = ScatterElements<axis = 0, reduction = "mul">(a, r, u)',
        {"r": np.array([[1] * 6, [1] * 6]), "u": scales(2, 6)}, SIX,
    ),
    "scattered by columns of their own": (
        "h = ScatterElements<axis = 0>(a, r, u)", {"r": np.array([[1, 0, 2, 1, 0, 2]]), "u": scales(1, 6)}, 1,
    ),
    "compressed rows": ("h = Compress<axis = 0>(a, c)", {"c": np.array([True, False, True])}, SIX),
    "a triangle": ("h = Trilu(a)", {}, 1),
    "reversed columns": (
        "h = ReverseSequence<time_axis = 1, batch_axis = 0>(a, l)", {"l": i(2, 6, 1)}, 1,
    ),
    "a product of what came before": ("h = CumProd<axis = 1>(a, one)", {}, 1),
    "sums of rows before": ("h = CumSum(a, zero)", {"zero": np.array(0, INT)}, SIX),
    "sequences": (
        """s = SequenceConstruct(a, b)
        t = SequenceInsert(s, a, m)
        v = SequenceErase(t, m)
        l = SequenceLength(v)
        h = SequenceAt(v, z)""", {"b": scales(3, 6), "m": np.array(1, INT), "z": np.array(0, INT)}, SIX,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MATRICES)
def test_axes_that_are_not_indexed_pass(name: str) -> None:
    if "CumProd" in MATRICES[name][0]:
        pytest.skip("onnxruntime does not run it")
    body, constants, expected = MATRICES[name]
    text = f"g (float[3, 4] x) => (float[n, 3] y) {{ a = MatMul(x, w1)\n {body}\n y = MatMul(h, w2) }}"
    example = case(text, {"w1": scales(4, 6), "w2": scales(6, 3), **constants})
    kept(example, expected)


def test_the_axis_before_others_passes_a_triangle_and_reversed_sequences() -> None:
    text = """g (float[3, 4, 5] x) => (float[2, 4, 5] y) {
        a = Einsum<equation = "ijk,il->ljk">(x, w1)
        p = Trilu<upper = 0>(a)
        q = Transpose<perm = [1, 2, 0]>(p)
        r = ReverseSequence<time_axis = 0, batch_axis = 1>(q, l)
        y = Einsum<equation = "jkl,lm->mjk">(r, w2)
    }"""
    kept(case(text, {"w1": scales(3, 6), "w2": scales(6, 2), "l": i(2, 4, 1, 3, 2)}), SIX)


def test_channels_pass_a_fourier_transform() -> None:
    text = """g (float[2, 3, 8] x) => (float[2, 5, 2, 2] y) {
        a = Einsum<equation = "ijk,jl->ilk">(x, w1)
        u = Unsqueeze(a, last)
        t = DFT<onesided = 1>(u, , axis)
        y = Einsum<equation = "ilkc,lm->ikmc">(t, w2)
    }"""
    constants = {"w1": scales(3, 6), "w2": scales(6, 2), "last": i(3), "axis": np.array(2, INT)}
    kept(case(text, constants, opset=20), SIX)


def test_the_axes_of_indices_pass_one_hot() -> None:
    text = """g (float[3, 4] x) => (float[5, 3, 3] y) {
        a = MatMul(x, w1)
        c = Clip(a, low, high)
        k = Cast<to = 7>(c)
        o = OneHot<axis = 0>(k, depth, values)
        y = MatMul(o, w2)
    }"""
    constants = {
        "w1": scales(4, 6), "w2": scales(6, 3), "depth": np.array(5, INT),
        "values": np.array([-1, 2], np.float32), "low": np.array(0, np.float32),
        "high": np.array(4, np.float32),
    }  # fmt: skip
    kept(case(text, constants), SIX)


def test_the_index_itself_stays() -> None:
    """The new axis of OneHot selects rows of a table."""
    text = """g (float[3, 4] x) => (float[3, 6] y) {
        k = ArgMax<axis = 1, keepdims = 0>(x)
        o = OneHot(k, depth, values)
        h = MatMul(o, w1)
        y = MatMul(h, w2)
    }"""
    constants = {
        "w1": scales(4, 5), "w2": scales(5, 6), "depth": np.array(4, INT),
        "values": np.array([0, 1], np.float32),
    }  # fmt: skip
    kept(case(text, constants), factorial(5))


IMAGES: dict[str, tuple[str, dict[str, Array], int]] = {
    # x[2, 3, 4, 4] -> a[2, 6, 4, 4] -> h[*, 6, *, *] -> y[*, 2, *, *]
    "a grid": ("h = GridSample(a, g)", {"g": scales(2, 3, 5, 2)}, SIX),
    "regions": (
        "h = RoiAlign<output_height = 2, output_width = 2>(a, g, b)",
        {"g": np.array([[0, 0, 3, 3], [1, 1, 2, 3], [0, 1, 2, 2]], np.float32), "b": i(0, 1, 1)}, SIX,
    ),
    "largest of regions": (
        'h = RoiAlign<mode = "max", output_height = 2, output_width = 2>(a, g, b)',
        {"g": np.array([[0, 0, 3, 3], [1, 1, 2, 3]], np.float32), "b": i(0, 1)}, SIX,
    ),
    "old regions": (
        "h = MaxRoiPool<pooled_shape = [2, 2]>(a, g)",
        {"g": np.array([[0, 0, 0, 3, 3], [1, 1, 1, 2, 3]], np.float32)}, SIX,
    ),
    "a cut": ("h = CenterCropPad<axes = [2, 3]>(a, g)", {"g": i(2, 6)}, SIX),
    "columns": (
        """r = Reshape(a, s)
        h = Col2Im(r, size, block)""", {"s": i(2, 24, 4), "size": i(5, 2), "block": i(2, 2)}, SIX,
    ),
    "offsets": (
        "h = DeformConv(a, w, g, bias)",
        {"w": scales(5, 6, 2, 2), "g": scales(2, 8, 3, 3), "bias": scales(5), "w2": scales(2, 5, 1, 1)},
        SIX * factorial(5),
    ),
    "maxima put back": (
        """p, q = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a)
        h = MaxUnpool<kernel_shape = [2, 2], strides = [2, 2]>(p, q)""", {}, 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_channels_pass_what_moves_image_positions(name: str) -> None:
    body, constants, expected = IMAGES[name]
    text = f"""g (float[2, 3, 4, 4] x) => (float[n, 2, u, v] y) {{
        a = Conv(x, w1)
        {body}
        y = Conv(h, w2)
    }}"""
    made = {"w1": scales(6, 3, 1, 1), "w2": scales(2, 6, 1, 1), **constants}
    kept(case(text, made, opset=22 if "Deform" in body else 18), expected)


SCALED = "1.5, 0.5, 1.0, 2.0, 3.0, 0.25"
CLASSICAL = {
    "features": ("h = ai.onnx.ml.ArrayFeatureExtractor(a, r)", SIX),
    "norms": ('h = ai.onnx.ml.Normalizer<norm = "L2">(a)', SIX),
    "thresholds": ("h = ai.onnx.ml.Binarizer<threshold = 0.5>(a)", SIX),
    "scalers": (f"h = ai.onnx.ml.Scaler<offset = [{SCALED}], scale = [{SCALED}]>(a)", 1),
    "a new axis": ("e = com.microsoft.ExpandDims(a, one)\n h = Squeeze(e, axes)", SIX),
}


@pytest.mark.parametrize("name", CLASSICAL)
def test_classical_operators(name: str) -> None:
    body, expected = CLASSICAL[name]
    text = f"g (float[3, 4] x) => (float[n, 3] y) {{ a = MatMul(x, w1)\n {body}\n y = MatMul(h, w2) }}"
    constants = {"r": i(5, 0, 3, 2, 4, 1), "one": np.array(1, np.int32), "axes": i(1)}
    example = case(text, {"w1": scales(4, 6), "w2": scales(6, 3), **constants})
    example.proto.opset_import.add(domain="ai.onnx.ml", version=3)
    kept(example, expected)


@pytest.mark.parametrize(
    "body",
    [
        "m = Multinomial<sample_size = 4>(a)\n h = Cast<to = 1>(m)",
        "h = Bernoulli(a)",
        "u = Unique<sorted = 1>(a)\n h = Expand(u, s)",
        "z = NonZero(a)\n h = Cast<to = 1>(z)",
    ],
)
def test_what_positions_decide_holds_them(body: str) -> None:
    text = f"g (float[3, 4] x) => (float[n, m] y) {{ a = MatMul(x, w1)\n {body}\n y = Neg(h) }}"
    found = symmetry(load(case(text, {"w1": scales(4, 6), "s": i(1, 1)}).proto))
    assert found.trivial
    assert not found.trace.unsupported


def test_an_integer_weight_that_indexes_stays() -> None:
    """The indices are a weight too: what one use reads by value no other use may move."""
    text = """g (float[3, 4] x) => (float[3, 6] y) {
        a = MatMul(x, w1)
        h = GatherElements<axis = 1>(a, r)
        f = Cast<to = 1>(r)
        b = MatMul(h, w2)
        y = Add(b, f)
    }"""
    rows = np.array([[5, 4, 3, 2, 1, 0]] * 3, np.int32)
    example = case(text, {"w1": scales(4, 6), "w2": scales(6, 6), "r": rows})
    assert [check(example, seed).problem for seed in range(4)] == [""] * 4


EXOTIC = {"If", "Loop", "Scan", "SequenceMap", "Constant", "RotaryEmbedding"}
"""Operators with bodies, which the walk does not enter; a leaf; and one that is newer than these rules."""


def test_no_operator_of_the_standard_is_without_a_rule() -> None:
    names = {
        s.name for s in onnx.defs.get_all_schemas_with_history() if not s.domain and s.since_version <= 24
    }
    assert {name for name in names if ("", name) not in SYMMETRIES} <= EXOTIC
    classical = {s.name for s in onnx.defs.get_all_schemas_with_history() if s.domain == "ai.onnx.ml"}
    assert {name for name in classical if ("ai.onnx.ml", name) not in SYMMETRIES} == set()
