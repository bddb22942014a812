"""The walk over the graph: call each node's rule, pin what no rule claimed, collect the ledger of facts.

Sound by default: an operator without a rule, or a form of one its rule declines, fixes every labelled value
it touches and leaves its outputs fixed; the barrier is recorded with its reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxcanon.model import Model
from onnxcanon.symmetry.constraints import Cause, Ledger
from onnxcanon.symmetry.data_constants import data_kind
from onnxcanon.symmetry.labels import (
    FIXED,
    UNIFORM,
    Bundle,
    Labelled,
    Parameter,
    State,
    constant,
    parameter_value,
)
from onnxcanon.symmetry.movement import Movement
from onnxcanon.symmetry.rules import RULES, UNKNOWN_SHAPE, Barrier, Op
from onnxcanon.symmetry.shapes import Shapes, probe

SCALABLE = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})
"""Types whose entries can be rescaled: half precision has no room for it (range and rounding)."""

INDEX_TYPES = frozenset(
    {ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.STRING, ir.DataType.UINT64, ir.DataType.INT16}
)
"""Types of constants that are indices, shapes or masks, never weights."""

NEVER_READ = "never read"
"""Why positions of a parameter are held that no node takes."""

OTHER_SHAPE = "its result has not the shape that was inferred or declared"
"""Where a rule and shape inference differ: the file contradicts itself, or one of them is wrong."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A node the analyzer does not see through: its name, operator and the reason."""

    node: str
    operator: str
    reason: str


@dataclass(slots=True)
class Trace:
    """The ledger of one graph with the parameters it speaks of."""

    ledger: Ledger
    parameters: dict[str, Parameter] = field(default_factory=dict)  # in the order of their first use
    held: dict[str, str] = field(default_factory=dict)  # constants that are not ours to move, and why
    data: dict[str, str] = field(default_factory=dict)  # constants that are no weights, and what they are
    barriers: list[Obstacle] = field(default_factory=list)
    values: dict[str, Labelled] = field(default_factory=dict)


def node_name(node: ir.Node) -> str:
    """The node's name, or one made of its operator and first output."""
    return node.name or f"{node.op_type}({node.outputs[0].name if node.outputs else ''})"


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs among a node's attributes."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def captured(node: ir.Node) -> Iterator[ir.Value]:
    """Every value read inside a node's subgraphs (outer ones among them)."""
    for graph in subgraphs(node):
        yield from graph.outputs
        for inner in graph:
            yield from (v for v in inner.inputs if v is not None)
            yield from captured(inner)


class Tracer:
    """One walk over one model."""

    def __init__(
        self,
        model: Model,
        sizes: dict[str, int] | None = None,
        *,
        permute_constants: bool = False,
        allow_overridable: bool = False,
    ) -> None:
        self.model = model
        self.permute_constants = permute_constants
        self.overridable = frozenset[str]() if allow_overridable else frozenset(model.overridable())
        self.graph = model.ir.graph
        self.shapes: Shapes = probe(self.graph, model.tensor, sizes)
        self.labels = Movement(Ledger())
        self.trace = Trace(self.labels.ledger)
        self.values: dict[ir.Value, Labelled | None] = {}

    def run(self) -> Trace:
        """Trace all nodes and pin the graph's outputs."""
        self._inputs()
        for node in ordered(self.graph):
            self._node(node)
        for value in self.graph.outputs:
            labelled = self.values.get(value)
            if labelled is not None:
                self.labels.cause = Cause(f"graph output '{value.name}'", "")
                self.labels.fix_all(labelled, f"graph output '{value.name}'")
        self._settle_parameters()
        known = self.trace.parameters
        self.trace.parameters = {n: known[n] for n in [*self.labels.first_use, *known] if n in known}
        self.trace.values = {v.name: x for v, x in self.values.items() if x is not None and v.name}
        return self.trace

    def _inputs(self) -> None:
        for value in self.graph.initializers.values():
            self.values[value] = self._constant(
                value, "may be overridden by the caller" if value.name in self.overridable else ""
            )
        for value in self.graph.inputs:
            if value not in self.values:
                shape = self.shapes.shapes(value)[0]
                self.values[value] = None if shape is None else constant(shape)

    def _constant(self, value: ir.Value, held: str) -> Labelled | None:
        """The labelled form of a constant: a parameter, or data."""
        if value.name is None:
            return None
        shape, dtype = self.model.tensor_info(value.name)
        size = int(np.prod(shape, dtype=np.int64))
        if dtype in INDEX_TYPES:
            return self._data(value, shape, size)
        if held:
            self.trace.held[value.name] = held
            return constant(shape)
        shared = len(list(value.uses())) > 1
        if size <= 1 or (shared and self._uniform(value.name)):
            array = self.model.tensor(value.name)
            return constant(shape, UNIFORM, zero=size > 0 and not np.any(array))
        kind = self.trace.data.get(value.name)
        if kind is None and value.name not in self.trace.parameters and dtype.is_floating_point():
            kind = None if self.permute_constants else data_kind(value, shape)
        if kind is not None:
            self.trace.data[value.name] = kind
            return self._data(value, shape, size)
        parameter = Parameter(value.name, shape, dtype in SCALABLE)
        self.trace.parameters[value.name] = parameter
        return parameter_value(parameter)

    def _data(self, value: ir.Value, shape: tuple[int, ...], size: int) -> Labelled:
        uniform = 0 < size <= 1 << 20 and value.name is not None and self._uniform(value.name)
        return constant(shape, UNIFORM if uniform else FIXED)

    def _uniform(self, name: str) -> bool:
        flat = self.model.tensor(name).reshape(-1)
        return len(flat) > 0 and bool((flat == flat[0]).all())

    def _node(self, node: ir.Node) -> None:
        if self._folded(node):
            return
        name = node_name(node)
        self.labels.cause = Cause(name, "")
        inputs = [None if v is None else self.values.get(v) for v in node.inputs]
        domain = "" if node.domain == "ai.onnx" else node.domain
        rule = RULES.get((domain, node.op_type))
        op = Op(node, inputs, self.shapes, self.model.opset(domain))
        outputs: list[Labelled | None] = []
        try:
            if rule is None or node.op_identifier() in self.model.ir.functions:
                raise Barrier("no rule for this operator")
            result = rule(self.labels, op)
            if result is None:
                raise Barrier("no rule for this form of the operator")
            outputs = [result] if isinstance(result, Labelled) else list(result)
            if not all(map(self._fits, node.outputs, outputs)):
                raise Barrier(OTHER_SHAPE)
        except (
            Barrier,
            ValueError,
            IndexError,
        ) as error:  # the latter two: operands do not fit
            reason = str(error) if isinstance(error, Barrier) else "its operands do not fit together"
            op.claimed.clear()
            outputs = []
            self._barrier(node, reason, [*inputs, *(self.values.get(v) for v in captured(node))])
        for k, value in enumerate(inputs):
            if k not in op.claimed and value is not None:
                self.labels.fix_all(value, f"read by {node.op_type} as it is")
        for k, output in enumerate(node.outputs):
            labelled = outputs[k] if k < len(outputs) else None
            shape = self.shapes.shapes(output)[0]
            self.values[output] = constant(shape) if labelled is None and shape is not None else labelled

    def _folded(self, node: ir.Node) -> bool:
        """Constants and shape arithmetic: known values carry no labels."""
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            self.values[node.outputs[0]] = self._constant(node.outputs[0], "")
            return True
        if node not in self.shapes.folded_nodes():
            return False
        for source in node.inputs:
            known = None if source is None else self.values.get(source)
            if known is not None and source is not None and self.shapes.is_known(source):
                self.labels.cause = Cause(node_name(node), "")
                self.labels.fix_all(known, f"read by {node.op_type} as it is")
        for value in node.outputs:
            first, second = self.shapes.data_pair(value)
            shape = self.shapes.shapes(value)[0]
            if shape is not None:
                flat = [np.ravel(d) for d in (first, second) if d is not None and d.dtype != object]
                alike = all(len(f) and (f == f[0]).all() for f in flat) and len(flat) == 2
                zero = alike and not any(f.any() for f in flat)
                self.values[value] = constant(shape, UNIFORM if alike else FIXED, zero=zero)
        return True

    def _barrier(self, node: ir.Node, reason: str, touched: Iterable[Labelled | None]) -> None:
        labelled = [v for v in touched if v is not None]
        if reason == UNKNOWN_SHAPE and not any(_carries(v) for v in labelled):
            return  # nothing is held back here; the obstacle that lost the shape is recorded
        domain = f"{node.domain}::" if node.domain not in ("", "ai.onnx") else ""
        self.trace.barriers.append(Obstacle(node_name(node), domain + node.op_type, reason))
        for value in labelled:
            self.labels.fix_all(value, reason)

    def _fits(self, value: ir.Value, labelled: Labelled | None) -> bool:
        """Whether an output has the shape that was inferred, or one was not."""
        shape = self.shapes.shapes(value)[0]
        return labelled is None or shape is None or isinstance(labelled, Bundle) or labelled.shape == shape

    def _settle_parameters(self) -> None:
        """Positions of bound axes that nothing reads stay where they are; each axis maps onto itself."""
        ledger = self.labels.ledger
        for parameter in self.trace.parameters.values():
            for axis, ids in enumerate(parameter.ids):
                if ids is None:
                    continue
                unused = ids < 0
                if unused.any():
                    ids[unused] = ledger.new_units((int(unused.sum()),))
                    ledger.pin(ids[unused], Cause("", NEVER_READ))
                self.labels.cause = Cause(parameter.readers[axis], "")
                value = constant(parameter.shape)
                value.ids = [FIXED if a is None else a for a in parameter.ids]
                self.labels.in_context(value, axis)
            for degree in parameter.degrees:
                if degree is not None:
                    degree[degree < 0] = 0
        self.labels.record_shown()


def _carries(value: Labelled) -> bool:
    """Whether a value has labels, or is a parameter that would get them."""
    labelled = any(not isinstance(s, State) for s in value.ids)
    return labelled or value.view is not None or isinstance(value, Bundle)


def ordered(graph: ir.Graph) -> list[ir.Node]:
    """The nodes in a topological order, the file's own where it is one."""
    nodes = list(graph)
    ready = set(graph.inputs) | set(graph.initializers.values())
    out: list[ir.Node] = []
    rest = nodes
    own = {v for n in nodes for v in n.outputs}
    while rest:
        later = []
        for node in rest:
            needs = [v for v in (*node.inputs, *captured(node)) if v is not None and v in own]
            if all(v in ready for v in needs):
                out.append(node)
                ready.update(node.outputs)
            else:
                later.append(node)
        if len(later) == len(rest):
            out.extend(later)
            break
        rest = later
    return out


def trace(
    model: Model,
    sizes: dict[str, int] | None = None,
    *,
    permute_constants: bool = False,
    allow_overridable: bool = False,
) -> Trace:
    """All facts about one model's units and degrees; the options are those of `analysis.symmetry`."""
    options = {"permute_constants": permute_constants, "allow_overridable": allow_overridable}
    return Tracer(model, sizes, **options).run()
