"""The walk over the graph: every node is interpreted by its rule, and what no rule claimed is pinned.

Sound by default: an operator without a rule, or a form of one its rule declines, fixes every labelled value
it touches and leaves its outputs fixed; the node is recorded as unsupported, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxcanon.graph.nodes import node_name
from onnxcanon.graph.operators import STANDARD, domain_of, is_standard
from onnxcanon.graph.traversal import captured, ordered, reads, subgraphs
from onnxcanon.model import Model
from onnxcanon.shapes import Shapes
from onnxcanon.tracing.abstract_value import FIXED, UNIFORM, AbstractValue, State, ValueSequence, constant
from onnxcanon.tracing.branches import TracedNode, traced_node
from onnxcanon.tracing.constants import Constants
from onnxcanon.tracing.constraints import NOWHERE, Provenance, Reason
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules import OPEN, SYMMETRIES, SymmetryNode, Unsupported


@dataclass(frozen=True, slots=True)
class UnsupportedNode:
    """A node the analyzer does not see through: its name, operator and the reason."""

    node: str
    operator: str
    reason: str


@dataclass(eq=False, slots=True)
class Record:
    """What the walks of one model leave behind beside constraints, in the order of the graph.

    Attributes:
        nodes: as they were met, nested ones included.
        unsupported: those that were not seen through.
        sources: for inputs of nested graphs, what the outer node passes.
        traced: the nodes of the main graph, for the search for branches; its numbers are those of slots.
    """

    nodes: list[ir.Node] = field(default_factory=list)
    unsupported: list[UnsupportedNode] = field(default_factory=list)
    sources: dict[ir.Value, ir.Value] = field(default_factory=dict)
    traced: list[TracedNode] = field(default_factory=list)


class Interpreter:
    """One walk over the main graph, under the shapes of one scenario."""

    def __init__(
        self, model: Model, shapes: Shapes, constants: Constants, context: Context, record: Record
    ) -> None:
        self.model, self.shapes, self.constants = model, shapes, constants
        self.context, self.record = context, record
        self.values: dict[ir.Value, AbstractValue | None] = {}
        self.depth = 0  # of nested graphs

    def run(self, graph: ir.Graph) -> dict[ir.Value, AbstractValue | None]:
        """Interpret all nodes and pin the graph's outputs; what is known of each value."""
        for value in graph.initializers.values():
            self.values[value] = self.constants.initializer(value, self.shapes)
        for value in graph.inputs:
            if value not in self.values:
                shape = self.shapes.shapes(value)[0]
                self.values[value] = None if shape is None else constant(shape)
        for node in ordered(graph):
            self._node(node)
        for value in graph.outputs:
            result = self.values.get(value)
            if result is not None:
                name = f"graph output '{value.name}'"
                with self.context.constraints.stated_by(Provenance(name), NOWHERE):
                    self.context.fix_all(result, name)
        return self.values

    def _body(self, graph: ir.Graph, inputs: Sequence[AbstractValue | None]) -> list[AbstractValue | None]:
        """The outputs of a nested graph for such inputs."""
        self.depth += 1
        try:
            for value in graph.initializers.values():
                self.values[value] = self.constants.abstract(value, self.shapes)
            self.values.update(zip(graph.inputs, inputs, strict=True))
            for node in ordered(graph):
                self._node(node)
        finally:
            self.depth -= 1
        return [self.values.get(value) for value in graph.outputs]

    def _node(self, node: ir.Node) -> None:
        self.record.nodes.append(node)
        constraints = self.context.constraints
        if is_standard(node, "Constant"):
            self.values[node.outputs[0]] = self.constants.abstract(node.outputs[0], self.shapes)
        elif node in self.shapes.folded_nodes:
            with constraints.stated_by(Provenance(node_name(node)), constraints.slot):
                self._fold(node)
        else:
            slot = (
                constraints.slot if self.depth else (len(self.record.traced), -1)
            )  # a body is part of its node
            with constraints.stated_by(Provenance(node_name(node)), slot):
                self._interpret(node)

    def _fold(self, node: ir.Node) -> None:
        """Shape arithmetic: its results are known and carry no labels."""
        for source in reads(node):
            value = self._value(source)
            if value is not None and self.shapes.has_data(source):
                self.context.fix_all(value, f"read by {node.op_type} as it is")
        for output in node.outputs:
            shape = self.shapes.shapes(output)[0]
            if shape is not None:
                samples = [
                    np.ravel(d) for d in self.shapes.data_pair(output) if d is not None and d.dtype != object
                ]
                alike = len(samples) == 2 and all(len(d) and (d == d[0]).all() for d in samples)
                zero = alike and not any(d.any() for d in samples)
                self.values[output] = constant(shape, UNIFORM if alike else FIXED, zero=zero)

    def _interpret(self, node: ir.Node) -> None:
        """Label the outputs of a node by its rule, and fix what the rule did not claim."""
        inputs = [None if v is None else self.values.get(v) for v in node.inputs]
        version = node.version or self.model.opset(domain_of(node))
        if OPEN.of(node, version) is None:
            self._materialize(inputs)
        op = SymmetryNode(node, inputs, self.shapes, version, self._body)
        try:
            outputs = self._by_rule(node, op, version)
        except Unsupported as refusal:
            op.claimed.clear()
            outputs = []
            self._stop_at(node, refusal.reason, [*inputs, *map(self._value, captured(node))])
        for graph in subgraphs(node):
            if len(graph.inputs) == len(inputs):
                pairs = zip(graph.inputs, node.inputs, strict=True)
                self.record.sources.update((formal, actual) for formal, actual in pairs if actual is not None)
        for k, value in enumerate(inputs):
            if k not in op.claimed and value is not None:
                self.context.fix_all(value, f"read by {node.op_type} as it is")
        for k, output in enumerate(node.outputs):
            result = outputs[k] if k < len(outputs) else None
            shape = self.shapes.shapes(output)[0]
            self.values[output] = constant(shape) if result is None and shape is not None else result
            if len(output.uses()) > 1 or output.is_graph_output():  # several readers share one split
                self._materialize([result])
        if not self.depth:
            self.record.traced.append(self._traced(node, inputs, outputs, op))

    def _by_rule(self, node: ir.Node, op: SymmetryNode, version: int) -> list[AbstractValue | None]:
        """What the rule for a node makes of its inputs; `Unsupported` where there is none that fits."""
        rule = SYMMETRIES.of(node, version)
        if rule is None or node.op_identifier() in self.model.ir.functions:
            raise Unsupported("no rule for this operator")
        try:
            result = rule(self.context, op)
        except (ValueError, IndexError) as error:  # of numpy, where shapes do not fit
            raise Unsupported("its operands do not fit together") from error
        if result is None:
            raise Unsupported("no rule for this form of the operator")
        outputs: list[AbstractValue | None] = [result] if isinstance(result, AbstractValue) else [*result]
        for output, value in zip(node.outputs, outputs, strict=False):
            shape = self.shapes.shapes(output)[0]
            if value is None or shape is None or isinstance(value, ValueSequence):
                continue
            if value.shape != shape:
                raise Unsupported(Reason.OTHER_SHAPE)
        return outputs

    def _stop_at(self, node: ir.Node, reason: str, touched: Iterable[AbstractValue | None]) -> None:
        """Fix what an unsupported node touches, and record it."""
        values = [v for v in touched if v is not None]
        if reason is Reason.UNKNOWN_SHAPE and not any(map(_carries, values)):
            return  # nothing is lost here: the node that lost the shape is recorded
        domain = domain_of(node)
        operator = node.op_type if domain == STANDARD else f"{domain}::{node.op_type}"
        self.record.unsupported.append(UnsupportedNode(node_name(node), operator, reason))
        for value in values:
            self.context.fix_all(value, reason)

    def _value(self, value: ir.Value) -> AbstractValue | None:
        """What is known of a value, or of a constant inside a graph that was not walked."""
        if value not in self.values and self.model.key(value) is not None:
            self.values[value] = self.constants.abstract(value, self.shapes)
        return self.values.get(value)

    def _materialize(self, values: Iterable[AbstractValue | None]) -> None:
        for value in values:
            if value is not None:
                self.context.materialize(value)

    def _traced(
        self,
        node: ir.Node,
        inputs: Sequence[AbstractValue | None],
        outputs: Sequence[AbstractValue | None],
        op: SymmetryNode,
    ) -> TracedNode:
        """What the search for branches needs of a node."""
        out = traced_node(len(self.record.traced), node, inputs, outputs)
        if any(op.data(k) is None for k in out.position_inputs):
            out.position_inputs = frozenset()
        out.inputs += [v for v in captured(node) if v in self.values]
        out.inputs = [None if v is None else self.constants.first(v) for v in out.inputs]
        return out


def _carries(value: AbstractValue) -> bool:
    """Whether a value has labels, or is a parameter that would get them."""
    labelled = any(not isinstance(s, State) for s in value.ids)
    return labelled or value.view is not None or isinstance(value, ValueSequence)
