"""Products of quantized tensors: convolutions and matrices of integers, and weights packed below a byte.

Activations have one scale and zero point, weights one or one per output channel; a sum over integers is exact
in any order. What comes out is rounded or depends on what was, so scales and signs end here.
"""

from __future__ import annotations

import numpy as np

from onnxcanon.graph.operators import BOTH, CONTRIB
from onnxcanon.tracing.abstract_value import AbstractValue
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.contraction import product
from onnxcanon.tracing.rules.convolution import convolve
from onnxcanon.tracing.rules.quantization import one_number, per_position
from onnxcanon.tracing.rules.registry import Outputs, SymmetryNode, Unsupported, register


def channels_first(ctx: Context, x: AbstractValue) -> AbstractValue:
    """X[N, *S, C] -> X[N, C, *S]."""
    return ctx.transpose(x, [0, x.rank - 1, *range(1, x.rank - 1)])


def channels_last(ctx: Context, x: AbstractValue) -> AbstractValue:
    """X[N, C, *S] -> X[N, *S, C]."""
    return ctx.transpose(x, [0, *range(2, x.rank), 1])


@register("QLinearConv", domain=BOTH)
def quantized_conv(ctx: Context, op: SymmetryNode) -> Outputs:
    """X, x_scale, x_zero, W[M, C/g, *K], w_scale, w_zero, y_scale, y_zero, B[M] -> Y[N, M, *S']."""
    one_number(op, 1, 2, 6, 7)
    last, shape = bool(op.attr("channels_last", 0)), op.out_shapes()[0]
    x = ctx.stop(channels_first(ctx, op.x(0)) if last else op.x(0))
    shape = (shape[0], shape[-1], *shape[1:-1]) if last else shape
    y = convolve(ctx, x, op.x(3), int(op.attr("group", 1)), shape, transposed=False)
    for i in (4, 5, 8):
        y = per_position(ctx, op, i, y, 1)
    y = ctx.stop(y)
    return channels_last(ctx, y) if last else y


@register("ConvInteger")
def conv_integer(ctx: Context, op: SymmetryNode) -> Outputs:
    """X int8 [N, C, *S], W int8 [M, C/g, *K], x_zero, w_zero (one, or one per output channel) -> Y int32."""
    one_number(op, 2)
    x, groups = ctx.stop(op.x(0)), int(op.attr("group", 1))
    y = convolve(ctx, x, op.x(1), groups, op.out_shapes()[0], transposed=False)
    return ctx.stop(per_position(ctx, op, 3, y, 1))


def _matrix(
    ctx: Context, op: SymmetryNode, a: int, b: int, rows: tuple[int, ...], columns: tuple[int, ...]
) -> AbstractValue:
    """A[…, M, K] · B[…, K, N] with numbers per row of A (inputs `rows`) and per column of B (`columns`)."""
    left, right = ctx.stop(op.x(a)), op.x(b)
    y = ctx.stop(product(ctx, left, right))
    plain = left.rank > 1 and right.rank > 1
    for i in rows:
        y = per_position(ctx, op, i, y, y.rank - 2 if plain else -1)
    for i in columns:
        y = per_position(ctx, op, i, y, y.rank - 1 if plain else -1)
    return ctx.stop(y)


@register("QLinearMatMul")
def quantized_matmul(ctx: Context, op: SymmetryNode) -> Outputs:
    """A[…, M, K], a_scale, a_zero, B[…, K, N], b_scale, b_zero, y_scale, y_zero -> Y[…, M, N]."""
    return _matrix(ctx, op, 0, 3, (1, 2, 6, 7), (4, 5))


@register("MatMulInteger")
def matmul_integer(ctx: Context, op: SymmetryNode) -> Outputs:
    """A int8 […, M, K], B int8 […, K, N], a_zero, b_zero -> Y int32 […, M, N]."""
    return _matrix(ctx, op, 0, 1, (2,), (3,))


@register("MatMulInteger16", domain=CONTRIB)
def matmul_integer_16(ctx: Context, op: SymmetryNode) -> Outputs:
    """A int16 […, M, K], B int16 […, K, N] -> Y int32 […, M, N]."""
    return _matrix(ctx, op, 0, 1, (), ())


@register("MatMulIntegerToFloat", domain=CONTRIB)
def matmul_integer_to_float(ctx: Context, op: SymmetryNode) -> Outputs:
    """A, B, a_scale, b_scale, a_zero, b_zero, bias[N] -> Y float […, M, N]."""
    one_number(op, 2, 4)
    return _matrix(ctx, op, 0, 1, (), (3, 5, 6))


@register("DynamicQuantizeMatMul", domain=CONTRIB)
def dynamic_matmul(ctx: Context, op: SymmetryNode) -> Outputs:
    """A float […, M, K], B int8 [K, N], b_scale, b_zero, bias[N] -> Y; A is quantized by its extrema."""
    return _matrix(ctx, op, 0, 1, (), (2, 3, 4))


@register("QGemm", domain=CONTRIB)
def quantized_gemm(ctx: Context, op: SymmetryNode) -> Outputs:
    """A[M, K], a_scale, a_zero, B[K, N], b_scale, b_zero, C[M?, N?], y_scale, y_zero -> Y[M, N]."""
    one_number(op, 1, 2, 7, 8)
    left = ["k", "m"] if op.attr("transA", 0) else ["m", "k"]
    right = ["n", "k"] if op.attr("transB", 0) else ["k", "n"]
    y = ctx.stop(ctx.contract([ctx.stop(op.x(0)), op.x(3)], [left, right], ["m", "n"]))
    for i in (4, 5, 6):
        y = per_position(ctx, op, i, y, 1)
    return ctx.stop(y)


@register("MatMulNBits", domain=CONTRIB)
def packed_matmul(ctx: Context, op: SymmetryNode) -> Outputs:
    """A[…, K], B uint8 [N, blocks, bytes], scales, zero points, g_idx[K], bias[N] -> A · dequantized(B)ᵀ.

    K moves in whole blocks; not at all where zero points of several blocks share a byte.
    """
    a, b, block = ctx.stop(op.x(0)), op.x(1), int(op.attr("block_size"))
    (first, second), count = op.in_shapes(0), op.x(1).shape[1]
    if op.attr("weight_prepacked", 0):
        raise Unsupported("weights packed for one kind of hardware")
    if first[-1] != count * block or second[-1] != first[-1]:
        raise Unsupported("packed in blocks of which the last is not full")
    grid = (count, block)
    a = ctx.reshape(a, (*first[:-1], *grid), second, (*second[:-1], *grid))
    a.ids[-1] = ctx.forget(a.ids[-1], [a.rank - 2])
    ctx.fix(a, a.rank - 1, "positions within a block of packed weights")
    ctx.bind(b, (0, 1))
    b = _with_numbers_per_block(ctx, op, b)
    if op.has(4):
        ctx.fix(a, a.rank - 2, "an index says which block each position belongs to")
    batch = [f"b{k}" for k in range(a.rank - 2)]
    y = ctx.stop(ctx.contract([a, b], [[*batch, "k", "i"], ["n", "k", "j"]], [*batch, "n"]))
    return ctx.stop(per_position(ctx, op, 5, y, y.rank - 1))


def _with_numbers_per_block(ctx: Context, op: SymmetryNode, b: AbstractValue) -> AbstractValue:
    """B[N, blocks, bytes] with its scales and zero points, one of each per row and block."""
    n, count = b.shape[:2]
    for i in (2, 3):
        if not op.has(i):
            continue
        v = ctx.stop(op.x(i))
        size = v.shape[0] if v.rank == 1 else v.shape[0] * v.shape[1]
        if size % n:
            raise Unsupported("scales or zero points of an unusual shape")
        shape = (n, size // n)
        v = ctx.reshape(v, shape, v.shape, shape)
        if size != n * count:
            v = ctx.take(ctx.gather_unknown(v, 1, "packed zero points"), 1, np.zeros(1, np.int64))
            ctx.fix(b, 1, "blocks whose zero points share a byte")
        b = ctx.elementwise([b, ctx.stop(ctx.insert(v, 2))])
    return b
