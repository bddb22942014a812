"""Shapes of convolutions. `*K` is a kernel, `*S` the spatial axes of the input."""

from __future__ import annotations

from collections.abc import Sequence

from onnxcanon.arrays import Shape
from onnxcanon.graph.operators import BOTH, CONTRIB
from onnxcanon.shapes.values import Contradiction, OutputShapes, ShapeNode, rule


@rule("Conv", "ConvInteger", "DeformConv")
@rule("FusedConv", domain=CONTRIB)
def conv(op: ShapeNode) -> OutputShapes:
    """X[N, C, *S], W[M, C/g, *K], B[M] -> Y[N, M, *T]."""
    return [convolved(op, op.shape(0), op.shape(1))]


@rule("QLinearConv", domain=BOTH)
def quantized_conv(op: ShapeNode) -> OutputShapes:
    """X[N, C, *S], x_scale, x_zero, W[M, C/g, *K], ... -> Y[N, M, *T]; contrib channels_last: X[N, *S, C]."""
    convolve = convolved_last if op.attr("channels_last", 0) else convolved
    return [convolve(op, op.shape(0), op.shape(3))]


@rule("NhwcConv", "NhwcFusedConv", domain=CONTRIB)
def conv_nhwc(op: ShapeNode) -> OutputShapes:
    """X[N, *S, C], W[M, C/g, *K] -> Y[N, *T, M]."""
    return [convolved_last(op, op.shape(0), op.shape(1))]


def convolved(op: ShapeNode, shape: Shape, weight: Shape) -> Shape:
    """Y[N, M, *T] of a convolution of X[N, C, *S] with W[M, C/g, *K]."""
    if len(shape) != len(weight) or shape[1] != weight[1] * op.attr("group", 1):
        raise Contradiction(f"convolution of {shape} with {weight}")
    return (shape[0], weight[0], *windows(op, shape[2:], op.attr("kernel_shape", weight[2:])))


def convolved_last(op: ShapeNode, shape: Shape, weight: Shape) -> Shape:
    """Y[N, *T, M] of a convolution of X[N, *S, C]: the channels are last."""
    n, m, *spatial = convolved(op, (shape[0], shape[-1], *shape[1:-1]), weight)
    return (n, *spatial, m)


def windows(op: ShapeNode, spatial: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """How many windows fit along each spatial axis."""
    rank = len(spatial)
    strides, dilations, pads = steps(op, rank)
    auto_pad = op.attr("auto_pad", "NOTSET")
    ceil_mode = op.attr("ceil_mode", 0)
    if len(kernel) != rank:
        raise Contradiction(f"kernel {kernel} over {spatial}")
    result = []
    for axis, size in enumerate(spatial):
        stride = strides[axis]
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            count = -(-size // stride)
        else:
            begin, end = (0, 0) if auto_pad == "VALID" else (pads[axis], pads[axis + rank])
            room = size + begin + end - dilations[axis] * (kernel[axis] - 1) - 1
            count = (-(-room // stride) if ceil_mode else room // stride) + 1
            # A last window that would start in the padding behind the input is not taken.
            if ceil_mode and (count - 1) * stride >= size + begin:
                count -= 1
        if count <= 0:
            raise Contradiction(f"no window of {kernel} in {spatial}")
        result.append(count)
    return result


def steps(op: ShapeNode, rank: int) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """Strides and dilations of each spatial axis, and pads before and after all of them."""
    ones, zeros = (1,) * rank, (0,) * (2 * rank)
    return op.attr("strides") or ones, op.attr("dilations") or ones, op.attr("pads") or zeros


@rule("ConvTranspose")
def conv_transpose(op: ShapeNode) -> OutputShapes:
    """X[N, C, *S], W[C, M/g, *K] -> Y[N, M, stride*(S-1) + output_padding + dilation*(K-1) + 1 - pads]."""
    shape, weight = op.shape(0), op.shape(1)
    if len(shape) != len(weight) or shape[1] != weight[0]:
        raise Contradiction(f"transposed convolution of {shape} with {weight}")
    channels = weight[1] * op.attr("group", 1)
    output_shape = op.attr("output_shape")
    rank = len(shape) - 2
    if output_shape:
        return [(shape[0], channels, *output_shape[-rank:])]
    strides, dilations, pads = steps(op, rank)
    extra = op.attr("output_padding") or (0,) * rank
    auto_pad = op.attr("auto_pad", "NOTSET")
    result = []
    for axis, size in enumerate(shape[2:]):
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            result.append(size * strides[axis])
            continue
        full = strides[axis] * (size - 1) + extra[axis] + dilations[axis] * (weight[axis + 2] - 1) + 1
        result.append(full if auto_pad == "VALID" else full - pads[axis] - pads[axis + rank])
    if min(result, default=1) <= 0:
        raise Contradiction(f"transposed convolution of {shape} to {result}")
    return [(shape[0], channels, *result)]
