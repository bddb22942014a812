"""Names for the types of arrays, and how arrays are cut into blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""Of any type."""

Arrays = dict[str, Array]
"""Inputs or outputs of a model, by name."""

Floats = NDArray[np.float64]

Ids = NDArray[np.int64]
"""Units, positions or any other things that are counted."""

Words = NDArray[np.uint64]
"""Hashes."""

Shape = tuple[int, ...]
"""The sizes of an array's axes."""

Rows = slice | EllipsisType
"""Some rows (along axis 0) of an array; all of it, if it has none."""

BLOCK = 1 << 17
"""Entries that are looked at together, so that they stay in the processor's cache."""


def row_blocks(shape: Sequence[int]) -> Iterator[slice | EllipsisType]:
    """Which rows (along axis 0) of an array to look at together; all of it, if it has none."""
    if not shape:
        yield ...
        return
    step = max(1, BLOCK // max(1, prod(shape[1:])))
    yield from (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))
