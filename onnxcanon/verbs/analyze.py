"""The verb analyze: what may change in a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxcanon.explaining.report import Analysis
    from onnxcanon.verbs.arguments import ModelSource


def analyze(
    model: ModelSource,
    *,
    sizes: Mapping[str, int] | None = None,
    permute_constants: bool = False,
    allow_overridable: bool = False,
) -> Analysis:
    """Find what may change in a model without changing its function.

    Args:
        model: the model; its weights are not changed, and hardly read.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        permute_constants: whether constants that are data (masks, tables, frequencies) may move like weights.
        allow_overridable: whether constants that are graph inputs too, so the caller's, may.

    Raises:
        ModelError: the model cannot be read.
    """
    from onnxcanon.explaining.report import analyze as explain
    from onnxcanon.verbs.arguments import opened, settings_for

    original = opened(model)
    return explain(
        original,
        sizes=settings_for(original, sizes=sizes).sizes,
        permute_constants=permute_constants,
        allow_overridable=allow_overridable,
    )
