"""One form per orbit: whatever element of the group is applied first, the canonical form is the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from onnxcanon.canonical import CanonicalForm, canonicalize
from onnxcanon.canonical.random_element import random_element
from onnxcanon.model import Model, load
from onnxcanon.symmetry import Symmetry, symmetry
from tests.examples import (
    Array,
    Layer,
    attention,
    bits,
    build,
    contents,
    experts,
    layers,
    network,
    quantized,
    theta_of,
    values,
)
from tests.running import run, verify
from tests.shared import MODELS, SHIPPED, TRIVIAL, TWINS, each, label

HANDFUL = (
    "blazeface-back-256",
    "cnn-mnist-batchnorm-pytorch",
    "dtln-2-lstm",
    "mediapipe-selfie-segmentation",
    "mlp-tanh-tf2onnx",
    "mobilenet-edgetpu-qdq-fragment",
    "rl-mlagents-sorter-attention",
    "vespa-transformer-ranker",
)
BASES = [folder / "base.onnx" for folder in TWINS]


@dataclass(frozen=True)
class Case:
    """A model with its canonical form, of the default choices, and with twins."""

    name: str
    model: Model
    canonical: CanonicalForm
    twins: list[Model]


@pytest.fixture(scope="module", params=each(MODELS, SHIPPED))
def case(request: pytest.FixtureRequest) -> Case:
    model = load(request.param)
    group = symmetry(model)
    twins = [random_element(model, group, seed).apply(model) for seed in range(3)]
    return Case(label(request.param), model, canonicalize(model), twins)


# -- every model ------------------------------------------------------------------------------------


def test_scrambled_models_come_to_the_same_bytes(case: Case) -> None:
    form = contents(case.canonical.model)
    for twin in case.twins:
        assert contents(canonicalize(twin).model) == form


def test_twins_hold_other_bytes_except_of_trivial_models(case: Case) -> None:
    stored = contents(case.model)
    moved = {contents(twin) != stored for twin in case.twins}
    assert moved == {case.name not in TRIVIAL}


def test_canonical_forms_are_their_own(case: Case) -> None:
    form = case.canonical.model
    assert contents(canonicalize(form).model) == contents(form)


def test_default_choice_loses_no_bit(case: Case) -> None:
    transform = case.canonical.transform
    for action in transform.actions.values():
        for factor in action.factor.values():
            assert (np.frexp(np.abs(factor))[0] == 0.5).all()
    back = values(transform.inverse().apply(case.canonical.model))
    for name, array in values(case.model).items():
        assert bits(back[name]) == bits(array)


# -- other choices ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", each((p for p in MODELS if p.stem in HANDFUL), SHIPPED, BASES))
@pytest.mark.parametrize("order", ["lexicographic", "nodesort"])
def test_every_order_is_canonical(path: Path, order: str) -> None:
    model = load(path)
    group = symmetry(model)
    form = canonicalize(model, order=order).model
    for seed in range(2):
        twin = random_element(model, group, seed).apply(model)
        assert contents(canonicalize(twin, order=order).model) == contents(form)
    assert contents(canonicalize(form, order=order).model) == contents(form)


def test_orders_differ_only_in_order() -> None:
    model = network(layers(6, 9, 5, 3))
    forms = [canonicalize(model, order=order).model for order in ("norm", "lexicographic", "nodesort")]
    assert len({str(contents(form)) for form in forms}) == 3
    for form in forms:
        assert contents(canonicalize(form).model) == contents(forms[0])


@pytest.mark.parametrize("path", each(SHIPPED, BASES))
@pytest.mark.parametrize("scale", ["pow2", "balanced", "unit", "none"])
def test_canonical_forms_compute_the_same(path: Path, scale: str) -> None:
    model = load(path)
    form = canonicalize(model, scale=scale).model
    assert contents(form) != contents(model)
    result = verify(model, form, device="cpu", threads=1, samples=4)
    assert result.same, result


# -- presentation -----------------------------------------------------------------------------------


def test_norm_puts_the_largest_units_first() -> None:
    form = canonicalize(network(layers(6, 40, 5, 3))).model
    norms = np.linalg.norm(form.tensor("w0").astype(np.float64), axis=0)
    assert (np.diff(norms) <= 0).all()


def test_lexicographic_compares_incoming_weights_entry_by_entry() -> None:
    form = canonicalize(quantized(layers(4, 60, 5)), order="lexicographic").model
    columns = form.tensor("q0").T.tolist()
    assert columns == sorted(columns)
    assert len({tuple(c) for c in columns}) < len(columns)  # there are ties for the next entry to decide


# -- the thesis's NodeSort --------------------------------------------------------------------------


def printed_nodesort(theta: Sequence[Layer], base: float = 2.0) -> list[Layer]:
    """Algorithm 1 as printed: layers sorted by the next weights as they come, P · W , P = (p^0, p^1, …)."""
    orders = [np.argsort(weight @ base ** np.arange(weight.shape[1])) for weight, _ in theta[1:]]
    sorted_theta = []
    for k, (weight, bias) in enumerate(theta):
        rows = orders[k - 1] if k else slice(None)
        columns = orders[k] if k < len(orders) else slice(None)
        sorted_theta.append((weight[rows][:, columns], bias[columns]))
    return sorted_theta


def permuted(theta: Sequence[Layer], rng: np.random.Generator) -> list[Layer]:
    """A random permutation of every hidden layer."""
    orders = [rng.permutation(len(bias)) for _, bias in theta[:-1]]
    twin = []
    for k, (weight, bias) in enumerate(theta):
        rows = orders[k - 1] if k else slice(None)
        columns = orders[k] if k < len(orders) else slice(None)
        twin.append((weight[rows][:, columns], bias[columns]))
    return twin


def ours(theta: Sequence[Layer]) -> list[Layer]:
    return theta_of(canonicalize(network(theta), order="nodesort", scale="none").model)


def forms(theta: Sequence[Layer], sort: Callable[[Sequence[Layer]], list[Layer]], count: int = 30) -> int:
    """In how many forms random permutations of a network end."""
    rng = np.random.default_rng(7)
    ends = [sort(permuted(theta, rng)) for _ in range(count)]
    return len({tuple(a.tobytes() for layer in end for a in layer) for end in ends})


def test_nodesort_as_printed_is_canonical_for_one_hidden_layer_only_and_ours_for_any_depth() -> None:
    shallow, deep = layers(8, 16, 4), layers(8, 16, 16, 16, 4)
    assert forms(shallow, printed_nodesort) == 1
    assert forms(deep, printed_nodesort) > 20
    assert forms(shallow, ours) == 1
    assert forms(deep, ours) == 1
    for one, other in zip(ours(shallow), printed_nodesort(shallow), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# -- ties -------------------------------------------------------------------------------------------


def tied(sizes: Sequence[int] = (6, 24, 20, 4)) -> list[Layer]:
    """A network with units that are zero, dead, constant, duplicated before, behind and on both sides."""
    theta = layers(*sizes)
    for k in range(len(theta) - 1):
        (weight, bias), (following, _) = theta[k], theta[k + 1]
        weight[:, 0] = bias[0] = following[0] = 0  # nothing at all
        weight[:, 1] = bias[1] = 0  # zero
        following[2] = 0  # dead
        weight[:, 3] = 0  # constant
        for a, b in ((4, 5), (6, 7), (7, 8)):  # equal incoming weights, three in a row
            weight[:, b], bias[b] = weight[:, a], bias[a]
        following[10] = following[9]  # equal outgoing weights
        for a, b in ((11, 12), (12, 13)):  # equal in all
            weight[:, b], bias[b], following[b] = weight[:, a], bias[a], following[a]
        weight[:, 14], bias[14] = 2 * weight[:, 15], 2 * bias[15]  # proportional
    return theta


def uniform(*sizes: int, value: float = 1) -> list[Layer]:
    """A network whose parameters are all equal."""
    return [(np.full_like(weight, value), np.full_like(bias, value)) for weight, bias in layers(*sizes)]


def paired() -> list[Layer]:
    """Two disjoint copies of one network, put together again by the last layer."""
    theta = layers(5, 8, 8, 3)
    (first, a), (second, b), (third, c) = theta
    zero = np.zeros_like(second)
    return [
        (np.hstack([first, first]), np.concatenate([a, a])),
        (np.block([[second, zero], [zero, second]]), np.concatenate([b, b])),
        (np.vstack([third, third]), c),
    ]


def rings(*lengths: int) -> list[Layer]:
    """Units in rings: each of the second layer reads two neighbours of the first; else all are alike."""
    count = sum(lengths)
    weight = np.zeros((count, count), np.float32)
    start = 0
    for length in lengths:
        here = start + np.arange(length)
        weight[here, here] = weight[here, np.roll(here, 1)] = 1
        start += length
    (first, bias), (_, _), (last, c) = uniform(2, count, count, 2)
    return [(first, bias), (weight, bias), (last, c)]


def rings_within_experts(*lengths: int) -> Model:
    """Experts that differ in the router alone, each with rings of its own within."""
    text = """experts (float[n, 2] x) => (float[n, 2] y) {
        r = MatMul(x, router)
        p = Softmax(r)
        a1 = Einsum <equation = "ni,eih->neh"> (x, w1)
        h1 = Sigmoid(a1)
        a2 = Einsum <equation = "neh,ehk->nek"> (h1, w2)
        h2 = Sigmoid(a2)
        z = Einsum <equation = "nek,eko->neo"> (h2, w3)
        y = Einsum <equation = "ne,neo->no"> (p, z)
    }"""
    (first, _), (ring, _), (last, _) = rings(*lengths)
    stacked = {name: np.stack([w] * 2) for name, w in (("w1", first), ("w2", ring), ("w3", last))}
    return build(text, {**stacked, "router": layers(2, 2)[0][0]})


TIES: dict[str, Callable[[], Model]] = {
    "units that are zero, dead, constant or duplicated": lambda: network(tied()),
    "the same under tanh": lambda: network(tied(), "Tanh"),
    "all weights equal": lambda: network(uniform(4, 12, 12, 3)),
    "all weights zero": lambda: network(uniform(4, 12, 12, 3, value=0)),
    "two copies of one network": lambda: network(paired()),
    "one ring": lambda: network(rings(12)),
    "rings of equal length": lambda: network(rings(4, 4, 4)),
    "rings of two lengths": lambda: network(rings(6, 3, 3)),
    "rings within experts": lambda: rings_within_experts(4, 2),
    "signs only, int8": lambda: quantized(layers(4, 80, 30, 3)),
    "equal heads": lambda: alike(attention(), ("wq", "wk", "wv", "wo")),
    "equal experts": lambda: alike(experts(), ("w1", "w2", "router")),
}
MOVELESS = ("all weights zero",)


def alike(model: Model, names: Sequence[str]) -> Model:
    """A model with weights of one bit."""
    return model.with_tensors({n: np.sign(model.tensor(n)) for n in names})


@pytest.mark.parametrize("order", ["norm", "lexicographic", "nodesort"])
@pytest.mark.parametrize("kind", TIES)
def test_ties_are_canonical(kind: str, order: str) -> None:
    model = TIES[kind]()
    group = symmetry(model)
    form = contents(canonicalize(model, order=order).model)
    moved = set()
    for seed in range(8):
        twin = random_element(model, group, seed).apply(model)
        moved.add(contents(twin) != contents(model))
        assert contents(canonicalize(twin, order=order).model) == form
    assert moved == {kind not in MOVELESS}
    result = verify(model, canonicalize(model, order=order).model, device="cpu", threads=1, samples=4)
    assert result.same, result


# -- scales -----------------------------------------------------------------------------------------


def squares(model: Model, group: Symmetry) -> float:
    return float(sum((model.tensor(n).astype(np.float64) ** 2).sum() for n in group.trace.parameters))


def two_branches() -> Model:
    """Units read by two layers, and a unit scaled through a depthwise product: more than pairs of layers."""
    text = """branches (float[n, 5] x) => (float[n, 3] y) {
        a = Gemm(x, w0, b0)
        h = Relu(a)
        c = Mul(h, gain)
        y1 = MatMul(c, w1)
        y2 = MatMul(h, w2)
        y = Add(y1, y2)
    }"""
    shapes = {"w0": (5, 8), "b0": (8,), "gain": (8,), "w1": (8, 3), "w2": (8, 3)}
    rng = np.random.default_rng(5)
    return build(text, {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()})


BALANCED: dict[str, Callable[[], Model]] = {
    "mlp": lambda: network(layers(6, 12, 10, 4)),
    "branches": two_branches,
    "experts": experts,
    "attention": attention,
}


@pytest.mark.parametrize("kind", BALANCED)
def test_balanced_is_the_smallest_sum_of_squares_in_the_orbit(kind: str) -> None:
    model = BALANCED[kind]()
    group = symmetry(model)
    form = canonicalize(model, scale="balanced").model
    least = squares(form, group)
    assert least < squares(model, group) * (1 - 1e-4)
    rng = np.random.default_rng(0)
    for width in (2.0, 0.3, 0.01):
        for _ in range(50):
            element = group.action(None, width * rng.standard_normal(group.scale.count))
            assert squares(element.apply(form), group) >= least * (1 - 1e-6)


@pytest.mark.parametrize("scale", ["balanced", "unit"])
@pytest.mark.parametrize("kind", BALANCED)
def test_real_factors_come_to_the_same_form_within_rounding(kind: str, scale: str) -> None:
    model = BALANCED[kind]()
    group = symmetry(model)
    form = values(canonicalize(model, scale=scale).model)
    for seed in range(5):
        twin = group.random(np.random.default_rng(seed), pow2=False).apply(model)
        again = canonicalize(twin, scale=scale).model
        for name, array in form.items():
            assert np.allclose(again.tensor(name), array, rtol=0, atol=1e-5 * np.abs(array).max())


def test_balanced_units_have_equal_norms_on_both_sides() -> None:
    theta = theta_of(canonicalize(network(layers(6, 12, 10, 4)), scale="balanced").model)
    for (weight, bias), (following, _) in pairwise(theta):
        incoming = np.sqrt((weight.astype(np.float64) ** 2).sum(0) + bias.astype(np.float64) ** 2)
        outgoing = np.linalg.norm(following.astype(np.float64), axis=1)
        assert np.allclose(incoming, outgoing, rtol=1e-5)


def test_unit_puts_incoming_weights_with_bias_on_spheres() -> None:
    theta = theta_of(canonicalize(network(layers(6, 12, 10, 4)), scale="unit").model)
    for weight, bias in theta[:-1]:
        norms = np.sqrt((weight.astype(np.float64) ** 2).sum(0) + bias.astype(np.float64) ** 2)
        assert np.allclose(norms, 1, rtol=1e-6)


def test_pow2_brings_the_largest_incoming_weight_into_one_octave_bit_exactly() -> None:
    model = network(layers(6, 12, 10, 4))
    group = symmetry(model)
    wild = group.action(None, np.arange(group.scale.count) % 13 - 6.0).apply(model)
    form = canonicalize(wild, order="none").model
    for weight, _ in theta_of(form)[:-1]:
        largest = np.abs(weight).max(0)
        assert ((largest >= 0.5) & (largest < 1)).all()
    assert not all(((np.abs(w).max(0) >= 0.5) & (np.abs(w).max(0) < 1)).all() for w, _ in theta_of(wild)[:-1])
    x: Array = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    assert np.array_equal(run(wild, {"x": x}, device="cpu")["y"], run(form, {"x": x}, device="cpu")["y"])
