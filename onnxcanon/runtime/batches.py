"""The caller's data, cut into sets of examples that a model takes at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from onnxcanon.arrays import Array, Arrays
from onnxcanon.errors import OnnxcanonError
from onnxcanon.runtime.inputs import InputSpec
from onnxcanon.text import plural

BATCH = 128
"""Examples that run at a time at most, where the model takes any number."""

HELD = 1 << 28
"""Bytes that the values of one batch may take."""


class FileArrays(dict[str, Array]):
    """Arrays by name that were read from a file.

    Attributes:
        source: the file, for messages.
    """

    def __init__(self, arrays: Mapping[str, Array], source: str) -> None:
        super().__init__(arrays)
        self.source = source


def data_name(data: Mapping[str, Array]) -> str:
    """What messages call the caller's data: the file it was read from, if any."""
    return data.source if isinstance(data, FileArrays) else "the data"


def batches(
    specs: Sequence[InputSpec], data: Mapping[str, Array], values: Callable[[Arrays], Arrays]
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


def data_inputs(
    specs: Sequence[InputSpec], data: Mapping[str, Array], batch: int, most: int | None = None
) -> list[Arrays]:
    """Cuts the caller's data into sets of `batch` rows, or of as many as the model takes; the first `most`.

    What is as long as the longest input holds examples and is cut; a state or an option goes whole into every
    set.

    Raises:
        OnnxcanonError: an input is missing, of a rank or type the model does not take, or not even one set.
    """
    arrays = {spec.name: converted(spec, data) for spec in specs}
    rows = max((len(array) for array in arrays.values() if array.ndim), default=1)
    cut = [spec for spec in specs if arrays[spec.name].ndim and len(arrays[spec.name]) == rows]
    takes = {spec.dims[0] for spec in cut if isinstance(spec.dims[0], int)}
    step = min(takes) if takes else batch
    whole = {name: array for name, array in arrays.items() if name not in {spec.name for spec in cut}}
    sets = [
        {**whole, **{spec.name: arrays[spec.name][start : start + step] for spec in cut}}
        for start in range(0, rows - step + 1 if takes else rows, step)
    ]
    if not sets:
        raise OnnxcanonError(
            f"{data_name(data)} holds {plural(rows, 'example')}, fewer than the {step if takes else 1} that"
            " the model takes at a time"
        )
    return sets[:most]


def converted(spec: InputSpec, data: Mapping[str, Array], examples: slice | None = None) -> Array:
    """The caller's values for an input, in its type: all of them, or some examples.

    Raises:
        OnnxcanonError: they are missing, or of a rank or type the model does not take.
    """
    if spec.name not in data:
        raise OnnxcanonError(
            f"{data_name(data)} has no values for input '{spec.name}'; it holds {', '.join(data)}"
        )
    array = np.asarray(data[spec.name] if examples is None else data[spec.name][examples])
    if array.ndim != len(spec.dims):
        takes = ", ".join(map(str, spec.dims))
        raise OnnxcanonError(
            f"input '{spec.name}' takes [{takes}], {data_name(data)} holds {list(array.shape)} for it"
        )
    if not np.can_cast(array.dtype, spec.dtype, "same_kind") and not np.can_cast(array.dtype, np.float16):
        raise OnnxcanonError(
            f"input '{spec.name}' takes {spec.dtype}, {data_name(data)} holds {array.dtype} for it"
        )
    return array.astype(spec.dtype)
