"""Annealing of all models at once: what it judges is what will be made, and what it moves are orbits."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

import onnxcanon as oc
from onnxcanon.alignment import by_annealing
from onnxcanon.alignment.annealing_state import AnnealingState, MovingModel, inverse
from onnxcanon.alignment.by_annealing import SessionWithWeights
from onnxcanon.alignment.frame import Frame
from onnxcanon.errors import OnnxcanonError
from onnxcanon.merging.averaging import average
from onnxcanon.merging.joint_annealing import GraphRescaling, anneal_jointly
from onnxcanon.merging.repair import rescale
from onnxcanon.model import Model
from onnxcanon.runtime.evaluation import evaluate
from onnxcanon.settings import Settings
from onnxcanon.transform import Transform
from tests.examples import Array, build, contents, layers, network
from tests.merge_models import images, residual
from tests.running import run

CPU = {"device": "cpu"}
SHARES = [0.5, 0.3, 0.2]


def tokens(seed: int, opset: int = 18) -> Model:
    """x[n, 7, 5] -> y[n, 7, 3]; the channels are on the last of three axes."""
    rng = np.random.default_rng(seed)
    text = """tokens (float[n, 7, 5] x) => (float[n, 7, 3] y) {
        a = MatMul(x, u)
        z = Add(a, b)
        h = Relu(z)
        c = MatMul(h, v)
        y = Add(c, d)
    }"""
    shapes = {"u": (5, 9), "b": (9,), "v": (9, 3), "d": (3,)}
    return build(text, {n: rng.normal(0, 1, s).astype(np.float32) for n, s in shapes.items()}, opset=opset)


def three(kind: str) -> tuple[list[Model], dict[str, Array]]:
    """Models of one structure, and data."""
    if kind.startswith("tokens"):
        x = np.random.default_rng(5).normal(1, 2, (40, 7, 5)).astype(np.float32)
        return [tokens(seed, int(kind.split()[1])) for seed in range(3)], {"x": x}
    return [residual(seed, normalized=kind == "normalized") for seed in range(3)], images()


KINDS = ("plain", "normalized", "tokens 17", "tokens 18")


@pytest.mark.parametrize("kind", KINDS)
def test_the_average_that_is_judged_is_the_repaired_one(kind: str) -> None:
    """After any exchanges, which the targets follow."""
    models, data = three(kind)
    frames = [Frame.of(models[0], model) for model in models[1:]]
    stay = Transform({}, models[0].name)
    moving_models = [MovingModel(f, f.matching(), stay, s) for f, s in zip(frames, SHARES[1:], strict=True)]
    starts = [models[0], *(f.spelled(f.element(stay)) for f in frames)]
    repair = GraphRescaling.of(starts, frames[0].ours, Settings(device="cpu", data=data))
    assert len(repair.layers) == (2 if kind.startswith("tokens") else 5)
    state = AnnealingState(moving_models, repair.companions)
    rng = np.random.default_rng(0)
    with closing(state.session("cpu", repair)) as session:
        for _ in range(2):
            images_ = [frames[0].ours.solution.extend(inverse(source)) for source in state.source]
            found = [f.element(f.ours.action(i)) for f, i in zip(frames, images_, strict=True)]
            moved = [
                models[0], *(t.apply(model) for t, model in zip(found, models[1:], strict=True))
            ]  # fmt: skip
            wanted = rescale(average(moved, SHARES), moved, SHARES, Settings(data=data, **CPU)).model
            judged = SessionWithWeights(session, state.inputs).run(data)["y"]
            expected = run(wanted, data, **CPU)["y"]
            assert np.allclose(judged, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
            for _ in range(40):
                state.exchange(*state.draw(rng))
    assert (state.source != np.arange(state.source.shape[1])).any(1).all()  # both have moved


@pytest.mark.parametrize("repair", ["none", "rescale"])
def test_the_loss_of_the_average_of_all_falls(repair: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_annealing, "STEPS", 200)
    models, data = three("plain")
    data["y"] = np.mean([run(model, data, **CPU)["y"] for model in models], 0).astype(np.float32)
    loss = {}
    for method in ("weights", "annealing"):
        found = oc.merge(models, align=method, to="mean", repair=repair, data=data, **CPU)
        assert found.model is not None  # so every model was verified to be the function it was
        assert not found.alignments[0].transform.changes
        loss[method] = evaluate([found.model], Settings(data=data, **CPU))[0].loss
    assert loss["annealing"] < 0.99 * loss["weights"]


def test_of_twins_nothing_is_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their average is already what they say."""
    monkeypatch.setattr(by_annealing, "STEPS", 40)
    model = network(layers(5, 12, 9, 3, seed=1), "Tanh")
    twins = [oc.scramble(model, seed=k, only=["permute"]).model for k in range(3)]
    data = {"x": np.random.default_rng(3).normal(0, 1, (60, 5)).astype(np.float32)}
    found = oc.merge(twins, align="annealing", to="mean", data=data, **CPU)
    assert found.model is not None
    assert contents(found.model) == contents(twins[0])


def test_data_is_asked_for_before_any_work() -> None:
    lines: list[str] = []
    with pytest.raises(OnnxcanonError, match="annealing runs the models, so it needs data"):
        oc.merge(three("plain")[0], align="annealing", to="universe", progress=lines.append, **CPU)
    assert not lines


def test_models_that_contribute_nothing_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_annealing, "STEPS", 40)
    models, data = three("plain")
    found = anneal_jointly(models, [0.5, 0.5, 0.0], Settings(data=data, device="cpu"), rescaled=True)
    assert [bool(transform.changes) for transform in found] == [False, True, False]
    found = anneal_jointly(models, [1.0, 0.0, 0.0], Settings(data=data, device="cpu"))
    assert not any(transform.changes for transform in found)
