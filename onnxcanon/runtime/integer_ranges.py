"""What an integer input may hold, read off the graph: rows of a table, constants it is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxcanon.graph.nodes import attribute
from onnxcanon.graph.traits import Trait, has
from onnxcanon.graph.traversal import subgraphs

CARRYING = Trait.AXES | Trait.SELECTION | Trait.REPETITION | Trait.CAST | Trait.IN_RANGE
"""What hands on the integers of its first input."""


@dataclass(slots=True)
class IntegerRange:
    """What one integer input may hold.

    Attributes:
        below: values must be below this; None where no table was limits.
        compared: constants the input is compared with, in graph order (a sample rate, a mode).
        counts: whether it is the trip count of a loop.
    """

    below: int | None = None
    compared: list[int] = field(default_factory=list)
    counts: bool = False

    def limit(self, size: int | None) -> None:
        """Lowers the bound to `size`, where a size is known."""
        if size is not None and size > 0:
            self.below = size if self.below is None else min(self.below, size)


def integer_ranges(model: ir.Model) -> dict[str, IntegerRange]:
    """The ranges of all inputs of the main graph, by name; of float inputs too: some exporters cast them."""
    return {value.name or "": _range_of(value, model) for value in model.graph.inputs}


def _range_of(start: ir.Value, model: ir.Model) -> IntegerRange:
    limits = IntegerRange()
    seen: set[int] = set()
    waiting = [start]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        for node, index in value.uses():
            _read_use(node, index, limits)
            waiting += _carried(node, index, model)
    return limits


def _read_use(node: ir.Node, index: int, limits: IntegerRange) -> None:
    """Narrows the limits by one use: input `index` of `node`."""
    match node.op_type, index:
        case "Gather" | "GatherElements", 1:
            limits.limit(_axis_size(node.inputs[0], attribute(node, "axis", 0)))
        case "GatherND", 1:
            limits.limit(_axis_size(node.inputs[0], attribute(node, "batch_dims", 0)))
        case "GatherBlockQuantized", 1:
            limits.limit(_axis_size(node.inputs[0], attribute(node, "gather_axis", 0)))
        case "OneHot", 0:
            limits.limit(next(iter(_constants(node.inputs[1])), None))
        case "EmbedLayerNormalization", 0 | 1:
            limits.limit(_axis_size(node.inputs[2 + index], 0))
        case "EmbedLayerNormalization", 8:
            limits.limit(_axis_size(node.inputs[3], 0))
        case "RotaryEmbedding", 1 | 3:  # com.microsoft and ai.onnx order their inputs differently
            limits.limit(_axis_size(node.inputs[2 if index == 1 else 1], 0))
        case "GreedySearch" | "BeamSearch" | "Sampling", 0:
            limits.limit(attribute(node, "vocab_size", 0))
        case "Equal", _:
            constants = _constants(node.inputs[1 - index])
            if len(constants) > 8:  # a one-hot encoding spelled out
                limits.limit(max(constants) + 1)
            else:
                limits.compared += constants
        case "Loop", 0:
            limits.counts = True


def _carried(node: ir.Node, index: int, model: ir.Model) -> Iterator[ir.Value]:
    """The values that hold what input `index` of `node` holds: its outputs, or inputs of its bodies."""
    if (has(node, CARRYING) and index == 0) or has(node, Trait.CHOICE):
        yield from node.outputs
    function = model.functions.get(node.op_identifier())
    bodies = [function.inputs] if function is not None else []
    if _hands_over(node, index):
        bodies += [graph.inputs for graph in subgraphs(node)]
    for inputs in bodies:
        if index < len(inputs):
            yield inputs[index]


def _hands_over(node: ir.Node, index: int) -> bool:
    """Whether input `index` becomes input `index` of the node's bodies.

    Loop and Scan list a body's inputs as their own (but Loop's first two are the trip count and the
    condition); the decoder of a search operator begins with the ids.
    """
    match node.op_type:
        case "Scan":
            return True
        case "Loop":
            return index > 1
        case "GreedySearch" | "BeamSearch" | "Sampling":
            return index == 0
        case _:
            return False


def _axis_size(value: ir.Value | None, axis: int) -> int | None:
    """The size of one axis of a table, as stored or as inferred; None where neither is known."""
    while value is not None:
        tensor = ir.convenience.get_const_tensor(value)
        shape = value.shape if tensor is None else tensor.shape
        if shape is not None and -len(shape) <= axis < len(shape):
            size = shape[axis]
            if isinstance(size, int):
                return size
        node = value.producer()
        if node is None or not has(node, Trait.CAST | Trait.QUANTIZATION):
            return None
        value = node.inputs[0]
    return None


def _constants(value: ir.Value | None) -> list[int]:
    """The entries of a constant as integers; none where it is computed, or no longer a list of cases."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size > 1 << 20:
        return []
    try:
        return [int(entry) for entry in tensor.numpy().ravel()]
    except (TypeError, ValueError):  # strings, infinities
        return []
