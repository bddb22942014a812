"""Sessions on one graph with other weights compute what a model built anew computes, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import helper

import onnxcanon as oc
from onnxcanon.model import Model, load
from onnxcanon.runtime import sessions
from onnxcanon.runtime.evaluation import Evaluator
from onnxcanon.runtime.sessions import open_session
from onnxcanon.runtime.weights import external
from onnxcanon.runtime.weights.external import WeightSessions
from onnxcanon.settings import Settings
from tests.examples import build
from tests.running import LEVELS
from tests.runtime_graphs import mlp
from tests.shared import ROOT, SHARED, SHIPPED, TWINS, each

MERGED = sorted((SHARED / "twins").glob("merge_*/seed_0.onnx"))
EXTERNAL = sorted((SHARED / "twins").glob("*/reexport_extdata.onnx"))


def other_weights(model: Model, seed: int = 0) -> Model:
    """The same graph with every floating tensor changed, each entry by some percents."""
    rng = np.random.default_rng(seed)
    new = {}
    for name in model.tensor_names():
        shape, dtype = model.tensor_info(name)
        if dtype.is_floating_point():
            old = model.tensor(name)
            new[name] = np.asarray(old * rng.uniform(0.9, 1.1, shape)).astype(old.dtype)
    return model.with_tensors(new)


def feeds(model: Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    with open_session(model, device="cpu") as session:
        shapes = {p.name: [n if isinstance(n, int) else 3 for n in p.shape] for p in session.inputs}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def outputs(session: Any, given: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in session.run(given).items()}


def assert_swaps(model: Model) -> WeightSessions:
    """At every level, for two sets of weights; returns the last swap."""
    given = feeds(model)
    for level in LEVELS:
        swap = WeightSessions(model, device="cpu", optimize=True)
        seen = set()
        for seed in (0, 1):
            changed = other_weights(model, seed)
            with (
                mock.patch.object(sessions, "OPTIMIZED", level),
                swap.open(changed) as swapped,
                open_session(changed, device="cpu", optimize=True) as fresh,
            ):
                found = outputs(swapped, given)
                assert found == outputs(fresh, given)
            seen.add(next(iter(found.values())))
        assert len(seen) == 2
    return swap


@pytest.mark.parametrize("path", each(SHIPPED, [folder / "base.onnx" for folder in TWINS], MERGED, EXTERNAL))
def test_outputs_are_those_of_a_model_built_anew(path: Path) -> None:
    assert assert_swaps(load(path)).names


def normalized(bias: bool) -> Model:
    """Convolution and normalization, which onnxruntime fuses, all large enough to be given."""
    channels = 300
    conv = "Conv <pads = [1, 1, 1, 1]> (x, k, b)" if bias else "Conv <pads = [1, 1, 1, 1]> (x, k)"
    text = f"""net (float[n, 3, 5, 5] x) => (float[n, {channels}, 5, 5] y) {{
        a = {conv}
        c = BatchNormalization (a, gain, shift, mean, variance)
        y = Relu(c)
    }}"""
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(size=channels).astype(np.float32) for name in ("gain", "shift", "mean")}
    tensors |= {"variance": rng.uniform(0.5, 2, channels).astype(np.float32)}
    tensors |= {"k": rng.normal(size=(channels, 3, 3, 3)).astype(np.float32)}
    tensors |= {"b": rng.normal(size=channels).astype(np.float32)} if bias else {}
    return build(text, tensors)


@pytest.mark.parametrize("bias", [False, True])
def test_what_is_fused_is_fused_anew(bias: bool) -> None:
    model = normalized(bias)
    assert set(assert_swaps(model).names) == set(model.tensor_names())


def test_constants_of_nodes_and_small_tensors_are_swapped_as_well() -> None:
    proto = mlp().to_proto()
    kept = {t.name: t for t in proto.graph.initializer}
    nodes = [helper.make_node("Constant", [], [name], value=kept.pop(name)) for name in ("w0", "b1")]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept.values())
    for node in reversed(nodes):
        proto.graph.node.insert(0, node)
    swap = assert_swaps(load(proto))
    assert swap.names == ("w1",)


def test_what_the_caller_may_override_stays_in_the_graph() -> None:
    proto = mlp().to_proto()
    proto.graph.input.append(helper.make_tensor_value_info("w1", onnx.TensorProto.FLOAT, [32, 16]))
    assert WeightSessions(load(proto)).names == ("w0",)
    assert_swaps(load(proto))


def test_half_precision_is_given_and_other_types_stay() -> None:
    text = """net (float[n, 64] x) => (float[n, 64] y) {
        h = Cast <to = 10> (x)
        a = MatMul(h, w)
        c = Cast <to = 1> (a)
        q = DequantizeLinear(k, s)
        y = MatMul(c, q)
    }"""
    rng = np.random.default_rng(0)
    tensors = {
        "w": rng.normal(size=(64, 64)).astype(np.float16),
        "k": rng.integers(-9, 9, (64, 64)).astype(np.int8),
        "s": np.array(0.25, np.float32),
    }
    assert assert_swaps(build(text, tensors)).names == ("w",)


def test_another_graph_is_opened_from_its_start() -> None:
    swap = WeightSessions(mlp(), device="cpu")
    deeper = mlp(sizes=(8, 32, 16, 16, 5))
    given = feeds(deeper)
    with swap.open(deeper) as session, open_session(deeper, device="cpu") as fresh:
        assert outputs(session, given) == outputs(fresh, given)


def test_a_rest_too_large_for_one_message_goes_through_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "INLINE_LIMIT", 0)
    assert_swaps(mlp())


def test_weights_count_for_nothing_in_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a model whose weights are too large for one message needs no file."""
    model = mlp(sizes=(8, 512, 5))
    changed, given = other_weights(model), feeds(model)
    swap = WeightSessions(model, device="cpu")
    with open_session(changed, device="cpu") as fresh:
        expected = outputs(fresh, given)
    monkeypatch.setattr(external, "INLINE_LIMIT", 100)
    monkeypatch.delattr(external, "open_session")
    assert len(changed.without(swap.names)) < 1000 < changed.serialized_size()
    with swap.open(changed) as session:
        assert outputs(session, given) == expected


def test_weights_live_as_long_as_the_session() -> None:
    model = normalized(bias=True)
    given, changed = feeds(model), other_weights(model)
    session = WeightSessions(model, device="cpu").open(
        changed.with_tensors({"k": lambda: changed.tensor("k") + 0})
    )
    noise = [np.full((300, 3, 3, 3), np.nan, np.float32) for _ in range(50)]
    with session, open_session(changed, device="cpu") as fresh:
        assert outputs(session, given) == outputs(fresh, given)
    assert noise


def test_weights_may_lie_in_memory_in_any_order() -> None:
    model = mlp()
    given = feeds(model)
    turned = {n: np.asfortranarray(model.tensor(n)) for n in WeightSessions(model).names}
    swapped = WeightSessions(model, device="cpu").open(model.with_tensors(turned))
    with swapped as session, open_session(model, device="cpu") as fresh:
        assert outputs(session, given) == outputs(fresh, given)


def test_an_evaluator_finds_what_evaluation_finds() -> None:
    model = load(ROOT / "models" / "digits_resnet_seed0.onnx")
    with np.load(ROOT / "models" / "digits_eval.npz") as file:
        data = dict(file)
    evaluate = Evaluator(model, Settings(device="cpu", data=data), batch=100)
    for one in (
        model,
        other_weights(model),
        other_weights(model, 1),
        load(ROOT / "models" / "digits_mlp_seed0.onnx"),
    ):
        assert [evaluate(one)] == oc.evaluate(one, data, batch=100, device="cpu")


def test_what_the_output_holds_is_told_once() -> None:
    """Some weights make logits that look like probabilities; they are still logits."""
    text = "net (float[n, 4] x) => (float[n, 4] y) { y = MatMul(x, w) }"
    model = build(text, {"w": np.eye(4, dtype=np.float32) * 5})
    logits = np.array([0.1, 0.2, 0.3, 0.4])
    look_alike = model.with_tensors({"w": np.tile(logits, (4, 1)).astype(np.float32)})
    data = {"x": np.eye(4, dtype=np.float32), "y": np.arange(4)}
    evaluate = Evaluator(model, Settings(device="cpu", data=data))
    evaluate(model)
    assert evaluate(look_alike).loss == pytest.approx(np.log(np.exp(logits).sum()) - logits.mean(), rel=1e-6)
