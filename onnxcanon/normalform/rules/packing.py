"""Packed layers: a product whose columns are only read in parts is one product for each part.

    (x @ W + b)[:, i:j] = x @ W[:, i:j] + b[i:j]

Query, key and value in one matrix, or gate and value of a gated unit, then look as if they never had been
packed. Parts must not overlap: each column of W stays one parameter.
"""

from __future__ import annotations

from itertools import pairwise

import onnx_ir as ir

from onnxcanon.graph.nodes import made_by
from onnxcanon.normalform.engine import SHARED_WEIGHT, Outputs, Refusal, Rewriting
from onnxcanon.normalform.rules.registry import RULES as rule
from onnxcanon.normalform.rules.slicing import one_cut, part

_POINTWISE = ("Add", "Mul")


@rule("Slice")
def part_of_product(g: Rewriting, node: ir.Node) -> Outputs:
    """(X @ W[K, N])[..., i:j] -> X @ W[:, i:j]."""
    product, cut = made_by(node.inputs[0], "MatMul"), one_cut(g, node)
    if product is None or cut is None:
        return None
    weight = product.inputs[1]
    array = g.array(weight)
    if array is None or array.ndim != 2 or weight is None:
        return None
    if not _is_unpacked(g, product.outputs[0], None):
        return Refusal("cuts a product whose parts overlap, or that is also read whole")
    if len(weight.uses()) != 1:
        return SHARED_WEIGHT
    return g.node("MatMul", product.inputs[0], g.constant(array[:, cut[1] : cut[2]], weight))


@rule("Slice")
def part_of_parameters(g: Rewriting, node: ir.Node) -> Outputs:
    """(X @ W + b[N])[..., i:j] -> (X @ W)[..., i:j] + b[i:j], and likewise for factors."""
    layer, cut = made_by(node.inputs[0], *_POINTWISE), one_cut(g, node)
    if layer is None or cut is None or not _is_unpacked(g, layer.outputs[0], None):
        return None
    x, c = layer.inputs
    array = g.array(c)
    if (
        x is None
        or array is None
        or not g.is_own(c)
        or not _is_product(g, x)
        or not _is_unpacked(g, x, layer)
    ):
        return None
    size = g.shape(x)
    if array.ndim > 1 or size is None or (array.ndim and array.shape != size[-1:]):
        return None
    cut_c = c if array.ndim == 0 else g.constant(array[cut[1] : cut[2]], c)
    return g.node(layer.op_type, part(g, x, *cut), cut_c)


def _is_product(g: Rewriting, value: ir.Value) -> bool:
    """Whether a value is a product with a matrix of parameters, up to factors and terms."""
    node = made_by(value, "MatMul", *_POINTWISE)
    while node is not None and node.op_type != "MatMul" and g.is_constant(node.inputs[1]):
        node = made_by(node.inputs[0], "MatMul", *_POINTWISE)
    return node is not None and node.op_type == "MatMul" and g.is_constant(node.inputs[1])


def _is_unpacked(g: Rewriting, value: ir.Value, reader: ir.Node | None) -> bool:
    """Whether all that read a value, but for one reader, cut disjoint parts of its last axis."""
    rank = g.rank(value)
    if rank is None or value.is_graph_output():
        return False
    bounds = []
    for node in {use.node for use in value.uses()} - {reader}:
        cut = one_cut(g, node) if node.op_type == "Slice" and node.inputs[0] is value else None
        if cut is None or cut[0] != rank - 1:
            return False
        bounds.append(cut[1:])
    bounds.sort()
    return all(left[1] <= right[0] for left, right in pairwise(bounds))
