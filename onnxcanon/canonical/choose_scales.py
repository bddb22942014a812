"""The choice of scale: one representative of the orbit under positive rescaling and sign flips.

Every freedom t multiplies the entries it acts on by 2^(±t). The choices:

- ``pow2``      t integral: the largest magnitude of the entries a freedom multiplies at its first parameter
                lies in [1/2, 1). Exact quantities only, bit-exact, hence the default.
- ``unit``      the same place, with the bias, has Euclidean norm 1: incoming weights (earlier freedoms being
                normalized) on spheres, norms pushed toward the output (Pittorino et al. 2022).
- ``balanced``  the element of the orbit with the smallest sum of squares over all parameters.
- ``none``      nothing, signs included.

A freedom that meets only zeros keeps its scale.
"""

from __future__ import annotations

from onnxcanon.arrays import Floats
from onnxcanon.canonical.choose_signs import choose_signs
from onnxcanon.canonical.sequential_scaling import Measure, SequentialScaling, powers_of_two
from onnxcanon.model import Model
from onnxcanon.symmetry import Symmetry
from onnxcanon.transform import Transform


def choose_scale(model: Model, symmetry: Symmetry, scale: str) -> tuple[Floats | None, list[str]]:
    """log2 exponents of the scale freedoms (None: leave them), and notes for the user."""
    if scale == "none" or not symmetry.acting[0].any():
        return None, []
    if scale == "balanced":
        from onnxcanon.canonical.balance import balanced

        return balanced(model, symmetry), []
    if scale == "pow2":
        return powers_of_two(model, symmetry)
    sequential = SequentialScaling(model, symmetry, Measure(exact=False))
    return sequential.run(), sequential.notes()


def scaling(model: Model, symmetry: Symmetry, scale: str) -> tuple[Transform, list[str]]:
    """The transform that brings scales and signs to their canonical choice, and notes."""
    exponents, notes = choose_scale(model, symmetry, scale)
    scaled = symmetry.action(None, exponents)
    if scale == "none":
        return scaled, notes
    signs, more = choose_signs(scaled.apply(model), symmetry)
    if any(symmetry.by_storage(freedom) for freedom in (symmetry.scale, symmetry.sign)):
        more.append(
            "scales or signs of one parameter cancel; which unit keeps its own depends on their order"
        )
    return scaled.then(symmetry.action(None, None, signs)), [*notes, *more]
