"""Which tensor of one model plays the part of which tensor of another, by structure alone."""

from __future__ import annotations

import numpy as np

from onnxcanon.canonical.digest import constant_uses
from onnxcanon.model import Model

Pair = tuple[str, str]
"""A tensor of the first model and its counterpart in the second."""


def correspondence(a: Model, b: Model, *, versions: bool = True) -> list[Pair] | None:
    """The constants that matter to an output with their counterparts; None where the graphs differ.

    Where one model stores once what the other stores several times it stands in several pairs. Operators of
    different versions are different unless `versions` is false, as for normal forms, which are spelled so
    that all recent versions mean the same.
    """
    ours, theirs = constant_uses(a, versions=versions), constant_uses(b, versions=versions)
    if [use.reader for use in ours] != [use.reader for use in theirs]:
        return None
    pairs: dict[Pair, None] = {}
    for our_use, their_use in zip(ours, theirs, strict=True):
        for name, counterpart in zip(our_use.constants, their_use.constants, strict=True):
            if name is not None and counterpart is not None:
                pairs[name, counterpart] = None
            elif name != counterpart:
                return None
    return list(pairs)


def common_sizes(a: Model, b: Model) -> dict[str, int]:
    """Sizes of the inputs' dimensions that one model fixes and the other leaves open, by name."""
    sizes: dict[str, int] = {}
    for ours, theirs in zip(a.ir.graph.inputs, b.ir.graph.inputs, strict=False):
        for x, y in zip(ours.shape or (), theirs.shape or (), strict=False):
            for size, symbol in ((x, y), (y, x)):
                if isinstance(size, int) and not isinstance(symbol, int) and symbol.value:
                    sizes[symbol.value] = size
    return sizes


def same_entries(a: Model, name: str, b: Model, counterpart: str) -> bool:
    """Whether two tensors are the same, bit for bit."""
    ours, theirs = a.tensor(name), b.tensor(counterpart)
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return False
    if ours.dtype.kind == "O":
        return bool((ours == theirs).all())
    x, y = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (ours, theirs))
    return np.array_equal(x, y)
