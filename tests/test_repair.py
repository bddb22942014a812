"""Repaired statistics are those of the data, or of the models that were averaged; nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxcanon.errors import OnnxcanonError
from onnxcanon.merging.acceptance import ALLOWED_FALL, ALLOWED_MOVEMENT, effect_of_repair
from onnxcanon.merging.averaging import average, expressed_in
from onnxcanon.merging.channel_statistics import ChannelStatistics, measure_channels
from onnxcanon.merging.repair import rescale, reset_bn
from onnxcanon.merging.repair_sites import norm_statistics, repair_sites
from onnxcanon.model import Model, load
from onnxcanon.runtime import batches, sessions
from onnxcanon.settings import Settings
from tests.examples import build, layers, network
from tests.merge_models import SITES, images, residual, statistics
from tests.running import run


def on(data: dict[str, np.ndarray]) -> Settings:
    return Settings(device="cpu", data=data)


SINGLE = 2e-5
"""What rounding to single precision, layer after layer, makes of statistics of size about 1."""


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH", 16)


def pair(make: Callable[[int], Model]) -> tuple[list[Model], Model]:
    """Two models of one graph and their average."""
    first, second = make(0), make(1)
    both = [first, expressed_in(first, second)]
    return both, average(both, (0.25, 0.75))


def test_moments_of_batches_are_those_of_the_whole() -> None:
    """Also where deviations are small beside the mean, which a sum of squares would lose."""
    rows = np.random.default_rng(0).normal(1e4, 1e-2, (1000, 3, 2))
    found = ChannelStatistics()
    for start in (0, 1, 10, 700):
        found.add(rows[start : {0: 1, 1: 10, 10: 700, 700: 1000}[start]], 1)
    assert found.count == 2000
    np.testing.assert_allclose(found.mean, rows.mean((0, 2)), rtol=1e-14)
    np.testing.assert_allclose(found.variance, rows.var((0, 2)), rtol=1e-9)


def test_measured_is_what_a_run_at_once_has(small_batches: None) -> None:
    model, data = residual(normalized=True), images()
    found = measure_channels(model, SITES, on(data))
    for value in SITES:
        mean, variance = statistics(model, value, data)
        np.testing.assert_allclose(found[value].mean, mean, atol=1e-6)
        np.testing.assert_allclose(found[value].variance, variance, rtol=1e-5)


def graph_given_to_onnxruntime(
    model: Model, value: str, inputs: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> tuple[onnx.GraphProto, np.ndarray]:
    """The graph that is opened for one value, and what comes out."""
    sources = []
    real = sessions.start

    def start(label: str, source: bytes, *rest: Any, **options: Any) -> sessions.Session:
        sources.append(onnx.load_from_string(source).graph)
        return real(label, source, *rest, **options)

    monkeypatch.setattr(sessions, "start", start)
    with sessions.open_session(model, device="cpu", only=[value]) as session:
        outputs = session.run(inputs)
    assert list(outputs) == [value]
    return sources[-1], outputs[value]


def test_only_what_leads_to_a_value_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, _ = graph_given_to_onnxruntime(residual(), "z2", images(), monkeypatch)
    assert [node.op_type for node in graph.node] == ["Conv", "Relu", "Conv"]
    assert sorted(tensor.name for tensor in graph.initializer) == ["b1", "b2", "k1", "k2"]


def test_a_cut_keeps_what_a_body_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    text = """branch (float[n, 4] x, bool c) => (float[n, 4] y) {
        a = Relu(x)
        d = Neg(x)
        z = If (c) <
            then_branch = g () => (float[n, 4] t) { t = Add(a, w) },
            else_branch = h () => (float[n, 4] e) { e = Identity(x) }
        >
        y = Add(z, d)
    }"""
    model = build(text, {"w": np.ones(4, np.float32)})
    inputs = {"x": np.ones((2, 4), np.float32), "c": np.array(True)}
    graph, z = graph_given_to_onnxruntime(model, "z", inputs, monkeypatch)
    assert [node.op_type for node in graph.node] == ["Relu", "If"]
    assert (z == 2).all()


def test_models_too_large_for_one_message_are_run_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = residual(), images()
    cut = measure_channels(model, {"z2": 1}, on(data))["z2"]
    monkeypatch.setattr(sessions, "INLINE_LIMIT", 0)
    whole = measure_channels(model, {"z2": 1}, on(data))["z2"]
    np.testing.assert_allclose(whole.mean, cut.mean, atol=1e-6)


def test_batches_shrink_where_values_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = ChannelStatistics.add

    def add(self: ChannelStatistics, array: np.ndarray, axis: int) -> None:
        seen.append(len(array))
        real(self, array, axis)

    monkeypatch.setattr(ChannelStatistics, "add", add)
    monkeypatch.setattr(batches, "HELD", 7 * 8 * 36 * 4)  # seven examples of 8 channels of 6 by 6
    measure_channels(residual(), {"z2": 1}, on(images()))
    assert seen == [7] * 7 + [1]


def test_a_normalized_input(small_batches: None) -> None:
    text = "b (float[n, 3] x) => (float[n, 3] y) { y = BatchNormalization (x, g, b, m, v) }"
    model = build(text, {name: np.ones(3, np.float32) for name in "gbmv"}, 17)
    x = np.random.default_rng(0).normal(3, 2, (40, 3)).astype(np.float32)
    found = reset_bn(model, on({"x": x})).model
    np.testing.assert_allclose(found.tensor("m"), x.mean(0, np.float64), rtol=1e-6)
    np.testing.assert_allclose(found.tensor("v"), x.var(0, np.float64), rtol=1e-6)


def test_layers_in_bodies_are_named() -> None:
    text = """branch (float[n, 4] x, bool c) => (float[n, 4] y) {
        h = Gemm(x, w, b)
        z = If (c) <
            then_branch = g () => (float[n, 4] t) { t = Gemm(h, u, d) },
            else_branch = h () => (float[n, 4] e) { e = Identity(h) }
        >
        y = Relu(z)
    }"""
    tensors = {"w": np.eye(4), "b": np.ones(4), "u": np.eye(4), "d": np.ones(4)}
    found = repair_sites(build(text, {name: array.astype(np.float32) for name, array in tensors.items()}))
    assert [site.value for site in found.sites] == ["h"]
    assert found.left == {"Gemm(t)": "it lies in a body of the graph"}


# -- reset-bn -------------------------------------------------------------------------------------------


def test_disturbed_statistics_become_those_of_the_data(small_batches: None) -> None:
    """Those of the second layer are what they are with the first one reset, whatever they were before."""
    data = images()
    disturbed = residual(normalized=True)
    found = reset_bn(disturbed, on(data))
    assert (found.layers, found.notes) == (2, ())
    for k in ("1", "2"):
        mean, variance = statistics(found.model, f"c{k}", data)
        np.testing.assert_allclose(found.model.tensor(f"m{k}"), mean, atol=SINGLE)
        np.testing.assert_allclose(found.model.tensor(f"v{k}"), variance, rtol=1e-4)
    mean, variance = statistics(found.model, "z2", data)
    np.testing.assert_allclose(mean, disturbed.tensor("b2"), atol=SINGLE)
    np.testing.assert_allclose(variance**0.5, disturbed.tensor("g2"), rtol=1e-4)
    assert found.model.replaced == {"m1", "v1", "m2", "v2"}
    again = reset_bn(found.model, on(data)).model
    np.testing.assert_allclose(again.tensor("v2"), found.model.tensor("v2"), rtol=1e-5)


@pytest.mark.parametrize(
    ("opset", "attributes", "resets"),
    [
        (6, "<is_test = 1>", True),
        (6, "", False),
        (7, "", True),
        (8, "<spatial = 1>", True),
        (9, "", True),
        (14, "", True),
        (14, "<training_mode = 1>", False),
        (15, "<training_mode = 0>", True),
    ],
)
def test_every_version_of_inference(opset: int, attributes: str, resets: bool) -> None:
    text = f"b (float[n, 3] x) => (float[n, 3] y) {{ y = BatchNormalization {attributes} (x, g, b, m, v) }}"
    model = build(text, {name: np.ones(3, np.float32) for name in "gbmv"}, opset)
    found = norm_statistics(model)
    assert [norm.value for norm in found.norms] == ["x"] * resets
    assert len(found.left) == (not resets)


def test_shared_statistics_stay() -> None:
    text = """b (float[n, 3] x) => (float[n, 3] y) {
        h = BatchNormalization (x, g, b, m, v)
        y = BatchNormalization (h, g, b, m, w)
    }"""
    model = build(text, {name: np.ones(3, np.float32) for name in "gbmvw"}, 17)
    with pytest.raises(OnnxcanonError, match="'m' is shared by 2 nodes"):
        reset_bn(model, on({"x": np.zeros((4, 3), np.float32)}))


def test_no_normalization_to_reset() -> None:
    with pytest.raises(OnnxcanonError, match="no BatchNormalization; use --repair rescale"):
        reset_bn(residual(), on(images()))


# -- rescale --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalized", [False, True], ids=["convolutions", "batch normalization"])
def test_every_layer_has_the_statistics_asked_for(normalized: bool, small_batches: None) -> None:
    both, mean_of_both = pair(lambda seed: residual(seed, normalized=normalized))
    data = images()
    found = rescale(mean_of_both, both, (0.25, 0.75), on(data))
    assert (found.layers, found.notes) == (len(SITES), ())
    for value in SITES:
        ends = [statistics(model, value, data) for model in both]
        mean, variance = statistics(found.model, value, data)
        wanted = 0.25 * ends[0][1] ** 0.5 + 0.75 * ends[1][1] ** 0.5
        np.testing.assert_allclose(mean, 0.25 * ends[0][0] + 0.75 * ends[1][0], atol=SINGLE)
        np.testing.assert_allclose(variance**0.5, wanted, rtol=1e-4, atol=SINGLE)
        before = statistics(mean_of_both, value, data)[1] ** 0.5
        assert np.abs(before - wanted).max() > 0.01  # there was something to repair


def test_a_deep_network_of_gemm() -> None:
    both, mean_of_both = pair(lambda seed: network(layers(8, 16, 16, 16, 3, seed=seed)))
    data = {"x": np.random.default_rng(3).normal(1, 1, (70, 8)).astype(np.float32)}
    found = rescale(mean_of_both, both, (0.25, 0.75), on(data))
    for value in ("a0", "a1", "a2", "y"):
        ends = [statistics(model, value, data) for model in both]
        mean, variance = statistics(found.model, value, data)
        np.testing.assert_allclose(mean, 0.25 * ends[0][0] + 0.75 * ends[1][0], atol=SINGLE)
        np.testing.assert_allclose(
            variance**0.5, 0.25 * ends[0][1] ** 0.5 + 0.75 * ends[1][1] ** 0.5, rtol=1e-4
        )


def test_groups_of_a_transposed_convolution() -> None:
    rng = np.random.default_rng(0)

    def make(seed: int) -> Model:
        rng = np.random.default_rng(seed)
        text = """t (float[n, 4, 5, 5] x) => (float[n, 6, 6, 6] y) {
            y = ConvTranspose <group = 2, kernel_shape = [2, 2]> (x, w, b)
        }"""
        tensors = {"w": rng.normal(size=(4, 3, 2, 2)), "b": rng.normal(size=6)}
        return build(text, {name: array.astype(np.float32) for name, array in tensors.items()}, 17)

    both, mean_of_both = pair(make)
    data = {"x": rng.normal(size=(20, 4, 5, 5)).astype(np.float32)}
    found = rescale(mean_of_both, both, (0.25, 0.75), on(data))
    ends = [statistics(model, "y", data) for model in both]
    mean, variance = statistics(found.model, "y", data)
    np.testing.assert_allclose(mean, 0.25 * ends[0][0] + 0.75 * ends[1][0], atol=SINGLE)
    np.testing.assert_allclose(variance**0.5, 0.25 * ends[0][1] ** 0.5 + 0.75 * ends[1][1] ** 0.5, rtol=1e-4)


def test_a_single_model_stays_as_it_is() -> None:
    """Its statistics are the ones asked for: what the endpoints of a repair go through."""
    model, data = residual(), images()
    found = rescale(model, [model], [1.0], on(data)).model
    for name in ("k1", "b1", "k3", "b3", "wg", "bg", "wm", "bm"):
        np.testing.assert_allclose(found.tensor(name), model.tensor(name), rtol=1e-4, atol=1e-5)


def test_a_dead_channel_is_shifted_only() -> None:
    """There is no factor that gives a constant a deviation."""
    both, mean_of_both = pair(lambda seed: network(layers(8, 16, 3, seed=seed)))
    weight = mean_of_both.tensor("w0").copy()
    weight[:, 5] = 0
    dead = mean_of_both.with_tensors({"w0": weight})
    data = {"x": np.random.default_rng(3).normal(1, 1, (70, 8)).astype(np.float32)}
    found = rescale(dead, both, (0.25, 0.75), on(data)).model
    assert np.isfinite(found.tensor("w0")).all()
    mean = sum(w * statistics(m, "a0", data)[0] for w, m in zip((0.25, 0.75), both, strict=True))
    np.testing.assert_allclose(statistics(found, "a0", data)[0], mean, atol=SINGLE)
    assert (found.tensor("w0")[:, 5] == 0).all()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("h = MatMul(x, w)\n r = Relu(h)\n y = Gemm(r, w, b)", "'w' is shared by 2 nodes"),
        ("h = MatMul(x, w)\n y = Relu(h)", "it has no bias"),
        ("h = MatMul(x, w)\n a = Add(h, s)\n y = Relu(a)", "it has no bias"),
        ("h = Gemm(x, w, b)\n r = Relu(h)\n y = Add(r, b)", "'b' is shared by 2 nodes"),
        ("h = Gemm(x, w, s)\n y = Relu(h)", "not one number per channel"),
        ("u = Mul(w, w)\n y = Gemm(x, u, b)", "its weight is computed"),
        ("h = Gemm <beta = 0.0> (x, w, b)\n y = Relu(h)", "not one number per channel"),
    ],
)
def test_what_cannot_be_repaired_says_why(text: str, reason: str) -> None:
    tensors = {"w": np.eye(4), "b": np.ones(4), "s": np.ones(1)}
    model = build(
        f"m (float[n, 4] x) => (float[n, 4] y) {{ {text} }}",
        {name: array.astype(np.float32) for name, array in tensors.items() if f"{name}" in text},
        17,
    )
    found = repair_sites(model)
    assert any(reason in told for told in found.left.values()), found
    if not found.sites:
        with pytest.raises(OnnxcanonError, match="no layer that can be rescaled"):
            rescale(model, [model], [1.0], on({"x": np.ones((3, 4), np.float32)}))


def test_products_of_two_values_are_no_layers() -> None:
    text = "m (float[n, 4] x) => (float[n, n] y) { t = Transpose(x) \n y = MatMul(x, t) }"
    found = repair_sites(build(text, {}, 17))
    assert (found.sites, found.left) == ([], {})


def test_half_precision_is_repaired_in_its_own_type() -> None:
    def make(seed: int) -> Model:
        base = network(layers(8, 16, 3, seed=seed)).to_proto()
        graph = base.graph
        for tensor in graph.initializer:
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
        for value in (*graph.input, *graph.output):
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
        return load(helper.make_model(graph, opset_imports=base.opset_import, ir_version=10))

    both, mean_of_both = pair(make)
    data = {"x": np.random.default_rng(3).normal(1, 1, (70, 8)).astype(np.float16)}
    found = rescale(mean_of_both, both, (0.25, 0.75), on(data)).model
    assert found.tensor("w0").dtype == np.float16
    wanted = sum(w * statistics(m, "a0", data)[1] ** 0.5 for w, m in zip((0.25, 0.75), both, strict=True))
    np.testing.assert_allclose(statistics(found, "a0", data)[1] ** 0.5, wanted, rtol=5e-3)  # 11 bits


def test_values_that_are_not_finite() -> None:
    model = network(layers(8, 16, 3))
    data = {"x": np.full((4, 8), np.inf, np.float32)}
    with pytest.raises(OnnxcanonError, match="not finite; give other data"):
        rescale(model, [model], [1.0], on(data))


# -- judging --------------------------------------------------------------------------------------------


def test_labels_tell_a_repair_that_spoils() -> None:
    rng = np.random.default_rng(0)
    good = network(layers(8, 16, 3))
    x = rng.normal(size=(200, 8)).astype(np.float32)
    y = run(good, {"x": x}, device="cpu")["y"].argmax(1)
    bad = network(layers(8, 16, 3, seed=1))
    told = effect_of_repair("good.onnx", good, bad, on({"x": x, "y": y}))
    assert told is not None
    assert told.before is not None
    assert (told.before.accuracy, told.moved) == (1.0, None)
    assert (
        f"good.onnx: accuracy falls from 1.0000 to {told.after.accuracy:.4f}, {ALLOWED_FALL} is"
        in told.objection
    )
    same = effect_of_repair("good.onnx", good, good, on({"x": x, "y": y}))
    assert same is not None
    assert same.objection == ""


def test_without_labels_outputs_tell_it() -> None:
    good, data = network(layers(8, 16, 3)), {"x": np.random.default_rng(0).normal(size=(200, 8)).astype("f4")}
    by = 3.0
    shifted = good.with_tensors({"b1": good.tensor("b1") + np.float32(by)})
    told = effect_of_repair("good.onnx", good, shifted, on(data))
    outputs = run(good, data, device="cpu")["y"].astype(np.float64)
    assert told is not None
    assert told.moved == pytest.approx(by / np.sqrt(outputs.var(0).mean()), rel=1e-4)
    assert told.moved > ALLOWED_MOVEMENT
    assert "outputs move by" in told.objection
    assert effect_of_repair("good.onnx", good, None, on(data)) is None
