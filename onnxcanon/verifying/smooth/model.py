"""A smooth model: what a quantized model computes, without its rounding.

A quantized model answers in steps: a difference of 1e-7 either vanishes or moves an integer by one, and what
follows by percents. Two equal models may then differ as much as two unequal ones. Taking the rounding and the
clipping to integers out of both leaves functions that two equal models share up to the rounding of floats:

    QuantizeLinear         x / scale + zero point
    DequantizeLinear       (q - zero point) · scale
    DynamicQuantizeLinear  x, scale 1, zero point 0
    ConvInteger, …         Conv and MatMul of (value - zero point)
    QLinear…, QGemm        the operator on dequantized operands, quantized as above

Constants are computed here, so that what was an integer weight with a scale becomes a floating one. `rules`
has a rule for each family of operators, applied by the engine of the normal form.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxcanon.graph.traits import Trait, has
from onnxcanon.graph.traversal import reads, subgraphs
from onnxcanon.model import Model, load
from onnxcanon.normalform.dead_nodes import remove_dead
from onnxcanon.normalform.engine import Rewriting
from onnxcanon.normalform.preparation import (
    constant_array,
    constants_as_initializers,
    editable_copy,
    restore_outputs,
)
from onnxcanon.normalform.type_inference import infer_types
from onnxcanon.shapes import infer_shapes
from onnxcanon.verifying.smooth.rules import SMOOTH_RULES
from onnxcanon.verifying.smooth.scales import Unroundable

MOST_BYTES = 1 << 28  # of weights: floating copies of integers take four times as much


def smooth_model(model: Model) -> Model:
    """The model without rounding to integers; what was an integer on its way is a float.

    Raises:
        Unroundable: an operator is in the way, or the model is too large.
        ModelError: the nodes of a nested graph are not in order.
    """
    if model.serialized_size() > MOST_BYTES:
        raise Unroundable("it is too large to be held as floats")
    for function in model.ir.functions.values():
        if any(has(node, Trait.ROUNDING) for node in function):
            raise Unroundable(f"function {function.name} rounds")
    if model.replaced:  # the graph has what the file holds; constants inside functions are read from there
        model = load(model.to_proto())
    clone, version = editable_copy(model, model.ir), model.opset()
    graph = clone.graph
    outputs = [(value.name, value.type, value.shape) for value in graph.outputs]
    sources = constants_as_initializers(model, clone)
    remove_dead(graph)
    infer_types(graph, version)
    nodes = list(graph)
    g = Rewriting(graph, infer_shapes(graph, constant_array), sources, version, target=version)
    g.apply(SMOOTH_RULES, nested=False)
    for node in nodes:
        if node.graph is graph and not SMOOTH_RULES.of(node, version):
            _check(g, node)
    remove_dead(graph)
    single = ir.TensorType(ir.DataType.FLOAT)
    rows = zip(graph.outputs, outputs, strict=True)
    restore_outputs(graph, [(n, single if v in g.retyped else t, s) for v, (n, t, s) in rows])
    for value in (value for node in graph for value in node.outputs if not value.is_graph_output()):
        value.type = value.shape = None  # those in the file may be of integers, and say nothing new
    return load(ir.to_proto(clone))


def _check(g: Rewriting, node: ir.Node) -> None:
    """Check that a node without a rule neither rounds nor reads what was rounded.

    Raises:
        Unroundable: It does.
    """
    label = f"{node.op_type} '{node.name or node.outputs[0].name}'"
    if has(node, Trait.ROUNDING):
        raise Unroundable(f"{label} has no form without rounding")
    if not g.retyped.isdisjoint(reads(node)):
        raise Unroundable(f"{label} reads rounded values")
    if any(has(inner, Trait.ROUNDING) for body in subgraphs(node) for inner in body.all_nodes()):
        raise Unroundable(f"{label} rounds inside its body")
