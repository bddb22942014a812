"""Larger blocks: attention, fused operators, recurrence, experts, tied weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.fuzz.blocks.contraction import affine, mix_rows
from tests.fuzz.blocks.elementwise import unary
from tests.fuzz.blocks.movement import parts_of, sliced
from tests.fuzz.blocks.registry import block, reshaped
from tests.fuzz.builder import CONTRIB, Builder, Rejected


def sequence(b: Builder, x: str) -> str:
    """A value of rank 3, made from x."""
    s = b.shape(x)
    if len(s) == 3:
        return mix_rows(b, x) if b.flip(0.25) else x  # type: ignore[return-value]
    if len(s) == 4:
        return reshaped(b, b.op("Transpose", x, perm=[0, 2, 3, 1]), (s[0], s[2] * s[3], s[1]))
    if len(s) == 2 and s[1] % 2 == 0:
        return reshaped(b, x, (s[0], 2, s[1] // 2))
    raise Rejected("rank")


@block(3)
def attention(b: Builder, x: str) -> str:
    """Multi-head attention spelled out, in one of many spellings."""
    x = sequence(b, x)
    n, t, c = b.shape(x)
    heads, d = int(b.pick([2, 2, 3, 4])), int(b.pick([2, 4]))
    shared = int(b.pick([g for g in (1, 1, 2, 3) if heads % g == 0]))  # query heads per key head
    e, kv = heads * d, heads // shared * d
    way = b.pick(["separate", "split", "slices", "stacked", "einsum"])

    def headed(y: str, h: int) -> str:
        return b.op("Transpose", reshaped(b, y, (n, t, h, d)), perm=[0, 2, 1, 3])

    if way == "stacked" and shared == 1:
        order = b.pick([(3, heads, d), (heads, 3, d), (heads, d, 3)])
        y = reshaped(b, affine(b, x, 3 * e), (n, t, *order))
        at = 2 + order.index(3) if order.count(3) == 1 else 2
        y = b.op("Transpose", y, perm=[at, 0, *(j for j in (1, 2, 3, 4) if j != at)])
        thirds = [b.op("Gather", y, b.constant(np.array(j), "i"), axis=0) for j in range(3)]
        if b.shape(thirds[0]) != (n, t, heads, d):
            raise Rejected("order")
        q, k, v = (b.op("Transpose", z, perm=[0, 2, 1, 3]) for z in thirds)
    elif way == "einsum":
        q, k, v = (
            b.op("Einsum", x, b.weight(c, h, d, spread=c**-0.5), equation="ntc,chd->nhtd")
            for h in (heads, heads // shared, heads // shared)
        )
    else:
        if way == "separate":
            q, k, v = affine(b, x, e), affine(b, x, kv), affine(b, x, kv)
        else:
            y = affine(b, x, e + 2 * kv)
            if way == "split":
                q, k, v = b.ops("Split", y, b.ints(e, kv, kv), outputs=3, axis=2)
            else:
                q, k, v = (sliced(b, y, 2, p, r) for p, r in ((0, e), (e, e + kv), (e + kv, e + 2 * kv)))
        q, k, v = headed(q, heads), headed(k, heads // shared), headed(v, heads // shared)
    if b.flip(0.25):  # positions turn pairs
        half = d // 2

        def turned(z: str) -> str:
            p, r = sliced(b, z, 3, 0, half), sliced(b, z, 3, half, 9999)
            flipped = b.op("Concat", b.op("Neg", r), p, axis=3)
            angle = b.rng.uniform(0, 3, (t, half))
            cos, sin = (b.constant(np.tile(f(angle), 2).astype(b.dtype), "r") for f in (np.cos, np.sin))
            return b.op("Add", b.op("Mul", z, cos), b.op("Mul", flipped, sin))

        q, k = turned(q), turned(k)
    if b.flip(0.2):  # norms per head
        q, k = (b.op("LayerNormalization", z, b.weight(d), axis=-1) for z in (q, k))
    if shared > 1:

        def repeated(z: str) -> str:
            wide = b.op("Unsqueeze", z, b.ints(2))
            wide = b.op("Expand", wide, b.ints(1, 1, shared, 1, 1))
            return reshaped(b, wide, (n, heads, t, d))

        k, v = repeated(k), repeated(v)
    flat = b.flip(0.2)
    if flat:  # batch and heads in one axis
        q, k, v = (reshaped(b, z, (n * heads, t, d)) for z in (q, k, v))
        score = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 2, 1]))
    else:
        score = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2]))
        if b.flip(0.2):
            score = b.op("Mul", score, b.weight(heads, 1, 1))
    if b.flip(0.8):
        score = b.op("Softmax", b.op("Mul", score, b.scalar(d**-0.5)), axis=-1)
    y = b.op("MatMul", score, v)
    if flat:
        y = reshaped(b, y, (n, heads, t, d))
    y = reshaped(b, b.op("Transpose", y, perm=[0, 2, 1, 3]), (n, t, e))
    y = affine(b, y, c)
    return b.op("Add", x, y) if b.flip() else y


@block(2)
def fused(b: Builder, x: str) -> str:
    """Operators that fuse several: the standard's attention, onnxruntime's own."""
    kind = b.pick(["Attention", "Attention", "skip", "matmul", "gelu"])
    if kind == "skip":
        x = sequence(b, x)
        other = str(b.pick([*b.fits(x), unary(b, x)]))
        c = b.shape(x)[-1]
        simple = b.flip(0.3)
        more = (
            [b.weight(c)]
            + ([] if simple else [b.weight(c)])
            + ([b.weight(c, spread=0.3)] if b.flip() else [])
        )
        name = "SkipSimplifiedLayerNormalization" if simple else "SkipLayerNormalization"
        outputs = b.ops(name, x, other, *more, outputs=4, keep=[0, 3] if b.flip() else [0], domain=CONTRIB)
        return str(b.pick(outputs))
    if kind == "matmul":
        s = b.shape(x)
        k = s[-1]
        if b.flip(0.3):
            perm = [*range(len(s) - 2), len(s) - 1, len(s) - 2]
            return b.op(
                "FusedMatMul",
                b.op("Transpose", x, perm=perm),
                b.weight(k, b.size()),
                transA=1,
                domain=CONTRIB,
            )
        return b.op(
            "FusedMatMul", x, b.weight(b.size(), k, spread=k**-0.5), transB=1, alpha=0.5, domain=CONTRIB
        )
    if kind == "gelu":
        name = str(b.pick(["QuickGelu", "FastGelu", "BiasGelu"]))
        bias = [] if name == "QuickGelu" else [b.weight(b.shape(x)[-1], spread=0.5)]
        return b.op(name, x, *bias, domain=CONTRIB)
    x = sequence(b, x)
    n, t, c = b.shape(x)
    heads, d, v = int(b.pick([2, 3, 4])), int(b.pick([2, 4])), int(b.pick([2, 3]))
    few = int(b.pick([g for g in (heads, heads, 1, 2) if heads % g == 0]))
    widths = (heads * d, few * d, few * v)
    qkv = [affine(b, x, w) for w in widths]
    counts: dict[str, Any] = {"q_num_heads": heads, "kv_num_heads": few}
    if b.flip(0.4):
        sizes = ((heads, d), (few, d), (few, v))
        qkv = [
            b.op("Transpose", reshaped(b, y, (n, t, *s)), perm=[0, 2, 1, 3])
            for y, s in zip(qkv, sizes, strict=True)
        ]
        counts = {}
    if b.flip(0.5):
        shapes = [(t, t), (1, 1, t, t), (1, heads, t, t), (n, 1, t, t), (n, heads, t, t)]
        qkv.append(b.weight(*b.pick(shapes)))
    if b.flip(0.3):
        counts["is_causal"] = 1
    y = b.op("Attention", *qkv, **counts)
    if len(b.shape(y)) == 4:
        y = reshaped(b, b.op("Transpose", y, perm=[0, 2, 1, 3]), (n, t, heads * v))
    return y


@block(2.5)
def recurrent(b: Builder, x: str) -> str:
    x = b.op("Transpose", sequence(b, x), perm=[1, 0, 2])
    t, n, c = b.shape(x)
    kind = str(b.pick(["LSTM", "GRU", "RNN"]))
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    d, h = int(b.pick([1, 2])), int(b.pick([1, 2, 3, 4, 6]))
    inputs = [x, b.weight(d, gates * h, c, spread=c**-0.5), b.weight(d, gates * h, h, spread=h**-0.5)]
    inputs.append("" if b.flip(0.3) else b.weight(d, 2 * gates * h, spread=0.5))
    if b.flip(0.12):
        inputs[-1] = b.uniform((d, 2 * gates * h), float(b.pick([0.0, 0.1])))
    if b.flip(0.3):
        inputs += ["", b.weight(d, n, h)]
        if kind == "LSTM" and b.flip():
            inputs += [b.weight(d, n, h)]
            if b.flip():
                inputs += [b.weight(d, 3 * h)]
    more: dict[str, Any] = {"direction": "bidirectional"} if d == 2 else {}
    if kind == "GRU":
        more["linear_before_reset"] = int(b.flip())
    if kind == "RNN" and b.flip(0.2):
        more["activations"] = ["Relu"] * d
    if b.flip(0.7):
        y = b.ops(kind, *inputs, outputs=1, hidden_size=h, **more)[0]
        return reshaped(b, b.op("Transpose", y, perm=[2, 0, 1, 3]), (n, t, d * h))
    y = b.ops(kind, *inputs, outputs=2, keep=[1], hidden_size=h, **more)[0]
    return reshaped(b, b.op("Transpose", y, perm=[1, 0, 2]), (n, d * h))


@block(1.5)
def experts(b: Builder, x: str) -> str:
    """A mixture of experts whose weights are stacked."""
    s = b.shape(x)
    if len(s) > 3:
        raise Rejected("rank")
    c, e, h, m = s[-1], int(b.pick([2, 3, 4])), b.size(), b.size()
    lead = "ab"[: len(s) - 1]
    w1, w2 = b.weight(e, c, h, spread=c**-0.5), b.weight(e, h, m, spread=h**-0.5)
    gate = b.op("Softmax", b.op("MatMul", x, b.weight(c, e)), axis=-1)
    y = b.op("Einsum", x, w1, equation=f"{lead}x,exh->{lead}eh")
    if b.flip():
        y = b.op("Add", y, b.weight(e, h, spread=0.5))
    y = unary(b, y)
    if b.flip():
        y = b.op("Einsum", y, w2, equation=f"{lead}eh,ehm->{lead}em")
        return b.op("Einsum", y, gate, equation=f"{lead}em,{lead}e->{lead}m")
    return b.op("Einsum", y, w2, gate, equation=f"{lead}eh,ehm,{lead}e->{lead}m")


@block(1)
def tied(b: Builder, x: str) -> str:
    """Looked-up rows of a table that also projects back."""
    c = b.shape(x)[-1]
    tables = [n for n, a in b.initializers.items() if n[0] == "w" and a.ndim == 2 and a.shape[1] == c]
    table = str(b.pick(tables)) if tables and b.flip(0.8) else b.weight(b.size(), c, spread=c**-0.5)
    if b.flip():
        return b.op("MatMul", x, b.op("Transpose", table, perm=[1, 0]))
    rows = b.rng.integers(0, b.shape(table)[0], b.shape(x)[-2] if len(b.shape(x)) > 2 else 1)
    return b.op("Add", x, b.op("Gather", table, b.ints(*map(int, rows)), axis=0))


@block(1)
def project_back(b: Builder, x: str) -> str:
    """To the width of an earlier value of the same leading shape, and added to it."""
    fits = [p for p in b.pool if b.shape(p)[:-1] == b.shape(x)[:-1] and p != x]
    if not fits:
        raise Rejected("nothing fits")
    other = str(b.pick(fits))
    return b.op("Add", affine(b, x, b.shape(other)[-1]), other)


@block(2)
def residual(b: Builder, x: str) -> str:
    y = affine(b, unary(b, affine(b, x)), b.shape(x)[-1])
    return b.op("Add", *([x, y] if b.flip() else [y, x]))


@block(2)
def reduced_gate(b: Builder, x: str) -> str:
    """x · f(mean of x): squeeze and excitation, or a gate from the statistics."""
    axes = sorted({b.axis(x, 2) for _ in range(int(b.pick([1, 2])))})
    g = b.op(b.pick(["ReduceMean", "ReduceMax", "ReduceL2"]), x, b.ints(*axes), keepdims=1)
    return b.op("Mul", x, unary(b, g))


@block(1.5)
def glu(b: Builder, x: str) -> str:
    y = affine(b, x, 2 * b.size())
    p, q = parts_of(b, y, len(b.shape(y)) - 1, 2, True)
    return b.op("Mul", p, b.op(b.pick(["Sigmoid", "Tanh", "Relu", "Identity"]), q))


@block(1)
def constants_only(b: Builder, x: str) -> str:
    """Arithmetic of shared uniform constants, which carry no freedom, meeting x."""
    n = b.shape(x)[-1]
    c = b.uniform((n,), 0.0)
    y = b.op(b.pick(["Add", "Mul"]), x, c) if b.flip(0.3) else x
    z = b.op(b.pick(["Exp", "Cos", "Sigmoid", "Softplus"]), c)
    return b.op(b.pick(["Add", "Mul", "Sub", "Max"]), y, z)


# normalization, reductions, pooling
