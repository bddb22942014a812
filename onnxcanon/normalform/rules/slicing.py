"""Ways to take a part along an axis: all become Slice, and Slice goes before rearrangements.

That makes packed tensors (query, key and value in one) come apart alike, be it by Split, by Gather of one
row, or by a sequence of parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from onnxcanon.graph.nodes import attribute, given, made_by
from onnxcanon.normalform.axes import Chain, Factor, chain_of
from onnxcanon.normalform.engine import UNKNOWN_SIZES, Outputs, Refusal, Rewriting, static
from onnxcanon.normalform.rules.rearrangement import rebuilt
from onnxcanon.normalform.rules.registry import RULES as rule

T = TypeVar("T")
END = int(np.iinfo(np.int64).max)
_FAR = 1 << 29
"""Exporters write numbers from about here on for "to the end"; no axis is as long."""


def part(g: Rewriting, x: ir.Value, axis: int, start: int, end: int) -> ir.Value:
    """x[..., start:end, ...]."""
    return g.node("Slice", x, *(g.integers([k]) for k in (start, end, axis, 1)))


@rule("Split")
def split(g: Rewriting, node: ir.Node) -> Outputs:
    """X -> its parts along an axis."""
    x, sizes = node.inputs[0], g.ints(given(node, 1))
    shape = g.shape(x)
    if x is None or shape is None:
        return UNKNOWN_SIZES
    axis = attribute(node, "axis", 0) % len(shape)
    if sizes is None:
        whole, count = shape[axis], len(node.outputs)
        if given(node, 1) is not None or whole is None:
            return UNKNOWN_SIZES
        step = -(-whole // count)
        sizes = [min(step, whole - k * step) for k in range(count)]
    ends = np.cumsum(sizes).tolist()
    return [part(g, x, axis, end - size, end) for size, end in zip(sizes, ends, strict=True)]


@rule("SequenceAt")
def sequence_at(g: Rewriting, node: ir.Node) -> Outputs:
    """sequence of X's parts along an axis, position -> part."""
    maker = made_by(node.inputs[0], "SplitToSequence", "SequenceConstruct")
    positions = g.ints(node.inputs[1])
    if maker is None or not positions:
        return None
    if maker.op_type == "SequenceConstruct":
        return maker.inputs[positions[0]] if -len(maker.inputs) <= positions[0] < len(maker.inputs) else None
    x = maker.inputs[0]
    shape = g.shape(x)
    if x is None or shape is None:
        return None
    axis = attribute(maker, "axis", 0) % len(shape)
    bounds = _bounds(g, given(maker, 1), shape[axis])
    if bounds is None or not -len(bounds) <= positions[0] < len(bounds):
        return None
    result = part(g, x, axis, *bounds[positions[0]])
    if given(maker, 1) is None and not attribute(maker, "keepdims", 1):
        return g.node("Squeeze", result, g.integers([axis]))
    return result


def _bounds(g: Rewriting, split_: ir.Value | None, whole: int | None) -> list[tuple[int, int]] | None:
    """The parts of an axis that SplitToSequence makes."""
    sizes = [1] if split_ is None else g.ints(split_)
    if whole is None or not sizes or min(sizes) < 1:
        return None
    if split_ is None or (g.rank(split_) == 0):
        sizes = [min(sizes[0], whole - k) for k in range(0, whole, sizes[0])]
    ends = np.cumsum(sizes).tolist()
    return [(end - size, end) for size, end in zip(sizes, ends, strict=True)]


@rule("Gather")
def gather(g: Rewriting, node: ir.Node) -> Outputs:
    """X, neighbouring rows in order -> a Slice; a single index also drops the axis."""
    x, index = node.inputs
    indices, shape, rank = g.ints(index), g.shape(x), g.rank(index)
    if not g.is_constant(index) or not indices or x is None or shape is None or rank is None or rank > 1:
        return None
    axis = attribute(node, "axis", 0) % len(shape)
    size, start = shape[axis], indices[0]
    if indices != list(range(start, start + len(indices))) or (start < 0 <= indices[-1]):
        return Refusal("takes rows that are no neighbours in order")
    if size is not None and start < 0:
        start += size
    end = start + len(indices)
    result = part(g, x, axis, start, END if end == 0 else end)
    return g.node("Squeeze", result, g.integers([axis])) if rank == 0 else result


@rule("Slice")
def explicit(g: Rewriting, node: ir.Node) -> Outputs:
    """starts, ends, axes and steps are given, axes in order, bounds within the axis, whole axes left out."""
    x = node.inputs[0]
    shape = g.shape(x)
    starts, ends = g.ints(node.inputs[1]), g.ints(node.inputs[2])
    if x is None or shape is None or starts is None or ends is None:
        return Refusal("has bounds that are computed, or sizes that are not known")
    axes = g.ints(given(node, 3)) if given(node, 3) is not None else list(range(len(starts)))
    steps = g.ints(given(node, 4)) if given(node, 4) is not None else [1] * len(starts)
    if axes is None or steps is None:
        return None
    cuts = sorted(zip((a % len(shape) for a in axes), starts, ends, steps, strict=True))
    plain = [
        cut for cut in (_bounded(cut, shape[cut[0]]) for cut in cuts) if not _is_whole(cut, shape[cut[0]])
    ]
    if not plain:
        return x
    columns = [list(column) for column in zip(*plain, strict=True)]
    wanted = [columns[1], columns[2], columns[0], columns[3]]
    if [g.ints(given(node, k)) for k in range(1, 5)] == wanted:
        return None
    return g.node("Slice", x, *map(g.integers, wanted))


Cut = tuple[int, int, int, int]  # axis, start, end, step


def _bounded(cut: Cut, size: int | None) -> Cut:
    """Bounds that count from the beginning and end with the axis, where its size is known."""
    axis, start, end, step = cut
    if step < 0 or (size is None and end < 0 and start < 0):
        return cut
    if size is not None:
        start, end, _ = slice(start, end).indices(size)
        return axis, start, max(start, end), step
    return axis, start, END if end >= _FAR else end, step


def _is_whole(cut: Cut, size: int | None) -> bool:
    _, start, end, step = cut
    return step == 1 and start == 0 and (end == END if size is None else end >= size)


@rule("Slice")
def before_movement(g: Rewriting, node: ir.Node) -> Outputs:
    """A slice of a rearrangement is a rearrangement of a slice, if it cuts whole blocks of one axis."""
    x, cut = node.inputs[0], one_cut(g, node)
    if x is None or cut is None:
        return None
    chain = chain_of(g, x)
    if chain.root is x or g.is_constant(chain.root) or not chain.groups[cut[0]]:
        return None
    if cut[2] > (static(chain.shape[cut[0]]) or 0):
        return None
    chain = chain.merged()
    factor, *inner = chain.groups[cut[0]]
    block = _blocks(inner, cut[1], cut[2])
    behind = [other for other in chain.source if other.axis == factor.axis and other.place > factor.place]
    first = not any(other.axis == factor.axis and other.place < factor.place for other in chain.source)
    scale = _product(behind)
    if block is None or not first or scale is None:
        return Refusal("cuts through blocks of the axis that is rearranged")
    return _cut_root(g, chain, cut[0], (block[0] * scale, block[1] * scale), block[1] - block[0])


def _blocks(inner: Sequence[Factor], start: int, end: int) -> tuple[int, int] | None:
    """Bounds in units of an axis's first factor."""
    size = _product(inner)
    return None if not size or start % size or end % size else (start // size, end // size)


def _product(factors: Sequence[Factor]) -> int | None:
    """The product of sizes, if they are static."""
    product = 1
    for factor in factors:
        size = static(factor.size)
        if size is None:
            return None
        product *= size
    return product


def _cut_root(g: Rewriting, chain: Chain, axis: int, bounds: tuple[int, int], count: int) -> Outputs:
    """The rearrangement of a slice of the chain's root along the axis of the first factor of `axis`."""
    factor, *inner = chain.groups[axis]
    samples = len(factor.size)
    group = tuple(inner) if count == 1 else (replace(factor, size=(count,) * samples), *inner)
    sized = chain.shape[axis]
    new_size = tuple(n // f * count for n, f in zip(sized, factor.size, strict=True))
    root = part(g, chain.root, factor.axis, *bounds)
    start = _replaced(chain.start, factor.axis, (bounds[1] - bounds[0],) * samples)
    cut = Chain(root, _replaced(chain.groups, axis, group), _replaced(chain.shape, axis, new_size), start)
    return rebuilt(g, cut)


def _replaced(items: tuple[T, ...], index: int, item: T) -> tuple[T, ...]:
    return (*items[:index], item, *items[index + 1 :])


def one_cut(g: Rewriting, node: ir.Node) -> tuple[int, int, int] | None:
    """The axis and bounds of a slice along one axis without steps."""
    columns = [g.ints(given(node, k)) for k in range(1, 5)]
    if any(column is None or len(column) != 1 for column in columns):
        return None
    start, end, axis, step = (column[0] for column in columns if column)
    return (axis, start, end) if step == 1 and 0 <= start < end < END else None
