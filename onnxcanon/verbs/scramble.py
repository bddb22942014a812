"""The verb scramble: a random equal model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxcanon.choices import CHANGES
from onnxcanon.verbs.signature import verb
from onnxcanon.verbs.transformed import Transformed

if TYPE_CHECKING:
    from onnxcanon.choices import Change, Natural
    from onnxcanon.model import Model
    from onnxcanon.settings import Progress
    from onnxcanon.transform import Transform
    from onnxcanon.verbs.arguments import ModelSource, Sizes


@dataclass(frozen=True, slots=True, repr=False)
class Scrambled(Transformed):
    """A random twin: another model of the same function, and the group element that leads there."""

    model: Model
    transform: Transform
    seed: int
    only: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """What was done, as JSON values."""
        return {
            "model": self.model.name,
            "seed": self.seed,
            "only": list(self.only),
            "permuted": self.permuted,
            "rescaled": self.rescaled,
        }

    def __str__(self) -> str:
        changes = " ".join(self.only)
        return f"random twin of {self.model.name} (seed {self.seed}, {changes})\n  {self.summary}"


@verb
def scramble(
    model: ModelSource,
    *,
    seed: Natural = 0,
    only: Sequence[Change] = CHANGES,
    sizes: Sizes | None = None,
    permute_constants: bool = False,
    allow_overridable: bool = False,
    progress: Progress | None = None,
) -> Scrambled:
    """Make a random model of the same function: permuted, scaled by powers of two, flipped.

    Args:
        model: the model.
        seed: the random seed.
        only: what may be done: any of permute, scale and sign.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        permute_constants: whether constants that are data (masks, tables, frequencies) may move too.
        allow_overridable: whether constants that are graph inputs too, so the caller's, may move.
        progress: called with a short line before each step that lasts.

    Raises:
        ModelError: the model cannot be read.
        OnnxcanonError: `only` names something else.
    """
    from onnxcanon.canonical.random_element import random_element
    from onnxcanon.errors import check_choice
    from onnxcanon.symmetry import symmetry
    from onnxcanon.verbs.arguments import opened, settings_for

    words = [only] if isinstance(only, str) else only
    for word in words:
        check_choice("change", word, CHANGES)
    original = opened(model)
    settings = settings_for(original, sizes=sizes, seed=seed, progress=progress)
    settings.progress(f"analyzing {original.name}")
    group = symmetry(
        original,
        settings.sizes,
        permute_constants=permute_constants,
        allow_overridable=allow_overridable,
    )
    transform = random_element(original, group, seed, words)
    changes = tuple(word for word in CHANGES if word in words)
    return Scrambled(transform.apply(original), transform, seed, changes)
