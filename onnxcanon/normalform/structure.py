"""What a graph is apart from names, order and weights: a hash of every value by what leads to it.

Two values have one digest if they are computed by equal operators from equal things. Numbers in the graph
count by content (floating ones to a few digits, for exporters round them differently); tensors of floating
weights count by shape and type only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from onnxcanon.graph.operators import is_standard
from onnxcanon.graph.traits import Trait, has
from onnxcanon.graph.traversal import GRAPHS, ordered, subgraphs

_DIGITS = 4
_MOST_COMPARED = 1 << 16  # elements of an integer constant that counts by content
Digests = dict[ir.Value, bytes]


def structure(graph: ir.Graph) -> str:
    """The digest of a whole graph: of its outputs, in their order."""
    digests = value_digests(graph)
    return _hash(digests[value] for value in graph.outputs).hex()


def order_operands(graph: ir.Graph) -> None:
    """Order the operands of commutative operators by structure, constants last."""
    digests = value_digests(graph)
    for node in graph.all_nodes():
        if _commutes(node):
            operands = sorted(
                (value for value in node.inputs if value is not None),
                key=lambda value: (value.const_value is not None, digests.get(value, b"")),
            )
            for k, value in enumerate(operands):
                node.replace_input_with(k, value)


def _commutes(node: ir.Node) -> bool:
    """Whether operands are ordered. Those of bitwise operators never were, and normal forms do not change."""
    return is_standard(node) and has(node, Trait.COMMUTATIVE) and not has(node, Trait.BITWISE)


def value_digests(graph: ir.Graph) -> Digests:
    """A digest of every value of the graph, nested ones included."""
    digests: Digests = {}
    _add_digests(graph, digests)
    return digests


def _add_digests(graph: ir.Graph, digests: Digests) -> None:
    for place, value in enumerate(graph.inputs):
        rank = len(value.shape) if value.shape is not None else -1
        digests[value] = _hash([f"input {place} {value.dtype} {rank}".encode()])
    for value in graph.initializers.values():
        digests.setdefault(value, _constant(value))
    for node in ordered(graph):
        for body in subgraphs(node):
            _add_digests(body, digests)
        whole = _node(node, digests)
        for k, value in enumerate(node.outputs):
            digests[value] = _hash([whole, str(k).encode()])


def _node(node: ir.Node, digests: Digests) -> bytes:
    inputs = [b"-" if value is None else _of(value, digests) for value in node.inputs]
    if _commutes(node):
        inputs.sort()
    attributes = [_attribute(a, digests) for _, a in sorted(node.attributes.items())]
    return _hash([f"{node.domain}::{node.op_type}:{node.overload}".encode(), *inputs, b"|", *attributes])


def _of(value: ir.Value, digests: Digests) -> bytes:
    if value not in digests:
        digests[value] = _constant(value)
    return digests[value]


def _attribute(attribute: ir.Attr, digests: Digests) -> bytes:
    name = attribute.name.encode()
    if attribute.type in GRAPHS:
        graphs = [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else attribute.as_graphs()
        return _hash([name, *(_hash(_of(value, digests) for value in graph.outputs) for graph in graphs)])
    if attribute.type == ir.AttributeType.TENSOR:
        return _hash([name, _tensor(attribute.as_tensor())])
    value = attribute.value
    listed = list(value) if isinstance(value, (list, tuple)) else [value]
    return _hash([name, *(_number(x).encode() for x in listed)])


def _constant(value: ir.Value) -> bytes:
    return b"unknown" if value.const_value is None else _tensor(value.const_value)


def _tensor(tensor: ir.TensorProtocol) -> bytes:
    shape = tuple(int(dim) for dim in tensor.shape.numpy())
    head = f"tensor {tensor.dtype} {shape}".encode()
    if tensor.dtype.is_floating_point() and shape == ():
        return _hash([head, _number(float(tensor.numpy().item())).encode()])
    if tensor.dtype.is_floating_point() or tensor.size > _MOST_COMPARED or tensor.dtype == ir.DataType.STRING:
        return _hash([head])
    return _hash([head, np.ascontiguousarray(tensor.numpy()).tobytes()])


def _number(value: object) -> str:
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else repr(value)


def _hash(parts: Iterable[bytes]) -> bytes:
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()
