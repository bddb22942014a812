"""What a node says of itself: its name, attributes, inputs, and the node that computes a value."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxcanon.graph.operators import domain_of, is_standard


def node_name(node: ir.Node) -> str:
    """The node's name, or one made of its operator and first output."""
    return node.name or f"{node.op_type}({node.outputs[0].name if node.outputs else ''})"


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """The value of an attribute, or the default."""
    found = node.attributes.get(name)
    return default if found is None or found.is_ref() else found.value


def given(node: ir.Node, index: int) -> ir.Value | None:
    """An input, None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


class NodeView:
    """One node as the rules of a table see it; each table adds what it knows of the inputs.

    Attributes:
        node: the node.
        version: the version of its operator set.
    """

    __slots__ = ("node", "version")

    def __init__(self, node: ir.Node, version: int) -> None:
        self.node = node
        self.version = version

    @property
    def kind(self) -> str:
        """The operator's name."""
        return self.node.op_type

    @property
    def domain(self) -> str:
        """The operator's domain; that of the standard is empty."""
        return domain_of(self.node)

    def has(self, index: int) -> bool:
        """Whether an optional input is there."""
        return given(self.node, index) is not None

    def attr(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, or the default."""
        return attribute(self.node, name, default)

    def axis(self, default: int, rank: int, name: str = "axis") -> int:
        """An axis attribute, counted from 0."""
        axis = int(self.attr(name, default))
        return axis + rank if axis < 0 else axis


def made_by(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node of one of these operators that computes a value."""
    node = None if value is None else value.producer()
    return node if node is not None and is_standard(node, *op_types) else None
