"""Fused attention, written out: heads are blocks; inside, one map for queries and keys, another for values.

    scores = Q · Kᵀ per head; Y = softmax(scores + mask) · V

With fewer key/value heads than query heads (grouped queries) a query head belongs to its key/value head.
"""

from __future__ import annotations

from onnxcanon.symmetry.labels import Labelled
from onnxcanon.symmetry.movement import Movement
from onnxcanon.symmetry.rules.registry import Barrier, Op, Outputs, register

Shape = tuple[int, ...]


def heads(t: Movement, x: Labelled, alt: Shape, groups: int, each: int) -> Labelled:
    """X[B, S, H·d] or X[B, H, S, d] -> [B, groups, each, S, d] with H = groups · each."""
    if x.rank == 3:
        (b, s, n), (b2, s2, _) = x.shape, alt
        inner = n // (groups * each)
        x = t.reshape(x, (b, s, groups, each, inner), alt, (b2, s2, groups, each, inner))
        return t.transpose(x, (0, 2, 3, 1, 4))
    (b, _, s, d), (b2, _, s2, _) = x.shape, alt
    return t.reshape(x, (b, groups, each, s, d), alt, (b2, groups, each, s2, d))


def attend(
    t: Movement, q: Labelled, k: Labelled, v: Labelled, mask: Labelled | None, *, causal: bool
) -> Labelled:
    """Q[B, g, e, S, d], K[B, g, 1, T, d], V[B, g, 1, T, v], mask[…, S, T] -> Y[B, g, e, S, v]."""
    k, v = t.squeeze(k, 2), t.squeeze(v, 2)
    scores = t.contract([q, k], [list("bgesd"), list("bgtd")], list("bgest"))
    if causal:
        for axis in (3, 4):
            t.fix(scores, axis, "positions under a causal mask")
    if mask is not None:
        scores = t.elementwise([scores, mask])
    weights = t.stop(scores)
    for axis in range(4):
        weights.ids[axis] = t.forget(weights.ids[axis], [4])
    return t.contract([weights, v], [list("bgest"), list("bgtv")], list("bgesv"))


def merged(t: Movement, y: Labelled, alt: Shape, out: tuple[Shape, Shape]) -> Labelled:
    """Y[B, g, e, S, v] -> [B, S, H·v] or [B, H, S, v], as the output's rank asks."""
    if len(out[0]) == 3:
        y = t.transpose(y, (0, 3, 1, 2, 4))
        alt = tuple(alt[p] for p in (0, 3, 1, 2, 4))
    return t.reshape(y, out[0], alt, out[1])


@register("Attention")
def attention(t: Movement, op: Op) -> Outputs:
    """Q, K, V, mask -> Y (opset 23), without past and present keys and values."""
    if any(op.has(i) for i in (4, 5, 6)) or any(op.used(k) for k in range(1, len(op.node.outputs))):
        raise Barrier("Attention with a cache")
    q, k, v = op.x(0), op.x(1), op.x(2)
    count = op.attr("q_num_heads") or q.shape[1]
    groups = op.attr("kv_num_heads") or (k.shape[1] if k.rank == 4 else count)
    alt = [op.in_shapes(i)[1] for i in range(3)]
    each = count // groups
    mask, causal = _mask(t, op, groups, each), bool(op.attr("is_causal", 0))
    query = heads(t, q, alt[0], groups, each)
    y = attend(t, query, heads(t, k, alt[1], groups, 1), heads(t, v, alt[2], groups, 1), mask, causal=causal)
    b2 = alt[0][0]
    s2 = alt[0][1] if q.rank == 3 else alt[0][2]
    return [merged(t, y, (b2, groups, each, s2, y.shape[4]), op.out_shapes())]


def _mask(t: Movement, op: Op, groups: int, each: int) -> Labelled | None:
    """The mask over [B, g, e, S, T]; a mask that differs by head fixes the heads it tells apart."""
    if not op.has(3):
        return None
    mask = t.stop(op.x(3))
    keys = op.in_shapes(1)[0][-2]
    if op.version >= 24 and mask.shape[-1] != keys:
        raise Barrier("Attention with a mask shorter than its keys")
    if mask.rank == 4 and mask.shape[1] > 1:
        a, b = op.in_shapes(3)
        return t.reshape(mask, (a[0], groups, each, *a[2:]), b, (b[0], groups, each, *b[2:]))
    if mask.rank == 3 and mask.shape[0] > 1:
        raise Barrier("Attention with a mask per head and no batch axis")
    return t.insert(mask, 1) if mask.rank == 4 else mask
