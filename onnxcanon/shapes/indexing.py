"""Shapes of operators that pick elements by index."""

from __future__ import annotations

from onnxcanon.graph.operators import BOTH, CLASSICAL
from onnxcanon.shapes.values import OutputShapes, ShapeNode, norm_axis, rule, size_of


@rule("GatherElements")
def gather_elements(op: ShapeNode) -> OutputShapes:
    """X[*S], index[*I] -> Y[*I]."""
    return [op.shape(1)]


@rule("GatherND", domain=BOTH)
def gather_nd(op: ShapeNode) -> OutputShapes:
    """X[*B, *S, *T], index[*B, *I, len S] -> Y[*B, *I, *T]."""
    shape, index = op.shape(0), op.shape(1)
    return [index[:-1] + shape[op.attr("batch_dims", 0) + index[-1] :]]


@rule("Compress")
def compress(op: ShapeNode) -> OutputShapes:
    """X[*S, n, *T], condition[n] -> Y[*S, count, *T]; the count depends on the data."""
    shape, count = op.shape(0), int(op.data(1).sum())
    axis = op.attr("axis")
    if axis is None:
        return [(count,)]
    axis = norm_axis(axis, len(shape))
    return [(*shape[:axis], count, *shape[axis + 1 :])]


@rule("ArrayFeatureExtractor", domain=CLASSICAL)
def features(op: ShapeNode) -> OutputShapes:
    """X[*S, n], positions[m] -> Y[*S, m], with at least two axes."""
    shape, count = op.shape(0), size_of(op.shape(1))
    return [(*(shape[:-1] or (1,)), count)]


@rule("OneHot")
def one_hot(op: ShapeNode) -> OutputShapes:
    """index[*S], depth[], values[2] -> Y[S with depth inserted at axis]."""
    shape = op.shape(0)
    axis = norm_axis(op.attr("axis", -1), len(shape) + 1)
    return [(*shape[:axis], int(op.values(1)[0]), *shape[axis:])]
