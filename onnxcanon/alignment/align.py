"""Alignment: the element of a model's group that brings it nearest to another model of the same structure.

alignment = align(load("a.onnx"), load("b.onnx"))
alignment.model       # b, the same function, its units in the order of a's and on their scale
alignment.pairs       # which tensor of a corresponds to which of b
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxcanon.alignment.by_activations import by_activations
from onnxcanon.alignment.by_annealing import by_annealing
from onnxcanon.alignment.by_cosine import by_cosine
from onnxcanon.alignment.by_functional import by_functional
from onnxcanon.alignment.by_weights import by_weights
from onnxcanon.alignment.frame import Frame
from onnxcanon.alignment.method import MethodResult
from onnxcanon.choices import ALIGNED_SCALES, METHODS, AlignedScale, Method
from onnxcanon.comparison.correspondence import Pair, common_sizes
from onnxcanon.comparison.metrics import root_mean_square
from onnxcanon.errors import OnnxcanonError, check_choice
from onnxcanon.graph.element_types import AVERAGED
from onnxcanon.model import Model
from onnxcanon.normalform import normal_form
from onnxcanon.results import Result
from onnxcanon.settings import DEFAULTS, Settings
from onnxcanon.symmetry import Symmetry
from onnxcanon.transform import Transform

_METHODS: Mapping[Method, Callable[[Frame, Settings], MethodResult]] = {
    "weights": by_weights,
    "activations": by_activations,
    "cosine": by_cosine,
    "functional": by_functional,
    "annealing": by_annealing,
}


@dataclass(frozen=True, slots=True, repr=False)
class Alignment(Result):
    """A model moved within its orbit.

    Attributes:
        model: the moved model: the same function and the same file, other parameters.
        transform: the group element that moved it.
        reference: the model it was brought near.
        pairs: tensors of the reference with their counterparts in the model.
        symmetry: the symmetry of the reference; that of the model has the same numbers.
        method: how units were matched.
        distance: the root mean square difference of corresponding weights, before and after.
        notes: what to know.
    """

    model: Model
    transform: Transform
    reference: Model
    pairs: tuple[Pair, ...]
    symmetry: Symmetry
    method: str
    distance: tuple[float, float]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What was done, as JSON values."""
        return {
            "reference": self.reference.name,
            "model": self.model.name,
            "method": self.method,
            "permuted": self.transform.permuted,
            "rescaled": self.transform.rescaled,
            "distance_before": self.distance[0],
            "distance": self.distance[1],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        before, after = self.distance
        summary = f"{self.model.name} aligned to {self.reference.name} by {self.method}"
        lines = [summary, f"  distance {before:.6g} -> {after:.6g} (root mean square of all weights)"]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def align(
    reference: Model,
    model: Model,
    *,
    method: Method = "weights",
    scale: AlignedScale = "nearest",
    normalize: bool = False,
    settings: Settings = DEFAULTS,
) -> Alignment:
    """Move `model` within its orbit as close to `reference` as the method can.

    Args:
        reference: the model that stays.
        model: the model that moves; it may have other names.
        method: how units are matched.
        scale: `nearest` for the smallest distance; averages want the `norms` of the reference.
        normalize: whether both are first brought to a normal form, in which exports of one architecture by
            different exporters have one graph; the result is in normal form then.
        settings: the data is inputs by name for methods that run the models, and labels `y` for those that
            need a loss.

    Raises:
        OnnxcanonError: the models have different structures or widths, there is no such method, or
            it needs data and has none that fits.
        RuntimeUnavailableError: the method runs the models, and onnxruntime cannot.
    """
    for what, choice, choices in (("method", method, METHODS), ("scale", scale, ALIGNED_SCALES)):
        check_choice(what, choice, choices)
    if normalize:
        settings.progress("normalizing graphs")
        reference, model = in_normal_form([reference, model], settings.sizes)
    settings.progress("analyzing")
    frame = Frame.of(reference, model, settings.sizes, versions=not normalize)
    result = _METHODS[method](frame, settings)
    transform = frame.element(result.element, nearest=scale == "nearest")
    aligned = transform.apply(model)
    weights = [pair for pair in frame.pairs if reference.tensor_info(pair[0])[1] in AVERAGED]
    before, after = (root_mean_square(reference, one, weights) for one in (model, aligned))
    return Alignment(
        aligned, transform, reference, frame.pairs, frame.ours, method, (before, after), result.notes
    )


def in_normal_form(models: Sequence[Model], sizes: dict[str, int]) -> list[Model]:
    """The normal forms of models, under the sizes that some of them were exported for.

    Raises:
        OnnxcanonError: one has no normal form.
    """
    fixed: dict[str, int] = {}
    for model in models[1:]:
        fixed |= common_sizes(models[0], model)
    forms = [normal_form(model, fixed | sizes) for model in models]
    for form in forms:
        if form.incomplete:
            raise OnnxcanonError(f"{form.original.name}: its graph has no normal form: {form.incomplete}")
    return [form.model for form in forms]
