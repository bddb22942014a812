"""Whether two models can be called alike: inputs and outputs of the same names, types, ranks and sizes."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxcanon.runtime.inputs import InputSpec
from onnxcanon.shapes.sizes import SizeByDimension, dimension


def signature_mismatch(a: ir.Model, b: ir.Model) -> str | None:
    """Why no call fits both models; None where the inputs and outputs agree as far as they are declared."""
    for word, values_a, values_b in (
        ("input", _inputs(a), _inputs(b)),
        ("output", _by_name(a.graph.outputs), _by_name(b.graph.outputs)),
    ):
        for name in values_a.keys() ^ values_b.keys():
            owner = "first" if name in values_a else "second"
            return f"only the {owner} model has an {word} named {name!r}"
        for name, value_a in values_a.items():
            why = _value_mismatch(value_a, values_b[name])
            if why is not None:
                return f"{word} {name!r} is {why}"
    return None


def agreed_sizes(specs: Sequence[InputSpec], other: ir.Model) -> SizeByDimension:
    """The sizes of dynamic dimensions of one model's inputs that the other model fixes."""
    values = _inputs(other)
    sizes: SizeByDimension = {}
    for spec in specs:
        for name, dim in zip(spec.dims, values[spec.name].shape or (), strict=False):
            size = dimension(dim)
            if isinstance(name, str) and isinstance(size, int):
                sizes[name] = size
    return sizes


def _value_mismatch(a: ir.Value, b: ir.Value) -> str | None:
    if a.type is not None and b.type is not None and a.type != b.type:
        return f"{a.type} in the first model and {b.type} in the second"
    if a.shape is None or b.shape is None:
        return None
    text = f"{a.shape} in the first model and {b.shape} in the second"
    if len(a.shape) != len(b.shape):
        return text
    sizes = [(dimension(x), dimension(y)) for x, y in zip(a.shape, b.shape, strict=True)]
    return text if any(isinstance(x, int) and isinstance(y, int) and x != y for x, y in sizes) else None


def _inputs(model: ir.Model) -> dict[str, ir.Value]:
    values = _by_name(model.graph.inputs)
    return {name: value for name, value in values.items() if name not in model.graph.initializers}


def _by_name(values: Sequence[ir.Value]) -> dict[str, ir.Value]:
    return {value.name or "": value for value in values}
