"""Fused attention of onnxruntime and of the standard, with caches, masks, turned positions and embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.fuzz.blocks.contraction import affine
from tests.fuzz.blocks.layers import sequence
from tests.fuzz.blocks.registry import block, reshaped
from tests.fuzz.builder import CONTRIB, Builder, Rejected


def single(b: Builder) -> None:
    """onnxruntime has these kernels in single precision only."""
    if b.dtype != np.float32:
        raise Rejected("double precision")


def numbers(b: Builder, *values: int) -> str:
    return b.constant(np.array(values, np.int32), "i")


def padding(b: Builder, n: int, s: int, t: int) -> str:
    """A mask of keys in one of its forms, or none."""
    way = b.pick(["none", "none", "lengths", "keys", "queries and keys"])
    if way == "none":
        return ""
    if way == "lengths":
        return numbers(b, *map(int, b.rng.integers(1, t + 1, n)))
    shape = (n, t) if way == "keys" else (n, s, t)
    mask = b.rng.integers(0, 2, shape)
    mask[..., 0] = 1
    return b.constant(mask.astype(np.int32), "i")


def added(b: Builder, heads: int, n: int, s: int, t: int) -> str:
    """What is added to the scores, or nothing."""
    return b.weight(int(b.pick([1, n])), int(b.pick([1, heads])), s, t) if b.flip(0.4) else ""


def some(b: Builder, y: str, *presents: str) -> list[str]:
    """The result, and at times a present that is read inside the graph."""
    return [y, str(b.pick(presents))] if presents and b.flip(0.3) else [y]


def turned(b: Builder, x: str, size: int) -> str:
    """Rotary positions on x[n, t, heads · size] by either domain's operator."""
    n, t, width = b.shape(x)
    turning = size if b.flip(0.7) or size < 4 else size // 2
    angles = [b.weight(t, turning // 2) for _ in range(2)]
    places = b.constant(b.rng.integers(0, t, (n, t)), "i")
    more: dict[str, Any] = {"num_heads": width // size, "interleaved": int(b.flip())}
    more["rotary_embedding_dim"] = turning if turning < size else None
    if b.flip():
        return b.op("RotaryEmbedding", x, places, *angles, domain=CONTRIB, **more)
    return b.op("RotaryEmbedding", x, *angles, places, **more)


@block(1.5)
def packed_attention(b: Builder, x: str) -> list[str]:
    """One weight for queries, keys and values."""
    single(b)
    x = sequence(b, x)
    n, t, c = b.shape(x)
    heads, d, v = int(b.pick([2, 3, 4])), int(b.pick([2, 4])), int(b.pick([2, 4]))
    past = 2 if d == v and b.flip(0.3) else 0
    sizes = (heads * d, heads * d, heads * v)
    inputs = [x, b.weight(c, sum(sizes), spread=c**-0.5), b.weight(sum(sizes), spread=0.5)]
    inputs.append(padding(b, n, t, t + past))
    inputs.append(b.weight(2, n, heads, past, d) if past else "")
    inputs.append(added(b, heads, n, t, t + past))
    outs = b.ops(
        "Attention", *inputs, outputs=2 if d == v else 1, num_heads=heads, domain=CONTRIB,
        qkv_hidden_sizes=None if d == v else sizes, unidirectional=int(b.flip(0.4)),
    )  # fmt: skip
    return some(b, *outs)


@block(1.5)
def multi_head_attention(b: Builder, x: str) -> list[str]:
    """Queries, keys and values apart, keys and values perhaps of another sequence."""
    single(b)
    x = sequence(b, x)
    n, t, _ = b.shape(x)
    others = [p for p in b.pool if len(b.shape(p)) == 3 and b.shape(p)[0] == n]
    z = str(b.pick([x, x, *others]))
    keys = b.shape(z)[1]
    heads, d, v = int(b.pick([2, 3, 4])), int(b.pick([2, 4])), int(b.pick([2, 3, 4]))
    past = 2 if d == v and b.flip(0.3) else 0
    qkv = [affine(b, x, heads * d), affine(b, z, heads * d), affine(b, z, heads * v)]
    if b.flip(0.3):
        qkv[:2] = [turned(b, y, d) for y in qkv[:2]]
    inputs = [*qkv, b.weight(heads * (2 * d + v), spread=0.5) if b.flip(0.4) else ""]
    inputs += [padding(b, n, t, keys + past), added(b, heads, n, t, keys + past)]
    inputs += [b.weight(n, heads, past, w) for w in (d, v)] if past else []
    more = {"num_heads": heads, "unidirectional": int(b.flip(0.3)), "domain": CONTRIB}
    return some(b, *b.ops("MultiHeadAttention", *inputs, outputs=3, **more))


@block(1)
def group_query_attention(b: Builder, x: str) -> list[str]:
    """Heads of eight, several queries for each key, perhaps turned inside."""
    single(b)
    x = sequence(b, x)
    n, t, _ = b.shape(x)
    groups, each, d = int(b.pick([1, 2])), int(b.pick([1, 2])), 16
    heads = groups * each
    if b.flip(0.3):
        inputs = [affine(b, x, (heads + 2 * groups) * d), "", "", "", ""]
    else:
        inputs = [*(affine(b, x, count * d) for count in (heads, groups, groups)), "", ""]
    inputs += [numbers(b, *[t - 1] * n), b.constant(np.array(t, np.int32), "i")]
    turning = b.flip()
    inputs += [b.weight(t, d // 2), b.weight(t, d // 2)] if turning else ["", ""]
    inputs += ["", added(b, heads, n, t, t), b.weight(heads) if b.flip(0.3) else ""]
    more: dict[str, Any] = {"num_heads": heads, "kv_num_heads": groups, "domain": CONTRIB}
    if turning:
        more |= {"do_rotary": 1, "rotary_interleaved": int(b.flip())}
    more["local_window_size"] = 2 if b.flip(0.2) else None
    return some(b, *b.ops("GroupQueryAttention", *inputs, outputs=3, **more))


@block(1)
def cached_attention(b: Builder, x: str) -> list[str]:
    """The standard's attention with a cache that the graph holds, and its scores."""
    x = sequence(b, x)
    n, t, _ = b.shape(x)
    heads, groups = (int(k) for k in b.pick([(2, 2), (3, 1), (4, 2)]))
    d, v = int(b.pick([2, 4])), int(b.pick([2, 3]))
    qkv = [affine(b, x, count * w) for count, w in ((heads, d), (groups, d), (groups, v))]
    if b.flip(0.3):
        qkv[:2] = [turned(b, y, d) for y in qkv[:2]]
    past = int(b.pick([0, 2, 3]))
    shapes = [(t, t + past), (1, heads, t, t + past), (heads, t, t + past)]
    inputs = [*qkv, b.weight(*b.pick(shapes)) if b.flip(0.4) else ""]
    inputs += [b.weight(n, groups, past, w) for w in (d, v)] if past else []
    outs = b.ops(
        "Attention", *inputs, outputs=4, q_num_heads=heads, kv_num_heads=groups, is_causal=int(b.flip(0.3)),
        softcap=2.0 if b.flip(0.3) else None, qk_matmul_output_mode=int(b.pick([0, 1, 2, 3])),
    )  # fmt: skip
    return some(b, *outs)


@block(0.5)
def embedding(b: Builder, x: str) -> list[str]:
    """Rows of tables, added and normalized, at times on top of what x holds."""
    single(b)
    n, t = b.shape(x)[0], int(b.pick([3, 4]))
    c = b.size()
    words, kinds = (b.constant(b.rng.integers(0, k, (n, t)).astype(np.int32), "i") for k in (5, 2))
    segments = b.flip()
    tables = [b.weight(5, c), b.weight(t, c), b.weight(2, c) if segments else ""]
    inputs = [words, kinds if segments else "", *tables, b.weight(c), b.weight(c)]
    y, total = b.ops("EmbedLayerNormalization", *inputs, outputs=3, keep=[0, 2], domain=CONTRIB)
    if len(b.shape(x)) == 2 and b.flip():
        y = b.op("Add", reshaped(b, affine(b, x, c), (n, 1, c)), y)
    return some(b, y, total)
