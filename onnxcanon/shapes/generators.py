"""Shapes of constants, ranges and random draws."""

from __future__ import annotations

import math

from onnxcanon.graph.operators import BOTH
from onnxcanon.shapes.values import Contradiction, OutputShapes, ShapeNode, rule


@rule("ConstantOfShape")
def constant_of_shape(op: ShapeNode) -> OutputShapes:
    """shape[r] -> Y[*shape]."""
    return [tuple(op.values(0))]


@rule("Range", domain=BOTH)
def range_(op: ShapeNode) -> OutputShapes:
    """start[], limit[], delta[] -> Y[ceil((limit - start) / delta)]."""
    start, limit = op.values(0)[0], op.values(1)[0]
    delta = op.values(2)[0] if op.has(2) else 1
    if delta == 0:
        raise Contradiction("range with step 0")
    return [(max(0, math.ceil((limit - start) / delta)),)]


@rule("RandomNormal", "RandomUniform")
def random(op: ShapeNode) -> OutputShapes:
    """-> Y[*shape]."""
    return [tuple(op.attr("shape"))]


@rule("Multinomial")
def multinomial(op: ShapeNode) -> OutputShapes:
    """X[N, C] -> index[N, sample_size]."""
    return [(op.shape(0)[0], op.attr("sample_size", 1))]
