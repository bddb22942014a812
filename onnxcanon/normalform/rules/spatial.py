"""Convolution and pooling: every attribute is explicit, and zeros around belong to the convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcanon.graph.nodes import attribute, given, made_by
from onnxcanon.normalform.engine import UNKNOWN_SIZES, Outputs, Refusal, Rewriting, Size
from onnxcanon.normalform.rules.registry import RULES as rule


@rule("Conv", "MaxPool", "AveragePool", "LpPool")
def explicit(g: Rewriting, node: ir.Node) -> Outputs:
    """X[N, C, *S] -> the same with kernel_shape, strides, dilations and pads, and no auto_pad."""
    if node.op_type == "Conv":
        shape = g.shape(node.inputs[1])
        kernel: Sequence[int | None] = attribute(node, "kernel_shape") or (shape[2:] if shape else ())
    else:
        kernel = attribute(node, "kernel_shape") or ()
    if not kernel or None in kernel:
        return UNKNOWN_SIZES
    sizes = [size for size in kernel if size is not None]
    ones = [1] * len(sizes)
    wanted: dict[str, Any] = {
        "kernel_shape": sizes,
        "strides": list(attribute(node, "strides") or ones),
        "dilations": list(attribute(node, "dilations") or ones),
    }
    pads = _pads(g, node, wanted)
    if pads is None:
        return Refusal("has padding that depends on dynamic sizes")
    wanted |= {"pads": pads, "auto_pad": "NOTSET"}
    if node.op_type == "Conv":
        wanted["group"] = attribute(node, "group", 1)
    if all(_listed(attribute(node, name)) == value for name, value in wanted.items()):
        return None
    return g.renewed(node, wanted)


def _attribute_list(node: ir.Node, name: str) -> list[int]:
    """An attribute that is a list, empty where it is not given."""
    return list(attribute(node, name) or ())


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
def explicit_transposed(g: Rewriting, node: ir.Node) -> Outputs:
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


@rule("MaxPool", "AveragePool")
def whole_window(g: Rewriting, node: ir.Node) -> Outputs:
    """X[N, C, *S] pooled over a window as large as S -> its mean or maximum over S."""
    shape, rank = g.shape(node.inputs[0]), g.rank(node.inputs[0])
    if (
        shape is None
        or rank is None
        or len(node.outputs) > 1
        or list(shape[2:]) != _attribute_list(node, "kernel_shape")
    ):
        return None
    if any(_attribute_list(node, "pads")) or any(d != 1 for d in _attribute_list(node, "dilations")):
        return None
    if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    op_type = "ReduceMean" if node.op_type == "AveragePool" else "ReduceMax"
    return g.node(op_type, node.inputs[0], g.integers(range(2, rank)), attributes={"keepdims": 1})


@rule("Resize")
def resized_by_scales(g: Rewriting, node: ir.Node) -> Outputs:
    """X, roi, scales, sizes -> X, scales, where every size is multiplied by one number whatever it is."""
    x, scales = node.inputs[0], given(node, 2)
    sizes = g.sizes(x, node.outputs[0])
    mode = attribute(node, "coordinate_transformation_mode", "half_pixel")
    if sizes is None or attribute(node, "axes") or mode == "tf_crop_and_resize":
        return None
    factors = [_factor(before, after) for before, after in zip(*sizes, strict=True)]
    if None in factors:
        return Refusal("multiplies a size by no fixed number")
    if given(node, 1) is None and given(node, 3) is None and _numbers(g, scales) == factors:
        return None
    wanted = g.constant(np.array(factors, np.float32))
    return g.renewed(node, {"keep_aspect_ratio_policy": None}, [x, None, wanted])


def _factor(before: Size, after: Size) -> float | None:
    """What all sizes of an axis are multiplied by, if single precision tells it exactly."""
    ratio = after[0] / before[0] if before[0] else 0.0
    exact = all(float(np.float32(ratio)) * a == b for a, b in zip(before, after, strict=True))
    return ratio if ratio and exact else None


def _numbers(g: Rewriting, value: ir.Value | None) -> list[float] | None:
    array = g.array(value)
    return None if array is None else [float(number) for number in array]


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
