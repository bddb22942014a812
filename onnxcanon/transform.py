"""Transform: one element of a model's symmetry group, an `Action` for each parameter, and its file.

File format ``onnxcanon-transform-1``: a zip archive of ``.npy`` arrays (no pickles). ``header.npy`` holds
UTF-8 JSON ``{"format", "model", "parameters": [{"name", "shape", "index": [axes], "factor": [axes],
"stack"}]}``; the arrays of parameter k are ``p{k}.index.{axis}.npy`` (int64) and ``p{k}.factor.{axis}.npy``
(float64).
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.action import Action, Factor, Index, by_context
from onnxcanon.errors import TransformError, check_path
from onnxcanon.model import BlockReplacement, Model
from onnxcanon.results import Brief

TRANSFORM_FORMAT = "onnxcanon-transform-1"
HEADER_LIMIT = 1 << 28

UNREADABLE: tuple[type[Exception], ...] = (
    *(OSError, EOFError, LookupError, RuntimeError, TypeError, ValueError),
    *(TransformError, zipfile.BadZipFile, zlib.error),
)
"""What reading a damaged file may raise."""


@dataclass(frozen=True, slots=True, repr=False)
class Transform(Brief):
    """One group element: an `Action` for each parameter it changes.

    An action may be one on a stack of parameters of one shape along a new axis 0; `stacks` names its members.
    """

    actions: Mapping[str, Action]
    model: str = ""
    stacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def apply(self, model: Model) -> Model:
        """The transformed model; parameters are computed one at a time when they are read or saved.

        Raises:
            TransformError: a parameter is absent or has another shape.
        """
        self.check(model)
        return model.with_tensors(
            {
                name: _TransformedTensor(model, source, action)
                for name, (source, action) in self.changes.items()
            }
        )

    def check(self, model: Model) -> None:
        """Raise `TransformError` unless every parameter exists in the model with the recorded shape."""
        names = set(model.tensor_names())
        shapes = {
            member: action.shape[1:] if name in self.stacks else action.shape
            for name, action in self.actions.items()
            for member in self.stacks.get(name, (name,))
        }
        for name, expected in shapes.items():
            if name not in names:
                raise TransformError(
                    f"{model.name}: has no parameter '{name}'; the transform was made for another model"
                )
            shape = tuple(model.tensor_info(name)[0])
            if shape != expected:
                raise TransformError(
                    f"{model.name}: parameter '{name}' has shape {list(shape)}, the transform expects "
                    f"{list(expected)}; it was made for another model"
                )

    def then(self, later: Transform) -> Transform:
        """This transform followed by `later`."""
        actions = dict(self.actions)
        for name, action in later.actions.items():
            actions[name] = actions[name].then(action) if name in actions else action
        self._check_stacks(later)
        actions = {n: a for n, a in actions.items() if a.index or a.factor}
        stacks = {n: m for n, m in {**self.stacks, **later.stacks}.items() if n in actions}
        return Transform(actions, self.model or later.model, stacks)

    def _check_stacks(self, later: Transform) -> None:
        """Raise unless what both act on is stacked alike."""
        for stacked, other in ((self, later), (later, self)):
            for name, members in stacked.stacks.items():
                for changed in other.actions:
                    if changed != name and set(members) & set(other.stacks.get(changed, (changed,))):
                        raise TransformError(
                            f"two transforms exchange parameter '{members[0]}' with different others; "
                            "apply them one after the other"
                        )

    def inverse(self) -> Transform:
        """The transform that undoes this one."""
        return Transform({n: a.inverse() for n, a in self.actions.items()}, self.model, self.stacks)

    @property
    def changes(self) -> dict[str, tuple[str, Action]]:
        """For each parameter that changes: the one its entries come from, and the action on these."""
        out = {name: (name, action) for name, action in self.actions.items() if name not in self.stacks}
        for stack, members in self.stacks.items():
            for k, name in enumerate(members):
                source, action = self.actions[stack].member(k)
                if source != k or action.index or action.factor:
                    out[name] = members[source], action
        return out

    @property
    def permuted(self) -> int:
        """How many parameters have entries that move."""
        return sum(name != source or bool(a.index) for name, (source, a) in self.changes.items())

    @property
    def rescaled(self) -> int:
        """How many parameters have entries that are multiplied."""
        return sum(any((f != 1).any() for f in a.factor.values()) for _, a in self.changes.values())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file described in the module's documentation, atomically."""
        check_path(path)
        target = Path(path)
        entries = []
        arrays: dict[str, NDArray[Any]] = {}
        for k, (name, action) in enumerate(sorted(self.actions.items())):
            entries.append(
                {
                    "name": name,
                    "shape": action.shape,
                    "index": sorted(action.index),
                    "factor": sorted(action.factor),
                    **({"stack": self.stacks[name]} if name in self.stacks else {}),
                }
            )
            arrays |= {f"p{k}.index.{a}": i for a, i in action.index.items()}
            arrays |= {f"p{k}.factor.{a}": f for a, f in action.factor.items()}
        header = json.dumps({"format": TRANSFORM_FORMAT, "model": self.model, "parameters": entries}).encode()
        partial_file = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with partial_file.open("wb") as file:
                # NumPy's types take any keyword for `allow_pickle`, which no array of ours is called.
                np.savez_compressed(file, header=np.frombuffer(header, np.uint8), **arrays)  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())
            partial_file.replace(target)
        except OSError as error:
            raise TransformError(f"{target}: cannot be written: {error.strerror}") from error
        finally:
            partial_file.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _TransformedTensor(BlockReplacement):
    """A parameter of a model and what happens to it, evaluated when it is read."""

    model: Model
    name: str
    action: Action

    def __call__(self) -> NDArray[Any]:
        return self.action(self.model.tensor(self.name))

    def blocks(self) -> Iterator[NDArray[Any]]:
        """The values after the transform, some rows (along axis 0) at a time."""
        return self.action.blocks(self.model.tensor(self.name))


def load_transform(path: str | os.PathLike[str]) -> Transform:
    """Read a saved transform.

    Raises:
        TransformError: the file is missing, damaged, or holds anything but permutations and finite factors.
    """
    check_path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            header = json.loads(_array(archive, "header", HEADER_LIMIT, np.dtype(np.uint8)).tobytes())
            if header["format"] != TRANSFORM_FORMAT:
                raise ValueError(f"format '{header['format']}' is not {TRANSFORM_FORMAT}")
            actions, stacks = {}, {}
            for k, entry in enumerate(header["parameters"]):
                shape = tuple(int(n) for n in entry["shape"])
                if "stack" in entry:
                    stacks[str(entry["name"])] = _stack(entry["stack"], shape)
                moved, scaled = (_axes(entry[kind], shape) for kind in ("index", "factor"))
                index = {a: _index(archive, f"p{k}.index.{a}", shape, a) for a in moved}
                by_context(index)
                factor = {a: _factor(archive, f"p{k}.factor.{a}", shape) for a in scaled}
                actions[str(entry["name"])] = Action(shape, index, factor)
            return Transform(actions, str(header["model"]), stacks)
    except FileNotFoundError as error:
        raise TransformError(f"{path}: no such file") from error
    except UNREADABLE as error:
        cause = " ".join(str(error).split())
        raise TransformError(f"{path}: not an onnxcanon transform ({cause})") from error


def _stack(names: Sequence[object], shape: tuple[int, ...]) -> tuple[str, ...]:
    """The members of a stack, one per position of its axis 0."""
    members = tuple(map(str, names))
    if not shape or shape[0] != len(members) or len(set(members)) < len(members):
        raise ValueError(f"a stack of {len(members)} parameters has shape {list(shape)}")
    return members


def _axes(axes: Sequence[int], shape: tuple[int, ...]) -> list[int]:
    """Axes of an array of the given shape."""
    numbers = [int(axis) for axis in axes]
    if any(not 0 <= axis < len(shape) for axis in numbers):
        raise ValueError(f"axes {numbers} of shape {list(shape)}")
    return numbers


def _array(archive: zipfile.ZipFile, name: str, limit: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """One array; its size is checked before anything is allocated."""
    if archive.getinfo(f"{name}.npy").file_size > limit + 1024:
        raise ValueError(f"{name} is larger than it can be")
    with archive.open(f"{name}.npy") as file:
        content = io.BytesIO(file.read(limit + 1024))
    if np.lib.format.read_magic(content) != (1, 0):
        raise ValueError(f"{name} has an unknown version")
    shape, fortran, stored = np.lib.format.read_array_header_1_0(content)
    if stored != dtype:
        raise ValueError(f"{name} has dtype {stored}")
    values = np.frombuffer(content.getbuffer()[content.tell() :], dtype)
    return np.ascontiguousarray(values.reshape(shape, order="F" if fortran else "C"))


def _fits(array: NDArray[Any], name: str, shape: tuple[int, ...]) -> None:
    if array.ndim != len(shape) or any(n not in (1, m) for n, m in zip(array.shape, shape, strict=True)):
        raise ValueError(f"{name} does not fit shape {list(shape)}")


def _index(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], axis: int) -> Index:
    array = _array(archive, name, 8 * prod(shape), np.dtype(np.int64))
    _fits(array, name, shape)
    steps = np.arange(shape[axis]).reshape([-1 if k == axis else 1 for k in range(len(shape))])
    if not (np.sort(array, axis) == steps).all():
        raise ValueError(f"{name} is not a permutation")
    return array


def _factor(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> Factor:
    array = _array(archive, name, 8 * prod(shape), np.dtype(np.float64))
    _fits(array, name, shape)
    if not np.isfinite(array).all() or (array == 0).any():
        raise ValueError(f"{name} is not finite and nonzero")
    return array
