"""What goes into a session and comes out of it: NumPy arrays, and what onnxruntime has beside them."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxcanon.arrays import Array, Arrays
from onnxcanon.runtime.devices import onnxruntime

# Types that onnxruntime computes with but cannot exchange as NumPy arrays: sent and read as raw bits.
_RAW_TYPES = {
    "tensor(bfloat16)": "bfloat16",
    "tensor(float8e4m3fn)": "float8_e4m3fn",
    "tensor(float8e4m3fnuz)": "float8_e4m3fnuz",
    "tensor(float8e5m2)": "float8_e5m2",
    "tensor(float8e5m2fnuz)": "float8_e5m2fnuz",
}


@dataclass(frozen=True, slots=True)
class SessionValue:
    """A graph input or output as onnxruntime sees it; a dimension is a size, a name, or None."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]

    @classmethod
    def of(cls, item: Any) -> SessionValue:
        """An input or output of an `InferenceSession`; a declared size below zero (exporters write -1) is
        none."""
        shape = tuple(None if isinstance(dim, int) and dim < 0 else dim for dim in item.shape or ())
        return cls(item.name, item.type, shape)

    @property
    def raw(self) -> bool:
        """Whether its type is one that NumPy lacks."""
        return self.type in _RAW_TYPES


def to_ort(value: SessionValue, array: Array) -> Any:
    """An array as an OrtValue for an input."""
    array = np.ascontiguousarray(array)
    make = onnxruntime().OrtValue
    if not value.raw:
        return make.ortvalue_from_numpy(array)
    import onnx

    element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    bits = array.view(np.uint16 if array.itemsize == 2 else np.uint8)
    return make.ortvalue_from_numpy_with_onnx_type(bits, element)


def to_numpy(value: Any) -> Any:
    """An OrtValue as an array; types NumPy lacks are read from its memory: outputs are on the CPU."""
    name = _RAW_TYPES.get(value.data_type())
    if name is None:
        return value.numpy()
    import ml_dtypes

    dtype = np.dtype(getattr(ml_dtypes, name))
    shape = value.shape()
    size = math.prod(shape) * dtype.itemsize
    return np.frombuffer(ctypes.string_at(value.data_ptr(), size), dtype=dtype).reshape(shape)


def flatten(name: str, value: Any) -> Arrays:
    """An output as arrays: sequences item by item, the maps of a classifier as one table.

    >>> flatten("y", [np.array(1), np.array(2)])
    {'y.length': array(2), 'y[0]': array(1), 'y[1]': array(2)}
    >>> flatten("scores", [{"b": 0.5, "a": 0.25}])
    {'scores': array([[0.25, 0.5 ]])}
    """
    if value is None:  # an optional that holds nothing
        return {name: np.zeros((0,), np.float32)}
    if isinstance(value, dict):
        return {name: np.array([value[key] for key in sorted(value)])}
    if not isinstance(value, list):
        return {name: np.asarray(value)}
    if value and all(isinstance(item, dict) for item in value):
        return {name: np.array([[item[key] for key in sorted(item)] for item in value])}
    arrays: Arrays = {f"{name}.length": np.array(len(value))}
    for index, item in enumerate(value):
        arrays |= flatten(f"{name}[{index}]", item)
    return arrays
