"""A graph as it is written anew without rounding, node by node: what each value is by now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from onnxcanon.arrays import Array
from onnxcanon.graph.traits import Trait, has
from onnxcanon.model import Model
from onnxcanon.shapes import Shapes, infer_shapes

Rule = Callable[["Rewriter", onnx.NodeProto], None]

RULES: dict[str, Rule] = {}


class Unroundable(Exception):
    """Something in the model has no form without rounding; the message says what."""


def unrounds(*names: str) -> Callable[[Rule], Rule]:
    """Enter how operators are rewritten."""

    def enter(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return enter


class Rewriter:
    """The graph as it is written anew, node by node.

    Attributes:
        floats: values that were integers and are floats now.
    """

    def __init__(self, model: Model, proto: onnx.ModelProto) -> None:
        self.model = model
        self.floats: set[str] = set()
        self._proto = proto
        self._nodes: list[onnx.NodeProto] = []
        self._made: dict[str, Array] = {}  # constants computed here
        self._given = set(model.tensor_names())
        self._names = 0
        self._shapes: Shapes | None = None

    # -- what is known ------------------------------------------------------------------------------

    def constant(self, name: str) -> Array | None:
        """The value of a constant."""
        if name in self._made:
            return self._made[name]
        return self.model.tensor(name) if name in self._given else None

    def _read(self, value: ir.Value) -> Array:
        key = self.model.key(value)
        assert key is not None  # only constants are read, and these are tensors of the model
        return self.model.tensor(key)

    def rank(self, name: str) -> int:
        """How many axes a value has."""
        constant = self.constant(name)
        if constant is not None:
            return constant.ndim
        if self._shapes is None:
            self._shapes = infer_shapes(self.model.ir.graph, self._read)
        for value in self._values():
            if value.name == name:
                shape = self._shapes.shapes(value)[0]
                if shape is not None:
                    return len(shape)
        raise Unroundable(f"the shape of {name!r} is not known")

    def _values(self) -> Iterator[Any]:
        yield from self.model.ir.graph.inputs
        for node in self.model.ir.graph:
            yield from node.outputs

    # -- writing ------------------------------------------------------------------------------------

    def emit(self, op: str, inputs: Sequence[str], out: str | None = None, **attributes: Any) -> str:
        """A node of the standard with one output."""
        self._names += out is None
        out = out or f"unrounded.{self._names}"
        attributes = {name: value for name, value in attributes.items() if value is not None}
        self._nodes.append(helper.make_node(op, list(inputs), [out], **attributes))
        return out

    def keep(self, node: onnx.NodeProto) -> None:
        """A node as it is."""
        self._nodes.append(node)

    def make(self, array: Array, out: str | None = None) -> str:
        """A constant."""
        self._names += out is None
        out = out or f"unrounded.{self._names}"
        self._made[out] = array
        return out

    def number(self, name: str) -> str:
        """A value as a float."""
        if name in self.floats:
            return name
        constant = self.constant(name)
        if constant is None:
            return self.emit("Cast", [name], to=TensorProto.FLOAT)
        return name if constant.dtype.name in _FLOATING else self.make(constant.astype(np.float32))

    def arithmetic(self, op: str, a: str, b: str, out: str | None = None) -> str:
        """a op b, computed here where both are constants."""
        x, y = self.constant(a), self.constant(b)
        if x is None or y is None:
            return self.emit(op, [a, b], out)
        function = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}[op]
        return self.make(np.asarray(function(x, y, dtype=np.result_type(x, y))), out)

    def along(self, name: str, axis: int | None, x: str) -> str:
        """A scale or zero point as a float that broadcasts against x: one for each position of `axis`."""
        name = self.number(name)
        array = self.constant(name)
        if array is not None and array.dtype != np.float32:
            raise Unroundable(f"it computes in {array.dtype}")
        if array is None or array.size == 1:
            return name if array is None or array.ndim == 0 else self.make(array.reshape(()))
        if array.ndim != 1 or axis is None:
            return name
        after = -axis - 1 if axis < 0 else self.rank(x) - axis - 1
        return self.make(array.reshape(-1, *[1] * after)) if after else name

    def dequantized(
        self, x: str, scale: str, zero: str = "", axis: int | None = None, out: str | None = None
    ) -> str:
        """(x - zero point) · scale."""
        return self.arithmetic("Mul", self.shifted(x, zero, axis), self.along(scale, axis, x), out)

    def shifted(self, x: str, zero: str, axis: int | None = None) -> str:
        """x - zero point."""
        return self.arithmetic("Sub", self.number(x), self.along(zero, axis, x)) if zero else self.number(x)

    def quantized(self, x: str, scale: str, zero: str, out: str, axis: int | None = None) -> None:
        """x / scale + zero point."""
        scale = self.along(scale, axis, x)
        y = self.emit("Div", [x, scale], None if zero else out)
        if zero:
            self.emit("Add", [y, self.along(zero, axis, x)], out)
        self.floats.add(out)

    # -- the walk -----------------------------------------------------------------------------------

    def rewrite(self, node: onnx.NodeProto) -> None:
        """Write one node anew, or as it is where nothing is rounded."""
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx", "com.microsoft") else None
        if rule is not None:
            rule(self, node)
            return
        label = f"{node.op_type} '{node.name or node.output[0]}'"
        if has(node, Trait.ROUNDING):
            raise Unroundable(f"{label} has no form without rounding")
        read = {*node.input, *(name for body in bodies(node) for name in inside(body))}
        if read & self.floats:
            raise Unroundable(f"{label} reads rounded values")
        if any(has(inner, Trait.ROUNDING) for body in bodies(node) for inner in all_nodes(body)):
            raise Unroundable(f"{label} rounds inside its body")
        self.keep(node)

    def finished(self) -> onnx.ModelProto:
        """The model with the new nodes and the constants that they read."""
        graph = self._proto.graph
        del graph.node[:], graph.value_info[:]
        graph.node.extend(self._nodes)
        held = {value.name for value in (*graph.input, *graph.output)}
        read = held | {name for node in all_nodes(graph) for name in node.input}
        kept = [t for t in graph.initializer if t.name in read and t.name not in self._made]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        graph.initializer.extend(
            numpy_helper.from_array(array, name) for name, array in self._made.items() if name in read
        )
        for value in graph.output:
            if value.name in self.floats:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        return self._proto


_FLOATING = ("float16", "bfloat16", "float32", "float64")


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The subgraphs of a node."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of the bodies in it."""
    for node in graph.node:
        yield node
        for body in bodies(node):
            yield from all_nodes(body)


def inside(graph: onnx.GraphProto) -> Iterator[str]:
    """Every name that a body reads or gives back."""
    for node in all_nodes(graph):
        yield from node.input
    for body in (graph, *(b for node in all_nodes(graph) for b in bodies(node))):
        yield from (value.name for value in body.output)
