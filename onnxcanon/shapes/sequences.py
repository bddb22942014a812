"""Sequence operators, for shapes and values alike; torch exports of attention split with them."""

from __future__ import annotations

import numpy as np

from onnxcanon.shapes.rearrangement import concatenated, split_bounds
from onnxcanon.shapes.values import (
    VALUES,
    Contradiction,
    SampleSequence,
    SampleValue,
    ShapeNode,
    Unresolved,
    norm_axis,
)


def sequence(items: tuple[SampleValue, ...]) -> SampleValue:
    """A sequence of these items."""
    return SampleSequence(None, items=items)


def items_of(op: ShapeNode) -> tuple[SampleValue, ...]:
    """The items of a sequence that is the first input."""
    value = op.value(0)
    if not isinstance(value, SampleSequence):
        raise Unresolved
    return value.items


def place(op: ShapeNode, index: int, count: int) -> int:
    """The position that an optional input names among `count`, the last by default."""
    position = int(op.values(index)[0]) if op.has(index) else count - 1
    if not -count <= position < count:
        raise Contradiction(f"item {position} of a sequence of {count}")
    return position % count


@VALUES.register("SequenceConstruct")
def construct(op: ShapeNode) -> SampleValue:
    """X_i[*S_i]... -> sequence of X_i."""
    return sequence(tuple(value for value in op.inputs if value is not None))


@VALUES.register("SequenceEmpty")
def empty(op: ShapeNode) -> SampleValue:
    """-> sequence of nothing."""
    return sequence(())


@VALUES.register("SequenceAt")
def at(op: ShapeNode) -> SampleValue:
    """sequence, position[] -> item."""
    items = items_of(op)
    return items[place(op, 1, len(items))]


@VALUES.register("SequenceInsert")
def insert(op: ShapeNode) -> SampleValue:
    """sequence, X, position[] -> sequence with X before the position, or at the end."""
    items = items_of(op)
    position = place(op, 2, len(items)) if op.has(2) else len(items)
    return sequence((*items[:position], op.value(1), *items[position:]))


@VALUES.register("SequenceErase")
def erase(op: ShapeNode) -> SampleValue:
    """sequence, position[] -> sequence without the item."""
    items = items_of(op)
    position = place(op, 1, len(items))
    return sequence((*items[:position], *items[position + 1 :]))


@VALUES.register("SequenceLength")
def length(op: ShapeNode) -> SampleValue:
    """sequence -> []."""
    return SampleValue((), np.array(len(items_of(op)), np.int64))


@VALUES.register("SplitToSequence")
def split(op: ShapeNode) -> SampleValue:
    """X[*S, sum c_i, *T], sizes or one size -> sequence of [*S, c_i, *T]; default [*S, 1, *T] or [*S, *T]."""
    shape, data = op.shape(0), op.value(0).data
    axis = norm_axis(op.attr("axis", 0), len(shape))
    total = shape[axis]
    if not op.has(1):
        sizes = [1] * total
    elif op.shape(1) == ():
        step = int(op.values(1)[0])
        sizes = [min(step, total - start) for start in range(0, total, step)]
    else:
        sizes = op.values(1)
    if sum(sizes) != total:
        raise Contradiction(f"split of {shape} at {axis} into {sizes}")
    parts = [None] * len(sizes) if data is None else np.split(data, split_bounds(sizes), axis)
    if not op.has(1) and not op.attr("keepdims", 1):
        rest = shape[:axis] + shape[axis + 1 :]
        items = [None if part is None else part.reshape(rest) for part in parts]
        return sequence(tuple(SampleValue(rest, item) for item in items))
    shapes = [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]
    return sequence(tuple(SampleValue(item, part) for item, part in zip(shapes, parts, strict=True)))


@VALUES.register("ConcatFromSequence")
def concat(op: ShapeNode) -> SampleValue:
    """sequence of [*S, c_i, *T] -> [*S, sum c_i, *T], or with new_axis [*S, count, *T]."""
    items = items_of(op)
    shapes = [item.shape for item in items if item.shape is not None]
    if not shapes or len(shapes) != len(items):
        raise Unresolved
    arrays = [item.data for item in items if item.data is not None]
    axis = op.attr("axis")
    if op.attr("new_axis", 0):
        axis = norm_axis(axis, len(shapes[0]) + 1)
        if any(shape != shapes[0] for shape in shapes):
            raise Contradiction(f"stack of {shapes}")
        data = np.stack(arrays, axis) if len(arrays) == len(items) else None
        return SampleValue((*shapes[0][:axis], len(shapes), *shapes[0][axis:]), data)
    data = np.concatenate(arrays, axis) if len(arrays) == len(items) else None
    return SampleValue(concatenated(shapes, axis), data)
