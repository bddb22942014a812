"""Which tensor of one model plays the part of which tensor of another, by structure alone."""

from __future__ import annotations

from onnxcanon.canonical.digest import constant_uses
from onnxcanon.model import Model

Pair = tuple[str, str]
"""A tensor of the first model and its counterpart in the second."""


def correspondence(a: Model, b: Model, *, versions: bool = True) -> list[Pair] | None:
    """The constants that matter to an output with their counterparts; None where the graphs differ.

    Where one model stores once what the other stores several times it stands in several pairs. Operators of
    different versions are different unless `versions` is false, as for normal forms, which are spelled so
    that all recent versions mean the same.
    """
    ours, theirs = constant_uses(a, versions=versions), constant_uses(b, versions=versions)
    if [role.reader for role in ours] != [role.reader for role in theirs]:
        return None
    pairs: dict[Pair, None] = {}
    for one, other in zip(ours, theirs, strict=True):
        for name, counterpart in zip(one.constants, other.constants, strict=True):
            if name is not None and counterpart is not None:
                pairs[name, counterpart] = None
            elif name != counterpart:
                return None
    return list(pairs)
