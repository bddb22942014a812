"""The element types of what a node computes, by the type variables of its operator's schema."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir

from onnxcanon.graph.nodes import attribute, given
from onnxcanon.graph.traversal import subgraphs

_CONCRETE = re.compile(r"tensor\((\w+)\)")
_NAMES = {"float": "FLOAT", "double": "DOUBLE"}


def result_types(node: ir.Node, version: int) -> list[ir.DataType | None]:
    """The type of each output; None where it is not known or no tensor's."""
    chosen = _by_attribute(node)
    if chosen is not None:
        return [chosen] * len(node.outputs)
    inner = _by_body(node)
    if inner is not None:
        return inner
    try:
        domain = "" if node.domain == "ai.onnx" else node.domain
        schema = onnx.defs.get_schema(node.op_type, version, domain)
    except onnx.defs.SchemaError:
        return [_first(node), *(None for _ in node.outputs[1:])][: len(node.outputs)]
    bound: dict[str, ir.DataType | None] = {}
    for k, value in enumerate(node.inputs):
        parameter = schema.inputs[min(k, len(schema.inputs) - 1)] if schema.inputs else None
        if value is not None and parameter is not None and value.dtype is not None:
            bound.setdefault(parameter.type_str, value.dtype)
    results: list[ir.DataType | None] = []
    for k in range(len(node.outputs)):
        name = schema.outputs[min(k, len(schema.outputs) - 1)].type_str
        concrete = _CONCRETE.fullmatch(name)
        if concrete:
            results.append(ir.DataType[_NAMES.get(concrete[1], concrete[1].upper())])
        else:
            results.append(bound.get(name))
    return results


def _by_attribute(node: ir.Node) -> ir.DataType | None:
    """The type that an attribute chooses."""
    to = attribute(node, "to")
    if node.op_type == "Cast" and to is not None:
        return ir.DataType[to] if isinstance(to, str) else ir.DataType(to)
    if node.op_type == "DequantizeLinear":  # which the schema does not say from version 23 on
        scale, chosen = given(node, 1), attribute(node, "output_dtype")
        return ir.DataType(chosen) if chosen else None if scale is None else scale.dtype
    if node.op_type in ("Shape", "Size"):
        return ir.DataType.INT64
    if node.op_type == "ConstantOfShape":
        value = node.attributes.get("value")
        return ir.DataType.FLOAT if value is None else ir.DataType(value.as_tensor().dtype)
    return None


def _by_body(node: ir.Node) -> list[ir.DataType | None] | None:
    """The types that the graph inside a node returns."""
    body = next(subgraphs(node), None)
    if body is None or node.op_type not in ("If", "Loop", "Scan"):
        return None
    returned = body.outputs[1:] if node.op_type == "Loop" else body.outputs
    return [value.dtype for value in returned] if len(returned) == len(node.outputs) else None


def constant_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    """What a Constant node holds, in whichever attribute."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    for name, field in node.attributes.items():
        if field.is_ref():
            return None
        if name == "value":
            return field.as_tensor()
        if name.startswith("value_float"):
            return ir.Tensor(np.array(field.value, np.float32))
        if name.startswith("value_int"):
            return ir.Tensor(np.array(field.value, np.int64))
    return None


_ZERO_POINTS = {"QuantizeLinear": 2, "QLinearConcat": 1, "QGemm": 8}
"""Where onnxruntime's operators have the zero point of the result; others compute in the type of input 0."""


def _first(node: ir.Node) -> ir.DataType | None:
    """The usual type of what operators outside the standard compute: that of the first floating input.

    Those of onnxruntime that compute in integers do so with scales, which are floats.
    """
    place = _ZERO_POINTS.get(node.op_type, 0 if node.op_type.startswith("QLinear") else len(node.inputs))
    value = node.inputs[place] if place < len(node.inputs) else None
    if value is not None:
        return value.dtype
    floats = (
        v.dtype for v in node.inputs if v is not None and v.dtype is not None and v.dtype.is_floating_point()
    )
    return next(floats, None)


def infer_types(graph: ir.Graph, version: int) -> None:
    """Enter the element types of all values that the file does not declare; nodes have to be in order."""
    for node in graph:
        for body in subgraphs(node):
            infer_types(body, version)
        for value, dtype in zip(node.outputs, result_types(node, node.version or version), strict=True):
            if value.type is None and dtype is not None:
                value.dtype = dtype
