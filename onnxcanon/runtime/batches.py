"""How many examples run at a time, so that the values looked at fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from onnxcanon.arrays import Arrays
from onnxcanon.runtime.inputs import InputSpec, data_inputs

BATCH = 128
"""Examples that run at a time at most, where the model takes any number."""

HELD = 1 << 28
"""Bytes that the values of one batch may take."""


def batches(
    specs: Sequence[InputSpec], data: Mapping[str, np.ndarray], values: Callable[[Arrays], Arrays]
) -> list[Arrays]:
    """The data in sets of examples whose values fit into memory.

    Args:
        specs: the inputs of the model.
        data: inputs by name.
        values: what is looked at, for a set of inputs; it is asked once, for the first example.

    Raises:
        OnnxcanonError: the data does not fit, or holds no set.
    """
    (first,) = data_inputs(specs, data, 1, 1)
    held = sum(array.nbytes for array in values(first).values())
    return data_inputs(specs, data, min(BATCH, max(1, HELD // max(held, 1))))
