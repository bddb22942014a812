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

from onnxcanon.explaining.nearest_pins import NearestPins
from onnxcanon.graph.nodes import node_name
from onnxcanon.graph.traits import Trait, has
from onnxcanon.symmetry import Symmetry
from onnxcanon.tracing.abstract_value import FIXED
from onnxcanon.tracing.constraints import Reason

FIXED_AXIS = "a fixed axis"
"""What reasons call the axis that a unit met, before it is known where that axis comes from."""

MEETING = frozenset({Reason.MEETS_FIXED, Reason.JOINED_WITH_FIXED, Reason.CONTRACTED_WITH_FIXED})
"""The reasons that say so."""

OWN_MEANING = "its positions have a meaning"
IRREGULAR = "irregular structure: what its positions are tied to does not fall into equal blocks"
DIFFERENT = "its positions differ in how the graph uses them"
UNREAD = "no node that leads to an output reads it"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an axis is fixed: a sentence, and the nodes from the axis to the cause, the cause in words last."""

    text: str
    chain: tuple[str, ...]


class Explainer:
    """Explains the axes of one model."""

    def __init__(self, symmetry: Symmetry) -> None:
        self.symmetry = symmetry
        self.constraints = symmetry.trace.constraints
        self.parameters = symmetry.trace.parameters
        self._ends: dict[tuple[int, int], str] = {}

    def explain(self, name: str, axis: int) -> Explanation:
        """Why no position of an axis moves, and the nodes that lead to the cause."""
        parameter = self.parameters[name]
        ids, classes = parameter.ids[axis], self.symmetry.classes[name].get(axis)
        if ids is None or classes is None:
            return self._unread(name, axis)
        reader = self.parameters[name].readers[axis]
        nearest = self._nearest_pins.of(ids.ravel())
        pinned = bool(self._pinned[classes].any())
        # A pin explains an axis only if one of the axis' own units is pinned: else what holds it is the
        # structure around it, and the nearest pin is merely where that structure ends.
        if pinned and nearest is not None:
            if self.constraints.pins[nearest[0]][1].reason is Reason.OWN_MEANING:
                return self._unread(name, axis)
            return self._along(name, axis, *nearest)
        if np.isin(classes, self.symmetry.solution.irregular).any():
            return Explanation(IRREGULAR, (reader, IRREGULAR))
        if nearest is not None:
            others = self._along(name, axis, *nearest)
            return Explanation(f"moves only with others that are fixed: {others.text}", others.chain)
        return Explanation(DIFFERENT, (reader, DIFFERENT))

    # -- pins ---------------------------------------------------------------------------------------

    @cached_property
    def _nearest_pins(self) -> NearestPins:
        moving = self.symmetry.moving & ~self.symmetry.branch_bound
        return NearestPins(self.constraints, self.symmetry.solution.classes, moving)

    @cached_property
    def _pinned(self) -> NDArray[np.bool_]:
        """Which classes hold a pinned unit, bool [classes]."""
        mask = np.zeros(self.symmetry.solution.count, bool)
        for ids, _, _ in self.constraints.pins:
            mask[self.symmetry.solution.classes[ids]] = True
        return mask

    def _along(self, name: str, axis: int, pin: int, nodes: list[str]) -> Explanation:
        """The explanation by a pin at the end of a way over nodes."""
        parameter = self.parameters[name]
        provenance = self.constraints.pins[pin][1]
        end = self._end(pin, parameter.shape[axis])
        readers = self._readers.get(name, ())
        if not nodes or nodes[0] not in readers:
            nodes = [parameter.readers[axis], *nodes]
        text = end
        if provenance.node not in ("", provenance.reason):  # a graph output is its own reason
            nodes = [*nodes, provenance.node]
            text = f"{provenance.node}: {end}"
        if provenance.node in self._unsupported:
            end = self._unsupported[provenance.node]
        return Explanation(text, (*(node for node, _ in groupby(nodes) if node), end))

    def _end(self, number: int, size: int) -> str:
        mark = (number, size)
        if mark not in self._ends:
            self._ends[mark] = self._end_text(number, size)
        return self._ends[mark]

    def _end_text(self, number: int, size: int) -> str:
        """The reason of a pin, with the axis that it speaks of named."""
        provenance = self.constraints.pins[number][1]
        if provenance.reason is Reason.POSITION:
            return f"{OWN_MEANING} of their own"
        if provenance.reason in MEETING:
            return provenance.reason.replace(FIXED_AXIS, self._origin(provenance.node, size))
        return provenance.reason

    # -- where a fixed axis comes from --------------------------------------------------------------

    @cached_property
    def _nodes(self) -> dict[str, ir.Node]:
        return {node_name(node): node for node in self.symmetry.trace.nodes}

    @cached_property
    def _unsupported(self) -> dict[str, str]:
        return {node.node: f"{node.operator}, {node.reason}" for node in self.symmetry.trace.unsupported}

    def _origin(self, node: str, size: int) -> str:
        """The nearest place up the graph where the fixed axis of a node's inputs became fixed."""
        start = self._nodes.get(node)
        if start is None:
            return FIXED_AXIS
        queue = deque(self._fixed_inputs(start, size))
        seen = set(queue)
        # The search is breadth first and stops at the first graph input or unsupported node. What a node
        # makes by itself and constants are answers only if there is none of these: most inputs of a model
        # meet some constant on their way, which explains nothing.
        origin = constant = ""
        while queue:
            value = queue.popleft()
            producer = value.producer()
            refusal = self._unsupported.get(node_name(producer)) if producer else None
            if refusal is not None and producer is not None:
                return f"an axis of the output of {node_name(producer)} ({refusal})"
            source = self.symmetry.trace.sources.get(value)
            if producer is None and source is None and value.is_graph_input():
                return f"an axis of {'constant' if value.is_initializer() else 'graph input'} '{value.name}'"
            if source is not None and producer is None:
                before = [source] if self._fixed_sizes(source) else []
            else:
                before = self._fixed_inputs(producer, size) if producer else []
            if producer is None and source is not None:
                origin = origin or f"an axis of '{value.name}', which a loop carries"
            elif producer is None or producer.op_type == "Constant":
                constant = constant or f"an axis of constant '{value.name}'"
            elif not before:
                origin = origin or f"an axis of the output of {node_name(producer)} ({producer.op_type})"
            queue.extend(v for v in before if v not in seen)
            seen.update(before)
        return origin or constant or FIXED_AXIS

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

    def _unread(self, name: str, axis: int) -> Explanation:
        node = self._uses.get(name)
        while node is not None and has(node, Trait.CAST | Trait.QUANTIZATION):
            node = next((user for user, _ in node.outputs[0].uses()), None)
        if node is None:
            return Explanation(UNREAD, (UNREAD,))
        name, reader = node_name(node), f"{node_name(node)} ({node.op_type})"
        if has(node, Trait.CONVOLUTION) and axis >= 2:
            return Explanation(f"kernel positions of {reader}", (name, "kernel positions"))
        if has(node, Trait.RECURRENT) and axis == 0:
            return Explanation(f"directions of {reader}", (name, f"directions of {node.op_type}"))
        return Explanation(f"{OWN_MEANING} in {reader}", (name, f"{OWN_MEANING} in {node.op_type}"))
