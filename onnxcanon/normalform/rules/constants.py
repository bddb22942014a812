"""What can be computed now: nodes of constants, and integers that follow from static shapes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcanon.graph.element_types import FLOATS
from onnxcanon.normalform.engine import Outputs, Refusal, Rewriting, static
from onnxcanon.normalform.rules.registry import RULES as rule
from onnxcanon.shapes.fold import LIMIT, fold
from onnxcanon.shapes.values import Contradiction, SampleValue, ShapeNode, Unresolved

_MOST_FOLDED = 1 << 30  # elements of a constant that is computed by the code that folds shapes

# These make large tensors of few numbers; they stay, if what they make is large or all alike.
_FILLING = frozenset({"ConstantOfShape", "Expand"})
_EXACT_KINDS = "iub"


@rule()
def evaluated(g: Rewriting, node: ir.Node) -> Outputs:
    """A node all of whose inputs are constants is what it computes."""
    if not node.inputs or not all(value is None or g.is_constant(value) for value in node.inputs):
        return None
    if node.op_type in ("CastLike", "Identity", "DequantizeLinear") or _is_large_fill(g, node):
        return None
    if any(value is not None and value.dtype == ir.DataType.STRING for value in node.inputs):
        return None
    results = _fold(g, node)
    if results is None or len(results) != len(node.outputs):
        return Refusal("has constant inputs but cannot be computed here, or only to more than the budget")
    for value, array in zip(node.outputs, results, strict=True):
        if value.dtype is None or array.dtype != value.dtype.numpy():
            return None
        if array.base is None:
            g.budget -= array.nbytes
    return [g.constant(array, *node.inputs) for array in results]


def _is_large_fill(g: Rewriting, node: ir.Node) -> bool:
    if node.op_type not in _FILLING or not g.is_float(node.outputs[0]):
        return False
    return g.shape(node.outputs[0]) != ()


def _fold(g: Rewriting, node: ir.Node) -> list[np.ndarray] | None:
    """The values, if they are not more than we may allocate."""
    arrays = [g.array(value) for value in node.inputs]
    limit = min(_MOST_FOLDED, max(g.budget, 0) // 8)
    if max((a.size for a in arrays if a is not None), default=0) > max(limit, LIMIT):
        return None
    values = [None if a is None else SampleValue(a.shape, a) for a in arrays]
    with np.errstate(all="ignore"):
        try:
            return fold(ShapeNode(node, values, g.version(node)), limit)
        except (
            Unresolved,
            Contradiction,
            ArithmeticError,
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
        ):
            return None  # the node is malformed


@rule()
def static_integers(g: Rewriting, node: ir.Node) -> Outputs:
    """Integers that do not depend on the sizes of dynamic dimensions."""
    if node.op_type == "Identity" or not all(_is_exact(value) for value in node.outputs):
        return None
    arrays = [g.shapes.data(value) for value in node.outputs]
    results = []
    for value, array in zip(node.outputs, arrays, strict=True):
        if array is None or array.dtype.kind not in _EXACT_KINDS or value.dtype is None:
            return None
        if array.dtype != value.dtype.numpy() or any(
            static(size) is None for size in (g.sizes(value) or ((),))[0]
        ):
            return None
        results.append(array)
    return [g.constant(array) for array in results] if results else None


def _is_exact(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype not in FLOATS


@rule("CastLike")
def cast_like(g: Rewriting, node: ir.Node) -> Outputs:
    """X, Y -> X in the type of Y."""
    like = node.inputs[1]
    if like is None or like.dtype is None:
        return None
    return g.node("Cast", node.inputs[0], attributes={"to": like.dtype.value})
