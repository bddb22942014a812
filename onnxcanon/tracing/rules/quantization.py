"""Quantization: integers permute with their scales and zero points; nothing leaves the integer grid.

A scale or zero point is one number, or one per position of an axis, or one per block of positions: blocks
then move whole, and inside a block positions are as free as the operators around leave them.
"""

from __future__ import annotations

import numpy as np

from onnxcanon.graph.operators import BOTH
from onnxcanon.tracing.abstract_value import AbstractValue
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.normalization import lined
from onnxcanon.tracing.rules.registry import Outputs, SymmetryNode, Unsupported, register


def one_number(op: SymmetryNode, *indices: int) -> None:
    """Scales and zero points that have to be single numbers: with more of them the rule does not hold."""
    for i in indices:
        if op.has(i) and any(n != 1 for n in op.x(i).shape):
            raise Unsupported("a scale or zero point of more than one number")


def per_position(ctx: Context, op: SymmetryNode, i: int, y: AbstractValue, axis: int) -> AbstractValue:
    """y with the scales or zero points of input i: one number, one per position of `axis`, or broadcasting
    against y. They permute along and do not scale."""
    if not op.has(i):
        return y
    v = op.x(i)
    if all(n == 1 for n in v.shape):
        return y
    if v.rank == 1 and axis >= 0:
        v = lined(ctx, v, axis, y.rank)
    elif v.rank != y.rank:
        raise Unsupported("scales or zero points of an unusual shape")
    if np.broadcast_shapes(v.shape, y.shape) != y.shape:
        raise Unsupported("scales or zero points that do not fit")
    return ctx.stop(ctx.elementwise([y, v]))


def _per_axis(ctx: Context, op: SymmetryNode, i: int, x: AbstractValue) -> AbstractValue | None:
    """Scale or zero point i: one number, or one per position of the quantization axis."""
    if not op.has(i):
        return None
    v = op.x(i)
    if all(n == 1 for n in v.shape):
        ctx.fix_all(v, "one scale for the whole tensor")
        return None
    if v.rank != 1:
        raise Unsupported("scales of an unusual shape")
    return lined(ctx, v, op.axis(1, x.rank), x.rank)


def _in_blocks(ctx: Context, op: SymmetryNode, x: AbstractValue) -> AbstractValue | None:
    """x[…, K, …] with a scale and zero point [K/block, …] each; None where they are not by blocks."""
    block = int(op.attr("block_size", 0))
    if not block or op.x(1).rank != x.rank:
        return None
    (a, b), axis = op.in_shapes(0), op.axis(1, x.rank)
    if a[axis] % block or b[axis] % block:
        raise Unsupported("quantized in blocks of which the last is not full")

    def cut(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:axis], shape[axis] // block, block, *shape[axis + 1 :])

    y = ctx.reshape(x, cut(a), b, cut(b))
    for i in (2, 1):
        if op.has(i):
            v = ctx.insert(op.x(i), axis + 1)
            y = ctx.elementwise([y, v if i == 1 else ctx.stop(v)], product=i == 1)
    return ctx.reshape(y, a, cut(b), b)


@register("DequantizeLinear", domain=BOTH)
def dequantize(ctx: Context, op: SymmetryNode) -> Outputs:
    """x int, scale, zero point -> (x - zero point) · scale."""
    x = op.x(0)
    blocks = _in_blocks(ctx, op, x)
    if blocks is not None:
        return blocks
    scale, zero_point = _per_axis(ctx, op, 1, x), _per_axis(ctx, op, 2, x)
    if scale is None and zero_point is None:
        y = ctx.copy(x)
        y.zero = x.zero and (not op.has(2) or op.x(2).zero)
        return y
    if zero_point is not None:
        x = ctx.elementwise([x, zero_point])
    elif op.has(2) and not op.x(2).zero:
        x = ctx.copy(x)
        x.zero = False
    return x if scale is None else ctx.elementwise([x, scale], product=True)


@register("QuantizeLinear", domain=BOTH)
def quantize(ctx: Context, op: SymmetryNode) -> Outputs:
    """x float, scale, zero point -> round(x / scale) + zero point, saturated: no scale, no sign."""
    x = ctx.stop(op.x(0))
    blocks = _in_blocks(ctx, op, x)
    if blocks is not None:
        return ctx.stop(blocks)
    for i in (1, 2):
        v = _per_axis(ctx, op, i, x)
        if v is not None:
            x = ctx.elementwise([x, ctx.stop(v)])
    return x


@register("DynamicQuantizeLinear")
def dynamic_quantize(ctx: Context, op: SymmetryNode) -> Outputs:
    """x -> y, one scale and zero point from the extrema of x."""
    return [ctx.stop(op.x(0)), None, None]
