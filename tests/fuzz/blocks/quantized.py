"""Blocks that quantize: their outputs jump, so `check` compares what they compute without rounding."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.fuzz.blocks.contraction import affine
from tests.fuzz.blocks.elementwise import unary
from tests.fuzz.blocks.layers import sequence
from tests.fuzz.blocks.registry import block, reshaped
from tests.fuzz.builder import CONTRIB, Builder, Rejected


def single(b: Builder) -> None:
    if b.dtype != np.float32:
        raise Rejected("quantization is in single precision")


def numbers(b: Builder, size: int | None, dtype: Any, top: float = 4.0) -> tuple[str, str]:
    """A scale that takes `top` to the end of the range, and a zero point; one of each, or `size` of them."""
    shape = () if size is None else (size,)
    scale = b.rng.uniform(0.7, 1.4, shape) * top / 100
    low, high = (-6, 7) if dtype == np.int8 else (110, 140)
    zero = b.rng.integers(low, high, shape).astype(dtype)
    return b.constant(scale.astype(np.float32), "w"), b.constant(zero, "z")


def quantized(b: Builder, x: str) -> tuple[str, str, str]:
    """x as unsigned integers, with their scale and zero point."""
    single(b)
    scale, zero = numbers(b, None, np.uint8, float(np.abs(b.value[x]).max()) + 0.1)
    return b.op("QuantizeLinear", x, scale, zero), scale, zero


def weights(b: Builder, *shape: int) -> str:
    return b.constant(b.rng.integers(-60, 60, shape).astype(np.int8), "q")


@block(1)
def there_and_back(b: Builder, x: str) -> str:
    if b.flip():
        q, scale, zero = quantized(b, x)
        return b.op("DequantizeLinear", q, scale, zero)
    single(b)
    axis = b.axis(x)
    scale, zero = numbers(b, b.shape(x)[axis], np.int8)
    q = b.op("QuantizeLinear", x, scale, zero, axis=axis)
    return b.op("DequantizeLinear", q, scale, zero, axis=axis)


@block(1.5)
def quantized_product(b: Builder, x: str) -> str:
    """Operators on integers, with one scale or one for each column."""
    q, scale, zero = quantized(b, x)
    n, m = b.shape(x)[-1], b.size()
    w = weights(b, n, m)
    w_scale, w_zero = numbers(b, m if b.flip() else None, np.int8, 2.0)
    y_scale, y_zero = numbers(b, None, np.uint8, 10.0)
    way = b.pick(["QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QGemm"])
    if way == "QLinearMatMul":
        y = b.op(way, q, scale, zero, w, w_scale, w_zero, y_scale, y_zero)
        return b.op("DequantizeLinear", y, y_scale, y_zero)
    if way == "MatMulInteger":
        y = b.op("Cast", b.op(way, q, w, zero, w_zero), to=1)
        return b.op("Mul", b.op("Mul", y, w_scale), scale)
    bias = [b.weight(m)] if b.flip() else []
    if way == "MatMulIntegerToFloat":
        return b.op(way, q, w, scale, w_scale, zero, w_zero, *bias, domain=CONTRIB)
    if way == "DynamicQuantizeMatMul":
        return b.op(way, x, w, w_scale, w_zero, *bias, domain=CONTRIB)
    if len(b.shape(x)) != 2:
        raise Rejected("rank")
    addend = b.constant(b.rng.integers(-900, 900, m).astype(np.int32), "q")
    return b.op(way, q, scale, zero, w, w_scale, w_zero, addend, domain=CONTRIB)


@block(1)
def dynamic_product(b: Builder, x: str) -> str:
    single(b)
    n, m = b.shape(x)[-1], b.size()
    q, scale, zero = b.ops("DynamicQuantizeLinear", x, outputs=3)
    w_scale, w_zero = numbers(b, m if b.flip() else None, np.int8, 2.0)
    y = b.op("Cast", b.op("MatMulInteger", q, weights(b, n, m), zero, w_zero), to=1)
    return b.op("Mul", y, b.op("Mul", scale, w_scale))


@block(1.5)
def quantized_conv(b: Builder, x: str) -> str:
    s = b.shape(x)
    if len(s) != 4:
        raise Rejected("rank")
    q, scale, zero = quantized(b, x)
    groups = int(b.pick([1, 1, s[1], *(g for g in (2, 3) if s[1] % g == 0)]))
    m = groups * int(b.pick([1, 2, 3])) if groups > 1 else b.size()
    w = weights(b, m, s[1] // groups, 1, int(b.pick([1, 3])))
    if b.flip(0.3):
        y = b.op("Cast", b.op("ConvInteger", q, w, zero, group=groups, pads=[0, 1, 0, 1]), to=1)
        return b.op("Mul", y, scale)
    w_scale = numbers(b, m if b.flip() else None, np.int8, 2.0)[0]
    w_zero = b.constant(np.zeros(b.shape(w_scale), np.int8), "z")
    y_scale, y_zero = numbers(b, None, np.uint8, 10.0)
    bias = [b.constant(b.rng.integers(-900, 900, m).astype(np.int32), "q")] if b.flip() else []
    inputs = [q, scale, zero, w, w_scale, w_zero, y_scale, y_zero, *bias]
    y = b.op("QLinearConv", *inputs, group=groups, pads=[0, 1, 0, 1])
    return b.op("DequantizeLinear", y, y_scale, y_zero)


@block(1)
def quantized_pointwise(b: Builder, x: str) -> str:
    q, scale, zero = quantized(b, x)
    y_scale, y_zero = numbers(b, None, np.uint8)
    last = (y_scale, y_zero)
    ways = ("Add", "Mul", "Sigmoid", "LeakyRelu", "Softmax", "Concat")
    way = f"QLinear{b.pick(ways)}"
    if way in ("QLinearAdd", "QLinearMul"):
        other = quantized(b, str(b.pick([x, *b.fits(x)])))
        y = b.op(way, q, scale, zero, *other, *last, domain=CONTRIB)
    elif way == "QLinearConcat":
        other = quantized(b, str(b.pick([x, *b.fits(x)])))
        y = b.op(way, *last, q, scale, zero, *other, domain=CONTRIB, axis=b.axis(x))
    else:
        more = {"axis": b.axis(x), "opset": 13} if way == "QLinearSoftmax" else {}
        y = b.op(way, q, scale, zero, *last, domain=CONTRIB, **more)
    return b.op("DequantizeLinear", y, *last)


@block(0.5)
def quantized_pool(b: Builder, x: str) -> str:
    if len(b.shape(x)) != 4:
        raise Rejected("rank")
    q, scale, zero = quantized(b, x)
    if b.flip():
        y = b.op("QLinearGlobalAveragePool", q, scale, zero, scale, zero, domain=CONTRIB)
    else:
        y = b.op("QLinearAveragePool", q, scale, zero, scale, zero, domain=CONTRIB, kernel_shape=[1, 2])
    return b.op("DequantizeLinear", y, scale, zero)


@block(1)
def weights_in_blocks(b: Builder, x: str) -> str:
    """x · W with scales for blocks along either axis of W."""
    single(b)
    if b.opset < 21:
        raise Rejected("opset")
    shape = (b.shape(x)[-1], b.size())
    axis = int(b.rng.integers(2))
    sizes = [k for k in (2, 3, 4) if shape[axis] % k == 0]
    if not sizes:
        raise Rejected("no blocks")
    size = int(b.pick(sizes))
    blocks = tuple(n // size if k == axis else n for k, n in enumerate(shape))
    scale = b.constant(b.rng.uniform(0.01, 0.03, blocks).astype(np.float32), "w")
    zero = [b.constant(b.rng.integers(-5, 5, blocks).astype(np.int8), "z")] if b.flip() else []
    w = b.op("DequantizeLinear", weights(b, *shape), scale, *zero, axis=axis, block_size=size)
    return b.op("MatMul", x, w)


@block(0.7)
def packed_product(b: Builder, x: str) -> str:
    """x · W with weights of four or eight bits in blocks of sixteen."""
    single(b)
    x = b.tame(unary(b, affine(b, x, 32)))
    m, bits = b.size(), int(b.pick([4, 4, 8]))
    w = b.constant(b.rng.integers(0, 256, (m, 2, 2 * bits)).astype(np.uint8), "q")
    scale = b.constant(b.rng.uniform(0.01, 0.03, m * 2).astype(np.float32), "w")
    zero = b.constant(b.rng.integers(0, 256, m * bits // 4).astype(np.uint8), "z") if b.flip() else ""
    return b.op("MatMulNBits", x, w, scale, zero, domain=CONTRIB, K=32, N=m, bits=bits, block_size=16)


@block(0.7)
def quantized_lstm(b: Builder, x: str) -> str:
    """A recurrent layer with weights of bytes: a scale for each direction, or for each row of a gate."""
    single(b)
    x = b.op("Transpose", sequence(b, x), perm=[1, 0, 2])
    t, n, c = b.shape(x)
    d, h = int(b.pick([1, 2])), int(b.pick([2, 3, 4, 6]))
    bias = "" if b.flip(0.3) else b.weight(d, 8 * h, spread=0.5)
    inputs, steps = [x, weights(b, d, c, 4 * h), weights(b, d, h, 4 * h), bias], []
    shape = (d, 4 * h) if b.flip() else (d,)
    for _ in range(2):
        steps.append(b.constant(b.rng.uniform(0.005, 0.01, shape).astype(np.float32), "w"))
        zero = b.rng.integers(-6, 7, shape) if len(shape) == 1 else np.zeros(shape)  # onnxruntime wants it so
        steps.append(b.constant(zero.astype(np.int8), "z"))
    states = [b.weight(d, n, h) if b.flip(0.3) else ""] * 2
    inputs += ["", *states, b.weight(d, 3 * h) if b.flip(0.3) else "", *steps]
    more: dict[str, Any] = {"direction": "bidirectional"} if d == 2 else {}
    y = b.ops("DynamicQuantizeLSTM", *inputs, outputs=1, domain=CONTRIB, hidden_size=h, **more)[0]
    return reshaped(b, b.op("Transpose", y, perm=[2, 0, 1, 3]), (n, t, d * h))


@block(0.7)
def fused_conv(b: Builder, x: str) -> str:
    s = b.shape(x)
    single(b)
    if len(s) != 4:
        raise Rejected("rank")
    w = b.weight(s[1], s[1], 1, 1, spread=s[1] ** -0.5)
    bias = b.weight(s[1], spread=0.5) if b.flip(0.7) else ""
    total = [str(b.pick([x, *b.fits(x)]))] if b.flip() else []
    activation = b.pick(["Relu", "Tanh", "Sigmoid", "LeakyRelu"])
    parameters = [0.1] if activation == "LeakyRelu" else None
    return b.op(
        "FusedConv", x, w, bias, *total, domain=CONTRIB, activation=activation, activation_params=parameters
    )
