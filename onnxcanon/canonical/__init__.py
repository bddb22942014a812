"""The canonical form: scale first, then signs, then order, so that no choice depends on a later one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onnxcanon.errors import OnnxcanonError, check_choice

if TYPE_CHECKING:
    from onnxcanon.model import Model
    from onnxcanon.symmetry import Symmetry
    from onnxcanon.transform import Transform

__all__ = ["CanonicalForm", "canonicalize"]


@dataclass(frozen=True, slots=True)
class CanonicalForm:
    """A canonical form: the model (evaluated lazily), the group element that led to it, and what to know."""

    model: Model
    transform: Transform
    order: str
    scale: str
    symmetry: Symmetry
    notes: list[str] = field(default_factory=list)

    @property
    def trivial(self) -> bool:
        """Whether the model has no freedom, so that it is its own canonical form."""
        return self.symmetry.trivial


def canonicalize(
    model: Model,
    *,
    order: str = "norm",
    scale: str = "pow2",
    base: float = 2.0,
    sizes: dict[str, int] | None = None,
    permute_constants: bool = False,
    allow_overridable: bool = False,
    progress: Callable[[str], None] | None = None,
) -> CanonicalForm:
    """The canonical form of a model; nothing is verified here and the argument is not changed.

    Args:
        model: any loaded model.
        order: how siblings are presented: norm, lexicographic, nodesort or none (keep the order).
        scale: pow2, balanced, unit or none (keep scales and signs).
        base: the base of nodesort's digits, > 1.
        sizes: sizes of dynamic dimensions by name, where the analyzer needs them.
        permute_constants: whether constants that are data (masks, tables, frequencies) may move like weights.
        allow_overridable: whether constants that are graph inputs too, so the caller's, may.
        progress: called with a short phrase before each stage.

    Raises:
        OnnxcanonError: an unknown choice.
    """
    from onnxcanon.canonical.choose_scales import SCALES, scaling
    from onnxcanon.canonical.order import ORDERS, ordering
    from onnxcanon.symmetry import symmetry as analyze_symmetry

    check_choice("order", order, ORDERS)
    check_choice("scale", scale, SCALES)
    if not base > 1:
        raise OnnxcanonError(f"digits have no base {base:g}; choose one above 1")
    report = progress or (lambda _: None)
    report("analyzing")
    symmetry = analyze_symmetry(
        model, sizes, permute_constants=permute_constants, allow_overridable=allow_overridable
    )
    report("choosing scales and signs")
    scaled, notes = scaling(model, symmetry, scale)
    report("ordering units")
    ordered, more = ordering(scaled.apply(model), symmetry, order, base, incoming_alike=scale == "unit")
    transform = scaled.then(ordered)
    return CanonicalForm(transform.apply(model), transform, order, scale, symmetry, [*notes, *more])
