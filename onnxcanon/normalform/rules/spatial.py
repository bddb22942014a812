"""Convolution and pooling: every attribute is spelled out, and zeros around belong to the convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from onnxcanon.normalform.engine import Outputs, Rewriting, attribute, given, made_by
from onnxcanon.normalform.rules.registry import RULES as rule


@rule("Conv", "MaxPool", "AveragePool", "LpPool")
def spelled_out(g: Rewriting, node: ir.Node) -> Outputs:
    """X[N, C, *S] -> the same with kernel_shape, strides, dilations and pads, and no auto_pad."""
    if node.op_type == "Conv":
        shape = g.shape(node.inputs[1])
        kernel: Sequence[int | None] = attribute(node, "kernel_shape") or (shape[2:] if shape else ())
    else:
        kernel = attribute(node, "kernel_shape") or ()
    if not kernel or None in kernel:
        return None
    sizes = [size for size in kernel if size is not None]
    ones = [1] * len(sizes)
    wanted: dict[str, Any] = {
        "kernel_shape": sizes,
        "strides": list(attribute(node, "strides") or ones),
        "dilations": list(attribute(node, "dilations") or ones),
    }
    pads = _pads(g, node, wanted)
    if pads is None:
        return None
    wanted |= {"pads": pads, "auto_pad": "NOTSET"}
    if node.op_type == "Conv":
        wanted["group"] = attribute(node, "group", 1)
    if all(_listed(attribute(node, name)) == value for name, value in wanted.items()):
        return None
    return g.renewed(node, wanted)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _pads(g: Rewriting, node: ir.Node, wanted: dict[str, Any]) -> list[int] | None:
    """Padding as numbers; None where it depends on dynamic sizes."""
    rank, how = len(wanted["kernel_shape"]), attribute(node, "auto_pad", "NOTSET")
    if how == "NOTSET":
        return list(attribute(node, "pads") or [0] * 2 * rank)
    if how == "VALID":
        return [0] * 2 * rank
    shape = g.shape(node.inputs[0])
    if shape is None or None in shape[2:] or attribute(node, "ceil_mode", 0):
        return None
    before, after = [], []
    columns = (wanted["kernel_shape"], wanted["strides"], wanted["dilations"])
    for size, kernel, stride, dilation in zip(shape[2:], *columns, strict=True):
        out = -(-(size or 0) // stride)
        total = max((out - 1) * stride + (kernel - 1) * dilation + 1 - (size or 0), 0)
        small, large = total // 2, total - total // 2
        before.append(small if how == "SAME_UPPER" else large)
        after.append(large if how == "SAME_UPPER" else small)
    return before + after


@rule("ConvTranspose")
def transposed_spelled_out(g: Rewriting, node: ir.Node) -> Outputs:
    """X[N, C, *S] -> the same with kernel_shape, strides, dilations, pads and group."""
    shape = g.shape(node.inputs[1])
    if not shape or None in shape[2:] or attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return None
    if attribute(node, "output_shape"):
        return None
    ones = [1] * len(shape[2:])
    wanted: dict[str, Any] = {
        "kernel_shape": list(shape[2:]),
        "strides": list(attribute(node, "strides") or ones),
        "dilations": list(attribute(node, "dilations") or ones),
        "pads": list(attribute(node, "pads") or [0] * 2 * len(ones)),
        "output_padding": list(attribute(node, "output_padding") or [0] * len(ones)),
        "group": attribute(node, "group", 1),
        "auto_pad": "NOTSET",
    }
    if all(_listed(attribute(node, name)) == value for name, value in wanted.items()):
        return None
    return g.renewed(node, wanted)


@rule("Conv")
def padded_before(g: Rewriting, node: ir.Node) -> Outputs:
    """Conv(Pad(X)) -> Conv(X) with larger pads, where zeros are added around S."""
    pad = made_by(node.inputs[0], "Pad")
    added = None if pad is None else g.ints(pad.inputs[1])
    pads = attribute(node, "pads")
    if pad is None or not added or pads is None or attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return None
    rank = len(added) // 2
    value = given(pad, 2)
    zero = value is None or g.scalar(value) == 0
    if attribute(pad, "mode", "constant") != "constant" or not zero or given(pad, 3) is not None:
        return None
    if any((*added[:2], *added[rank : rank + 2])) or min(added) < 0 or len(pads) != 2 * (rank - 2):
        return None
    both = [a + b for a, b in zip(pads, [*added[2:rank], *added[rank + 2 :]], strict=True)]
    return g.renewed(node, {"pads": both}, [pad.inputs[0], *node.inputs[1:]])
