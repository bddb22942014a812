"""A copy of a graph that rules can rewrite: nodes in order, constants as initializers.

Tensors are shared with the model, not copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxcanon.arrays import Array
from onnxcanon.errors import ModelError
from onnxcanon.graph.traversal import ordered
from onnxcanon.model import Model
from onnxcanon.normalform.names import Names
from onnxcanon.normalform.type_inference import constant_tensor
from onnxcanon.shapes.sizes import dimensions

Sources = dict[ir.Value, tuple[str, ...]]
"""Constants with the tensors of the original model that they were computed from."""

Declared = tuple[str | None, ir.TypeProtocol | None, ir.Shape | None]
"""Name, type and shape of a graph output."""

Replaceable = list[tuple[ir.Value, ir.TensorProtocol]]
"""Graph inputs with the values they have unless a caller gives others."""


def constant_array(value: ir.Value) -> Array:
    """The entries of a constant."""
    assert value.const_value is not None  # asked of constants only
    return np.asarray(value.const_value.numpy())


def editable_copy(model: Model, whole: ir.Model) -> ir.Model:
    """A copy of a graph with the same tensors, and its nodes in order.

    Args:
        model: the model, for its name.
        whole: its graph, or this with local functions inlined.

    Raises:
        ModelError: If the nodes of a nested graph are not in order.
    """
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


def fix_sizes(graph: ir.Graph, sizes: Mapping[str, int]) -> None:
    """Declare inputs and outputs with fixed sizes in place of dynamic dimensions."""
    for value in (*graph.inputs, *graph.outputs):
        if value.shape is not None and not value.shape.is_static():
            names = dimensions(value) or ()
            value.shape = ir.Shape([sizes.get(str(n), d) for n, d in zip(names, value.shape, strict=True)])


def constants_as_initializers(model: Model, clone: ir.Model) -> Sources:
    """Make every Constant node an initializer; returns all initializers with their names in the model."""
    sources: Sources = {}
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
            sources[new] = (key,)
    for graph in (clone.graph, *clone.graph.subgraphs()):
        for value in graph.initializers.values():
            key = model.key(value)
            if key is not None:
                sources[value] = (key,)
    for value, (key,) in sources.items():
        if key in model.replaced and value.const_value is not None:
            value.const_value = ir.Tensor(model.tensor(key), value.const_value.dtype)
    return sources


def take_replaceable(graph: ir.Graph, ir_version: int) -> Replaceable:
    """Take the values from constants that are inputs too, which a caller may replace; returns them.

    Up to IR version 3 every constant is an input, and none may be replaced: they are inputs no longer.
    """
    both = [value for value in graph.inputs if value.name in graph.initializers]
    if ir_version < 4:
        others = [value for value in graph.inputs if value not in both]
        graph.inputs.clear()
        graph.inputs.extend(others)
        return []
    replaceable: Replaceable = []
    for value in both:
        if value.name and value.const_value is not None:
            del graph.initializers[value.name]
            replaceable.append((value, value.const_value))
            value.const_value = None
    return replaceable


def restore_replaceable(graph: ir.Graph, replaceable: Replaceable) -> None:
    """Make constants of these inputs again."""
    for value, tensor in replaceable:
        value.const_value = tensor
        graph.register_initializer(value)


def restore_outputs(graph: ir.Graph, outputs: Sequence[Declared]) -> None:
    """Give the outputs their names, types and shapes again, each computed by a node of its own."""
    names = Names.of(graph)
    _separate_outputs(graph, outputs)
    taken = {name for name, _, _ in outputs}
    computed = [value for node in graph for value in node.outputs]
    for value in (*computed, *graph.initializers.values()):
        if value.name in taken and not value.is_graph_input():
            value.name = names.free(value.name or "")
    for value, (name, kind, shape) in zip(graph.outputs, outputs, strict=True):
        value.name, value.type, value.shape = name, kind, shape


def _separate_outputs(graph: ir.Graph, outputs: Sequence[Declared]) -> None:
    """Give every output a value of its own that a node computes; an input that was an output stays one."""
    seen: set[ir.Value] = set()
    for k, value in enumerate(graph.outputs):
        passed_on = value.is_graph_input() and value.name == outputs[k][0]
        if not passed_on and (value.producer() is None or value in seen):
            node = ir.node("Identity", [value])
            graph.append(node)
            graph.outputs[k] = value = node.outputs[0]
        seen.add(value)
