"""Ways to align: each gives an element of the group, finds what was planted, and does what its paper says."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnxcanon as oc
from onnxcanon.alignment import (
    annealing_state,
    by_annealing,
    by_functional,
)
from onnxcanon.alignment.by_activations import STILL, by_activations
from onnxcanon.alignment.by_functional import _patches, _root
from onnxcanon.alignment.capture import Covariance, capture_values
from onnxcanon.alignment.flow import Flow
from onnxcanon.alignment.frame import Frame
from onnxcanon.choices import METHODS
from onnxcanon.errors import OnnxcanonError
from onnxcanon.merging.averaging import average, expressed_in
from onnxcanon.model import Model, load
from onnxcanon.runtime.evaluation import evaluate
from onnxcanon.settings import Settings
from tests.aligning import align
from tests.examples import Array, attention, build, contents, experts, layers, network, theta_of
from tests.merge_models import images, residual
from tests.running import run
from tests.shared import ROOT, SHIPPED, TWINS, each

CPU = {"device": "cpu"}
RUNNING = tuple(method for method in METHODS if method not in ("weights", "cosine"))
DIRECT = ("activations", "cosine", "functional")
"""Methods that find a planted element; annealing goes on from there to whatever has a lower loss."""

Data = dict[str, Array]


def recurrent(seed: int = 0) -> Model:
    """x[n, 5, 4] -> two recurrent layers of 6 units -> y[n, 3]."""
    rng = np.random.default_rng(seed)
    text = """recurrent (float[n, 5, 4] x) => (float[n, 3] y) {
        t = Transpose <perm = [1, 0, 2]> (x)
        s = LSTM <hidden_size = 6> (t, w1, r1, b1)
        q = Squeeze(s, one)
        u, h = LSTM <hidden_size = 6> (q, w2, r2, b2)
        f = Squeeze(h, zero)
        y = Gemm(f, w3, b3)
    }"""
    shapes = {f"w{k}": (1, 24, n) for k, n in ((1, 4), (2, 6))} | {f"r{k}": (1, 24, 6) for k in (1, 2)}
    shapes |= {"b1": (1, 48), "b2": (1, 48), "w3": (6, 3), "b3": (3,)}
    tensors: Data = {n: rng.normal(0, 0.5, s).astype(np.float32) for n, s in shapes.items()}
    return build(text, tensors | {"zero": np.array([0]), "one": np.array([1])}, opset=17)


def noise(*shape: int, seed: int = 3) -> Data:
    return {"x": np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)}


def shipped(kind: str) -> tuple[Model, Model, Data]:
    with np.load(ROOT / "models" / "digits_calib.npz") as file:
        data = {name: file[name][:128] for name in file.files}
    return *(load(ROOT / "models" / f"digits_{kind}_seed{k}.onnx") for k in (0, 1)), data


def pair(kind: str) -> tuple[Model, Model, Data]:
    """Two models of one structure that were not made from each other, and data."""
    if kind == "vit":
        return shipped("vit")
    made: dict[str, tuple[Any, Data]] = {
        "tanh": (lambda seed: network(layers(5, 12, 9, 3, seed=seed), "Tanh"), noise(60, 5)),
        "conv": (residual, images()),
        "normalized conv": (lambda seed: residual(seed, normalized=True), images()),
        "lstm": (recurrent, noise(40, 5, 4)),
        "heads": (lambda seed: attention(seed=seed), noise(1, 6, 5)),
        "experts": (lambda seed: experts(seed=seed), noise(40, 4)),
    }
    build_one, data = made[kind]
    return build_one(0), build_one(1), data


KINDS = ("tanh", "conv", "normalized conv", "lstm", "heads", "experts", "vit")


def few(monkeypatch: pytest.MonkeyPatch, steps: int = 40) -> None:
    """Anneal for a moment only."""
    monkeypatch.setattr(by_annealing, "STEPS", steps)
    monkeypatch.setattr(by_annealing, "PROBES", 8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_the_function_stays(kind: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch)
    a, b, data = pair(kind)
    found = align(a, b, method=method, data=data, **CPU)
    assert found.method == method
    assert found.transform.permuted
    assert oc.verify(b, found.model, **CPU).same


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", DIRECT)
def test_what_was_planted_is_found(kind: str, method: str) -> None:
    a, _, data = pair(kind)
    assert_found(a, method, data)


@pytest.mark.parametrize(
    "path", [path for path in SHIPPED if "seed0" in path.stem], ids=lambda path: path.stem
)
@pytest.mark.parametrize("method", DIRECT)
def test_what_was_planted_is_found_in_shipped_models(path: Path, method: str) -> None:
    assert_found(load(path), method, shipped("mlp")[2])


@pytest.mark.parametrize("folder", each(TWINS))
@pytest.mark.parametrize("method", DIRECT)
def test_what_was_planted_is_found_in_trained_models(folder: Path, method: str) -> None:
    if (folder.name, method) == ("ties", "cosine"):
        pytest.skip("units whose incoming weights are proportional have the same directions")
    with np.load(folder / "eval.npz") as file:
        data = {"x": file["x"][:200]}
    assert_found(load(folder / "base.onnx"), method, data)


def assert_found(model: Model, method: str, data: Data) -> None:
    """A model that was permuted and flipped comes back entry by entry."""
    for seed in (0, 1):
        moved = oc.scramble(model, seed=seed, only=["permute", "sign"]).model
        found = align(model, moved, method=method, data=data, **CPU)
        assert found.distance[0] > 0
        assert found.distance[1] == 0


@pytest.mark.parametrize("method", RUNNING)
def test_models_cannot_be_run_without_data(method: str) -> None:
    a, b, _ = pair("tanh")
    for data in (None, {}):
        with pytest.raises(OnnxcanonError, match=f"{method}.* needs data"):
            align(a, b, method=method, data=data, **CPU)
    with pytest.raises(OnnxcanonError, match="no values for input 'x'"):
        align(a, b, method=method, data={"z": np.zeros((3, 5), np.float32)}, **CPU)
    with pytest.raises(OnnxcanonError, match="the data holds 0 examples"):
        align(a, b, method=method, data=noise(0, 5), **CPU)


def test_inputs_of_a_layer_have_to_be_finite() -> None:
    a, b, data = pair("tanh")
    data["x"][3, 2] = np.nan
    with pytest.raises(OnnxcanonError, match="the value 'x' is not finite"):
        align(a, b, method="functional", data=data, **CPU)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch)
    a, b, data = pair("tanh")
    one, other = (align(a, b, method=method, data=data, seed=4, **CPU).model for _ in range(2))
    assert all(one.tensor(n).tobytes() == other.tensor(n).tobytes() for n in one.tensor_names())


@pytest.mark.parametrize("method", METHODS)
def test_names_of_the_other_model_are_its_own(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data goes by the names of the reference; neither values nor inputs of the other need have them."""
    few(monkeypatch)
    a, b, data = pair("tanh")
    proto = b.to_proto()
    fields = [*(n.input for n in proto.graph.node), *(n.output for n in proto.graph.node)]
    for field in fields:
        field[:] = [f"other {name}" for name in field]
    for thing in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        thing.name = f"other {thing.name}"
    plain, renamed = (align(a, m, method=method, data=data, **CPU).model for m in (b, load(proto)))
    assert plain.tensor("w1").tobytes() == renamed.tensor("other w1").tobytes()


# -- activations -------------------------------------------------------------------------------------


def test_a_covariance_does_not_depend_on_the_batches() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(5, 1, (4, 90)), rng.normal(-300, 2, (4, 90))
    y[1] = 7.25
    seen = Covariance(4)
    for part in np.split(np.arange(90), [1, 8, 50]):
        seen.add(x[:, part].astype(np.float32), y[:, part].astype(np.float32))
    wanted = np.corrcoef(np.concatenate([x, y[[0, 2, 3]]]))[:4, 4:]
    found = seen.correlation(1e-6)
    assert np.allclose(found[:, [0, 2, 3]], wanted, atol=1e-4)
    assert not found[:, 1].any()


def correlation(one: Array, other: Array) -> Array:
    """Of the columns of two arrays."""
    return np.corrcoef(one.T, other.T)[: one.shape[1], one.shape[1] :]


@pytest.mark.parametrize("activation", ["Relu", "Tanh", "Sigmoid"])
def test_units_correlate_as_much_as_any_order_lets_them(activation: str) -> None:
    """Held against all orders; where signs are free, the size of correlations counts and the sign is set."""
    a, b = (network(layers(4, 6, 2, seed=seed), activation) for seed in (0, 1))
    data = noise(80, 4)
    moved = align(a, b, method="activations", data=data, **CPU).model
    one, before, after = (
        run(m, data, extra_outputs=["h0"], **CPU)["h0"].astype(float) for m in (a, b, moved)
    )
    table = correlation(one, before)
    gain = np.abs(table) if activation == "Tanh" else table
    best = max(sum(gain[i, j] for i, j in enumerate(order)) for order in permutations(range(6)))
    assert np.trace(correlation(one, after)) == pytest.approx(best, abs=1e-4)


def test_what_is_not_finite_has_no_correlation() -> None:
    x = np.random.default_rng(0).normal(size=(3, 50))
    x[1, 7] = np.inf
    found = Covariance(3)
    for part in np.split(x, [20], 1):
        found.add(part, part)
    expected = np.corrcoef(x[[0, 2]])
    np.testing.assert_allclose(found.correlation(STILL)[np.ix_([0, 2], [0, 2])], expected, atol=1e-6)
    assert not found.correlation(STILL)[1].any()
    assert not found.correlation(STILL)[:, 1].any()


def test_units_that_the_data_leaves_constant_are_placed_by_their_weights() -> None:
    theta = layers(4, 8, 3)
    theta[0][1][3:6] = (-50, -60, -70)
    a = network(theta)
    b = oc.scramble(a, seed=2, only=["permute"]).model
    assert align(a, b, method="activations", data=noise(50, 4), **CPU).distance[1] == 0


def test_a_residual_stream_is_seen_where_it_is_read() -> None:
    a, b, _ = pair("conv")
    flow = Flow(Frame.of(a, b).ours)
    seen = [[value.name for value in flow.read(k)] for k in flow.order]
    assert ["h1", "f"] in [[n for n in names if n in ("h1", "f")] for names in seen]
    assert ["h2"] in seen
    assert ["hg"] in seen


def test_batches_are_of_no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, data = pair("conv")
    whole = align(a, b, method="activations", data=data, **CPU).model
    monkeypatch.setattr("onnxcanon.runtime.batches.BATCH", 7)
    parts = align(a, b, method="activations", data=data, **CPU).model
    assert all(whole.tensor(n).tobytes() == parts.tensor(n).tobytes() for n in whole.tensor_names())


def test_where_no_value_shows_units_weights_decide() -> None:
    """Two products of weights alone: what lies between them labels no activation."""
    rng = np.random.default_rng(0)
    text = """deep (float[n, 4] x) => (float[n, 3] y) {
        w = MatMul(u, v)
        y = MatMul(x, w)
    }"""
    tensors = {"u": rng.normal(size=(4, 5)), "v": rng.normal(size=(5, 3))}
    a = build(text, {n: t.astype(np.float32) for n, t in tensors.items()})
    b = oc.scramble(a, seed=1, only=["permute", "sign"]).model
    found = align(a, b, method="activations", data=noise(9, 4), **CPU)
    assert found.distance[0] > 0
    assert found.distance[1] == 0
    assert "matched by weights" in found.notes[0]


# -- cosine and functional difference ----------------------------------------------------------------


def best_order(gain: Array) -> float:
    return max(sum(gain[i, j] for i, j in enumerate(order)) for order in permutations(range(len(gain))))


def incoming(model: Model) -> Array:
    """Of the first layer: the weights of each unit, the bias behind them [units, inputs + 1]."""
    weight, bias = theta_of(model)[0]
    return np.concatenate([weight.T, bias[:, None]], 1).astype(float)


def test_cosines_of_incoming_weights_are_the_largest() -> None:
    a, b = (network(layers(4, 6, 2, seed=seed)) for seed in (0, 1))
    moved = align(a, b, method="cosine").model
    one, before, after = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in map(incoming, (a, b, moved))
    )
    assert (one * after).sum() == pytest.approx(best_order(one @ before.T), abs=1e-5)


def test_later_layers_are_of_no_account_to_cosines() -> None:
    first, *rest = layers(4, 6, 5, 2, seed=1)
    a = network(layers(4, 6, 5, 2))
    other = network([first, *layers(6, 5, 2, seed=8)])
    moved = [align(a, b, method="cosine").model for b in (network([first, *rest]), other)]
    directions = [r / np.linalg.norm(r, axis=1, keepdims=True) for r in map(incoming, moved)]
    assert np.allclose(*directions, atol=1e-5)


def test_the_functional_difference_is_the_one_of_the_paper() -> None:
    """d = (w - v)ᵀ (H_A⁻¹ + H_B⁻¹)⁻¹ (w - v), up to the damping."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3, 40, 5))
    one, other = (side.transpose(0, 2, 1) @ side for side in (x, y))
    root = _root(one, other)
    wanted = np.linalg.inv(np.linalg.inv(one) + np.linalg.inv(other))
    assert np.allclose(root @ root.transpose(0, 2, 1), wanted, rtol=0.01, atol=0.01 * np.abs(wanted).max())


def test_units_differ_as_little_as_any_order_lets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_functional, "DAMPING", 0.0)
    a, b = (network(layers(4, 6, 2, seed=seed), "Sigmoid") for seed in (0, 1))
    data = {"x": noise(80, 4)["x"] * np.array([10, 1, 1, 0.1], np.float32)}
    moved = align(a, b, method="functional", data=data, **CPU).model
    x = np.concatenate([data["x"], np.ones((80, 1))], 1)
    one, before, after = (incoming(m) for m in (a, b, moved))
    gaps = one[:, None] - before[None]
    gain = -np.einsum("ijk,kl,ijl->ij", gaps, x.T @ x / 80, gaps)
    reached = -np.einsum("ik,kl,il->", one - after, x.T @ x / 80, one - after)
    assert reached == pytest.approx(best_order(gain), rel=1e-4)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 2, 0, 1], "strides": [2, 1]},
        {"dilations": [2, 1], "group": 2},
        {"auto_pad": "SAME_UPPER", "strides": [2, 3]},
        {"auto_pad": "SAME_LOWER"},
        {"auto_pad": "VALID", "group": 4},
    ],
    ids=repr,
)
def test_a_convolution_is_a_product_with_its_patches(attributes: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    groups = attributes.get("group", 1)
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((2, 4, 7, 6), (8, 4 // groups, 2, 3)))
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w, "w")],
    )
    model = load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    wanted = run(model, {"x": x}, **CPU)["y"]
    found = _patches(model.ir.graph[0], x.astype(float), w.shape[2:], groups)
    rows = w.reshape(groups, 8 // groups, -1) @ found.transpose(0, 2, 1)
    shape = (8, 2, *wanted.shape[2:])
    assert np.allclose(rows.reshape(shape).swapaxes(0, 1), wanted, atol=1e-5)


@pytest.mark.parametrize(("kind", "groups"), [("lstm", 2), ("experts", 1)])
def test_units_that_no_known_layer_makes_are_matched_by_weights(kind: str, groups: int) -> None:
    a, b, data = pair(kind)
    found = align(a, b, method="functional", data=data, **CPU)
    assert len(found.notes) == 1
    assert f"{groups} group" in found.notes[0]


# -- annealing ---------------------------------------------------------------------------------------


def loss_between(a: Model, moved: Model, data: Data) -> float:
    return evaluate([average([a, expressed_in(a, moved)], [0.5, 0.5])], Settings(data=data, **CPU))[0].loss


def labelled(kind: str) -> tuple[Model, Model, Data]:
    a, b, data = pair(kind)
    if "y" not in data:
        data["y"] = run(a, data, **CPU)["y"].argmax(-1)
    return a, b, data


@pytest.mark.parametrize("kind", (*KINDS[:4], "experts"))
def test_annealing_lowers_the_loss_of_the_average(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, 300)
    a, b, data = labelled(kind)
    found = {m: align(a, b, method=m, data=data, **CPU).model for m in ("weights", "annealing")}
    losses = {m: loss_between(a, moved, data) for m, moved in found.items()}
    assert losses["annealing"] < losses["weights"]


def test_annealing_keeps_the_best_state_it_has_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """So hot that it walks at random, away from wherever it was better."""
    few(monkeypatch, 300)
    monkeypatch.setattr(by_annealing, "HEAT", 1e9)
    a, b, data = labelled("tanh")
    found = [align(a, b, method=m, data=data, **CPU).model for m in ("weights", "annealing")]
    before, after = (loss_between(a, moved, data) for moved in found)
    assert after < before


def test_annealing_is_never_worse_than_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twins meet their function exactly where the loss is the distance to it."""
    few(monkeypatch)
    a, _, data = pair("tanh")
    b = oc.scramble(a, seed=1, only=["permute", "sign"]).model
    assert align(a, b, method="annealing", data=data, **CPU).distance[1] == 0


def test_annealing_moves_no_input_that_is_as_long_as_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter with as many rows as there are examples is still one parameter."""
    few(monkeypatch)
    a, b = (network(layers(5, 12, 9, 3, seed=seed), "Tanh") for seed in (0, 1))
    found = align(a, b, method="annealing", data=noise(12, 5), **CPU)
    assert oc.verify(b, found.model, **CPU).same


def test_annealing_of_models_that_take_a_fixed_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without labels it looks at the whole sets that the data holds; a number for all is no label."""
    few(monkeypatch)
    text = """fixed (float[16, 5] x) => (float[SHAPE] y) {
        a = MatMul(x, u)
        h = Tanh(a)
        b = MatMul(h, v)
        y = LAST(b)
    }"""

    def pair_of(shape: str, last: str) -> list[Model]:
        made = []
        for seed in (0, 1):
            rng = np.random.default_rng(seed)
            tensors = {n: rng.normal(size=s).astype(np.float32) for n, s in (("u", (5, 9)), ("v", (9, 3)))}
            made.append(build(text.replace("SHAPE", shape).replace("LAST", last), tensors))
        return made

    a, b = pair_of("16, 3", "Identity")
    found = [align(a, b, method="annealing", data=noise(rows, 5), **CPU).model for rows in (50, 48)]
    assert oc.verify(b, found[0], **CPU).same
    assert contents(found[0]) == contents(found[1])
    with pytest.raises(OnnxcanonError, match="give a number for each example"):
        align(a, b, method="annealing", data={**noise(48, 5), "y": np.array(3)}, **CPU)
    with pytest.raises(OnnxcanonError, match="says nothing of single examples"):
        align(*pair_of("", "ReduceSum <keepdims = 0>"), method="annealing", data=noise(48, 5), **CPU)


def test_an_exchange_of_rows_is_what_the_group_makes_of_it() -> None:
    """For every piece of the tree: nested ones, recurrent ones and stacked ones."""
    for kind in KINDS[:-1]:
        a, b, _ = pair(kind)
        frame = Frame.of(a, b)
        matching = frame.matching()
        state = annealing_state.AnnealingState(
            [annealing_state.MovingModel(frame, matching, matching.transform, 0.5)]
        )
        assert state.swap_sets
        rng = np.random.default_rng(0)
        for _ in range(30):
            state.exchange(*state.draw(rng))
        image = annealing_state.inverse(state.source[0])
        exchanged = {name: array.copy() for name, array in state.inputs.items()}
        state.put([frame.ours.action(frame.ours.solution.extend(image))])
        for name, array in state.inputs.items():
            assert np.allclose(array, exchanged[name], atol=1e-6), (kind, name)


def test_methods_take_a_frame() -> None:
    a, b, data = pair("tanh")
    frame = Frame.of(a, b)
    lines: list[str] = []
    found = by_activations(frame, Settings(data=data, device="cpu", progress=lines.append))
    assert lines
    moved = expressed_in(a, frame.element(found.element).apply(b))
    (values,) = capture_values([a, moved], ["h0"], data, device="cpu")
    assert np.trace(correlation(*(side["h0"] for side in values))) > 0
