"""Intermediate values that say more than outputs: before a saturating operator, and before random operators.

*Saturation.* A softmax over confident scores is 0 and 1 in single precision whatever the weights do, and a
class label is less still. Where an output comes straight from such an operator, the operator's input is
compared as well, up to what the operator forgets: softmax a shift, ArgMax a shift and a scale. The two models
are matched by the output's name, so values may be named as they like.

*Randomness.* What follows a sampling operator cannot be compared by value. Everything that meets a random
value for the first time, a mean, a deviation, the scores of a draw, is compared instead. These values are
matched by name, so the two graphs must be one graph, node by node.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxcanon.arrays import Array
from onnxcanon.graph.nodes import attribute
from onnxcanon.graph.operators import is_standard
from onnxcanon.graph.traits import Trait, has
from onnxcanon.graph.traversal import ordered, reads, subgraphs

SOFTMAX, ARGMAX, PLAIN = "softmax", "argmax", "plain"

# Scores this far below the best, and this many times farther than the usual one, are masked out: exp(-104) is
# below the smallest number of single precision. They would hide the others, being the largest.
_INVISIBLE, _UNUSUAL = 104.0, 100.0


@dataclass(frozen=True, slots=True)
class Probe:
    """An intermediate value to compare.

    Attributes:
        value: its name.
        op_type: the operator it goes into.
        form: what that operator forgets: `softmax`, `argmax`, or `plain` (nothing).
        axis: the axis along which it forgets.
        to_end: whether all axes after that one belong to it.
        path: the operators between it and the output: another path may be another layout of the same values.
    """

    value: str
    op_type: str
    form: str = PLAIN
    axis: int = -1
    to_end: bool = False
    path: tuple[str, ...] = ()

    def matches(self, other: Probe) -> bool:
        """Whether both go into the same operator along the same axes, by the same path."""
        return replace(self, value=other.value) == other

    def normal(self, array: Array) -> Array:
        """`array` with what the operator forgets taken away."""
        if self.form == PLAIN or array.ndim == 0 or array.size == 0:
            return array
        axis = self.axis % array.ndim
        axes = tuple(range(axis, array.ndim)) if self.to_end else (axis,)
        values = array.astype(np.float64)
        if self.form == SOFTMAX:
            below = values.max(axes, keepdims=True) - values
            usual = float(np.median(below[below > 0])) if (below > 0).any() else 0.0
            return np.asarray(np.minimum(below, max(_INVISIBLE, _UNUSUAL * usual)))
        if not np.isfinite(values).all():
            return values
        spread = values.std(axes, keepdims=True)
        return np.asarray((values - values.mean(axes, keepdims=True)) / np.where(spread > 0, spread, 1))


def saturating_probes(model: ir.Model, name: str) -> list[Probe]:
    """The values before the saturating operators that a value shows, from it backwards.

    Operators that keep every entry are passed; so is a saturating one behind another (ArgMax of Softmax).
    """
    producers = {value.name: node for node in model.graph for value in node.outputs}
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
    probes = []
    waiting: list[tuple[str | None, tuple[str, ...]]] = [(name, ())]
    while waiting:
        value, path = waiting.pop(0)
        node = producers.get(value)
        if node is None or not is_standard(node):
            continue
        sources = [value.name for value in node.inputs if value is not None]
        if has(node, Trait.SHOWING):
            shown = sources if node.op_type == "Concat" else sources[:1]
            waiting += [(source, (*path, node.op_type)) for source in shown]
        elif has(node, Trait.SATURATING) and sources[0] in producers:
            probes.append(replace(_probe(node, sources[0] or "", opset), path=path))
            waiting.append((sources[0], (*path, node.op_type)))
    return probes


def _probe(node: ir.Node, value: str, opset: int) -> Probe:
    form = SOFTMAX if has(node, Trait.SOFTMAX) else ARGMAX if has(node, Trait.COUNT) else PLAIN
    # Before opset 13 softmax joined all axes from `axis` on, which was 1 unless said; ArgMax takes one.
    to_end = opset < 13 and node.op_type == "Softmax"
    default = 0 if node.op_type.startswith("Arg") else 1 if to_end else -1
    return Probe(value, node.op_type, form, attribute(node, "axis", default), to_end)


@dataclass(frozen=True, slots=True)
class Randomness:
    """What chance decides in a graph.

    Attributes:
        outputs: graph outputs downstream of a sampling node, each with that node's operator.
        frontier: values free of chance that meet a random one or are sampled from, with the operator there.
    """

    outputs: dict[str, str]
    frontier: dict[str, str]


def randomness(model: ir.Model) -> Randomness:
    """Finds the outputs that differ from run to run, and the last values before them that do not."""
    origin: dict[ir.Value, str] = {}  # values that depend on chance -> the sampling operator
    random: set[ir.Node] = set()
    for node in ordered(model.graph):
        source = _samples(node, model) or next((origin[v] for v in reads(node) if v in origin), None)
        if source is not None:
            random.add(node)
            origin.update(dict.fromkeys(node.outputs, source))
    frontier: dict[str, str] = {}
    for node in (node for node in model.graph if node in random):
        for value in reads(node):
            producer = value.producer()
            if producer is None or producer.graph is not model.graph or value in origin:
                continue
            if producer.op_type != "Constant":
                frontier.setdefault(value.name or "", node.op_type)
    outputs = {value.name or "": origin[value] for value in model.graph.outputs if value in origin}
    return Randomness(outputs, frontier if outputs else {})


def same_graph(a: ir.Model, b: ir.Model) -> bool:
    """Whether the main graphs agree in every node, and in the names of what it reads and writes."""

    def rows(model: ir.Model) -> Iterator[tuple[object, ...]]:
        for node in model.graph:
            names = [None if value is None else value.name for value in (*node.inputs, *node.outputs)]
            yield node.op_identifier(), len(node.inputs), tuple(names)

    return len(a.graph) == len(b.graph) and all(x == y for x, y in zip(rows(a), rows(b), strict=True))


def _samples(node: ir.Node, model: ir.Model, depth: int = 0) -> str | None:
    """The sampling operator that `node` is or contains."""
    if has(node, Trait.RANDOM):
        return node.op_type
    if has(node, Trait.DROPOUT) and _trains(node):
        return node.op_type
    bodies: list[ir.Graph | ir.Function] = list(subgraphs(node))
    function = model.functions.get(node.op_identifier())
    if function is not None and depth < 32:  # functions may not recurse; a damaged file may
        bodies.append(function)
    return next((op for body in bodies for inner in body if (op := _samples(inner, model, depth + 1))), None)


def _trains(node: ir.Node) -> bool:
    """Whether a dropout node may drop: its training switch is there and is not the constant false."""
    switch = node.inputs[-1] if len(node.inputs) > (3 if node.op_type == "BiasDropout" else 2) else None
    if switch is None:
        return False
    tensor = ir.convenience.get_const_tensor(switch)
    return tensor is None or bool(tensor.numpy().any())
