"""Matching by the functional difference of units: how far two rows of weights are apart on their inputs.

    d(i, j) = ½ (wᵢ - wⱼ)ᵀ M (wᵢ - wⱼ),   M = (H_A⁻¹ + H_B⁻¹)⁻¹,   H = E[x xᵀ]

is what merging the two units costs both models in the mean square of the layer's result, to second order (He
et al. 2018, multi-task zipping). With M = L Lᵀ it is half the squared distance of rows of W L.
The layers are taken in the order of the graph, the inputs of the second model in the places of the first's.
A bias is the weight of an input that is always 1; the inputs of a convolution are its patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcanon.alignment.assignment import Singles
from onnxcanon.alignment.capture import capture_values
from onnxcanon.alignment.flow import Flow, in_main_graph
from onnxcanon.alignment.frame import Frame
from onnxcanon.alignment.incidence import Branch, Rows
from onnxcanon.alignment.layers import OrbitFeatures, in_order
from onnxcanon.alignment.method import MethodResult, data_for
from onnxcanon.arrays import Floats
from onnxcanon.errors import OnnxcanonError
from onnxcanon.graph.nodes import attribute
from onnxcanon.graph.operators import is_standard
from onnxcanon.settings import Settings
from onnxcanon.symmetry import Symmetry

DAMPING = 1e-3
"""What is added to the diagonal of H, as a part of its mean."""

WIDEST = 8192
"""Inputs of a unit up to which H is computed."""


@dataclass(frozen=True, slots=True)
class LinearLayer:
    """A node that multiplies its input by a parameter.

    Attributes:
        node: Gemm, MatMul or Conv.
        value: the name of the input.
        weight: the rows of the parameter, one for each unit made.
        bias: those of what is added; None where nothing is.
        factors: by which a Gemm multiplies the product and the bias.
    """

    node: ir.Node
    value: str
    weight: Rows
    bias: Rows | None
    factors: tuple[float, float] = (1.0, 1.0)

    @property
    def groups(self) -> int:
        """How many sets of units have inputs of their own."""
        return int(attribute(self.node, "group", 1)) if self.node.op_type == "Conv" else 1

    @property
    def width(self) -> int:
        """How many weights a unit has."""
        return prod(self.weight.shape[a] for a in self.weight.rest)

    def inputs(self, x: NDArray[Any]) -> Floats:
        """The inputs of the units, float64 [groups, samples, width]."""
        if self.node.op_type == "Conv":
            return _patches(self.node, x.astype(np.float64), self.weight.shape[2:], self.groups)
        return x.reshape(1, -1, x.shape[-1]).astype(np.float64)

    def rows(self, parameters: Mapping[str, Singles]) -> Floats:
        """The weights of every unit, the bias last, float64 [groups, units, width + 1]."""
        alpha, beta = self.factors
        weight = self.weight.matrix(parameters[self.weight.name]).astype(np.float64) * alpha
        bias = np.zeros((len(weight), 1))
        if self.bias is not None:
            bias = self.bias.matrix(parameters[self.bias.name]).astype(np.float64).reshape(-1, 1) * beta
        return np.concatenate([weight, bias], 1).reshape(self.groups, -1, self.width + 1)


def by_functional(frame: Frame, settings: Settings) -> MethodResult:
    """The element under which units differ least on the data, layer by layer.

    Raises:
        OnnxcanonError: there is no data, it does not fit, or makes the inputs of a layer infinite.
        RuntimeUnavailableError: a model does not run.
    """
    data = data_for("functional", settings)
    matching, flow = frame.matching(), Flow(frame.ours)

    def features(k: int, branch: Branch) -> OrbitFeatures | None:
        settings.progress(f"matching functions, {flow.order.index(k) + 1} of {len(flow.order)}")
        layers = _layers(frame, flow, k, branch)
        if not layers:
            return None
        one, other = frame.models
        models = one, matching.transform.apply(other)
        moments = _moments(models, layers, data, settings.device)
        out = OrbitFeatures({}, {}, near=True)
        for layer, pair in zip(layers, moments, strict=True):
            root = _root(*pair)
            for side, parameters in ((out.ours, matching.ours), (out.theirs, matching.moved)):
                rows = layer.rows(parameters) @ root
                side[layer.weight] = rows.reshape(layer.weight.count, -1).astype(np.float32)
        return out

    notes = in_order(matching, flow, features)
    return MethodResult(matching.transform, notes)


def _layers(frame: Frame, flow: Flow, k: int, branch: Branch) -> list[LinearLayer]:
    """The layers that make an orbit's units from others."""
    symmetry, graph = frame.ours, frame.reference.ir.graph
    rows = {c.rows.name: c.rows for c in branch.incidences if len(c.rows.axes) == 1}
    found: dict[Rows, LinearLayer] = {}
    for node in flow.makers(k):
        layer = _layer(symmetry, node, rows)
        if layer is None or layer.width > WIDEST or layer.weight in found:
            continue
        x = node.inputs[0]
        if x is None or flow.labels(x, k) or flow.constant(x):
            continue
        if (
            x in graph.inputs
            or x.name in {v.name for v in graph.inputs}
            or in_main_graph(symmetry, graph, [x])
        ):
            found[layer.weight] = layer
    return list(found.values())


def _layer(symmetry: Symmetry, node: ir.Node, rows: Mapping[str, Rows]) -> LinearLayer | None:
    """How a node makes the units of some rows; None where it is no such layer."""
    if not is_standard(node, "Gemm", "MatMul", "Conv"):
        return None
    x, w = node.inputs[:2]
    if x is None or w is None or attribute(node, "transA", 0):
        return None
    axis = {"Conv": 0, "MatMul": 1, "Gemm": 0 if attribute(node, "transB", 0) else 1}[node.op_type]
    while (producer := w.producer()) is not None and producer.op_type in ("Transpose", "Identity"):
        w = producer.inputs[0]
        if w is None:
            return None
        if producer.op_type == "Transpose":
            if node.op_type == "Conv" or tuple(attribute(producer, "perm", (1, 0))) != (1, 0):
                return None
            axis = 1 - axis
    weight = rows.get(symmetry.trace.names.get(w, ""))
    if weight is None or weight.axes != (axis,) or (node.op_type != "Conv" and len(weight.shape) != 2):
        return None
    factors = (1.0, 1.0)
    if node.op_type == "Gemm":
        factors = float(attribute(node, "alpha", 1.0)), float(attribute(node, "beta", 1.0))
    name = symmetry.trace.names.get(x, "")
    return LinearLayer(node, name, weight, _bias(symmetry, node, rows, weight), factors)


def _bias(symmetry: Symmetry, node: ir.Node, rows: Mapping[str, Rows], weight: Rows) -> Rows | None:
    """What is added for each unit, by the node itself or by the one after it."""
    added = node.inputs[2:3]
    if not added:
        uses = list(node.outputs[0].uses())
        if len(uses) == 1 and uses[0].node.op_type == "Add":
            added = [v for v in uses[0].node.inputs if v is not node.outputs[0]]
    names = [symmetry.trace.names.get(value, "") for value in added if value is not None]
    found = next((rows[name] for name in names if name in rows), None)
    if found is None or found.count != weight.count or prod(found.shape) != found.count:
        return None
    return found


def _moments(
    models: Sequence[Any], layers: Sequence[LinearLayer], data: Any, device: str
) -> list[list[Floats]]:
    """E[x xᵀ] of the inputs of each layer, with a 1 behind them, in each model: [groups, width, width]."""
    sums: list[list[Any]] = [[0.0, 0.0] for _ in layers]
    counts = [0] * len(layers)
    for batch in capture_values(models, list({layer.value for layer in layers}), data, device=device):
        for k, layer in enumerate(layers):
            for side, values in enumerate(batch):
                x = layer.inputs(values[layer.value])
                x = np.concatenate([x, np.ones((*x.shape[:2], 1))], -1)
                sums[k][side] = sums[k][side] + x.transpose(0, 2, 1) @ x
                if not np.isfinite(sums[k][side]).all():
                    raise OnnxcanonError(
                        f"{models[side].name}: on this data the value '{layer.value}' is not finite; give"
                        " other data"
                    )
            counts[k] += x.shape[1]
    return [[total / max(count, 1) for total in pair] for pair, count in zip(sums, counts, strict=True)]


def _root(one: Floats, other: Floats) -> Floats:
    """L of L Lᵀ = (H_A⁻¹ + H_B⁻¹)⁻¹ = H_A (H_A + H_B)⁻¹ H_B, for matrices [groups, n, n] that are damped."""
    damped = []
    for moments in (one, other):
        mean = np.trace(moments, axis1=1, axis2=2) / moments.shape[-1]
        size = DAMPING * np.where(mean > 0, mean, 1.0)
        damped.append(moments + size[:, None, None] * np.eye(moments.shape[-1]))
    parallel = damped[0] @ np.linalg.solve(damped[0] + damped[1], damped[1])
    values, vectors = np.linalg.eigh((parallel + parallel.transpose(0, 2, 1)) / 2)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0))[:, None, :])


def _patches(node: ir.Node, x: Floats, kernel: Sequence[int], groups: int) -> Floats:
    """What each position of a convolution sees: x [N, C, *S] as [groups, samples, C / groups · kernel]."""
    rank = len(kernel)
    strides = [int(n) for n in attribute(node, "strides", [1] * rank)]
    dilations = [int(n) for n in attribute(node, "dilations", [1] * rank)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = _pads(node, x.shape[2:], strides, reach)
    padded = np.pad(x, [(0, 0), (0, 0), *pads])
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, tuple(range(2, 2 + rank)))
    steps = (slice(None), slice(None), *(slice(None, None, s) for s in strides))
    thinned: Any = (..., *(slice(None, None, d) for d in dilations))
    seen = windows[steps][thinned]
    n, channels = x.shape[:2]
    places = seen.shape[2 : 2 + rank]
    cut = seen.reshape(n, groups, channels // groups, *places, *kernel)
    moved = np.moveaxis(cut, 1, 0)  # [groups, N, C / groups, *places, *kernel]
    moved = np.moveaxis(moved, 2, 2 + rank)  # [groups, N, *places, C / groups, *kernel]
    return np.asarray(moved.reshape(groups, n * prod(places), -1))


def _pads(
    node: ir.Node, sizes: Sequence[int], strides: Sequence[int], reach: Sequence[int]
) -> list[tuple[int, int]]:
    """How many zeros stand before and after each axis."""
    rank = len(sizes)
    auto = attribute(node, "auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        whole = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(sizes, strides, reach, strict=True)]
        small = [w // 2 if auto == "SAME_UPPER" else w - w // 2 for w in whole]
        return [(before, w - before) for before, w in zip(small, whole, strict=True)]
    given = [0] * 2 * rank if auto == "VALID" else list(attribute(node, "pads", [0] * 2 * rank))
    return list(zip(given[:rank], given[rank:], strict=True))
