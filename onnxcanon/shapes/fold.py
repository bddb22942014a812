"""Values of shape arithmetic: what Gather, Concat, Range and their like compute from known inputs.

Every function takes the node and the values of its inputs (None where an optional one is absent) and
returns the values of its outputs. They follow onnxruntime where numpy differs: integer division truncates,
reductions and powers keep the type of their input.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcanon.arrays import Array
from onnxcanon.graph.operators import STANDARD, Table
from onnxcanon.graph.traits import Trait, has
from onnxcanon.shapes.rearrangement import slices, split_bounds, split_sizes
from onnxcanon.shapes.reduction import reduced_axes
from onnxcanon.shapes.values import Contradiction, ShapeNode, Unresolved, find_rule, size_of

LIMIT = 65_536  # elements of a value that is computed; a larger one has a shape only

Fold = Callable[[ShapeNode, list[Any]], Any]  # returns one array or a list of arrays

FOLDS: Table[Fold] = Table("values")
folds = FOLDS.register


def fold(op: ShapeNode, limit: int = LIMIT) -> list[Array] | None:
    """The outputs of a node whose inputs are all known; None where that is not done here, or too large.

    Args:
        op: the node and the values of its inputs.
        limit: elements of an output, unless the node makes many of few: those stay below `LIMIT`.

    >>> from onnxcanon.shapes.values import SampleValue
    >>> def folded(op_type, *arrays, **attributes):
    ...     inputs = [ir.Value(name=f"x{k}") for k in range(len(arrays))]
    ...     node = ir.node(op_type, inputs, attributes)
    ...     outputs = fold(ShapeNode(node, [SampleValue(a.shape, a) for a in arrays], version=17))
    ...     return None if outputs is None else [array.tolist() for array in outputs]
    >>> folded("Concat", np.array([2, 3]), np.array([-1]), axis=0), folded("Div", np.array(-7), np.array(2))
    ([[2, 3, -1]], [-3])
    >>> folded("ConstantOfShape", np.array([1000, 1000])) is None
    True
    """
    op_type, grows = op.kind, has(op.node, Trait.GROWTH)
    function = FOLDS.of(op.node, op.version)
    if function is None:
        return None
    arrays = [None if value is None else value.data for value in op.inputs]
    # A few numbers can ask for gigabytes (`Expand` to a shape), so the shape rule says first how large the
    # outputs are; it is asked only where they can be too large, for most nodes are too small to matter.
    most = min(limit, LIMIT) if grows else limit
    if grows or _bound(arrays) > limit:
        rule = find_rule(STANDARD, op_type, op.version)
        if rule is None or any(shape is None or size_of(shape) > most for shape in rule(op)):
            return None
    try:
        result = function(op, arrays)
    except (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError, Unresolved, Contradiction):
        return None
    if isinstance(result, list):
        return result
    return None if result is None else [np.asarray(result)]


def _bound(arrays: list[Any]) -> int:
    """More than an operation that does not grow can return: the product of the sizes of its inputs."""
    bound = 1
    for array in arrays:
        if array is not None and array.size > 1:
            bound *= array.size
    return bound


def _elementwise(function: Callable[..., Any]) -> Fold:
    return lambda op, arrays: function(*arrays)


def _chain(function: Callable[[Any, Any], Any]) -> Fold:
    return lambda op, arrays: functools.reduce(function, arrays)


def divide(left: Array, right: Array) -> Array:
    """C division: integers round toward zero."""
    if left.dtype.kind not in "iu":
        return np.asarray(left / right)
    if not np.all(right):
        raise ZeroDivisionError
    quotient = np.asarray(left // right)
    return np.asarray(quotient + ((quotient < 0) & (quotient * right != left)), left.dtype)


def power(base: Array, exponent: Array) -> Array:
    """The power in the type of the base."""
    return np.asarray(np.power(base, exponent)).astype(base.dtype)


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Abs": np.abs,
    "Add": np.add,
    "And": np.logical_and,
    "Ceil": np.ceil,
    "Cos": np.cos,
    "Div": divide,
    "Equal": np.equal,
    "Exp": np.exp,
    "Floor": np.floor,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Identity": np.asarray,
    "IsNaN": np.isnan,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Log": np.log,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Not": np.logical_not,
    "Or": np.logical_or,
    "Pow": power,
    "Reciprocal": np.reciprocal,
    "Round": np.round,
    "Sign": np.sign,
    "Sin": np.sin,
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
    "Where": np.where,
    "Xor": np.logical_xor,
}
for _name, _function in _ELEMENTWISE.items():
    FOLDS.enter(_elementwise(_function), _name)
for _name, _function in {"Max": np.maximum, "Min": np.minimum, "Sum": np.add}.items():
    FOLDS.enter(_chain(_function), _name)


@folds("Mod")
def mod(op: ShapeNode, arrays: list[Any]) -> Any:
    """The remainder with the sign of the divisor, or of the dividend with fmod."""
    if arrays[0].dtype.kind in "iu" and not np.all(arrays[1]):
        return None
    return np.fmod(*arrays) if op.attr("fmod", 0) else np.mod(*arrays)


@folds("IsInf")
def is_inf(op: ShapeNode, arrays: list[Any]) -> Any:
    """Infinite, of the signs asked for."""
    plus, minus = op.attr("detect_positive", 1), op.attr("detect_negative", 1)
    return (np.isposinf(arrays[0]) & bool(plus)) | (np.isneginf(arrays[0]) & bool(minus))


@folds("Clip")
def clip(op: ShapeNode, arrays: list[Any]) -> Any:
    """Limits from inputs or (before opset 11) attributes."""
    data = arrays[0]
    low, high = (*arrays[1:], None, None)[:2]
    low, high = op.attr("min", low), op.attr("max", high)
    data = data if low is None else np.maximum(data, np.asarray(low, data.dtype))
    return data if high is None else np.minimum(data, np.asarray(high, data.dtype))


_CASTS = frozenset(
    {ir.DataType.BOOL, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE}
    | {ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64}
    | {ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64}
)


@folds("Cast")
def cast(op: ShapeNode, arrays: list[Any]) -> Any:
    """Between the types that shape arithmetic uses."""
    to = op.attr("to")
    kind = ir.DataType[to] if isinstance(to, str) else ir.DataType(to)
    return arrays[0].astype(kind.numpy()) if kind in _CASTS else None


@folds("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(op: ShapeNode, arrays: list[Any]) -> Any:
    """All elements in the shape that the shape rule finds."""
    rule = find_rule(STANDARD, op.kind, op.version)
    shape = rule(op)[0] if rule is not None else None
    return None if shape is None else arrays[0].reshape(shape)


@folds("Transpose")
def transpose(op: ShapeNode, arrays: list[Any]) -> Any:
    """By perm, or turned around."""
    return arrays[0].transpose(op.attr("perm"))


@folds("Concat")
def concat(op: ShapeNode, arrays: list[Any]) -> Any:
    """Along the axis."""
    return np.concatenate(arrays, op.attr("axis", 1))


@folds("Split")
def split(op: ShapeNode, arrays: list[Any]) -> Any:
    """At the bounds that the shape rule finds."""
    axis, sizes = split_sizes(op)
    return np.split(arrays[0], split_bounds(sizes), axis)


@folds("Slice")
def slice_(op: ShapeNode, arrays: list[Any]) -> Any:
    """One Python slice per axis."""
    return arrays[0][tuple(slices(op))]


@folds("Gather")
def gather(op: ShapeNode, arrays: list[Any]) -> Any:
    """Elements along an axis."""
    return np.take(arrays[0], arrays[1], op.attr("axis", 0))


@folds("GatherElements")
def gather_elements(op: ShapeNode, arrays: list[Any]) -> Any:
    """One element per element of the index."""
    return np.take_along_axis(arrays[0], arrays[1], op.attr("axis", 0))


@folds("GatherND")
def gather_nd(op: ShapeNode, arrays: list[Any]) -> Any:
    """Slices by index tuples."""
    if op.attr("batch_dims", 0):
        return None
    return arrays[0][tuple(np.moveaxis(arrays[1], -1, 0))]


@folds("ScatterND")
def scatter_nd(op: ShapeNode, arrays: list[Any]) -> Any:
    """A copy with slices replaced."""
    if op.attr("reduction", "none") != "none":
        return None
    result = arrays[0].copy()
    result[tuple(np.moveaxis(arrays[1], -1, 0))] = arrays[2]
    return result


@folds("ScatterElements", "Scatter")
def scatter_elements(op: ShapeNode, arrays: list[Any]) -> Any:
    """A copy with elements replaced."""
    if op.attr("reduction", "none") != "none":
        return None
    result = arrays[0].copy()
    np.put_along_axis(result, arrays[1], arrays[2], op.attr("axis", 0))
    return result


@folds("Expand", "Tile", "ConstantOfShape")
def grow(op: ShapeNode, arrays: list[Any]) -> Any:
    """Repeated elements, or one constant."""
    if op.kind == "Tile":
        return np.tile(arrays[0], arrays[1]) if op.version >= 6 else None
    if op.kind == "Expand":
        return arrays[0] * np.ones(tuple(op.values(1)), arrays[0].dtype)
    value = op.attr("value")
    element = np.float32(0) if value is None else value.numpy().ravel()[0]
    return np.full(tuple(op.values(0)), element)


@folds("Pad")
def pad(op: ShapeNode, arrays: list[Any]) -> Any:
    """Constant padding of all axes."""
    pads = op.attr_or_values("pads", 1)
    if (
        pads is None
        or min(pads) < 0
        or op.attr("mode", "constant") not in ("constant", b"constant")
        or op.has(3)
    ):
        return None
    half = len(pads) // 2
    fill = arrays[2].ravel()[0] if op.has(2) else op.attr("value", 0)
    return np.pad(arrays[0], list(zip(pads[:half], pads[half:], strict=True)), constant_values=fill)


@folds("Range")
def range_(op: ShapeNode, arrays: list[Any]) -> Any:
    """start + i * delta."""
    start, limit, delta = (array.ravel()[0] for array in arrays)
    count = max(0, math.ceil((limit - start) / delta))
    return (start + np.arange(count, dtype=start.dtype) * delta).astype(start.dtype)


@folds("OneHot")
def one_hot(op: ShapeNode, arrays: list[Any]) -> Any:
    """values[1] where the index is, values[0] elsewhere."""
    index, depth, (off, on) = arrays[0], int(arrays[1].ravel()[0]), arrays[2]
    hot = np.expand_dims(index, -1) % depth == np.arange(depth)
    return np.moveaxis(np.where(hot, on, off), -1, op.attr("axis", -1)).astype(arrays[2].dtype)


@folds("EyeLike")
def eye_like(op: ShapeNode, arrays: list[Any]) -> Any:
    """Ones on a diagonal."""
    to = op.attr("dtype")
    dtype = arrays[0].dtype if to is None else ir.DataType(to).numpy()
    rows, columns = arrays[0].shape
    return np.eye(rows, columns, k=op.attr("k", 0), dtype=dtype)


@folds("NonZero")
def non_zero(op: ShapeNode, arrays: list[Any]) -> Any:
    """Indices [rank, count]."""
    return np.array(np.nonzero(np.atleast_1d(arrays[0])), np.int64)


@folds("CumSum")
def cum_sum(op: ShapeNode, arrays: list[Any]) -> Any:
    """Running sums along an axis."""
    data, axis = arrays[0], int(arrays[1].ravel()[0])
    data = np.flip(data, axis) if op.attr("reverse", 0) else data
    result = np.cumsum(data, axis, dtype=data.dtype)
    result = result - data if op.attr("exclusive", 0) else result
    return np.flip(result, axis) if op.attr("reverse", 0) else result


@folds("Trilu")
def trilu(op: ShapeNode, arrays: list[Any]) -> Any:
    """The upper or lower triangle."""
    k = int(arrays[1].ravel()[0]) if op.has(1) else 0
    return np.triu(arrays[0], k) if op.attr("upper", 1) else np.tril(arrays[0], k)


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
    "ReduceSum": np.sum,
}


@folds("ReduceMean", *_REDUCTIONS)
def reduce(op: ShapeNode, arrays: list[Any]) -> Any:
    """In the type of the input."""
    data, axes, keep = arrays[0], tuple(reduced_axes(op)), bool(op.attr("keepdims", 1))
    if op.kind == "ReduceMean":
        return data.mean(axes, keepdims=keep, dtype=data.dtype) if data.dtype.kind == "f" else None
    return np.asarray(_REDUCTIONS[op.kind](data, axis=axes, keepdims=keep)).astype(data.dtype)
