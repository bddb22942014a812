"""Shapes of convolution, pooling and resampling. `*K` is a kernel, `*S` the spatial axes of the input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxcanon.arrays import Shape
from onnxcanon.graph.operators import BOTH, CONTRIB
from onnxcanon.shapes.values import Contradiction, OutputShapes, ShapeNode, Unresolved, norm_axis, rule


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
    strides = op.attr("strides") or (1,) * rank
    dilations = op.attr("dilations") or (1,) * rank
    pads = op.attr("pads") or (0,) * (2 * rank)
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
    strides = op.attr("strides") or (1,) * rank
    dilations = op.attr("dilations") or (1,) * rank
    pads = op.attr("pads") or (0,) * (2 * rank)
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


@rule("MaxPool", "AveragePool", "LpPool")
@rule("QLinearAveragePool", "NhwcMaxPool", domain=CONTRIB)
def pool(op: ShapeNode) -> OutputShapes:
    """X[N, C, *S] -> Y[N, C, *T], for MaxPool also indices[N, C, *T]; contrib: X[N, *S, C]."""
    shape = op.shape(0)
    if op.attr("channels_last", 0) or op.kind == "NhwcMaxPool":
        result: Shape = (shape[0], *windows(op, shape[1:-1], op.attr("kernel_shape")), shape[-1])
    else:
        result = (*shape[:2], *windows(op, shape[2:], op.attr("kernel_shape")))
    return [result, result]


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
@rule("QLinearGlobalAveragePool", domain=CONTRIB)
def global_pool(op: ShapeNode) -> OutputShapes:
    """X[N, C, *S] -> Y[N, C, 1...]."""
    shape = op.shape(0)
    if op.attr("channels_last", 0):
        return [(shape[0], *(1,) * (len(shape) - 2), shape[-1])]
    return [shape[:2] + (1,) * (len(shape) - 2)]


@rule("MaxUnpool")
def max_unpool(op: ShapeNode) -> OutputShapes:
    """X[N, C, *S], indices[N, C, *S], output_shape[rank] -> Y[N, C, *T]."""
    if op.has(2):
        return [tuple(op.values(2))]
    shape, kernel = op.shape(0), op.attr("kernel_shape")
    rank = len(kernel)
    strides, pads = op.attr("strides") or (1,) * rank, op.attr("pads") or (0,) * (2 * rank)
    sizes = [
        (size - 1) * strides[i] - pads[i] - pads[i + rank] + kernel[i] for i, size in enumerate(shape[2:])
    ]
    return [(*shape[:2], *sizes)]


@rule("MaxRoiPool")
def roi_pool(op: ShapeNode) -> OutputShapes:
    """X[N, C, H, W], rois[R, 5] -> Y[R, C, *pooled_shape]."""
    return [(op.shape(1)[0], op.shape(0)[1], *op.attr("pooled_shape"))]


@rule("RoiAlign")
def roi_align(op: ShapeNode) -> OutputShapes:
    """X[N, C, H, W], rois[R, 4], batch[R] -> Y[R, C, output_height, output_width]."""
    size = (op.attr("output_height", 1), op.attr("output_width", 1))
    return [(op.shape(1)[0], op.shape(0)[1], *size)]


@rule("GridSample", domain=BOTH)
def grid_sample(op: ShapeNode) -> OutputShapes:
    """X[N, C, *S], grid[N, *T, rank] -> Y[N, C, *T]."""
    return [(*op.shape(0)[:2], *op.shape(1)[1:-1])]


@rule("AffineGrid")
def affine_grid(op: ShapeNode) -> OutputShapes:
    """theta[N, d, d+1], size (N, C, *S) -> grid[N, *S, d]."""
    n, _, *spatial = op.values(1)
    return [(n, *spatial, len(spatial))]


@rule("Col2Im")
def col_to_im(op: ShapeNode) -> OutputShapes:
    """X[N, C * prod block, L], image_shape[d], block_shape[d] -> Y[N, C, *image_shape]."""
    n, columns, _ = op.shape(0)
    return [(n, columns // int(np.prod(op.data(2))), *op.values(1))]


@rule("Upsample")
def upsample(op: ShapeNode) -> OutputShapes:
    """X[*S], scales[rank] -> Y[floor(S * scales)]."""
    shape = op.shape(0)
    scales = op.attr_or_values("scales", 1)
    if scales is None:
        scales = [1.0, 1.0, op.attr("height_scale"), op.attr("width_scale")]
    return [scaled(shape, range(len(shape)), scales)]


@rule("Resize")
def resize(op: ShapeNode) -> OutputShapes:
    """X[*S], roi, scales[axes] or sizes[axes] -> Y[floor(S * scales) or sizes]; opset 10: X[*S], scales."""
    shape = op.shape(0)
    if op.version < 11:
        return [scaled(shape, range(len(shape)), op.values(1))]
    axes = [norm_axis(axis, len(shape)) for axis in op.attr("axes", range(len(shape)))]
    if op.has(2) and op.shape(2) != (0,):
        if op.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
            raise Unresolved
        return [scaled(shape, axes, op.values(2))]
    sizes = op.values(3)
    policy = op.attr("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        pick = min if policy == "not_larger" else max
        scale = pick(size / shape[axis] for axis, size in zip(axes, sizes, strict=True))
        sizes = [int(np.floor(shape[axis] * scale + 0.5)) for axis in axes]
    result = list(shape)
    for axis, size in zip(axes, sizes, strict=True):
        result[axis] = size
    return [tuple(result)]


def scaled(shape: Shape, axes: Sequence[int], scales: Sequence[float]) -> Shape:
    """The shape with the axes scaled: in float32 and rounded down, as onnxruntime does."""
    if len(axes) != len(scales):
        raise Contradiction(f"resize of {shape} by {scales}")
    result = list(shape)
    for axis, scale in zip(axes, scales, strict=True):
        result[axis] = int(np.float32(scale) * np.float32(shape[axis]))
    if min(result) <= 0:
        raise Contradiction(f"resize of {shape} to {result}")
    return tuple(result)
