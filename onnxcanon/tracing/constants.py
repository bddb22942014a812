"""What each constant of a model is to the analyzer: a parameter that may move, or entries that stay.

A constant stays if it is an index, belongs to the caller or to a function that is not seen through, or is
data by its use in the graph (`data_constants.py`). A uniform constant that several nodes share is no weight:
exporters store equal constants once, which must not tie their users together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir

from onnxcanon.arrays import Array
from onnxcanon.graph.element_types import INDEX_TYPES, SCALABLE
from onnxcanon.model import Model
from onnxcanon.shapes import Shapes
from onnxcanon.tracing.abstract_value import (
    FIXED,
    UNIFORM,
    AbstractValue,
    Parameter,
    constant,
    parameter_value,
)
from onnxcanon.tracing.data_constants import data_kind

SEARCHED = 1 << 20
"""Entries up to which data is compared with its first entry, to see whether it is uniform."""


class Constants:
    """The constants of one model, classified as they are met.

    Attributes:
        parameters: by name, those that may move.
        fixed: those that stay though they could be weights, and why.
        data: those that are no weights, and what they are.
    """

    def __init__(
        self,
        model: Model,
        graph: ir.Graph,
        opaque: Iterable[ir.OperatorIdentifier],
        *,
        permute_constants: bool,
        allow_overridable: bool,
    ) -> None:
        self.model = model
        self.permute_constants = permute_constants
        self.overridable = frozenset[str]() if allow_overridable else frozenset(model.overridable())
        self.parameters: dict[str, Parameter] = {}
        self.fixed: dict[str, str] = {}
        self.data: dict[str, str] = {}
        self._uses = Counter(name for node in graph.all_nodes() for name in self.read_by(node))
        self._first: dict[str, ir.Value] = {}
        for identifier in opaque:
            reason = f"in {'::'.join(identifier[:2])}, which is not seen through"
            for node in model.ir.functions[identifier].all_nodes():
                names = (model.key(v) for v in (*node.inputs, *node.outputs) if v is not None)
                self.fixed.update((name, reason) for name in names if name is not None)

    def read_by(self, node: ir.Node) -> Iterator[str]:
        """The names of the constants that a node reads, nested nodes apart."""
        for value in node.inputs:
            name = None if value is None else self.model.key(value)
            if name is not None:
                yield name

    def entries(self, value: ir.Value) -> Array:
        """The entries of a constant."""
        name = self.model.key(value)
        if name is not None:
            return self.model.tensor(name)
        assert value.const_value is not None
        return value.const_value.numpy()

    def is_parameter(self, value: ir.Value) -> bool:
        """Whether a value is a parameter."""
        return self.model.key(value) in self.parameters

    def first(self, value: ir.Value) -> ir.Value:
        """The value, or of a constant with several (one for each call of a function) the first."""
        name = self.model.key(value)
        return value if name is None else self._first.setdefault(name, value)

    def in_order_of_use(self, nodes: Iterable[ir.Node]) -> dict[str, Parameter]:
        """The parameters as the nodes read them first, those that none reads last."""
        used = dict.fromkeys(name for node in nodes for name in self.read_by(node))
        return {name: self.parameters[name] for name in [*used, *self.parameters] if name in self.parameters}

    def initializer(self, value: ir.Value, shapes: Shapes) -> AbstractValue | None:
        """The abstract value of an initializer of the main graph, which may be the caller's."""
        return self.abstract(
            value, shapes, "may be overridden by the caller" if value.name in self.overridable else ""
        )

    def abstract(self, value: ir.Value, shapes: Shapes, reason: str = "") -> AbstractValue | None:
        """The abstract value of a constant, which stays as it is if there is a reason."""
        name = self.model.key(value)
        if name is None:
            inferred = shapes.shapes(value)[0]
            return None if inferred is None else constant(inferred)
        shape, dtype = self.model.tensor_info(name)
        size = int(np.prod(shape, dtype=np.int64))
        if dtype in INDEX_TYPES:
            return self._data(name, shape, size)
        reason = reason or self.fixed.get(name, "")
        if reason:
            self.fixed[name] = reason
            return constant(shape)
        if size <= 1 or (self._uses[name] > 1 and self._is_uniform(name)):
            return constant(shape, UNIFORM, zero=size > 0 and not np.any(self.model.tensor(name)))
        kind = self.data.get(name)
        if kind is None and name not in self.parameters and dtype.is_floating_point():
            kind = None if self.permute_constants else data_kind(value, shape)
        if kind is not None:
            self.data[name] = kind
            return self._data(name, shape, size)
        if name not in self.parameters:  # a function's constant is met once per call
            self.parameters[name] = Parameter(name, shape, dtype in SCALABLE)
        return parameter_value(self.parameters[name])

    def _data(self, name: str, shape: tuple[int, ...], size: int) -> AbstractValue:
        uniform = 0 < size <= SEARCHED and self._is_uniform(name)
        return constant(shape, UNIFORM if uniform else FIXED)

    def _is_uniform(self, name: str) -> bool:
        flat = self.model.tensor(name).reshape(-1)
        return len(flat) > 0 and bool((flat == flat[0]).all())
