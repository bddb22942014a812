"""How each operator that rounds is written without: one rule for each family (see `model`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcanon.graph.element_types import FLOATS
from onnxcanon.graph.nodes import attribute, given
from onnxcanon.graph.operators import BOTH
from onnxcanon.normalform.engine import Outputs, Rewriting, Rules
from onnxcanon.verifying.smooth.scales import (
    Unroundable,
    along,
    arithmetic,
    dequantized,
    number,
    one_by_position,
    quantized,
    rank,
    shifted,
)

SMOOTH_RULES = Rules("smooth models", ("rules",))
"""From operators that round to others, in the operator set of the model."""

_BYTES = (ir.DataType.INT8, ir.DataType.UINT8)

ENTRIES: dict[str, tuple[int, ...] | None] = {
    "Abs": None,
    "Add": None,
    "Clip": None,
    "Concat": None,
    "DepthToSpace": None,
    "Div": None,
    "Expand": (0,),
    "Flatten": None,
    "Gather": (0,),
    "GlobalMaxPool": None,
    "Identity": None,
    "Max": None,
    "MaxPool": None,
    "Min": None,
    "Mul": None,
    "Neg": None,
    "Pad": (0, 2),
    "ReduceMax": (0,),
    "ReduceMin": (0,),
    "ReduceSum": (0,),
    "Relu": None,
    "Reshape": (0,),
    "Resize": (0,),
    "Slice": (0,),
    "SpaceToDepth": None,
    "Split": (0,),
    "Squeeze": (0,),
    "Sub": None,
    "Tile": (0,),
    "Transpose": None,
    "Unsqueeze": (0,),
    "Where": (1, 2),
}  # fmt: skip - a table of some thirty operators, which one line each would make a page long
"""Operators that take floats in place of integers, and which inputs these are (None: all)."""


def _options(node: ir.Node, *without: str) -> dict[str, Any]:
    """The attributes of a node, but for some."""
    return {name: value for name, value in node.attributes.items() if name not in without}


def _inputs(node: ir.Node, count: int) -> list[Any]:
    """The inputs, None where they are left out; those that the operator requires are there."""
    return [given(node, k) for k in range(count)]


@SMOOTH_RULES(*ENTRIES)
def entries(g: Rewriting, node: ir.Node) -> Outputs:
    """An operator that takes either type; the constant of an Identity stays a constant."""
    if node.op_type == "Identity" and g.is_constant(node.inputs[0]):
        return node.inputs[0]
    places = ENTRIES[node.op_type] or range(len(node.inputs))
    if any(value in g.retyped for k, value in enumerate(node.inputs) if k not in places):
        raise Unroundable(f"{node.op_type} '{node.name}' reads rounded values as indices")
    if g.is_float(node.outputs[0]) or g.retyped.isdisjoint(node.inputs):
        return None
    numbers = enumerate(node.inputs)
    return g.renewed(
        node, inputs=[number(g, value) if value and k in places else value for k, value in numbers]
    )


@SMOOTH_RULES("Shape", "Size", "ConstantOfShape", domain=BOTH)
def shape(g: Rewriting, node: ir.Node) -> Outputs:
    """Reads no entries (ConstantOfShape: a shape, which nothing rounded can be)."""
    return None


@SMOOTH_RULES("Round")
def round_(g: Rewriting, node: ir.Node) -> Outputs:
    """X -> X."""
    return g.node("Identity", node.inputs[0])


@SMOOTH_RULES("Cast")
def cast(g: Rewriting, node: ir.Node) -> Outputs:
    """Between integers and floats: nothing is cut off; a constant is computed."""
    source, to = node.inputs[0], ir.DataType(attribute(node, "to"))
    array = g.array(source)
    if array is not None and to != ir.DataType.STRING:
        return g.constant(array.astype(to.numpy()), source)
    rounded = source in g.retyped
    if rounded and to == ir.DataType.BOOL:
        raise Unroundable(f"Cast '{node.name}' reads rounded values as truth")
    is_integer = source is not None and source.dtype is not None and not g.is_float(source)
    if (rounded and to not in FLOATS) or (to in _BYTES and not is_integer):
        return g.node("Cast", source, attributes={"to": ir.DataType.FLOAT.value})
    return None


# -- the standard ------------------------------------------------------------------------------------------


@SMOOTH_RULES("QuantizeLinear", domain=BOTH)
def quantize(g: Rewriting, node: ir.Node) -> Outputs:
    """x, scale, zero point -> x / scale + zero point."""
    x, scale, zero = _inputs(node, 3)
    axis, block = attribute(node, "axis", 1), attribute(node, "block_size", 0)
    if block:
        scale, zero = (one_by_position(g, value, axis, block) for value in (scale, zero))
    return quantized(g, x, scale, zero, axis)


@SMOOTH_RULES("DequantizeLinear", domain=BOTH)
def dequantize(g: Rewriting, node: ir.Node) -> Outputs:
    """q, scale, zero point -> (q - zero point) · scale; integers that the caller gives stay as they are."""
    x, scale, zero = _inputs(node, 3)
    axis, block = attribute(node, "axis", 1), attribute(node, "block_size", 0)
    if x not in g.retyped and not all(g.is_constant(value) for value in node.inputs if value):
        return None
    if block:
        array = g.array(x)
        size = None if array is None else array.shape[axis]
        scale, zero = (one_by_position(g, value, axis, block, size) for value in (scale, zero))
    return dequantized(g, x, scale, zero, axis)


@SMOOTH_RULES("DynamicQuantizeLinear", domain=BOTH)
def dynamic(g: Rewriting, node: ir.Node) -> Outputs:
    """x -> x, 1, 0."""
    one, zero = (g.constant(np.array(value, np.float32)) for value in (1, 0))
    return [g.node("Identity", node.inputs[0]), one, zero]


@SMOOTH_RULES("ConvInteger", domain=BOTH)
def conv_integer(g: Rewriting, node: ir.Node) -> Outputs:
    """X, W, x_zero, w_zero -> the convolution of what they stand for."""
    x, w, xz, wz = _inputs(node, 4)
    return g.node("Conv", shifted(g, x, xz), shifted(g, w, wz, 0), attributes=node.attributes)


@SMOOTH_RULES("MatMulInteger", "MatMulInteger16", domain=BOTH)
def matmul_integer(g: Rewriting, node: ir.Node) -> Outputs:
    """A, B, a_zero, b_zero -> the product of what they stand for."""
    a, b, az, bz = _inputs(node, 4)
    return g.node("MatMul", shifted(g, a, az, -2), shifted(g, b, bz, -1))


@SMOOTH_RULES("QLinearConv", domain=BOTH)
def quantized_conv(g: Rewriting, node: ir.Node) -> Outputs:
    """X, x_scale, x_zero, W, w_scale, w_zero, y_scale, y_zero, B -> the convolution, bias · both scales."""
    x, xs, xz, w, ws, wz, ys, yz, bias = _inputs(node, 9)
    last, axes = attribute(node, "channels_last", 0), rank(g, w)
    inputs = [_first(g, dequantized(g, x, xs, xz), axes, last), dequantized(g, w, ws, wz, 0)]
    if bias is not None:
        scale = arithmetic(g, "Mul", along(g, xs, None, x), along(g, ws, None, w))
        inputs.append(arithmetic(g, "Mul", number(g, bias), scale))
    y = g.node("Conv", *inputs, attributes=_options(node, "channels_last"))
    return quantized(g, _last(g, y, axes, last), ys, yz)


def _first(g: Rewriting, x: ir.Value, axes: int, last: bool) -> ir.Value:
    """Channels, if they stand last, after the batch."""
    perm = [0, axes - 1, *range(1, axes - 1)]
    return g.node("Transpose", x, attributes={"perm": perm}) if last else x


def _last(g: Rewriting, x: ir.Value, axes: int, last: bool) -> ir.Value:
    return g.node("Transpose", x, attributes={"perm": [0, *range(2, axes), 1]}) if last else x


@SMOOTH_RULES("QLinearMatMul", domain=BOTH)
def quantized_matmul(g: Rewriting, node: ir.Node) -> Outputs:
    """A, a_scale, a_zero, B, b_scale, b_zero, y_scale, y_zero -> the product."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = _inputs(node, 8)
    left, right = dequantized(g, a, a_scale, a_zero, -2), dequantized(g, b, b_scale, b_zero, -1)
    return quantized(g, g.node("MatMul", left, right), y_scale, y_zero, -2)


# -- onnxruntime -------------------------------------------------------------------------------------------


@SMOOTH_RULES("MatMulIntegerToFloat", "DynamicQuantizeMatMul", domain=BOTH)
def matmul_to_float(g: Rewriting, node: ir.Node) -> Outputs:
    """A, B, a_scale, b_scale, a_zero, b_zero, bias; or A, B, b_scale, b_zero, bias -> floats."""
    if node.op_type == "DynamicQuantizeMatMul":
        a, b, b_scale, b_zero, bias = _inputs(node, 5)
    else:
        a, b, a_scale, b_scale, a_zero, b_zero, bias = _inputs(node, 7)
        a = dequantized(g, a, a_scale, a_zero)
    y = g.node("MatMul", a, dequantized(g, b, b_scale, b_zero, -1))
    return y if bias is None else g.node("Add", y, bias)


@SMOOTH_RULES("QGemm", domain=BOTH)
def quantized_gemm(g: Rewriting, node: ir.Node) -> Outputs:
    """A, a_scale, a_zero, B, b_scale, b_zero, C, y_scale, y_zero -> alpha · scales · (A' · B' + C)."""
    a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero = _inputs(node, 9)
    column = -2 if attribute(node, "transB") else -1
    left, right = shifted(g, a, a_zero), shifted(g, b, b_zero, column)
    addend = [] if c is None else [number(g, c)]
    y = g.node("Gemm", left, right, *addend, attributes=_options(node, "alpha"))
    scale = arithmetic(g, "Mul", along(g, a_scale, None, a), along(g, b_scale, None, b))
    alpha = g.constant(np.array(attribute(node, "alpha", 1.0), np.float32))
    y = g.node("Mul", y, arithmetic(g, "Mul", scale, alpha))
    return y if y_scale is None else quantized(g, y, y_scale, y_zero)


@SMOOTH_RULES("QLinearAdd", "QLinearMul", domain=BOTH)
def quantized_binary(g: Rewriting, node: ir.Node) -> Outputs:
    """A, a_scale, a_zero, B, b_scale, b_zero, c_scale, c_zero -> A + B or A · B."""
    a, a_scale, a_zero, b, b_scale, b_zero, scale, zero = _inputs(node, 8)
    left, right = dequantized(g, a, a_scale, a_zero), dequantized(g, b, b_scale, b_zero)
    return quantized(g, g.node(node.op_type[7:], left, right), scale, zero)


@SMOOTH_RULES("QLinearWhere", domain=BOTH)
def quantized_where(g: Rewriting, node: ir.Node) -> Outputs:
    """condition, X, x_scale, x_zero, Y, y_scale, y_zero, z_scale, z_zero -> X or Y."""
    condition, a, a_scale, a_zero, b, b_scale, b_zero, scale, zero = _inputs(node, 9)
    left, right = dequantized(g, a, a_scale, a_zero), dequantized(g, b, b_scale, b_zero)
    return quantized(g, g.node("Where", condition, left, right), scale, zero)


@SMOOTH_RULES("QLinearConcat", domain=BOTH)
def quantized_concat(g: Rewriting, node: ir.Node) -> Outputs:
    """y_scale, y_zero, X1, scale1, zero1, X2, … -> joined along an axis."""
    scale, zero, *others = _inputs(node, len(node.inputs))
    triples = zip(others[::3], others[1::3], others[2::3], strict=True)
    parts = [dequantized(g, *triple) for triple in triples]
    return quantized(g, g.node("Concat", *parts, attributes=node.attributes), scale, zero)


@SMOOTH_RULES("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", domain=BOTH)
def quantized_activation(g: Rewriting, node: ir.Node) -> Outputs:
    """X, x_scale, x_zero, y_scale, y_zero -> f(X)."""
    x, x_scale, x_zero, y_scale, y_zero = _inputs(node, 5)
    if (attribute(node, "opset", g.target) < 13) != (g.target < 13):
        raise Unroundable(f"{node.op_type} '{node.name}' is of another version than the model")
    y = g.node(node.op_type[7:], dequantized(g, x, x_scale, x_zero), attributes=_options(node, "opset"))
    return quantized(g, y, y_scale, y_zero)


@SMOOTH_RULES("QLinearAveragePool", "QLinearGlobalAveragePool", domain=BOTH)
def quantized_pool(g: Rewriting, node: ir.Node) -> Outputs:
    """X, x_scale, x_zero, y_scale, y_zero -> means over image positions."""
    x, x_scale, x_zero, y_scale, y_zero = _inputs(node, 5)
    last, kernel = attribute(node, "channels_last", 0), attribute(node, "kernel_shape")
    axes = len(kernel) + 2 if kernel else rank(g, x) if last else 0
    y = _first(g, dequantized(g, x, x_scale, x_zero), axes, last)
    y = g.node(node.op_type[7:], y, attributes=_options(node, "channels_last"))
    return quantized(g, _last(g, y, axes, last), y_scale, y_zero)


@SMOOTH_RULES("NhwcMaxPool", domain=BOTH)
def max_pool(g: Rewriting, node: ir.Node) -> Outputs:
    """X[N, *S, C] -> maxima over windows."""
    axes = len(attribute(node, "kernel_shape")) + 2
    x = _first(g, number(g, _inputs(node, 1)[0]), axes, True)
    return _last(g, g.node("MaxPool", x, attributes=node.attributes), axes, True)


@SMOOTH_RULES("MatMulNBits", domain=BOTH)
def packed_matmul(g: Rewriting, node: ir.Node) -> Outputs:
    """Weights are packed, activations are floats: those are not to be rounded on the way."""
    if not g.retyped.isdisjoint(node.inputs):
        raise Unroundable(f"MatMulNBits '{node.name}' reads rounded values")
    node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", 1)
    return None


@SMOOTH_RULES("DynamicQuantizeLSTM", domain=BOTH)
def quantized_lstm(g: Rewriting, node: ir.Node) -> Outputs:
    """X, int8 W[D, I, 4·H], R[D, H, 4·H], B, lengths, states, peepholes, scales and zero points -> LSTM."""
    x, w, r, b, lengths, hidden, cell, peepholes, *steps = _inputs(node, 12)
    weights = []
    for weight, *step in ((w, *steps[:2]), (r, *steps[2:])):
        scale, zero = (_by_gate(g, value) for value in step)
        whole = dequantized(g, weight, scale, zero, 0)
        weights.append(g.node("Transpose", whole, attributes={"perm": [0, 2, 1]}))
    inputs = [number(g, x), *weights, b, lengths, hidden, cell, peepholes]
    for value in node.outputs:
        value.dtype = ir.DataType.FLOAT  # as before; without a schema only that of the first is inferred
    return g.nodes("LSTM", *inputs, attributes=node.attributes, outputs=len(node.outputs))


def _by_gate(g: Rewriting, value: ir.Value) -> ir.Value:
    """A scale or zero point [D, 4·H] as [D, 1, 4·H]; [D] as it is."""
    array = g.array(value)
    return value if array is None or array.ndim == 1 else g.constant(array[:, None], value)
