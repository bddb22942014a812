"""The normal form of a model: a graph of the same function in which different exports coincide.

Exporters and operator sets write one function in many forms. Rules (`rules`, one function per rewrite
pattern) reduce these to one, until none applies; equal subexpressions are merged and dead nodes removed. The
result is a valid ONNX model, so it can be run against the original. Its weights are those of the original, or
computed from them; `sources` says from which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import onnx_ir as ir
from onnx_ir.passes.common import (
    AddDefaultAttributesPass,
    CommonSubexpressionEliminationPass,
    RemoveUnusedFunctionsPass,
    RemoveUnusedOpsetsPass,
)

from onnxcanon.graph.nodes import node_name
from onnxcanon.graph.traversal import inlined
from onnxcanon.model import Model, load
from onnxcanon.normalform.dead_nodes import remove_dead
from onnxcanon.normalform.engine import TARGET, NonTermination, Refusal, Rewriting, Rule, pattern_of
from onnxcanon.normalform.names import Names
from onnxcanon.normalform.preparation import (
    Declared,
    Sources,
    constant_array,
    constants_as_initializers,
    editable_copy,
    fix_sizes,
    restore_outputs,
    restore_replaceable,
    take_replaceable,
)
from onnxcanon.normalform.rules import RULES, UPGRADES
from onnxcanon.normalform.structure import order_operands
from onnxcanon.normalform.type_inference import infer_types
from onnxcanon.normalform.version_check import CannotUpgrade, check_complete, check_meaning
from onnxcanon.shapes import infer_shapes

IR_VERSION = 10
"""The version of the format that belongs to the target's operator set."""


@dataclass(frozen=True)
class NormalForm:
    """The normal form of a model.

    Attributes:
        original: the model it was made of.
        ir: the graph, in onnx-ir. Its large tensors are those of the original, or views of them where they
            are only transposed, reshaped or cut.
        sources: for each initializer by name, those of nested graphs included, the tensors of the original it
            was computed from (as `original.tensor_names()` calls them); empty for numbers that no tensor of
            the original holds.
        incomplete: why the graph is not rewritten as far as others are; None where it is.
        refusals: rules whose pattern a node of the graph matches but that left it as it is, with the reason:
            where two exports of one model do not coincide, the cause is often among them.
    """

    original: Model
    ir: ir.Model
    sources: Mapping[str, tuple[str, ...]]
    incomplete: str | None
    refusals: tuple[Refusal, ...] = ()

    @cached_property
    def model(self) -> Model:
        """The normal form as a model of its own, in memory.

        Raises:
            ModelError: If it does not fit into one protobuf message (2 GB).
        """
        return load(ir.to_proto(self.ir))


def normal_form(model: Model, sizes: Mapping[str, int] | None = None) -> NormalForm:
    """The normal form of a model, which is not changed.

    Args:
        model: the model. Tensors replaced by `with_tensors` are seen as they are now.
        sizes: dynamic dimensions, by name, that are fixed to a size: a model exported for one batch is
            compared with one for any under the size of that batch.
    """
    try:
        return _made(model, sizes or {}, rewrite=True)
    except CannotUpgrade as reason:
        return replace(_made(model, sizes or {}, rewrite=False), incomplete=str(reason))


def _made(model: Model, sizes: Mapping[str, int], *, rewrite: bool) -> NormalForm:
    """The normal form; without rewriting, functions are inlined and what is not used is dropped."""
    clone, version = editable_copy(model, inlined(model.ir)), model.opset()
    graph = clone.graph
    fix_sizes(graph, sizes)
    outputs = [(value.name, value.type, value.shape) for value in graph.outputs]
    sources = constants_as_initializers(model, clone)
    replaceable = take_replaceable(graph, clone.ir_version)
    remove_dead(graph)
    infer_types(graph, version)
    incomplete, refusals = _rewrite(clone, sources, version) if rewrite else (None, [])
    restore_replaceable(graph, replaceable)
    _finish(clone, outputs)
    initializers = [v for part in (graph, *graph.subgraphs()) for v in part.initializers.values()]
    named = {value.name: sources.get(value, ()) for value in reversed(initializers) if value.name}
    reasons = tuple(
        Refusal(reason, pattern_of(rule), node_name(node))
        for rule, node, reason in refusals
        if node.graph is not None  # not one of a branch that was never taken, or merged into its equal
    )
    return NormalForm(model, clone, named, incomplete, reasons)


def _rewrite(
    model: ir.Model, sources: Sources, version: int
) -> tuple[str | None, list[tuple[Rule, ir.Node, str]]]:
    """Rewrite the graph by all rules; returns why they did not come to an end, and what they refused."""
    graph = model.graph
    check_complete(graph, version)
    g = Rewriting(graph, infer_shapes(graph, constant_array), sources, version)
    g.apply(UPGRADES)
    check_meaning(graph, version)
    for node in graph.all_nodes():
        node.version = None
    graph.opset_imports.pop("ai.onnx", None)
    graph.opset_imports[""] = max(version, TARGET)
    model.ir_version = max(model.ir_version, IR_VERSION)
    try:
        while _to_fixpoint(g, model):
            g.shapes = infer_shapes(graph, constant_array)  # which sees more in the graph as it is now
        return None, g.refusals
    except NonTermination as error:
        return f"the rules found no end at {error}", g.refusals
    finally:
        sources |= g.sources


def _to_fixpoint(g: Rewriting, model: ir.Model) -> bool:
    """Apply the rules until none applies; returns whether any did."""
    changed = False
    while g.apply(RULES):
        changed = True
        CommonSubexpressionEliminationPass()(model)
        remove_dead(model.graph)
    return changed


# -- after ------------------------------------------------------------------------------------------


def _finish(model: ir.Model, outputs: Sequence[Declared]) -> None:
    """Remove what is not used, make defaults explicit, order operands, and give outputs their names again."""
    graph = model.graph
    remove_dead(graph)
    AddDefaultAttributesPass()(model)
    order_operands(graph)
    CommonSubexpressionEliminationPass()(model)
    restore_outputs(graph, outputs)
    for part in (graph, *graph.subgraphs()):
        labels = Names()
        for node in part:
            node.name = labels.free(node.name or node.op_type)
    RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]  # its __init__ is not annotated
    RemoveUnusedOpsetsPass()(model)
