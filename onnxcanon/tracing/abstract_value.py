"""Abstract values: what the analyzer knows of a tensor.

Each axis of a tensor is in one of three states:

- ``FIXED``    positions mean something and may not move;
- ``UNIFORM``  the values do not vary along the axis (every axis of size 1);
- an int64 array of unit ids, of the tensor's rank: as long as the axis along it, of size 1 on every axis it
  does not depend on, of full size on those it does (its *context*). The per-head dimension of an attention
  value is an array of shape [1, heads, 1, d]: nesting needs no notion of its own.

Beside each axis stands its *exponent column*, an array of exponent variables that broadcasts the same way, or
None for zero: the tensor's entry at (i, j, …) is multiplied by exp(exponent_0[i] + exponent_1[j] + …).

Parameters are bound late: `AbstractValue.view` says which positions of which parameter a not yet labelled
tensor shows, and the first rule that really uses it names the axes and their contexts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

import numpy as np

from onnxcanon.arrays import Ids
from onnxcanon.tracing.constraints import Provenance, Slot


class State(Enum):
    """The two states of an axis without labels."""

    FIXED = "fixed"
    UNIFORM = "uniform"


FIXED: Final = State.FIXED
UNIFORM: Final = State.UNIFORM
AxisState = Ids | State


@dataclass(eq=False)
class Parameter:
    """A constant tensor whose axes may carry labels: per axis the bound unit ids and exponent variables.

    The arrays have the parameter's rank and broadcast against its shape; -1 marks a position nothing used.
    """

    name: str
    shape: tuple[int, ...]
    scalable: bool
    ids: list[Ids | None] = field(default_factory=list)
    exponents: list[Ids | None] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)  # the node that first labelled each axis

    def __post_init__(self) -> None:
        self.ids = [None] * len(self.shape)
        self.readers = [""] * len(self.shape)
        self.exponents = [None] * len(self.shape)


def stacked(members: Sequence[Parameter], units: Ids) -> Parameter:
    """Parameters of one shape along a new axis 0, labelled by `units`: context of all their labels."""
    first = members[0]
    stack = Parameter(" | ".join(p.name for p in members), (len(members), *first.shape), first.scalable)
    stack.readers[1:] = first.readers
    stack.ids[0] = units.reshape(-1, *[1] * len(first.shape))
    for axis in range(len(first.shape)):
        for target, source in (
            (stack.ids, [p.ids for p in members]),
            (stack.exponents, [p.exponents for p in members]),
        ):
            arrays = [a for store in source if (a := store[axis]) is not None]
            if len(arrays) == len(members):
                target[axis + 1] = np.stack(np.broadcast_arrays(*arrays))
    return stack


@dataclass(frozen=True)
class ParameterView:
    """A not yet labelled tensor: axis k shows `axes[k]` = (parameter axis, positions or None for all), or
    None for an inserted axis of size 1. `taken` maps a dropped parameter axis to the position kept of it."""

    parameter: Parameter
    axes: tuple[tuple[int, Ids | None] | None, ...]
    taken: Mapping[int, int] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether it shows every position of the parameter."""
        return not self.taken and all(source is None or source[1] is None for source in self.axes)


@dataclass(frozen=True, eq=False)
class DeferredSplit:
    """A split of one axis into several, as long as nothing reads the parts: the labels of that axis, `whole`
    int64 [sizes of the parts], belong to the parts together; `axes[k]` is where part k lies. A reshape that
    follows then splits the axis itself, not its parts, and need not line up with the one before."""

    whole: Ids
    axes: tuple[int, ...]
    slot: Slot
    provenance: Provenance

    def shown(self, array: Ids, rank: int) -> Ids:
        """An array over the parts as one over all axes of the tensor."""
        sizes = [1] * rank
        for axis, size in zip(self.axes, array.shape, strict=True):
            sizes[axis] = size
        return array.transpose(np.argsort(self.axes)).reshape(sizes)

    def at(self, axes: Iterable[int]) -> DeferredSplit:
        """This split with its parts on other axes."""
        return replace(self, axes=tuple(axes))


@dataclass(eq=False)
class AbstractValue:
    """The abstract value of one tensor. `shape` holds the sizes in the first sample."""

    shape: tuple[int, ...]
    ids: list[AxisState]
    exponents: list[Ids | None]
    view: ParameterView | None = None
    zero: bool = False  # every entry is 0: any exponent fits
    splits: tuple[DeferredSplit, ...] = ()  # `ids` shows the whole on each of their axes

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)


@dataclass(eq=False)
class ValueSequence(AbstractValue):
    """A sequence of tensors; as a value of its own it has no axes."""

    members: list[AbstractValue] = field(default_factory=list)

    def __init__(self, members: list[AbstractValue]) -> None:
        super().__init__((), [], [])
        self.members = members


def constant(shape: Sequence[int], state: State = FIXED, *, zero: bool = False) -> AbstractValue:
    """A tensor without labels; axes of size 1 are uniform."""
    shape = tuple(shape)
    return AbstractValue(
        shape, [UNIFORM if n == 1 else state for n in shape], [None] * len(shape), None, zero
    )


def parameter_value(parameter: Parameter) -> AbstractValue:
    """The whole of a parameter, not yet labelled."""
    value = constant(parameter.shape)
    value.view = ParameterView(parameter, tuple((k, None) for k in range(len(parameter.shape))))
    return value
