"""Merging: models of one structure aligned, averaged and repaired."""

from __future__ import annotations

from onnxcanon.merging.acceptance import RepairEffect
from onnxcanon.merging.merge import Merged, merge

__all__ = ["Merged", "RepairEffect", "merge"]
