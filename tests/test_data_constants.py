"""What is data stays where it is unless asked, what is a weight moves: told by use alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxcanon as oc
from onnxcanon.errors import OnnxcanonError
from onnxcanon.model import load
from onnxcanon.symmetry import symmetry
from tests import data_graphs, small_models
from tests.running import verify


def data(proto: onnx.ModelProto) -> dict[str, str]:
    found = oc.analyze(load(proto))
    assert not {d.initializer for d in found.data} & {
        s.initializer for x in found.dimensions for s in x.sites
    }
    return {d.initializer: d.kind for d in found.data}


# Data


@pytest.mark.parametrize("picked", [False, True])
def test_tables_of_rotary_embeddings_are_data(picked: bool) -> None:
    kind = "a table that multiplies elementwise"
    assert data(data_graphs.rotary(picked=picked)) == {"cos": kind, "sin": kind}


@pytest.mark.parametrize("combine", ["Add", "Mul", "Sub", "Div"])
def test_masks_before_softmax_are_data(combine: str) -> None:
    assert data(data_graphs.masked(combine)) == {"mask": "a mask before Softmax"}


def test_frequencies_are_data() -> None:
    assert data(data_graphs.frequencies()) == {"freq": "frequencies of Sin and Cos"}


def test_caches_are_data() -> None:
    kind = "cosines or sines of rotary embeddings"
    assert data(data_graphs.cached()) == {"cos": kind, "sin": kind}


def test_windows_are_data() -> None:
    assert data(data_graphs.product("c = Mul(a, table) b = Relu(c)")) == {
        "table": "a table that multiplies elementwise"
    }


# Weights that look like data


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("b = Add(a, table)", (3, 6)),  # position embeddings
        ("b = Mul(a, table)", (6,)),  # a layer scale, a gain
        ("b = Mul(a, table)", (1, 6)),
        ("b = PRelu(a, table)", (3, 6)),
        ("c = LayerNormalization(a, other) b = Mul(c, table)", (6,)),
        ("m = ReduceMean <axes = [1]> (a) c = Sub(a, m) s = Mul(c, c) v = ReduceMean <axes = [0, 1]> (s) "
         "r = Sqrt(v) n = Div(c, r) b = Mul(n, table)", (3, 6)),  # the gain of a normalization spelled out
        ("c = Mul(a, table) b = Add(c, other)", (3, 6)),  # an affine map
        ("b = Mul(a, table)", (3, 6)),  # contracted at once: may be a weight in the making
        ("c = Mul(table, other) b = Add(a, c)", (3, 6)),  # a constant made of constants
        ("t = Greater(a, table) b = Cast <to = 1> (t)", (3, 6)),  # thresholds
        ("t = Greater(a, a) b = Where(t, a, table)", (3, 6)),  # tokens in place of what is masked
        ("c = Mul(a, table) d = Add(a, table) e = Add(c, d) b = Relu(e)", (3, 6)),  # one use of another kind
    ],
)  # fmt: skip
def test_weights_that_look_like_data_are_weights(body: str, shape: tuple[int, ...]) -> None:
    assert data(data_graphs.product(body, shape)) == {}


def test_a_table_that_leaves_the_graph_is_not_judged() -> None:
    proto = data_graphs.product("c = Mul(a, table) b = Relu(c)")
    proto.graph.node.append(onnx.helper.make_node("Transpose", ["table"], ["d"]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("d", onnx.TensorProto.FLOAT, (6, 3)))
    assert data(proto) == {}


def test_an_embedding_that_meets_a_mask_is_a_weight() -> None:
    proto = data_graphs.embedding_under_a_mask()
    assert data(proto) == {}
    (d,) = oc.analyze(load(proto)).dimensions
    assert {s.initializer for s in d.sites} == {"embedding", "w"}


def test_a_layer_with_sine_activation_is_a_weight() -> None:
    assert data(data_graphs.frequencies(bias=True)) == {}


# What follows from it


def test_data_is_fixed_with_its_reason_and_freed_on_request() -> None:
    proto = data_graphs.frequencies()
    found = oc.analyze(load(proto))
    assert found.trivial
    reasons = {(f.value, f.axis): f.reason for f in found.fixed}
    assert reasons["freq", 0] == "data: frequencies of Sin and Cos"
    assert "constant 'freq'" in reasons["w", 0]
    assert "data constants, fixed: freq; --permute-constants frees them" in str(found)
    free = oc.analyze(load(proto), permute_constants=True)
    assert not free.data
    assert [(d.size, d.permute) for d in free.dimensions] == [(6, True)]


@pytest.mark.parametrize("permute_constants", [False, True])
@pytest.mark.parametrize(
    "proto",
    [data_graphs.rotary(), data_graphs.masked(), data_graphs.frequencies()],
    ids=["rope", "mask", "sin"],
)
def test_both_choices_keep_the_function(proto: onnx.ModelProto, permute_constants: bool) -> None:
    model = load(proto)
    group = symmetry(model, permute_constants=permute_constants)
    moved = group.random(np.random.default_rng(1)).apply(model)
    assert verify(model, moved, device="cpu", threads=1, samples=2).same
    stays = group.trace.data_constants
    assert bool(stays) != permute_constants
    assert all(np.array_equal(moved.tensor(name), model.tensor(name)) for name in stays)


# What is the caller's


def test_constants_of_the_caller_move_on_request() -> None:
    proto = small_models.overridable()
    free = oc.analyze(load(proto), allow_overridable=True)
    assert not free.overridable
    assert [d.size for d in free.dimensions] == [8]
    assert not oc.canonicalize(proto, verify=False).changed
    found = oc.canonicalize(proto, allow_overridable=True, device="cpu")
    assert found.verification is not None
    assert found.verification.same
    assert not oc.scramble(proto).changed
    assert oc.scramble(proto, allow_overridable=True).changed


def test_a_transform_is_not_applied_to_constants_of_the_caller_unless_asked() -> None:
    proto = small_models.overridable()
    twin = oc.scramble(proto, allow_overridable=True)
    with pytest.raises(OnnxcanonError, match="'w1', which the caller may override; --allow-overridable"):
        oc.apply(proto, twin.transform)
    moved = oc.apply(proto, twin.transform, allow_overridable=True)
    assert np.array_equal(moved.tensor("w1"), twin.model.tensor("w1"))


# Other remarks


def test_positions_that_reach_no_output_are_dead() -> None:
    found = oc.analyze(load(data_graphs.sliced()))
    assert {(s.initializer, s.axis): s.positions for s in found.dead_positions} == {
        ("w1", 1): 3,
    }
    assert found.dead == ("w3",)
    assert "dead, for it reaches no output: 3 of w1[1]" in found.to_text(why=True)
    assert not oc.analyze(load(small_models.mlp())).dead_positions


def test_units_that_are_mixed_before_they_are_dropped_are_not_dead() -> None:
    proto = data_graphs.sliced()
    proto.graph.node[1].op_type = "Softmax"  # each unit counts for all others
    proto.graph.node[1].attribute.append(onnx.helper.make_attribute("axis", -1))
    del proto.graph.node[-1]
    assert not oc.analyze(load(proto)).dead_positions


def test_half_precision_and_shared_parameters_are_told() -> None:
    found = oc.analyze(load(data_graphs.half()))
    assert set(found.half) == {"w1", "b1", "w2"}
    assert "half precision, permutes but is not rescaled" in str(found)
    assert not found.scale_freedoms
    proto = small_models.model(
        "tied (float[n, 4] x) => (float[n, 4] y) { [a] h = MatMul(x, w) g = Relu(h) [b] k = MatMul(g, w) "
        "y = Relu(k) }",
        {"w": (4, 4)},
    )
    shared = oc.analyze(load(proto)).shared
    assert [(s.initializer, s.nodes) for s in shared] == [("w", ("a", "b"))]
