"""What a model may do, as it is told: the counts are the true ones, and every fixed axis has its reason."""

from __future__ import annotations

import json
from math import factorial, log10
from pathlib import Path

import numpy as np
import onnx
import pytest
from scipy.sparse import csr_matrix

import onnxcanon as oc
from onnxcanon.explaining.analysis import Analysis
from onnxcanon.explaining.counting import _rank
from onnxcanon.model import load
from tests import small_models

SHARED = Path(__file__).parents[2] / "shared"
TWINS = sorted(SHARED.glob("twins/*/base.onnx"))
NEEDS_TWINS = pytest.mark.skipif(not TWINS, reason=f"needs the twins whose truth is known in {SHARED}")


def analyze(proto: object) -> Analysis:
    return oc.analyze(load(proto))  # type: ignore[arg-type]


# The truth


@NEEDS_TWINS
@pytest.mark.parametrize("path", TWINS, ids=lambda path: path.parent.name)
def test_counts_are_those_of_the_specification(path: Path) -> None:
    truth = json.loads(path.with_name("truth.json").read_text())
    expected = truth["scale_freedoms"]
    found = oc.analyze(load(path))
    assert found.log10_orbit == pytest.approx(truth["log10_group_order"], rel=1e-3)
    extra = sum(item["count"] for item in expected["onnx_extra"])
    assert found.scale_freedoms == expected["visible_after_bn_folding"] + extra
    assert found.sign_freedoms == expected["sign_only"]
    assert not found.defects


@NEEDS_TWINS
def test_the_dimensions_make_up_the_group() -> None:
    """The orders of the dimensions, each as often as it occurs, multiply to the order of the group."""
    for path in TWINS:
        found = oc.analyze(load(path))
        total = sum(d.copies * log10(factorial(d.size)) for d in found.dimensions if d.permute)
        assert total == pytest.approx(found.log10_orbit)


# Models whose truth is told by hand


def test_a_hidden_layer() -> None:
    found = analyze(small_models.mlp())
    (d,) = found.dimensions
    assert (d.id, d.size, d.permute, d.scale, d.sign) == ("d0", 8, True, "positive", False)
    assert (d.within, d.copies) == (None, 1)
    assert {(s.initializer, s.axis, s.positions) for s in d.sites} == {
        ("w1", 1, 8),
        ("b1", 0, 8),
        ("w2", 0, 8),
    }
    assert d.values == ("a", "h")
    assert found.parameters == 4 * 8 + 8 + 8 * 3 + 3
    assert (found.scale_freedoms, found.sign_freedoms) == (8, 0)
    assert found.log10_orbit == pytest.approx(log10(factorial(8)))
    reasons = {(f.value, f.axis): f.reason for f in found.fixed}
    assert reasons.keys() == {("w1", 0), ("w2", 1), ("b2", 0)}
    assert "graph input 'x'" in reasons["w1", 0]
    assert reasons["w2", 1] == reasons["b2", 0] == "graph output 'y'"


@pytest.mark.parametrize(
    ("activation", "scale", "sign", "counts"),
    [
        ("Tanh", "sign", True, (0, 8)),
        ("Sigmoid", "none", False, (0, 0)),
        ("Identity", "positive", True, (8, 0)),
        ("Abs", "positive", True, (8, 8)),  # the sign of w1 alone, no factor of w2 goes with it
    ],
)
def test_what_an_activation_leaves_free(
    activation: str, scale: str, sign: bool, counts: tuple[int, int]
) -> None:
    found = analyze(small_models.mlp(activation))
    assert (found.dimensions[0].scale, found.dimensions[0].sign) == (scale, sign)
    assert (found.scale_freedoms, found.sign_freedoms) == counts


def test_a_nested_dimension_names_the_outer_one() -> None:
    found = analyze(small_models.experts(3, 5))
    outer, inner = found.dimensions
    assert (outer.size, outer.permute, outer.scale, outer.within) == (3, True, "none", None)
    assert (inner.size, inner.permute, inner.scale, inner.within, inner.copies) == (
        5,
        True,
        "positive",
        "d0",
        3,
    )
    assert {(s.initializer, s.axis) for s in outer.sites} == {("router", 1), ("w1", 0), ("w2", 0)}
    assert {(s.initializer, s.axis) for s in inner.sites} == {("w1", 2), ("w2", 1)}
    assert found.log10_orbit == pytest.approx(3 * log10(factorial(5)) + log10(factorial(3)))
    assert found.scale_freedoms == 15


def test_a_dimension_of_fixed_order_is_listed_where_its_sign_is_free() -> None:
    found = analyze(small_models.normalized())
    held = [d for d in found.dimensions if not d.permute]
    assert held
    assert {(d.size, d.scale) for d in held} <= {(6, "sign")}
    assert (found.scale_freedoms, found.sign_freedoms) == (0, 2)
    assert {"y"} == {
        f.reason.partition("'")[2].rstrip("'") for f in found.fixed if "graph output" in f.reason
    }


def test_kernel_positions_say_so() -> None:
    found = analyze(small_models.convolution())
    kernel = {f.axis: f.reason for f in found.fixed if f.value == "k"}
    assert kernel.keys() == {1, 2, 3}
    assert "kernel positions" in kernel[2]
    assert "graph input 'x'" in kernel[1]


def chains(proto: object) -> dict[tuple[str, int], tuple[str, ...]]:
    return {(f.value, f.axis): f.chain for f in analyze(proto).fixed}


def ladder(length: int) -> onnx.ModelProto:
    """Layers of six units, each tied to the next by a sum whose mean alone is read; the last is an output."""
    lines = [f"[layer{k}] a{k} = MatMul(x, w{k})" for k in range(length + 1)]
    lines += [f"[tie{k}] t{k} = Add(a{k}, a{k + 1})" for k in range(length)]
    lines += [f"m{k} = ReduceMean <axes = [1]> (t{k})" for k in range(length)]
    means = ", ".join(f"float[n, 1] m{k}" for k in range(length))
    text = f"ladder (float[n, 4] x) => ({means}, float[n, 6] y) {{ {' '.join(lines)} y = Relu(a{length}) }}"
    return small_models.model(text, {f"w{k}": (4, 6) for k in range(length + 1)})


def test_a_chain_leads_from_the_axis_over_the_nodes_that_tie_it_to_the_cause() -> None:
    found = chains(ladder(2))
    assert found["w2", 1] == ("layer2", "graph output 'y'")
    assert found["w1", 1] == ("layer1", "tie1", "graph output 'y'")
    assert found["w0", 1] == ("layer0", "tie0", "tie1", "graph output 'y'")
    assert found["w0", 0] == ("layer0", "meets an axis of graph input 'x'")


def test_a_chain_goes_through_what_moves_only_together() -> None:
    """[n, 6] read as [n, 2, 3] whose last axis is an output after the sum over the other."""
    text = """r (float[n, 4] x) => (float[n, 3] y) {
        [first] a = MatMul(x, w)
        shape = Constant <value_ints = [0, 2, 3]> ()
        [cut] c = Reshape(a, shape)
        axes = Constant <value_ints = [1]> ()
        [total] y = ReduceSum <keepdims = 0> (c, axes)
    }"""
    proto = small_models.model(text, {"w": (4, 6)})
    free = {(s.initializer, s.axis) for d in analyze(proto).dimensions for s in d.sites}
    assert ("w", 1) in free  # two blocks change places, so this axis is not fixed
    fixed = text.replace("[total] y = ReduceSum <keepdims = 0> (c, axes)", "[out] y = Add(c, bias)").replace(
        "float[n, 3] y", "float[n, 2, 3] y"
    )
    found = chains(small_models.model(fixed, {"w": (4, 6), "bias": (3,)}))
    assert found["w", 1] == ("first", "cut", "graph output 'y'")


def test_long_chains_are_told_by_their_ends() -> None:
    found = analyze(ladder(8))
    axis = next(f for f in found.fixed if (f.value, f.axis) == ("w0", 1))
    assert axis.chain == ("layer0", *(f"tie{k}" for k in range(8)), "graph output 'y'")
    told = next(line for line in found.to_text(why=True).splitlines() if line.startswith("w0[1]"))
    assert told.endswith("layer0 -> tie0 -> … -> tie6 -> tie7 -> graph output 'y'")


def test_what_is_not_seen_through_is_named() -> None:
    found = analyze(small_models.opaque())
    assert (found.unsupported[0].node, found.unsupported[0].operator) == ("oracle", "some.where::Mystery")
    assert found.trivial
    assert "oracle" in found.why_trivial()
    assert "oracle" in str(found)
    reasons = {(f.value, f.axis): f.reason for f in found.fixed}
    assert "oracle" in reasons["w1", 1]


def test_constants_of_the_caller_are_left_alone() -> None:
    found = analyze(small_models.overridable())
    assert set(found.overridable) == {"w1", "b1", "w2", "b2"}
    assert not found.dimensions
    assert "override" in found.why_trivial()
    assert {f.value for f in found.fixed} == {"w1", "b1", "w2", "b2"}


def test_a_constant_that_nothing_reads_is_dead() -> None:
    proto = small_models.mlp()
    spare = proto.graph.initializer.add()
    spare.CopyFrom(proto.graph.initializer[0])
    spare.name = "spare"
    found = analyze(proto)
    assert found.dead == ("spare",)
    assert {f.reason for f in found.fixed if f.value == "spare"} == {
        "no node that leads to an output reads it"
    }


def test_freedoms_that_do_the_same_count_once() -> None:
    """W[c, h, k] flattened to [c·h, k]: a factor of every h against one of every c changes nothing."""
    text = """twice (float[n, 4] x) => (float[n, 3] y) {
        shape = Constant <value_ints = [0, 2, 3]> ()
        a = MatMul(x, w1)
        r = Reshape(a, shape)
        p = Relu(r)
        flat = Constant <value_ints = [0, 6]> ()
        f = Reshape(p, flat)
        v = Constant <value_ints = [6, 3]> ()
        m = Reshape(w2, v)
        y = MatMul(f, m)
    }"""
    proto = small_models.model(text, {"w1": (4, 6), "w2": (2, 3, 3)})
    found = analyze(proto)
    flat = analyze(small_models.model("""once (float[n, 4] x) => (float[n, 3] y) {
        a = MatMul(x, w1)
        p = Relu(a)
        y = MatMul(p, w2)
    }""", {"w1": (4, 6), "w2": (6, 3)}))  # fmt: skip
    assert flat.scale_freedoms == 6
    assert found.scale_freedoms == 4  # factors of c and of h, which share one


def test_padding_is_no_hidden_dimension() -> None:
    """Channels of zeros may change places, but no parameter changes with them."""
    text = """padded (float[1, 3, 8, 8] x) => (float[1, 7, 8, 8] y) {
        pads = Constant <value_ints = [0, 0, 0, 0, 0, 4, 0, 0]> ()
        y0 = Pad(x, pads)
        y = Relu(y0)
    }"""
    found = analyze(small_models.model(text, {}))
    assert found.trivial
    assert found.log10_orbit == 0


# How it is told


def test_json_has_the_keys_of_the_contract() -> None:
    document = analyze(small_models.experts()).to_json()
    assert json.loads(json.dumps(document)).keys() >= {
        "model", "parameters", "log10_orbit", "scale_freedoms", "sign_freedoms",
        "dimensions", "fixed", "unsupported",
    }  # fmt: skip
    for dimension in document["dimensions"]:
        assert dimension.keys() >= {
            "id",
            "size",
            "permute",
            "scale",
            "sign",
            "within",
            "copies",
            "sites",
            "values",
        }
        assert dimension["scale"] in ("positive", "sign", "none")
        for site in dimension["sites"]:
            assert site.keys() >= {"initializer", "axis"}
    for axis in document["fixed"]:
        assert axis.keys() == {"value", "axis", "size", "reason", "chain"}
        assert axis["reason"]
        assert axis["chain"]


def test_every_axis_is_free_or_has_a_reason() -> None:
    for proto in (
        small_models.mlp(),
        small_models.experts(),
        small_models.convolution(),
        small_models.normalized(),
    ):
        found = analyze(proto)
        free = {(s.initializer, s.axis) for d in found.dimensions if d.permute for s in d.sites}
        fixed = {(f.value, f.axis) for f in found.fixed}
        axes = {(t.name, k) for t in proto.graph.initializer for k, n in enumerate(t.dims) if n > 1}
        assert free | fixed == axes
        assert not free & fixed


def test_text_is_a_table_and_a_summary() -> None:
    found = analyze(small_models.experts())
    text = str(found)
    lines = text.splitlines()
    header = next(line for line in lines if line.startswith("id "))
    rows = [line for line in lines if line.startswith(("d0 ", "d1 "))]
    assert len(rows) == 2
    for row in rows:  # columns line up
        assert row[header.index("appears") - 2 : header.index("appears")] == "  "
    assert "d0 (3 ×)" in rows[1]
    assert "2 hidden dimensions" in lines[-1]
    assert "graph output 'y'" not in text
    assert "graph output 'y'" in found.to_text(why=True)
    assert text == str(analyze(small_models.experts()))


def test_long_names_and_many_sites_are_shortened() -> None:
    proto = small_models.mlp()
    long = "a/very/long/" * 20 + "weight"
    for node in proto.graph.node:
        for k, name in enumerate(node.input):
            node.input[k] = long if name == "w1" else name
    proto.graph.initializer[0].name = long
    text = str(analyze(proto))
    assert max(map(len, text.splitlines())) < 150
    assert "+1 more" in text


# Ranks


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("modulo2", [False, True])
def test_rank_is_exact(seed: int, modulo2: bool) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(1, 14, 2)
    dense = rng.integers(-1, 2, (rows, columns)) * (rng.random((rows, columns)) < rng.choice([0.1, 0.3, 0.8]))
    dense = np.concatenate([dense, dense[:2] * 2, dense[:1] - dense[-1:]])
    expected = rank_modulo2(dense) if modulo2 else int(np.linalg.matrix_rank(dense))
    matrix = csr_matrix(dense % 2 if modulo2 else dense).astype(np.int64)
    assert _rank(matrix, modulo2=modulo2) == expected


def rank_modulo2(matrix: np.ndarray) -> int:
    rest, rank = matrix % 2, 0
    for column in range(rest.shape[1]):
        below = np.flatnonzero(rest[rank:, column]) + rank
        if len(below):
            rest[[rank, below[0]]] = rest[[below[0], rank]]
            others = np.flatnonzero(rest[:, column])
            others = others[others != rank]
            rest[others] ^= rest[rank]
            rank += 1
            if rank == len(rest):
                break
    return rank
