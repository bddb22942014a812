"""One sample: what is known of every value of a graph under one assignment of sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import onnx_ir as ir

from onnxcanon.arrays import Array
from onnxcanon.graph.element_types import FLOATS
from onnxcanon.graph.operators import domain_of
from onnxcanon.graph.traversal import ordered, reads
from onnxcanon.shapes.control import CONTROL, ControlRule
from onnxcanon.shapes.fold import fold
from onnxcanon.shapes.sizes import DynamicDimensions, SizeByDimension, declared
from onnxcanon.shapes.values import (
    UNKNOWN,
    VALUES,
    Contradiction,
    SampleSequence,
    SampleValue,
    ShapeNode,
    Unresolved,
    find_rule,
    same,
    size_of,
)

CONSTANT_LIMIT = 1 << 20  # elements of an integer constant that is read
PRIVATE_LIMIT = 8  # elements of a float vector that is read because it may be the scales of a Resize

_INTEGERS = frozenset(ir.DataType[name] for name in ("BOOL", "INT16", "INT32", "INT64", "UINT32", "UINT64"))

TensorReader = Callable[[ir.Value], Array]
Constants = dict[ir.Value, SampleValue]


class Propagation:
    """What is known of every value of a graph under one assignment of sizes.

    With an earlier sample as `base`, only nodes that read what differs from it are visited, and what turns
    out the same is the same object. A sample with contradictions gives up at `give_up` unknown values.
    Subgraphs are visited with the node they belong to, as often as it takes.

    Attributes:
        sizes: the size of every dynamic dimension.
        branches: which branch some `If` nodes take.
        contradictions: how many of the visited nodes refuse these sizes.
        unknown: how many of the values that they compute have no known shape.
    """

    def __init__(
        self,
        graph: ir.Graph,
        nodes: Sequence[ir.Node],
        tensor: TensorReader,
        inputs: DynamicDimensions,
        constants: Constants,
        branches: Mapping[ir.Node, bool],
        sizes: SizeByDimension,
        base: Propagation | None = None,
        give_up: int | None = None,
    ) -> None:
        self.sizes = sizes
        self.contradictions = 0
        self.unknown = 0
        self._tensor = tensor
        self._constants = constants
        self.branches = branches
        self._base = base
        self._version = graph.opset_imports.get("", graph.opset_imports.get("ai.onnx", 1))
        self._contrib_version = graph.opset_imports.get("com.microsoft", 1)
        self._values: dict[ir.Value, SampleValue] = dict(base._values) if base else {}
        self._changed: set[ir.Value] = set()
        self._symbolic: set[ir.Node] = set(base._symbolic) if base else set()
        self._orders: dict[ir.Graph, list[ir.Node]] = base._orders if base else {}
        # A node that declares its outputs by names of dimensions has to be visited in every sample, and so
        # have the nodes around it, whose subgraphs we are in.
        self._around: list[ir.Node] = []
        for value in graph.inputs:
            if value.const_value is None:
                self._set(value, SampleValue(inputs.shape(value.name or "", sizes)))
        for node in nodes:
            if base is None or node in self._symbolic or not self._changed.isdisjoint(reads(node)):
                self.visit(node)
                if give_up is not None and self.contradictions and self.unknown >= give_up:
                    break

    def get(self, value: ir.Value) -> SampleValue:
        """What is known of a value of the graph."""
        return self._values.get(value) or self._leaf(value)

    def _set(self, value: ir.Value, result: SampleValue) -> None:
        if self._base is not None:
            before = self._base._values.get(value, UNKNOWN)
            if same(result, before):
                result = before
                self._changed.discard(value)
            else:
                self._changed.add(value)
        self._values[value] = result

    def _leaf(self, value: ir.Value) -> SampleValue:
        """A value that no node before has computed: an initializer."""
        if value not in self._constants:
            tensor = value.const_value if value.producer() is None else None
            read = partial(self._tensor, value)
            self._constants[value] = UNKNOWN if tensor is None else constant(tensor, read)
        return self._constants[value]

    def visit(self, node: ir.Node) -> None:
        """Find out what a node computes from what is known of its inputs."""
        inputs = [None if value is None else self.get(value) for value in node.inputs]
        results = self._infer(node, inputs)
        results += [UNKNOWN] * (len(node.outputs) - len(results))
        for value, result in zip(node.outputs, results, strict=False):
            result = self.or_declared(value, result, node)
            self.unknown += result.shape is None and not isinstance(result, SampleSequence)
            self._set(value, result)

    def or_declared(self, value: ir.Value, result: SampleValue, node: ir.Node | None = None) -> SampleValue:
        """What is known of a value, computed by `node`; where that is nothing, what the file declares."""
        if result.shape is not None or isinstance(result, SampleSequence):
            return result
        shape, symbolic = declared(value, self.sizes)
        if symbolic:
            self._symbolic.update(self._around, [] if node is None else [node])
        return SampleValue(shape)

    def body(self, graph: ir.Graph, inputs: Sequence[SampleValue]) -> list[SampleValue]:
        """What is known of a subgraph's outputs, given what is known of its inputs."""
        if graph not in self._orders:
            self._orders[graph] = ordered(graph)
        for value, result in zip(graph.inputs, inputs, strict=True):
            self._set(value, result)
        for node in self._orders[graph]:
            self.visit(node)
        return [self.get(value) for value in graph.outputs]

    def _control(self, op: ShapeNode, rule: ControlRule) -> list[SampleValue]:
        """What is known of the outputs of a node with subgraphs."""
        self._around.append(op.node)
        try:
            return rule(op, self)
        finally:
            self._around.pop()

    def _infer(self, node: ir.Node, inputs: list[SampleValue | None]) -> list[SampleValue]:
        """What the rules say of the outputs."""
        domain = domain_of(node)
        version = node.version or (self._contrib_version if domain else self._version)
        op = ShapeNode(node, inputs, version)
        try:
            control, value = CONTROL.of(node, version), VALUES.of(node, version)
            if control is not None:
                return self._control(op, control)
            if value is not None:
                return [value(op)]
            if inputs and all(sample is None or sample.data is not None for sample in inputs):
                arrays = fold(op)
                if arrays is not None:
                    private = any(sample is not None and sample.private for sample in inputs)
                    return [SampleValue(array.shape, array, private) for array in arrays]
            rule = find_rule(domain, node.op_type, version)
            return [] if rule is None else [SampleValue(shape) for shape in rule(op)]
        except Unresolved:
            return []
        except (Contradiction, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            # Those after the first: a wrong rank, or an attribute that is missing.
            self.contradictions += 1
            return []


def constant(tensor: ir.TensorProtocol, read: Callable[[], Array]) -> SampleValue:
    """What is known of a constant tensor; its value is read only where that helps."""
    shape = tuple(int(dim) for dim in tensor.shape.numpy())
    size, dtype = size_of(shape), tensor.dtype
    if (dtype in _INTEGERS and size <= CONSTANT_LIMIT) or (dtype in FLOATS and size == 1):
        return SampleValue(shape, read())
    if dtype in FLOATS and len(shape) == 1 and size <= PRIVATE_LIMIT:
        return SampleValue(shape, read(), private=True)
    return SampleValue(shape)


@VALUES.register("Constant")
def _constant_node(op: ShapeNode) -> SampleValue:
    """-> Y, from whichever attribute holds the value."""
    for name in op.node.attributes:
        value = op.attr(name)
        if name == "value":
            return constant(value, value.numpy)
        if name in ("value_string", "value_strings"):
            return SampleValue(() if name == "value_string" else (len(value),))
        if name in ("value_float", "value_floats", "value_int", "value_ints"):
            tensor = ir.tensor(np.array(value, np.float32 if "float" in name else np.int64))
            return constant(tensor, tensor.numpy)
    raise Unresolved


@VALUES.register("Shape")
def _shape_node(op: ShapeNode) -> SampleValue:
    """X[*S] -> S[start:end]."""
    data = np.array(op.shape(0)[op.attr("start", 0) : op.attr("end")], np.int64)
    return SampleValue(data.shape, data)


@VALUES.register("Size")
def _size_node(op: ShapeNode) -> SampleValue:
    """X[*S] -> the product of S."""
    return SampleValue((), np.array(size_of(op.shape(0)), np.int64))


@VALUES.register("CastLike")
def _cast_like(op: ShapeNode) -> SampleValue:
    """X[*S], Y -> X in the type of Y."""
    data = op.value(0).data
    if data is None:
        return SampleValue(op.shape(0))
    try:
        return SampleValue(data.shape, data.astype(op.dtype(1)), op.value(0).private)
    except Unresolved:
        return SampleValue(data.shape)


@VALUES.register("Identity")
def _identity(op: ShapeNode) -> SampleValue:
    """X -> X, a tensor or a sequence."""
    return op.value(0)
