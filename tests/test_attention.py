"""Fused attention: for each form the whole group is found, and its elements keep the function."""

from __future__ import annotations

from math import factorial as f

import numpy as np
import pytest

from tests.fuzz.builder import CONTRIB, Builder
from tests.groups import (
    B,
    C,
    D,
    Group,
    H,
    S,
    V,
    building,
    dense,
    final,
    given,
    heads_of,
    ints,
    normal,
    unrun,
    weight,
)

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


# -- ai.onnx::Attention ----------------------------------------------------------------------------------


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
