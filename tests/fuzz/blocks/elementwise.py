"""Pointwise blocks: activations, gates, residuals, parameters that meet a value."""

from __future__ import annotations

import math

import numpy as np

from tests.fuzz.blocks.movement import cut, gather, regroup, shuffle, transpose
from tests.fuzz.blocks.registry import block
from tests.fuzz.builder import Builder, Rejected

# elementwise

UNARY = (
    "Relu", "Relu", "LeakyRelu", "Tanh", "Tanh", "Sigmoid", "Sin", "Cos", "Erf", "Softplus", "Abs", "Neg",
    "Clip6", "Clip0", "ClipOdd", "Softsign", "Gelu", "HardSwish", "Elu", "Pow2", "Pow3", "Exp", "Sqrt1",
    "Identity", "Square",
)  # fmt: skip


@block(5)
def unary(b: Builder, x: str) -> str:
    kind = str(b.pick(UNARY))
    if kind.startswith("Clip"):
        low, high = {"Clip6": (0.0, 0.8), "Clip0": (0.0, None), "ClipOdd": (-0.5, 0.5)}[kind]
        return b.op("Clip", x, b.scalar(low), *([] if high is None else [b.scalar(high)]))
    if kind.startswith("Pow"):
        return b.op("Pow", x, b.scalar(float(kind[3:])))
    if kind == "Square":
        return b.op("Mul", x, x)
    if kind == "Sqrt1":
        return b.op("Sqrt", b.op("Add", b.op("Mul", x, x), b.scalar(0.3)))
    if kind == "Gelu" and b.opset < 20:
        raise Rejected("opset")
    return b.op(kind, x)


def spelled(b: Builder, x: str, positive: bool = False) -> str:
    """A parameter that broadcasts against x: along one axis, several or all, leading ones dropped or not."""
    s = b.shape(x)
    keep = {b.axis(x, 2)}
    keep |= {k for k in range(1, len(s)) if b.flip(0.15)}
    shape = [n if k in keep else 1 for k, n in enumerate(s)]
    first = min(keep)
    shape = shape[int(b.rng.integers(0, first + 1)) :]
    if b.flip(0.06):
        return b.uniform(shape, float(b.pick([0.0, 1.0]) if not positive else 1.0))
    return b.weight(*shape, spread=0.7, positive=positive)


@block(5)
def with_parameter(b: Builder, x: str) -> str:
    kind = b.pick(["Add", "Add", "Mul", "Mul", "Sub", "RevSub", "Div", "Max", "Min", "PRelu", "Where", "Pow"])
    if kind == "RevSub":
        return b.op("Sub", spelled(b, x), x)
    if kind == "Pow":
        return b.op("Pow", b.op("Add", b.op("Abs", x), b.scalar(0.5)), spelled(b, x, positive=True))
    if kind == "Where":
        over = b.op("Greater", x, b.pick([b.scalar(0.0), spelled(b, x)]))
        return b.op("Where", over, x, spelled(b, x))
    if kind == "Max" and b.flip():
        return b.op(b.pick(["Max", "Min"]), x, b.scalar(0.0))
    return b.op(kind, x, spelled(b, x, positive=kind == "Div"))


@block(5)
def combine(b: Builder, x: str) -> str:
    """Two values of one shape meet; a missing partner is made by moving the entries of x."""
    fits = b.fits(x)
    if fits and b.flip(0.8):
        other = str(b.pick(fits))
    else:
        other = b.pick([shuffle, regroup, gather, transpose, cut])(b, x)
        other = other if isinstance(other, str) else other[0]
        if b.shape(other) != b.shape(x):
            raise Rejected("another shape")
    kind = b.pick(["Add", "Add", "Add", "Mul", "Sub", "Max", "Where", "Sum", "Div"])
    if kind == "Where":
        return b.op("Where", b.op("Less", x, b.scalar(0.1)), x, other)
    if kind == "Sum":
        return b.op("Sum", x, other, x)
    if kind == "Div":
        return b.op("Div", x, b.op("Add", b.op("Abs", other), b.scalar(0.5)))
    pair = [x, other] if b.flip() else [other, x]
    return b.op(kind, *pair)


@block(2)
def broadcast_meet(b: Builder, x: str) -> str:
    """Values of different shapes that broadcast."""
    s = b.shape(x)

    def fit(p: str) -> bool:
        try:
            return p != x and math.prod(np.broadcast_shapes(b.shape(p), s)) < 2000
        except ValueError:
            return False

    fits = [p for p in b.pool if fit(p)]
    if not fits:
        raise Rejected("nothing fits")
    return b.op(b.pick(["Add", "Mul", "Mul", "Sub"]), x, str(b.pick(fits)))
