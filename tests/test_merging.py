"""Averages: exact where possible, refused where they make no sense, one function where models are twins."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.optimize import linear_sum_assignment

import onnxcanon as oc
from onnxcanon.action import Action
from onnxcanon.choices import ALIGNERS, METHODS, REPAIRS, TARGETS
from onnxcanon.errors import OnnxcanonError
from onnxcanon.merging import joint_alignment
from onnxcanon.merging.averaging import average, distance, expressed_in, shares_of
from onnxcanon.merging.joint_alignment import REFERENCE, align_jointly
from onnxcanon.model import Model, load
from onnxcanon.settings import Settings
from onnxcanon.transform import Transform
from tests.examples import build, contents, experts, layers, network, quantized, values
from tests.merge_models import images, residual
from tests.shared import ROOT, SHARED

CPU = {"device": "cpu"}
MLP = [ROOT / "models" / f"digits_mlp_seed{k}.onnx" for k in (0, 1)]
RESNET = [ROOT / "models" / f"digits_resnet_seed{k}.onnx" for k in (0, 1)]
CALIB, EVAL = ROOT / "models" / "digits_calib.npz", ROOT / "models" / "digits_eval.npz"


def test_an_average_is_the_weighted_sum_rounded_once() -> None:
    models = [network(layers(8, 16, 3, seed=seed)) for seed in range(3)]
    found = oc.merge(models, weights=(1, 2, 5), align="none", **CPU)
    assert found.weights == (0.125, 0.25, 0.625)
    assert found.model is not None
    for name, array in values(found.model).items():
        wide = [model.tensor(name).astype(np.float64) for model in models]
        wanted = (0.125 * wide[0] + 0.25 * wide[1] + 0.625 * wide[2]).astype(np.float32)
        assert array.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*seed0.onnx")), ids=lambda path: path.stem)
def test_one_model_is_its_own_average(path: Path, tmp_path: Path) -> None:
    for weights in ([3.0], [3.0, 0.0]):
        other = [path.with_name(path.name.replace("seed0", "seed1"))] * (len(weights) - 1)
        found = oc.merge([path, *other], weights=weights, align="none", **CPU)
        assert found.model is not None
        found.model.save(tmp_path / "one.onnx")
        assert (tmp_path / "one.onnx").read_bytes() == path.read_bytes()


def test_one_model_repaired_is_the_same_function() -> None:
    found = oc.merge([RESNET[0]], align="none", repair="rescale", data=CALIB, **CPU)
    assert found.model is not None
    assert found.layers == 9
    assert oc.verify(RESNET[0], found.model, rtol=1e-4, **CPU).same


@pytest.mark.parametrize("method", ["weights", "canonical"])
@pytest.mark.parametrize("path", [MLP[0], RESNET[0]], ids=lambda path: path.stem)
def test_the_average_of_twins_is_the_same_function(path: Path, method: str) -> None:
    """Whichever twins; without alignment it is another one."""
    models = [path, *(oc.scramble(path, seed=seed).model for seed in (1, 2))]
    found = oc.merge(models, align=method, **CPU)
    assert found.refusal == ""
    assert found.model is not None
    assert oc.verify(path, found.model, **CPU).same
    plain = oc.merge(models, align="none", **CPU)
    assert plain.model is not None
    assert not oc.verify(path, plain.model, **CPU).same


@pytest.mark.parametrize("to", TARGETS)
def test_the_first_model_stays_where_it_is(to: str) -> None:
    """The average lies among the twins of the first model, whatever it was aligned to on the way."""
    path = MLP[0]
    models = [oc.scramble(path, seed=seed, only=["permute"]).model for seed in range(4)]
    found = oc.merge(models, to=to, **CPU)
    assert found.model is not None
    assert contents(found.model) == contents(models[0])
    assert [one.distance[1] for one in found.alignments] == [0.0] * 4
    assert all(one.distance[0] > 0.01 for one in found.alignments[1:])


def test_twins_in_branches_that_change_places() -> None:
    model = experts()
    models = [model, *(oc.scramble(model, seed=seed, only=["permute"]).model for seed in (1, 2, 3))]
    for to in TARGETS:
        found = oc.merge(models, to=to, **CPU)
        assert found.model is not None
        assert contents(found.model) == contents(model)


def spread(models: list[Model], to: str) -> float:
    """How far the gathered models lie from their mean, squared."""
    weights = shares_of(None, len(models))
    found = [
        one.model
        for one in align_jointly(models, weights, method="weights", to=to, settings=Settings(device="cpu"))
    ]
    return sum(distance(average(found, weights), one) ** 2 for one in found)


@pytest.mark.parametrize("activation", ["Relu", "Sigmoid"])
def test_aligning_to_the_mean_brings_models_closer(activation: str) -> None:
    models = [network(layers(6, 12, 12, 3, seed=seed), activation) for seed in range(5)]
    alike = [expressed_in(models[0], model) for model in models]
    assert spread(alike, "mean") <= spread(alike, REFERENCE)
    assert spread(alike, "universe") <= spread(alike, REFERENCE)


def assigned(reference: Model, model: Model, **options: object) -> SimpleNamespace:
    """The best match of one hidden layer, exactly: a linear assignment."""
    ours, theirs = [np.c_[m.tensor("w0").T, m.tensor("b0"), m.tensor("w1")] for m in (reference, model)]
    order = linear_sum_assignment(ours.astype(np.float64) @ theirs.T, maximize=True)[1]
    axes = {"w0": (1, (1, -1)), "b0": (0, (-1,)), "w1": (0, (-1, 1))}
    actions = {
        name: Action(model.tensor_info(name)[0], {axis: order.reshape(shape)})
        for name, (axis, shape) in axes.items()
    }
    found = Transform(actions, model.name)
    return SimpleNamespace(transform=found, model=found.apply(model))


@pytest.fixture
def rotated(monkeypatch: pytest.MonkeyPatch) -> list[list[Model]]:
    """Four unrelated models, each once in front, matched exactly. (Sigmoid leaves permutations alone, which
    move all models alike.)"""
    monkeypatch.setattr(joint_alignment, "align", assigned)
    models = [network(layers(6, 12, 3, seed=seed), "Sigmoid") for seed in range(4)]
    orders = [models[k:] + models[:k] for k in range(4)]
    return [[expressed_in(order[0], model) for model in order] for order in orders]


def test_the_mean_improves_on_the_reference(rotated: list[list[Model]]) -> None:
    for order in rotated:
        assert spread(order, "mean") < 0.999 * spread(order, REFERENCE)


def test_a_universe_starts_from_the_best_reference(
    rotated: list[list[Model]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever model stands first."""
    monkeypatch.setattr(joint_alignment, "MOST_ROUNDS", 0)
    stars = [spread(order, REFERENCE) for order in rotated]
    assert max(stars) > 1.001 * min(stars)  # some reference is better than another
    found = [spread(order, "universe") for order in rotated]
    assert found == pytest.approx([min(stars)] * 4, rel=1e-9)


def test_infinite_constants_do_not_keep_models_apart() -> None:
    """As those of masks: what is equal has no distance, and the mean is sought as without them."""
    text = """net (float[n, 6] x) => (float[n, 3] y) {
        a = MatMul(x, u)
        b = Relu(a)
        c = MatMul(b, v)
        y = Max(c, least)
    }"""
    found = {}
    for least in (-np.inf, -1e3):
        models = []
        for seed in range(4):
            rng = np.random.default_rng(seed)
            tensors = {n: rng.normal(size=s).astype(np.float32) for n, s in (("u", (6, 12)), ("v", (12, 3)))}
            models.append(build(text, {**tensors, "least": np.full(3, least, np.float32)}))
        for to in (REFERENCE, "mean"):
            found[to, least] = [one.distance for one in oc.merge(models, to=to, **CPU).alignments]
    assert found["mean", -np.inf] == found["mean", -1e3]
    assert found["mean", -np.inf] != found[REFERENCE, -np.inf]
    assert np.isfinite(found["mean", -np.inf]).all()


def test_names_and_metadata_are_those_of_the_first(tmp_path: Path) -> None:
    first = network(layers(8, 16, 3))
    renamed = onnx.ModelProto.FromString(
        first.to_proto().SerializeToString().replace(b"\x02w0", b"\x02v0").replace(b"\x02a0", b"\x02q0")
    )
    renamed.producer_name = "another"
    second = load(renamed).with_tensors({"v0": first.tensor("w0") + np.float32(1)})
    found = oc.merge([first, second], align="none", **CPU).model
    assert found is not None
    assert found.tensor_names() == first.tensor_names()
    np.testing.assert_allclose(found.tensor("w0"), first.tensor("w0") + 0.5, atol=1e-7)
    proto = found.to_proto()
    assert proto.producer_name == ""
    assert proto.graph.node == first.to_proto().graph.node


# -- what cannot be averaged ----------------------------------------------------------------------------


def saved(model: Model, path: Path) -> Path:
    model.save(path)
    return path


def test_widths_that_differ_are_told(tmp_path: Path) -> None:
    a = saved(network(layers(8, 16, 5, 3)), tmp_path / "a.onnx")
    b = saved(network(layers(8, 32, 5, 3)), tmp_path / "b.onnx")
    told = (
        f"w0 is [8, 16] in {a} and [8, 32] in {b}, b0 is [16] in {a} and [32] in {b},"
        f" w1 is [16, 5] in {a} and [32, 5] in {b}: models of different widths cannot be aligned or averaged"
    )
    for method in ALIGNERS:
        with pytest.raises(OnnxcanonError) as error:
            oc.merge([a, b], align=method, **CPU)
        assert str(error.value) == told


def test_structures_that_differ_are_told(tmp_path: Path) -> None:
    a = saved(network(layers(8, 16, 3)), tmp_path / "a.onnx")
    for other, told in (
        (network(layers(8, 16, 3), "Tanh"), r"has Relu 'Relu\(h0\)' where .* has Tanh 'Tanh\(h0\)'"),
        (network(layers(8, 16, 16, 3)), "has no node where .* has Relu|has Gemm .* where"),
        (residual(), "has Gemm .* where .* has Conv"),
    ):
        b = saved(other, tmp_path / "b.onnx")
        with pytest.raises(OnnxcanonError, match=f"{told}.*: models of different structures"):
            oc.merge([a, b], **CPU)


def test_attributes_that_differ_are_told() -> None:
    text = "m (float[n, 4] x) => (float[n, 4] y) {{ h = Elu <alpha = {}> (x) \n y = MatMul(h, w) }}"
    a, b = (build(text.format(alpha), {"w": np.eye(4, dtype=np.float32)}) for alpha in (0.5, 1.0))
    with pytest.raises(OnnxcanonError, match="attributes or connections differ"):
        oc.merge([a, b], **CPU)


def test_quantized_weights_are_refused() -> None:
    a, b = (quantized(layers(8, 16, 3, seed=seed)) for seed in (0, 1))
    with pytest.raises(OnnxcanonError, match=r"'q0'.*INT8 .*quantized weights.*before quantizing"):
        oc.merge([a, b], align="none", **CPU)
    same = oc.merge([a, a.with_tensors({"b0": a.tensor("b0") + 1})], align="none", **CPU).model
    assert same is not None  # the integers are equal: there is nothing to round
    np.testing.assert_allclose(same.tensor("b0"), a.tensor("b0") + 0.5)


def gathered(indices: list[int], *, kind: type = np.int64) -> Model:
    text = "g (float[n, 4] x) => (float[n, 2] y) { h = MatMul(x, w) \n y = Gather <axis = 1> (h, i) }"
    weight = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    return build(text, {"w": weight, "i": np.array(indices, kind)})


@pytest.mark.parametrize("kind", [np.int64, np.int32])
def test_integers_have_to_be_equal(kind: type) -> None:
    a, b = gathered([0, 1], kind=kind), gathered([0, 2], kind=kind)
    with pytest.raises(OnnxcanonError, match=r"tensor 'i' differs.*no weights, and has to be equal"):
        oc.merge([a, b], align="none", **CPU)
    assert oc.merge([a, gathered([0, 1], kind=kind)], align="none", **CPU).model is not None


def test_types_that_differ_are_told() -> None:
    text = "m ({0}[n, 4] x) => ({0}[n, 4] y) {{ y = MatMul(x, w) }}"
    a = build(text.format("float"), {"w": np.eye(4, dtype=np.float32)})
    b = build(text.format("double"), {"w": np.eye(4)})
    with pytest.raises(OnnxcanonError, match=r"w is FLOAT in .* and DOUBLE in"):
        oc.merge([a, b], **CPU)


@pytest.mark.parametrize("dtype", ["FLOAT16", "BFLOAT16", "DOUBLE"])
def test_every_floating_type_is_averaged_in_double(dtype: str) -> None:
    number = getattr(TensorProto, dtype)
    kind = helper.tensor_dtype_to_np_dtype(number)

    def make(seed: int) -> Model:
        rows = np.random.default_rng(seed).normal(size=(4, 4)).astype(kind)
        ports = [helper.make_tensor_value_info(name, number, ["n", 4]) for name in "xy"]
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        graph = helper.make_graph([node], "g", ports[:1], ports[1:], [numpy_helper.from_array(rows, "w")])
        return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))

    models = [make(seed) for seed in range(3)]
    found = average(models, shares_of(None, 3)).tensor("w")
    wanted = sum(model.tensor("w").astype(np.float64) * (1 / 3) for model in models)
    assert found.dtype == kind
    assert found.tobytes() == np.asarray(wanted).astype(kind).tobytes()


@pytest.mark.parametrize("weights", [(1,), (1, -1), (0, 0), (float("nan"), 1), (float("inf"), 1)])
def test_weights_that_are_none(weights: tuple[float, ...]) -> None:
    with pytest.raises(OnnxcanonError, match="weight"):
        oc.merge(MLP, weights=weights, **CPU)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"align": "magic"}, "no alignment 'magic'; choose from weights"),
        ({"to": "infinity"}, "no target 'infinity'; choose from reference, mean, universe"),
        ({"repair": "hope"}, "no repair 'hope'; choose from none, rescale, reset-bn"),
        ({"repair": "rescale"}, "give --data"),
        ({"labels": np.zeros(3, np.int64)}, "labels say nothing without data"),
        ({"repair": "reset-bn", "data": CALIB}, "no BatchNormalization; use --repair rescale"),
    ],
)
def test_what_is_asked_for_wrongly(options: dict, cause: str) -> None:
    with pytest.raises(OnnxcanonError, match=cause):
        oc.merge(MLP, **options, **CPU)
    with pytest.raises(OnnxcanonError, match="nothing to average"):
        oc.merge([], **CPU)


def test_every_alignment_is_offered() -> None:
    assert set(ALIGNERS) == {*METHODS, "canonical", "none"}
    assert TARGETS == ("reference", "mean", "universe")
    assert REPAIRS == ("none", "rescale", "reset-bn")


# -- refusals and reports -------------------------------------------------------------------------------


def test_an_aligned_model_that_is_another_function_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = joint_alignment.align

    def wrong(reference: Model, model: Model, **options: object) -> object:
        found = real(reference, model, **options)
        broken = {n: a for n, a in found.transform.actions.items() if n != "fc2.weight"}
        return type(found)(
            **{
                **{name: getattr(found, name) for name in found.__slots__},
                "transform": type(found.transform)(broken, found.transform.model),
            }
        )

    monkeypatch.setattr(joint_alignment, "align", wrong)
    found = oc.merge(MLP, **CPU)
    assert found.model is None
    assert "aligned, it is another function" in found.refusal
    assert str(MLP[1]) in found.refusal
    assert oc.merge(MLP, verify=False, **CPU).model is not None


def test_a_repair_that_the_models_do_not_bear_is_refused() -> None:
    with np.load(CALIB) as file:
        x, y = file["x"], file["y"]
    noise = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    found = oc.merge(RESNET, align="none", repair="reset-bn", data={"x": noise}, **CPU)
    assert found.model is None
    assert f"reset-bn on this data spoils {RESNET[0]}: outputs move by" in found.refusal
    assert len(found.evaluations) == 2
    # One class alone: its statistics are not those of all.
    alone = {"x": np.concatenate([x[y == 0], x[:10]]), "y": np.concatenate([y[y == 0], y[:10]])}
    found = oc.merge(RESNET, align="none", repair="reset-bn", data=alone, **CPU)
    assert found.model is None
    assert "accuracy falls from" in found.refusal


def test_reset_statistics_are_those_of_the_data() -> None:
    """And the models, which saw such data in training, hardly change."""
    found = oc.merge(RESNET, align="none", repair="reset-bn", data=CALIB, **CPU)
    assert found.model is not None
    assert found.layers == 8
    *ends, own = found.evaluations
    assert [end.model for end in ends] == [str(path) for path in RESNET]
    assert own.model == "average"
    for end in ends:
        assert end.before is not None
        assert end.after is not None
        assert end.before.accuracy == pytest.approx(end.after.accuracy, abs=0.01)
    assert own.before is not None
    assert own.after is not None
    assert own.after.loss < own.before.loss
    again = oc.evaluate(found.model, CALIB, **CPU)[0]
    assert again.loss == pytest.approx(own.after.loss, rel=1e-6)


def test_a_report_is_json_and_text() -> None:
    found = oc.merge([residual(0), residual(1)], align="none", repair="rescale", data=images(), **CPU)
    told = json.loads(json.dumps(found.to_json()))
    assert told["layers"] == 5
    assert told["weights"] == [0.5, 0.5]
    assert len(told["distances"]) == 2
    assert "5 layers repaired by rescale" in str(found)


@pytest.mark.parametrize("family", ["merge_mlp", "merge_vgg_w2"])
def test_repair_raises_the_average_of_eight_trainings(family: str) -> None:
    folder = SHARED / "twins" / family
    if not folder.is_dir():
        pytest.skip(f"no models at {folder}")
    models = sorted(folder.glob("seed_*.onnx"))
    plain, repaired = (
        oc.merge(models, repair=repair, data=folder / "calib.npz", verify=False, **CPU).model
        for repair in ("none", "rescale")
    )
    assert plain is not None
    assert repaired is not None
    before, after = oc.evaluate([plain, repaired], folder / "eval.npz", **CPU)
    assert after.loss < before.loss


def test_canonical_forms_of_other_freedoms_have_no_average() -> None:
    """A bias that two layers share ties their units to each other, unless all of it is one number."""
    rng = np.random.default_rng(0)
    weights = {"w0": (4, 6), "w1": (6, 6), "w2": (6, 3)}
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in weights.items()}
    text = """two (float[n, 4] x) => (float[n, 3] y) {
        a = Gemm(x, w0, b) h = Sigmoid(a) c = Gemm(h, w1, b) g = Sigmoid(c) y = MatMul(g, w2) }"""
    tied = build(text, {**tensors, "b": rng.normal(size=6).astype(np.float32)})
    loose = build(text, {**tensors, "b": np.ones(6, np.float32)})
    with pytest.raises(OnnxcanonError, match="not the same freedoms"):
        oc.merge([tied, loose], align="canonical")
