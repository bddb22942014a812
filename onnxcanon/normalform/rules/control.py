"""An If whose condition is known is the branch it takes."""

from __future__ import annotations

import onnx_ir as ir

from onnxcanon.graph.nodes import attribute
from onnxcanon.normalform.engine import Outputs, Refusal, Rewriting
from onnxcanon.normalform.preparation import constant_array
from onnxcanon.normalform.rules.registry import RULES as rule


@rule("If")
def taken_branch(g: Rewriting, node: ir.Node) -> Outputs:
    """condition[] -> the outputs of one branch, whose nodes take the place of the If."""
    array = g.array(node.inputs[0])
    taken = g.shapes.condition(node) if array is None else bool(array.all()) if array.size == 1 else None
    if taken is None:
        return Refusal("has a condition that is not known")
    branch: ir.Graph = attribute(node, "then_branch" if taken else "else_branch")
    results = list(branch.outputs)
    for value in list(branch.initializers.values()):
        moved = g.constant(constant_array(value), value)
        results = [moved if result is value else result for result in results]
        ir.convenience.replace_all_uses_with(value, moved, replace_graph_outputs=True)
    return g.inlined(node, branch, results)
