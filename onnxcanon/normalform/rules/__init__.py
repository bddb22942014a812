"""The rules, by family. Importing a family enters its rules."""

from importlib import import_module

from onnxcanon.normalform.rules.registry import FAMILIES, RULES, UPGRADES

for _family in FAMILIES:
    import_module(f"{__name__}.{_family}")

__all__ = ["FAMILIES", "RULES", "UPGRADES"]
