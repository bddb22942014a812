"""What the shape pass knows of a value, and the view of a node that its rules are written with.

A rule is one plain function per operator family. It reads the shapes, small values and attributes of one
node through a `ShapeNode` and returns the shapes of its outputs. It raises `Unresolved` where the answer
is not to be had and `Contradiction` where the sizes cannot meet: the file is then wrong, or the sample has
sizes that the model does not accept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcanon.arrays import Array, Shape
from onnxcanon.graph.nodes import NodeView
from onnxcanon.graph.operators import CONTRIB, STANDARD, Table


class Unresolved(Exception):
    """The rule needs a shape or a value that is not known."""


class Contradiction(Exception):
    """The sizes that meet in this node cannot meet."""


@dataclass(frozen=True, slots=True)
class SampleValue:
    """What is known of one value in one sample.

    Attributes:
        shape: the concrete shape; None where not even the rank is known.
        data: the value itself where it is known: shape arithmetic, index constants, scalars.
        private: the data comes from a float parameter (the `scales` of a Resize). It serves to work out
            shapes and is not shown to anyone else, who would take a weight for a constant.
    """

    shape: Shape | None
    data: Array | None = None
    private: bool = False


@dataclass(frozen=True, slots=True)
class SampleSequence(SampleValue):
    """A sequence value: what is known of each of its items."""

    items: tuple[SampleValue, ...] = ()


UNKNOWN = SampleValue(None)


def same(first: SampleValue, second: SampleValue) -> bool:
    """Whether two values are known to be the same, or to have the same shape and not known otherwise."""
    if first is second:
        return True
    if first.shape != second.shape or type(first) is not type(second):
        return False
    if isinstance(first, SampleSequence) and isinstance(second, SampleSequence):
        return len(first.items) == len(second.items) and all(map(same, first.items, second.items))
    if first.data is None or second.data is None:
        return first.data is second.data
    return first.data.dtype == second.data.dtype and bool(np.array_equal(first.data, second.data))


class ShapeNode(NodeView):
    """One node in one sample, with what is known of its inputs there."""

    __slots__ = ("inputs",)

    def __init__(self, node: ir.Node, inputs: list[SampleValue | None], version: int) -> None:
        super().__init__(node, version)
        self.inputs = inputs

    def value(self, index: int) -> SampleValue:
        """What is known of an input that has to be there."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise Unresolved
        return value

    def shape(self, index: int) -> Shape:
        """The shape of an input."""
        shape = self.value(index).shape
        if shape is None:
            raise Unresolved
        return shape

    def shapes(self) -> list[Shape]:
        """The shapes of all inputs that are given."""
        return [self.shape(i) for i, value in enumerate(self.inputs) if value is not None]

    def data(self, index: int) -> Array:
        """The value of an input."""
        data = self.value(index).data
        if data is None:
            raise Unresolved
        return data

    def values(self, index: int) -> list[Any]:
        """The value of an input as a flat Python list."""
        values: list[Any] = self.data(index).ravel().tolist()
        return values

    def attr(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, or the default."""
        value = super().attr(name, default)
        if value is None and name in self.node.attributes:
            raise Unresolved  # files of the first IR versions do not say what type it has
        return value

    def attr_or_values(self, name: str, index: int) -> list[Any] | None:
        """A list that newer opsets take as an input, older ones as an attribute; None where not given."""
        if self.has(index):
            return self.values(index)
        value = self.attr(name)
        return None if value is None else list(value)

    def dtype(self, index: int) -> np.dtype[Any]:
        """The numpy type of an input."""
        data = self.value(index).data
        if data is not None:
            return data.dtype
        value = self.node.inputs[index]
        if value is None or value.dtype is None:
            raise Unresolved
        return value.dtype.numpy()


OutputShapes = Sequence[Shape | None]
Rule = Callable[[ShapeNode], OutputShapes]

SHAPES: Table[Rule] = Table("shapes")
rule = SHAPES.register

VALUES: Table[Callable[[ShapeNode], SampleValue]] = Table("shapes with values")
"""What is known of the one output of operators that make values, sequences among them."""


def find_rule(domain: str, op_type: str, version: int) -> Rule | None:
    """The shape rule of an operator; None where there is none.

    A contrib operator is accepted in the standard domain too, where older releases of onnxruntime wrote it,
    unless the standard has an operator of that name.
    """
    found = SHAPES.find(domain, op_type, version)
    return SHAPES.find(CONTRIB, op_type, version) if found is None and domain == STANDARD else found


def size_of(shape: Shape) -> int:
    """The number of elements."""
    size = 1
    for dim in shape:
        size *= dim
    return size


def norm_axis(axis: int, rank: int) -> int:
    """A non-negative axis."""
    if not -rank <= axis < rank:
        raise Contradiction(f"axis {axis} of a tensor of rank {rank}")
    return axis + rank if axis < 0 else axis


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The numpy broadcast of shapes."""
    first = shapes[0]
    if all(shape == first for shape in shapes):
        return first
    rank = max(map(len, shapes))
    result = [1] * rank
    for shape in shapes:
        for axis, dim in enumerate(shape, rank - len(shape)):
            if dim != 1:
                if result[axis] not in (1, dim):
                    raise Contradiction(f"{shapes} do not broadcast")
                result[axis] = dim
    return tuple(result)
