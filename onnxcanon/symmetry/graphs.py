"""Nodes and the graphs inside them: what is read there, in which order nodes run, local functions inlined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

LARGEST_EXPANSION = 1 << 17
"""Nodes up to which function calls are inlined: functions that call functions can multiply without end."""

GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
Functions = Mapping[ir.OperatorIdentifier, ir.Function]


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs among a node's attributes."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def captured(node: ir.Node) -> Iterator[ir.Value]:
    """Every value read inside a node's subgraphs (outer ones among them)."""
    for graph in subgraphs(node):
        yield from graph.outputs
        for inner in graph:
            yield from reads(inner)


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """Every value a node reads, those read inside its subgraphs included."""
    yield from (value for value in node.inputs if value is not None)
    yield from captured(node)


def ordered(graph: ir.Graph) -> list[ir.Node]:
    """The nodes, every one after those that compute what it reads (not every file is sorted)."""
    nodes: list[ir.Node] = []
    opened: set[ir.Node] = set()
    done: set[ir.Node] = set()
    for root in graph:
        stack = [root]
        while stack:
            node = stack[-1]
            if node in opened:
                stack.pop()
                if node not in done:
                    done.add(node)
                    nodes.append(node)
                continue
            opened.add(node)
            before = (value.producer() for value in reads(node))
            stack += [n for n in before if n is not None and n.graph is graph and n not in opened]
    return nodes


# -- local functions --------------------------------------------------------------------------------


def inlined(model: ir.Model) -> ir.Model:
    """The model with the bodies of local functions in place of their calls; itself where it has none.

    A copy, whose constants are the same tensors. Calls that cannot be replaced (recursive ones, or such that
    pass graphs) stay as they are.
    """
    if not model.functions:
        return model
    try:
        clone = model.clone()
        functions = clone.functions
        for identifier in _recursive(functions):
            del functions[identifier]
        if _expansion(clone.graph, functions, {}) > LARGEST_EXPANSION:
            return model
        odd = {id(functions[node.op_identifier()]) for node in _calls(clone) if _passes_graphs(node)}
        for function in functions.values():
            _keep_versions(function)
        InlinePass(lambda function: id(function) not in odd)(clone)
    except Exception:  # a malformed graph may fail in any way; its calls are then not seen through
        return model
    return clone


def not_inlined(model: ir.Model, functions: Functions) -> set[ir.OperatorIdentifier]:
    """The functions that are still called, directly or by each other."""
    found: set[ir.OperatorIdentifier] = set()
    todo = [node.op_identifier() for node in model.graph.all_nodes()]
    while todo:
        identifier = todo.pop()
        if identifier in functions and identifier not in found:
            found.add(identifier)
            todo += [node.op_identifier() for node in functions[identifier].all_nodes()]
    return found


def _recursive(functions: Functions) -> list[ir.OperatorIdentifier]:
    calls = {
        identifier: {node.op_identifier() for node in function.all_nodes()} & functions.keys()
        for identifier, function in functions.items()
    }
    reached = {identifier: set(direct) for identifier, direct in calls.items()}
    for middle in calls:
        for there in reached.values():
            if middle in there:
                there |= reached[middle]
    return [identifier for identifier, there in reached.items() if identifier in there]


def _expansion(
    graph: ir.Graph | ir.Function, functions: Functions, known: dict[ir.OperatorIdentifier, int]
) -> int:
    """How many nodes there are once every call is replaced."""
    total = 0
    for node in graph.all_nodes():
        identifier = node.op_identifier()
        if identifier in functions and identifier not in known:
            known[identifier] = _expansion(functions[identifier], functions, known)
        total += known.get(identifier, 1)
    return total


def _calls(model: ir.Model) -> Iterator[ir.Node]:
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for graph in graphs:
        yield from (node for node in graph.all_nodes() if node.op_identifier() in model.functions)


def _passes_graphs(node: ir.Node) -> bool:
    return any(attribute.type in GRAPHS for attribute in node.attributes.values())


def _keep_versions(function: ir.Function) -> None:
    """Note at each node the operator set that the function imports; it may differ from the model's."""
    imports = function.opset_imports
    for node in function.all_nodes():
        if node.version is None:
            node.version = imports.get(node.domain, imports.get("ai.onnx") if not node.domain else None)
    imports.clear()
