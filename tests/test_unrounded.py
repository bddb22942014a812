"""Quantized models without their rounding: near the rounded ones, alike for twins, sharp for all else."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxcanon.model import Model, load
from onnxcanon.symmetry import symmetry
from onnxcanon.verifying.noise import rounds_to_integers
from onnxcanon.verifying.overflow_guard import guarded
from onnxcanon.verifying.smooth.model import smooth_model
from onnxcanon.verifying.smooth.scales import Unroundable
from tests.fuzz.builder import Array
from tests.running import run, verify
from tests.shared import SHARED
from tests.test_quantized import NUMBERS, RNG, case, fresh, ints, packed, scales  # noqa: F401 - a fixture

BYTE = np.array(0, np.int8)
ONE_STEP = {
    "a convolution": """y = QLinearConv<pads = [1, 1, 1, 1]>(x, s, z, w, ws, wz, t, o, b)""",
    "channels last": """i = Transpose<perm = [0, 2, 3, 1]>(x)
        j = com.microsoft.QLinearConv<channels_last = 1>(i, s, z, w, ws, wz, t, o, b)
        y = Transpose<perm = [0, 3, 1, 2]>(j)""",
    "matrices": "y = QLinearMatMul(x, s, z, m, ms, mz, t, o)",
    "a sum": "y = com.microsoft.QLinearAdd(x, s, z, k, e, z, t, o)",
    "a product": "y = com.microsoft.QLinearMul(x, s, z, k, e, z, t, o)",
    "a sigmoid": "y = com.microsoft.QLinearSigmoid(x, s, z, e, z)",
    "a leaky rectifier": "y = com.microsoft.QLinearLeakyRelu<alpha = 0.3>(x, s, z, e, o)",
    "a choice": "y = com.microsoft.QLinearWhere(c, x, s, z, k, e, z, t, o)",
    "a concatenation": "y = com.microsoft.QLinearConcat<axis = 1>(t, o, x, s, z, x, e, z)",
    "means": "y = com.microsoft.QLinearAveragePool<kernel_shape = [2, 2]>(x, s, z, e, o)",
    "means of everything": "y = com.microsoft.QLinearGlobalAveragePool(x, s, z, e, o)",
    "means, channels last": "y = com.microsoft.QLinearGlobalAveragePool<channels_last = 1>(x, s, z, e, o)",
    "maxima": "y = com.microsoft.NhwcMaxPool<kernel_shape = [2, 2]>(x)",
    "quantization": """d = DequantizeLinear(x, s, z)
        f = Mul(d, d)
        y = QuantizeLinear(f, t, o)""",
    "quantization of each channel": """d = DequantizeLinear(x, s, z)
        y = QuantizeLinear<axis = 1>(d, cs, cz)""",
    "quantization of each block": """d = DequantizeLinear(x, s, z)
        y = QuantizeLinear<axis = 3, block_size = 2>(d, fs, fz)""",
    "a cast": """d = DequantizeLinear(x, s, z)
        f = Mul(d, s)
        r = Round(f)
        l = Clip(r, low, high)
        y = Cast<to = 2>(l)""",
}


def numbers() -> dict[str, Array]:
    return {
        **NUMBERS, "w": ints(5, 3, 3, 3), "ws": scales(5), "wz": 0 * ints(5), "b": ints(5, dtype=np.int32),
        "m": ints(4, 6), "ms": scales(6), "mz": ints(6), "k": ints(3, 1, 1, dtype=np.uint8, low=0),
        "e": np.array(0.125, np.float32), "c": np.array([True, False, True, False]),
        "cs": 0.3 + RNG.random(3, np.float32),
        "fs": 0.3 + RNG.random((2, 3, 4, 2), np.float32),
        "fz": ints(2, 3, 4, 2, dtype=np.uint8, low=0),
        "cz": ints(3, dtype=np.uint8, low=0), "low": np.array(0, np.float32),
        "high": np.array(255, np.float32),
    }  # fmt: skip


@pytest.mark.parametrize("name", ONE_STEP)
def test_one_operator_without_rounding_is_within_half_a_step(name: str) -> None:
    text = f"g (uint8[2, 3, 4, 4] x) => (uint8[a, b1, c1, d1] y) {{ {ONE_STEP[name]} }}"
    example = case(text, numbers())
    model = load(example.proto)
    smooth = smooth_model(model)
    for feed in example.feeds:
        steps, free = run(model, feed, device="cpu")["y"], run(smooth, feed, device="cpu")["y"]
        assert free.dtype == np.float32
        assert steps.std() > 0
        assert np.abs(np.clip(free, 0, 255) - steps).max() <= 0.5 + 1e-3
        if name not in ("maxima", "a concatenation"):
            assert (free != np.round(free)).any()


EXACT = {
    "integer convolution": """i = ConvInteger<pads = [1, 1, 1, 1]>(x, w, z, n)
        y = Cast<to = 1>(i)""",
    "integer product": """i = MatMulInteger(x, m, z, mz)
        y = Cast<to = 1>(i)""",
    "product to floats": "y = com.microsoft.MatMulIntegerToFloat(x, m, s, ms, z, mz, ms)",
    "product of blocks": """d = DequantizeLinear<axis = 0, block_size = 2>(m, bs, bz)
        f = DequantizeLinear(x, s, z)
        q = QuantizeLinear(f, s, z)
        g = DequantizeLinear(q, s, z)
        y = MatMul(g, d)""",
}


@pytest.mark.parametrize("name", EXACT)
def test_sums_of_integers_are_the_same_in_floats(name: str) -> None:
    text = f"g (uint8[2, 3, 4, 4] x) => (float[a, b1, c1, d1] y) {{ {EXACT[name]} }}"
    blocks = {"bs": scales(2, 6), "bz": ints(2, 6), "n": np.array(2, np.int8)}
    example = case(text, {**numbers(), **blocks})
    model = load(example.proto)
    for feed in example.feeds:
        steps, free = (run(m, feed, device="cpu")["y"] for m in (model, smooth_model(model)))
        np.testing.assert_allclose(free, steps, rtol=1e-5)


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("turned", [0, 1])
def test_a_quantized_gemm_without_rounding(rounded: bool, turned: int) -> None:
    tail = ", t, o" if rounded else ""
    text = f"""g (uint8[n, 4] x) => ({"uint8" if rounded else "float"}[n, 6] y) {{
        y = com.microsoft.QGemm<alpha = 0.5, transB = {turned}>(x, s, z, m, ms, mz, b{tail})
    }}"""
    constants = {**numbers(), "b": ints(6, dtype=np.int32), "m": ints(*((6, 4) if turned else (4, 6)))}
    example = case(text, constants)
    model = load(example.proto)
    steps, free = (run(m, example.feeds[0], device="cpu")["y"] for m in (model, smooth_model(model)))
    assert np.abs((np.clip(free, 0, 255) if rounded else free) - steps).max() <= (0.501 if rounded else 1e-4)


def chain(kind: str, width: int = 32) -> Model:
    """Two layers over a hidden axis, quantized in one of the usual ways."""
    wide = {
        "w1": ints(16, width, low=-127, high=128), "w2": ints(width, 8, low=-127, high=128),
        "ws": (0.01 * RNG.random(width) + 0.01).astype(np.float32), "vs": np.array(0.01, np.float32),
        "s": np.array(0.031, np.float32), "z": np.array(128, np.uint8), "n": np.array(0, np.int8),
        "wz": 0 * ints(width), "t": np.array(0.4, np.float32), "o": np.array(100, np.uint8),
        "b": ints(width, dtype=np.int32, low=-900, high=900),
    }  # fmt: skip
    bodies = {
        "qdq": """q = QuantizeLinear(x, s, z)
            d = DequantizeLinear(q, s, z)
            f = DequantizeLinear<axis = 1>(w1, ws)
            a = MatMul(d, f)
            r = Relu(a)
            p = QuantizeLinear(r, t, o)
            e = DequantizeLinear(p, t, o)
            g = DequantizeLinear(w2, vs)
            y = MatMul(e, g)""",
        "operators": """q = QuantizeLinear(x, s, z)
            a = QLinearMatMul(q, s, z, w1, ws, wz, t, o)
            r = com.microsoft.QLinearLeakyRelu<alpha = 0.1>(a, t, o, t, o)
            p = QLinearMatMul(r, t, o, w2, vs, n, t, o)
            y = DequantizeLinear(p, t, o)""",
        "dynamic": """q, qs, qz = DynamicQuantizeLinear(x)
            a = MatMulInteger(q, w1, qz)
            c = Cast<to = 1>(a)
            k = Mul(ws, qs)
            d = Mul(c, k)
            r = Relu(d)
            p, ps, pz = DynamicQuantizeLinear(r)
            f = MatMulInteger(p, w2, pz)
            h = Cast<to = 1>(f)
            l = Mul(ps, vs)
            y = Mul(h, l)""",
    }
    text = f"g (float[n, 16] x) => (float[n, 8] y) {{ {bodies[kind]} }}"
    read = bodies[kind].replace("(", " ").replace(")", " ").replace(",", " ").split()
    return load(case(text, {k: v for k, v in wide.items() if k in read}).proto)


KINDS = ("qdq", "operators", "dynamic")


def stepped(model: Model, name: str, where: tuple[int, ...], by: int = 1) -> Model:
    """One integer weight moved."""
    array = model.tensor(name).copy()
    array[where] = int(array[where]) + (by if int(array[where]) < 100 else -by)
    return model.with_tensors({name: array})


def swapped(model: Model, name: str, axis: int) -> Model:
    """The first two positions of one axis of one weight exchanged, which no element of the group does."""
    array = model.tensor(name)
    order = [1, 0, *range(2, array.shape[axis])]
    return model.with_tensors({name: array.take(order, axis)})


@pytest.mark.parametrize("kind", KINDS)
def test_small_models_are_the_same_as_their_twins_only(kind: str) -> None:
    model = chain(kind)
    group = symmetry(model)
    assert group.log10_orbit > 30
    for seed in range(3):
        element = group.random(np.random.default_rng(seed))
        result = verify(model, element.apply(model), device="cpu")
        assert result.same, result
        assert result.outputs["y (without rounding)"].tolerance < 1e-4
        assert result.skipped == {}
    for name, where in (("w1", (3, 4)), ("w2", (5, 6)), ("w1", (0, 9))):
        result = verify(model, stepped(model, name, where), device="cpu")
        assert not result.outputs["y (without rounding)"].same, (name, where)
        assert not result.same
    assert not verify(model, swapped(model, "w1", 1), device="cpu").same
    assert not verify(model, swapped(model, "w2", 0), device="cpu").same


@pytest.mark.parametrize("kind", ["operators", "dynamic"])
def test_sums_of_large_integers_do_not_depend_on_their_order(kind: str) -> None:
    """Some processors saturate in sums of two products, and what meets there depends on the order."""
    model = chain(kind)
    exact = guarded(model)
    dtypes = {exact.tensor_info(name)[1].name for name in exact.tensor_names() if name.endswith("unsigned")}
    assert dtypes == {"UINT8"}
    rng = np.random.default_rng(3)
    twin = guarded(symmetry(model).random(rng).apply(model))
    for _ in range(20):
        feed = {"x": (10.0 ** rng.uniform(-3, 1.5, (3, 16)) * rng.normal(size=(3, 16))).astype(np.float32)}
        one, other = (run(m, feed, device="cpu")["y"] for m in (exact, twin))
        assert one.std() > 0
        assert (one == other).all()


def test_unsigned_weights_compute_the_same() -> None:
    text = f"g (uint8[2, 3, 4, 4] x) => (float[a, b1, c1, d1] y) {{ {EXACT['integer product']} }}"
    example = case(text, numbers())
    model = load(example.proto)
    for feed in example.feeds:
        one, other = (run(m, feed, device="cpu")["y"] for m in (model, guarded(model)))
        assert (one == other).all()


def test_the_reason_says_what_the_smooth_models_do() -> None:
    model = chain("qdq")
    assert "without rounding to integers it is at most 0.0e+00" in verify(model, model, device="cpu").reason


def test_packed_weights_compute_in_floats() -> None:
    text = """g (float[n, 32] x) => (float[n, 6] y) {
        y = com.microsoft.MatMulNBits<K = 32, N = 6, bits = 4, block_size = 16, accuracy_level = 4>(x, vw, vs)
    }"""
    example = case(text, packed(6, 32, 16, 4, "v", False))
    (node,) = smooth_model(load(example.proto)).ir.graph
    assert node.attributes["accuracy_level"].as_int() == 1


OBSTACLES = {
    "indices": ("q = QuantizeLinear(x, s, z)\n i = Cast<to = 7>(q)\n y = Gather(v, i)", "rounded values"),
    "comparisons": ("q = QuantizeLinear(x, s, z)\n e = Equal(q, z)\n y = Cast<to = 1>(e)", "rounded values"),
    "bodies": (
        """y = If(c) <
            then_branch = one () => (float[n, 4] u) {
                q = QuantizeLinear(x, s, z)
                u = DequantizeLinear(q, s, z)
            },
            else_branch = two () => (float[n, 4] v2) { v2 = Identity(x) }>""", "inside its body",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_has_no_form_without_rounding_is_said(name: str) -> None:
    body, why = OBSTACLES[name]
    more = {"v": scales(256), "c": np.array(True)}
    model = load(case(f"g (float[3, 4] x) => (float[a, b1] y) {{ {body} }}", {**NUMBERS, **more}).proto)
    assert rounds_to_integers(model.ir)
    with pytest.raises(Unroundable, match=why):
        smooth_model(model)


def test_verification_falls_back_and_says_so() -> None:
    body, _ = OBSTACLES["comparisons"]
    model = load(case(f"g (float[3, 4] x) => (float[a, b1] y) {{ {body} }}", NUMBERS).proto)
    result = verify(model, model, device="cpu")
    assert result.same
    assert "reads rounded values" in result.skipped["all (without rounding)"]


REAL: dict[str, dict[str, Any]] = {
    "mobilenet-edgetpu-qdq-fragment": {
        "steps": [("const_fold_opt__405_quantized", (16, 96, 0, 0), 1),
                  ("const_fold_opt__437_quantized", (4, 4, 2, 2), 1),
                  ("const_fold_opt__454_quantized", (8, 52, 0, 0), 1)],
        "swap": ("const_fold_opt__405_quantized", 1),
    },
    "mobilenet-v2-qdq-int8": {
        "steps": [("onnx::DequantizeLinear_2195", (316, 0, 1, 2), 1),
                  ("onnx::DequantizeLinear_1924", (375, 8, 0, 0), 1)],
        "swap": ("onnx::DequantizeLinear_1924", 0),
    },
    "smart-turn-v3-whisper-int8": {
        "steps": [("val_238_quantized", (23, 107), 40)],
        "swap": ("val_238_quantized", 1),
    },
}  # fmt: skip


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no models at {SHARED}")
@pytest.mark.parametrize("name", REAL)
def test_quantized_models_are_the_same_as_their_twins_only(name: str) -> None:
    """The group is large, the noise of rounding percents; a step of one weight is seen all the same."""
    model = load(SHARED / "models" / f"{name}.onnx")
    element = symmetry(model).random(np.random.default_rng(0))

    def compared(other: Model) -> Any:
        return verify(model, other, device="cpu", threads=1, samples=2)

    twin = compared(element.apply(model))
    assert twin.same, twin
    assert all(r.tolerance < 1e-4 for n, r in twin.outputs.items() if n.endswith("(without rounding)"))
    for tensor, where, by in REAL[name]["steps"]:
        result = compared(stepped(model, tensor, where, by))
        assert not result.same, result
        assert all(row.same for n, row in result.outputs.items() if not n.endswith("(without rounding)"))
    assert not compared(swapped(model, *REAL[name]["swap"])).same


def test_constants_inside_functions_are_those_of_the_model() -> None:
    """A twin's weights in a local function, beside a graph that rounds."""
    model = load(
        onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
        graph (float[n, 4] x) => (float[n, 4] y) {
            h = local.scaled(x)
            q, s, z = DynamicQuantizeLinear(h)
            y = DequantizeLinear(q, s, z)
        }
        <domain: "local", opset_import: ["" : 21]>
        scaled (a) => (b) {
            w = Constant<value = float[4] {1, 2, 3, 4}>()
            b = Mul(a, w)
        }""")
    )
    [name] = model.tensor_names()
    changed = model.with_tensors({name: model.tensor(name)[::-1].copy()})
    y = run(smooth_model(changed), {"x": np.ones((2, 4), np.float32)}, device="cpu")["y"]
    np.testing.assert_array_equal(y, np.tile(np.array([4, 3, 2, 1], np.float32), (2, 1)))
