"""Shapes of attention operators, of the standard and of onnxruntime.

B batch, S queries, L keys, P past keys, H heads, G key/value heads, d head size.
"""

from __future__ import annotations

from onnxcanon.arrays import Shape
from onnxcanon.graph.operators import CONTRIB
from onnxcanon.shapes.values import OutputShapes, ShapeNode, rule


@rule("Attention")
def attention(op: ShapeNode) -> OutputShapes:
    """Q[B, H, S, d] or [B, S, H*d], K, V, mask, past K[B, G, P, d], past V -> Y like Q, present K, V, QK."""
    query, key, value = op.shape(0), op.shape(1), op.shape(2)
    if len(query) == 3:
        batch, length, width = query
        heads, kv_heads = op.attr("q_num_heads"), op.attr("kv_num_heads")
        head_size, value_size, keys = width // heads, value[2] // kv_heads, key[1]
        result: Shape = (batch, length, heads * value_size)
    else:
        batch, heads, length, head_size = query
        kv_heads, keys, value_size = key[1], key[2], value[3]
        result = (batch, heads, length, value_size)
    if op.has(4):
        keys += op.shape(4)[2]
    present = (batch, kv_heads, keys)
    return [result, (*present, head_size), (*present, value_size), (batch, heads, length, keys)]


@rule("Attention", "QAttention", domain=CONTRIB)
def contrib_attention(op: ShapeNode) -> OutputShapes:
    """X[B, S, in], W[in, q + k + v], bias, mask, past[2, B, H, P, d] -> Y[B, S, v], present."""
    batch, length, _ = op.shape(0)
    sizes = op.attr("qkv_hidden_sizes")
    width = sizes[2] if sizes else op.shape(1)[1] // 3
    past_index = 8 if op.kind == "QAttention" else 4
    past = op.shape(past_index)[3] if op.has(past_index) else 0
    heads = op.attr("num_heads")
    present: Shape = (2, batch, heads, past + length, width // heads)
    if op.attr("past_present_share_buffer", 0):
        present = op.shape(past_index)
    return [(batch, length, width), present]


@rule("MultiHeadAttention", "DecoderMaskedMultiHeadAttention", domain=CONTRIB)
def multi_head_attention(op: ShapeNode) -> OutputShapes:
    """Q[B, S, H*d], K[B, L, H*d] or [B, H, L, d], V alike -> Y[B, S, H*dv], present K, V, QK[B, H, S, P+L].

    Packed: Q is QKV[B, S, H, 3, d], or K is KV[B, L, H, 2, d].
    """
    query = op.shape(0)
    heads = op.attr("num_heads")
    if len(query) == 5:
        batch, length, head_size = query[0], query[1], query[4]
        keys, value_size = length, head_size
    else:
        batch, length, head_size = query[0], query[1], query[2] // heads
        key = op.shape(1)
        if len(key) == 5:
            keys, value_size = key[1], key[4]
        elif len(key) == 4:
            keys, value_size = key[2], op.shape(2)[3]
        else:
            keys, value_size = key[1], op.shape(2)[2] // heads
    past = 5 if op.kind.startswith("Decoder") else 6
    total = keys + (op.shape(past)[2] if op.has(past) else 0)
    if op.attr("past_present_share_buffer", 0) and op.has(past):
        total = op.shape(past)[2]
    present = (batch, heads, total)
    result = (batch, length, heads * value_size)
    return [result, (*present, head_size), (*present, value_size), (batch, heads, length, total)]


@rule("GroupQueryAttention", domain=CONTRIB)
def group_query_attention(op: ShapeNode) -> OutputShapes:
    """Q[B, S, H*d], K[B, S, G*d], V alike, past K[B, G, P, d], past V -> Y[B, S, H*d], present K, V.

    Packed: Q is QKV[B, S, (H+2G)*d]. The present is as long as the past buffer or as the sequence so far
    (input 6), whichever is more; a sliding window stays as long as it is. A quantized past may be narrower.
    """
    batch, length, width = op.shape(0)
    heads, groups = op.attr("num_heads"), op.attr("kv_num_heads")
    head_size = width // heads if op.has(1) else width // (heads + 2 * groups)
    result = (batch, length, heads * head_size)
    past = op.shape(3)[2] if op.has(3) else 0
    total = op.inputs[6] if op.has(6) else None
    if op.attr("sliding_window_cache", 0):
        keys = past
    elif total is not None and total.data is not None:
        keys = max(past, int(total.data.ravel()[0]))
    elif not op.has(3):
        keys = length
    else:
        return [result, None, None]
    present = (batch, groups, keys)
    sizes = [op.shape(i)[3] if op.has(i) else head_size for i in (3, 4)]
    return [result, (*present, sizes[0]), (*present, sizes[1])]


@rule("GemmaRotaryEmbedding", domain=CONTRIB)
def gemma_rotary(op: ShapeNode) -> OutputShapes:
    """emb[B, S, d], Q[B, H, S, d], Q turned, K, K turned -> Q, K."""
    return [op.shape(1), op.shape(3)]


@rule("EmbedLayerNormalization", "QEmbedLayerNormalization", domain=CONTRIB)
def embed_layer_norm(op: ShapeNode) -> OutputShapes:
    """ids[B, S], segments, words[V, C], ... -> Y[B, S, C], mask index[B], sum[B, S, C]."""
    batch, length = op.shape(0)
    result = (batch, length, op.shape(2)[1])
    return [result, (batch,), result]


@rule("RelativePositionBias", domain=CONTRIB)
def relative_bias(op: ShapeNode) -> OutputShapes:
    """table[buckets, H], query length[], key length[] -> Y[1, H, S, L]."""
    return [(1, op.shape(0)[1], int(op.values(1)[0]), int(op.values(2)[0]))]


@rule("PackedAttention", domain=CONTRIB)
def packed_attention(op: ShapeNode) -> OutputShapes:
    """X[tokens, in], W[in, q + k + v], ... -> Y[tokens, v]."""
    sizes = op.attr("qkv_hidden_sizes")
    return [(op.shape(0)[0], sizes[2] if sizes else op.shape(1)[1] // 3)]


@rule("LinearAttention")
def linear_attention(op: ShapeNode) -> OutputShapes:
    """Q[B, S, H*d], K[B, S, G*d], V[B, S, G*dv], ... -> Y[B, S, H*dv], state[B, G, d, dv]."""
    batch, length, width = op.shape(0)
    heads, groups = op.attr("q_num_heads"), op.attr("kv_num_heads")
    value_size = op.shape(2)[2] // groups
    return [(batch, length, heads * value_size), (batch, groups, width // heads, value_size)]
