"""Why two models are not of one structure, said so that one can act on it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

import onnx_ir as ir
from onnx_ir import DataType

from onnxcanon.comparison.correspondence import same_entries
from onnxcanon.graph.element_types import AVERAGED
from onnxcanon.graph.nodes import node_name
from onnxcanon.graph.operators import is_standard
from onnxcanon.graph.traversal import inlined, live
from onnxcanon.model import Model

NORMALIZE = "; --normalize brings exports of one architecture to one graph first"
"""What may help."""

NAMED_TENSORS = 3
"""How many tensors a message names."""


def explain_mismatch(reference: Model, model: Model) -> str:
    """Why two models are not of one structure, in a line."""
    nodes = (live(inlined(m.ir).graph) for m in (reference, model))
    widths: dict[str, None] = {}
    others: list[str] = []
    for ours, theirs in zip_longest(*nodes):
        if ours is None or theirs is None or _operator(ours) != _operator(theirs):
            what = [
                f"{_operator(n)} '{node_name(n)}'" if n is not None else "no node" for n in (ours, theirs)
            ]
            return (
                f"{reference.name} has {what[0]} where {model.name} has {what[1]}: models of different"
                f" structures cannot be aligned or averaged{NORMALIZE}"
            )
        for name, counterpart in _constants(reference, ours, model, theirs):
            (shape, dtype), (shape_b, dtype_b) = reference.tensor_info(name), model.tensor_info(counterpart)
            if dtype != dtype_b:
                others.append(_mismatch(name, dtype.name, reference, counterpart, dtype_b.name, model))
            elif shape != shape_b:
                widths[
                    _mismatch(name, str(list(shape)), reference, counterpart, str(list(shape_b)), model)
                ] = None
            elif dtype not in AVERAGED and not same_entries(reference, name, model, counterpart):
                others.append(why_not_averaged(reference, name, model, counterpart))
    if widths:
        some = ", ".join(list(widths)[:NAMED_TENSORS])
        return f"{some}: models of different widths cannot be aligned or averaged"
    if others:
        return others[0]
    return (
        f"{reference.name} and {model.name} have the same operators, but their attributes or connections"
        f" differ: models of different structures cannot be aligned or averaged{NORMALIZE}"
    )


def _mismatch(name: str, what: str, a: Model, counterpart: str, other: str, b: Model) -> str:
    called = "" if counterpart == name else f"{counterpart} is "
    return f"{name} is {what} in {a.name} and {called}{other} in {b.name}"


def _operator(node: ir.Node) -> str:
    return node.op_type if is_standard(node) else f"{node.domain}::{node.op_type}"


def _constants(a: Model, node: ir.Node, b: Model, counterpart_node: ir.Node) -> Iterator[tuple[str, str]]:
    """The constants that two nodes read at the same place."""
    for ours, theirs in zip(node.inputs, counterpart_node.inputs, strict=False):
        if ours is not None and theirs is not None:
            name, counterpart = a.key(ours), b.key(theirs)
            if name is not None and counterpart is not None:
                yield name, counterpart


def why_not_averaged(a: Model, name: str, b: Model, counterpart: str) -> str:
    """Why a tensor that differs cannot be averaged."""
    dtype = a.tensor_info(name)[1]
    what = "no weights, and has to be equal in all models"
    if dtype.bitwidth <= 8 and dtype not in (DataType.BOOL, DataType.STRING):
        what = "quantized weights, which cannot be averaged: merge the models before quantizing"
    called = "" if counterpart == name else f" ('{counterpart}')"
    differs = f"tensor '{name}'{called} differs from that of {a.name}"
    return f"{b.name}: {differs}; it is {dtype.name} and holds {what}"
