"""The shape pass: infer all shapes twice, under two sample assignments of sizes to the dynamic dimensions.

A value that is the same in both samples is static; one that differs follows a dynamic dimension. One sample
cannot tell: with one size, `table[:seq]` looks like a fixed slice. Two samples of small sizes may still agree
by chance (batch // 64 is 0 in both), so a third sample with much larger sizes is asked as well, where it gets
through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import onnx_ir as ir

from onnxcanon.arrays import Array, Shape
from onnxcanon.graph.traversal import ordered
from onnxcanon.shapes import (  # noqa: F401 - importing a family enters its rules
    attention,
    contraction,
    convolution,
    elementwise,
    generators,
    indexing,
    normalization,
    rearrangement,
    recurrent,
    reduction,
    sequences,
    signals,
    spatial,
)
from onnxcanon.shapes.propagation import Propagation, TensorReader
from onnxcanon.shapes.sizes import DynamicDimensions, SizeByDimension
from onnxcanon.shapes.values import SampleValue, same

Propagate = Callable[..., Propagation]


LARGER = 64
"""How many times larger the sizes of the large sample are; it keeps what strided networks divide by."""


@dataclass(eq=False)
class Shapes:
    """Shapes and small values of a graph, nested ones included, in both samples.

    Attributes:
        graph: the main graph.
        first: the first sample.
        second: the second sample, with other sizes.
        unvaried: dynamic dimensions that have one size in both, because the model accepts no other that was
            tried.
        third: the sample that tells what depends on these; its sizes differ, and so it may contradict itself.
        large: the sample of much larger sizes, which may contradict itself too.
        accepted: the sample with as many sizes large as contradict nothing.
    """

    graph: ir.Graph
    first: Propagation
    second: Propagation
    unvaried: Sequence[str] = ()
    third: Propagation | None = None
    large: Propagation | None = None
    accepted: Propagation | None = None

    @property
    def sizes(self) -> tuple[SizeByDimension, SizeByDimension]:
        """What each dynamic dimension was set to in either sample, by name."""
        return self.first.sizes, self.second.sizes

    @property
    def contradictions(self) -> tuple[int, int]:
        """How many nodes refuse these sizes in either sample; what they compute has the shape that the file
        declares, or none."""
        return self.first.contradictions, self.second.contradictions

    @cached_property
    def samples(self) -> tuple[Propagation, ...]:
        """All samples, the first two at first."""
        others = (self.third, self.large, self.accepted)
        return (self.first, self.second, *dict.fromkeys(s for s in others if s is not None))

    def shapes(self, value: ir.Value) -> tuple[Shape | None, Shape | None]:
        """The shape in either sample; None where not even the rank is known."""
        return self.first.get(value).shape, self.second.get(value).shape

    def contrast(self, value: ir.Value) -> tuple[Shape | None, Shape | None]:
        """Two shapes that differ wherever the shape is dynamic: those of the samples; where these agree, the
        second is that of the large sample, for half of a batch may be one row in either sample."""
        first, second = self.shapes(value)
        if self.large is not None and first == second and first is not None:
            large = self.large.get(value).shape
            second = large if large is not None and len(large) == len(first) else second
        return first, second

    def data_pair(self, value: ir.Value) -> tuple[Array | None, Array | None]:
        """The value in either sample, where it is known; where both agree, the second is that of the third
        or the large sample."""
        first, second = self.first.get(value), self.second.get(value)
        for sample in (self.third, self.large):
            if sample is not None and same(first, second):
                other = sample.get(value)
                second = second if other.data is None else other
        return None if first.private else first.data, None if second.private else second.data

    def float_pair(self, value: ir.Value) -> tuple[Array | None, Array | None]:
        """The value in either sample, small float constants too, which a parameter's symmetry must then not
        change."""
        return self.first.get(value).data, self.second.get(value).data

    def data(self, value: ir.Value) -> Array | None:
        """The value where it is known and the same in both samples, the third and the large one."""
        first, second = self.first.get(value), self.second.get(value)
        static = same(first, second) and (self.third is None or same(first, self.third.get(value)))
        if static and self.large is not None:
            large = self.large.get(value)
            static = large.data is None or same(first, large)
        return first.data if static and not first.private else None

    def in_all_samples(self, value: ir.Value) -> tuple[SampleValue, ...]:
        """What is known of a value in every sample, the first two at first."""
        return tuple(sample.get(value) for sample in self.samples)

    def visit(self, node: ir.Node) -> None:
        """Take note of a node that was added to the graph."""
        for sample in self.samples:
            sample.visit(node)

    def condition(self, node: ir.Node) -> bool | None:
        """Which branch an `If` takes under all sizes that the model accepts; None where it may be either."""
        value = node.inputs[0]
        if node in self.first.branches:
            return self.first.branches[node]
        first = None if value is None else self.first.get(value)
        if value is None or first is None or first.data is None or first.data.size != 1 or first.private:
            return None
        others = [s.get(value) for s in (self.second, self.third, self.accepted) if s is not None]
        return bool(first.data.item()) if all(same(first, other) for other in others) else None

    @cached_property
    def folded_nodes(self) -> frozenset[ir.Node]:
        """The nodes that only compute with shapes and constants: every output is known in both samples."""
        nodes = self.graph.all_nodes()
        return frozenset(node for node in nodes if node.outputs and all(map(self.has_data, node.outputs)))

    def has_data(self, value: ir.Value) -> bool:
        """Whether the value, not its shape alone, is known in both samples."""
        return all(data is not None for data in self.data_pair(value))


def infer_shapes(
    graph: ir.Graph,
    tensor: TensorReader,
    sizes: Mapping[str, int] | None = None,
    branches: Mapping[ir.Node, bool] | None = None,
) -> Shapes:
    """The shapes, and where known the values, of everything a graph computes, in two samples.

    Args:
        graph: the main graph, local functions inlined.
        tensor: reads an initializer. Only integers and small floats are read.
        sizes: sizes of dynamic dimensions by name (see `sizes`), which are then the same in all samples.
        branches: which branch some `If` nodes are to take.
    """
    inputs = DynamicDimensions.of(graph)
    fixed = sizes or {}
    propagate = partial(Propagation, graph, ordered(graph), tensor, inputs, {}, branches or {})
    with np.errstate(all="ignore"):
        first = _search(propagate, inputs.for_analysis(0, fixed), None)
        second = _search(propagate, inputs.for_analysis(1, fixed), first)
        # Where the model accepts one size only, the two samples agree and everything that follows the
        # dimension would look static. A third one has the size that it refuses: it contradicts somewhere, but
        # what lies before that differs from the first.
        unvaried = [name for name in inputs.varied(fixed) if first.sizes[name] == second.sizes[name]]
        third = propagate(next(inputs.for_analysis(1, fixed)), first) if unvaried else None
        grown = {name: size * (1 if name in fixed else LARGER) for name, size in first.sizes.items()}
        large = propagate(grown, first) if grown != first.sizes else None
        accepted = _accepted(propagate, first, large)
    return Shapes(graph, first, second, tuple(unvaried), third, large, accepted)


def _accepted(propagate: Propagate, first: Propagation, large: Propagation | None) -> Propagation | None:
    """A sample with those sizes large that the model accepts so: where an `If` chooses by a size, its
    branches may be of different ranks, and no one means the one that contradicts what follows."""
    if large is None or large.contradictions <= first.contradictions:
        return large
    best: Propagation | None = None
    sizes = dict(first.sizes)
    for name, size in large.sizes.items():
        sample = propagate({**sizes, name: size}, first) if size != sizes[name] else None
        if sample is not None and sample.contradictions <= first.contradictions:
            best, sizes = sample, dict(sample.sizes)
    return best


def _search(
    propagate: Propagate, choices: Iterable[SizeByDimension], base: Propagation | None
) -> Propagation:
    """The first sample without a contradiction; else the one that leaves the fewest values unknown."""
    best: Propagation | None = None
    tried: list[SizeByDimension] = []
    for sizes in choices:
        if sizes in tried:
            continue
        tried.append(sizes)
        sample = propagate(sizes, base, None if best is None else best.unknown)
        if not sample.contradictions:
            return sample
        if best is None or sample.unknown < best.unknown:
            best = sample
    assert best is not None  # there is always a choice
    return best
