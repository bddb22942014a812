"""Sequences of tensors: a bundle keeps the labels of its members until one is taken out."""

from __future__ import annotations

import numpy as np

from onnxcanon.tracing.abstract_value import ValueSequence
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.registry import Outputs, SymmetryNode, Unsupported, register


@register("SequenceConstruct")
def construct(ctx: Context, op: SymmetryNode) -> Outputs:
    """X1, X2, … -> [X1, X2, …]."""
    return ValueSequence([ctx.copy(v) for v in op.xs()])


@register("SequenceEmpty")
def empty(ctx: Context, op: SymmetryNode) -> Outputs:
    """-> []."""
    return ValueSequence([])


def _position(op: SymmetryNode, i: int, default: int) -> int:
    """A position in a sequence, given as input i."""
    if not op.has(i):
        return default
    position = op.data(i)
    if position is None:
        raise Unsupported("a position chosen at run time")
    return int(position.item())


@register("SequenceInsert")
def insert(ctx: Context, op: SymmetryNode) -> Outputs:
    """[X1, X2, …], X, position -> the sequence with X before the position, or at the end."""
    members = [ctx.copy(v) for v in op.bundle(0)]
    at = _position(op, 2, len(members))
    return ValueSequence([*members[:at], ctx.copy(op.x(1)), *members[at:]])


@register("SequenceErase")
def erase(ctx: Context, op: SymmetryNode) -> Outputs:
    """[X1, X2, …], position -> the sequence without the one there, or the last."""
    members = [ctx.copy(v) for v in op.bundle(0)]
    del members[_position(op, 1, -1)]
    return ValueSequence(members)


@register("SequenceLength")
def length(ctx: Context, op: SymmetryNode) -> Outputs:
    """[X1, X2, …] -> how many."""
    op.bundle(0)
    return [None]


@register("Optional", "OptionalGetElement")
def optional(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> X, which may be absent."""
    return ctx.copy(op.x(0))


@register("OptionalHasElement")
def has_element(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> whether it is there."""
    if op.has(0):
        op.x(0)
    return [None]


@register("SplitToSequence")
def split_to_sequence(ctx: Context, op: SymmetryNode) -> Outputs:
    """X, sizes -> the parts along an axis; without sizes, its positions one by one."""
    x = op.x(0)
    axis = op.axis(0, x.rank)
    (n, m) = (shape[axis] for shape in op.in_shapes(0))
    sizes = op.data(1) if op.has(1) else np.array(1)
    if sizes is None or n != m:
        raise Unsupported("split at positions that depend on a dynamic size")
    if sizes.ndim == 0:
        step = int(sizes)
        sizes = np.array([min(step, n - at) for at in range(0, n, step)])
    ends = np.cumsum(sizes)
    parts = [ctx.take(x, axis, np.arange(e - s, e)) for s, e in zip(sizes, ends, strict=True)]
    if not op.has(1) and not op.attr("keepdims", 1):
        parts = [ctx.squeeze(p, axis) for p in parts]
    return ValueSequence(parts)


@register("SequenceAt")
def at(ctx: Context, op: SymmetryNode) -> Outputs:
    """[X1, X2, …], position -> X."""
    members, position = op.bundle(0), op.data(1)
    if position is None:
        raise Unsupported("a position chosen at run time")
    return ctx.copy(members[int(position)])


@register("ConcatFromSequence")
def concat_from_sequence(ctx: Context, op: SymmetryNode) -> Outputs:
    """[X1, X2, …] -> joined along an axis, a new one on request."""
    members = op.bundle(0)
    new = bool(op.attr("new_axis", 0))
    axis = op.axis(0, members[0].rank + new)
    a, b = op.out_shapes()
    if a[axis] != b[axis]:
        raise Unsupported("a sequence of dynamic sizes")
    return ctx.concat([ctx.insert(v, axis) for v in members] if new else members, axis)
