"""The choice of order: the hash order makes it canonical, then siblings are sorted by a readable key."""

from __future__ import annotations

from functools import partial

from onnxcanon.canonical.hash_order import hash_order
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
    permutation, notes = hash_order(model, symmetry)
    if order == "norm":
        permutation = by_norm(model, symmetry, permutation, outgoing=incoming_alike)
    elif order == "lexicographic":
        permutation = sort_by(model, symmetry, permutation, by_entries, outgoing=False)
    elif order == "nodesort":
        permutation = sort_by(model, symmetry, permutation, partial(by_digits, base=base), outgoing=True)
    return symmetry.action(permutation), notes
