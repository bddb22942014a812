"""The choice of order: the hash order decides equality, a readable key decides presentation."""

from __future__ import annotations

from functools import partial

from onnxcanon.canonical.colours import Colours
from onnxcanon.canonical.sort_keys import by_digits, by_entries, by_norm, sort_by
from onnxcanon.model import Model
from onnxcanon.symmetry import Symmetry
from onnxcanon.transform import Transform


def ordering(
    model: Model, symmetry: Symmetry, order: str, base: float = 2.0, *, incoming_alike: bool = False
) -> tuple[Transform, list[str]]:
    """The transform that brings the units into canonical order, and notes.

    `incoming_alike` says that all incoming norms are 1, so that outgoing ones have to tell units apart.
    """
    if order == "none" or not symmetry.solution.tree:
        return Transform({}, model.name), []
    colours = Colours(model, symmetry)
    motion = colours.run()
    if order == "norm":
        motion = by_norm(model, symmetry, motion, outgoing=incoming_alike)
    elif order == "lexicographic":
        motion = sort_by(model, symmetry, motion, by_entries, outgoing=False)
    elif order == "nodesort":
        motion = sort_by(model, symmetry, motion, partial(by_digits, base=base), outgoing=True)
    return symmetry.action(motion), colours.notes
