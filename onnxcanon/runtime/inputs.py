"""The inputs that the caller of a model must give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxcanon.errors import RuntimeUnavailableError
from onnxcanon.runtime.integer_ranges import IntegerRange, integer_ranges
from onnxcanon.shapes.sizes import Dims, dimensions


@dataclass(frozen=True, slots=True)
class InputSpec:
    """A graph input that the caller must give.

    Attributes:
        name: its name.
        dtype: its type.
        dims: its dimensions; names are those of dynamic ones.
        values: what it may hold if it holds integers.
    """

    name: str
    dtype: np.dtype
    dims: Dims
    values: IntegerRange

    def with_sizes(self, sizes: Mapping[str, int]) -> InputSpec:
        """The input with some of its dynamic dimensions fixed."""
        dims = tuple(sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in self.dims)
        return replace(self, dims=dims)


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
        specs.append(InputSpec(name, value.dtype.numpy(), dimensions(value) or (), ranges[name]))
    return tuple(specs)
