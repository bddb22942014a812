"""Grouped queries and turned positions: the whole group is found, and its elements keep the function."""

from __future__ import annotations

from math import factorial as f
from typing import Any

import numpy as np
import pytest

from onnxcanon.model import load
from onnxcanon.symmetry import symmetry
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
    constant,
    dense,
    final,
    given,
    ints,
    normal,
    unrun,
    weight,
)

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


# -- RotaryEmbedding -------------------------------------------------------------------------------------


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
    assert [x.reason for x in found.trace.unsupported] == ["RotaryEmbedding without the number of heads"]
    assert found.trivial
