"""Alignment: planted elements of the group are found again, and what is moved stays the same function."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import onnxcanon as oc
from onnxcanon.alignment.by_weights import match_weights
from onnxcanon.alignment.frame import Frame
from onnxcanon.alignment.incidence import IncidenceFinder, axis_groups
from onnxcanon.alignment.nearest_scales import nearest_scale
from onnxcanon.alignment.nearest_signs import nearest_signs
from onnxcanon.canonical.random_element import random_element
from onnxcanon.choices import ALIGNED_SCALES
from onnxcanon.model import Model, load
from onnxcanon.settings import Settings
from onnxcanon.symmetry import symmetry
from onnxcanon.transform import Transform
from tests.aligning import align
from tests.examples import build, layers, network
from tests.shared import MODELS, SHARED, SHIPPED, TRIVIAL, TWINS, each

LARGEST = 1 << 22
"""Bytes of weights of the models that are scrambled and aligned here."""

MOVABLE = [p for p in (*SHIPPED, *MODELS) if p.stem not in TRIVIAL]
BASES = [folder / "base.onnx" for folder in TWINS]
FAMILIES = ("merge_mlp", "merge_vgg_w2")


def noisy(model: Model, share: float, seed: int) -> Model:
    """The model with noise of a share of each floating tensor's deviation."""
    rng = np.random.default_rng(seed)
    new = {}
    for name in model.tensor_names():
        shape, dtype = model.tensor_info(name)
        if dtype.is_floating_point() and len(shape) > 0:
            array = model.tensor(name)
            wide = array.astype(np.float64)
            new[name] = (wide + share * wide.std() * rng.normal(size=shape)).astype(array.dtype)
    return model.with_tensors(new)


def still_moved(transform: Transform) -> int:
    """How many positions of all axes a transform moves."""
    count = 0
    for _, action in transform.changes.values():
        for axis, rows in action.index.items():
            line = [n if k == axis else 1 for k, n in enumerate(action.shape)]
            count += int((rows != np.arange(rows.shape[axis]).reshape(line)).sum())
    return count


def squared(a: Model, b: Model) -> float:
    """The squared distance of the floating tensors of two models of one file."""
    total = 0.0
    for name in a.tensor_names():
        if a.tensor_info(name)[1].is_floating_point():
            gap = a.tensor(name).astype(np.float64) - b.tensor(name).astype(np.float64)
            total += float((np.nan_to_num(gap) ** 2).sum())
    return total


def pair(family: str, one: int = 0, other: int = 1) -> tuple[Path, Path]:
    """Two models of one architecture that were trained apart."""
    folder = SHARED / "twins" / family
    if not folder.is_dir():
        pytest.skip(f"no models at {folder}")
    return folder / f"seed_{one}.onnx", folder / f"seed_{other}.onnx"


@pytest.mark.parametrize("path", each(MOVABLE, BASES))
def test_a_planted_element_is_found_again(path: Path) -> None:
    model = load(path)
    if model.serialized_size() > LARGEST:
        pytest.skip("large")
    group = symmetry(model)
    twin = random_element(model, group, 3).apply(model)
    found = align(model, twin)
    for name in {*found.transform.changes, *random_element(model, group, 3).changes}:
        ours, theirs = model.tensor(name), found.model.tensor(name)
        size = float(np.nan_to_num(np.abs(ours.astype(np.float64)), posinf=0).max(initial=0))
        np.testing.assert_allclose(theirs.astype(float), ours.astype(float), rtol=1e-4, atol=1e-6 * size)


@pytest.mark.parametrize("path", each([p for p in BASES if p.parent.name != "ties"]))
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_element_is_found_under_noise(path: Path, seed: int) -> None:
    """Half of each tensor's deviation; every unit goes back to its place."""
    model = load(path)
    planted = symmetry(model).random(np.random.default_rng(seed))
    found = align(model, planted.apply(noisy(model, 0.5, seed)))
    assert still_moved(planted) > 0
    assert still_moved(planted.then(found.transform)) == 0


@pytest.mark.parametrize("path", each([f / "other_seed.onnx" for f in TWINS if f.name != "ties"]))
def test_what_is_aligned_stays_the_same_function_and_comes_closer(path: Path) -> None:
    base = path.with_name("base.onnx")
    far = squared(load(base), load(path))
    for scale in ALIGNED_SCALES:
        found = oc.align(base, path, scale=scale)
        assert oc.verify(path, found.model).same
        assert squared(load(base), found.model) < far
        assert found.distance[1] < found.distance[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_nearest_scale_is_nearer_than_that_of_equal_norms(family: str) -> None:
    reference, model = pair(family)
    distance = {scale: oc.align(reference, model, scale=scale).distance[1] for scale in ALIGNED_SCALES}
    assert distance["nearest"] < distance["norms"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_objective_never_falls(family: str) -> None:
    reference, model = pair(family)
    matching = Frame.of(load(reference), load(model)).matching()
    known = [matching.objective()]
    for k in [*range(len(matching.branches))] * 3:
        matching.visit(k)
        known.append(matching.objective())
    assert known[-1] > known[0]
    assert all(b >= a - 1e-9 * abs(a) for a, b in itertools.pairwise(known))


@pytest.mark.parametrize("family", FAMILIES)
def test_several_starts_find_no_less_than_one(family: str) -> None:
    reference, model = pair(family)
    frame = Frame.of(load(reference), load(model))
    one, several = frame.matching(), frame.matching()
    one.from_signatures()
    one.run()
    several.actions = dict(match_weights(frame.matching(), Settings()).actions)
    several.moved = {
        n: several.actions[n](a) if n in several.actions else a for n, a in several.start.items()
    }
    assert several.objective() >= one.objective() - 1e-6 * abs(one.objective())


@pytest.mark.parametrize("family", FAMILIES)
def test_an_average_of_aligned_models_is_better_than_one_of_models_as_they_are(family: str) -> None:
    reference, model = pair(family)
    data = reference.with_name("eval.npz")
    plain = oc.merge([reference, model], align="none").model
    aligned = oc.merge([reference, model]).model
    assert plain is not None
    assert aligned is not None
    errors = [one.error for one in oc.evaluate([reference, plain, aligned], data)]
    assert errors[0] is not None
    assert errors[1] is not None
    assert errors[2] is not None
    assert errors[2] - errors[0] < 0.5 * (errors[1] - errors[0])


def test_another_exporter_spells_the_same_model() -> None:
    folder = SHARED / "twins" / "lstm"
    if not folder.is_dir():
        pytest.skip(f"no models at {folder}")
    base, other = folder / "base.onnx", folder / "reexport_both.onnx"
    with pytest.raises(oc.OnnxcanonError, match="--normalize"):
        oc.align(base, other)
    found = oc.align(base, other, normalize=True)
    assert found.distance[1] < 1e-6 < found.distance[0]
    assert oc.verify(other, found.model).same


def test_signs_go_where_the_products_want_them() -> None:
    """Every hidden unit of a tanh network flipped: each must be flipped back, by its own sign."""
    model = network(layers(4, 6, 5, 3), "Tanh")
    group = symmetry(model)
    flips = np.array([1, 0] * (group.sign.count // 2) + [1] * (group.sign.count % 2))
    twin = group.action(None, None, flips).apply(model)
    ours, theirs = ({n: m.tensor(n) for n in m.tensor_names()} for m in (model, twin))
    for guess in (False, True):
        assert nearest_signs(group, ours, theirs, guess=guess).tolist() == np.flatnonzero(flips).tolist()


def test_scales_are_those_of_the_smallest_distance() -> None:
    model = network(layers(4, 6, 5, 3))
    group = symmetry(model)
    exponents = np.random.default_rng(0).uniform(-2, 2, group.scale.count)
    twin = group.action(None, exponents).apply(model)
    ours, theirs = ({n: m.tensor(n) for n in m.tensor_names()} for m in (model, twin))
    np.testing.assert_allclose(nearest_scale(group, ours, theirs), -exponents, atol=1e-2)


def test_rows_are_axes_whose_labels_depend_on_each_other() -> None:
    heads, inner = np.arange(3).reshape(1, 3, 1), np.arange(6).reshape(1, 3, 2)
    assert axis_groups({0: np.arange(4).reshape(4, 1, 1), 1: heads, 2: inner}) == [(0,), (1, 2)]


def test_heads_carry_what_is_inside_them() -> None:
    """Of a transformer's heads the incidences hold every row, and nested ones every slot of a head."""
    path = SHARED / "twins" / "vit" / "base.onnx"
    if not path.is_file():
        pytest.skip("no vit")
    group = symmetry(load(path))
    survey = IncidenceFinder(group)
    nested = [orbit for orbit in group.solution.tree if orbit.children]
    assert nested
    for orbit in nested:
        branch, quadratic = survey.branch(orbit)
        assert not quadratic
        for incidence in branch.incidences:
            assert np.unique(incidence.slots).size == incidence.slots.size
            inside = np.zeros(incidence.slots.shape[1], bool)
            for child in branch.children:
                for inner in child.incidences:
                    if inner.rows == incidence.rows:
                        inside[inner.slots] = True
            assert (inside == ~incidence.loose).all()


def test_models_of_other_widths_are_refused() -> None:
    with pytest.raises(oc.OnnxcanonError, match=r"w0 is \[4, 6\].*\[4, 7\].*different widths"):
        align(network(layers(4, 6, 3)), network(layers(4, 7, 3)))


def test_an_unknown_method_is_refused() -> None:
    model = network(layers(4, 6, 3))
    with pytest.raises(oc.OnnxcanonError, match="no method 'guessing'"):
        align(model, model, method="guessing")
    with pytest.raises(oc.OnnxcanonError, match="no scale 'any'"):
        align(model, model, scale="any")


def test_units_with_several_signs_are_matched_as_well_as_planted() -> None:
    """A frequency has a real and an imaginary row, each with a sign of its own."""
    text = """net (float[n, 24] x) => (float[n, 6] y) {
        s = MatMul(x, w)
        re, im = Split <axis = 1> (s, sizes)
        a = Mul(re, re)
        b = Mul(im, im)
        c = Add(a, b)
        m = Sqrt(c)
        y = MatMul(m, v)
    }"""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        weights = {"w": rng.normal(size=(24, 64)), "v": 0.1 * rng.normal(size=(32, 6))}
        tensors = {name: array.astype(np.float32) for name, array in weights.items()}
        model = build(text, {**tensors, "sizes": np.array([32, 32])})
        group = symmetry(model)
        assert (len(group.solution.tree), group.sign.count) == (1, 64)
        noise = {n: 0.9 * a.std() * rng.normal(size=a.shape) for n, a in tensors.items()}
        noisy = model.with_tensors({n: (a + noise[n]).astype(np.float32) for n, a in tensors.items()})
        found = align(model, group.random(rng).apply(noisy)).model
        ours, planted = (
            sum(float(((other.tensor(n) - a) ** 2).sum()) for n, a in tensors.items())
            for other in (found, noisy)
        )
        assert ours <= planted * (1 + 1e-6), seed
