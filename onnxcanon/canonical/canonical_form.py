"""The canonical form: scale first, then signs, then order, so that no choice depends on a later one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxcanon.choices import ORDERS, SCALES
from onnxcanon.errors import OnnxcanonError, check_choice
from onnxcanon.settings import DEFAULTS, Settings

if TYPE_CHECKING:
    from onnxcanon.model import Model
    from onnxcanon.symmetry import Symmetry
    from onnxcanon.transform import Transform


@dataclass(frozen=True, slots=True)
class CanonicalForm:
    """The canonical representative of a model's orbit.

    Attributes:
        model: the model in canonical form; its tensors are computed when they are read.
        transform: the group element that leads there.
        symmetry: the group.
        notes: sentences for the user about choices that could not be made.
    """

    model: Model
    transform: Transform
    symmetry: Symmetry
    notes: tuple[str, ...]


def canonicalize(
    model: Model,
    *,
    order: str = "norm",
    scale: str = "pow2",
    base: float = 2.0,
    permute_constants: bool = False,
    allow_overridable: bool = False,
    settings: Settings = DEFAULTS,
) -> CanonicalForm:
    """The canonical form of a model; nothing is verified here and the argument is not changed.

    Args:
        model: any loaded model.
        order: how siblings are sorted: norm, lexicographic, nodesort or none (keep the order).
        scale: pow2, balanced, unit or none (keep scales and signs).
        base: the base of nodesort's digits, > 1.
        permute_constants: whether constants that are data (masks, tables, frequencies) may move like weights.
        allow_overridable: whether constants that are graph inputs too, so the caller's, may.
        settings: the sizes of dynamic dimensions, and who follows the progress.

    Raises:
        OnnxcanonError: an unknown choice.
    """
    from onnxcanon.canonical.choose_scales import scaling
    from onnxcanon.canonical.order import ordering
    from onnxcanon.symmetry import symmetry as analyze_symmetry

    check_choice("order", order, ORDERS)
    check_choice("scale", scale, SCALES)
    if not base > 1:
        raise OnnxcanonError(f"digits have no base {base:g}; choose one above 1")
    settings.progress("analyzing")
    symmetry = analyze_symmetry(
        model, settings.sizes, permute_constants=permute_constants, allow_overridable=allow_overridable
    )
    settings.progress("choosing scales and signs")
    scaled, notes = scaling(model, symmetry, scale)
    settings.progress("ordering units")
    ordered, more = ordering(scaled.apply(model), symmetry, order, base, incoming_alike=scale == "unit")
    transform = scaled.then(ordered)
    return CanonicalForm(transform.apply(model), transform, symmetry, (*notes, *more))
