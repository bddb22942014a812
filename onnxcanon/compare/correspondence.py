"""Which tensor of one model plays the part of which tensor of another, by structure alone."""

from __future__ import annotations

from onnxcanon.canonical.digest import roles
from onnxcanon.model import Model

Pairs = dict[str, str]
"""Tensors of the second model by the name of their counterpart in the first."""


def correspondence(a: Model, b: Model) -> Pairs | None:
    """The counterparts of all constants that matter to an output.

    None where the graphs differ, or where one of them stores apart what the other stores once: then no single
    tensor is the counterpart.
    """
    ours, theirs = roles(a), roles(b)
    if [role.reader for role in ours] != [role.reader for role in theirs]:
        return None
    pairs: Pairs = {}
    back: dict[str, str] = {}
    for one, other in zip(ours, theirs, strict=True):
        for name, counterpart in zip(one.constants, other.constants, strict=True):
            if (name is None) != (counterpart is None):
                return None
            if name is None or counterpart is None:
                continue
            if (
                pairs.setdefault(name, counterpart) != counterpart
                or back.setdefault(counterpart, name) != name
            ):
                return None
    return pairs
