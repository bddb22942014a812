"""Equal pieces of the graph change places with their parameters; what only looks equal does not."""

from __future__ import annotations

from functools import reduce
from math import factorial, log10
from pathlib import Path

import numpy as np
import pytest

from onnxcanon import (
    analyze,
    apply,
    canonicalize,
    load_transform,
    scramble,
)
from onnxcanon.model import Model, load
from onnxcanon.solving.compiled_constraints import compile_constraints
from onnxcanon.solving.generator_check import GeneratorCheck, check_generators, generators
from onnxcanon.solving.group import WreathNode
from onnxcanon.solving.solve import solve
from onnxcanon.symmetry import symmetry
from onnxcanon.tracing.trace import trace
from tests.fuzz.builder import Builder
from tests.fuzz.check import check
from tests.fuzz.graphs import Case

HIDDEN, WIDTH, COUNT = 4, 5, 3
INNER = COUNT * log10(factorial(HIDDEN)) + log10(factorial(WIDTH))
EXCHANGE = log10(factorial(COUNT))


def started(dtype: type = np.float64) -> Builder:
    b = Builder(np.random.default_rng(7), dtype, 21)
    b.inputs["x"] = b.value["x"] = b.rng.normal(0, 1, (3, 6)).astype(dtype)
    return b


def weight(b: Builder, *shape: int) -> str:
    name = b.name("w")
    b.initializers[name] = b.value[name] = b.rng.normal(0, 0.5, shape).astype(b.dtype)
    return name


def expert(b: Builder, shared: str = "") -> str:
    y = b.op("Relu", b.op("Add", b.op("MatMul", "x", shared or weight(b, 6, HIDDEN)), weight(b, HIDDEN)))
    return b.op("MatMul", y, weight(b, HIDDEN, WIDTH))


def finished(b: Builder, y: str) -> Case:
    out = b.op("MatMul", b.op("Relu", y), weight(b, WIDTH, 2))
    return Case(b.model([out], dynamic=True), [b.inputs])


def gates(b: Builder, way: str) -> list[str]:
    gate = b.op("Softmax", b.op("MatMul", "x", weight(b, 6, COUNT)), axis=-1)
    if way == "split":
        return b.ops("Split", gate, b.ints(*[1] * COUNT), outputs=COUNT, axis=1)
    if way == "slice":
        return [b.op("Slice", gate, b.ints(k), b.ints(k + 1), b.ints(1)) for k in range(COUNT)]
    return [b.op("Gather", gate, b.ints(k), axis=1) for k in range(COUNT)]


def joined(b: Builder, way: str) -> str:
    parts = [expert(b) for _ in range(COUNT)]
    if way in ("split", "slice", "gather"):
        parts = [b.op("Mul", p, g) for p, g in zip(parts, gates(b, way), strict=True)]
    if way == "sum":
        return b.op("Sum", *parts)
    if way == "concat":
        return b.op("MatMul", b.op("Concat", *parts, axis=1), weight(b, COUNT * WIDTH, WIDTH))
    return reduce(lambda p, q: b.op("Max" if way == "max" else "Add", p, q), parts)


@pytest.mark.parametrize("way", ["add", "sum", "max", "split", "slice", "gather"])
def test_experts_change_places_with_their_parameters(way: str) -> None:
    case = finished(b := started(), joined(b, way))
    found = symmetry(load(case.proto))
    assert found.log10_orbit == pytest.approx(INNER + EXCHANGE)
    assert len(found.stacks) == 3
    for seed in range(5):
        report = check(case, seed)
        assert not report.problem
        assert report.control is not False


def test_branches_side_by_side_take_the_rows_of_the_next_layer_along() -> None:
    case = finished(b := started(), joined(b, "concat"))
    inner = COUNT * (log10(factorial(HIDDEN)) + log10(factorial(WIDTH))) + log10(factorial(WIDTH))
    assert symmetry(load(case.proto)).log10_orbit == pytest.approx(inner + EXCHANGE)
    assert not any(check(case, seed).problem for seed in range(5))


def different(b: Builder, kind: str) -> str:
    """Branches that do not change places, each for one reason."""
    parts = [expert(b) for _ in range(COUNT)]
    if kind == "operator":
        parts = [b.op(k, p) for k, p in zip(("Relu", "Tanh", "Sigmoid"), parts, strict=True)]
    elif kind == "attribute":
        parts = [b.op("LeakyRelu", p, alpha=0.1 * k) for k, p in enumerate(parts)]
    elif kind == "constant":
        parts = [b.op("Mul", p, b.scalar(1.0 + k)) for k, p in enumerate(parts)]
    elif kind == "operand":
        return b.op("Sub", b.op("Sub", parts[0], b.op("Relu", parts[1])), b.op("Abs", parts[2]))
    elif kind == "position":  # positions of an input have a meaning
        parts = [b.op("Mul", p, b.op("Gather", "x", b.ints(k), axis=1)) for k, p in enumerate(parts)]
    return b.op("Sum", *parts)


@pytest.mark.parametrize("kind", ["operator", "attribute", "constant", "operand", "position"])
def test_what_only_looks_equal_stays(kind: str) -> None:
    dtype = np.float32 if kind == "attribute" else np.float64  # LeakyRelu knows no double precision
    case = finished(b := started(dtype), different(b, kind))
    found = symmetry(load(case.proto))
    assert not found.stacks
    assert found.log10_orbit == pytest.approx(INNER)
    assert not any(check(case, seed).problem for seed in range(3))


def test_a_weight_that_all_branches_read_stays_and_the_rest_changes_places() -> None:
    b = started()
    shared = weight(b, 6, HIDDEN)
    case = finished(b, b.op("Sum", *[expert(b, shared) for _ in range(COUNT)]))
    found = symmetry(load(case.proto))
    assert shared not in {m for members in found.stacks.values() for m in members}
    assert found.log10_orbit == pytest.approx(log10(factorial(HIDDEN)) + log10(factorial(WIDTH)) + EXCHANGE)
    assert not any(check(case, seed).problem for seed in range(5))


def test_a_branch_whose_gate_is_read_elsewhere_stays() -> None:
    b = started()
    gate = gates(b, "split")
    parts = [b.op("Mul", expert(b), g) for g in gate]
    case = finished(b, b.op("Add", b.op("Sum", *parts), gate[0]))
    found = symmetry(load(case.proto))
    assert not found.stacks
    assert found.log10_orbit == pytest.approx(INNER)
    assert not any(check(case, seed).problem for seed in range(5))


def same(one: Model, other: Model) -> bool:
    names = one.tensor_names()
    return all(one.tensor(n).tobytes() == other.tensor(n).tobytes() for n in names)


@pytest.mark.parametrize("way", ["add", "concat", "split"])
@pytest.mark.parametrize("order", ["norm", "lexicographic", "nodesort"])
def test_twins_with_branches_exchanged_meet_in_the_canonical_form(way: str, order: str) -> None:
    proto = finished(b := started(), joined(b, way)).proto
    form = canonicalize(proto, order=order, verify=False).model
    for seed in range(4):
        twin = scramble(proto, seed=seed).model
        assert same(canonicalize(twin, order=order, verify=False).model, form)


def test_a_saved_exchange_is_applied_and_undone(tmp_path: Path) -> None:
    model = load(finished(b := started(), joined(b, "add")).proto)
    found = scramble(model, seed=3)
    assert any(source != name for name, (source, _) in found.transform.changes.items())
    found.transform.save(tmp_path / "map.npz")
    element = load_transform(tmp_path / "map.npz")
    assert same(apply(model, element), found.model)
    assert same(apply(found.model, element, inverse=True), model)


def test_the_report_names_the_parameters_that_change_places() -> None:
    told = analyze(load(finished(b := started(), joined(b, "add")).proto))
    outer = next(d for d in told.dimensions if d.size == COUNT)
    assert {s.axis for s in outer.sites} == {None}
    assert len(outer.sites) == 3 * COUNT
    inner = next(d for d in told.dimensions if d.within == outer.id)
    assert (inner.size, inner.copies) == (HIDDEN, COUNT)
    assert {f.axis for f in told.fixed if "graph input" in f.reason} == {0}


# -- exchanges across a shuffle that does not line up -----------------------------------------------------


def shuffle_net(channels: int, groups: int, depth: int) -> Case:
    """A residual stream through grouped convolutions with a channel shuffle between them."""
    b = Builder(np.random.default_rng(3), np.float32, 21)
    b.inputs["x"] = b.value["x"] = b.rng.normal(0, 1, (2, 3, 2, 2)).astype(np.float32)

    def conv(x: str, out: int, each: int, group: int) -> str:
        w = b.name("w")
        b.initializers[w] = b.value[w] = b.rng.normal(0, 0.5, (out, each, 1, 1)).astype(np.float32)
        return b.op("Conv", x, w, group=group)

    x = conv("x", channels, 3, 1)
    each = channels // groups
    for _ in range(depth):
        y = b.op("Relu", conv(x, channels, each, groups))
        y = b.op("Transpose", b.op("Reshape", y, b.ints(0, groups, each, 2, 2)), perm=[0, 2, 1, 3, 4])
        y = conv(b.op("Reshape", y, b.ints(0, channels, 2, 2)), channels, each, groups)
        x = b.op("Relu", b.op("Add", x, y))
    y = b.op("ReduceMean", x, b.ints(2, 3), keepdims=0)
    w = b.name("w")
    b.initializers[w] = b.value[w] = b.rng.normal(0, 0.5, (channels, 2)).astype(np.float32)
    return Case(b.model([b.op("MatMul", y, w)], dynamic=True), [b.inputs])


@pytest.mark.parametrize(("channels", "groups", "size"), [(12, 3, 2), (40, 4, 2)])
def test_groups_on_both_sides_of_a_misaligned_shuffle_move_together(
    channels: int, groups: int, size: int
) -> None:
    case = shuffle_net(channels, groups, 2)
    found = symmetry(load(case.proto)).solution
    assert [o.size for o in found.tree if o.children] == [size]
    assert not any(check(case, seed).problem for seed in range(6))
    form = canonicalize(case.proto, verify=False).model
    twin = scramble(case.proto, seed=5, only=("permute",)).model
    assert same(canonicalize(twin, verify=False).model, form)


# -- the generator check ------------------------------------------------------------------------------


def mlp() -> Case:
    b = started()
    y = b.op("Relu", b.op("MatMul", "x", weight(b, 6, HIDDEN)))
    return finished(b, b.op("MatMul", y, weight(b, HIDDEN, WIDTH)))


def test_generators_of_a_nested_node() -> None:
    inner = WreathNode(np.array([[0], [1], [2]]))
    outer = WreathNode(np.arange(6).reshape(2, 3), [inner])
    found = [(s.tolist(), t.tolist()) for s, t in generators(outer)]
    assert found == [([0, 1, 2, 3, 4, 5], [3, 4, 5, 0, 1, 2]), ([0, 1], [1, 0]), ([0, 1, 2], [2, 0, 1])]


def test_a_node_that_breaks_a_constraint_stays_and_is_reported() -> None:
    compiled = compile_constraints(trace(load(mlp().proto)).constraints, {})
    solution = solve(trace(load(mlp().proto)).constraints)
    assert not solution.failures
    first, second = solution.tree
    wrong = WreathNode(np.stack([first.members[0], second.members[0]]))
    solution.tree = [first, wrong]
    check_generators(solution, compiled)
    assert solution.tree == [first]
    assert len(solution.failures) == 1


def test_a_pinned_class_that_moves_breaks_a_constraint() -> None:
    compiled = compile_constraints(trace(load(mlp().proto)).constraints, {})
    check_ = GeneratorCheck(compiled, [], compiled.count)
    pinned = np.flatnonzero(compiled.pinned)[:2]
    assert not check_.holds(pinned, pinned[::-1])
