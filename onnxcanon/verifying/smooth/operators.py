"""How each operator that rounds is written without: one function for each family (see `unrounded`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from onnxcanon.verifying.smooth.rewriter import Rewriter, Unroundable, unrounds

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_BYTES = (TensorProto.INT8, TensorProto.UINT8)

PASSED: dict[str, tuple[int, ...] | None] = {
    "Abs": None, "Add": None, "Clip": None, "Concat": None, "DepthToSpace": None, "Div": None, "Expand": (0,),
    "Flatten": None, "Gather": (0,), "GlobalMaxPool": None, "Identity": None, "Max": None, "MaxPool": None,
    "Min": None, "Mul": None, "Neg": None, "Pad": (0, 2), "ReduceMax": (0,), "ReduceMin": (0,),
    "ReduceSum": (0,), "Relu": None, "Reshape": (0,), "Resize": (0,), "Slice": (0,), "SpaceToDepth": None,
    "Split": (0,), "Squeeze": (0,), "Sub": None, "Tile": (0,), "Transpose": None, "Unsqueeze": (0,),
    "Where": (1, 2),
}  # fmt: skip
"""Operators that take floats in place of integers, and which inputs these are (None: all)."""


def attributes(node: onnx.NodeProto, *names: str) -> dict[str, Any]:
    """The named attributes of a node, those that it has; all of them where none are named."""
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {name: value for name, value in found.items() if not names or name in names}


def arguments(node: onnx.NodeProto, count: int) -> list[str]:
    """The inputs, the last ones empty where they are not given."""
    return [*node.input, *[""] * (count - len(node.input))]


@unrounds(*PASSED)
def passed(rw: Rewriter, node: onnx.NodeProto) -> None:
    """An operator that takes either type; a constant stays a constant."""
    source = rw.constant(node.input[0]) if node.op_type == "Identity" else None
    if source is not None:
        rw.make(source, node.output[0])
        return
    which = PASSED[node.op_type]
    data = [i for i, name in enumerate(node.input) if name and (which is None or i in which)]
    others = [name for i, name in enumerate(node.input) if i not in data]
    if not rw.floats.isdisjoint(others):
        raise Unroundable(f"{node.op_type} '{node.name}' reads rounded values as indices")
    if any(node.input[i] in rw.floats for i in data):
        for i in data:
            node.input[i] = rw.number(node.input[i])
        rw.floats.update(node.output)
    rw.keep(node)


@unrounds("Shape", "Size", "ConstantOfShape")
def shape(rw: Rewriter, node: onnx.NodeProto) -> None:
    """Reads no entries (ConstantOfShape: a shape, which nothing rounded can be)."""
    rw.keep(node)


@unrounds("Round")
def kept(rw: Rewriter, node: onnx.NodeProto) -> None:
    """Rounding spelled out."""
    rw.emit("Identity", node.input, node.output[0])


@unrounds("Cast")
def cast(rw: Rewriter, node: onnx.NodeProto) -> None:
    """Between integers and floats: nothing is cut off; a constant is computed."""
    (source,), (out,), to = node.input, node.output, attributes(node)["to"]
    constant = rw.constant(source)
    if constant is not None and to != TensorProto.STRING:
        rw.make(constant.astype(onnx.helper.tensor_dtype_to_np_dtype(to)), out)
    elif source in rw.floats and to in (*_FLOATS, TensorProto.BOOL):
        if to == TensorProto.BOOL:
            raise Unroundable(f"Cast '{node.name}' reads rounded values as truth")
        rw.keep(node)
    elif source in rw.floats or (to in _BYTES and not _is_integer(rw, source)):
        rw.floats.add(rw.emit("Cast", [source], out, to=TensorProto.FLOAT))
    else:
        rw.keep(node)


def _is_integer(rw: Rewriter, name: str) -> bool:
    """Whether a value is known to hold integers."""
    graph = rw.model.ir.graph
    for value in (*graph.inputs, *(v for node in graph for v in node.outputs)):
        if value.name == name:
            return value.dtype is not None and not value.dtype.is_floating_point()
    return False


# -- the standard ------------------------------------------------------------------------------------------


@unrounds("QuantizeLinear")
def quantize(rw: Rewriter, node: onnx.NodeProto) -> None:
    """x, scale, zero point -> x / scale + zero point."""
    x, scale, zero = arguments(node, 3)[:3]
    options = attributes(node)
    axis, block = options.get("axis", 1), options.get("block_size", 0)
    if block:
        scale, zero = (_spread(rw, name, axis, block) for name in (scale, zero))
    rw.quantized(x, scale, zero, node.output[0], axis)


@unrounds("DequantizeLinear")
def dequantize(rw: Rewriter, node: onnx.NodeProto) -> None:
    """q, scale, zero point -> (q - zero point) · scale; integers that the caller gives stay as they are."""
    x, scale, zero = arguments(node, 3)[:3]
    options = attributes(node)
    axis, block = options.get("axis", 1), options.get("block_size", 0)
    constants = [rw.constant(name) for name in (x, scale, zero) if name]
    if x not in rw.floats and any(c is None for c in constants):
        rw.keep(node)
        return
    if block:
        size = None if constants[0] is None else constants[0].shape[axis]
        scale, zero = (_spread(rw, name, axis, block, size) for name in (scale, zero))
    rw.dequantized(x, scale, zero, axis, node.output[0])


def _spread(rw: Rewriter, name: str, axis: int, block: int, size: int | None = None) -> str:
    """A number for each block as one for each of `size` positions; without it the last block is full."""
    if not name:
        return ""
    array = rw.constant(name)
    if array is None:
        raise Unroundable(f"the numbers {name!r} for blocks are computed")
    wide = np.repeat(array.astype(np.float32), block, axis)
    return rw.make(wide if size is None else wide.take(range(size), axis))


@unrounds("DynamicQuantizeLinear")
def dynamic(rw: Rewriter, node: onnx.NodeProto) -> None:
    """x -> x, 1, 0."""
    rw.emit("Identity", [node.input[0]], node.output[0])
    for out, value in zip(node.output[1:], (1.0, 0.0), strict=False):
        rw.make(np.array(value, np.float32), out)
    rw.floats.update(name for i, name in enumerate(node.output) if i != 1)


@unrounds("ConvInteger")
def conv_integer(rw: Rewriter, node: onnx.NodeProto) -> None:
    """X, W, x_zero, w_zero -> the convolution of what they stand for."""
    x, w, xz, wz = arguments(node, 4)
    out = node.output[0]
    rw.floats.add(rw.emit("Conv", [rw.shifted(x, xz), rw.shifted(w, wz, 0)], out, **attributes(node)))


@unrounds("MatMulInteger", "MatMulInteger16")
def matmul_integer(rw: Rewriter, node: onnx.NodeProto) -> None:
    """A, B, a_zero, b_zero -> the product of what they stand for."""
    a, b, az, bz = arguments(node, 4)
    rw.floats.add(rw.emit("MatMul", [rw.shifted(a, az, -2), rw.shifted(b, bz, -1)], node.output[0]))


@unrounds("QLinearConv")
def quantized_conv(rw: Rewriter, node: onnx.NodeProto) -> None:
    """X, x_scale, x_zero, W, w_scale, w_zero, y_scale, y_zero, B -> the convolution, bias · both scales."""
    x, xs, xz, w, ws, wz, ys, yz, bias = arguments(node, 9)
    options = attributes(node)
    last, rank = options.pop("channels_last", 0), rw.rank(w)
    inputs = [_first(rw, rw.dequantized(x, xs, xz), rank, last), rw.dequantized(w, ws, wz, 0)]
    if bias:
        scale = rw.arithmetic("Mul", rw.along(xs, None, x), rw.along(ws, None, w))
        inputs.append(rw.arithmetic("Mul", rw.number(bias), scale))
    rw.quantized(_last(rw, rw.emit("Conv", inputs, **options), rank, last), ys, yz, node.output[0])


def _first(rw: Rewriter, x: str, rank: int, last: bool) -> str:
    """Channels, if they stand last, after the batch."""
    return rw.emit("Transpose", [x], perm=[0, rank - 1, *range(1, rank - 1)]) if last else x


def _last(rw: Rewriter, x: str, rank: int, last: bool) -> str:
    return rw.emit("Transpose", [x], perm=[0, *range(2, rank), 1]) if last else x


@unrounds("QLinearMatMul")
def quantized_matmul(rw: Rewriter, node: onnx.NodeProto) -> None:
    """A, a_scale, a_zero, B, b_scale, b_zero, y_scale, y_zero -> the product."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = arguments(node, 8)
    y = rw.emit("MatMul", [rw.dequantized(a, a_scale, a_zero, -2), rw.dequantized(b, b_scale, b_zero, -1)])
    rw.quantized(y, y_scale, y_zero, node.output[0], -2)


# -- onnxruntime -------------------------------------------------------------------------------------------


@unrounds("MatMulIntegerToFloat", "DynamicQuantizeMatMul")
def matmul_to_float(rw: Rewriter, node: onnx.NodeProto) -> None:
    """A, B, a_scale, b_scale, a_zero, b_zero, bias; or A, B, b_scale, b_zero, bias -> floats."""
    if node.op_type == "DynamicQuantizeMatMul":
        a, b, b_scale, b_zero, bias = arguments(node, 5)
    else:
        a, b, a_scale, b_scale, a_zero, b_zero, bias = arguments(node, 7)
        a = rw.dequantized(a, a_scale, a_zero)
    right = rw.dequantized(b, b_scale, b_zero, -1)
    y = rw.emit("MatMul", [a, right], None if bias else node.output[0])
    if bias:
        rw.emit("Add", [y, bias], node.output[0])


@unrounds("QGemm")
def quantized_gemm(rw: Rewriter, node: onnx.NodeProto) -> None:
    """A, a_scale, a_zero, B, b_scale, b_zero, C, y_scale, y_zero -> alpha · scales · (A' · B' + C)."""
    a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero = arguments(node, 9)
    options, out = attributes(node), node.output[0]
    column = -2 if options.get("transB") else -1
    left, right = rw.shifted(a, a_zero), rw.shifted(b, b_zero, column)
    addend = [rw.number(c)] if c else []
    y = rw.emit("Gemm", [left, right, *addend], transA=options.get("transA"), transB=options.get("transB"))
    scale = rw.arithmetic("Mul", rw.along(a_scale, None, a), rw.along(b_scale, None, b))
    scale = rw.arithmetic("Mul", scale, rw.make(np.array(options.get("alpha", 1.0), np.float32)))
    y = rw.emit("Mul", [y, scale], None if y_scale else out)
    if y_scale:
        rw.quantized(y, y_scale, y_zero, out)


@unrounds("QLinearAdd", "QLinearMul")
def quantized_meeting(rw: Rewriter, node: onnx.NodeProto) -> None:
    """A, a_scale, a_zero, B, b_scale, b_zero, c_scale, c_zero -> A + B or A · B."""
    a, a_scale, a_zero, b, b_scale, b_zero, scale, zero = arguments(node, 8)
    y = rw.emit(node.op_type[7:], [rw.dequantized(a, a_scale, a_zero), rw.dequantized(b, b_scale, b_zero)])
    rw.quantized(y, scale, zero, node.output[0])


@unrounds("QLinearWhere")
def quantized_where(rw: Rewriter, node: onnx.NodeProto) -> None:
    """condition, X, x_scale, x_zero, Y, y_scale, y_zero, z_scale, z_zero -> X or Y."""
    condition, a, a_scale, a_zero, b, b_scale, b_zero, scale, zero = arguments(node, 9)
    y = rw.emit("Where", [condition, rw.dequantized(a, a_scale, a_zero), rw.dequantized(b, b_scale, b_zero)])
    rw.quantized(y, scale, zero, node.output[0])


@unrounds("QLinearConcat")
def quantized_concat(rw: Rewriter, node: onnx.NodeProto) -> None:
    """y_scale, y_zero, X1, scale1, zero1, X2, … -> joined along an axis."""
    names = list(node.input)
    triples = zip(names[2::3], names[3::3], names[4::3], strict=True)
    parts = [rw.dequantized(x, scale, zero) for x, scale, zero in triples]
    rw.quantized(rw.emit("Concat", parts, **attributes(node)), names[0], names[1], node.output[0])


@unrounds("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax")
def quantized_activation(rw: Rewriter, node: onnx.NodeProto) -> None:
    """X, x_scale, x_zero, y_scale, y_zero -> f(X)."""
    x, x_scale, x_zero, y_scale, y_zero = arguments(node, 5)
    options = attributes(node)
    version = options.pop("opset", rw.model.opset())
    if (version < 13) != (rw.model.opset() < 13):
        raise Unroundable(f"{node.op_type} '{node.name}' is of another version than the model")
    y = rw.emit(node.op_type[7:], [rw.dequantized(x, x_scale, x_zero)], **options)
    rw.quantized(y, y_scale, y_zero, node.output[0])


@unrounds("QLinearAveragePool", "QLinearGlobalAveragePool")
def quantized_pool(rw: Rewriter, node: onnx.NodeProto) -> None:
    """X, x_scale, x_zero, y_scale, y_zero -> means over image positions."""
    x, x_scale, x_zero, y_scale, y_zero = arguments(node, 5)
    options = attributes(node)
    last = options.pop("channels_last", 0)
    rank = len(options["kernel_shape"]) + 2 if "kernel_shape" in options else rw.rank(x) if last else 0
    y = _first(rw, rw.dequantized(x, x_scale, x_zero), rank, last)
    y = _last(rw, rw.emit(node.op_type[7:], [y], **options), rank, last)
    rw.quantized(y, y_scale, y_zero, node.output[0])


@unrounds("NhwcMaxPool")
def max_pool(rw: Rewriter, node: onnx.NodeProto) -> None:
    """X[N, *S, C] -> maxima over windows."""
    options = attributes(node)
    rank = len(options["kernel_shape"]) + 2
    y = rw.emit("MaxPool", [_first(rw, rw.number(node.input[0]), rank, True)], **options)
    rw.floats.add(rw.emit("Transpose", [y], node.output[0], perm=[0, *range(2, rank), 1]))


@unrounds("MatMulNBits")
def packed_matmul(rw: Rewriter, node: onnx.NodeProto) -> None:
    """Weights are packed, activations are floats: those are not to be rounded on the way."""
    if not rw.floats.isdisjoint(node.input):
        raise Unroundable(f"MatMulNBits '{node.name}' reads rounded values")
    others = [a for a in node.attribute if a.name != "accuracy_level"]
    del node.attribute[:]
    node.attribute.extend(others)
    node.attribute.append(onnx.helper.make_attribute("accuracy_level", 1))
    rw.keep(node)


@unrounds("DynamicQuantizeLSTM")
def quantized_lstm(rw: Rewriter, node: onnx.NodeProto) -> None:
    """X, int8 W[D, I, 4·H], R[D, H, 4·H], B, lengths, states, peepholes, scales and zero points -> LSTM."""
    x, w, r, b, lengths, hidden, cell, peepholes, *steps = arguments(node, 12)
    weights = []
    for weight, *step in ((w, *steps[:2]), (r, *steps[2:])):
        scale, zero = (_by_gate(rw, name) for name in step)
        weights.append(rw.emit("Transpose", [rw.dequantized(weight, scale, zero, 0)], perm=[0, 2, 1]))
    inputs = [rw.number(x), *weights, b, lengths, hidden, cell, peepholes]
    while not inputs[-1]:
        inputs.pop()
    rw.keep(onnx.helper.make_node("LSTM", inputs, node.output, node.name, **attributes(node)))


def _by_gate(rw: Rewriter, name: str) -> str:
    """A scale or zero point [D, 4·H] as [D, 1, 4·H]; [D] as it is."""
    array = rw.constant(name)
    return name if array is None or array.ndim == 1 else rw.make(array[:, None])
