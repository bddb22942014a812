"""What a node says of itself: its name, attributes, inputs, and the node that computes a value."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir


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


def made_by(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node of one of these operators that computes a value."""
    node = None if value is None else value.producer()
    if node is None or node.domain not in ("", "ai.onnx") or node.op_type not in op_types:
        return None
    return node
