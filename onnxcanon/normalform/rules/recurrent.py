"""Recurrent layers: what is zero or says the default is left out."""

from __future__ import annotations

import onnx_ir as ir

from onnxcanon.graph.nodes import attribute, given, made_by
from onnxcanon.graph.traits import row
from onnxcanon.normalform.engine import UNKNOWN_SIZES, Outputs, Rewriting
from onnxcanon.normalform.rules.registry import RULES as rule

_BIAS, _LENGTHS, _STATE, _CELL, _PEEPHOLES = 3, 4, 5, 6, 7


@rule("LSTM", "GRU", "RNN")
def zero_inputs(g: Rewriting, node: ir.Node) -> Outputs:
    """X, W, R, B, lengths, initial states, peepholes -> what is zero, or all of the length, is left out."""
    inputs = list(node.inputs)
    for k, value in enumerate(inputs):
        zero = k in (_BIAS, _STATE, _CELL, _PEEPHOLES) and _is_zero(g, value)
        if value is not None and (zero or (k == _LENGTHS and _is_whole(g, node))):
            inputs[k] = None
    return None if inputs == list(node.inputs) else g.renewed(node, inputs=inputs)


def _is_zero(g: Rewriting, value: ir.Value | None) -> bool:
    fill = made_by(value, "Expand")
    array = g.array(value if fill is None else fill.inputs[0])
    return array is not None and not array.any()


def _is_whole(g: Rewriting, node: ir.Node) -> bool:
    """Whether every sequence is as long as there are steps."""
    lengths, shape = g.ints(given(node, _LENGTHS)), g.shape(node.inputs[0])
    steps = None if shape is None else shape[1 if attribute(node, "layout", 0) else 0]
    return lengths is not None and steps is not None and all(length == steps for length in lengths)


@rule("LSTM", "GRU", "RNN")
def explicit(g: Rewriting, node: ir.Node) -> Outputs:
    """hidden_size, direction and layout are given; the usual activations are not."""
    shape = g.shape(node.inputs[2])
    if not shape or shape[-1] is None:
        return UNKNOWN_SIZES
    usual = row(node).activations * (2 if attribute(node, "direction") == "bidirectional" else 1)
    defaults = {"hidden_size": shape[-1], "direction": "forward", "layout": 0}
    changes = {name: value for name, value in defaults.items() if attribute(node, name) is None}
    activations = attribute(node, "activations")
    if activations is not None and [a.lower() for a in activations] == [a.lower() for a in usual]:
        changes |= dict.fromkeys(("activations", "activation_alpha", "activation_beta"))
        return g.renewed(node, changes)
    return g.renewed(node, changes) if changes else None
