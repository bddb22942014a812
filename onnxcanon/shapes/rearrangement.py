"""Shapes of operators that move elements: reshape, transpose, slice, gather, concat, pad."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from onnxcanon.arrays import Shape
from onnxcanon.graph.operators import BOTH, CONTRIB
from onnxcanon.shapes.values import (
    Contradiction,
    OutputShapes,
    ShapeNode,
    Unresolved,
    broadcast,
    norm_axis,
    rule,
    size_of,
)


@rule("Reshape")
def reshape(op: ShapeNode) -> OutputShapes:
    """X[*S], shape[r] -> Y[*T]; 0 keeps the dimension there unless allowzero, -1 takes what is left."""
    shape = op.shape(0)
    target = op.attr_or_values("shape", 1)
    if target is None:
        raise Unresolved
    return [reshaped(shape, target, bool(op.attr("allowzero", 0)))]


def reshaped(shape: Shape, target: Sequence[int], allowzero: bool = False) -> Shape:
    """The shape that Reshape's target means for an input of this shape."""
    result = list(target)
    if not allowzero and 0 in result:
        if any(dim == 0 and axis >= len(shape) for axis, dim in enumerate(result)):
            raise Contradiction(f"reshape of {shape} to {target}")
        result = [shape[axis] if dim == 0 else dim for axis, dim in enumerate(result)]
    size = size_of(shape)
    if -1 in result:
        rest = -size_of(tuple(result))
        if result.count(-1) > 1 or rest <= 0 or size % rest:
            raise Contradiction(f"reshape of {shape} to {target}")
        result[result.index(-1)] = size // rest
    elif size_of(tuple(result)) != size:
        raise Contradiction(f"reshape of {shape} to {target}")
    return tuple(result)


@rule("Flatten")
def flatten(op: ShapeNode) -> OutputShapes:
    """X[*S, *T] -> Y[prod S, prod T], cut before `axis`."""
    shape = op.shape(0)
    axis = op.attr("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return [(size_of(shape[:axis]), size_of(shape[axis:]))]


@rule("Squeeze")
def squeeze(op: ShapeNode) -> OutputShapes:
    """X[*S] -> Y[S without the axes, or without every axis of size 1]."""
    shape = op.shape(0)
    axes = op.attr_or_values("axes", 1)
    if axes is None:
        return [tuple(dim for dim in shape if dim != 1)]
    drop = {norm_axis(axis, len(shape)) for axis in axes}
    if any(shape[axis] != 1 for axis in drop):
        raise Contradiction(f"squeeze of {shape} at {axes}")
    return [tuple(dim for axis, dim in enumerate(shape) if axis not in drop)]


@rule("Unsqueeze")
def unsqueeze(op: ShapeNode) -> OutputShapes:
    """X[*S] -> Y[S with 1 inserted, so that the new axes are at `axes` of Y]."""
    shape = op.shape(0)
    axes = op.attr_or_values("axes", 1)
    if axes is None:
        raise Unresolved
    rank = len(shape) + len(axes)
    new = {norm_axis(axis, rank) for axis in axes}
    rest = iter(shape)
    return [tuple(1 if axis in new else next(rest) for axis in range(rank))]


@rule("Transpose")
def transpose(op: ShapeNode) -> OutputShapes:
    """X[*S] -> Y[S[perm]]; the default turns the order around."""
    shape = op.shape(0)
    perm = op.attr("perm")
    if perm is None:
        return [shape[::-1]]
    if len(perm) != len(shape):
        raise Contradiction(f"transpose of {shape} by {perm}")
    return [tuple([shape[axis] for axis in perm])]


@rule("Concat")
def concat(op: ShapeNode) -> OutputShapes:
    """X_i[*S, c_i, *T] -> Y[*S, sum c_i, *T]."""
    return [concatenated(op.shapes(), op.attr("axis", 1))]


def concatenated(shapes: Sequence[Shape], axis: int) -> Shape:
    """The shape of a concatenation."""
    first = shapes[0]
    axis = norm_axis(axis, len(first))
    head, tail = first[:axis], first[axis + 1 :]
    total = 0
    for shape in shapes:
        if len(shape) != len(first) or shape[:axis] != head or shape[axis + 1 :] != tail:
            raise Contradiction(f"concat of {shapes} at {axis}")
        total += shape[axis]
    return (*head, total, *tail)


@rule("QLinearConcat", domain=CONTRIB)
def quantized_concat(op: ShapeNode) -> OutputShapes:
    """y_scale, y_zero, (X_i[*S, c_i, *T], scale_i, zero_i)... -> Y[*S, sum c_i, *T]."""
    return [concatenated([op.shape(i) for i in range(2, len(op.inputs), 3)], op.attr("axis", 1))]


@rule("Split")
def split(op: ShapeNode) -> OutputShapes:
    """X[*S, sum c_i, *T] -> Y_i[*S, c_i, *T]."""
    shape = op.shape(0)
    axis, sizes = split_sizes(op)
    return [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]


def split_sizes(op: ShapeNode) -> tuple[int, list[int]]:
    """The axis that a Split cuts and the sizes of the parts."""
    shape = op.shape(0)
    axis = norm_axis(op.attr("axis", 0), len(shape))
    sizes = op.attr_or_values("split", 1)
    if sizes is None:
        parts = op.attr("num_outputs", len(op.node.outputs))
        chunk = -(-shape[axis] // parts)
        sizes = [max(0, min(chunk, shape[axis] - start)) for start in range(0, chunk * parts, chunk)]
    if sum(sizes) != shape[axis]:
        raise Contradiction(f"split of {shape} at {axis} into {sizes}")
    return axis, sizes


def split_bounds(sizes: Sequence[int]) -> list[int]:
    """Where the parts after the first begin."""
    return list(accumulate(sizes[:-1]))


@rule("Slice")
def slice_(op: ShapeNode) -> OutputShapes:
    """X[*S] -> Y[len(start:end:step) at each of the axes]."""
    shape = op.shape(0)
    return [tuple([len(range(dim)[cut]) for dim, cut in zip(shape, slices(op), strict=True)])]


def slices(op: ShapeNode) -> list[slice]:
    """One Python slice per axis of the input of a Slice of any opset."""
    rank = len(op.shape(0))
    starts = op.attr_or_values("starts", 1)
    ends = op.attr_or_values("ends", 2)
    if starts is None or ends is None:
        raise Unresolved
    axes = op.attr_or_values("axes", 3) or range(len(starts))
    steps = op.values(4) if op.has(4) else [1] * len(starts)
    cuts = [slice(None)] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=False):
        cuts[norm_axis(axis, rank)] = slice(start, end, step)
    return cuts


@rule("Gather")
def gather(op: ShapeNode) -> OutputShapes:
    """X[*S, n, *T], index[*I] -> Y[*S, *I, *T]."""
    shape, index = op.shape(0), op.value(1)
    if index.shape is None:
        raise Unresolved
    axis = norm_axis(op.attr("axis", 0), len(shape))
    if index.data is not None and index.data.size and not -shape[axis] <= index.data.max() < shape[axis]:
        raise Contradiction(f"gather of element {index.data.max()} along axis {axis} of {shape}")
    return [shape[:axis] + index.shape + shape[axis + 1 :]]


@rule("Expand")
def expand(op: ShapeNode) -> OutputShapes:
    """X[*S], shape[r] -> Y[broadcast of S and shape]."""
    return [broadcast((op.shape(0), tuple(op.values(1))))]


@rule("Tile")
def tile(op: ShapeNode) -> OutputShapes:
    """X[*S], repeats[rank] -> Y[S * repeats]; before opset 6 one factor and one axis."""
    shape, repeats = op.shape(0), op.values(1)
    if op.version < 6:
        axis = norm_axis(int(op.values(2)[0]), len(shape))
        repeats = [int(repeats[0]) if i == axis else 1 for i in range(len(shape))]
    if len(repeats) != len(shape):
        raise Contradiction(f"tile of {shape} by {repeats}")
    return [tuple([dim * times for dim, times in zip(shape, repeats, strict=True)])]


@rule("Pad", domain=BOTH)
def pad(op: ShapeNode) -> OutputShapes:
    """X[*S], pads[2 * axes] -> Y[S + begin + end]; negative pads cut."""
    shape = op.shape(0)
    pads = op.attr_or_values("pads", 1) or op.attr("paddings")
    if pads is None:
        raise Unresolved
    axes = op.values(3) if op.has(3) else range(len(shape))
    result = list(shape)
    for axis, begin, end in zip(axes, pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True):
        axis = norm_axis(axis, len(shape))
        result[axis] += begin + end
        if result[axis] < 0:
            raise Contradiction(f"pad of {shape} by {pads}")
    return [tuple(result)]


@rule("ExpandDims", domain=CONTRIB)
def expand_dims(op: ShapeNode) -> OutputShapes:
    """X[*S], axis[] -> Y[*S] with a new axis of size 1."""
    shape = op.shape(0)
    axis = norm_axis(int(op.values(1)[0]), len(shape) + 1)
    return [(*shape[:axis], 1, *shape[axis:])]
