"""Where the units of an orbit arise in a graph and where they end, as the labels of values tell.

A node *makes* the units of an orbit from its constants if they label an axis of its result: the constants
are then incoming weights. It *reads* them if they label an axis of what it is given and none of its result,
as a product with outgoing weights does. So the values that are read are the units after their nonlinearity
and all that follows it, and each place where a residual stream is read is one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from onnxcanon.arrays import Ids
from onnxcanon.graph.traversal import subgraphs
from onnxcanon.solving.group import WreathNode
from onnxcanon.symmetry import Symmetry
from onnxcanon.tracing.abstract_value import AbstractValue, State, ValueSequence

Levels = frozenset[tuple[int, int]]
"""Parts of the tree of orbits: which tree, and which orbit in it."""


class Flow:
    """The graph of a symmetry, seen from its orbits.

    Attributes:
        order: the orbits at the top of the tree, as numbers of `solution.tree`, as the graph makes them.
    """

    def __init__(self, symmetry: Symmetry) -> None:
        self.symmetry, self.trace = symmetry, symmetry.trace
        self._constants = self._fixed_values()
        self._level = np.full(symmetry.solution.count, -1)
        self._levels: list[tuple[int, int]] = []
        self._components: list[int] = []
        for k, orbit in enumerate(symmetry.solution.tree):
            self._enter(k, orbit, orbit.members)
        self._value_levels = {
            value: self._levels_of(self.trace.values[name]) for value, name in self.trace.names.items()
        }
        self._trees = self._value_trees()
        met = [k for node in self.trace.nodes for k in sorted(self._output_trees(node))]
        self.order = list(dict.fromkeys([*met, *range(len(symmetry.solution.tree))]))

    def _enter(self, k: int, orbit: WreathNode, members: Ids) -> None:
        """Number an orbit, members int64 [components of all blocks, columns], and those inside."""
        self._level[members] = len(self._levels)
        self._levels.append((k, len(self._levels)))
        self._components.append(len(members))
        for child in orbit.children:
            self._enter(k, child, members[:, child.members].reshape(-1, child.members.shape[1]))

    def _levels_of(self, value: AbstractValue) -> Levels:
        """The orbits of which every component labels an axis."""
        rows = [self.symmetry.solution.classes[i].ravel() for i in value.ids if not isinstance(i, State)]
        if not rows or value.splits or isinstance(value, ValueSequence):
            return frozenset()
        level = self._level[np.unique(np.concatenate(rows))]
        count = np.bincount(level[level >= 0], minlength=len(self._levels))
        whole = (count > 0) & (count >= self._components)
        return frozenset(self._levels[n] for n in np.flatnonzero(whole).tolist())

    def _fixed_values(self) -> set[ir.Value]:
        """Values that do not depend on the inputs."""
        known = {value for value in self.trace.names if value.const_value is not None}
        for node in self.trace.nodes:
            given = [value for value in node.inputs if value is not None]
            fixed = bool(given) and known.issuperset(given) and not any(subgraphs(node))
            if fixed or node.op_type == "Constant":
                known.update(node.outputs)
        return known

    def _value_trees(self) -> dict[ir.Value, frozenset[int]]:
        """The trees whose units label a value, composites included."""
        bits = np.zeros(self.symmetry.solution.count, object)
        for k, orbit in enumerate(self.symmetry.solution.tree):
            bits[orbit.members] = 1 << k
        for dependent in self.symmetry.solution.dependent:
            bits[dependent.products] = np.bitwise_or.reduce(bits[dependent.parts], 1)
        out = {}
        for value, name in self.trace.names.items():
            rows = [i.ravel() for i in self.trace.values[name].ids if not isinstance(i, State)]
            classes = np.unique(
                self.symmetry.solution.classes[np.concatenate([np.zeros(0, np.int64), *rows])]
            )
            known = int(np.bitwise_or.reduce(bits[classes], initial=0))
            out[value] = frozenset(k for k in range(known.bit_length()) if known >> k & 1)
        return out

    def labels(self, value: ir.Value | None, k: int) -> bool:
        """Whether units of an orbit at the top, or composites of them, label a value."""
        return value is not None and k in self._trees.get(value, ())

    def constant(self, value: ir.Value | None) -> bool:
        """Whether a value does not depend on the inputs."""
        return value in self._constants

    def _output_trees(self, node: ir.Node) -> frozenset[int]:
        """The trees whose units label what a node computes from values."""
        found = [self._trees.get(v, frozenset()) for v in node.outputs if v not in self._constants]
        return frozenset().union(*found)

    def _output_levels(self, node: ir.Node) -> Levels:
        """The orbits whose units label what a node computes from values."""
        found = [self._value_levels.get(v, frozenset()) for v in node.outputs if v not in self._constants]
        return frozenset().union(*found)

    def read(self, k: int) -> Iterator[ir.Value]:
        """The values of an orbit at the top, or of one inside it, that a node reads, in the graph's order."""
        found: dict[ir.Value, None] = {}
        for node in self.trace.nodes:
            for value in node.inputs:
                if value is not None and value not in self._constants:
                    ended = self._value_levels.get(value, frozenset()) - self._output_levels(node)
                    if any(tree == k for tree, _ in ended):
                        found[value] = None
        return iter(found)

    def makers(self, k: int) -> list[ir.Node]:
        """The nodes that make an orbit's units from values and constants."""
        return [
            node
            for node in self.trace.nodes
            if k in self._output_trees(node) and any(value in self._constants for value in node.inputs)
        ]

    def incoming(self, k: int) -> set[str]:
        """The parameters from which an orbit's units are made, directly or after others computed with them
        alone (a transposed weight)."""
        found: set[str] = set()
        waiting = [v for node in self.makers(k) for v in node.inputs if v in self._constants]
        while waiting:
            value = waiting.pop()
            if value is None:
                continue
            name = self.trace.names.get(value, "")
            found.add(next((s for s, members in self.trace.stacks.items() if name in members), name))
            producer = value.producer()
            if producer is not None and name not in found & self.trace.parameters.keys():
                waiting += [v for v in producer.inputs if v in self._constants]
        return found & self.trace.parameters.keys()


def in_main_graph(symmetry: Symmetry, graph: ir.Graph, values: Sequence[ir.Value]) -> list[str]:
    """The names of those values that the file's main graph has, so that they can be outputs."""
    own = {value.name for node in graph for value in node.outputs if value.name}
    names = [(value, symmetry.trace.names[value]) for value in values]
    return [name for value, name in names if name in own and value.graph is symmetry.trace.graph]
