"""onnxruntime's pointwise, pooling and joining operators on quantized tensors: one scale per tensor.

Each is the operator of its name on dequantized operands, rounded again: what moves there moves here.
"""

from __future__ import annotations

from onnxcanon.graph.operators import CONTRIB
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.quantization import one_number
from onnxcanon.tracing.rules.quantized_products import channels_first, channels_last
from onnxcanon.tracing.rules.rearrangement import concatenated
from onnxcanon.tracing.rules.reduction import soft_maximum
from onnxcanon.tracing.rules.registry import Outputs, SymmetryNode, Unsupported, register
from onnxcanon.tracing.rules.spatial import resized


@register("QLinearAdd", "QLinearMul", domain=CONTRIB)
def quantized_meeting(ctx: Context, op: SymmetryNode) -> Outputs:
    """A, a_scale, a_zero, B, b_scale, b_zero, c_scale, c_zero -> A + B or A · B."""
    one_number(op, 1, 2, 4, 5, 6, 7)
    return ctx.elementwise([ctx.stop(op.x(0)), ctx.stop(op.x(3))])


@register("QLinearWhere", domain=CONTRIB)
def quantized_where(ctx: Context, op: SymmetryNode) -> Outputs:
    """condition, X, x_scale, x_zero, Y, y_scale, y_zero, z_scale, z_zero -> X where it holds, else Y."""
    one_number(op, 2, 3, 5, 6, 7, 8)
    return ctx.elementwise([ctx.stop(op.x(i)) for i in (0, 1, 4)])


@register("QLinearSigmoid", "QLinearLeakyRelu", domain=CONTRIB)
def quantized_activation(ctx: Context, op: SymmetryNode) -> Outputs:
    """X, x_scale, x_zero, y_scale, y_zero -> f(X)."""
    one_number(op, 1, 2, 3, 4)
    return ctx.stop(op.x(0))


@register("QLinearSoftmax", domain=CONTRIB)
def quantized_softmax(ctx: Context, op: SymmetryNode) -> Outputs:
    """X, x_scale, x_zero, y_scale, y_zero -> softmax along an axis, as `opset` of the standard has it."""
    one_number(op, 1, 2, 3, 4)
    x = op.x(0)
    if op.attr("opset") is None:
        raise Unsupported("a softmax of unknown version")
    joined = int(op.attr("opset")) < 13
    axis = op.axis(1 if joined else -1, x.rank)
    return soft_maximum(ctx, x, list(range(axis, x.rank)) if joined else [axis])


@register("QLinearConcat", domain=CONTRIB)
def quantized_concat(ctx: Context, op: SymmetryNode) -> Outputs:
    """y_scale, y_zero, X1, scale1, zero1, X2, … -> joined along an axis."""
    count = len(op.node.inputs)
    one_number(op, *(i for i in range(count) if i < 2 or i % 3 != 2))
    return concatenated(ctx, op, [ctx.stop(op.x(i)) for i in range(2, count, 3)])


@register("QLinearAveragePool", "QLinearGlobalAveragePool", domain=CONTRIB)
def quantized_pool(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[N, C, *S] (or channels last), x_scale, x_zero, y_scale, y_zero -> means over image positions."""
    one_number(op, 1, 2, 3, 4)
    last, shape = bool(op.attr("channels_last", 0)), op.out_shapes()[0]
    x = ctx.stop(channels_first(ctx, op.x(0)) if last else op.x(0))
    if op.kind == "QLinearGlobalAveragePool":
        y = ctx.reduce(x, list(range(2, x.rank)), keepdims=True)
    else:
        shape = (shape[0], shape[-1], *shape[1:-1]) if last else shape
        y = resized(ctx, x, shape, range(2, x.rank), "image positions under pooling")
    return channels_last(ctx, y) if last else y


@register("NhwcMaxPool", domain=CONTRIB)
def max_pool_channels_last(ctx: Context, op: SymmetryNode) -> Outputs:
    """X int8 [N, *S, C] -> Y[N, *S', C]."""
    n, *spatial, c = op.out_shapes()[0]
    x = ctx.stop(channels_first(ctx, op.x(0)))
    y = resized(ctx, x, (n, c, *spatial), range(2, x.rank), "image positions under pooling")
    return channels_last(ctx, y)
