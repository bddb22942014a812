"""Shapes of normalizations that return their statistics; the others keep the shape of their input."""

from __future__ import annotations

from onnxcanon.graph.operators import BOTH, CONTRIB
from onnxcanon.shapes.values import OutputShapes, ShapeNode, norm_axis, rule


@rule("BatchNormalization")
def batch_norm(op: ShapeNode) -> OutputShapes:
    """X[N, C, *S], scale[C], ... -> Y[N, C, *S], up to four statistics [C]."""
    return [op.shape(0), *[op.shape(1)] * (len(op.node.outputs) - 1)]


@rule("LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization", domain=BOTH)
def layer_norm(op: ShapeNode) -> OutputShapes:
    """X[*S, *N] -> Y[*S, *N], mean[*S, 1...], inverse deviation[*S, 1...]."""
    shape = op.shape(0)
    axis = norm_axis(op.attr("axis", -1), len(shape))
    statistics = shape[:axis] + (1,) * (len(shape) - axis)
    return [shape, statistics, statistics]


@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SkipGroupNorm", domain=CONTRIB)
def skip_layer_norm(op: ShapeNode) -> OutputShapes:
    """X[*S, C], skip, ... -> Y[*S, C], mean[*S, 1], inverse deviation[*S, 1], X + skip [*S, C]."""
    shape = op.shape(0)
    if op.kind == "SkipGroupNorm":
        return [shape, shape]
    statistics = (*shape[:-1], 1)
    return [shape, statistics, statistics, shape]
