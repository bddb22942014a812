"""Alignment as merging uses it: scales that keep the norms of the reference."""

from __future__ import annotations

from typing import Any

from onnxcanon.alignment import Alignment
from onnxcanon.alignment import align as align_pair
from onnxcanon.model import Model
from onnxcanon.settings import Settings


def align(
    reference: Model, model: Model, *, method: Any = "weights", scale: Any = "norms", **settings: Any
) -> Alignment:
    """One model aligned to another; what is not named here are settings."""
    return align_pair(reference, model, method=method, scale=scale, settings=Settings(**settings))
