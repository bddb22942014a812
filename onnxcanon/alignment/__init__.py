"""Alignment: the element of a model's group that brings it nearest to another model of the same structure.

found = align(load("a.onnx"), load("b.onnx"))
found.model       # b, the same function, its units in the order of a's and on their scale
found.pairs       # which tensor of a corresponds to which of b
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from onnxcanon.comparison.correspondence import Pair, correspondence
from onnxcanon.comparison.maps import approximate_map, same_symmetry
from onnxcanon.errors import OnnxcanonError
from onnxcanon.model import Model
from onnxcanon.symmetry.analysis import Symmetry, symmetry
from onnxcanon.transform import Transform

METHODS = ("weights",)


@dataclass(frozen=True, slots=True)
class Alignment:
    """A model moved within its orbit.

    Attributes:
        model: the moved model: the same function and the same file, other parameters.
        transform: the group element that moved it.
        reference: the model it was brought near.
        pairs: tensors of the reference with their counterparts in the model.
        symmetry: the symmetry of the reference; that of the model has the same numbers.
        method: how it was found.
        distance: the root mean square difference of the parameters that the group acts on, before and after.
        notes: what to know.
    """

    model: Model
    transform: Transform
    reference: Model
    pairs: tuple[Pair, ...]
    symmetry: Symmetry
    method: str = "weights"
    distance: tuple[float, float] = (0.0, 0.0)
    notes: tuple[str, ...] = ()


def align(
    reference: Model,
    model: Model,
    *,
    method: str = "weights",
    data: Mapping[str, np.ndarray] | None = None,
    sizes: dict[str, int] | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[str], None] | None = None,
) -> Alignment:
    """Move `model` within its orbit as close to `reference` as the method can.

    Raises:
        OnnxcanonError: the models have different structures or widths.
    """
    pairs = correspondence(reference, model)
    ours, theirs = symmetry(reference, sizes), symmetry(model, sizes)
    if pairs is None or not same_symmetry(ours, theirs):
        raise OnnxcanonError(f"{model.name}: its structure differs from that of {reference.name}")
    found = approximate_map(model, reference, theirs, ours)
    return Alignment(found.apply(model), found, reference, tuple(pairs), ours)
