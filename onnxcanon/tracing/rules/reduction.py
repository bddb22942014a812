"""Reductions, softmax, and the operators that read an axis as an index."""

from __future__ import annotations

from onnxcanon.graph.traits import Trait, operators, row
from onnxcanon.tracing.abstract_value import FIXED, UNIFORM, AbstractValue, constant
from onnxcanon.tracing.constraints import System
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.registry import Outputs, SymmetryNode, register


@register(*operators(Trait.REDUCTION))
def reduce(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> the reduction over axes; sums and means are linear, maxima and 1-norms positively homogeneous."""
    x, traits = ctx.bind(op.x(0)), row(op.node).traits
    linear = Trait.LINEAR in traits
    axes = op.axes(1, x.rank)
    if axes is None or not axes:
        if op.attr("noop_with_empty_axes", 0):
            return ctx.copy(x) if linear else ctx.stop(x)
        axes = list(range(x.rank))
    if op.kind == "ReduceSumSquare":
        x = ctx.elementwise([x, x], product=True)
    elif Trait.EVEN in traits:
        x = ctx.without(x, System.SIGN)
    elif Trait.HOMOGENEOUS in traits and not linear:
        x = ctx.stop(x, System.SIGN)
    elif not linear:
        x = ctx.stop(x)
    return ctx.reduce(x, axes, keepdims=bool(op.attr("keepdims", 1)))


@register("LogSoftmax", "Softmax")
def softmax(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> softmax along an axis (over all axes from it on before opset 13): moves with its labels."""
    x = op.x(0)
    axis = op.axis(1 if op.version < 13 else -1, x.rank)
    return soft_maximum(ctx, x, list(range(axis, x.rank)) if op.version < 13 else [axis])


def soft_maximum(ctx: Context, x: AbstractValue, axes: list[int]) -> AbstractValue:
    """Softmax over axes taken together."""
    x = ctx.stop(x)
    for k in range(x.rank):
        if k not in axes:
            x.ids[k] = ctx.forget(x.ids[k], axes)
    return x


def _index_axis(ctx: Context, x: AbstractValue, axis: int, reason: str) -> AbstractValue:
    """Fix an axis that is read as an index, and forget it as context."""
    return ctx.stop(ctx.gather_unknown(x, axis, reason))


@register("ArgMax", "ArgMin")
def argmax(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> the position of the extremum along an axis."""
    x = op.x(0)
    axis = op.axis(0, x.rank)
    still = _index_axis(ctx, x, axis, f"its positions are the result of {op.kind}")
    return ctx.reduce(still, [axis], keepdims=bool(op.attr("keepdims", 1)))


@register("CumProd", "CumSum", "Hardmax")
def ordered(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> Y of the same shape, reading an axis in order."""
    x = op.x(0)
    if op.kind != "Hardmax":
        static = op.data(1)
        axes = range(x.rank) if static is None else [int(static.item()) % x.rank]
    else:
        axis = op.axis(1 if op.version < 13 else -1, x.rank)
        axes = range(axis, x.rank) if op.version < 13 else [axis]
    for axis in axes:
        x = _index_axis(ctx, x, axis, f"{op.kind} reads it in order")
    return x


@register("TopK")
def top_k(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> the k largest along an axis and their positions."""
    x = op.x(0)
    axis = op.axis(-1, x.rank)
    still = _index_axis(ctx, x, axis, "its positions are the result of TopK")
    outs = []
    for shape in (op.out_shapes(0)[0], op.out_shapes(1)[0]):
        y = constant(shape)
        y.ids = [s if k != axis else (UNIFORM if shape[k] == 1 else FIXED) for k, s in enumerate(still.ids)]
        outs.append(y)
    return outs
