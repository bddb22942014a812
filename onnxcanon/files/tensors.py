"""Where the tensors of a model lie: in its bytes, and in its graphs, at any depth.

A tensor is an initializer or an attribute: of the main graph, of a graph nested in a node's attribute, or of
a local function. Its *path* is the chain of protobuf fields that leads to it, which is what a save replaces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import onnx
import onnx_ir as ir

from onnxcanon.files import wire
from onnxcanon.files.wire import Field, FieldPath
from onnxcanon.graph.operators import is_standard

Step = tuple[int, str, int]


class RepeatedField(Exception):
    """A field that may occur once occurs several times: legal, protobuf merges them."""


@dataclass(frozen=True, slots=True)
class TensorLocation:
    """A tensor, or an attribute of numbers, on its way from bytes to graph.

    Attributes:
        path: the fields that lead to it, each within the one before.
        proto: the message in the last of them.
        function: the local function it is in, None for the main graph.
        steps: from there to it, per level the node's number, the attribute's name and place in its list.
        name: what the graph calls it, if it is an initializer or the output of a Constant node.
        initializer: whether it is one.
        scope: the way to it in words.
    """

    path: FieldPath
    proto: onnx.TensorProto | onnx.AttributeProto
    function: ir.OperatorIdentifier | None = None
    steps: tuple[Step, ...] = ()
    name: str = ""
    initializer: bool = False
    scope: tuple[str, ...] = ()


class TensorFinder:
    """Finds the tensors of one serialized model; remembers which fields it has divided."""

    def __init__(self, buffer: memoryview) -> None:
        self.buffer = buffer
        self._inside: dict[Field, list[Field]] = {}
        self.top = list(wire.fields(buffer, 0, len(buffer)))

    def paths(self) -> Iterator[FieldPath]:
        """The paths of all tensors.

        Raises:
            Scattered: If the model has to be written anew to have one place for each.
        """
        graphs = _tagged(self.top, wire.MODEL_GRAPH)
        if len(graphs) > 1:
            raise RepeatedField
        for graph in graphs:
            yield from self._block((graph,), wire.GRAPH_NODE)
        for function in _tagged(self.top, wire.MODEL_FUNCTION):
            yield from self._block((function,), wire.FUNCTION_NODE)

    def _block(self, path: FieldPath, node_tag: int) -> Iterator[FieldPath]:
        parts = self._parts(path[-1])
        for node in _tagged(parts, node_tag):
            for attribute in _tagged(self._parts(node), wire.NODE_ATTRIBUTE):
                yield from self._attribute((*path, node, attribute))
        if node_tag == wire.GRAPH_NODE:
            yield from ((*path, part) for part in _tagged(parts, wire.GRAPH_INITIALIZER))

    def _attribute(self, path: FieldPath) -> Iterator[FieldPath]:
        parts = self._parts(path[-1])
        tensor, graph = _tagged(parts, wire.ATTRIBUTE_TENSOR), _tagged(parts, wire.ATTRIBUTE_GRAPH)
        if len(tensor) > 1 or len(graph) > 1:
            raise RepeatedField
        for part in (*tensor, *_tagged(parts, wire.ATTRIBUTE_TENSORS)):
            yield (*path, part)
        for part in (*graph, *_tagged(parts, wire.ATTRIBUTE_GRAPHS)):
            yield from self._block((*path, part), wire.GRAPH_NODE)

    def _parts(self, field: Field) -> list[Field]:
        if field not in self._inside:
            self._inside[field] = list(wire.fields(self.buffer, field.body, field.end))
        return self._inside[field]

    # -- beside the parsed messages -----------------------------------------------------------------

    def find(self, model: onnx.ModelProto) -> Iterator[TensorLocation]:
        """All tensors and attributes of Constant nodes, those of the main graph first."""
        (graph,) = _tagged(self.top, wire.MODEL_GRAPH)
        yield from self._in_block(TensorLocation((graph,), onnx.TensorProto()), model.graph)
        for part, function in zip(_tagged(self.top, wire.MODEL_FUNCTION), model.functions, strict=True):
            overload = f":{function.overload}" if function.overload else ""
            identifier = (function.domain, function.name, function.overload)
            scope = (f"{function.domain}::{function.name}{overload}",)
            yield from self._in_block(
                TensorLocation((part,), onnx.TensorProto(), identifier, scope=scope), function
            )

    def _in_block(
        self, at: TensorLocation, block: onnx.GraphProto | onnx.FunctionProto
    ) -> Iterator[TensorLocation]:
        parts = self._parts(at.path[-1])
        if isinstance(block, onnx.GraphProto):
            for part, proto in zip(_tagged(parts, wire.GRAPH_INITIALIZER), block.initializer, strict=True):
                yield replace(at, path=(*at.path, part), proto=proto, name=proto.name, initializer=True)
        tag = wire.GRAPH_NODE if isinstance(block, onnx.GraphProto) else wire.FUNCTION_NODE
        nested: list[tuple[TensorLocation, onnx.GraphProto]] = []
        for index, (part, node) in enumerate(zip(_tagged(parts, tag), block.node, strict=True)):
            attributes = _tagged(self._parts(part), wire.NODE_ATTRIBUTE)
            is_constant = is_standard(node, "Constant")
            name = node.output[0] if is_constant and len(node.output) == 1 else ""
            label = node.name or f"{node.op_type}_{index}"
            for field, attribute in zip(attributes, node.attribute, strict=True):
                here = replace(at, path=(*at.path, part, field), name=name)
                yield from self._in_attribute(here, attribute, index, label, nested)
        for inner, graph in nested:
            yield from self._in_block(inner, graph)

    def _in_attribute(
        self,
        at: TensorLocation,
        attribute: onnx.AttributeProto,
        index: int,
        label: str,
        nested: list[tuple[TensorLocation, onnx.GraphProto]],
    ) -> Iterator[TensorLocation]:
        """What the attribute holds; graphs are left in `nested`."""
        parts = self._parts(at.path[-1])
        step = (index, attribute.name, 0)
        if at.name:
            yield replace(at, proto=attribute, steps=(*at.steps, step))
        if attribute.HasField("t"):
            (part,) = _tagged(parts, wire.ATTRIBUTE_TENSOR)
            yield replace(at, path=(*at.path, part), proto=attribute.t, steps=(*at.steps, step))
        for part, proto in zip(_tagged(parts, wire.ATTRIBUTE_TENSORS), attribute.tensors, strict=True):
            yield replace(at, path=(*at.path, part), proto=proto, name="")
        graphs = [attribute.g] if attribute.HasField("g") else []
        fields = [*_tagged(parts, wire.ATTRIBUTE_GRAPH), *_tagged(parts, wire.ATTRIBUTE_GRAPHS)]
        for which, (part, graph) in enumerate(zip(fields, [*graphs, *attribute.graphs], strict=True)):
            number = f"[{which}]" if attribute.graphs else ""
            inner = replace(
                at,
                path=(*at.path, part),
                steps=(*at.steps, (index, attribute.name, which)),
                scope=(*at.scope, f"{label}.{attribute.name}{number}"),
                name="",
            )
            nested.append((inner, graph))


def _tagged(parts: Sequence[Field], tag: int) -> list[Field]:
    return [part for part in parts if part.tag == tag]


class GraphIndex:
    """Finds in onnx-ir's graphs the tensors that lie at given locations in the messages."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._nodes: dict[tuple[object, ...], list[ir.Node]] = {}

    def initializer(self, location: TensorLocation) -> ir.TensorProtocol | None:
        """The tensor of an initializer; None where onnx-ir has dropped it."""
        graph = self._graph(location.function, location.steps)
        value = graph.initializers.get(location.name) if isinstance(graph, ir.Graph) else None
        return None if value is None else value.const_value

    def attribute(self, location: TensorLocation) -> ir.Attr | None:
        """The attribute that the last step leads to; None where onnx-ir has dropped it."""
        *steps, (index, name, _) = location.steps
        nodes = self._listed(location.function, tuple(steps))
        return nodes[index].attributes.get(name) if index < len(nodes) else None

    def _graph(
        self, function: ir.OperatorIdentifier | None, steps: tuple[Step, ...]
    ) -> ir.Graph | ir.Function | None:
        if not steps:
            return self._model.graph if function is None else self._model.functions.get(function)
        index, name, which = steps[-1]
        nodes = self._listed(function, steps[:-1])
        attribute = nodes[index].attributes.get(name) if index < len(nodes) else None
        if attribute is None or attribute.is_ref():
            return None
        return (
            attribute.as_graphs()[which]
            if attribute.type == ir.AttributeType.GRAPHS
            else attribute.as_graph()
        )

    def _listed(self, function: ir.OperatorIdentifier | None, steps: tuple[Step, ...]) -> list[ir.Node]:
        mark = (function, steps)
        if mark not in self._nodes:
            graph = self._graph(function, steps)
            self._nodes[mark] = [] if graph is None else list(graph)
        return self._nodes[mark]


def tensor_keys(locations: Sequence[TensorLocation], values: set[str]) -> list[str]:
    """What each is called in the file as a whole: its own name in the main graph, or where no other and no
    value of the main graph (`values`) has it; else with the way to it before."""
    count = Counter(location.name for location in locations)
    out: list[str] = []
    used = {location.name for location in locations if not location.scope}
    for location in locations:
        own = not location.scope or (count[location.name] == 1 and location.name not in values)
        key = location.name if own else "/".join((*location.scope, location.name))
        again = 1
        while location.scope and key in used:  # nodes of equal names
            again += 1
            key = f"{'/'.join((*location.scope, location.name))}#{again}"
        used.add(key)
        out.append(key)
    return out
