"""Alignment: the element of a model's group that brings it nearest to another model of the same structure.

found = align(load("a.onnx"), load("b.onnx"))
found.model       # b, the same function, its units in the order of a's and on their scale
found.pairs       # which tensor of a corresponds to which of b
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxcanon.alignment.assignment import Singles
from onnxcanon.alignment.scale import nearest_scale
from onnxcanon.alignment.weights import Matching
from onnxcanon.canonical.scale import choose_scale
from onnxcanon.comparison.correspondence import Pair, correspondence
from onnxcanon.comparison.maps import renamed, same_symmetry, snapped
from onnxcanon.errors import OnnxcanonError
from onnxcanon.model import Model
from onnxcanon.symmetry.analysis import Symmetry, symmetry
from onnxcanon.transform import Transform

METHODS = ("weights",)

STARTS = ("signatures", "identity")


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
    found = by_weights(reference, model, ours, theirs, progress)
    return Alignment(found.apply(model), found, reference, tuple(pairs), ours)


def by_weights(
    reference: Model,
    model: Model,
    ours: Symmetry,
    theirs: Symmetry,
    progress: Callable[[str], None] | None = None,
    normalize: str = "balanced",
) -> Transform:
    """The transform of `model` found by weight matching, once both have the same choice of scales."""
    say = progress or (lambda _: None)
    scaled = ours.action(None, choose_scale(reference, ours, normalize)[0])
    unscaled = theirs.action(None, choose_scale(model, theirs, normalize)[0])
    matching = Matching(ours, _singles(reference, ours, scaled), _singles(model, theirs, unscaled, ours))
    found = best_of(matching, say)
    moved = renamed(unscaled, theirs, ours).then(found).then(scaled.inverse())
    moved = moved.then(ours.action(None, _exponents(reference, model, ours, theirs, moved)))
    return snapped(renamed(moved, ours, theirs))


def _exponents(
    reference: Model, model: Model, ours: Symmetry, theirs: Symmetry, moved: Transform
) -> NDArray[np.float64]:
    """The scales that bring the moved model nearest to the reference."""
    nothing = Transform({})
    if not ours.acting[0].any():
        return np.zeros(ours.scale.count)
    named = renamed(moved, ours, theirs)
    return nearest_scale(ours, _singles(reference, ours, nothing), _singles(model, theirs, named, ours))


def best_of(matching: Matching, say: Callable[[str], None]) -> Transform:
    """Match from several starts, one sweep each, and go on from the best."""
    results = []
    for start in STARTS:
        matching.reset()
        if start == "signatures":
            matching.from_signatures()
        matching.run(say, sweeps=1)
        results.append((matching.objective(), matching.moved, matching.actions))
    _, matching.moved, matching.actions = max(results, key=lambda r: r[0])
    matching.run(say)
    return matching.transform


def _singles(
    model: Model, symmetry: Symmetry, scaled: Transform, names: Symmetry | None = None
) -> dict[str, Singles]:
    """The parameters some axis of which has units, scaled, in single precision, finite."""
    given = (names or symmetry).classes
    out = {}
    for name, known in zip(symmetry.classes, given, strict=True):
        array = symmetry.read(model, name).astype(np.float32)
        if name in scaled.actions:
            array = scaled.actions[name](array)
        out[known] = np.nan_to_num(array, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return out
