"""Why an axis of a parameter is not free, in words: from the pins, else from the structure.

"Meets a fixed axis" is no answer to a person: the axis that was met is followed up the graph to where it
became fixed, a graph input, a constant or a node that the analyzer does not see through.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcanon.explaining.provenance import Chains
from onnxcanon.graph.nodes import node_name
from onnxcanon.graph.traits import Trait, has
from onnxcanon.symmetry import Symmetry
from onnxcanon.tracing.abstract_value import FIXED

FIXED_AXIS = "a fixed axis"
OWN_MEANING = "its positions have a meaning"
IRREGULAR = "irregular structure: what its positions are tied to does not fall into equal blocks"
DIFFERENT = "its positions differ in how the graph uses them"
UNREAD = "no node that leads to an output reads it"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an axis is fixed: a sentence, and the nodes from the axis to the cause, the cause in words last."""

    text: str
    chain: tuple[str, ...]


class Reasons:
    """Answers for one model."""

    def __init__(self, symmetry: Symmetry) -> None:
        self.symmetry = symmetry
        self.constraints = symmetry.trace.constraints
        self.parameters = symmetry.trace.parameters
        self._ends: dict[tuple[int, int], str] = {}

    def of(self, name: str, axis: int) -> str:
        """The reason why no position of an axis moves."""
        return self.told(name, axis).text

    def told(self, name: str, axis: int) -> Reason:
        """The reason why no position of an axis moves, and the nodes that lead to it."""
        parameter = self.parameters[name]
        ids, classes = parameter.ids[axis], self.symmetry.classes[name].get(axis)
        if ids is None or classes is None:
            return self._unread(name, axis)
        reader = self.parameters[name].readers[axis]
        way = self._chains.of(ids.ravel())
        pinned = bool(self._pinned[classes].any())
        if pinned and way is not None:
            if self.constraints.pins[way[0]][1].reason.startswith(OWN_MEANING):
                return self._unread(name, axis)
            return self._along(name, axis, *way)
        if np.isin(classes, self.symmetry.solution.irregular).any():
            return Reason(IRREGULAR, (reader, IRREGULAR))
        if way is not None:
            told = self._along(name, axis, *way)
            return Reason(f"moves only with others that are fixed: {told.text}", told.chain)
        return Reason(DIFFERENT, (reader, DIFFERENT))

    # -- pins ---------------------------------------------------------------------------------------

    @cached_property
    def _chains(self) -> Chains:
        moving = self.symmetry.moving & ~self.symmetry.carried
        return Chains(self.constraints, self.symmetry.solution.classes, moving)

    @cached_property
    def _pinned(self) -> NDArray[np.bool_]:
        """Which classes hold a pinned unit, bool [classes]."""
        mask = np.zeros(self.symmetry.solution.count, bool)
        for ids, _, _ in self.constraints.pins:
            mask[self.symmetry.solution.classes[ids]] = True
        return mask

    def _along(self, name: str, axis: int, pin: int, nodes: list[str]) -> Reason:
        """The reason of a pin at the end of a way over nodes."""
        parameter = self.parameters[name]
        cause = self.constraints.pins[pin][1]
        end = self._end(pin, parameter.shape[axis])
        readers = self._readers.get(name, ())
        if not nodes or nodes[0] not in readers:
            nodes = [parameter.readers[axis], *nodes]
        text = end
        if cause.node and cause.reason != cause.node:
            nodes = [*nodes, cause.node]
            text = f"{cause.node}: {end}"
        if cause.node in self._barriers:
            end = self._barriers[cause.node]
        return Reason(text, (*(node for node, _ in groupby(nodes) if node), end))

    def _end(self, number: int, size: int) -> str:
        mark = (number, size)
        if mark not in self._ends:
            self._ends[mark] = self._told_end(number, size)
        return self._ends[mark]

    def _told_end(self, number: int, size: int) -> str:
        """The reason of a pin without its node."""
        cause = self.constraints.pins[number][1]
        reason = cause.reason.removeprefix(f"{cause.node}: ") if cause.node else cause.reason
        if reason == "a position":
            return f"{OWN_MEANING} of their own"
        if FIXED_AXIS in reason:
            reason = reason.replace(FIXED_AXIS, self._origin(cause.node, size))
        return reason

    # -- where a fixed axis comes from --------------------------------------------------------------

    @cached_property
    def _nodes(self) -> dict[str, ir.Node]:
        return {node_name(node): node for node in self.symmetry.trace.nodes}

    @cached_property
    def _barriers(self) -> dict[str, str]:
        return {b.node: f"{b.operator}, {b.reason}" for b in self.symmetry.trace.unsupported}

    def _origin(self, node: str, size: int) -> str:
        """The nearest place up the graph where the fixed axis of a node's inputs became fixed."""
        start = self._nodes.get(node)
        if start is None:
            return FIXED_AXIS
        queue = deque(self._fixed_inputs(start, size))
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
            if source is not None and producer is None:
                before = [source] if self._fixed_sizes(source) else []
            else:
                before = self._fixed_inputs(producer, size) if producer else []
            if producer is None and source is not None:
                made = made or f"an axis of '{value.name}', which a loop carries"
            elif producer is None or producer.op_type == "Constant":
                constant = constant or f"an axis of constant '{value.name}'"
            elif not before:
                made = made or f"an axis of the output of {node_name(producer)} ({producer.op_type})"
            queue.extend(v for v in before if v not in seen)
            seen.update(before)
        return made or constant or FIXED_AXIS

    def _fixed_inputs(self, node: ir.Node, size: int) -> list[ir.Value]:
        """The inputs of a node with fixed axes: floats rather than masks, of the size in question if any."""
        near = [v for v in node.inputs if v is not None and self._fixed_sizes(v)]
        near = [v for v in near if v.dtype is None or v.dtype.is_floating_point()] or near
        return [v for v in near if size in self._fixed_sizes(v)] or near

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

    @cached_property
    def _readers(self) -> dict[str, set[str]]:
        """The names of the nodes that labelled some axis of each parameter."""
        return {name: set(parameter.readers) for name, parameter in self.parameters.items()}

    def _unread(self, name: str, axis: int) -> Reason:
        node = self._uses.get(name)
        while node is not None and has(node, Trait.CAST | Trait.QUANTIZATION):
            node = next((user for user, _ in node.outputs[0].uses()), None)
        if node is None:
            return Reason(UNREAD, (UNREAD,))
        told = f"{node_name(node)} ({node.op_type})"
        if has(node, Trait.CONVOLUTION) and axis >= 2:
            return Reason(f"kernel positions of {told}", (node_name(node), "kernel positions"))
        if has(node, Trait.RECURRENT) and axis == 0:
            return Reason(f"directions of {told}", (node_name(node), f"directions of {node.op_type}"))
        return Reason(f"{OWN_MEANING} in {told}", (node_name(node), f"{OWN_MEANING} in {node.op_type}"))
