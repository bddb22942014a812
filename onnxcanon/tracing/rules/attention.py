"""Fused attention, written out: heads are blocks; inside, one map for queries and keys, another for values.

    scores = Q · Kᵀ per head; Y = softmax(f(scores) + mask) · V, f pointwise

With fewer key/value heads than query heads (grouped queries) a query head belongs to its key/value head.
Keys and values of earlier calls are concatenated before the new ones: what the caller holds of them pins
the heads and their inner dimensions, what the graph holds does not.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnxcanon.arrays import Shape
from onnxcanon.tracing.abstract_value import Labelled
from onnxcanon.tracing.context import Movement
from onnxcanon.tracing.rules.rearrangement import resized_unknown
from onnxcanon.tracing.rules.registry import Op, Outputs, register

SAMPLES, QUERIES, KEYS = 0, 3, 4
"""Axes of the scores [B, groups, each, S, T]."""


def heads(t: Movement, x: Labelled, alt: Shape, groups: int, each: int) -> Labelled:
    """X[B, S, H·d] or X[B, H, S, d] -> [B, groups, each, S, d] with H = groups · each."""
    if x.rank == 3:
        (b, s, n), (b2, s2, _) = x.shape, alt
        count, inner = groups * each, n // (groups * each)
        whole, other = (b, s, count, inner), (b2, s2, count, inner)
        x = t.reshape(x, whole, alt, other)  # as graphs cut it that do more with a head
        x = t.reshape(x, (b, s, groups, each, inner), other, (b2, s2, groups, each, inner))
        return t.transpose(x, (0, 2, 3, 1, 4))
    (b, _, s, d), (b2, _, s2, _) = x.shape, alt
    return t.reshape(x, (b, groups, each, s, d), alt, (b2, groups, each, s2, d))


def grouped(t: Movement, x: Labelled, alt: Shape, groups: int) -> Labelled:
    """X[B, L, G·d] or X[B, G, L, d] -> [B, G, L, d]."""
    return t.squeeze(heads(t, x, alt, groups, 1), 2)


def appended(t: Movement, op: Op, past: int, new: Labelled, *, dynamic: bool) -> Labelled:
    """past[B, G, P, d] (an input, if given), new[B, G, L, d] -> [B, G, P + L, d]; `dynamic`: L is."""
    if not op.has(past):
        return new
    first, second = op.in_shapes(past)
    return lengthened(t, op.x(past), new, dynamic=dynamic or first[2] != second[2])


def lengthened(t: Movement, past: Labelled, new: Labelled, *, dynamic: bool) -> Labelled:
    """past[B, G, P, d], new[B, G, L, d] -> [B, G, P + L, d]; `dynamic`: P or L is."""
    t.bind_together([past, new], 4)
    if dynamic:
        for v in (past, new):
            t.fix(v, 2, "appended to a cache whose length is dynamic")
    return t.concat([past, new], 2)


def attend(
    t: Movement, q: Labelled, k: Labelled, v: Labelled, added: Sequence[Labelled], fixed: Sequence[int]
) -> tuple[Labelled, Labelled]:
    """Q[B, g, e, S, d], K[B, g, T, d], V[B, g, T, v] -> Y[B, g, e, S, v], weights[B, g, e, S, T].

    `added` broadcast to the scores; `fixed` are axes of the scores whose positions a mask tells apart.
    """
    q = t.copy(t.bind(q))
    q.ids[4] = t.forget(q.ids[4], [2])  # the queries of a group meet the same keys
    scores = t.contract([q, k], [list("bgesd"), list("bgtd")], list("bgest"))
    for axis in fixed:
        t.fix(scores, axis, "positions under a mask")
    if added:
        scores = t.elementwise([scores, *added])
    weights = t.stop(scores)
    for axis in range(4):
        weights.ids[axis] = t.forget(weights.ids[axis], [4])
    return t.contract([weights, v], [list("bgest"), list("bgtv")], list("bgesv")), weights


def merged(t: Movement, y: Labelled, alt: Shape, out: tuple[Shape, Shape]) -> Labelled:
    """Y[B, g, e, S, v] -> [B, S, H·v] or [B, H, S, v], as the output's rank asks."""
    if len(out[0]) == 3:
        y = t.transpose(y, (0, 3, 1, 2, 4))
        alt = tuple(alt[p] for p in (0, 3, 1, 2, 4))
    at = 2 if len(out[0]) == 3 else 1  # groups and their heads
    whole, other = ((*s[:at], s[at] * s[at + 1], *s[at + 2 :]) for s in (y.shape, alt))
    return t.reshape(t.reshape(y, whole, alt, other), out[0], other, out[1])


def per_head(t: Movement, op: Op, i: int, groups: int, each: int) -> Labelled:
    """Input i, added to the scores: […, S, T] with up to four axes -> […, g, e, S, T].

    What differs by head moves along if it is a parameter, and else fixes the heads that it tells apart.
    """
    mask = t.stop(op.x(i))
    a, b = op.in_shapes(i)
    if mask.rank < 3:
        return mask
    lead = mask.rank - 3
    if a[lead] == 1:
        return t.insert(mask, lead)
    return t.reshape(
        mask,
        (*a[:lead], groups, each, *a[lead + 1 :]),
        b,
        (*b[:lead], groups, each, *b[lead + 1 :]),
    )


def along_samples(t: Movement, v: Labelled) -> Labelled:
    """A vector [B] laid along the samples of the scores."""
    for axis in range(1, 5):
        v = t.insert(v, axis)
    return t.stop(v)


@register("Attention")
def attention(t: Movement, op: Op) -> Outputs:
    """Q, K, V, mask, past K, past V, lengths[B] -> Y, present K, present V, QK (opset 23 and 24)."""
    q, k, v = op.x(0), op.x(1), op.x(2)
    count = op.attr("q_num_heads") or q.shape[1]
    groups = op.attr("kv_num_heads") or (k.shape[1] if k.rank == 4 else count)
    each = count // groups
    alt = [op.in_shapes(i)[1] for i in range(3)]
    length = -2 if k.rank == 4 else 1
    dynamic = k.shape[length] != alt[1][length]
    query = heads(t, q, alt[0], groups, each)
    key = appended(t, op, 4, grouped(t, k, alt[1], groups), dynamic=dynamic)
    value = appended(t, op, 5, grouped(t, v, alt[2], groups), dynamic=dynamic)
    added, fixed = _mask(t, op, groups, each, key.shape[2])
    y, weights = attend(t, query, key, value, added, fixed)
    (b2, s2) = (alt[0][0], alt[0][1] if q.rank == 3 else alt[0][2])
    outputs = [merged(t, y, (b2, groups, each, s2, y.shape[4]), op.out_shapes()), key, value]
    if op.used(3):  # before or after the mask, a cap or the softmax: always without scale and sign
        shapes = op.out_shapes(3)
        outputs.append(merged(t, weights, (b2, groups, each, *shapes[1][2:]), shapes))
    return outputs[: len(op.node.outputs)]


def _mask(t: Movement, op: Op, groups: int, each: int, keys: int) -> tuple[list[Labelled], list[int]]:
    """What is added to the scores, and the axes of the scores whose positions are told apart."""
    added, fixed = [], [QUERIES, KEYS] if op.attr("is_causal", 0) else []
    if op.has(3):
        mask = per_head(t, op, 3, groups, each)
        if op.version >= 24 and mask.shape[-1] != keys:  # the last keys are masked
            mask = resized_unknown(t, mask, mask.rank - 1, keys, "a mask shorter than its keys")
            fixed.append(KEYS)
        added.append(mask)
    if op.has(6):
        added.append(along_samples(t, op.x(6)))
        fixed.append(KEYS)
    return added, fixed
