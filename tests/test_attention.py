"""Fused attention: for each operator and form the whole group is found, and its elements keep the function.

H heads of d inner dimensions have H! · (d!)^H · (v!)^H permutations: whole heads, in each head one map for
queries and keys and one for values and what reads them. A scale and a sign lie on each of these dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial as f
from math import log10
from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnxcanon.model import load
from onnxcanon.symmetry.analysis import symmetry
from tests.fuzz.builder import CONTRIB, Array, Builder
from tests.fuzz.check import check
from tests.fuzz.graphs import Case

B, S, C, H, D, V = 2, 3, 5, 2, 4, 3
"""Samples, positions, channels, heads, inner dimensions of queries and keys, and of values."""


@dataclass(frozen=True)
class Group:
    """The number of permutations, of scale freedoms and of sign freedoms."""

    permutations: int
    scales: int
    signs: int | None = None  # as many as scales

    def is_that_of(self, b: Builder, *outputs: str) -> None:
        """The analysis finds exactly this, without a barrier."""
        found = symmetry(load(b.model(outputs, dynamic=False)))
        assert [(x.operator, x.reason) for x in found.trace.barriers] == []
        assert not found.solution.defects
        assert found.log10_orbit == pytest.approx(log10(self.permutations), abs=1e-9)
        signs = self.scales if self.signs is None else self.signs
        assert tuple(int(acting.sum()) for acting in found.acting) == (self.scales, signs)

    def keeps(self, b: Builder, *outputs: str) -> None:
        """The same, and random elements keep what onnxruntime computes."""
        self.is_that_of(b, *outputs)
        feeds = [b.inputs, {n: other(b.rng, a) for n, a in b.inputs.items()}]
        for dynamic in (False, True):
            case = Case(b.model(outputs, dynamic=dynamic), feeds)
            assert [check(case, seed).problem for seed in range(3)] == [""] * 3


def other(rng: np.random.Generator, a: Array) -> Array:
    """Another input of the same kind (integers, which are lengths and masks, stay)."""
    return rng.normal(0, 1, a.shape).astype(a.dtype) if a.dtype.kind == "f" else a


def building(opset: int = 23, dtype: Any = np.float32) -> Builder:
    b = Builder(np.random.default_rng(7), dtype, opset)
    given(b, "x", normal(b, B, S, C))
    return b


def normal(b: Builder, *shape: int) -> Array:
    return b.rng.normal(0, 0.5, shape).astype(b.dtype)


def given(b: Builder, name: str, array: Array) -> str:
    """A graph input."""
    b.inputs[name] = b.value[name] = array
    return name


def constant(b: Builder, array: Array) -> str:
    name = b.name("w")
    b.initializers[name] = b.value[name] = array
    return name


def weight(b: Builder, *shape: int) -> str:
    return constant(b, normal(b, *shape))


def dense(b: Builder, x: str, n: int) -> str:
    return b.op("Add", b.op("MatMul", x, weight(b, b.shape(x)[-1], n)), weight(b, n))


def final(b: Builder, y: str) -> str:
    """What reads the result of an attention."""
    return b.op("MatMul", y, weight(b, b.shape(y)[-1], 2))


def ints(*values: int) -> Array:
    return np.array(values, np.int32)


def unrun(
    b: Builder, kind: str, *inputs: str, shape: tuple[int, ...], domain: str = CONTRIB, **attributes: Any
) -> str:
    """A node that onnxruntime has no kernel for on the CPU."""
    name = b.name("v")
    b.nodes.append(helper.make_node(kind, list(inputs), [name], domain=domain, **attributes))
    b.value[name] = np.zeros(shape, b.dtype)
    return name


def heads_of(d: int, v: int, count: int = H, scaled: int | None = None) -> Group:
    """The group of an attention with independent heads; `scaled` of the d dimensions may scale."""
    permutations = f(count) * f(d) ** count * f(v) ** count
    return Group(permutations, count * ((d if scaled is None else scaled) + v))


# -- com.microsoft::Attention ---------------------------------------------------------------------------

MASKS = {
    "no mask": None,
    "lengths": ints(2, 3),
    "ends and starts": ints(3, 3, 0, 1),
    "lengths and offsets": ints(2, 3, 0, 3, 6, 0, 3, 6),
    "keys": np.array([[1, 1, 0], [1, 0, 1]], np.int32),
    "queries and keys": np.tril(np.ones((B, S, S), np.int32)),
    "one for all": np.ones((B, 1), np.int32),
}


def packed(b: Builder, sizes: tuple[int, int, int] = (H * D, H * D, H * D)) -> list[str]:
    return ["x", weight(b, C, sum(sizes)), weight(b, sum(sizes))]


@pytest.mark.parametrize("causal", (0, 1))
@pytest.mark.parametrize("mask", MASKS)
def test_packed_attention(mask: str, causal: int) -> None:
    b = building()
    held = MASKS[mask]
    more = [] if held is None else [given(b, "mask", held)]
    y = b.op("Attention", *packed(b), *more, num_heads=H, unidirectional=causal, domain=CONTRIB)
    heads_of(D, D).keeps(b, final(b, y))


def test_packed_attention_with_narrower_values() -> None:
    b = building()
    sizes = (H * D, H * D, H * V)
    y = b.op("Attention", *packed(b, sizes), num_heads=H, qkv_hidden_sizes=sizes, domain=CONTRIB)
    heads_of(D, V).keeps(b, final(b, y))


def test_a_cache_that_the_caller_holds_fixes_heads_and_inner_dimensions() -> None:
    b = building()
    past = given(b, "past", normal(b, 2, B, H, 2, D))
    y, present = b.ops(
        "Attention", *packed(b), "", past, outputs=2, num_heads=H, unidirectional=1, domain=CONTRIB
    )
    out = final(b, y)
    Group(1, 0).keeps(b, out, present)
    Group(1, 0).keeps(b, out)


def test_a_present_that_leaves_the_graph_fixes_as_much() -> None:
    b = building()
    y, present = b.ops("Attention", *packed(b), outputs=2, num_heads=H, domain=CONTRIB)
    Group(1, 0).keeps(b, final(b, y), present)


def test_a_present_that_is_read_inside_moves_along() -> None:
    b = building()
    y, present = b.ops("Attention", *packed(b), outputs=2, num_heads=H, domain=CONTRIB)
    total = b.op("ReduceMax", present, b.ints(2, 4), keepdims=0)  # [2, B, S]
    Group(f(H) * f(D) ** (2 * H), 0, 0).keeps(b, final(b, y), total)


def test_a_learned_cache_moves_along() -> None:
    b = building()
    past = weight(b, 2, B, H, 2, D)  # its rows may change places: nothing masks them
    y = b.op("Attention", *packed(b), "", past, outputs=2, num_heads=H, domain=CONTRIB)
    free = heads_of(D, D)
    Group(free.permutations * f(2), free.scales).is_that_of(b, final(b, y))


def test_a_shared_buffer_is_held_and_the_input_is_not() -> None:
    b = building()
    h = b.op("Relu", dense(b, "x", 6))
    past, at = given(b, "past", normal(b, 2, B, H, 9, D)), given(b, "at", ints(2))
    y = unrun(
        b, "Attention", h, weight(b, 6, 3 * H * D), weight(b, 3 * H * D), "", past, "", at,
        shape=(B, S, H * D), num_heads=H, past_present_share_buffer=1,
    )  # fmt: skip
    Group(f(6), 6, 0).is_that_of(b, final(b, y))


def test_what_is_added_to_the_scores_of_each_head() -> None:
    free = heads_of(D, D)
    for shape in ((1, 1, S, S), (1, H, S, S), (B, H, S, S)):
        b = building()
        y = b.op("Attention", *packed(b), "", "", weight(b, *shape), num_heads=H, domain=CONTRIB)
        free.keeps(b, final(b, y))
    b = building()
    y = b.op(
        "Attention", *packed(b), "", "", given(b, "a", normal(b, B, H, S, S)), num_heads=H, domain=CONTRIB
    )
    Group(free.permutations // f(H), free.scales).keeps(b, final(b, y))


def test_packed_attention_with_rotary_positions() -> None:
    b = building()
    y = unrun(b, "Attention", *packed(b), shape=(B, S, H * D), num_heads=H, do_rotary=1)
    Group(f(H) * f(D) ** H, H * (D // 2 + D)).is_that_of(b, final(b, y))


# -- com.microsoft::MultiHeadAttention ------------------------------------------------------------------


def separate(b: Builder, value: int = V) -> list[str]:
    """Queries, keys and values from x; keys and values have one position more."""
    longer = given(b, "z", normal(b, B, S + 1, C))
    return [dense(b, "x", H * D), dense(b, longer, H * D), dense(b, longer, H * value)]


MORE_MASKS = {
    "no mask": None,
    "lengths": ints(2, 4),
    "lengths and offsets": ints(2, 3, 0, 3, 6, 0, 3, 6),
    "keys": np.array([[1, 1, 0, 1], [1, 0, 1, 1]], np.int32),
    "queries and keys": np.tril(np.ones((B, S, S + 1), np.int32)),
}


@pytest.mark.parametrize("biased", (False, True))
@pytest.mark.parametrize("mask", MORE_MASKS)
def test_multi_head_attention(mask: str, biased: bool) -> None:
    b = building()
    qkv = separate(b)
    bias = weight(b, H * (D + D + V)) if biased else ""
    held = MORE_MASKS[mask]
    more = [] if held is None else [given(b, "mask", held)]
    y = b.op("MultiHeadAttention", *qkv, bias, *more, num_heads=H, domain=CONTRIB)
    heads_of(D, V).keeps(b, final(b, y))


def test_multi_head_attention_with_scores_added() -> None:
    b = building()
    added = weight(b, 1, H, S, S + 1)
    y = b.op("MultiHeadAttention", *separate(b), "", "", added, num_heads=H, unidirectional=1, domain=CONTRIB)
    heads_of(D, V).keeps(b, final(b, y))


def test_multi_head_attention_with_keys_of_a_cache() -> None:
    b = building()
    k, v = given(b, "k", normal(b, B, H, 4, D)), weight(b, B, H, 4, D)
    y = b.op("MultiHeadAttention", dense(b, "x", H * D), k, v, num_heads=H, domain=CONTRIB)
    # The keys fix the heads and what meets them, the values are the graph's.
    Group(f(D) ** H, H * D).keeps(b, final(b, y))


def test_multi_head_attention_with_a_cache() -> None:
    past = ("past_k", "past_v")
    b = building()
    for name in past:
        given(b, name, normal(b, B, H, 2, D))
    outs = b.ops(
        "MultiHeadAttention", *separate(b, D), "", "", "", *past, outputs=3, num_heads=H, domain=CONTRIB
    )
    Group(1, 0).keeps(b, final(b, outs[0]), *outs[1:])


def test_one_present_fixes_heads_and_leaves_the_dimensions_of_the_other() -> None:
    b = building()
    y, key, value = b.ops("MultiHeadAttention", *separate(b), outputs=3, num_heads=H, domain=CONTRIB)
    out = final(b, y)
    Group(f(D) ** H, H * D).keeps(b, out, value)
    Group(f(V) ** H, H * V).keeps(b, out, key)


def test_packed_queries_keys_and_values() -> None:
    b = building()
    packed = b.op("Reshape", dense(b, "x", H * 3 * D), b.ints(B, S, H, 3, D))
    y = unrun(b, "MultiHeadAttention", packed, shape=(B, S, H * D), num_heads=H)
    heads_of(D, D).is_that_of(b, final(b, y))


def test_packed_keys_and_values() -> None:
    b = building()
    packed = b.op("Reshape", dense(b, "x", H * 2 * D), b.ints(B, S, H, 2, D))
    bias = weight(b, 3 * H * D)
    y = unrun(
        b, "MultiHeadAttention", dense(b, "x", H * D), packed, "", bias, shape=(B, S, H * D), num_heads=H
    )
    heads_of(D, D).is_that_of(b, final(b, y))


def test_weights_that_leave_the_graph_fix_the_heads() -> None:
    b = building()
    y = unrun(b, "MultiHeadAttention", *separate(b), shape=(B, S, H * V), num_heads=H)
    b.nodes[-1].output.extend(["", "", "weights"])
    b.value["weights"] = np.zeros((B, H, S, S + 1), np.float32)
    Group(f(D) ** H * f(V) ** H, H * (D + V)).is_that_of(b, final(b, y), "weights")


def test_half_precision_permutes_and_does_not_scale() -> None:
    b = building(dtype=np.float16)
    y = unrun(b, "MultiHeadAttention", *separate(b), shape=(B, S, H * V), num_heads=H)
    Group(heads_of(D, V).permutations, 0).is_that_of(b, final(b, y))


# -- com.microsoft::GroupQueryAttention -----------------------------------------------------------------

G, E, W = 2, 2, 8
"""Key/value heads, query heads of each, inner dimensions (of which onnxruntime wants multiples of 8)."""

COUNTS = {"num_heads": G * E, "kv_num_heads": G, "domain": CONTRIB}


def lengths(b: Builder, total: int = S) -> list[str]:
    return [given(b, "last", ints(total - 1, total - 1)), constant(b, np.array(total, np.int32))]


def queries(b: Builder, size: int = W) -> list[str]:
    return [dense(b, "x", n * size) for n in (G * E, G, G)]


def grouped(inner: int, scaled: int, size: int = W) -> Group:
    """Groups, query heads in each; `inner` dimensions of queries and keys that move, `scaled` that scale."""
    return Group(f(G) * (f(E) * f(inner) * f(size)) ** G, G * (scaled + size))


def test_grouped_queries() -> None:
    b = building()
    y = b.op("GroupQueryAttention", *queries(b), "", "", *lengths(b), outputs=3, keep=[0], **COUNTS)
    grouped(W, W).keeps(b, final(b, y))


def test_grouped_queries_packed() -> None:
    b = building()
    x = dense(b, "x", (G * E + 2 * G) * W)
    y = b.op("GroupQueryAttention", x, "", "", "", "", *lengths(b), outputs=3, keep=[0], **COUNTS)
    grouped(W, W).keeps(b, final(b, y))


@pytest.mark.parametrize("interleaved", (0, 1))
@pytest.mark.parametrize("size", (16, 32))
def test_grouped_queries_that_turn(size: int, interleaved: int) -> None:
    b = building()
    angles = [weight(b, S, 8), weight(b, S, 8)]  # 16 dimensions of each head turn
    y = b.op(
        "GroupQueryAttention", *queries(b, size), "", "", *lengths(b), *angles, outputs=3, keep=[0],
        do_rotary=1, rotary_interleaved=interleaved, **COUNTS,
    )  # fmt: skip
    grouped(size - 16, 8 + size - 16, size).keeps(b, final(b, y))


def test_grouped_queries_with_a_sink_and_a_bias_of_each_head() -> None:
    b = building()
    sink, bias = weight(b, G * E), weight(b, 1, G * E, S, S)
    inputs = [*queries(b), "", "", *lengths(b), "", "", "", bias, sink]
    y = b.op("GroupQueryAttention", *inputs, outputs=3, keep=[0], **COUNTS)
    grouped(W, W).keeps(b, final(b, y))


@pytest.mark.parametrize("buffer", (2, 9))
def test_grouped_queries_with_a_cache(buffer: int) -> None:
    """Query heads still change places within their group: the cache does not hold them."""
    b = building()
    given(b, "x", normal(b, B, 1, C))
    past = [given(b, name, normal(b, B, G, buffer, W)) for name in ("past_k", "past_v")]
    outs = b.ops("GroupQueryAttention", *queries(b), *past, *lengths(b), outputs=3, **COUNTS)
    Group(f(E) ** G, 0).keeps(b, final(b, outs[0]), *outs[1:])


def test_grouped_queries_with_a_present_of_unknown_length() -> None:
    b = building()
    given(b, "x", normal(b, B, 1, C))
    past = [given(b, name, normal(b, B, G, 2, W)) for name in ("past_k", "past_v")]
    total = given(b, "total", ints(S))
    outs = b.ops("GroupQueryAttention", *queries(b), *past, lengths(b)[0], total, outputs=3, **COUNTS)
    Group(f(E) ** G, 0).keeps(b, final(b, outs[0]), *outs[1:])


def test_grouped_queries_normalized_by_head() -> None:
    b = building()
    inputs = [*queries(b), "", "", *lengths(b), *[""] * 7, weight(b, W), weight(b, W)]
    y = unrun(b, "GroupQueryAttention", *inputs, shape=(B, S, G * E * W), num_heads=G * E, kv_num_heads=G)
    # One gain for all heads: they permute alike. The keys have signs, and two gains; the queries follow.
    free = Group(f(G) * f(E) ** G * f(W) * f(W) ** G, W + G * W, G * W + 2 * W + G * W)
    free.is_that_of(b, final(b, y))


def test_grouped_queries_normalized_by_head_before_the_operator() -> None:
    b = building()
    size = 16
    qkv = queries(b, size)
    for k, count in ((0, G * E), (1, G)):
        y = b.op("Reshape", qkv[k], b.ints(0, S, count, size))
        y = b.op("RMSNormalization", y, weight(b, size), axis=-1)
        qkv[k] = b.op("Reshape", y, b.ints(0, S, count * size))
    angles = [weight(b, S, size // 2), weight(b, S, size // 2)]
    inputs = [*qkv, "", "", *lengths(b), *angles]
    y = b.op("GroupQueryAttention", *inputs, outputs=3, keep=[0], do_rotary=1, **COUNTS)
    # Gains scale by pairs against each other; signs: the keys' pairs, both gains, the values.
    signs = G * size // 2 + 2 * size + G * size
    Group(f(G) * (f(E) * f(size)) ** G, size // 2 + G * size, signs).keeps(b, final(b, y))


# -- RotaryEmbedding ------------------------------------------------------------------------------------


def turned(b: Builder, x: str, width: int, domain: str, **attributes: Any) -> str:
    angles = [constant(b, trig(np.arange(S * width // 2).reshape(S, -1)).astype(b.dtype)) for trig in TURNS]
    places = constant(b, np.tile(np.arange(S), (B, 1)).astype(np.int64))
    inputs = [x, places, *angles] if domain else [x, *angles, places]
    return b.op("RotaryEmbedding", *inputs, domain=domain, **attributes)


TURNS = (np.cos, np.sin)


@pytest.mark.parametrize("domain", ("", CONTRIB))
@pytest.mark.parametrize("interleaved", (0, 1))
@pytest.mark.parametrize("four", (False, True))
@pytest.mark.parametrize("width", (8, 12))
def test_rotary_positions(domain: str, interleaved: int, four: bool, width: int) -> None:
    size = 12
    b = building()
    more = {"rotary_embedding_dim": width, "interleaved": interleaved, "num_heads": H}
    qk = [dense(b, "x", H * size) for _ in range(2)]
    v = dense(b, "x", H * size)
    if four:
        qkv = [b.op("Transpose", b.op("Reshape", y, b.ints(0, S, H, size)), perm=[0, 2, 1, 3])
               for y in (*qk, v)]  # fmt: skip
        qk = [turned(b, y, width, domain, **more) for y in qkv[:2]]
        y = b.op("Attention", *qk, qkv[2])
        y = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.ints(0, S, H * size))
    else:
        qk = [turned(b, y, width, domain, **more) for y in qk]
        y = b.op("MultiHeadAttention", *qk, v, num_heads=H, domain=CONTRIB)
    Group(f(H) * (f(size - width) * f(size)) ** H, H * (width // 2 + size - width + size)).keeps(
        b, final(b, y)
    )


def test_rotary_positions_whose_heads_follow_from_the_angles() -> None:
    b = building()
    qk = [turned(b, dense(b, "x", H * D), D, CONTRIB) for _ in range(2)]
    y = b.op("MultiHeadAttention", *qk, dense(b, "x", H * V), num_heads=H, domain=CONTRIB)
    Group(f(H) * f(V) ** H, H * (D // 2 + V)).keeps(b, final(b, y))


def test_rotary_positions_without_the_number_of_heads_are_a_barrier() -> None:
    b = building()
    angles = [weight(b, S, D // 2), weight(b, S, D // 2)]
    places = constant(b, np.zeros((B, S), np.int64))
    x = dense(b, "x", 3 * D)
    y = unrun(b, "RotaryEmbedding", x, places, *angles, shape=(B, S, 3 * D), rotary_embedding_dim=D)
    found = symmetry(load(b.model([final(b, y)], dynamic=False)))
    assert [x.reason for x in found.trace.barriers] == ["RotaryEmbedding without the number of heads"]
    assert found.trivial


# -- ai.onnx::Attention ---------------------------------------------------------------------------------


def four_axes(b: Builder, key: int = D, value: int = V) -> list[str]:
    """Q[B, H, S, d], K, V."""
    made = []
    for n in (key, key, value):
        y = b.op("Reshape", dense(b, "x", H * n), b.ints(0, S, H, n))
        made.append(b.op("Transpose", y, perm=[0, 2, 1, 3]))
    return made


def joined(b: Builder, y: str) -> str:
    return final(b, b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.ints(0, S, -1)))


MASK_SHAPES = ((S, S), (1, S, S), (H, S, S), (1, 1, S, S), (B, 1, S, S), (1, H, S, S), (B, H, S, S))


@pytest.mark.parametrize("opset", (23, 24))
@pytest.mark.parametrize("shape", MASK_SHAPES)
def test_masks_of_the_standard(shape: tuple[int, ...], opset: int) -> None:
    b = building(opset)
    y = b.op("Attention", *four_axes(b), weight(b, *shape), softcap=2.0, is_causal=1)
    heads_of(D, V).keeps(b, joined(b, y))


def test_a_mask_of_the_caller_that_tells_heads_apart_fixes_them() -> None:
    b = building()
    mask = given(b, "mask", normal(b, H, S, S))
    y = b.op("Attention", *four_axes(b), mask)
    Group(f(D) ** H * f(V) ** H, H * (D + V)).keeps(b, joined(b, y))


def test_a_mask_shorter_than_its_keys() -> None:
    b = building(24)
    y = unrun(b, "Attention", *four_axes(b), weight(b, S, S - 1), shape=(B, H, S, V), domain="")
    heads_of(D, V).is_that_of(b, joined(b, y))


@pytest.mark.parametrize("opset", (23, 24))
def test_caches_of_the_standard(opset: int) -> None:
    b = building(opset)
    past = [given(b, f"past_{n}", normal(b, B, H, 2, n)) for n in (D, V)]
    y, key, value = b.ops("Attention", *four_axes(b), "", *past, outputs=3)
    Group(1, 0).keeps(b, joined(b, y), key, value)
    b = building(opset)
    past = [weight(b, B, H, 2, n) for n in (D, V)]  # rows that nothing masks, and that no one else holds
    y, key, value = b.ops("Attention", *four_axes(b), "", *past, outputs=3)
    free = heads_of(D, V)
    out = joined(b, y)
    Group(f(2) * free.permutations, free.scales).keeps(b, out)
    Group(f(2) * f(V) ** H, H * V).keeps(b, out, b.op("ReduceMax", key, b.ints(2), keepdims=0))


@pytest.mark.parametrize("mode", range(4))
def test_scores_that_leave_the_graph_fix_the_heads(mode: int) -> None:
    b = building()
    y, scores = b.ops("Attention", *four_axes(b), outputs=4, keep=[0, 3], qk_matmul_output_mode=mode)
    out = joined(b, y)
    Group(f(D) ** H * f(V) ** H, H * (D + V)).keeps(b, out, scores)
    total = b.op("ReduceMax", scores, b.ints(1), keepdims=0)
    heads_of(D, V).keeps(b, out, total)


def test_keys_of_some_length_of_each_sample() -> None:
    b = building(24)
    places = given(b, "places", np.array([0, 2], np.int64))
    used = given(b, "used", np.array([3, 5], np.int64))
    q, k, v = four_axes(b)
    k, v = (
        b.op("TensorScatter", weight(b, B, H, 6, n), y, places) for y, n in ((k, D), (v, V))
    )  # caches that only the graph holds
    y = b.op("Attention", q, k, v, "", "", "", used)
    heads_of(D, V).keeps(b, joined(b, y))


# -- embeddings and normalizations ----------------------------------------------------------------------


@pytest.mark.parametrize("segments", (False, True))
@pytest.mark.parametrize("placed", (False, True))
def test_embeddings_with_their_normalization(segments: bool, placed: bool) -> None:
    b = building()
    words = given(b, "words", ints(0, 3, 1, 4, 4, 2).reshape(B, S))
    kinds = given(b, "kinds", ints(0, 1, 1, 0, 0, 1).reshape(B, S)) if segments else ""
    mask = given(b, "mask", ints(1, 1, 0, 1, 0, 0).reshape(B, S))
    places = [given(b, "places", ints(2, 1, 0, 0, 1, 3).reshape(B, S))] if placed else []
    tables = [weight(b, 5, 6), weight(b, 4, 6), weight(b, 2, 6) if segments else ""]
    y, index, total = b.ops(
        "EmbedLayerNormalization", words, kinds, *tables, weight(b, 6), weight(b, 6), mask, *places,
        outputs=3, domain=CONTRIB,
    )  # fmt: skip
    # A gain scales and flips; one sign flips the whole stream.
    Group(f(6), 6, 7).keeps(b, b.op("Add", final(b, y), final(b, total)), index)


@pytest.mark.parametrize("extra", (False, True))
@pytest.mark.parametrize("shape", ((B, S, 6), (1, S, 6), (S, 6)))
def test_normalization_of_a_sum(extra: bool, shape: tuple[int, ...]) -> None:
    b = building()
    inputs = [dense(b, "x", 6), weight(b, *shape), weight(b, 6), weight(b, 6)]
    inputs += [weight(b, 6)] if extra else []
    y, total = b.ops("SkipLayerNormalization", *inputs, outputs=4, keep=[0, 3], domain=CONTRIB)
    Group(f(6), 6, 7).keeps(b, b.op("Add", final(b, y), final(b, total)))


@pytest.mark.parametrize("extra", (False, True))
def test_root_mean_square_of_a_sum(extra: bool) -> None:
    b = building()
    inputs = [dense(b, "x", 6), dense(b, "x", 6), weight(b, 6)] + ([weight(b, 6)] if extra else [])
    y, total = b.ops("SkipSimplifiedLayerNormalization", *inputs, outputs=4, keep=[0, 3], domain=CONTRIB)
    Group(f(6), 6, 12).keeps(b, b.op("Add", final(b, y), final(b, total)))


@pytest.mark.parametrize("kind", ("FastGelu", "BiasGelu", "QuickGelu", "Gelu"))
def test_gaussian_error_units(kind: str) -> None:
    b = building()
    bias = [weight(b, 6)] if kind in ("FastGelu", "BiasGelu") else []
    y = b.op(kind, dense(b, "x", 6), *bias, domain=CONTRIB)
    Group(f(6), 0).keeps(b, final(b, y))
