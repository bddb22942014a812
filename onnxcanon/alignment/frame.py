"""The frame in which two models are aligned: both on one scale, in single precision, with one numbering.

Scales are brought to the balanced choice first, or large parameters would decide alone; signs are left to the
methods. What these find in the frame becomes an element of the model's own group: into the frame, the
element, and out of it by the way of the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from onnxcanon.alignment.assignment import Singles
from onnxcanon.alignment.nearest_scales import nearest_scale
from onnxcanon.alignment.weight_matching import Matching
from onnxcanon.arrays import Floats
from onnxcanon.canonical.choose_scales import choose_scale
from onnxcanon.comparison.correspondence import Pair, correspondence
from onnxcanon.comparison.maps import renamed, same_symmetry, snapped
from onnxcanon.comparison.mismatch import explain_mismatch
from onnxcanon.errors import OnnxcanonError
from onnxcanon.graph.element_types import AVERAGED
from onnxcanon.model import Model
from onnxcanon.symmetry import Symmetry, symmetry
from onnxcanon.transform import Transform


@dataclass(frozen=True)
class Frame:
    """Two models of one structure.

    Attributes:
        reference: the model that stays.
        model: the model that moves.
        pairs: tensors of the reference with their counterparts.
        ours: the symmetry of the reference.
        theirs: that of the model: the same numbers, its own names.
        scale: the choice of scales that both are brought to.
    """

    reference: Model
    model: Model
    pairs: tuple[Pair, ...]
    ours: Symmetry
    theirs: Symmetry
    scale: str = "balanced"

    @classmethod
    def of(
        cls,
        reference: Model,
        model: Model,
        sizes: dict[str, int] | None = None,
        scale: str = "balanced",
        *,
        versions: bool = True,
    ) -> Frame:
        """The frame of two models; operators of different versions are different if `versions` says so.

        Raises:
            OnnxcanonError: their structures or widths differ.
        """
        pairs = correspondence(reference, model, versions=versions)
        if pairs is None:
            raise OnnxcanonError(explain_mismatch(reference, model))
        ours, theirs = symmetry(reference, sizes), symmetry(model, sizes)
        if not same_symmetry(ours, theirs):
            raise OnnxcanonError(
                f"{model.name} and {reference.name} have one graph, but not the same freedoms, for a tensor"
                " of one alone is constant or zero: they cannot be aligned"
            )
        return cls(reference, model, tuple(pairs), ours, theirs, scale)

    @cached_property
    def scalings(self) -> tuple[Transform, Transform]:
        """What brings either model into the frame."""
        return (
            self.ours.action(None, choose_scale(self.reference, self.ours, self.scale)[0]),
            self.theirs.action(None, choose_scale(self.model, self.theirs, self.scale)[0]),
        )

    def matching(self) -> Matching:
        """Both models in the frame, to be matched."""
        into, theirs = self.scalings
        own = renamed(theirs, self.theirs, self.ours)
        return Matching(
            self.ours,
            _singles(self.reference, self.ours, self.ours, into),
            _singles(self.model, self.theirs, self.ours, own),
        )

    @cached_property
    def models(self) -> tuple[Model, Model]:
        """Both models in the frame, in the graph and with the names of the reference."""
        into, theirs = self.scalings
        return into.apply(self.reference), self.spelled(theirs)

    def spelled(self, transform: Transform) -> Model:
        """The model, transformed, in the graph and with the names of the reference."""
        moved = transform.apply(self.model)
        new = {name: partial(moved.tensor, counterpart) for name, counterpart in reversed(self.pairs)}
        averaged = {n: read for n, read in new.items() if self.reference.tensor_info(n)[1] in AVERAGED}
        return self.reference.with_tensors(averaged)

    def element(self, found: Transform, *, nearest: bool = False) -> Transform:
        """What was found in the frame, as a transform of the model.

        Args:
            found: the element, by the names of the reference.
            nearest: whether scales are then chosen so that the distance is the smallest; else units keep
                the norms that they have in the reference.
        """
        into, theirs = self.scalings
        moved = renamed(theirs, self.theirs, self.ours).then(found).then(into.inverse())
        if nearest:
            moved = moved.then(self.ours.action(None, self._nearest(moved)))
        return snapped(renamed(moved, self.ours, self.theirs))

    def _nearest(self, moved: Transform) -> Floats:
        """The exponents of the scales that bring the moved model nearest to the reference."""
        if not self.ours.acting[0].any():
            return np.zeros(self.ours.scale.count)
        return nearest_scale(
            self.ours,
            _singles(self.reference, self.ours, self.ours, Transform({})),
            _singles(self.model, self.theirs, self.ours, moved),
        )


def _singles(model: Model, own: Symmetry, names: Symmetry, moved: Transform) -> dict[str, Singles]:
    """The parameters by the names of `names`, transformed, in single precision and finite."""
    out = {}
    for name, known in zip(own.classes, names.classes, strict=True):
        array = own.read(model, name).astype(np.float32)
        if known in moved.actions:
            array = moved.actions[known](array)
        out[known] = np.nan_to_num(array, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return out
