"""Inputs for a model nobody described: several kinds, since each exposes changes that the others hide.

Noise keeps half of the units behind a ReLU dead and saturates nothing; wide magnitudes reach the dead ones;
sparse inputs isolate single weights; smooth images are what convolutions were trained on; constants show the
biases. Everything is drawn from a seed and the input's name, so equal calls make equal inputs.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcanon.arrays import Arrays, Shape
from onnxcanon.errors import OnnxcanonError, RuntimeUnavailableError
from onnxcanon.runtime.input_sizes import Dynamic, candidate_sizes, dynamic_shape, override
from onnxcanon.runtime.integer_ranges import IntegerRange, integer_ranges
from onnxcanon.text import counted

KINDS = ("normal", "smooth", "mixed", "sparse", "bytes", "uniform", "ones", "zeros")

_MASK = re.compile(r"mask", re.IGNORECASE)
_POSITIONS = re.compile(r"position_?ids?", re.IGNORECASE)
_LENGTH = re.compile(r"(^|_)(len|lens|lengths?)$", re.IGNORECASE)
# Options that search operators take as inputs, and a value that every model accepts.
_OPTIONS = {
    "max_length": 20, "min_length": 1, "num_beams": 1, "num_return_sequences": 1, "length_penalty": 1,
    "repetition_penalty": 1, "temperature": 1, "top_p": 1, "top_k": 1,
}  # fmt: skip


class FileArrays(dict[str, np.ndarray]):
    """Arrays by name that were read from a file.

    Attributes:
        source: the file, for messages.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], source: str) -> None:
        super().__init__(arrays)
        self.source = source


def data_name(data: Mapping[str, np.ndarray]) -> str:
    """What messages call the caller's data: the file it was read from, if any."""
    return data.source if isinstance(data, FileArrays) else "the data"


@dataclass(frozen=True, slots=True)
class InputSpec:
    """A graph input that the caller must give."""

    name: str
    dtype: np.dtype
    shape: Dynamic
    values: IntegerRange


@dataclass(frozen=True, slots=True)
class InputPlan:
    """Specs with a concrete shape each: makes inputs of any kind."""

    specs: tuple[InputSpec, ...]
    shapes: Mapping[str, Shape]

    def make(self, kind: str, seed: int = 0) -> Arrays:
        """One set of inputs of `kind` (one of `KINDS`)."""
        arrays: Arrays = {}
        for spec in self.specs:
            rng = np.random.default_rng([seed, KINDS.index(kind), zlib.crc32(spec.name.encode())])
            values = _values(spec, self.shapes[spec.name], kind, rng)
            arrays[spec.name] = np.asarray(values).astype(spec.dtype).reshape(self.shapes[spec.name])
        return arrays


def input_specs(model: ir.Model, any_type: bool = False) -> tuple[InputSpec, ...]:
    """The inputs of `model`, without initializers that older files list among them.

    Args:
        model: the model.
        any_type: whether tensors of strings are welcome, since the caller has values for them.

    Raises:
        RuntimeUnavailableError: an input is no tensor of numbers; nobody can guess a string's meaning.
    """
    ranges = integer_ranges(model)
    specs = []
    for value in model.graph.inputs:
        name = value.name or ""
        if name in model.graph.initializers:
            continue
        if not isinstance(value.type, ir.TensorType):
            kind = "untyped" if value.type is None else type(value.type).__name__
            raise RuntimeUnavailableError(
                f"input {name!r} is no plain tensor ({kind}): give values with data"
            )
        if value.dtype is None or (value.dtype == ir.DataType.STRING and not any_type):
            raise RuntimeUnavailableError(f"input {name!r} holds {value.dtype}: give values with data")
        shape = dynamic_shape(name, [size_or_name(dim) for dim in value.shape or ()])
        specs.append(InputSpec(name, value.dtype.numpy(), shape, ranges[name]))
    return tuple(specs)


def plan_inputs(
    specs: Sequence[InputSpec],
    attempt: Callable[[Arrays], Mapping[str, np.ndarray]],
    *,
    shapes: Mapping[str, int | Sequence[int]] | None = None,
    seed: int = 0,
) -> InputPlan:
    """Searches for sizes of the dynamic dimensions under which the model runs.

    Args:
        specs: the inputs.
        attempt: runs the model on a set of inputs, or raises RuntimeUnavailableError.
        shapes: sizes the caller fixes: by name of a dynamic dimension, or the whole shape by name of an
            input.
        seed: what the attempts are drawn from.

    Raises:
        RuntimeUnavailableError: the model runs under none of the sizes tried; the first refusal is quoted.
    """
    dynamic = override([spec.shape for spec in specs], shapes)
    hollow: InputPlan | None = None
    refusal: RuntimeUnavailableError | None = None
    tried = empty = 0
    for sizes in candidate_sizes(dynamic):
        plan = InputPlan(tuple(specs), {shape.name: shape.resolve(sizes) for shape in dynamic})
        tried += 1
        try:
            outputs = attempt(plan.make("normal", seed))
        except RuntimeUnavailableError as error:
            refusal = refusal or error
            continue
        if all(array.size for array in outputs.values()):
            return plan
        # It runs, but some output is empty: too small an image, or nothing detected in noise. A few more
        # tries.
        hollow = hollow or plan
        empty += 1
        if empty == 6:
            break
    if hollow is not None:
        return hollow
    raise RuntimeUnavailableError(
        f"no input shape was found on which it runs ({tried} tried); name sizes with shapes, or give data; "
        f"the first refusal: {refusal}"
    )


def data_inputs(
    specs: Sequence[InputSpec], data: Mapping[str, np.ndarray], batch: int, most: int | None = None
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
    takes = {spec.shape.dims[0] for spec in cut if isinstance(spec.shape.dims[0], int)}
    step = min(takes) if takes else batch
    whole = {name: array for name, array in arrays.items() if name not in {spec.name for spec in cut}}
    sets = [
        {**whole, **{spec.name: arrays[spec.name][start : start + step] for spec in cut}}
        for start in range(0, rows - step + 1 if takes else rows, step)
    ]
    if not sets:
        raise OnnxcanonError(
            f"{data_name(data)} holds {counted(rows, 'example')}, fewer than the {step if takes else 1} that"
            " the model takes at a time"
        )
    return sets[:most]


def converted(spec: InputSpec, data: Mapping[str, np.ndarray], examples: slice | None = None) -> np.ndarray:
    """The caller's values for an input, in its type: all of them, or some examples.

    Raises:
        OnnxcanonError: they are missing, or of a rank or type the model does not take.
    """
    if spec.name not in data:
        raise OnnxcanonError(
            f"{data_name(data)} has no values for input '{spec.name}'; it holds {', '.join(data)}"
        )
    array = np.asarray(data[spec.name] if examples is None else data[spec.name][examples])
    if array.ndim != len(spec.shape.dims):
        takes = ", ".join("any" if dim is None else str(dim) for dim in spec.shape.dims)
        raise OnnxcanonError(
            f"input '{spec.name}' takes [{takes}], {data_name(data)} holds {list(array.shape)} for it"
        )
    if not np.can_cast(array.dtype, spec.dtype, "same_kind") and not np.can_cast(array.dtype, np.float16):
        raise OnnxcanonError(
            f"input '{spec.name}' takes {spec.dtype}, {data_name(data)} holds {array.dtype} for it"
        )
    return array.astype(spec.dtype)


def size_or_name(dim: int | ir.SymbolicDim) -> int | str | None:
    """A dimension as a size, a name, or None; exporters also write -1 or 0 for "unknown"."""
    if isinstance(dim, int):
        return dim if dim > 0 else None
    return dim.value


def _values(spec: InputSpec, shape: Shape, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Values for one input, before the cast to its type."""
    option = _OPTIONS.get(spec.name.lower())
    if option is not None and np.prod(shape) == 1:
        return np.full(shape, option)
    if spec.dtype == np.bool_ or _MASK.search(spec.name):
        return _mask(shape, kind, rng)
    if spec.values.below is not None:
        if _POSITIONS.search(spec.name):
            return np.broadcast_to(np.arange(shape[-1]) % spec.values.below, shape) if shape else np.zeros(())
        return _ids(shape, spec.values.below, kind, rng)
    if np.issubdtype(spec.dtype, np.integer):
        return _integers(spec, shape, kind, rng)
    if np.issubdtype(spec.dtype, np.complexfloating):
        return _floats(shape, kind, rng, 255.0) + 1j * _floats(shape, kind, rng, 255.0)
    # Half precision overflows where single does not, and an infinity hides what led to it.
    top = 16.0 if spec.dtype.itemsize <= 2 else 255.0
    return _floats(shape, kind, rng, top)


def _integers(spec: InputSpec, shape: Shape, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Integers that index no table found in the graph."""
    if spec.values.compared:
        return np.full(
            shape, rng.choice(spec.values.compared) if kind != "normal" else spec.values.compared[0]
        )
    if spec.values.counts:
        return np.full(shape, 3)
    if _LENGTH.search(spec.name):
        return np.full(shape, 1)
    if spec.dtype.itemsize == 1:  # pixels or quantized values: the whole range
        info = np.iinfo(spec.dtype)
        return info.min + _ids(shape, info.max - info.min + 1, kind, rng)
    return _ids(shape, 8, kind, rng)


def _floats(shape: Shape, kind: str, rng: np.random.Generator, top: float) -> np.ndarray:
    noise = rng.standard_normal(shape)
    match kind:
        case "normal":
            return noise
        case "smooth":
            return _waves(shape, rng)
        case "mixed":
            return np.sign(noise) * 10.0 ** rng.uniform(-3, 1.5, shape)
        case "sparse":
            return np.where(rng.random(shape) < 0.1, 3 * noise, 0.0)
        case "bytes":
            return top * np.clip(_waves(shape, rng) / 2 + 0.5 + 0.1 * noise, 0, 1)
        case "uniform":
            return rng.random(shape)
        case "ones":
            return np.ones(shape)
        case _:
            return np.zeros(shape)


def _waves(shape: Shape, rng: np.random.Generator, count: int = 4) -> np.ndarray:
    """Slow cosines along every axis but the first, about within [-1, 1]; each row has its own."""
    total = np.zeros(shape)
    rows = (shape[0],) + (1,) * (len(shape) - 1) if shape else ()
    for _ in range(count):
        phase = np.broadcast_to(rng.uniform(0, 2 * np.pi, rows), shape).copy()
        for axis, size in enumerate(shape[1:], start=1):
            along = np.arange(size).reshape((size,) + (1,) * (len(shape) - axis - 1))
            phase += rng.uniform(-3, 3, rows) * 2 * np.pi * along / max(size, 2)
        total += np.cos(phase)
    return np.asarray(total / np.sqrt(2 * count))


def _mask(shape: Shape, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Zeros and ones, a one at the start of each row: softmax over nothing divides by zero."""
    if kind in ("normal", "ones", "zeros") or not shape:
        return np.ones(shape, np.int64)
    if kind in ("mixed", "sparse"):
        mask = rng.integers(0, 2, shape)
    else:  # a padded sentence: ones, then zeros
        kept = rng.integers(1, shape[-1] + 1, (*shape[:-1], 1))
        mask = (np.arange(shape[-1]) < kept).astype(np.int64)
    mask[..., 0] = 1
    return mask


def _ids(shape: Shape, below: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Integers in [0, below)."""
    match kind:
        case "zeros":
            return np.zeros(shape, np.int64)
        case "ones":
            return np.full(shape, min(1, below - 1))
        case "smooth":
            return (np.arange(int(np.prod(shape))) % below).reshape(shape)
        case "sparse":
            return np.where(rng.random(shape) < 0.2, rng.integers(0, below, shape), 0)
        case "mixed":  # low ids are the frequent ones
            return np.minimum(np.floor(below ** rng.random(shape)), below - 1).astype(np.int64)
        case _:
            return rng.integers(0, below, shape)
