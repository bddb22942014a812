"""The verb sketch: a few kilobytes that find a changed copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcanon.verbs.signature import verb

if TYPE_CHECKING:
    from onnxcanon.canonical.sketch import Sketch
    from onnxcanon.settings import Progress
    from onnxcanon.verbs.arguments import ModelSource, Sizes


@verb
def sketch(model: ModelSource, *, sizes: Sizes | None = None, progress: Progress | None = None) -> Sketch:
    """A few kilobytes by which copies of a model are found again that were rescaled or changed a little.

    Args:
        model: the model; its weights are read parameter by parameter.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        progress: called with a short line before each step that lasts.

    Raises:
        ModelError: the model cannot be read.
    """
    from onnxcanon.canonical.sketch import sketch as draw
    from onnxcanon.verbs.arguments import opened, settings_for

    original = opened(model)
    settings = settings_for(original, sizes=sizes, progress=progress)
    settings.progress(f"sketching {original.name}")
    return draw(original, settings)
