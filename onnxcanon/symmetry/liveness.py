"""Dead positions: rows of parameters that reach no output of the graph, whatever the weights are.

A unit is dead if every path of its value ends where positions are dropped (a slice, an output of a split
that nothing reads) or in nodes that lead to no output. It is alive as soon as one node that leads to an
output takes it in and does not hand it on as it is: sums over it, or mixes it with others. Where that is
not clear (operators other than those below, positions merged with others) it counts as alive, so that what
is told is true.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from onnxcanon.symmetry.analysis import Symmetry
from onnxcanon.symmetry.constraints import Ids
from onnxcanon.symmetry.labels import Labelled, State
from onnxcanon.symmetry.trace import NEVER_READ, captured

SELECTING = frozenset({"Gather", "Slice", "Split"})
KEEPING = SELECTING | {
    "Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip", "Concat", "Conv",
    "Cos", "DequantizeLinear", "Div", "Einsum", "Elu", "Erf", "Exp", "Expand", "Floor", "Gelu",
    "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log",
    "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "PRelu", "Pad", "Pow", "QuantizeLinear", "Reciprocal",
    "Relu", "Selu", "Sigmoid", "Sin", "Softplus", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze",
    "Where",
}  # fmt: skip
"""Operators that either sum over a position or hand it on without mixing it with others."""


def dead_positions(graph: ir.Graph, symmetry: Symmetry) -> dict[tuple[str, int], int]:
    """How many positions of each parameter axis are dead; axes without any are left out."""
    dead = _dropped(graph, symmetry)
    if dead.any():
        for node, live in _nodes(graph):
            if live:
                dead[_taken_in(node, symmetry)] = False
    for ids, cause in symmetry.trace.ledger.pins:  # a pinned unit is read there
        dead[symmetry.solution.classes[ids]] = cause.reason == NEVER_READ
    found = {}
    if dead.any():
        for name, axes in symmetry.classes.items():
            for axis, rows in axes.items():
                others = tuple(k for k in range(rows.ndim) if k != axis)
                count = int(dead[rows].all(others).sum())
                if count and rows.shape[axis] > 1:
                    found[name, axis] = count
    return found


def _dropped(graph: ir.Graph, symmetry: Symmetry) -> Ids:
    """The classes that some node drops or that stand in nodes leading nowhere, bool [classes]."""
    mask = np.zeros(symmetry.solution.count, bool)
    for node, live in _nodes(graph):
        if not live:
            mask[_classes(symmetry, [*node.inputs, *node.outputs])] = True
        elif node.op_type in SELECTING and node.inputs[0] is not None:
            gone = _classes(symmetry, node.inputs[:1])
            kept = _classes(symmetry, [v for v in node.outputs if v.uses() or v.is_graph_output()])
            mask[np.setdiff1d(gone, kept)] = True
    return mask


def _taken_in(node: ir.Node, symmetry: Symmetry) -> Ids:
    """The classes that a node takes in and does not hand on as they are."""
    read = _classes(symmetry, [*node.inputs, *captured(node)])
    if node.op_type not in KEEPING:
        return read
    if node.op_type in SELECTING:
        return read[:0]
    return np.setdiff1d(read, _classes(symmetry, node.outputs))


def _classes(symmetry: Symmetry, values: Iterable[ir.Value | None]) -> Ids:
    """The classes of all labels on some values, in order and each once."""
    found = [np.zeros(0, np.int64)]
    for value in values:
        name = "" if value is None else value.name or ""
        labelled = symmetry.trace.values.get(name)
        if name in symmetry.classes:
            found += [rows.ravel() for rows in symmetry.classes[name].values()]
        elif isinstance(labelled, Labelled):
            arrays = [ids for ids in labelled.ids if not isinstance(ids, State)]
            found += [symmetry.solution.classes[ids.ravel()] for ids in arrays]
    return np.unique(np.concatenate(found))


def _nodes(graph: ir.Graph) -> list[tuple[ir.Node, bool]]:
    """Every node, and whether it leads to an output."""
    live: set[ir.Value] = set(graph.outputs)
    out = []
    for node in reversed(list(graph)):
        leads = any(v in live for v in node.outputs)
        if leads:
            live.update(v for v in (*node.inputs, *captured(node)) if v is not None)
        out.append((node, leads))
    return out
