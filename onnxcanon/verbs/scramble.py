"""The verb scramble: a random equal model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxcanon.choices import CHANGES, Change
from onnxcanon.verbs.transformed import Transformed

if TYPE_CHECKING:
    from onnxcanon.model import Model
    from onnxcanon.transform import Transform
    from onnxcanon.verbs.arguments import ModelSource


@dataclass(frozen=True, slots=True)
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
        done = " ".join(self.only)
        return f"random twin of {self.model.name} (seed {self.seed}, {done})\n  {self.summary}"


def scramble(
    model: ModelSource,
    *,
    seed: int = 0,
    only: Sequence[Change] = CHANGES,
    sizes: Mapping[str, int] | None = None,
    permute_constants: bool = False,
    allow_overridable: bool = False,
) -> Scrambled:
    """A random model of the same function: permuted, scaled by powers of two, flipped.

    Args:
        model: the model.
        seed: what the group element is drawn from.
        only: what may be done: any of permute, scale, sign.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        permute_constants: whether constants that are data (masks, tables, frequencies) may move like weights.
        allow_overridable: whether constants that are graph inputs too, so the caller's, may.

    Raises:
        ModelError: the model cannot be read.
        OnnxcanonError: `only` names something else.
    """
    from onnxcanon.canonical.random_element import random_twin
    from onnxcanon.errors import check_choice
    from onnxcanon.symmetry import symmetry
    from onnxcanon.verbs.arguments import opened, settings_for

    for word in only:
        check_choice("change", word, CHANGES)
    original = opened(model)
    group = symmetry(
        original,
        settings_for(original, sizes=sizes).sizes,
        permute_constants=permute_constants,
        allow_overridable=allow_overridable,
    )
    transform = random_twin(original, group, seed, only)
    return Scrambled(
        transform.apply(original), transform, seed, tuple(word for word in CHANGES if word in only)
    )
