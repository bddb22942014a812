"""Nodes and the graphs inside them: what is read there, in which order nodes run, local functions inlined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

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
        for inner in ordered(graph):
            yield from reads(inner)
        yield from graph.outputs


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """Every value a node reads, those read inside its subgraphs included."""
    yield from (value for value in node.inputs if value is not None)
    yield from captured(node)


def ordered(graph: ir.Graph) -> list[ir.Node]:
    """The nodes, every one after those that compute what it reads.

    Depth first from the outputs, inputs in their order: the same for every order in which a file stores them.
    Nodes that lead to no output come last.
    """
    return _reached(graph, [*(value.producer() for value in graph.outputs), *graph])


def live(graph: ir.Graph) -> list[ir.Node]:
    """The nodes that lead to an output, in the same order."""
    return _reached(graph, [value.producer() for value in graph.outputs])


def _reached(graph: ir.Graph, roots: Sequence[ir.Node | None]) -> list[ir.Node]:
    nodes: list[ir.Node] = []
    opened: set[ir.Node] = set()
    done: set[ir.Node] = set()
    stack = [node for node in reversed(roots) if node is not None and node.graph is graph]
    while stack:
        node = stack[-1]
        if node in opened:
            stack.pop()
            if node not in done:
                done.add(node)
                nodes.append(node)
            continue
        opened.add(node)
        before = [value.producer() for value in reads(node)]
        stack += [n for n in reversed(before) if n is not None and n.graph is graph and n not in opened]
    return nodes


def leading_to(graph: ir.Graph, names: Iterable[str]) -> set[str]:
    """The names of all values of a graph that some values depend on, these among them."""
    values = {value.name: value for node in graph for value in node.outputs}
    needed: set[str] = set()
    stack = list(names)
    while stack:
        name = stack.pop()
        if name not in needed:
            needed.add(name)
            producer = values[name].producer() if name in values else None
            stack += [value.name for value in reads(producer) if value.name] if producer else ()
    return needed


def pruned(model: ir.Model, original: ir.Model) -> ir.Model:
    """The model without nodes that lead to no output; itself where it has none, a copy if it is `original`.

    The constants of the copy are the same tensors."""
    if not _dead(model.graph):
        return model
    out = model.clone() if model is original else model
    _remove_dead(out.graph)
    return out


def _dead(graph: ir.Graph) -> bool:
    nodes = live(graph)
    return len(nodes) < len(graph) or any(_dead(body) for node in nodes for body in subgraphs(node))


def _remove_dead(graph: ir.Graph) -> None:
    kept = set(live(graph))
    for node in reversed(ordered(graph)):
        if node not in kept:
            remove(node)
            continue
        for body in subgraphs(node):
            _remove_dead(body)


def remove(node: ir.Node) -> None:
    """Remove a node that nothing reads; those inside its graphs let go of what they read."""
    for body in subgraphs(node):
        body.outputs.clear()
        for inner in list(body.all_nodes()):
            inner.resize_inputs(0)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


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
