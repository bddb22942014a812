"""The two sets of rules, tried one after the other."""

from onnxcanon.normalform.engine import Rules

UPGRADES = Rules()
"""From the spelling of older operator sets to the one that all other rules read."""

RULES = Rules()
"""To the normal form."""
