"""The rules, by family. Importing a family enters its rules."""

from onnxcanon.normalform.rules import (
    arithmetic,
    constants,
    contraction,
    control,
    fused,
    normalization,
    packing,
    rearrangement,
    recurrent,
    sizes,
    slicing,
    spatial,
    spelling,
    upgrades,
)
from onnxcanon.normalform.rules.registry import RULES, UPGRADES

FAMILIES = (
    arithmetic, constants, contraction, control, fused, normalization, packing,
    rearrangement, recurrent, sizes, slicing, spatial, spelling, upgrades,
)  # fmt: skip

__all__ = ["FAMILIES", "RULES", "UPGRADES"]
