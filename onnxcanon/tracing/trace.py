"""The walk over the graph: call each node's rule, pin what no rule claimed, collect the constraints.

Sound by default: an operator without a rule, or a form of one its rule declines, fixes every labelled value
it touches and leaves its outputs fixed; the barrier is recorded with its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxcanon.arrays import Ids
from onnxcanon.graph.element_types import INDEX_TYPES, SCALABLE
from onnxcanon.graph.nodes import node_name
from onnxcanon.graph.operators import domain_of
from onnxcanon.graph.traversal import captured, inlined, not_inlined, ordered, pruned, reads, subgraphs
from onnxcanon.model import Model
from onnxcanon.shapes import Shapes, infer_shapes
from onnxcanon.tracing.abstract_value import (
    FIXED,
    UNIFORM,
    AbstractValue,
    Parameter,
    State,
    ValueSequence,
    constant,
    parameter_value,
    stacked,
)
from onnxcanon.tracing.branches import Branches, Step, digest, find_branches, step
from onnxcanon.tracing.constraints import NOWHERE, Constraints, Provenance, Reason, Slot
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.data_constants import data_kind
from onnxcanon.tracing.rules import OPEN, RULES, UNKNOWN_SHAPE, Op, Unsupported

OTHER_SHAPE = "its result has not the shape that was inferred or declared"
"""Where a rule and shape inference differ: the file contradicts itself, or one of them is wrong."""


@dataclass(frozen=True, slots=True)
class UnsupportedNode:
    """A node the analyzer does not see through: its name, operator and the reason."""

    node: str
    operator: str
    reason: str


@dataclass(slots=True)
class Trace:
    """The constraints of one graph with the parameters it speaks of."""

    graph: ir.Graph  # the main graph, with functions inlined
    constraints: Constraints
    parameters: dict[str, Parameter] = field(default_factory=dict)  # in the order of their first use
    fixed_constants: dict[str, str] = field(
        default_factory=dict
    )  # constants that are not ours to move, and why
    data_constants: dict[str, str] = field(
        default_factory=dict
    )  # constants that are no weights, and what they are
    unsupported: list[UnsupportedNode] = field(default_factory=list)
    values: dict[str, AbstractValue] = field(default_factory=dict)
    names: dict[ir.Value, str] = field(default_factory=dict)  # what each value is called in this constraints
    nodes: list[ir.Node] = field(default_factory=list)  # as they were met, nested ones included
    sources: dict[ir.Value, ir.Value] = field(default_factory=dict)  # where inputs of a loop's body come from
    branches: list[Branches] = field(default_factory=list)  # candidates: the solve decides
    stacks: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def stack(self, group: Branches, units: Ids) -> None:
        """Replace matched parameters by stacks of them, int64 `units` [branches] along the new axis 0."""
        for twins in group.parameters:
            names = tuple(self.names[value] for value in twins)
            made = stacked([self.parameters[name] for name in names], units)
            self.stacks[made.name] = names
            items = [(made.name, made) if n == names[0] else (n, p) for n, p in self.parameters.items()]
            self.parameters = {n: p for n, p in items if n not in names[1:]}


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
        program = pruned(inlined(model.ir), model.ir)
        self.graph = program.graph
        self.opaque = not_inlined(program, model.ir.functions)
        self.worlds = self._worlds(sizes)
        self.shapes = self.worlds[0]
        self.context = Context(Constraints())
        self.trace = Trace(self.graph, self.context.constraints)
        self.values: dict[ir.Value, AbstractValue | None] = {}
        self.steps: list[Step] = []
        self.depth = 0  # of nested graphs
        self.constants: dict[str, ir.Value] = {}  # one value for each constant, which may have several
        self.uses = Counter(key for node in self.graph.all_nodes() for key in self._keys(node))

    def run(self) -> Trace:
        """Trace all nodes and pin the graph's outputs."""
        self._hold()
        met: dict[ir.Value, AbstractValue | None] = {}
        for shapes in self.worlds:
            self.shapes, self.values = shapes, {}
            self._world()
            met = {**self.values, **{value: labelled for value, labelled in met.items() if labelled}}
        self.values = met
        self.trace.parameters = self._in_order_of_use(self.trace.parameters)
        self.trace.branches = self._branches() if len(self.worlds) == 1 else []
        self.trace.unsupported = list(dict.fromkeys(self.trace.unsupported))
        self.trace.nodes = list(dict.fromkeys(self.trace.nodes))
        self._settle_parameters()
        self._name_values()
        return self.trace

    def _worlds(self, sizes: dict[str, int] | None) -> list[Shapes]:
        """The shapes; once per branch where no sizes suit both branches of an `If` that chooses by the data.
        The graph is then traced once per branch, and every fact of either trace holds."""
        together = infer_shapes(self.graph, self._read, sizes)
        if not any(together.contradictions):
            return [together]
        for node in self.graph:
            if node.op_type == "If" and node.inputs[0] is not None and not together.has_data(node.inputs[0]):
                apart = [
                    infer_shapes(self.graph, self._read, sizes, {node: taken}) for taken in (True, False)
                ]
                if not any(any(shapes.contradictions) for shapes in apart):
                    return apart
        return [together]

    def _world(self) -> None:
        """Trace all nodes and pin the graph's outputs."""
        self._inputs()
        for node in ordered(self.graph):
            self._node(node)
        for value in self.graph.outputs:
            labelled = self.values.get(value)
            if labelled is not None:
                name = f"graph output '{value.name}'"
                with self.context.constraints.stated_by(Provenance(name), NOWHERE):
                    self.context.fix_all(labelled, name)

    def _read(self, value: ir.Value) -> np.ndarray:
        """The entries of a constant."""
        key = self.model.key(value)
        if key is not None:
            return self.model.tensor(key)
        assert value.const_value is not None
        return value.const_value.numpy()

    def _keys(self, node: ir.Node) -> Iterator[str]:
        """The constants that a node reads, nested nodes apart."""
        for value in node.inputs:
            key = None if value is None else self.model.key(value)
            if key is not None:
                yield key

    def _hold(self) -> None:
        """Constants of functions that are called and not seen through stay as they are."""
        for identifier in self.opaque:
            function = self.model.ir.functions[identifier]
            for node in function.all_nodes():
                for value in (*node.inputs, *node.outputs):
                    key = None if value is None else self.model.key(value)
                    if key is not None:
                        self.trace.fixed_constants[key] = (
                            f"in {'::'.join(identifier[:2])}, which is not seen through"
                        )

    def _in_order_of_use(self, parameters: dict[str, Parameter]) -> dict[str, Parameter]:
        """Parameters as the nodes read them first, those that none reads last."""
        used = dict.fromkeys(key for node in self.trace.nodes for key in self._keys(node))
        return {name: parameters[name] for name in [*used, *parameters] if name in parameters}

    def _name_values(self) -> None:
        """Names of values: those of the main graph have their own, equal ones elsewhere a number behind."""
        known = [value for value, labelled in self.values.items() if labelled is not None and value.name]
        names = self.trace.names
        taken = set(self.model.tensor_names())
        for value in sorted(known, key=lambda value: value.graph is not self.graph):
            name = self.model.key(value)
            if name is None:
                name, again = value.name or "", 1
                while name in taken:
                    again += 1
                    name = f"{value.name}#{again}"
                taken.add(name)
            names[value] = name
        for value in known:
            labelled = self.values[value]
            if labelled is not None:
                self.trace.values[names[value]] = labelled

    def _inputs(self) -> None:
        for value in self.graph.initializers.values():
            self.values[value] = self._constant(
                value, "may be overridden by the caller" if value.name in self.overridable else ""
            )
        for value in self.graph.inputs:
            if value not in self.values:
                shape = self.shapes.shapes(value)[0]
                self.values[value] = None if shape is None else constant(shape)

    def _constant(self, value: ir.Value, held: str = "") -> AbstractValue | None:
        """The labelled form of a constant: a parameter, or data."""
        key = self.model.key(value)
        if key is None:
            known = self.shapes.shapes(value)[0]
            return None if known is None else constant(known)
        shape, dtype = self.model.tensor_info(key)
        size = int(np.prod(shape, dtype=np.int64))
        if dtype in INDEX_TYPES:
            return self._data(key, shape, size)
        held = held or self.trace.fixed_constants.get(key, "")
        if held:
            self.trace.fixed_constants[key] = held
            return constant(shape)
        if size <= 1 or (self.uses[key] > 1 and self._uniform(key)):
            array = self.model.tensor(key)
            return constant(shape, UNIFORM, zero=size > 0 and not np.any(array))
        kind = self.trace.data_constants.get(key)
        if kind is None and key not in self.trace.parameters and dtype.is_floating_point():
            kind = None if self.permute_constants else data_kind(value, shape)
        if kind is not None:
            self.trace.data_constants[key] = kind
            return self._data(key, shape, size)
        parameter = self.trace.parameters.get(key)  # a function's is there once per call
        if parameter is None:
            parameter = self.trace.parameters[key] = Parameter(key, shape, dtype in SCALABLE)
        return parameter_value(parameter)

    def _data(self, key: str, shape: tuple[int, ...], size: int) -> AbstractValue:
        uniform = 0 < size <= 1 << 20 and self._uniform(key)
        return constant(shape, UNIFORM if uniform else FIXED)

    def _uniform(self, name: str) -> bool:
        flat = self.model.tensor(name).reshape(-1)
        return len(flat) > 0 and bool((flat == flat[0]).all())

    def _node(self, node: ir.Node) -> None:
        self.trace.nodes.append(node)
        if self._folded(node):
            return
        constraints = self.context.constraints
        slot = constraints.slot if self.depth else (len(self.steps), -1)  # a body is part of its node
        with constraints.stated_by(Provenance(node_name(node)), slot):
            self._interpret(node)

    def _interpret(self, node: ir.Node) -> None:
        """Label the outputs of a node by its rule, and fix what the rule did not claim."""
        inputs = [None if v is None else self.values.get(v) for v in node.inputs]
        version = node.version or self.model.opset(domain_of(node))
        rule = RULES.of(node, version)
        if OPEN.of(node, version) is None:
            self._materialize(inputs)
        op = Op(node, inputs, self.shapes, version, self._body)
        outputs: list[AbstractValue | None] = []
        try:
            if rule is None or node.op_identifier() in self.model.ir.functions:
                raise Unsupported("no rule for this operator")
            result = rule(self.context, op)
            if result is None:
                raise Unsupported("no rule for this form of the operator")
            outputs = [result] if isinstance(result, AbstractValue) else list(result)
            if not all(map(self._fits, node.outputs, outputs)):
                raise Unsupported(OTHER_SHAPE)
        except (
            Unsupported,
            ValueError,
            IndexError,
        ) as error:  # the latter two: operands do not fit
            reason = str(error) if isinstance(error, Unsupported) else "its operands do not fit together"
            op.claimed.clear()
            outputs = []
            self._barrier(node, reason, [*inputs, *map(self._labelled, captured(node))])
        for graph in subgraphs(node):
            if len(graph.inputs) == len(inputs):
                pairs = zip(graph.inputs, node.inputs, strict=True)
                self.trace.sources.update((formal, given) for formal, given in pairs if given is not None)
        for k, value in enumerate(inputs):
            if k not in op.claimed and value is not None:
                self.context.fix_all(value, f"read by {node.op_type} as it is")
        for k, output in enumerate(node.outputs):
            labelled = outputs[k] if k < len(outputs) else None
            shape = self.shapes.shapes(output)[0]
            self.values[output] = constant(shape) if labelled is None and shape is not None else labelled
            if len(output.uses()) > 1 or output.is_graph_output():  # several readers share one cut
                self._materialize([labelled])
        if not self.depth:
            self.steps.append(self._step(len(self.steps), node, inputs, outputs, op))

    def _materialize(self, values: Iterable[AbstractValue | None]) -> None:
        for value in values:
            if value is not None:
                self.context.materialize(value)

    def _step(
        self,
        number: int,
        node: ir.Node,
        inputs: list[AbstractValue | None],
        outputs: list[AbstractValue | None],
        op: Op,
    ) -> Step:
        """What the search for branches needs of a node."""
        made = step(number, node, inputs, outputs)
        if any(op.data(k) is None for k in made.free):
            made.free = frozenset()
        made.inputs += [v for v in captured(node) if v in self.values]
        made.inputs = [None if v is None else self._same(v) for v in made.inputs]
        return made

    def _same(self, value: ir.Value) -> ir.Value:
        """The value, or of a constant with several (one for each call of a function) the first."""
        key = self.model.key(value)
        return value if key is None else self.constants.setdefault(key, value)

    def _branches(self) -> list[Branches]:
        """Branches that may change places; the constraints's places of parameters are entered beside those of
        nodes."""
        found = find_branches(self.steps, self._leaf, self._is_parameter)
        for group in found:
            base = max((number for number, _ in group.slots.values()), default=0) + 1
            for number, twins in enumerate(group.parameters, base):
                for k, value in enumerate(twins):
                    group.slots[self._parameter_slot(self._name(value))] = (number, k)
        return found

    def _parameter_slot(self, name: str) -> Slot:
        return (len(self.steps) + list(self.trace.parameters).index(name), -1)

    def _is_parameter(self, value: ir.Value) -> bool:
        return self._name(value) in self.trace.parameters

    def _name(self, value: ir.Value) -> str:
        return self.model.key(value) or ""

    def _leaf(self, value: ir.Value) -> bytes:
        """A digest of a value no step computes: a parameter by shape and type, a known constant by value."""
        first, second = self.shapes.data_pair(value)
        if first is not None and second is not None and first.dtype != object:
            return digest(
                "data", str(first.dtype), first.shape, first.tobytes(), second.shape, second.tobytes()
            )
        if self._is_parameter(value):
            parameter = self.trace.parameters[self._name(value)]
            return digest("parameter", parameter.shape, str(self.model.tensor_info(parameter.name)[1]))
        return digest("value", value.name or id(value))

    def _body(self, graph: ir.Graph, inputs: Sequence[AbstractValue | None]) -> list[AbstractValue | None]:
        """Trace a subgraph, given its labelled inputs; returns its labelled outputs."""
        self.depth += 1
        try:
            for value in graph.initializers.values():
                self.values[value] = self._constant(value)
            for value, labelled in zip(graph.inputs, inputs, strict=True):
                self.values[value] = labelled
            for node in ordered(graph):
                self._node(node)
        finally:
            self.depth -= 1
        return [self.values.get(value) for value in graph.outputs]

    def _labelled(self, value: ir.Value) -> AbstractValue | None:
        """The labelled form of a value, or of a constant inside a graph that was not traced."""
        if value not in self.values and self.model.key(value) is not None:
            self.values[value] = self._constant(value)
        return self.values.get(value)

    def _folded(self, node: ir.Node) -> bool:
        """Constants and shape arithmetic: known values carry no labels."""
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            self.values[node.outputs[0]] = self._constant(node.outputs[0])
            return True
        if node not in self.shapes.folded_nodes():
            return False
        for source in reads(node):
            known = self._labelled(source)
            if known is not None and self.shapes.has_data(source):
                constraints = self.context.constraints
                with constraints.stated_by(Provenance(node_name(node)), constraints.slot):
                    self.context.fix_all(known, f"read by {node.op_type} as it is")
        for value in node.outputs:
            first, second = self.shapes.data_pair(value)
            shape = self.shapes.shapes(value)[0]
            if shape is not None:
                flat = [np.ravel(d) for d in (first, second) if d is not None and d.dtype != object]
                alike = all(len(f) and (f == f[0]).all() for f in flat) and len(flat) == 2
                zero = alike and not any(f.any() for f in flat)
                self.values[value] = constant(shape, UNIFORM if alike else FIXED, zero=zero)
        return True

    def _barrier(self, node: ir.Node, reason: str, touched: Iterable[AbstractValue | None]) -> None:
        labelled = [v for v in touched if v is not None]
        if reason == UNKNOWN_SHAPE and not any(_carries(v) for v in labelled):
            return  # nothing is held back here; the obstacle that lost the shape is recorded
        domain = f"{node.domain}::" if node.domain not in ("", "ai.onnx") else ""
        self.trace.unsupported.append(UnsupportedNode(node_name(node), domain + node.op_type, reason))
        for value in labelled:
            self.context.fix_all(value, reason)

    def _fits(self, value: ir.Value, labelled: AbstractValue | None) -> bool:
        """Whether an output has the shape that was inferred, or one was not."""
        shape = self.shapes.shapes(value)[0]
        return (
            labelled is None
            or shape is None
            or isinstance(labelled, ValueSequence)
            or labelled.shape == shape
        )

    def _settle_parameters(self) -> None:
        """Positions of bound axes that nothing reads stay where they are; each axis maps onto itself."""
        constraints = self.context.constraints
        for number, parameter in enumerate(self.trace.parameters.values(), len(self.steps)):
            for axis, ids in enumerate(parameter.ids):
                if ids is None:
                    continue
                unused = ids < 0
                if unused.any():
                    ids[unused] = constraints.new_units((int(unused.sum()),))
                    with constraints.stated_by(Provenance(""), (number, -1)):
                        constraints.pin(ids[unused], Provenance("", Reason.NEVER_READ))
                value = constant(parameter.shape)
                value.ids = [FIXED if a is None else a for a in parameter.ids]
                with constraints.stated_by(Provenance(parameter.readers[axis]), (number, -1)):
                    self.context.in_context(value, axis)
            for exponent in parameter.exponents:
                if exponent is not None:
                    exponent[exponent < 0] = 0
        self.context.record_shown()


def _carries(value: AbstractValue) -> bool:
    """Whether a value has labels, or is a parameter that would get them."""
    labelled = any(not isinstance(s, State) for s in value.ids)
    return labelled or value.view is not None or isinstance(value, ValueSequence)


def trace(
    model: Model,
    sizes: dict[str, int] | None = None,
    *,
    permute_constants: bool = False,
    allow_overridable: bool = False,
) -> Trace:
    """All facts about one model's units and exponents; the options are those of `analysis.symmetry`."""
    options = {"permute_constants": permute_constants, "allow_overridable": allow_overridable}
    return Tracer(model, sizes, **options).run()
