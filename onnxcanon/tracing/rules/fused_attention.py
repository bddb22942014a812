"""Attention as onnxruntime fuses it, with projections, caches, masks and turns, in the terms of `attention`.

H heads of d (values: v) inner dimensions, G key/value heads, S queries, L new keys, P past keys, T = P + L.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxcanon.arrays import Shape
from onnxcanon.graph.operators import CONTRIB
from onnxcanon.tracing.abstract_value import AbstractValue
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.attention import (
    KEYS,
    QUERIES,
    SAMPLES,
    appended,
    attend,
    grouped,
    heads,
    lengthened,
    merged,
    per_head,
)
from onnxcanon.tracing.rules.contraction import product
from onnxcanon.tracing.rules.normalization import divided_by_root_mean_square, scaled
from onnxcanon.tracing.rules.rearrangement import resized_unknown
from onnxcanon.tracing.rules.registry import Outputs, SymmetryNode, Unsupported, register
from onnxcanon.tracing.rules.rotary import rotated


def pieces(ctx: Context, x: AbstractValue, sizes: Sequence[int]) -> list[AbstractValue]:
    """X[…, n1 + n2 + …] -> parts of the last axis."""
    if sum(sizes) != x.shape[-1]:
        raise Unsupported("queries, keys and values that do not fill their axis")
    ends = np.cumsum(sizes)
    return [ctx.take(x, x.rank - 1, np.arange(e - n, e)) for n, e in zip(sizes, ends, strict=True)]


def unpacked(ctx: Context, x: AbstractValue) -> list[AbstractValue]:
    """X[B, L, H, n, d] -> n times [B, H, L, d]."""
    parts = (ctx.squeeze(ctx.take(x, 3, np.array([i])), 3) for i in range(x.shape[3]))
    return [ctx.transpose(part, (0, 2, 1, 3)) for part in parts]


def padding(ctx: Context, op: SymmetryNode, i: int, keys: int) -> tuple[list[AbstractValue], list[int]]:
    """A mask [B, T] or [B, S, T] of input i, added to the scores; in any other form (lengths, offsets, a
    larger matrix) it tells samples and positions apart."""
    if not op.has(i):
        return [], []
    shape = op.in_shapes(i)[0]
    if len(shape) not in (2, 3) or shape[-1] != keys:
        return [], [SAMPLES, QUERIES, KEYS]
    mask = ctx.stop(op.x(i))
    for _ in range(5 - mask.rank):
        mask = ctx.insert(mask, 1)
    return [mask], []


def all_fixed(ctx: Context, values: Sequence[AbstractValue], reason: str) -> Outputs:
    """Queries, keys and values that meet a cache in a way that is not traced stay, and so does the result."""
    for v in values:
        ctx.fix_all(v, reason)
    return []


@register("Attention", domain=CONTRIB)
def attention(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[B, S, C], W[C, q + k + v], bias, mask, past[2, B, H, P, d], added[B, H, S, T]
    -> Y[B, S, v], present[2, B, H, T, d]."""
    if any(op.has(i) for i in range(7, len(op.node.inputs))):
        raise Unsupported("Attention with keys and values of its own")
    y = product(ctx, op.x(0), op.x(1))
    if op.has(2):
        y = ctx.elementwise([y, op.x(2)])
    count = op.attr("num_heads")
    parts = pieces(ctx, y, op.attr("qkv_hidden_sizes") or [y.shape[-1] // 3] * 3)
    if op.has(6) or op.attr("past_present_share_buffer", 0):
        return all_fixed(ctx, parts, "a cache in a shared buffer")
    b2, s2, _ = op.in_shapes(0)[1]
    q, k, v = (grouped(ctx, part, (b2, s2, part.shape[2]), count) for part in parts)
    if op.attr("do_rotary", 0):
        width = op.attr("rotary_embedding_dim", 0) or q.shape[3]
        q, k = (ctx.squeeze(rotated(ctx, ctx.insert(x, 2), width, interleaved=False), 2) for x in (q, k))
    k, v = _with_past(ctx, op, k, v, dynamic=y.shape[1] != s2)
    added, fixed = padding(ctx, op, 3, k.shape[2])
    if op.has(5):
        added.append(per_head(ctx, op, 5, count, 1))
    if op.attr("unidirectional", 0):
        fixed += [QUERIES, KEYS]
    out, _ = attend(ctx, ctx.insert(q, 2), k, v, added, fixed)
    outputs = [merged(ctx, out, (b2, count, 1, s2, out.shape[4]), op.out_shapes())]
    if op.used(1):
        outputs.append(ctx.concat([ctx.insert(k, 0), ctx.insert(v, 0)], 0))
    return outputs


def _with_past(
    ctx: Context, op: SymmetryNode, k: AbstractValue, v: AbstractValue, *, dynamic: bool
) -> tuple[AbstractValue, AbstractValue]:
    """past[2, B, H, P, d] (input 4), K[B, H, L, d], V -> K[B, H, T, d], V."""
    if not op.has(4):
        return k, v
    past = op.x(4)
    first, second = op.in_shapes(4)
    dynamic = dynamic or first[3] != second[3]
    halves = (ctx.squeeze(ctx.take(past, 0, np.array([i])), 0) for i in (0, 1))
    k, v = (lengthened(ctx, old, new, dynamic=dynamic) for old, new in zip(halves, (k, v), strict=True))
    return k, v


@register("MultiHeadAttention", domain=CONTRIB)
def multi_head_attention(ctx: Context, op: SymmetryNode) -> Outputs:
    """Q[B, S, H·d], K[B, L, H·d], V[B, L, H·v], bias[H·(d + d + v)], mask, added[B, H, S, T], past K, past V
    -> Y[B, S, H·v], present K[B, H, T, d], present V, weights[B, H, S, T].

    Packed: Q is QKV[B, S, H, 3, d], or K is KV[B, L, H, 2, d]. K and V may be [B, H, L, d].
    """
    count = op.attr("num_heads")
    q, k, v = _projected(ctx, op, count)
    if op.has(8) or op.has(9) or op.attr("past_present_share_buffer", 0):
        return all_fixed(ctx, (q, k, v), "a cache in a shared buffer")
    queries = op.in_shapes(0)
    source, length = (1, 2 if len(op.in_shapes(1)[0]) == 4 else 1) if op.has(1) else (0, 1)
    dynamic = op.in_shapes(source)[0][length] != op.in_shapes(source)[1][length]
    k, v = (appended(ctx, op, i, x, dynamic=dynamic) for i, x in ((6, k), (7, v)))
    added, fixed = padding(ctx, op, 4, k.shape[2])
    if op.has(5):
        added.append(per_head(ctx, op, 5, count, 1))
    if op.attr("unidirectional", 0):
        fixed += [QUERIES, KEYS]
    y, weights = attend(ctx, ctx.insert(q, 2), k, v, added, fixed)
    b2, s2 = queries[1][:2]
    outputs = [merged(ctx, y, (b2, count, 1, s2, y.shape[4]), op.out_shapes()), k, v]
    if op.used(3):
        outputs.append(ctx.squeeze(weights, 2))
    return outputs[: len(op.node.outputs)]


def _projected(ctx: Context, op: SymmetryNode, count: int) -> list[AbstractValue]:
    """Q, K, V [B, H, length, d] from their packed or separate inputs, with the bias added."""
    inputs = [op.x(i) for i in range(3) if op.has(i)]
    parts: list[AbstractValue] = []
    for i, x in enumerate(inputs):
        parts += unpacked(ctx, x) if x.rank == 5 else [grouped(ctx, x, op.in_shapes(i)[1], count)]
    if len(parts) != 3:
        raise Unsupported("MultiHeadAttention without keys or values")
    if not op.has(3):
        return parts
    if any(x.rank == 4 for x in inputs):
        raise Unsupported("MultiHeadAttention with a bias beside keys that have none")
    sizes = [x.shape[3] for x in parts]
    rows = pieces(ctx, op.x(3), [count * d for d in sizes])
    return [_biased(ctx, x, row, count, d) for x, row, d in zip(parts, rows, sizes, strict=True)]


def _biased(ctx: Context, x: AbstractValue, row: AbstractValue, count: int, size: int) -> AbstractValue:
    """X[B, H, L, d] + row[H·d]."""
    shape: Shape = (count, 1, size)
    return ctx.elementwise([x, ctx.reshape(row, shape, row.shape, shape)])


@register("GroupQueryAttention", domain=CONTRIB)
def group_query_attention(ctx: Context, op: SymmetryNode) -> Outputs:
    """Q[B, S, H·d], K[B, S, G·d], V, past K[B, G, P, d], past V, lengths[B], length, cos, sin, positions,
    added[B, H, S, T], sink[H], scales, norms[d] -> Y[B, S, H·d], present K, present V. Packed: Q is QKV.

    The lengths always tell positions apart, and say which part of a cache is read.
    """
    count, groups = op.attr("num_heads"), op.attr("kv_num_heads")
    each = count // groups
    if op.has(12) or op.has(13) or op.used(3):
        raise Unsupported("GroupQueryAttention with a quantized cache, or whose scores are read")
    q, k, v = _grouped_queries(ctx, op, groups, each)
    if op.attr("do_rotary", 0):
        width, interleaved = 2 * op.in_shapes(8)[0][-1], bool(op.attr("rotary_interleaved", 0))
        q, k = (rotated(ctx, x, width, interleaved=interleaved) for x in (q, k))
    lengths = _present_length(op)
    k, v = (_cached(ctx, op, i, ctx.squeeze(x, 2), lengths) for i, x in ((3, k), (4, v)))
    added = [per_head(ctx, op, 10, groups, each)] if op.has(10) else []
    if added and added[0].shape[-1] != k.shape[2]:
        added[0] = resized_unknown(ctx, added[0], 4, k.shape[2], "longer or shorter than the cache")
    if op.has(11):
        sink = ctx.stop(op.x(11))
        added.append(ctx.reshape(sink, (groups, each, 1, 1), sink.shape, (groups, each, 1, 1)))
    y, _ = attend(ctx, q, k, v, added, (SAMPLES, QUERIES, KEYS))
    b2, s2, _ = op.in_shapes(0)[1]
    outputs = [merged(ctx, y, (b2, groups, each, s2, y.shape[4]), op.out_shapes()), k, v]
    return outputs[: len(op.node.outputs)]


def _grouped_queries(ctx: Context, op: SymmetryNode, groups: int, each: int) -> list[AbstractValue]:
    """Q[B, g, e, S, d], K[B, g, 1, S, d], V[B, g, 1, S, d], normalized by head on request."""
    (b2, s2, _) = op.in_shapes(0)[1]
    count = groups * each
    if op.has(1):
        flat = [op.x(0), op.x(1), op.x(2)]
    else:
        size = op.x(0).shape[2] // (count + 2 * groups)
        flat = pieces(ctx, op.x(0), [count * size, groups * size, groups * size])
    out = [heads(ctx, x, (b2, s2, x.shape[2]), groups, e) for x, e in zip(flat, (each, 1, 1), strict=True)]
    for k, i in ((0, 14), (1, 15)):
        if op.has(i):
            out[k] = scaled(ctx, divided_by_root_mean_square(ctx, out[k], [4]), op.x(i), None)
    return out


def _present_length(op: SymmetryNode) -> int | None:
    """The length of the cache that comes out, where it is known."""
    if len(op.node.outputs) < 2:
        return None
    try:
        return op.out_shapes(1)[0][2]
    except Unsupported:
        return None


def _cached(
    ctx: Context, op: SymmetryNode, past: int, new: AbstractValue, length: int | None
) -> AbstractValue:
    """past[B, G, P, d] (an input, if given), new[B, G, L, d] -> [B, G, length, d], new rows among the old."""
    k = appended(ctx, op, past, new, dynamic=True)
    return resized_unknown(
        ctx, k, 2, k.shape[2] if length is None else length, "written where the lengths say"
    )
