"""Shapes of reductions, searches and counts along axes."""

from __future__ import annotations

from collections.abc import Sequence

from onnxcanon.arrays import Shape
from onnxcanon.graph.operators import CONTRIB
from onnxcanon.graph.traits import Trait, operators
from onnxcanon.shapes.values import Contradiction, OutputShapes, ShapeNode, norm_axis, rule


@rule(*operators(Trait.REDUCTION))
@rule("ReduceSumInteger", domain=CONTRIB)
def reduce(op: ShapeNode) -> OutputShapes:
    """X[*S] -> Y[S with 1 at the axes, or without them]; no axes: all, or none with noop_with_empty_axes."""
    shape = op.shape(0)
    return [reduced(shape, reduced_axes(op), op.attr("keepdims", 1))]


def reduced_axes(op: ShapeNode) -> Sequence[int]:
    """The axes that a reduction runs over, non-negative."""
    rank = len(op.shape(0))
    axes = op.attr_or_values("axes", 1)
    if axes:
        return [norm_axis(axis, rank) for axis in axes]
    return () if op.attr("noop_with_empty_axes", 0) else range(rank)


def reduced(shape: Shape, axes: Sequence[int], keepdims: bool) -> Shape:
    """The shape after reducing the axes."""
    if keepdims:
        return tuple([1 if axis in axes else dim for axis, dim in enumerate(shape)])
    return tuple([dim for axis, dim in enumerate(shape) if axis not in axes])


@rule("ArgMax", "ArgMin")
def arg_max(op: ShapeNode) -> OutputShapes:
    """X[*S] -> index[S with 1 at the axis, or without it]."""
    shape = op.shape(0)
    return [reduced(shape, [norm_axis(op.attr("axis", 0), len(shape))], op.attr("keepdims", 1))]


@rule("TopK")
def top_k(op: ShapeNode) -> OutputShapes:
    """X[*S, n, *T], K[1] -> values[*S, K, *T], indices[*S, K, *T]."""
    shape = op.shape(0)
    k = op.attr("k")
    if k is None:
        k = int(op.values(1)[0])
    axis = norm_axis(op.attr("axis", -1), len(shape))
    if k > shape[axis]:
        raise Contradiction(f"top {k} of {shape} along axis {axis}")
    result = (*shape[:axis], k, *shape[axis + 1 :])
    return [result, result]


@rule("SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss")
def cross_entropy(op: ShapeNode) -> OutputShapes:
    """X[N, C, *S], labels[N, *S], weights[C] -> loss[N, *S] or [], log probabilities[N, C, *S]."""
    none = op.attr("reduction", "mean") == "none"
    return [op.shape(1) if none else (), op.shape(0)]
