"""The shape pass: walk the graph twice, under two sizes of every dynamic dimension.

A value that is the same under both probes is static; one that differs follows a dynamic dimension. One probe
cannot tell: with one size, `table[:seq]` looks like a fixed slice. Two small sizes may still agree by chance
(batch // 64 is 0 for both), so a third walk with much larger sizes is asked as well, where it gets through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import onnx_ir as ir

from onnxcanon.arrays import Array, Shape
from onnxcanon.graph.traversal import ordered
from onnxcanon.shapes import (
    attention,
    contraction,
    elementwise,
    generators,
    rearrangement,
    recurrent,
    reduction,
    sequences,
    spatial,
)
from onnxcanon.shapes.propagation import Propagation, TensorReader
from onnxcanon.shapes.sizes import Sizes, Symbols, plans
from onnxcanon.shapes.values import SampleValue, same

# Importing a family registers its rules.
FAMILIES = (
    attention,
    contraction,
    elementwise,
    generators,
    rearrangement,
    recurrent,
    reduction,
    sequences,
    spatial,
)

LARGER = 64
"""How many times larger the sizes of the last walk are; it keeps what strided networks divide by."""


class Shapes:
    """Shapes and small values of a graph, nested ones included, under both probes.

    Attributes:
        sizes: what each dynamic dimension was set to in either probe, by name.
        stuck: dynamic dimensions that have one size in both probes, because the model accepts no other that
            was tried. What depends on them is found by a third walk, a witness, which may contradict itself.
        contradictions: how many nodes refuse these sizes in either probe; what they compute has the shape
            that the file declares, or none.
    """

    def __init__(
        self,
        graph: ir.Graph,
        first: Propagation,
        second: Propagation,
        unvaried: Sequence[str] = (),
        witness: Propagation | None = None,
        large: Propagation | None = None,
        accepted: Propagation | None = None,
    ) -> None:
        self.sizes: tuple[Sizes, Sizes] = (first.sizes, second.sizes)
        self.unvaried = tuple(unvaried)
        self.contradictions = (first.contradictions, second.contradictions)
        self._graph = graph
        self._first = first
        self._second = second
        self._witness = witness
        self._large = large
        self._accepted = accepted
        others = dict.fromkeys(walk for walk in (witness, large, accepted) if walk is not None)
        self._walks = (first, second, *others)
        self._folded: frozenset[ir.Node] | None = None

    def shapes(self, value: ir.Value) -> tuple[Shape | None, Shape | None]:
        """The shape under either probe; None where not even the rank is known."""
        return self._first.get(value).shape, self._second.get(value).shape

    def contrast(self, value: ir.Value) -> tuple[Shape | None, Shape | None]:
        """Two shapes that differ wherever the shape is dynamic: those of the probes; where these agree, the
        second is that of the walk with larger sizes, for half of a batch may be one row under either
        probe."""
        first, second = self.shapes(value)
        if self._large is not None and first == second and first is not None:
            far = self._large.get(value).shape
            second = far if far is not None and len(far) == len(first) else second
        return first, second

    def data_pair(self, value: ir.Value) -> tuple[Array | None, Array | None]:
        """The value under either probe, where it is known; where both agree, the second is a witness's."""
        first, second = self._first.get(value), self._second.get(value)
        for walk in (self._witness, self._large):
            if walk is not None and same(first, second):
                third = walk.get(value)
                second = second if third.data is None else third
        return None if first.private else first.data, None if second.private else second.data

    def float_pair(self, value: ir.Value) -> tuple[Array | None, Array | None]:
        """As `data_pair`, of small float constants too, which a parameter's symmetry must then not change."""
        return self._first.get(value).data, self._second.get(value).data

    def data(self, value: ir.Value) -> Array | None:
        """The value where it is known and the same under both probes, and to the witness."""
        first, second = self._first.get(value), self._second.get(value)
        static = same(first, second) and (self._witness is None or same(first, self._witness.get(value)))
        if static and self._large is not None:
            far = self._large.get(value)
            static = far.data is None or same(first, far)
        return first.data if static and not first.private else None

    def in_all_samples(self, value: ir.Value) -> tuple[SampleValue, ...]:
        """What is known of a value in every walk, those of the two probes first."""
        return tuple(walk.get(value) for walk in self._walks)

    def visit(self, node: ir.Node) -> None:
        """Take note of a node that the graph has got since it was walked."""
        for walk in self._walks:
            walk.visit(node)

    def condition(self, node: ir.Node) -> bool | None:
        """Which branch an `If` takes under all sizes that the model accepts; None where it may be either."""
        value = node.inputs[0]
        if node in self._first.assumed:
            return self._first.assumed[node]
        first = None if value is None else self._first.get(value)
        if value is None or first is None or first.data is None or first.data.size != 1 or first.private:
            return None
        others = [w.get(value) for w in (self._second, self._witness, self._accepted) if w is not None]
        return bool(first.data.item()) if all(same(first, other) for other in others) else None

    def folded_nodes(self) -> frozenset[ir.Node]:
        """The nodes that only compute with shapes and constants: every output is known under both probes."""
        if self._folded is None:
            self._folded = frozenset(
                node
                for node in self._graph.all_nodes()
                if node.outputs and all(map(self.has_data, node.outputs))
            )
        return self._folded

    def has_data(self, value: ir.Value) -> bool:
        """Whether the value, not its shape alone, is known under both probes."""
        return all(data is not None for data in self.data_pair(value))


def infer_shapes(
    graph: ir.Graph,
    tensor: TensorReader,
    sizes: Mapping[str, int] | None = None,
    assumed: Mapping[ir.Node, bool] | None = None,
) -> Shapes:
    """The shapes, and where known the values, of everything a graph computes, under two probes.

    Args:
        graph: the main graph, local functions inlined.
        tensor: reads an initializer. Only integers and small floats are read.
        sizes: dynamic dimensions that are not to be probed, by name, with the size they have.
        assumed: which branch some `If` nodes are to take.
    """
    symbols = Symbols(graph)
    given = sizes or {}
    walk = partial(Propagation, graph, ordered(graph), tensor, symbols, {}, assumed or {})
    with np.errstate(all="ignore"):
        first = _search(walk, (symbols.choose(plan, given) for plan in plans(0)), None)
        second = _search(walk, (symbols.choose(plan, given) for plan in plans(1)), first)
        stuck = [key for key in symbols.dynamic(given) if first.sizes[key] == second.sizes[key]]
        witness = walk(symbols.choose(next(plans(1)), given), first) if stuck else None
        grown = {key: first.sizes[key] * (1 if key in given else LARGER) for key in first.sizes}
        large = walk(grown, first) if grown != first.sizes else None
        accepted = _accepted(walk, first, large)
    return Shapes(graph, first, second, stuck, witness, large, accepted)


def _accepted(
    walk: Callable[..., Propagation], first: Propagation, large: Propagation | None
) -> Propagation | None:
    """A walk with those sizes large that the model accepts so: where an `If` chooses by a size, its branches
    may be of different ranks, and no one means the one that contradicts what follows."""
    if large is None or large.contradictions <= first.contradictions:
        return large
    best: Propagation | None = None
    sizes = dict(first.sizes)
    for key, size in large.sizes.items():
        found = walk({**sizes, key: size}, first) if size != sizes[key] else None
        if found is not None and found.contradictions <= first.contradictions:
            best, sizes = found, dict(found.sizes)
    return best


def _search(
    walk: Callable[..., Propagation], choices: Iterable[Sizes], base: Propagation | None
) -> Propagation:
    """The first walk without a contradiction; else the one that leaves the fewest values unknown."""
    best: Propagation | None = None
    tried: list[Sizes] = []
    for sizes in choices:
        if sizes in tried:
            continue
        tried.append(sizes)
        found = walk(sizes, base, None if best is None else best.unknown)
        if not found.contradictions:
            return found
        if best is None or found.unknown < best.unknown:
            best = found
    assert best is not None  # there is always a plan
    return best
