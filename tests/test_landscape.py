"""Paths between models, barriers, flatness and distances: by hand, and by what may not matter to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxcanon as oc
from onnxcanon.errors import OnnxcanonError
from onnxcanon.landscape.barrier import BARRIERS, Curve
from onnxcanon.landscape.paths import PATHS, path
from onnxcanon.landscape.spheres import LONE, spheres, unit_scale
from onnxcanon.merging.averaging import expressed_in
from onnxcanon.model import Model, load
from onnxcanon.symmetry import symmetry
from onnxcanon.weights import averaged_names, learned_names
from tests.examples import build, layers, network, quantized, theta_of, values
from tests.shared import ROOT, TWINS, each

MODELS = ROOT / "models"
DATA = MODELS / "digits_eval.npz"
KINDS = ("mlp", "resnet", "vit")
PAIRS = [tuple(MODELS / f"digits_{kind}_seed{seed}.onnx" for seed in (0, 1)) for kind in KINDS]
SHIPPED = [model for pair in PAIRS for model in pair]
pairs = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0].stem)
CPU = {"device": "cpu"}


def loaded(pair: tuple[Path, ...]) -> tuple[Model, Model]:
    a, b = (load(one) for one in pair)
    return a, expressed_in(a, b)


def data(rows: int = 200) -> dict[str, np.ndarray]:
    with np.load(DATA) as file:
        return {name: array[:rows] for name, array in file.items()}


# Spheres


def test_a_unit_lies_on_the_sphere_of_its_incoming_weights_and_bias() -> None:
    model = network(layers(3, 4, 5, 2))
    parts = spheres(model, symmetry(model), averaged_names(model))
    assert (parts.units, parts.count) == (4 + 5, 4 + 5 + 2)
    for k, size in enumerate((4, 5)):
        weight, bias = parts.owner[f"w{k}"], parts.owner[f"b{k}"]
        assert weight.shape == (1, size)
        assert weight.ravel().tolist() == bias.tolist()
        assert len(set(bias.tolist())) == size
    last = {int(parts.owner[name].item()) for name in ("w2", "b2")}
    assert last == {9, 10}


def test_units_without_a_scale_have_no_sphere_of_their_own() -> None:
    model = network(layers(3, 4, 2), "Tanh")
    parts = spheres(model, symmetry(model), averaged_names(model))
    assert (parts.units, parts.count) == (0, 4)


def test_at_a_normalization_gains_have_spheres_and_statistics_do_not() -> None:
    text = """net (float[n, 3, 5, 5] x) => (float[n, 2] y) {
        a = Conv (x, k, b)
        c = BatchNormalization (a, gain, shift, mean, variance)
        r = Relu(c)
        p = GlobalAveragePool(r)
        f = Flatten(p)
        y = MatMul(f, w)
    }"""
    rng = np.random.default_rng(0)
    shapes = {"k": (4, 3, 2, 2), "w": (4, 2)} | dict.fromkeys(
        ("b", "gain", "shift", "mean", "variance"), (4,)
    )
    model = build(text, {n: rng.uniform(0.5, 2, s).astype(np.float32) for n, s in shapes.items()})
    group = symmetry(model)
    parts = spheres(model, group, averaged_names(model))
    owners = {name: owner.ravel().tolist() for name, owner in parts.owner.items()}
    assert owners["k"] == owners["b"] == owners["mean"]
    assert len(set(owners["gain"]) | set(owners["k"])) == parts.units == 8
    assert len(owners["shift"]) == len(owners["variance"]) == len(owners["w"]) == 1
    assert set(learned_names(model, group)) == {"k", "b", "gain", "shift", "w"}


@pytest.mark.parametrize("path", each(SHIPPED, [folder / "base.onnx" for folder in TWINS]))
def test_unit_scale_brings_every_unit_to_norm_1(path: Path) -> None:
    model = load(path)
    group = symmetry(model)
    parts = spheres(model, group, averaged_names(model))
    normal = unit_scale(model, group).apply(model)
    norms = np.sqrt(parts.products(normal, normal))
    assert parts.units <= group.acting[0].sum()
    np.testing.assert_allclose(norms[: parts.units], 1, rtol=1e-6)
    assert all((owner != LONE).all() for owner in parts.owner.values())


# Paths


@pairs
@pytest.mark.parametrize("kind", PATHS)
def test_the_ends_of_a_path_are_the_models(pair: tuple[Path, ...], kind: str) -> None:
    a, b = loaded(pair)
    way = path(kind, a, b)
    for end, at in ((a, 0.0), (b, 1.0)):
        assert oc.verify(end, way(at), **CPU).same
    assert not oc.verify(a, way(0.5), **CPU).same


@pairs
def test_a_straight_line_is_a_mean_in_double_precision(pair: tuple[Path, ...]) -> None:
    a, b = loaded(pair)
    found, x, y = values(path("linear", a, b)(0.25)), values(a), values(b)
    for name in averaged_names(a):
        expected = (0.75 * x[name].astype(np.float64) + 0.25 * y[name]).astype(np.float32)
        assert found[name].tobytes() == expected.tobytes()


@pairs
def test_a_geodesic_turns_evenly_and_keeps_to_the_spheres(pair: tuple[Path, ...]) -> None:
    a, b = loaded(pair)
    group = symmetry(a)
    parts = spheres(a, group, averaged_names(a))
    way = path("geodesic", a, b, group)
    whole = parts.angles(way(0), way(1))
    for at in (0.25, 0.5):
        point = way(at)
        np.testing.assert_allclose(parts.angles(way(0), point), at * whole, atol=2e-3)
        norms = np.sqrt(parts.products(point, point))
        np.testing.assert_allclose(norms[: parts.units], 1, rtol=1e-6)
    assert whole.max() > 1


def test_the_radius_of_what_is_no_units_goes_evenly() -> None:
    a, b = network(layers(3, 4, 2, seed=0)), network(layers(3, 4, 2, seed=1))
    way = path("geodesic", a, b)
    norms = [np.linalg.norm(way(at).tensor("w1")) for at in (0.0, 0.25, 1.0)]
    assert norms[1] == pytest.approx(0.75 * norms[0] + 0.25 * norms[2], rel=1e-6)


def test_opposite_and_dead_units_go_straight() -> None:
    theta = layers(3, 4, 2)
    other = layers(3, 4, 2)
    other[0][0][:, 0], other[0][1][0] = -theta[0][0][:, 0], -theta[0][1][0]
    other[0][0][:, 1], other[0][1][1] = 0, 0
    point = path("geodesic", network(theta), network(other))(0.5)
    weight, bias = theta_of(point)[0]
    assert np.abs(weight[:, 0]).max() < 1e-6
    start = unit_scale(network(theta), symmetry(network(theta))).apply(network(theta)).tensor("w0")
    np.testing.assert_allclose(weight[:, 1], start[:, 1] / 2, rtol=1e-6)
    assert np.isfinite(bias).all()


def test_what_is_equal_stays_equal_even_infinite() -> None:
    text = """net (float[n, 3] x) => (float[n, 3] y) {
        h = MatMul(x, w)
        y = Max(h, least)
    }"""
    rng = np.random.default_rng(0)
    least = np.array([-np.inf, 0, 0.3], np.float32)
    a, b = (build(text, {"w": rng.normal(size=(3, 3)).astype(np.float32), "least": least}) for _ in "ab")
    for kind in PATHS:
        point = path(kind, a, b)(0.3)
        np.testing.assert_array_equal(point.tensor("least"), least)
        assert np.isfinite(point.tensor("w")).all()


# Barriers


def test_three_barriers_are_told_apart() -> None:
    curve = Curve((0.0, 0.25, 0.5, 1.0), (1.0, 2.0, 2.5, 3.0), (0.9, 0.7, 0.8, 0.5))
    found = {name: getattr(curve, name) for name in BARRIERS}
    assert found == pytest.approx(
        {
            "barrier_loss": 0.5,
            "barrier_loss_mean": 1.0,
            "barrier_loss_worse": 0.0,
            "barrier_error": 0.1,
            "barrier_error_mean": 0.2,
            "barrier_error_worse": 0.0,
        }
    )
    levels = {"alphas": [0, 0.25, 0.5, 1], "loss": [1, 2, 2.5, 3], "accuracy": [0.9, 0.7, 0.8, 0.5]}
    assert curve.to_json() == levels | found


@pairs
def test_points_are_the_models_that_evaluation_sees(pair: tuple[Path, ...]) -> None:
    a, b = loaded(pair)
    found = oc.barrier(*pair, data(), points=3, align="none", **CPU)
    middle = load(path("linear", a, b)(0.5).to_proto())
    expected = oc.evaluate([a, middle, b], data(), **CPU)
    assert found.loss == tuple(one.loss for one in expected)
    assert found.accuracy == tuple(one.accuracy for one in expected)
    assert found.alphas == (0, 0.5, 1)
    assert found.aligned is None
    middle_loss = expected[1].loss - (expected[0].loss + expected[2].loss) / 2
    assert found.barrier_loss == pytest.approx(max(middle_loss, 0))


@pairs
@pytest.mark.parametrize("kind", PATHS)
def test_nothing_stands_between_aligned_twins(pair: tuple[Path, ...], kind: str) -> None:
    twin = oc.scramble(pair[0], seed=3).model
    found = oc.barrier(pair[0], twin, data(), points=5, path=kind, **CPU)
    assert found.barrier_loss > 0.1
    assert found.aligned is not None
    assert found.aligned.barrier_loss < 1e-5
    assert found.aligned.barrier_error == 0


@pytest.mark.parametrize("folder", each(TWINS))
def test_names_and_order_of_the_other_file_do_not_matter(folder: Path) -> None:
    plain, anonymous = (
        oc.barrier(folder / "base.onnx", folder / name, folder / "eval.npz", points=3, align="none", **CPU)
        for name in ("base.onnx", "twin_anon.onnx")
    )
    assert plain.barrier_loss == 0
    assert anonymous.loss[0] == plain.loss[0]
    assert anonymous.loss[2] == pytest.approx(plain.loss[2], rel=1e-4)


@pairs
def test_a_geodesic_does_not_see_how_models_are_scaled(pair: tuple[Path, ...]) -> None:
    scaled = [oc.scramble(one, seed=5 + k, only=["scale"]).model for k, one in enumerate(pair)]
    plain, moved = (
        oc.barrier(*ends, data(), points=5, path="geodesic", align="none", **CPU) for ends in (pair, scaled)
    )
    assert moved.loss == pytest.approx(plain.loss, rel=1e-4)
    straight = oc.barrier(*scaled, data(), points=5, align="none", **CPU)
    assert straight.loss != pytest.approx(plain.loss, rel=1e-1)


@pairs
def test_every_point_is_repaired(pair: tuple[Path, ...]) -> None:
    """The middle is what `merge` makes of the pair; the ends, their own statistics, stay as they are."""
    calibration = dict(np.load(ROOT / "models" / "digits_calib.npz"))
    plain, repaired = (
        oc.barrier(*pair, data(), points=3, repair=repair, repair_data=calibration, **CPU)
        for repair in ("none", "rescale")
    )
    merged = oc.merge(pair, repair="rescale", data=calibration, **CPU).model
    assert merged is not None
    (expected,) = oc.evaluate(merged, data(), **CPU)
    assert repaired.aligned is not None
    assert plain.aligned is not None
    assert repaired.aligned.loss[1] == pytest.approx(expected.loss, rel=1e-4)
    assert repaired.aligned.loss[1] != pytest.approx(plain.aligned.loss[1], rel=1e-2)
    assert repaired.loss[::2] == pytest.approx(plain.loss[::2], rel=1e-3)
    assert "repaired by rescale" in str(repaired)


def test_an_unknown_repair_is_refused() -> None:
    with pytest.raises(OnnxcanonError, match="no repair 'hope'"):
        oc.barrier(*PAIRS[0], data(), repair="hope", **CPU)


def test_numbers_have_a_loss_alone() -> None:
    a, b = network(layers(3, 4, 2, seed=0)), network(layers(3, 4, 2, seed=1))
    rng = np.random.default_rng(0)
    known = {"x": rng.normal(size=(9, 3)).astype(np.float32), "y": rng.normal(size=(9, 2))}
    found = oc.barrier(a, b, known, points=3, **CPU)
    assert (found.accuracy, found.barrier_error, found.barrier_error_mean) == (None, None, None)
    assert "error before" not in str(found)
    assert found.to_csv().splitlines()[0] == "alpha,loss,aligned_loss"
    rise = oc.flatness(a, known, draws=2, **CPU)
    assert (rise.accuracy, rise.rises[0].error) == (None, None)
    assert "rise of the error" not in str(rise)


def test_no_path_leads_through_integers_or_to_another_structure() -> None:
    theta = layers(3, 4, 2)
    known = {"x": np.zeros((4, 3), np.float32), "y": np.zeros(4, np.int64)}
    other = quantized([(-w, b) for w, b in theta])
    for a, b, cause in (
        (quantized(theta), other, "quantized"),
        (network(theta), network(layers(3, 5, 2)), "width"),
        (network(theta), network(theta, "Tanh"), "Relu"),
    ):
        with pytest.raises(OnnxcanonError, match=cause):
            oc.barrier(a, b, known, **CPU)


def test_choices_that_there_are_not() -> None:
    a, b = PAIRS[0]
    for wrong, cause in (
        ({"path": "crooked"}, "no path 'crooked'; choose from linear"),
        ({"align": "magic"}, "no alignment 'magic'; choose from weights"),
        ({"points": 1}, "two points or more"),
    ):
        with pytest.raises(OnnxcanonError, match=cause):
            oc.barrier(a, b, data(), **CPU, **wrong)  # type: ignore[arg-type]
    for wrong in ({"sigmas": [-1.0]}, {"sigmas": [np.nan]}, {"draws": 1}):
        with pytest.raises(OnnxcanonError, match="strength of 0 or more"):
            oc.flatness(a, data(), **CPU, **wrong)  # type: ignore[arg-type]


# Flatness


def test_without_noise_nothing_rises_and_more_noise_is_worse() -> None:
    found = oc.flatness(PAIRS[0][0], data(), sigmas=[0.0, 0.1, 1.0], draws=4, **CPU)
    none, some, much = found.rises
    assert (none.loss, none.loss_stderr, none.error, none.error_stderr) == (0, 0, 0, 0)
    assert some.loss < much.loss
    assert some.error is not None
    assert much.error is not None
    assert some.error < much.error


def test_noise_is_in_proportion_to_the_weights() -> None:
    """Of one layer y = w x and the labels 0 the loss rises by the mean of σ² (w x)²."""
    weight = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32)
    model = build("net (float[n, 50] x) => (float[n, 1] y) { y = MatMul(x, w) }", {"w": weight})
    x = np.eye(50, dtype=np.float32)
    found = oc.flatness(model, {"x": x, "y": np.zeros((50, 1))}, sigmas=[0.5], draws=400, **CPU)
    (rise,) = found.rises
    expected = 0.25 * float((weight**2).mean())
    assert abs(rise.loss - expected) < 4 * rise.loss_stderr
    assert rise.loss_stderr < expected / 10


@pairs
def test_flatness_does_not_see_how_a_model_is_scaled(pair: tuple[Path, ...]) -> None:
    scaled = oc.scramble(pair[0], seed=5, only=["scale"]).model
    found = [oc.flatness(one, data(), sigmas=[0.2], draws=3, **CPU) for one in (pair[0], scaled)]
    plain, moved = (one.rises[0] for one in found)
    assert moved.loss == pytest.approx(plain.loss, rel=1e-3)
    assert moved.error == pytest.approx(plain.error, abs=0.01)


def test_the_seed_decides() -> None:
    def of(seed: int) -> Any:
        return oc.flatness(PAIRS[0][0], data(), sigmas=[0.3], draws=3, seed=seed, **CPU).rises

    assert of(1) == of(1) != of(2)


def test_means_have_their_standard_errors() -> None:
    rise = oc.flatness(PAIRS[0][0], data(), sigmas=[0.3], draws=2, **CPU).rises[0]
    longer = oc.flatness(PAIRS[0][0], data(), sigmas=[0.3], draws=3, **CPU).rises[0]
    third = 3 * longer.loss - 2 * rise.loss
    gap = rise.loss_stderr  # of two values their half difference
    three = [rise.loss - gap, rise.loss + gap, third]
    assert longer.loss_stderr == pytest.approx(np.std(three, ddof=1) / 3**0.5)


@pytest.mark.parametrize(("pair", "trained"), [(PAIRS[1], 21694), (PAIRS[2], 18218)])
def test_noise_spares_statistics_and_settings(pair: tuple[Path, ...], trained: int) -> None:
    """Learned is what models/README.md counts as the parameters that were trained."""
    model = load(pair[0])
    names = learned_names(model, symmetry(model))
    assert sum(model.tensor(name).size for name in names) == trained


# Distances


def test_distances_by_hand() -> None:
    theta = layers(2, 5, 3)
    angle = 0.3
    turned = [(w.copy(), b.copy()) for w, b in theta]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    theta[0][1][:] = turned[0][1][:] = 0  # no biases: a unit's sphere is a circle
    turned[0][0][:, 2] = turn @ theta[0][0][:, 2]
    found = oc.distance([network(theta), network(turned)])
    assert found.spherical[0][1] == pytest.approx(angle, rel=1e-4)
    gap = np.linalg.norm(theta[0][0][:, 2] - turned[0][0][:, 2])
    assert found.raw[0][1] == pytest.approx(gap, rel=1e-6)
    assert (found.spheres, found.entries) == (5 + 2, 2 * 5 + 5 + 5 * 3 + 3)


@pairs
def test_only_raw_distances_see_what_the_group_does(pair: tuple[Path, ...]) -> None:
    models = [m for one in pair for m in (load(one), oc.scramble(one, seed=1).model)]
    found = oc.distance(models)
    for kind in ("canonical", "aligned", "spherical"):
        matrix = np.array(getattr(found, kind))
        far = matrix[:2, 2:]
        assert matrix.tolist() == matrix.T.tolist()
        assert (np.diag(matrix) == 0).all()
        assert matrix[0, 1] < 1e-3 * far.min()
        assert matrix[2, 3] < 1e-3 * far.min()
        assert far.max() < 1.001 * far.min()
    assert found.raw[0][1] > 10
    assert found.to_json()["raw"] == [list(row) for row in found.raw]


def test_distances_need_two_models_of_one_structure() -> None:
    with pytest.raises(OnnxcanonError, match="two or more"):
        oc.distance([PAIRS[0][0]])
    with pytest.raises(OnnxcanonError, match="structure"):
        oc.distance([PAIRS[0][0], PAIRS[1][0]])
