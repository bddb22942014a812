"""Quantization: integers permute with their scales and zero points; nothing leaves the integer grid."""

from __future__ import annotations

from onnxcanon.symmetry.labels import Labelled
from onnxcanon.symmetry.movement import Movement
from onnxcanon.symmetry.rules.normalization import lined
from onnxcanon.symmetry.rules.registry import Barrier, Op, Outputs, register


def _per_axis(t: Movement, op: Op, i: int, x: Labelled) -> Labelled | None:
    """Scale or zero point i: one number, or one per position of the quantization axis."""
    if not op.has(i):
        return None
    v = op.x(i)
    if op.attr("block_size", 0):
        raise Barrier("block-wise quantization")
    if all(n == 1 for n in v.shape):
        t.fix_all(v, "one scale for the whole tensor")
        return None
    if v.rank != 1:
        raise Barrier("block-wise quantization")
    return lined(t, v, op.axis(1, x.rank), x.rank)


@register("DequantizeLinear")
def dequantize(t: Movement, op: Op) -> Outputs:
    """x int, scale, zero point -> (x - zero point) · scale."""
    x = op.x(0)
    scale, zero_point = _per_axis(t, op, 1, x), _per_axis(t, op, 2, x)
    if scale is None and zero_point is None:
        y = t.copy(x)
        y.zero = x.zero and (not op.has(2) or op.x(2).zero)
        return y
    if zero_point is not None:
        x = t.elementwise([x, zero_point])
    elif op.has(2) and not op.x(2).zero:
        x = t.copy(x)
        x.zero = False
    return x if scale is None else t.elementwise([x, scale], product=True)


@register("QuantizeLinear")
def quantize(t: Movement, op: Op) -> Outputs:
    """x float, scale, zero point -> round(x / scale) + zero point, saturated: no scale, no sign."""
    x = t.stop(op.x(0))
    for i in (1, 2):
        v = _per_axis(t, op, i, x)
        if v is not None:
            x = t.elementwise([x, t.stop(v)])
    return x


@register("DynamicQuantizeLinear")
def dynamic_quantize(t: Movement, op: Op) -> Outputs:
    """x -> y, one scale and zero point from the extrema of x."""
    return [t.stop(op.x(0)), None, None]
