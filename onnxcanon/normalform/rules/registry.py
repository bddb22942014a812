"""The two sets of rules, tried one after the other, and the order of their families."""

from onnxcanon.normalform.engine import Rules

FAMILIES = (
    "arithmetic",
    "constants",
    "control",
    "fused",
    "contraction",
    "rearrangement",
    "normalization",
    "slicing",
    "packing",
    "recurrent",
    "sizes",
    "spatial",
    "synonyms",
    "upgrades",
)
"""The files of this package, in the order in which their rules are tried: normal forms depend on it."""

UPGRADES = Rules("upgrades", FAMILIES)
"""From the forms of older operator sets to those that all other rules read."""

RULES = Rules("normal forms", FAMILIES)
"""To the normal form."""
