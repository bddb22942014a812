"""What nothing reads: nodes, outputs and constants."""

from __future__ import annotations

import onnx_ir as ir

from onnxcanon.graph.operators import is_standard
from onnxcanon.graph.traits import Trait, has
from onnxcanon.graph.traversal import remove, subgraphs


def remove_dead(graph: ir.Graph) -> None:
    """Remove nodes that nothing reads, with the graphs inside them, unread outputs, and constants."""
    for node in reversed(list(graph)):
        if not is_read(node):
            remove(node)
            continue
        _trim(node)
        for body in subgraphs(node):
            remove_dead(body)
    for name, value in list(graph.initializers.items()):
        if not (value.uses() or value.is_graph_input() or value.is_graph_output()):
            del graph.initializers[name]


def _trim(node: ir.Node) -> None:
    """Drop optional outputs that nothing reads, and optional inputs that are left out, from the end."""
    inputs = list(node.inputs)
    while inputs and inputs[-1] is None:
        inputs.pop()
    node.resize_inputs(len(inputs))
    if not is_standard(node) or not has(node, Trait.OPTIONAL_OUTPUTS):
        return
    count = len(node.outputs)
    while count > 1 and not (node.outputs[count - 1].uses() or node.outputs[count - 1].is_graph_output()):
        count -= 1
    node.resize_outputs(count)


def is_read(node: ir.Node) -> bool:
    """Whether anything reads what a node computes."""
    return any(value.uses() or value.is_graph_output() for value in node.outputs)
