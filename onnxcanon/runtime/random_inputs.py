"""Random inputs for a model nobody described: several kinds, since each exposes changes that the others hide.

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

from onnxcanon.arrays import Array, Arrays, Shape
from onnxcanon.errors import RuntimeUnavailableError
from onnxcanon.runtime.inputs import InputSpec
from onnxcanon.settings import Settings
from onnxcanon.shapes.sizes import DynamicDimensions

INPUT_KINDS = ("normal", "smooth", "mixed", "sparse", "bytes", "uniform", "ones", "zeros")

_MASK = re.compile(r"mask", re.IGNORECASE)
_POSITIONS = re.compile(r"position_?ids?", re.IGNORECASE)
_LENGTH = re.compile(r"(^|_)(len|lens|lengths?)$", re.IGNORECASE)
# Options that search operators take as inputs, and a value that every model accepts.
_OPTIONS = {"max_length": 20, "temperature": 1, "top_p": 1, "top_k": 1} | dict.fromkeys(
    ["min_length", "num_beams", "num_return_sequences", "length_penalty", "repetition_penalty"], 1
)


MOST_EMPTY = 6
"""How many assignments of sizes under which some output is empty are tried before the first is taken."""


@dataclass(frozen=True, slots=True)
class RandomInputs:
    """Inputs of a concrete shape each, of any kind."""

    specs: tuple[InputSpec, ...]
    shapes: Mapping[str, Shape]

    def draw(self, kind: str, seed: int = 0) -> Arrays:
        """One set of inputs of `kind` (one of `INPUT_KINDS`)."""
        arrays: Arrays = {}
        for spec in self.specs:
            rng = np.random.default_rng([seed, INPUT_KINDS.index(kind), zlib.crc32(spec.name.encode())])
            values = _values(spec, self.shapes[spec.name], kind, rng)
            arrays[spec.name] = np.asarray(values).astype(spec.dtype).reshape(self.shapes[spec.name])
        return arrays


def accepted_inputs(
    specs: Sequence[InputSpec], attempt: Callable[[Arrays], Arrays], settings: Settings
) -> RandomInputs:
    """Searches for sizes of the dynamic dimensions under which the model runs.

    Exporters say little about what a dynamic dimension accepts (one height only, multiples of 32, "the past
    plus now"), so nothing but running the model can tell.

    Args:
        specs: the inputs.
        attempt: runs the model on a set of inputs, or raises RuntimeUnavailableError.
        settings: the sizes that the caller fixes, and the random seed of the attempts.

    Raises:
        RuntimeUnavailableError: the model runs under none of the sizes tried; the first refusal is quoted.
    """
    inputs = DynamicDimensions({spec.name: spec.dims for spec in specs})
    empty: list[RandomInputs] = []
    refusal: RuntimeUnavailableError | None = None
    tried = 0
    for sizes in inputs.for_running(settings.sizes):
        shapes = {name: inputs.shape(name, sizes) or () for name in inputs.inputs}
        candidate = RandomInputs(tuple(specs), shapes)
        tried += 1
        try:
            outputs = attempt(candidate.draw("normal", settings.seed))
        except RuntimeUnavailableError as error:
            refusal = refusal or error
            continue
        if all(array.size for array in outputs.values()):
            return candidate
        # It runs, but some output is empty: too small an image, or nothing detected in noise.
        empty.append(candidate)
        if len(empty) == MOST_EMPTY:
            break
    if empty:
        return empty[0]
    raise RuntimeUnavailableError(
        f"no input shape was found on which it runs ({tried} tried); name sizes with shapes, or give data; "
        f"the first refusal: {refusal}"
    )


def _values(spec: InputSpec, shape: Shape, kind: str, rng: np.random.Generator) -> Array:
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


def _integers(spec: InputSpec, shape: Shape, kind: str, rng: np.random.Generator) -> Array:
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


def _floats(shape: Shape, kind: str, rng: np.random.Generator, top: float) -> Array:
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


def _waves(shape: Shape, rng: np.random.Generator, count: int = 4) -> Array:
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


def _mask(shape: Shape, kind: str, rng: np.random.Generator) -> Array:
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


def _ids(shape: Shape, below: int, kind: str, rng: np.random.Generator) -> Array:
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
