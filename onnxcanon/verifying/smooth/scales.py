"""Scales and zero points in floats: the steps that all rules of smooth models are written in.

A value of the graph that was an integer and is a float by now is in `Rewriting.retyped`.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcanon.arrays import Array
from onnxcanon.normalform.engine import Rewriting

_FUNCTIONS = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}


class Unroundable(Exception):
    """Something in the model has no form without rounding; the message says what."""


def rank(g: Rewriting, value: ir.Value) -> int:
    """How many axes a value has."""
    array = g.array(value)
    axes = g.rank(value) if array is None else array.ndim
    if axes is None:
        raise Unroundable(f"the shape of {value.name!r} is not known")
    return axes


def number(g: Rewriting, value: ir.Value) -> ir.Value:
    """A value as a float."""
    array = g.array(value)
    if value in g.retyped or (array is not None and g.is_float(value)):
        return value
    if array is None:
        return g.node("Cast", value, attributes={"to": ir.DataType.FLOAT.value})
    return g.constant(array.astype(np.float32), value)


def arithmetic(g: Rewriting, op_type: str, a: ir.Value, b: ir.Value) -> ir.Value:
    """a op b, computed here where both are constants."""
    x, y = g.array(a), g.array(b)
    if x is None or y is None:
        return g.node(op_type, a, b)
    return g.constant(np.asarray(_FUNCTIONS[op_type](x, y, dtype=np.result_type(x, y))), a, b)


def along(g: Rewriting, value: ir.Value, axis: int | None, x: ir.Value) -> ir.Value:
    """A scale or zero point as a float that broadcasts against x: one for each position of `axis`."""
    value = number(g, value)
    array = g.array(value)
    if array is None:
        return value
    if array.dtype != np.float32:
        raise Unroundable(f"it computes in {array.dtype}")
    if array.size == 1:
        return value if array.ndim == 0 else g.constant(array.reshape(()), value)
    if array.ndim != 1 or axis is None:
        return value
    after = -axis - 1 if axis < 0 else rank(g, x) - axis - 1
    return g.constant(array.reshape(-1, *[1] * after), value) if after else value


def shifted(g: Rewriting, x: ir.Value, zero: ir.Value | None, axis: int | None = None) -> ir.Value:
    """x - zero point."""
    return number(g, x) if zero is None else arithmetic(g, "Sub", number(g, x), along(g, zero, axis, x))


def dequantized(
    g: Rewriting, x: ir.Value, scale: ir.Value, zero: ir.Value | None = None, axis: int | None = None
) -> ir.Value:
    """(x - zero point) · scale."""
    return arithmetic(g, "Mul", shifted(g, x, zero, axis), along(g, scale, axis, x))


def quantized(
    g: Rewriting, x: ir.Value, scale: ir.Value, zero: ir.Value | None, axis: int | None = None
) -> ir.Value:
    """x / scale + zero point."""
    y = g.node("Div", x, along(g, scale, axis, x))
    return y if zero is None else g.node("Add", y, along(g, zero, axis, x))


def one_by_position(
    g: Rewriting, value: ir.Value | None, axis: int, block: int, size: int | None = None
) -> ir.Value | None:
    """A number for each block as one for each of `size` positions; without it the last block is full."""
    if value is None:
        return None
    array: Array | None = g.array(value)
    if array is None:
        raise Unroundable(f"the numbers {value.name!r} for blocks are computed")
    wide = np.repeat(array.astype(np.float32), block, axis)
    return g.constant(wide if size is None else wide.take(range(size), axis), value)
