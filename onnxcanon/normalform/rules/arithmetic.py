"""Elementwise arithmetic of floats: one form for squares, quotients, constant factors and terms.

    x - c = x + (-c),  x / c = x * (1 / c),  -x = x * -1,  x ** 2 = x * x,  1 / x * y = y / x
    (x + c) + d = x + (c + d),  (x * c) * d = x * (c * d),  (x * s) * y = (x * y) * s   for a number s

Constants are the second operand. A number that is only spread over a tensor has no axes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnxcanon.arrays import Array
from onnxcanon.graph.nodes import given, made_by
from onnxcanon.normalform.engine import (
    NOT_COMPUTED,
    SHARED_VALUE,
    SHARED_WEIGHT,
    UNKNOWN_SIZES,
    Outputs,
    Refusal,
    Rewriting,
)
from onnxcanon.normalform.rules.registry import RULES as rule

_MOST_COMPUTED = 1 << 24  # elements of a constant that is computed here


def computed(g: Rewriting, function: Callable[..., Array], *values: ir.Value | None) -> ir.Value | None:
    """function(arrays), computed in double precision and rounded to the type of the first."""
    arrays = [g.array(value) for value in values]
    first = arrays[0]
    if first is None or any(array is None or array.size > _MOST_COMPUTED for array in arrays):
        return None
    wide = [array.astype(np.float64) for array in arrays if array is not None]
    with np.errstate(all="ignore"):
        result = function(*wide)
    if result.size > _MOST_COMPUTED or not np.isfinite(result).all():
        return None
    g.budget -= result.size * first.itemsize
    return g.constant(result.astype(first.dtype), *values)


@rule("Add", "Mul", "Max", "Min")
def constant_second(g: Rewriting, node: ir.Node) -> Outputs:
    """c, X -> X, c."""
    if len(node.inputs) != 2 or not g.is_constant(node.inputs[0]) or g.is_constant(node.inputs[1]):
        return None
    return g.node(node.op_type, node.inputs[1], node.inputs[0])


@rule("Add", "Mul", "Sub", "Div", "Pow", "Max", "Min")
def number_without_axes(g: Rewriting, node: ir.Node) -> Outputs:
    """X, c[1, ..., 1] -> X, c[] where c only repeats; X, c[1, ..., *S] -> X, c[*S]."""
    x, c = node.inputs[0], given(node, 1)
    shape, small = g.shape(x), g.shape(c)
    if x is None or c is None or not g.is_constant(c) or not g.is_float(c) or shape is None or not small:
        return None
    if len(small) > len(shape):
        return None
    axes = len(small)
    while axes and small[-axes] == 1:
        axes -= 1
    if not axes and shape[-1] == 1 and made_by(x, "MatMul", "Einsum") is not None:
        axes = 1  # it is the bias of the one unit there is
    array = g.array(c)
    if axes == len(small) or array is None:
        return None
    return g.node(node.op_type, x, g.constant(array.reshape(array.shape[len(small) - axes :]), c))


@rule("Add")
def nothing_added(g: Rewriting, node: ir.Node) -> Outputs:
    """X + 0 -> X."""
    return _without(g, node, 0.0)


@rule("Mul")
def times_one(g: Rewriting, node: ir.Node) -> Outputs:
    """X * 1 -> X."""
    return _without(g, node, 1.0)


def _without(g: Rewriting, node: ir.Node, neutral: float) -> ir.Value | None:
    x, c = node.inputs
    fill = made_by(c, "Expand")
    array = g.array(fill.inputs[0] if fill is not None else c)
    if array is None or not array.size or not g.is_float(x) or not bool((array == neutral).all()):
        return None
    sizes = g.sizes(x, node.outputs[0])
    return x if sizes is not None and sizes[0] == sizes[1] else None


@rule("Add", "Mul", "Sub", "Div", "Max", "Min", "Where", "Pow")
def spread_anyway(g: Rewriting, node: ir.Node) -> Outputs:
    """An operand that is expanded to what the operator would spread it to anyway."""
    for k, value in enumerate(node.inputs):
        fill = made_by(value, "Expand")
        if fill is None:
            continue
        inputs = list(node.inputs)
        inputs[k] = fill.inputs[0]
        sizes = g.sizes(node.outputs[0], *inputs)
        if sizes is not None and _spread(sizes[1:]) == sizes[0]:
            return g.renewed(node, inputs=inputs)
    return None


def _spread(shapes: tuple[tuple[tuple[int, ...], ...], ...]) -> tuple[tuple[int, ...], ...]:
    rank = max(map(len, shapes))
    padded = [((),) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(max((size for size in column if size), default=()) for column in zip(*padded, strict=True))


@rule("Sub")
def subtracted_constant(g: Rewriting, node: ir.Node) -> Outputs:
    """X - c -> X + (-c)."""
    x, c = node.inputs
    if not g.is_constant(c) or not g.is_float(x):
        return None
    negative = computed(g, np.negative, c)
    return NOT_COMPUTED if negative is None else g.node("Add", x, negative)


@rule("Div")
def divided_by_constant(g: Rewriting, node: ir.Node) -> Outputs:
    """X / c -> X * (1 / c)."""
    x, c = node.inputs
    if not g.is_constant(c) or not g.is_float(x):
        return None
    inverse = computed(g, np.reciprocal, c)
    return NOT_COMPUTED if inverse is None else g.node("Mul", x, inverse)


@rule("Neg")
def negated(g: Rewriting, node: ir.Node) -> Outputs:
    """-X -> X * -1."""
    x = node.inputs[0]
    return g.node("Mul", x, g.number(-1, x)) if x is not None and g.is_float(x) else None


@rule("Reciprocal")
def reciprocal(g: Rewriting, node: ir.Node) -> Outputs:
    """1 / X."""
    x = node.inputs[0]
    return g.node("Div", g.number(1, x), x) if x is not None and g.is_float(x) else None


@rule("Mul")
def quotient(g: Rewriting, node: ir.Node) -> Outputs:
    """X * (1 / Y) -> X / Y."""
    for x, y in (node.inputs, node.inputs[::-1]):
        inverse = made_by(y, "Div")
        if (
            inverse is not None
            and g.is_float(y)
            and g.scalar(inverse.inputs[0]) == 1
            and g.rank(inverse.inputs[0]) == 0
        ):
            return g.node("Div", x, inverse.inputs[1])
    return None


@rule("Pow")
def power(g: Rewriting, node: ir.Node) -> Outputs:
    """X ** 2, X ** 3 -> products; X ** 0.5 -> Sqrt; X ** -0.5 -> 1 / Sqrt."""
    x, exponent = node.inputs[0], g.scalar(node.inputs[1])
    if x is None or exponent is None or not g.is_float(x) or (g.rank(node.inputs[1]) or 0) > (g.rank(x) or 0):
        return None
    if exponent == 1:
        return x
    if exponent in (2, 3):
        square = g.node("Mul", x, x)
        return square if exponent == 2 else g.node("Mul", square, x)
    if abs(exponent) == 0.5:
        root = g.node("Sqrt", x)
        return root if exponent > 0 else g.node("Div", g.number(1, x), root)
    return None


@rule("Add", "Mul")
def constants_together(g: Rewriting, node: ir.Node) -> Outputs:
    """(X + c) + d -> X + (c + d), (X * c) * d -> X * (c * d)."""
    x, d = node.inputs
    inner = made_by(x, node.op_type)
    if inner is None or x is None or not g.is_constant(d) or not g.is_float(x):
        return None
    c = inner.inputs[1]
    if not g.is_constant(c):
        return None
    if not g.sole_use(x):
        return SHARED_VALUE
    if not (g.is_own(c) and g.is_own(d)):
        return SHARED_WEIGHT
    if g.sizes(inner.inputs[0]) is None:
        return UNKNOWN_SIZES
    function = np.add if node.op_type == "Add" else np.multiply
    both = computed(g, function, c, d)
    if both is None or (g.rank(both) or 0) > (g.rank(inner.inputs[0]) or 0):
        return None
    return g.node(node.op_type, inner.inputs[0], both)


@rule("Mul", "Div")
def number_last(g: Rewriting, node: ir.Node) -> Outputs:
    """(X * s) * Y -> (X * Y) * s, (X * s) / Y -> (X / Y) * s for a number s."""
    x, y = node.inputs
    if g.is_constant(y) or not g.is_float(x):
        return None
    factor = _number_factor(g, x)
    if factor is not None:
        return g.node("Mul", g.node(node.op_type, factor[0], y), factor[1])
    factor = _number_factor(g, y) if node.op_type == "Mul" else None
    if factor is not None:
        return g.node("Mul", g.node("Mul", x, factor[0]), factor[1])
    return None


def _number_factor(g: Rewriting, value: ir.Value | None) -> tuple[ir.Value | None, ir.Value | None] | None:
    """X and s of X * s."""
    node = made_by(value, "Mul")
    if node is None or not g.is_constant(node.inputs[1]) or g.rank(node.inputs[1]) != 0:
        return None
    return node.inputs[0], node.inputs[1]


@rule("Max", "Min")
def bound(g: Rewriting, node: ir.Node) -> Outputs:
    """max(X, c), min(X, c) -> Clip, for a number c."""
    if len(node.inputs) != 2 or not g.is_constant(node.inputs[1]) or g.rank(node.inputs[1]) != 0:
        return None
    x, c = node.inputs
    if not g.is_float(x):
        return None
    return g.node("Clip", x, c) if node.op_type == "Max" else g.node("Clip", x, None, c)


@rule("Clip")
def clip(g: Rewriting, node: ir.Node) -> Outputs:
    """Bounds that bound nothing are left out, bounds have no axes; clipped at zero from below is Relu."""
    x, low, high = node.inputs[0], given(node, 1), given(node, 2)
    if x is None or not g.is_float(x) or x.dtype is None:
        return None
    bounds = [g.scalar(low), g.scalar(high)]
    if any(b is None and value is not None for b, value in zip(bounds, (low, high), strict=True)):
        return Refusal("has bounds that are computed")
    most = float(ir_max(x.dtype))
    lower = None if bounds[0] is None or bounds[0] <= -most else bounds[0]
    upper = None if bounds[1] is None or bounds[1] >= most else bounds[1]
    if lower is None and upper is None:
        return x
    if lower == 0 and upper is None:
        return g.node("Relu", x)
    inner = made_by(x, "Relu")
    if inner is not None and (lower is None or lower <= 0) and upper is not None and upper >= 0:
        return g.node("Clip", inner.inputs[0], g.number(0, x), high)
    if (lower is None) == (low is None) and (upper is None) == (high is None) and not _has_axes(g, low, high):
        return None
    return g.node("Clip", x, *(None if b is None else g.number(b, x) for b in (lower, upper)))


def _has_axes(g: Rewriting, *values: ir.Value | None) -> bool:
    return any(value is not None and g.rank(value) != 0 for value in values)


def ir_max(dtype: ir.DataType) -> float:
    """The largest number of a floating type, as exporters write it for "no bound"."""
    largest = {ir.DataType.FLOAT16: 65504.0, ir.DataType.DOUBLE: float(np.finfo(np.float64).max)}
    return largest.get(dtype, float(np.finfo(np.float32).max))


@rule("Clip")
def clipped_multiple(g: Rewriting, node: ir.Node) -> Outputs:
    """clip(X * s + c, a, b) -> clip(X + c / s, a / s, b / s) * s for numbers s > 0 and c."""
    x, low, high = node.inputs[0], given(node, 1), given(node, 2)
    term = made_by(x, "Add")
    c = None if term is None else term.inputs[1]
    product = made_by(x if term is None else term.inputs[0], "Mul")
    if product is None or (term is not None and (not g.is_constant(c) or g.rank(c) != 0)):
        return None
    s = product.inputs[1]
    factor = g.scalar(s)
    if factor is None or factor <= 0 or g.rank(s) != 0 or not g.is_float(s):
        return None
    numbers = [None if value is None else computed(g, np.divide, value, s) for value in (c, low, high)]
    if any(new is None and old is not None for new, old in zip(numbers, (c, low, high), strict=True)):
        return None
    inner = product.inputs[0] if numbers[0] is None else g.node("Add", product.inputs[0], numbers[0])
    return g.node("Mul", g.node("Clip", inner, *numbers[1:]), s)


@rule("Mul")
def scaled_sum(g: Rewriting, node: ir.Node) -> Outputs:
    """(X + c) * d -> X * d + c * d for constants, unless d is but a number."""
    x, d = node.inputs
    inner = made_by(x, "Add")
    if inner is None or x is None or not g.is_constant(d) or not g.is_float(x) or g.rank(d) in (0, None):
        return None
    c = inner.inputs[1]
    if not g.is_constant(c):
        return None
    if not g.sole_use(x):
        return SHARED_VALUE
    if not (g.is_own(c) and g.is_own(d)):
        return SHARED_WEIGHT
    term = computed(g, np.multiply, c, d)
    return NOT_COMPUTED if term is None else g.node("Add", g.node("Mul", inner.inputs[0], d), term)
