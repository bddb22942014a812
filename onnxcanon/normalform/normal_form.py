"""The normal form of a model: a graph of the same function in which spellings coincide.

Exporters and operator sets spell one function in many ways. Rules (`rules`, one function per spelling)
rewrite all of them to one, until none applies; equal subexpressions are merged and what nothing reads is
dropped. The result is a valid ONNX model, so it can be run against the original. Its weights are those of the
original, or computed from them; which ones is kept beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import (
    AddDefaultAttributesPass,
    CommonSubexpressionEliminationPass,
    RemoveUnusedFunctionsPass,
    RemoveUnusedOpsetsPass,
)

from onnxcanon.arrays import Array
from onnxcanon.errors import ModelError
from onnxcanon.graph.traversal import inlined, ordered
from onnxcanon.model import Model, load
from onnxcanon.normalform.dead_nodes import remove_dead
from onnxcanon.normalform.element_types import constant_tensor, infer_types
from onnxcanon.normalform.engine import TARGET, Endless, Rewriting
from onnxcanon.normalform.names import Names
from onnxcanon.normalform.rules import RULES, UPGRADES
from onnxcanon.normalform.structure import order_operands
from onnxcanon.normalform.version_check import Obstacle, check_complete, check_meaning
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
    """

    original: Model
    ir: ir.Model
    sources: Mapping[str, tuple[str, ...]]
    incomplete: str | None

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
    except Obstacle as obstacle:
        return replace(_made(model, sizes or {}, rewrite=False), incomplete=str(obstacle))


def _made(model: Model, sizes: Mapping[str, int], *, rewrite: bool) -> NormalForm:
    """The normal form; without rewriting, functions are inlined and what is not used is dropped."""
    clone, version = _copy(model), model.opset()
    graph = clone.graph
    _fix_sizes(graph, sizes)
    outputs = [(value.name, value.type, value.shape) for value in graph.outputs]
    sources = _constants(model, clone)
    held = _set_aside(graph, clone.ir_version)
    remove_dead(graph)
    infer_types(graph, version)
    incomplete = _rewrite(clone, sources, version) if rewrite else None
    _put_back(graph, held)
    _finish(clone, outputs)
    initializers = [v for part in (graph, *graph.subgraphs()) for v in part.initializers.values()]
    named = {value.name: sources.get(value, ()) for value in reversed(initializers) if value.name}
    return NormalForm(model, clone, named, incomplete)


def _rewrite(model: ir.Model, sources: dict[ir.Value, tuple[str, ...]], version: int) -> str | None:
    """Rewrite the graph by all rules; returns why they did not come to an end."""
    graph = model.graph
    check_complete(graph, version)
    g = Rewriting(graph, infer_shapes(graph, _read), sources, version)
    g.apply(UPGRADES)
    check_meaning(graph, version)
    for node in graph.all_nodes():
        node.version = None
    graph.opset_imports.pop("ai.onnx", None)
    graph.opset_imports[""] = max(version, TARGET)
    model.ir_version = max(model.ir_version, IR_VERSION)
    try:
        while _settle(g, model):
            g.shapes = infer_shapes(graph, _read)  # which sees more in the graph as it is now
        return None
    except Endless as error:
        return f"the rules found no end at {error}"
    finally:
        sources |= g.sources


def _settle(g: Rewriting, model: ir.Model) -> bool:
    """Apply the rules until none applies; returns whether any did."""
    changed = False
    while g.apply(RULES):
        changed = True
        CommonSubexpressionEliminationPass()(model)
        remove_dead(model.graph)
    return changed


def _read(value: ir.Value) -> Array:
    assert value.const_value is not None  # asked of constants only
    return np.asarray(value.const_value.numpy())


# -- before -----------------------------------------------------------------------------------------


def _copy(model: Model) -> ir.Model:
    """A copy of the graph, local functions inlined and nodes in order, with the same tensors."""
    whole = inlined(model.ir)
    graph = whole.graph
    view = ir.GraphView(
        graph.inputs,
        graph.outputs,
        nodes=ordered(graph),
        initializers=list(graph.initializers.values()),
        opset_imports=graph.opset_imports,
        name=graph.name,
    )
    try:
        functions = [function.clone() for function in whole.functions.values()]
        return ir.Model(view.clone(), ir_version=whole.ir_version, functions=functions)
    except RuntimeError as error:
        raise ModelError(
            f"{model.name}: nodes of a nested graph are not in order; sort them first"
        ) from error


def _fix_sizes(graph: ir.Graph, sizes: Mapping[str, int]) -> None:
    """Declare inputs and outputs with fixed sizes in place of the named ones."""
    for value in (*graph.inputs, *graph.outputs):
        if value.shape is not None and not value.shape.is_static():
            dims = [sizes.get(d.value or "", d) if isinstance(d, ir.SymbolicDim) else d for d in value.shape]
            value.shape = ir.Shape(dims)


def _constants(model: Model, clone: ir.Model) -> dict[ir.Value, tuple[str, ...]]:
    """Make every Constant node an initializer; returns all of these with what the model calls them."""
    found: dict[ir.Value, tuple[str, ...]] = {}
    names = Names.of(clone.graph)
    for node in list(clone.graph.all_nodes()):
        tensor = constant_tensor(node)
        key = model.key(node.outputs[0]) if node.outputs else None
        if tensor is None or node.graph is None:
            continue
        old = node.outputs[0]
        new = ir.Value(name=names.free(old.name or "constant"), const_value=tensor)
        new.dtype, new.shape = tensor.dtype, ir.Shape(tensor.shape.numpy())
        clone.graph.register_initializer(new)
        if old.is_graph_output():
            node.graph.insert_before(node, same := ir.node("Identity", [new]))
            new = same.outputs[0]
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        node.graph.remove(node, safe=True)
        if key is not None:
            found[new] = (key,)
    for graph in (clone.graph, *clone.graph.subgraphs()):
        for value in graph.initializers.values():
            key = model.key(value)
            if key is not None:
                found[value] = (key,)
    for value, (key,) in found.items():
        if key in model.replaced and value.const_value is not None:
            value.const_value = ir.Tensor(model.tensor(key), value.const_value.dtype)
    return found


def _set_aside(graph: ir.Graph, ir_version: int) -> list[tuple[ir.Value, ir.TensorProtocol]]:
    """Let constants that the caller may replace be inputs only, until the end.

    Up to IR version 3 every constant is an input, and none may be replaced.
    """
    both = [value for value in graph.inputs if value.name in graph.initializers]
    if ir_version < 4:
        kept = [value for value in graph.inputs if value not in both]
        graph.inputs.clear()
        graph.inputs.extend(kept)
        return []
    held = []
    for value in both:
        if value.name and value.const_value is not None:
            del graph.initializers[value.name]
            held.append((value, value.const_value))
            value.const_value = None
    return held


# -- after ------------------------------------------------------------------------------------------


def _put_back(graph: ir.Graph, held: list[tuple[ir.Value, ir.TensorProtocol]]) -> None:
    for value, tensor in held:
        value.const_value = tensor
        graph.register_initializer(value)


def _finish(model: ir.Model, outputs: Sequence[tuple[str | None, Any, ir.Shape | None]]) -> None:
    """Drop what is not used, spell out defaults, order operands, and give outputs their names again."""
    graph = model.graph
    remove_dead(graph)
    AddDefaultAttributesPass()(model)
    order_operands(graph)
    CommonSubexpressionEliminationPass()(model)
    names = Names.of(graph)
    _separate_outputs(graph, outputs)
    taken = {name for name, _, _ in outputs}
    computed = [value for node in graph for value in node.outputs]
    for value in (*computed, *graph.initializers.values()):
        if value.name in taken and not value.is_graph_input():
            value.name = names.free(value.name or "")
    for value, (name, kind, shape) in zip(graph.outputs, outputs, strict=True):
        value.name, value.type, value.shape = name, kind, shape
    for part in (graph, *graph.subgraphs()):
        labels = Names()
        for node in part:
            node.name = labels.free(node.name or node.op_type)
    RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]  # its __init__ is not annotated
    RemoveUnusedOpsetsPass()(model)


def _separate_outputs(graph: ir.Graph, outputs: Sequence[tuple[str | None, Any, ir.Shape | None]]) -> None:
    """Give every output a value of its own that a node computes; an input that was an output stays one."""
    seen: set[ir.Value] = set()
    for k, value in enumerate(graph.outputs):
        passed_on = value.is_graph_input() and value.name == outputs[k][0]
        if not passed_on and (value.producer() is None or value in seen):
            node = ir.node("Identity", [value])
            graph.append(node)
            graph.outputs[k] = value = node.outputs[0]
        seen.add(value)
