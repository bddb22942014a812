"""Dead positions: rows of parameters that reach no output of the graph, whatever the weights are.

A unit is dead if every path of its value ends where positions are dropped (a slice, an output of a split
that nothing reads) or in nodes that lead to no output. It is alive as soon as one node that leads to an
output takes it in and does not hand it on as it is: sums over it, or mixes it with others. Where that is
not clear (operators other than those below, positions merged with others) it counts as alive, so that what
is reported is true.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcanon.arrays import Ids
from onnxcanon.graph.traits import Trait, has
from onnxcanon.graph.traversal import captured, ordered
from onnxcanon.solving.hashing import distinct
from onnxcanon.symmetry import Symmetry
from onnxcanon.tracing.abstract_value import AbstractValue, State
from onnxcanon.tracing.constraints import Reason


def dead_positions(symmetry: Symmetry) -> dict[tuple[str, int], int]:
    """How many positions of each parameter axis are dead; axes without any are left out."""
    dead = _Liveness(symmetry).dead()
    counts: dict[tuple[str, int], int] = {}
    if not dead.any():
        return counts
    for name, axes in symmetry.classes.items():
        for axis, rows in axes.items():
            others = tuple(k for k in range(rows.ndim) if k != axis)
            count = int(dead[rows].all(others).sum())
            if count and rows.shape[axis] > 1:
                counts[name, axis] = count
    return counts


class _Liveness:
    """Follows the units of a graph through its nodes."""

    def __init__(self, symmetry: Symmetry) -> None:
        self.nodes = ordered(symmetry.trace.graph)
        self.symmetry = symmetry
        self.stack = {m: name for name, members in symmetry.stacks.items() for m in members}
        self.labels: dict[str, Ids] = {}

    def dead(self) -> NDArray[np.bool_]:
        """The classes that reach no output, bool [classes]."""
        mask = self._dropped()
        classes = self.symmetry.solution.classes
        for ids, _, _ in self.symmetry.trace.constraints.pins:  # a pinned unit is read there
            mask[classes[ids]] = False
        for node in self.nodes:
            if mask.any():
                self._take_in(node, mask)
        for ids, provenance, _ in self.symmetry.trace.constraints.pins:
            if provenance.reason is Reason.NEVER_READ:
                mask[classes[ids]] = True
        return mask

    def _dropped(self) -> NDArray[np.bool_]:
        """The classes that some node drops."""
        mask = np.zeros(self.symmetry.solution.count, bool)
        for node in self.nodes:
            if has(node, Trait.SELECTION):
                gone = self._labels(node.inputs[0])
                if len(gone):
                    remaining = [self._labels(v) for v in node.outputs if v.uses() or v.is_graph_output()]
                    mask[np.setdiff1d(gone, np.concatenate([gone[:0], *remaining]))] = True
        return mask

    def _take_in(self, node: ir.Node, mask: NDArray[np.bool_]) -> None:
        """Unmark the classes that a node takes in and does not hand on as they are."""
        if has(node, Trait.SELECTION):
            return
        for value in (*node.inputs, *captured(node)):
            read = self._labels(value)
            read = read[mask[read]]
            if len(read) and has(node, Trait.SEPARATE):
                read = np.setdiff1d(read, np.concatenate([read[:0], *map(self._labels, node.outputs)]))
            mask[read] = False

    def _labels(self, value: ir.Value | None) -> Ids:
        """The classes of all labels on a value, each once."""
        name = "" if value is None else self.symmetry.trace.names.get(value, "")
        if name not in self.labels:
            labelled = self.symmetry.trace.values.get(name)
            arrays: list[Ids] = []
            name = self.stack.get(name, name)
            if name in self.symmetry.classes:
                arrays = [rows.ravel() for rows in self.symmetry.classes[name].values()]
            elif isinstance(labelled, AbstractValue):
                units = [ids.ravel() for ids in labelled.ids if not isinstance(ids, State)]
                arrays = [self.symmetry.solution.classes[ids] for ids in units]
            self.labels[name] = distinct(np.concatenate(arrays)) if arrays else np.zeros(0, np.int64)
        return self.labels[name]
