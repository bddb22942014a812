"""Arithmetic with dynamic sizes: every way to compute "the batch, then 1, then 48" becomes one.

A list of integers that is known in all samples but differs between them is written anew from where its sizes
come from: each entry is a number, or a multiple of a dimension of a graph input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxcanon.normalform.engine import (
    Outputs,
    Refusal,
    Rewriting,
    Size,
    static,
)
from onnxcanon.normalform.rules.registry import RULES as rule

_LONGEST = 64


@rule()
def dynamic_integers(g: Rewriting, node: ir.Node) -> Outputs:
    """-> sizes[n] or one size[], whatever computes them."""
    if len(node.outputs) != 1 or node.outputs[0] in g.final:
        return None
    value = node.outputs[0]
    if value.dtype != ir.DataType.INT64:
        return None
    entries = _entries(g, value)
    if entries is None or all(static(entry) is not None for entry in entries):
        return None
    scalar = g.rank(value) == 0
    vector = size_vector(g, entries)
    if vector is None:
        return Refusal("has sizes that are no multiples of an input's")
    if scalar:
        vector = g.node("Reshape", vector, g.integers([]), attributes={"allowzero": 0})
        g.final.add(vector)
    return vector


def _entries(g: Rewriting, value: ir.Value) -> list[Size] | None:
    """The entries of a list of integers in every sample; None where one of them does not know it."""
    arrays = [sample.data for sample in g.shapes.in_all_samples(value)]
    lists = [array for array in arrays if array is not None]
    if len(lists) < len(arrays) or lists[0].ndim > 1 or lists[0].size > _LONGEST:
        return None
    if any(a.shape != lists[0].shape or a.dtype != np.int64 for a in lists):
        return None
    return [tuple(map(int, entry)) for entry in zip(*(a.ravel().tolist() for a in lists), strict=True)]


def size_vector(g: Rewriting, entries: Sequence[Size]) -> ir.Value | None:
    """A list of integers with these entries in the samples; None where one of them comes from no input."""
    parts: list[ir.Value] = []
    numbers: list[int] = []
    for entry in entries:
        number = static(entry)
        if number is not None:
            numbers.append(number)
            continue
        part = _multiple(g, entry)
        if part is None:
            return None
        parts += [g.integers(numbers), part] if numbers else [part]
        numbers = []
    parts += [g.integers(numbers)] if numbers or not parts else []
    if len(parts) == 1:
        return parts[0]
    vector = g.node("Concat", *parts, attributes={"axis": 0})
    g.final.add(vector)
    return vector


def _multiple(g: Rewriting, entry: Size) -> ir.Value | None:
    """One size as a multiple of an input's dimension; the smallest multiple, and the first input."""
    best: tuple[int, ir.Value, int] | None = None
    for value in g.graph.inputs:
        sizes = g.sizes(value)
        for axis, size in enumerate(sizes[0] if sizes else ()):
            factor = _ratio(entry, size)
            if factor is not None and static(size) is None and (best is None or factor < best[0]):
                best = factor, value, axis
    if best is None:
        return None
    factor, value, axis = best
    part = g.node("Shape", value, attributes={"start": axis, "end": axis + 1})
    g.final.add(part)
    if factor > 1:
        part = g.node("Mul", part, g.integers([factor]))
        g.final.add(part)
    return part


def _ratio(entry: Size, size: Size) -> int | None:
    if len(entry) != len(size) or any(s <= 0 or e % s for e, s in zip(entry, size, strict=True)):
        return None
    return static(tuple(e // s for e, s in zip(entry, size, strict=True)))
