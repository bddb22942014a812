"""Data that verbs are given: arrays by name, or files of them, without pickles."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from onnxcanon.arrays import Array
from onnxcanon.errors import ArgumentError, OnnxcanonError, describe

if TYPE_CHECKING:
    from onnxcanon.model import Model
    from onnxcanon.verbs.arguments import Data, Labels


def load_data(model: Model, data: Data, labels: Labels | None = None) -> Mapping[str, Array]:
    """Inputs by name, from a file of them or of the only one, with the labels beside them.

    Raises:
        OnnxcanonError: a file cannot be read, or holds one array for a model with several inputs.
    """
    from onnxcanon.runtime.batches import FileArrays
    from onnxcanon.runtime.inputs import input_specs

    if isinstance(data, Mapping):
        if labels is None:
            return data
        arrays = dict(data)
    elif not isinstance(data, str | os.PathLike):
        raise ArgumentError(
            f"{describe(data)} is no data; give a dictionary of inputs by name, or a file of them"
        )
    elif os.fspath(data).endswith(".npy"):
        names = [spec.name for spec in input_specs(model.ir, any_type=True)]
        if len(names) != 1:
            raise OnnxcanonError(
                f"{os.fspath(data)}: an .npy file holds one input, {model.name} has {len(names)};"
                " write an .npz file"
            )
        arrays = {names[0]: _mapped(data)}
    else:
        arrays = _archived(data)
    if labels is not None:
        from onnxcanon.runtime.evaluation import LABELS

        arrays[LABELS] = _mapped(labels) if isinstance(labels, str | os.PathLike) else np.asarray(labels)
    return arrays if isinstance(data, Mapping) else FileArrays(arrays, os.fspath(data))


def _mapped(path: str | os.PathLike[str]) -> Array:
    """An array in a file of its own, memory-mapped."""
    name = os.fspath(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it holds several arrays")
        return array
    except OSError as error:
        raise OnnxcanonError(f"{name}: {error.strerror or error}; name an .npy file") from error
    except (ValueError, EOFError, TypeError) as error:
        raise OnnxcanonError(f"{name}: not an .npy file of numbers; write one by numpy.save") from error


def _archived(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The arrays of an .npz file."""
    name = os.fspath(path)
    try:
        archive = np.load(name, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array without a name")
        with archive:
            return dict(archive)
    except OSError as error:
        raise OnnxcanonError(f"{name}: {error.strerror or error}; name an .npz file of inputs") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        cause = " ".join(str(error).split())
        raise OnnxcanonError(
            f"{name}: not an .npz file of numbers: {cause}; write one by numpy.savez"
        ) from error
