"""The trace of a model: all constraints of its graph, with the parameters and values they speak of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxcanon.arrays import Ids
from onnxcanon.graph.traversal import inlined, not_inlined, pruned
from onnxcanon.model import Model
from onnxcanon.shapes import Shapes, infer_shapes
from onnxcanon.tracing.abstract_value import FIXED, AbstractValue, Parameter, constant, stacked
from onnxcanon.tracing.branches import Branches, digest, find_branches
from onnxcanon.tracing.constants import Constants
from onnxcanon.tracing.constraints import Constraints, Provenance, Reason
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.interpreter import Interpreter, Record, UnsupportedNode


@dataclass(slots=True)
class Trace:
    """The constraints of one graph, and what they speak of.

    Attributes:
        graph: the main graph, with functions inlined.
        constraints: what the rules stated.
        parameters: by name, in the order of their first use.
        fixed_constants: constants that are not ours to move, and why.
        data_constants: constants that are no weights, and what they are.
        unsupported: nodes that are not seen through.
        nodes: as they were met, nested ones included.
        sources: for inputs of nested graphs, what the outer node passes.
        values: what is known of each value, by name.
        names: what each value is called there.
        branches: what may be exchanged as a whole; the solve decides.
        stacks: the members of each stack of parameters, by its name.
    """

    graph: ir.Graph
    constraints: Constraints
    parameters: dict[str, Parameter]
    fixed_constants: dict[str, str]
    data_constants: dict[str, str]
    unsupported: list[UnsupportedNode]
    nodes: list[ir.Node]
    sources: dict[ir.Value, ir.Value]
    values: dict[str, AbstractValue]
    names: dict[ir.Value, str]
    branches: list[Branches]
    stacks: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def stack(self, group: Branches, units: Ids) -> None:
        """Replace matched parameters by stacks of them, int64 `units` [branches] along the new axis 0."""
        for members in group.parameters:
            names = tuple(self.names[value] for value in members)
            stack = stacked([self.parameters[name] for name in names], units)
            self.stacks[stack.name] = names
            items = [(stack.name, stack) if n == names[0] else (n, p) for n, p in self.parameters.items()]
            self.parameters = {n: p for n, p in items if n not in names[1:]}


def trace(
    model: Model,
    sizes: dict[str, int] | None = None,
    *,
    permute_constants: bool = False,
    allow_overridable: bool = False,
) -> Trace:
    """All constraints on one model's units and exponents; the arguments are those of `symmetry.symmetry`."""
    program = pruned(inlined(model.ir), model.ir)
    graph = program.graph
    constants = Constants(
        model,
        graph,
        not_inlined(program, model.ir.functions),
        permute_constants=permute_constants,
        allow_overridable=allow_overridable,
    )
    scenarios = _scenarios(graph, constants, sizes)
    context, record = Context(Constraints()), Record()
    values: dict[ir.Value, AbstractValue] = {}
    for shapes in scenarios:
        results = Interpreter(model, shapes, constants, context, record).run(graph)
        values = {v: known for v, value in results.items() if (known := values.get(v, value))} | values
    nodes = list(dict.fromkeys(record.nodes))
    parameters = constants.in_order_of_use(nodes)
    first_slot = len(record.traced)
    branches = _branches(scenarios[0], constants, record, list(parameters)) if len(scenarios) == 1 else []
    _finish_parameters(context, parameters, first_slot)
    names = _names(model, graph, values)
    return Trace(
        graph,
        context.constraints,
        parameters,
        constants.fixed,
        constants.data,
        list(dict.fromkeys(record.unsupported)),
        nodes,
        record.sources,
        {names[v]: value for v, value in values.items() if v in names},
        names,
        branches,
    )


def _scenarios(graph: ir.Graph, constants: Constants, sizes: dict[str, int] | None) -> list[Shapes]:
    """The shapes; twice where no sizes suit both branches of an `If` that chooses by the data.

    The graph is then walked once as if either branch were always taken. The constraints of both walks hold
    together: a transform has to be right whichever branch runs.
    """
    together = infer_shapes(graph, constants.entries, sizes)
    if not any(together.contradictions):
        return [together]
    for node in graph:
        if node.op_type == "If" and node.inputs[0] is not None and not together.has_data(node.inputs[0]):
            apart = [infer_shapes(graph, constants.entries, sizes, {node: taken}) for taken in (True, False)]
            if not any(any(shapes.contradictions) for shapes in apart):
                return apart
    return [together]


def _branches(shapes: Shapes, constants: Constants, record: Record, parameters: list[str]) -> list[Branches]:
    """Branches that may be exchanged, the slots of their parameters entered beside those of their nodes."""
    model = constants.model

    def leaf(value: ir.Value) -> bytes:
        """A digest of a value no step computes: a parameter by shape and type, a known constant by value."""
        first, second = shapes.data_pair(value)
        if first is not None and second is not None and first.dtype != object:
            return digest(
                "data", str(first.dtype), first.shape, first.tobytes(), second.shape, second.tobytes()
            )
        if constants.is_parameter(value):
            shape, dtype = model.tensor_info(model.key(value) or "")
            return digest("parameter", shape, str(dtype))
        return digest("value", value.name or id(value))

    groups = find_branches(record.traced, leaf, constants.is_parameter)
    for group in groups:
        start = max((number for number, _ in group.slots.values()), default=0) + 1
        for number, members in enumerate(group.parameters, start):
            for k, value in enumerate(members):
                place = len(record.traced) + parameters.index(model.key(value) or "")
                group.slots[place, -1] = (number, k)
    return groups


def _finish_parameters(context: Context, parameters: Mapping[str, Parameter], first_slot: int) -> None:
    """Positions of bound axes that nothing reads stay where they are; each axis maps onto itself."""
    constraints = context.constraints
    for number, parameter in enumerate(parameters.values(), first_slot):
        for axis, ids in enumerate(parameter.ids):
            if ids is None:
                continue
            with constraints.stated_by(Provenance(parameter.readers[axis]), (number, -1)):
                unread = ids < 0
                if unread.any():
                    ids[unread] = constraints.new_units((int(unread.sum()),))
                    constraints.pin(ids[unread], Provenance("", Reason.NEVER_READ))
                value = constant(parameter.shape)
                value.ids = [FIXED if a is None else a for a in parameter.ids]
                context.in_context(value, axis)
        for exponent in parameter.exponents:
            if exponent is not None:
                exponent[exponent < 0] = 0
    context.record_shown()


def _names(model: Model, graph: ir.Graph, values: Mapping[ir.Value, AbstractValue]) -> dict[ir.Value, str]:
    """Names of values: those of the main graph have their own, equal ones elsewhere a number behind."""
    names: dict[ir.Value, str] = {}
    taken = set(model.tensor_names())
    for value in sorted((v for v in values if v.name), key=lambda v: v.graph is not graph):
        name = model.key(value)
        if name is None:
            name, again = value.name or "", 1
            while name in taken:
                again += 1
                name = f"{value.name}#{again}"
            taken.add(name)
        names[value] = name
    return names
