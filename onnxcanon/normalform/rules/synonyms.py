"""Nodes that do nothing, and operators that have several forms of one meaning."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcanon.graph.nodes import attribute, given, made_by
from onnxcanon.graph.traits import Trait, operators
from onnxcanon.normalform.engine import UNKNOWN_SIZES, Outputs, Refusal, Rewriting
from onnxcanon.normalform.rules.registry import RULES as rule
from onnxcanon.normalform.rules.sizes import size_vector


@rule("Identity")
def identity(g: Rewriting, node: ir.Node) -> Outputs:
    """X -> X; one stays where an output needs a node of its own."""
    x = node.inputs[0]
    if x is None or (node.outputs[0].is_graph_output() and not _may_be_output(g, node, x)):
        return None
    return x


def _may_be_output(g: Rewriting, node: ir.Node, x: ir.Value) -> bool:
    producer = x.producer()
    return producer is not None and producer.graph is node.graph and not x.is_graph_output()


@rule("Dropout")
def dropout(g: Rewriting, node: ir.Node) -> Outputs:
    """X -> X at inference, and the mask, if it is not read."""
    training = given(node, 2)
    mask_read = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    if mask_read or (training is not None and g.scalar(training) != 0):
        return Refusal("has its mask read, or may be in training mode")
    return [node.inputs[0], *(None for _ in node.outputs[1:])]


@rule("Cast")
def cast(g: Rewriting, node: ir.Node) -> Outputs:
    """X -> X where it has the type already."""
    x = node.inputs[0]
    return x if x is not None and x.dtype is not None and attribute(node, "to") == x.dtype else None


@rule("Concat")
def concat_of_one(g: Rewriting, node: ir.Node) -> Outputs:
    """X -> X."""
    return node.inputs[0] if len(node.inputs) == 1 else None


@rule("Concat")
def nested_concat(g: Rewriting, node: ir.Node) -> Outputs:
    """A part that is itself joined along the same axis comes apart."""
    axis, parts = attribute(node, "axis"), []
    for value in node.inputs:
        inner = made_by(value, "Concat")
        joined = inner is not None and attribute(inner, "axis") == axis and axis >= 0
        parts += list(inner.inputs) if inner is not None and joined else [value]
    return None if len(parts) == len(node.inputs) else g.renewed(node, inputs=parts)


@rule("Sum", "Max", "Min")
def of_several(g: Rewriting, node: ir.Node) -> Outputs:
    """X1, X2, X3 -> two at a time; Sum of two is Add."""
    if len(node.inputs) == 1:
        return node.inputs[0]
    op_type = "Add" if node.op_type == "Sum" else node.op_type
    if len(node.inputs) == 2 and op_type == node.op_type:
        return None
    value = node.inputs[0]
    for other in node.inputs[1:]:
        value = g.node(op_type, value, other)
    return value


@rule("Pad")
def pad(g: Rewriting, node: ir.Node) -> Outputs:
    """X -> X where nothing is added; all axes are explicit."""
    x, pads, axes = node.inputs[0], g.ints(node.inputs[1]), given(node, 3)
    if x is None or pads is None or not g.is_constant(node.inputs[1]):
        return Refusal("has padding that is computed")
    if not any(pads):
        return x
    rank, listed = g.rank(x), g.ints(axes)
    if rank is None or listed is None:
        return None
    whole = [0] * (2 * rank)
    for k, axis in enumerate(listed):
        whole[axis % rank], whole[axis % rank + rank] = pads[k], pads[k + len(listed)]
    return g.renewed(node, inputs=[x, g.integers(whole), given(node, 2)])


@rule("Expand")
def expand(g: Rewriting, node: ir.Node) -> Outputs:
    """X, shape -> X where it has the shape; else the shape of the result is what is asked for."""
    x, wanted = node.inputs
    sizes = g.sizes(x, node.outputs[0])
    if sizes is None:
        return UNKNOWN_SIZES
    if sizes[0] == sizes[1]:
        return x
    target = size_vector(g, sizes[1])
    if target is None or target is wanted or (wanted in g.final and target in g.final):
        return None
    if g.is_constant(target) and g.is_constant(wanted) and g.ints(target) == g.ints(wanted):
        return None
    return g.node("Expand", x, target)


@rule("ConstantOfShape")
def constant_of_shape(g: Rewriting, node: ir.Node) -> Outputs:
    """shape -> a number that is expanded."""
    value = attribute(node, "value")
    number = np.zeros((), np.float32) if value is None else value.numpy().reshape(())
    if g.rank(node.outputs[0]) is None or node.inputs[0] is None:
        return None
    return g.node("Expand", g.constant(number), node.inputs[0])


@rule("Reshape", "Transpose", "Slice", "Expand")
def rearranged_fill(g: Rewriting, node: ir.Node) -> Outputs:
    """A part or rearrangement of one repeated number is that number, repeated."""
    fill = made_by(node.inputs[0], "Expand")
    sizes = g.sizes(node.outputs[0])
    if fill is None or sizes is None or not g.is_constant(fill.inputs[0]) or g.rank(fill.inputs[0]) != 0:
        return None
    target = size_vector(g, sizes[0])
    return None if target is None else g.node("Expand", fill.inputs[0], target)


@rule(*operators(Trait.REDUCTION))
def reduction(g: Rewriting, node: ir.Node) -> Outputs:
    """X, axes -> reduced axes are kept with size 1 and dropped after; axes count from zero, in order."""
    x, axes = node.inputs[0], given(node, 1)
    rank = g.rank(x)
    if rank is None or (axes is not None and not g.is_constant(axes)):
        return Refusal("has axes that are computed, or a rank that is not known")
    listed = g.ints(axes) or []
    if not listed and attribute(node, "noop_with_empty_axes", 0):
        return None
    wanted = sorted(axis % rank for axis in listed) or list(range(rank))
    keep = attribute(node, "keepdims", 1)
    if listed == wanted and keep:
        return None
    result = g.node(node.op_type, x, g.integers(wanted), attributes={"keepdims": 1})
    return result if keep else g.node("Squeeze", result, g.integers(wanted))


@rule("ArgMax", "ArgMin")
def arg_reduction(g: Rewriting, node: ir.Node) -> Outputs:
    """X -> the reduced axis is kept with size 1 and dropped after."""
    rank = g.rank(node.inputs[0])
    if rank is None or attribute(node, "keepdims", 1):
        return None
    axis = attribute(node, "axis", 0) % rank
    result = g.renewed(node, {"keepdims": 1, "axis": axis})[0]
    return g.node("Squeeze", result, g.integers([axis]))


@rule("GlobalAveragePool", "GlobalMaxPool")
def global_pool(g: Rewriting, node: ir.Node) -> Outputs:
    """X[N, C, *S] -> its mean or maximum over S."""
    rank = g.rank(node.inputs[0])
    if rank is None:
        return UNKNOWN_SIZES
    op_type = "ReduceMean" if node.op_type == "GlobalAveragePool" else "ReduceMax"
    return g.node(op_type, node.inputs[0], g.integers(range(2, rank)), attributes={"keepdims": 1})


@rule(*operators(Trait.AXIS_OF_FIRST))
def axis_from_zero(g: Rewriting, node: ir.Node) -> Outputs:
    """An axis is counted from the first."""
    default = {"Softmax": -1, "LogSoftmax": -1, "Hardmax": -1, "TopK": -1, "LpNormalization": -1}
    axis, rank = attribute(node, "axis", default.get(node.op_type)), g.rank(node.inputs[0])
    if axis is None or axis >= 0 or rank is None:
        return None
    return g.renewed(node, {"axis": axis + rank})
