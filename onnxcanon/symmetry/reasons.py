"""Why an axis of a parameter is not free, in words: from the pins of the ledger, else from the structure.

"Meets a fixed axis" is no answer to a person: the axis that was met is followed up the graph to where it
became fixed, a graph input, a constant or a node that the analyzer does not see through.
"""

from __future__ import annotations

from collections import deque
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnxcanon.symmetry.analysis import Symmetry
from onnxcanon.symmetry.constraints import Cause, Ids, Place
from onnxcanon.symmetry.labels import FIXED
from onnxcanon.symmetry.trace import node_name

FIXED_AXIS = "a fixed axis"
OWN_MEANING = "its positions have a meaning"
CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "ConvTranspose", "DeformConv", "FusedConv", "QLinearConv"})
CONVERSIONS = frozenset({"Cast", "DequantizeLinear", "Identity", "QuantizeLinear"})
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})


class Reasons:
    """Answers for one model."""

    def __init__(self, graph: ir.Graph, symmetry: Symmetry) -> None:
        self.graph = graph
        self.symmetry = symmetry
        self.ledger = symmetry.trace.ledger
        self.parameters = symmetry.trace.parameters
        self._told: dict[tuple[int, int], str] = {}

    def of(self, name: str, axis: int) -> str:
        """The reason why no position of an axis moves."""
        parameter = self.parameters[name]
        classes = self.symmetry.classes[name].get(axis)
        if classes is None:
            return self._unread(name, axis)
        pins = self._pin_of[classes.ravel()]
        pins = pins[pins >= 0]
        if len(pins):
            first = int(pins.min())
            if self._pins[first][1].reason.startswith(OWN_MEANING):
                return self._unread(name, axis)
            return self._pin(first, parameter.shape[axis])
        if np.isin(classes, self.symmetry.solution.rigid).any():
            return "irregular structure: what its positions are tied to does not fall into equal blocks"
        tied = self._tie_of[classes.ravel()]
        tied = tied[tied >= 0]
        if len(tied):
            told = self._pin(int(tied.min()), parameter.shape[axis])
            return f"moves only with others that are fixed: {told}"
        return "its positions differ in how the graph uses them"

    # -- pins ---------------------------------------------------------------------------------------

    @cached_property
    def _pins(self) -> list[tuple[Ids, Cause, Place]]:
        """The pins as they were made; those that name no node last, they explain least."""
        return sorted(self.ledger.pins, key=lambda pin: pin[1].node == "")

    @cached_property
    def _pin_of(self) -> Ids:
        """The first pin of each class, -1 if none."""
        first = np.full(self.symmetry.solution.count, -1, np.int64)
        for k in range(len(self._pins) - 1, -1, -1):
            first[self.symmetry.solution.classes[self._pins[k][0]]] = k
        return first

    @cached_property
    def _tie_of(self) -> Ids:
        """A pin among the classes that each class stands in a relation with, -1 if none."""
        pins = self._pin_of
        tie = np.full(len(pins), np.iinfo(np.int64).max)
        for relation in self.ledger.relations:
            rows = self.symmetry.solution.classes[relation.rows]
            known = pins[rows]
            cause = np.where(known < 0, np.iinfo(np.int64).max, known).min(1)
            np.minimum.at(tie, rows.ravel(), np.repeat(cause, rows.shape[1]))
        return np.where(tie == np.iinfo(np.int64).max, -1, tie)

    def _pin(self, number: int, size: int) -> str:
        mark = (number, size)
        if mark not in self._told:
            self._told[mark] = self._told_pin(number, size)
        return self._told[mark]

    def _told_pin(self, number: int, size: int) -> str:
        cause = self._pins[number][1]
        reason = cause.reason
        if reason == "a position":
            return f"{OWN_MEANING} of their own"
        if FIXED_AXIS in reason:
            reason = reason.replace(FIXED_AXIS, self._origin(cause.node, size))
        if not cause.node or cause.node in reason:
            return reason
        return f"{cause.node}: {reason}"

    # -- where a fixed axis comes from --------------------------------------------------------------

    @cached_property
    def _nodes(self) -> dict[str, ir.Node]:
        return {node_name(node): node for node in self.symmetry.trace.nodes}

    @cached_property
    def _barriers(self) -> dict[str, str]:
        return {b.node: f"{b.operator}, {b.reason}" for b in self.symmetry.trace.barriers}

    def _origin(self, node: str, size: int) -> str:
        """The nearest place up the graph where the fixed axis of a node's inputs became fixed."""
        start = self._nodes.get(node)
        if start is None:
            return FIXED_AXIS
        near = [v for v in start.inputs if v is not None and self._fixed_sizes(v)]
        exact = [v for v in near if size in self._fixed_sizes(v)]
        queue = deque(exact or near)
        seen = set(queue)
        made = constant = ""
        while queue:
            value = queue.popleft()
            producer = value.producer()
            barrier = self._barriers.get(node_name(producer)) if producer else None
            if barrier is not None and producer is not None:
                return f"an axis of the output of {node_name(producer)} ({barrier})"
            source = self.symmetry.trace.sources.get(value)
            if producer is None and source is None and value.is_graph_input():
                return f"an axis of {'constant' if value.is_initializer() else 'graph input'} '{value.name}'"
            inputs = producer.inputs if producer else (source,)
            before = [v for v in inputs if v is not None and self._fixed_sizes(v)]
            if producer is None and source is not None:
                made = made or f"an axis of '{value.name}', which a loop carries"
            elif producer is None or producer.op_type == "Constant":
                constant = constant or f"an axis of constant '{value.name}'"
            elif not before:
                made = made or f"an axis of the output of {node_name(producer)} ({producer.op_type})"
            queue.extend(v for v in before if v not in seen)
            seen.update(before)
        return made or constant or FIXED_AXIS

    def _fixed_sizes(self, value: ir.Value) -> set[int]:
        """The sizes of a value's fixed axes (a caller's constants count as fixed)."""
        name = self.symmetry.trace.names.get(value, "")
        labelled = self.symmetry.trace.values.get(name)
        if labelled is None or name in self.parameters:
            return set()
        return {n for n, state in zip(labelled.shape, labelled.ids, strict=True) if state is FIXED}

    # -- axes without labels ------------------------------------------------------------------------

    @cached_property
    def _uses(self) -> dict[str, ir.Node]:
        """The first node that reads each parameter."""
        out: dict[str, ir.Node] = {}
        names = self.symmetry.trace.names
        for node in self.symmetry.trace.nodes:
            for value in node.inputs:
                if value is not None and names.get(value) in self.parameters:
                    out.setdefault(names[value], node)
        return out

    def _unread(self, name: str, axis: int) -> str:
        node = self._uses.get(name)
        while node is not None and node.op_type in CONVERSIONS:
            node = next((user for user, _ in node.outputs[0].uses()), None)
        if node is None:
            return "no node of the main graph reads it"
        told = f"{node_name(node)} ({node.op_type})"
        if node.op_type in CONVOLUTIONS and axis >= 2:
            return f"kernel positions of {told}"
        if node.op_type in RECURRENT and axis == 0:
            return f"directions of {told}"
        return f"{OWN_MEANING} in {told}"
