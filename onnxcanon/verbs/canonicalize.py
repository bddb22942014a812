"""The verb canonicalize: one model for all that differ by its symmetries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxcanon.verbs.signature import verb
from onnxcanon.verbs.transformed import Transformed

if TYPE_CHECKING:
    from onnxcanon.choices import AboveOne, Device, Natural, Order, Scale
    from onnxcanon.model import Model
    from onnxcanon.settings import Progress
    from onnxcanon.symmetry import Symmetry
    from onnxcanon.transform import Transform
    from onnxcanon.verbs.arguments import Data, ModelSource, Sizes
    from onnxcanon.verifying.verification import Verification


@dataclass(frozen=True, slots=True, repr=False)
class Canonicalized(Transformed):
    """A canonical form.

    Attributes:
        model: the model in canonical form.
        transform: the group element that leads there.
        order: how the order was chosen.
        scale: how scales and signs were chosen.
        symmetry: the symmetry of the model.
        notes: what to know, such as a choice that could not be made.
        verification: the comparison of both models in onnxruntime; None if nothing changed or not asked for.
    """

    model: Model
    transform: Transform
    order: str
    scale: str
    symmetry: Symmetry
    notes: tuple[str, ...]
    verification: Verification | None = None

    @property
    def trivial(self) -> bool:
        """Whether the model has no freedom, so that it is its own canonical form."""
        return self.symmetry.trivial

    def to_json(self) -> dict[str, Any]:
        """What was done, as JSON values."""
        return {
            "model": self.model.name,
            "order": self.order,
            "scale": self.scale,
            "trivial": self.trivial,
            "permuted": self.permuted,
            "rescaled": self.rescaled,
            "notes": list(self.notes),
            "verification": None if self.verification is None else self.verification.to_json(),
        }

    def __str__(self) -> str:
        lines = [f"canonical form of {self.model.name} (order {self.order}, scale {self.scale})"]
        lines.append(f"  {self.summary}")
        if self.verification is not None:
            lines.append(f"  {self.verification.reason}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


@verb
def canonicalize(
    model: ModelSource,
    *,
    order: Order = "norm",
    scale: Scale = "pow2",
    base: AboveOne = 2.0,
    sizes: Sizes | None = None,
    permute_constants: bool = False,
    allow_overridable: bool = False,
    verify: bool = True,
    device: Device = "auto",
    seed: Natural = 0,
    data: Data | None = None,
    progress: Progress | None = None,
) -> Canonicalized:
    """Bring a model into canonical form, the same for all models that differ by its symmetries.

    The result is verified against the model in onnxruntime.

    Args:
        model: the model.
        order: how units that may change places are ordered: norm, lexicographic, nodesort, or none.
        scale: which scales and signs are chosen: pow2, balanced, unit, or none.
        base: the base of nodesort's digits, above 1.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        permute_constants: whether constants that are data (masks, tables, frequencies) may move too.
        allow_overridable: whether constants that are graph inputs too, so the caller's, may move.
        verify: whether to run both models and compare; see the result's `verification.same`.
        device: where to run them: auto, cpu, cuda or cuda:N.
        seed: the random seed of the inputs.
        data: inputs by name, or an .npz file of them, instead of drawn ones.
        progress: called with a short line before each step that lasts.

    Raises:
        ModelError: the model cannot be read.
        RuntimeUnavailableError: onnxruntime cannot run it, so that nothing can be verified.
        OnnxcanonError: there is no such order, scale or base.
    """
    from onnxcanon.canonical import canonicalize as choose
    from onnxcanon.verbs.arguments import opened, settings_for
    from onnxcanon.verifying import verify as run_both

    original = opened(model)
    settings = settings_for(original, sizes=sizes, device=device, seed=seed, data=data, progress=progress)
    form = choose(
        original,
        order=order,
        scale=scale,
        base=base,
        permute_constants=permute_constants,
        allow_overridable=allow_overridable,
        settings=settings,
    )
    verification = None
    if verify and (form.transform.permuted or form.transform.rescaled):
        verification = run_both(original, form.model, settings)
    return Canonicalized(form.model, form.transform, order, scale, form.symmetry, form.notes, verification)
