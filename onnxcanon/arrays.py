"""Names for the types of arrays: what a signature says of an array beside its shape."""

from __future__ import annotations

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
