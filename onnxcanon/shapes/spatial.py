"""Shapes of pooling, resampling and cropping. `*K` is a kernel, `*S` the spatial axes of the input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxcanon.arrays import Shape
from onnxcanon.graph.operators import BOTH, CONTRIB
from onnxcanon.shapes.convolution import steps, windows
from onnxcanon.shapes.values import Contradiction, OutputShapes, ShapeNode, Unresolved, norm_axis, rule


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
    strides, _, pads = steps(op, rank)
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


@rule("DepthToSpace")
def depth_to_space(op: ShapeNode) -> OutputShapes:
    """X[N, C*b*b, H, W] -> Y[N, C, H*b, W*b]."""
    n, c, h, w = op.shape(0)
    b = op.attr("blocksize")
    if c % (b * b):
        raise Contradiction(f"depth to space of {c} channels by {b}")
    return [(n, c // (b * b), h * b, w * b)]


@rule("SpaceToDepth")
def space_to_depth(op: ShapeNode) -> OutputShapes:
    """X[N, C, H*b, W*b] -> Y[N, C*b*b, H, W]."""
    n, c, h, w = op.shape(0)
    b = op.attr("blocksize")
    if h % b or w % b:
        raise Contradiction(f"space to depth of {h} x {w} by {b}")
    return [(n, c * b * b, h // b, w // b)]


@rule("Crop")
def crop(op: ShapeNode) -> OutputShapes:
    """X[N, C, H, W], border (left, top, right, bottom), optionally scale (height, width) -> Y[N, C, h, w]."""
    n, c, h, w = op.shape(0)
    left, top, right, bottom = op.attr("border", (0, 0, 0, 0))
    scale = op.attr("scale")
    h, w = scale if scale else (h - top - bottom, w - left - right)
    if h <= 0 or w <= 0:
        raise Contradiction(f"crop of {op.shape(0)}")
    return [(n, c, h, w)]


@rule("CenterCropPad")
def center_crop_pad(op: ShapeNode) -> OutputShapes:
    """X[*S], shape[axes] -> Y[S with the axes set to shape]."""
    result = list(op.shape(0))
    axes = op.attr("axes", range(len(result)))
    for axis, dim in zip(axes, op.values(1), strict=True):
        result[norm_axis(axis, len(result))] = dim
    return [tuple(result)]
