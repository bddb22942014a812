"""Merging: models of one structure aligned, averaged and repaired."""

from __future__ import annotations

from onnxcanon.merging.judging import Judged
from onnxcanon.merging.merged import Merged, merge

__all__ = ["Judged", "Merged", "merge"]
