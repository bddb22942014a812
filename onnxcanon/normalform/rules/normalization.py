"""Normalizations in terms of means: over layers, instances, groups and batches.

    normalized(x) = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon)

BatchNormalization at inference is a factor and a term per channel, folded into the layer before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxcanon.graph.nodes import attribute, given, made_by
from onnxcanon.normalform.engine import NOT_COMPUTED, UNKNOWN_SIZES, Outputs, Refusal, Rewriting
from onnxcanon.normalform.rules.contraction import CONVOLUTIONS, scaled_convolution
from onnxcanon.normalform.rules.registry import RULES as rule
from onnxcanon.normalform.rules.sizes import size_vector

_HALF = Refusal("is in half precision, where sums in another order differ too much")


def normalized(g: Rewriting, x: ir.Value, axes: Sequence[int], epsilon: float, *, centered: bool) -> ir.Value:
    """x, normalized over axes; without centering it is only divided by its root mean square."""
    over = g.integers(axes)
    if centered:
        x = g.node("Sub", x, g.node("ReduceMean", x, over, attributes={"keepdims": 1}))
    square = g.node("ReduceMean", g.node("Mul", x, x), over, attributes={"keepdims": 1})
    return g.node("Div", x, g.node("Sqrt", g.node("Add", square, g.number(epsilon, x))))


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def layer_normalization(g: Rewriting, node: ir.Node) -> Outputs:
    """X[*, *S], scale[*S], bias[*S] -> X normalized over the axes from `axis` on, times scale, plus bias."""
    x, scale, bias = node.inputs[0], node.inputs[1], given(node, 2)
    rank = g.rank(x)
    others_read = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    if others_read:
        return Refusal("has its mean or deviation read")
    if x is None or scale is None or rank is None or not g.is_float(x):
        return UNKNOWN_SIZES
    axes = range(attribute(node, "axis", -1) % rank, rank)
    wide = ir.DataType(attribute(node, "stash_type", 1))
    inner = x if x.dtype in (wide, ir.DataType.DOUBLE) else g.node("Cast", x, attributes={"to": wide.value})
    centered = node.op_type == "LayerNormalization"
    value = normalized(g, inner, axes, attribute(node, "epsilon", 1e-5), centered=centered)
    if inner is not x and x.dtype is not None:
        value = g.node("Cast", value, attributes={"to": x.dtype.value})
    value = g.node("Mul", value, scale)
    return [value if bias is None else g.node("Add", value, bias), *(None for _ in node.outputs[1:])]


@rule("InstanceNormalization")
def instance_normalization(g: Rewriting, node: ir.Node) -> Outputs:
    """X[N, C, *S], scale[C], bias[C] -> X normalized over S, times scale, plus bias."""
    x, scale, bias = node.inputs
    rank = g.rank(x)
    if x is None or rank is None or rank < 3:
        return UNKNOWN_SIZES
    if x.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
        return _HALF
    value = normalized(g, x, range(2, rank), attribute(node, "epsilon", 1e-5), centered=True)
    return _affine(g, value, scale, bias, rank)


@rule("GroupNormalization")
def group_normalization(g: Rewriting, node: ir.Node) -> Outputs:
    """X[N, C, *S], scale[C], bias[C] -> X normalized over S and the channels of a group."""
    x, scale, bias = node.inputs
    shape, groups = g.sizes(x), attribute(node, "num_groups")
    if x is None or shape is None:
        return UNKNOWN_SIZES
    if x.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
        return _HALF
    n, *rest = shape[0]
    count = len(n)
    inside = tuple(int(np.prod(row)) // groups for row in zip(*rest, strict=True))
    split, whole = size_vector(g, (n, (groups,) * count, inside)), size_vector(g, shape[0])
    if split is None or whole is None:
        return None
    grouped = g.node("Reshape", x, split)
    value = normalized(g, grouped, [2], attribute(node, "epsilon", 1e-5), centered=True)
    return _affine(g, g.node("Reshape", value, whole), scale, bias, len(shape[0]))


def _affine(
    g: Rewriting, value: ir.Value, scale: ir.Value | None, bias: ir.Value | None, rank: int
) -> ir.Value:
    """value[N, C, *S] * scale[C] + bias[C]."""
    axes = g.integers(range(1, rank - 1))
    value = g.node("Mul", value, g.node("Unsqueeze", scale, axes))
    return g.node("Add", value, g.node("Unsqueeze", bias, axes))


@rule("BatchNormalization")
def batch_normalization(g: Rewriting, node: ir.Node) -> Outputs:
    """X[N, C, *S] -> X * s + (bias - mean * s), s = scale / sqrt(var + epsilon); folded into a layer."""
    x, parameters = node.inputs[0], node.inputs[1:5]
    arrays = [g.array(value) for value in parameters]
    rank = g.rank(x)
    others_read = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    if attribute(node, "training_mode", 0) or others_read:
        return Refusal("is in training mode")
    if x is None or x.dtype is None or rank is None or rank < 2:
        return UNKNOWN_SIZES
    if any(array is None for array in arrays):
        return Refusal("has parameters that are computed")
    scale, bias, mean, var = (np.asarray(array, np.float64) for array in arrays)
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(var + np.float32(attribute(node, "epsilon", 1e-5)))
        term = bias - mean * factor
    if not (np.isfinite(factor).all() and np.isfinite(term).all()):
        return NOT_COMPUTED
    layer = made_by(x, *CONVOLUTIONS)
    folded = None if layer is None else scaled_convolution(g, layer, factor, term, *parameters)
    if folded is None:
        shape = (-1, *(1,) * (rank - 2))
        numbers = [
            g.constant(array.astype(x.dtype.numpy()).reshape(shape), *used)
            for array, used in ((factor, (parameters[0], parameters[3])), (term, parameters))
        ]
        folded = g.node("Add", g.node("Mul", x, numbers[0]), numbers[1])
    return [folded, *(None for _ in node.outputs[1:])]
