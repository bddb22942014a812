"""Pointwise operators: labels meet, exponents follow the function's parity and homogeneity.

============  =========================  ===============================
class         f(a·x), a > 0              f(-x)
============  =========================  ===============================
linear        a·f(x)                     -f(x)
positive      a·f(x)                     no relation (ReLU)
odd           no relation                -f(x) (tanh)
even          no relation                f(x) (cos); Abs also scales
other         no relation                no relation
============  =========================  ===============================

Which operator is in which class stands in `graph.traits`.
"""

from __future__ import annotations

import numpy as np

from onnxcanon.graph.operators import CONTRIB, is_standard
from onnxcanon.graph.traits import Trait, operators
from onnxcanon.tracing.abstract_value import AbstractValue
from onnxcanon.tracing.constraints import System
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.registry import Outputs, SymmetryNode, Unsupported, register

POINTWISE = Trait.POINTWISE


@register(*operators(POINTWISE | Trait.LINEAR), leaves_splits=True)
def linear(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> Y, f linear."""
    if op.kind == "Dropout" and op.has(2) and (op.data(2) is None or bool(np.any(op.data(2)))):
        raise Unsupported("Dropout in training mode draws per position")
    if op.kind == "Dropout" and op.version < 7 and not op.attr("is_test", 0):
        raise Unsupported("Dropout in training mode draws per position")
    return [ctx.copy(op.x(0)), *[None] * (len(op.node.outputs) - 1)]


@register("Cast", "CastLike", leaves_splits=True)
def cast(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> Y in another type; rounding to integers, booleans or half precision ends scale and sign."""
    x = op.x(0)
    op.claimed.add(1)  # CastLike reads the type of its second input, not its entries
    source, target = op.node.inputs[0], op.node.outputs[0]
    to = op.attr("to")
    precise = {1, 11}  # float and double
    into = to if to is not None else (target.dtype.value if target.dtype is not None else 0)
    come = source.dtype.value if source is not None and source.dtype is not None else None
    floating = into in precise and (come is None or come in precise)
    whole = x.view is not None and not x.view.parameter.scalable
    return ctx.copy(x) if floating or whole else ctx.stop(x)


@register(*operators(POINTWISE | Trait.HOMOGENEOUS, without=Trait.ODD | Trait.EVEN), leaves_splits=True)
def positive(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> Y, f positively homogeneous."""
    return ctx.stop(op.x(0), System.SIGN)


@register(*operators(POINTWISE | Trait.ODD, without=Trait.HOMOGENEOUS), leaves_splits=True)
def odd(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> Y, f odd."""
    return ctx.stop(op.x(0), System.SCALE)


@register(*operators(POINTWISE | Trait.HOMOGENEOUS | Trait.EVEN), leaves_splits=True)
def absolute(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> |X|."""
    return ctx.without(op.x(0), System.SIGN)


@register(*operators(POINTWISE | Trait.EVEN, without=Trait.HOMOGENEOUS), leaves_splits=True)
def even(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> Y, f even."""
    y = ctx.without(ctx.stop(op.x(0), System.SCALE), System.SIGN)
    y.zero = False  # cos 0 = 1
    return y


@register(*operators(POINTWISE, without=Trait.LINEAR | Trait.EVEN), leaves_splits=True)
def other(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> Y, neither homogeneous nor of a parity."""
    return ctx.stop(op.x(0))


@register("FastGelu", "BiasGelu", "QuickGelu", "Gelu", domain=CONTRIB)
def biased_gelu(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[…, C], bias[C] -> gelu(X + bias)."""
    return ctx.stop(ctx.elementwise(op.xs()))


@register("Clip", leaves_splits=True)
def clip(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> min(max(X, low), high): homogeneous when it is a ReLU, odd when the bounds are opposite."""
    low, high = _bound(op, 1, "min"), _bound(op, 2, "max")
    x = op.x(0)
    if low == 0 and high == np.inf:
        return ctx.stop(x, System.SIGN)
    if low is not None and high is not None and low == -high and high >= 0:
        return ctx.stop(x, System.SCALE)
    return ctx.stop(x)


def _bound(op: SymmetryNode, i: int, name: str) -> float | None:
    bound = op.attr(name)
    if bound is None and op.has(i):
        static = op.data(i)
        return None if static is None or static.size != 1 else _number(static.item())
    if bound is None:
        return -np.inf if name == "min" else np.inf
    return _number(bound)


def _number(x: float) -> float:
    """Bounds of the float range stand for infinity (opset 6 has them as defaults)."""
    return float(np.sign(x) * np.inf) if abs(x) >= 3.4e38 else float(x)


@register("PRelu")
def prelu(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[N, C, …], slope[C, 1, …] -> Y: permutes with its slopes, positive scale."""
    x = ctx.stop(op.x(0), System.SIGN)
    slope = op.x(1)
    if op.version < 7 and slope.rank == 1:
        slope = _trailing(ctx, slope, x.rank - 2)
    out = ctx.elementwise([x, slope], product=True)
    for d in slope.exponents:
        ctx.constraints.exponent_zero(d)
    out.zero = x.zero  # a slope of 0 leaves what is positive
    return out


def _trailing(ctx: Context, v: AbstractValue, count: int) -> AbstractValue:
    for _ in range(count):
        v = ctx.insert(v, v.rank)
    return v


@register("Add", "Sub", "Sum", "Mean")
def add(ctx: Context, op: SymmetryNode) -> Outputs:
    """A, B, … -> A ± B ± …."""
    return ctx.elementwise(_aligned(ctx, op))


@register("Mul")
def multiply(ctx: Context, op: SymmetryNode) -> Outputs:
    """A, B -> A · B; a parameter times one number stays an unlabelled view of the parameter."""
    a, b = _aligned(ctx, op)
    for x, y in ((a, b), (b, a)):
        if x.view is not None and _single(y) and x.rank >= y.rank:
            return ctx.copy(x)
    return ctx.elementwise([a, b], product=True)


@register("Div")
def divide(ctx: Context, op: SymmetryNode) -> Outputs:
    """A, B -> A / B."""
    a, b = _aligned(ctx, op)
    if a.view is not None and _single(b) and a.rank >= b.rank:
        return ctx.copy(a)
    return ctx.elementwise([a, ctx.opposite(b)], product=True)


def _single(v: AbstractValue) -> bool:
    """One number without labels or exponents."""
    return v.view is None and all(n == 1 for n in v.shape) and all(d is None for d in v.exponents)


@register("Pow")
def power(ctx: Context, op: SymmetryNode) -> Outputs:
    """X, p -> X^p; squares keep scale and forget sign."""
    a, b = _aligned(ctx, op)
    exponent = op.data(1)
    if exponent is not None and exponent.size == 1 and exponent.item() in (1, 2, 3):
        for _ in range(b.rank - a.rank):
            a = ctx.insert(a, 0)
        ctx.bind(a)
        return ctx.elementwise([a] * int(exponent.item()), product=True)
    return ctx.elementwise([ctx.stop(a), ctx.stop(b)])


@register("Max", "Min")
def extremum(ctx: Context, op: SymmetryNode) -> Outputs:
    """A, B, … -> the largest or smallest: positively homogeneous in all of them together."""
    return ctx.elementwise([ctx.stop(v, System.SIGN) for v in _aligned(ctx, op)])


@register("And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Mod", "Or", "Xor")
@register("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
def compare(ctx: Context, op: SymmetryNode) -> Outputs:
    """A, B -> Y without scale or sign."""
    return ctx.elementwise([ctx.stop(v) for v in _aligned(ctx, op)])


@register("Where")
def where(ctx: Context, op: SymmetryNode) -> Outputs:
    """condition, X, Y -> X where the condition holds, else Y."""
    condition = ctx.stop(op.x(0))
    condition.zero = True  # it adds no exponent of its own
    out = ctx.elementwise([condition, op.x(1), op.x(2)])
    out.zero = op.x(1).zero and op.x(2).zero
    return out


def _aligned(ctx: Context, op: SymmetryNode) -> list[AbstractValue]:
    """The operands; before opset 7 an `axis` attribute says where the second one's axes lie."""
    values = op.xs()
    if op.version < 7 and is_standard(op.node) and op.attr("broadcast") and len(values) == 2:
        a, b = values
        axis = op.attr("axis")
        if axis is not None:
            start = int(axis) + (a.rank if axis < 0 else 0)
            b = _trailing(ctx, b, a.rank - start - b.rank)
        return [a, b]
    return values


@register("Affine", "ImageScaler", "Scale", "GivenTensorFill")
def pointwise_legacy(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> a·X + b with attributes a, b; ImageScaler has one bias per channel."""
    x = ctx.stop(op.x(0))
    if op.kind == "ImageScaler":
        ctx.fix(x, 1, "ImageScaler has a constant per channel")
    return x


@register("ConstantOfShape", "EyeLike", "RandomNormalLike", "RandomUniformLike", "Shape", "Size")
def shape_only(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> a value that depends on the shape of X alone; only ConstantOfShape reads its entries."""
    if op.kind != "ConstantOfShape":
        op.x(0)
    return [None]
