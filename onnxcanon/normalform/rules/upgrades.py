"""Operators that older operator sets have in other forms, in that of the target."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcanon.graph.nodes import attribute, given
from onnxcanon.graph.traits import Trait, operators
from onnxcanon.normalform.engine import TARGET, Outputs, Rewriting
from onnxcanon.normalform.rules.registry import UPGRADES as upgrade


@upgrade(*operators(Trait.REDUCTION), "Squeeze", "Unsqueeze")
def axes_as_input(g: Rewriting, node: ir.Node) -> Outputs:
    """Before 13 or 18: axes are an attribute."""
    axes = attribute(node, "axes")
    if axes is None or len(node.inputs) > 1:
        return None
    return g.renewed(node, {"axes": None}, [node.inputs[0], g.integers(axes)])


@upgrade("Clip")
def clip(g: Rewriting, node: ir.Node) -> Outputs:
    """Before 11: bounds are attributes."""
    x = node.inputs[0]
    if g.version(node) >= 11 or x is None or x.dtype is None:
        return None
    bounds = [attribute(node, name) for name in ("min", "max")]
    return g.node("Clip", x, *(None if b is None else g.number(b, x) for b in bounds))


@upgrade("Dropout")
def dropout(g: Rewriting, node: ir.Node) -> Outputs:
    """Before 12: always inference, as far as onnxruntime is concerned."""
    mask_read = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    if g.version(node) >= 12 or mask_read:
        return None
    return [node.inputs[0], *(None for _ in node.outputs[1:])]


@upgrade("Pad")
def pad(g: Rewriting, node: ir.Node) -> Outputs:
    """Before 11: pads and value are attributes."""
    x, pads = node.inputs[0], attribute(node, "pads")
    if g.version(node) >= 11 or pads is None or x is None or x.dtype is None:
        return None
    value = g.number(attribute(node, "value", 0.0), x)
    return g.node("Pad", x, g.integers(pads), value, attributes={"mode": attribute(node, "mode")})


@upgrade("Slice")
def slice_(g: Rewriting, node: ir.Node) -> Outputs:
    """Before 10: starts, ends and axes are attributes."""
    if g.version(node) >= 10:
        return None
    starts, ends = attribute(node, "starts"), attribute(node, "ends")
    axes = attribute(node, "axes", list(range(len(starts))))
    return g.node("Slice", node.inputs[0], *map(g.integers, (starts, ends, axes)))


@upgrade("Split")
def split(g: Rewriting, node: ir.Node) -> Outputs:
    """Before 13: sizes are an attribute; before 18: equal parts need not be counted."""
    sizes = attribute(node, "split")
    if g.version(node) >= 18 or given(node, 1) is not None:
        return None
    axis, count = attribute(node, "axis", 0), len(node.outputs)
    if sizes is None:
        attributes = {"axis": axis, "num_outputs": count}
        return g.nodes("Split", node.inputs[0], attributes=attributes, outputs=count)
    return g.nodes("Split", node.inputs[0], g.integers(sizes), attributes={"axis": axis}, outputs=count)


@upgrade("Softmax", "LogSoftmax", "Hardmax")
def softmax(g: Rewriting, node: ir.Node) -> Outputs:
    """Before 13: over all axes from `axis` on (1 by default), as if they were one."""
    x = node.inputs[0]
    shape = g.shape(x)
    if g.version(node) >= 13 or shape is None:
        return None
    axis = attribute(node, "axis", 1) % max(len(shape), 1)
    wide = [k for k in range(axis, len(shape)) if shape[k] != 1]
    if len(wide) <= 1:
        return g.node(node.op_type, x, attributes={"axis": wide[0] if wide else len(shape) - 1})
    flat = g.node("Flatten", x, attributes={"axis": axis})
    result = g.node(node.op_type, flat, attributes={"axis": 1})
    return g.node("Reshape", result, g.node("Shape", x))


@upgrade("Upsample")
def upsample(g: Rewriting, node: ir.Node) -> Outputs:
    """Before 10: scales are an attribute before 9, and the operator is called Resize since."""
    scales = given(node, 1)
    if scales is None:
        scales = g.constant(np.array(attribute(node, "scales"), np.float32))
    return _resize(g, node, scales)


@upgrade("Resize")
def resize(g: Rewriting, node: ir.Node) -> Outputs:
    """Before 11: asymmetric coordinates, rounded down."""
    return _resize(g, node, node.inputs[1]) if g.version(node) < 11 else None


def _resize(g: Rewriting, node: ir.Node, scales: ir.Value | None) -> ir.Value:
    attributes = {
        "mode": attribute(node, "mode", "nearest"),
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    return g.node("Resize", node.inputs[0], None, scales, attributes=attributes)


@upgrade("TopK")
def top_k(g: Rewriting, node: ir.Node) -> Outputs:
    """Before 10: k is an attribute."""
    k = attribute(node, "k")
    if k is None:
        return None
    return g.renewed(node, {"k": None}, [node.inputs[0], g.integers([k])])


@upgrade("BatchNormalization")
def batch_normalization(g: Rewriting, node: ir.Node) -> Outputs:
    """Before 9: per channel if `spatial`; before 14: training has more outputs."""
    if g.version(node) >= TARGET or attribute(node, "spatial", 1) != 1:
        return None
    if len(node.outputs) > 1 and g.version(node) < 14:
        return None
    return g.renewed(node, {"spatial": None})


@upgrade("GroupNormalization")
def group_normalization(g: Rewriting, node: ir.Node) -> Outputs:
    """Before 21: one scale and bias for each group, not for each channel."""
    shape, groups = g.shape(node.inputs[0]), attribute(node, "num_groups")
    arrays = [g.array(value) for value in node.inputs[1:]]
    if g.version(node) >= 21 or not shape or shape[1] is None:
        return None
    repeats = shape[1] // groups
    wide = [
        g.constant(np.repeat(a, repeats), v)
        for a, v in zip(arrays, node.inputs[1:], strict=True)
        if a is not None
    ]
    return g.renewed(node, inputs=[node.inputs[0], *wide]) if len(wide) == len(arrays) else None


@upgrade("DFT")
def fourier_transform(g: Rewriting, node: ir.Node) -> Outputs:
    """Before 20: the axis is an attribute."""
    if g.version(node) >= 20:
        return None
    axis = g.constant(np.array(attribute(node, "axis", 1), np.int64))
    return g.renewed(node, {"axis": None}, [node.inputs[0], given(node, 1), axis])


@upgrade("Scatter")
def scatter(g: Rewriting, node: ir.Node) -> Outputs:
    """Before 11."""
    return g.node("ScatterElements", *node.inputs, attributes={"axis": attribute(node, "axis", 0)})


@upgrade("GridSample")
def grid_sample(g: Rewriting, node: ir.Node) -> Outputs:
    """Before 20: modes have longer names."""
    if g.version(node) >= 20:
        return None
    mode = attribute(node, "mode", "bilinear")
    return g.renewed(node, {"mode": {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)})
