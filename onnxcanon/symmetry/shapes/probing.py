"""The shape pass: walk the graph twice, under two sizes of every dynamic dimension.

A value that is the same under both probes is static; one that differs follows a dynamic dimension. One probe
cannot tell: with one size, `table[:seq]` looks like a fixed slice.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxcanon.symmetry.shapes import (
    attention,
    contraction,
    control,
    elementwise,
    generators,
    movement,
    recurrent,
    reduction,
    spatial,
)
from onnxcanon.symmetry.shapes.known import Array, Shape
from onnxcanon.symmetry.shapes.sizes import Sizes, Symbols, plans
from onnxcanon.symmetry.shapes.walk import Constants, TensorReader, Walk, ordered, same

# Importing a family registers its rules.
FAMILIES = (attention, contraction, control, elementwise, generators, movement, recurrent, reduction, spatial)


class Shapes:
    """Shapes and small values of the main graph under both probes.

    Attributes:
        sizes: what each named dynamic dimension was set to in either probe.
        contradictions: how many nodes refuse these sizes in either probe; what they compute has the shape
            that the file declares, or none.
    """

    def __init__(self, graph: ir.Graph, first: Walk, second: Walk, witness: Walk | None = None) -> None:
        self._graph = graph
        self._first = first
        self._second = second
        self._witness = witness
        self._folded: frozenset[ir.Node] | None = None
        self.sizes: tuple[Sizes, Sizes] = (first.sizes, second.sizes)
        self.contradictions = (first.contradictions, second.contradictions)

    def shapes(self, value: ir.Value) -> tuple[Shape | None, Shape | None]:
        """The shape under either probe; None where not even the rank is known."""
        return self._first.get(value).shape, self._second.get(value).shape

    def data_pair(self, value: ir.Value) -> tuple[Array | None, Array | None]:
        """The value under either probe, where it is known."""
        first, second = self._first.get(value), self._second.get(value)
        if self._witness is not None and same(first, second):
            third = self._witness.get(value)
            second = second if third.data is None else third
        return None if first.private else first.data, None if second.private else second.data

    def data(self, value: ir.Value) -> Array | None:
        """The value where it is known and the same under both probes."""
        first, second = self._first.get(value), self._second.get(value)
        static = same(first, second) and (self._witness is None or same(first, self._witness.get(value)))
        return first.data if static and not first.private else None

    def folded_nodes(self) -> frozenset[ir.Node]:
        """The nodes that only compute with shapes and constants: every output is known under both probes."""
        if self._folded is None:
            self._folded = frozenset(
                node for node in self._graph if node.outputs and all(map(self._is_known, node.outputs))
            )
        return self._folded

    def _is_known(self, value: ir.Value) -> bool:
        first, second = self.data_pair(value)
        return first is not None and second is not None


def probe(graph: ir.Graph, tensor: TensorReader, sizes: Mapping[str, int] | None = None) -> Shapes:
    """The shapes, and where known the values, of everything the main graph computes, under two probes.

    Args:
        graph: the main graph; its nodes are in topological order.
        tensor: reads an initializer by its name. Only integers and small floats are read.
        sizes: dynamic dimensions that are not to be probed, by name, with the size they have.
    """
    symbols = Symbols(graph)
    nodes = ordered(graph)
    constants: Constants = {}
    given = sizes or {}

    def search(index: int, base: Walk | None) -> Walk:
        best: Walk | None = None
        tried = set()
        for plan in plans(index):
            chosen = symbols.choose(plan, given)
            if tuple(chosen.values()) in tried:
                continue
            tried.add(tuple(chosen.values()))
            limit = None if best is None else best.contradictions
            walk = Walk(graph, nodes, tensor, symbols, chosen, constants, base, limit)
            if best is None or walk.contradictions < best.contradictions:
                best = walk
            if not best.contradictions:
                break
        assert best is not None
        return best

    with np.errstate(all="ignore"):
        first = search(0, None)
        second = search(1, first)
        # Where the plans that work give a dimension one size, the first plan still shows what follows it.
        stuck = any(first.sizes[key] == second.sizes[key] for key in symbols.dynamic(given))
        usual = symbols.choose(next(plans(1)), given)
        witness = Walk(graph, nodes, tensor, symbols, usual, constants, first) if stuck else None
    return Shapes(graph, first, second, witness)
