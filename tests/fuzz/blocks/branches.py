"""Blocks of equal branches: experts as nodes of their own, towers that meet, grouped layers spelled out."""

from __future__ import annotations

from functools import reduce

from tests.fuzz.blocks.registry import block
from tests.fuzz.builder import Builder, Rejected


@block(2)
def branches(b: Builder, x: str) -> str:
    """k times the same layers with weights of their own (rarely shared), joined in one of many ways."""
    s = b.shape(x)
    if len(s) < 2 or s[-1] > 24:
        raise Rejected("size")
    k, hidden, width = int(b.pick([2, 2, 3])), b.size(), int(b.pick([2, 4, s[-1]]))
    kind = b.pick(["Relu", "Tanh", "Sigmoid", "Identity", "Softmax"])
    bias, second = b.flip(), b.flip(0.6)
    shared = b.weight(s[-1], hidden, spread=s[-1] ** -0.5) if b.flip(0.15) else ""
    join = b.pick(["add", "sum", "max", "mul", "concat", "gather", "split", "slice", "mixed", "odd"])
    gates = _gates(b, x, k, join)
    parts = []
    for i in range(k):
        y = b.op("MatMul", x, shared or _fresh(b, s[-1], hidden))
        if bias:
            y = b.op("Add", *([y, _fresh(b, hidden)] if join != "mixed" or i else [_fresh(b, hidden), y]))
        y = b.op(kind, y)
        if second:
            y = b.op("MatMul", y, _fresh(b, hidden, width))
        if join == "odd" and i == 0:  # not a twin of the others after all
            y = b.op("Neg", b.op("Abs", y))
        parts.append(b.op("Mul", y, gates[i]) if gates else y)
    return _joined(b, parts, join)


def _fresh(b: Builder, *shape: int) -> str:
    return b.constant(b._draw(shape, shape[0] ** -0.5, False), "w")


def _gates(b: Builder, x: str, k: int, join: str) -> list[str]:
    """One gate for each branch, read from a softmax over all."""
    if join not in ("gather", "split", "slice"):
        return []
    gate = b.op("Softmax", b.op("MatMul", x, _fresh(b, b.shape(x)[-1], k)), axis=-1)
    last = len(b.shape(x)) - 1
    if join == "split":
        return b.ops("Split", gate, b.ints(*[1] * k), outputs=k, axis=last)
    if join == "slice":
        return [b.op("Slice", gate, b.ints(i), b.ints(i + 1), b.ints(last)) for i in range(k)]
    return [b.op("Gather", gate, b.ints(i), axis=last) for i in range(k)]


def _joined(b: Builder, parts: list[str], join: str) -> str:
    if join == "sum":
        return b.op("Sum", *parts)
    if join == "concat":
        return b.op("Concat", *parts, axis=-1)
    kind = {"max": "Max", "mul": "Mul"}.get(join, "Add")
    return reduce(lambda one, other: b.op(kind, one, other), parts)


@block(1)
def towers(b: Builder, x: str) -> str:
    """Two deeper branches, with a residual stream of their own each, that meet in a sum or side by side."""
    s = b.shape(x)
    if len(s) < 2 or s[-1] > 12:
        raise Rejected("size")
    width, hidden, depth = b.size(), b.size(), int(b.pick([1, 2]))
    norm = b.flip(0.4)
    ends = []
    for _ in range(2):
        y = b.op("MatMul", x, _fresh(b, s[-1], width))
        for _ in range(depth):
            z = b.op("LayerNormalization", y, _fresh(b, width), _fresh(b, width)) if norm else y
            z = b.op("Relu", b.op("MatMul", z, _fresh(b, width, hidden)))
            y = b.op("Add", y, b.op("MatMul", z, _fresh(b, hidden, width)))
        ends.append(y)
    return b.op(b.pick(["Add", "Mul"]), *ends) if b.flip(0.7) else b.op("Concat", *ends, axis=-1)


@block(1)
def grouped(b: Builder, x: str) -> str:
    """A grouped layer spelled as one node for each part of the channels."""
    s = b.shape(x)
    k = int(b.pick([2, 3, 4]))
    if len(s) < 2 or s[-1] % k or s[-1] == k:
        raise Rejected("size")
    each, out = s[-1] // k, int(b.pick([2, 3, s[-1] // k]))
    parts = b.ops("Split", x, b.ints(*[each] * k), outputs=k, axis=len(s) - 1)
    made = [b.op("MatMul", p, _fresh(b, each, out)) for p in parts]
    return b.op("Concat", *made, axis=-1)
