"""Points of the line between two models, with weights that stay on a device, are those of other sessions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

import onnxcanon as oc
from onnxcanon.landscape import barrier as curves
from onnxcanon.landscape.paths import path as path_between
from onnxcanon.merging.averaging import expressed_in
from onnxcanon.model import Model, load
from onnxcanon.runtime.sessions import open_session
from onnxcanon.runtime.weights import on_device
from onnxcanon.runtime.weights.on_device import DeviceLine, differing, line_fits_device
from tests.devices import needs_cuda
from tests.examples import build
from tests.shared import ROOT, SHARED, TWINS, each
from tests.test_swapping import feeds, other_weights

MODELS = sorted((ROOT / "models").glob("*_seed0.onnx"))
MERGED = sorted((SHARED / "twins").glob("merge_*/seed_0.onnx"))
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]


def assert_mixes(model: Model, device: str, tolerance: float = 1e-5) -> None:
    """Ends and points between, each different from the others, are what models built anew compute."""
    other, given = other_weights(model), feeds(model)
    seen = set()
    along = path_between("linear", model, other)
    with DeviceLine(model, other, device=device, optimize=True) as mix:
        for alpha in (0.0, 0.3, 1.0, 0.3):
            found = mix.at(alpha).run(given)
            with open_session(along(alpha), device=device, optimize=True) as fresh:
                expected = fresh.run(given)
            for name, array in expected.items():
                np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance * np.abs(array).max())
            seen.add(next(iter(found.values())).tobytes())
    assert len(seen) == 3


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", each(MODELS, [folder / "base.onnx" for folder in TWINS], MERGED))
def test_points_are_those_of_models_built_anew(path: Path, device: str) -> None:
    model = load(path)
    assert_mixes(model, device)


@pytest.mark.parametrize("kind", ["float16", "float64"])
@pytest.mark.parametrize("device", DEVICES)
def test_other_types_are_mixed_too(kind: str, device: str) -> None:
    code = TensorProto.FLOAT16 if kind == "float16" else TensorProto.DOUBLE
    text = f"""net (float[n, 8] x) => (float[n, 8] y) {{
        h = Cast <to = {code}> (x)
        a = MatMul(h, w)
        y = Cast <to = 1> (a)
    }}"""
    weight = np.random.default_rng(0).normal(size=(8, 8)).astype(kind)
    assert_mixes(build(text, {"w": weight}), device, 2e-3 if kind == "float16" else 1e-6)


def test_what_is_equal_stays_in_the_graph() -> None:
    text = """net (float[n, 4] x) => (float[n, 4] y) {
        h = MatMul(x, w)
        y = Clip(h, low, high)
    }"""
    limits = {"low": np.array(-1, np.float32), "high": np.array(1, np.float32)}
    model = build(text, {"w": np.eye(4, dtype=np.float32), **limits})
    other = model.with_tensors({"w": np.eye(4, dtype=np.float32) * 3})
    assert differing(model, other) == ["w"]
    with DeviceLine(model, other, device="cpu") as mix:
        found = mix.at(0.5).run({"x": np.full((1, 4), 0.25, np.float32)})
    np.testing.assert_array_equal(found["y"], np.full((1, 4), 0.5, np.float32))


def test_constants_of_nodes_are_for_other_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_device, "providers_for", lambda _: ("cuda:0", []))
    text = """net (float[n, 4] x) => (float[n, 4] y) {
        w = Constant <value = float[4] {1, 2, 3, 4}> ()
        y = Mul(x, w)
    }"""
    model = build(text, {})
    (name,) = model.tensor_names()
    assert line_fits_device(model, model, "cuda")
    assert not line_fits_device(model, model.with_tensors({name: np.ones(4, np.float32)}), "cuda")


def test_on_a_cpu_sessions_are_made_anew() -> None:
    model = load(MODELS[0])
    assert not line_fits_device(model, other_weights(model), "cpu")


def test_curves_are_the_same_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (load(ROOT / "models" / f"digits_resnet_seed{k}.onnx") for k in (0, 1))
    with np.load(ROOT / "models" / "digits_eval.npz") as file:
        data = dict(file)
    swapped = oc.barrier(a, b, data, points=5, device="cpu", align="none")
    used = []

    def on_any_device(a: Model, b: Model, device: str) -> bool:
        used.append(device)
        return True

    monkeypatch.setattr(curves, "line_fits_device", on_any_device)
    mixed = oc.barrier(a, b, data, points=5, device="cpu", align="none")
    assert used == ["cpu"]
    assert mixed.alphas == swapped.alphas
    np.testing.assert_allclose(mixed.loss, swapped.loss, rtol=1e-5)
    assert mixed.accuracy == swapped.accuracy


@needs_cuda
def test_curves_on_cuda_are_those_on_the_cpu() -> None:
    a, b = (load(ROOT / "models" / f"digits_resnet_seed{k}.onnx") for k in (0, 1))
    with np.load(ROOT / "models" / "digits_eval.npz") as file:
        data = dict(file)
    assert line_fits_device(a, expressed_in(a, b), "cuda")
    for options in ({}, {"path": "geodesic"}, {"repair": "rescale"}):
        one, other = (
            oc.barrier(a, b, data, points=5, device=device, **options) for device in ("cuda", "cpu")
        )
        assert one.device == "cuda:0"
        for curve in ("before", "aligned"):
            np.testing.assert_allclose(one.curves[curve].loss, other.curves[curve].loss, rtol=1e-3)


@needs_cuda
def test_methods_that_run_models_run_on_cuda() -> None:
    a, b = (load(ROOT / "models" / f"digits_mlp_seed{k}.onnx") for k in (0, 1))
    with np.load(ROOT / "models" / "digits_calib.npz") as file:
        data = dict(file)
    for method in ("activations", "functional", "annealing"):
        there, here = (oc.align(a, b, method=method, data=data, device=device) for device in ("cuda", "cpu"))
        assert oc.verify(b, there.model, device="cuda").same
        assert there.distance == pytest.approx(here.distance, rel=0.02)
