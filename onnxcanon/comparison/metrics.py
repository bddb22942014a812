"""How far apart the tensors of two models are, in double precision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.comparison.correspondence import Pair
from onnxcanon.model import Model


def wide(array: NDArray[Any]) -> NDArray[Any]:
    """In double precision."""
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def squared(a: Model, b: Model, pairs: Iterable[Pair]) -> tuple[float, int]:
    """Σ |a - b|² over some tensors of `a` and their counterparts, and the number of entries. What is equal is
    not apart even where it is infinite, as in masks, or not a number."""
    total, count = 0.0, 0
    for name, counterpart in pairs:
        ours, theirs = wide(a.tensor(name)), wide(b.tensor(counterpart))
        with np.errstate(invalid="ignore", over="ignore"):
            gap = np.where((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)), 0.0, np.abs(ours - theirs))
            total += float((gap**2).sum())
        count += gap.size
    return total, count


def root_mean_square(a: Model, b: Model, pairs: Iterable[Pair]) -> float:
    """The root mean square difference of some tensors of `a` and their counterparts."""
    total, count = squared(a, b, pairs)
    return float(np.sqrt(total / max(count, 1)))
