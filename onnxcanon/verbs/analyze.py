"""The verb analyze: what may change in a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcanon.verbs.signature import verb

if TYPE_CHECKING:
    from onnxcanon.explaining.analysis import Analysis
    from onnxcanon.settings import Progress
    from onnxcanon.verbs.arguments import ModelSource, Sizes


@verb
def analyze(
    model: ModelSource,
    *,
    sizes: Sizes | None = None,
    permute_constants: bool = False,
    allow_overridable: bool = False,
    progress: Progress | None = None,
) -> Analysis:
    """Show what may change in a model without changing its function, and why not the rest.

    Every hidden dimension is listed: its size, what it may do, where it appears. It may permute (its
    positions change places), scale (by positive factors) or flip (signs).

    Args:
        model: the model; its weights are not changed, and hardly read.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        permute_constants: whether constants that are data (masks, tables, frequencies) may move too.
        allow_overridable: whether constants that are graph inputs too, so the caller's, may move.
        progress: called with a short line before each step that lasts.

    Raises:
        ModelError: the model cannot be read.
    """
    from onnxcanon.explaining.description import describe
    from onnxcanon.symmetry import symmetry
    from onnxcanon.verbs.arguments import opened, settings_for

    original = opened(model)
    settings = settings_for(original, sizes=sizes, progress=progress)
    settings.progress(f"analyzing {original.name}")
    group = symmetry(
        original,
        settings.sizes,
        permute_constants=permute_constants,
        allow_overridable=allow_overridable,
    )
    return describe(original, group)
