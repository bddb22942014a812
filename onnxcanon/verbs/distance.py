"""The verb distance: how far models are from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxcanon.choices import Method
    from onnxcanon.landscape.distance import Distances
    from onnxcanon.settings import Progress
    from onnxcanon.verbs.arguments import Data, ModelSource


def distance(
    models: Sequence[ModelSource],
    *,
    align: Method = "weights",
    data: Data | None = None,
    sizes: Mapping[str, int] | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Distances:
    """Pairwise distances of models: raw, canonical, aligned, and on the product of spheres.

    Args:
        models: two or more models of one structure.
        align: how a model is aligned to another.
        data: inputs by name, or an .npz file of them, where the alignment runs models.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        device: where to run then: auto, cpu, cuda or cuda:N.
        seed: what chance in the alignment is drawn from.
        progress: called with a short line before each step that lasts.

    Raises:
        ModelError: a model cannot be read.
        OnnxcanonError: the models have different structures, there is only one, there is no such alignment,
            or the data it needs is missing.
    """
    from onnxcanon.errors import OnnxcanonError
    from onnxcanon.landscape.distance import distance as measure
    from onnxcanon.verbs.arguments import all_opened, settings_for

    originals = all_opened(models)
    if len(originals) < 2:
        raise OnnxcanonError("distances are between models; name two or more")
    settings = settings_for(originals[0], sizes=sizes, device=device, seed=seed, data=data, progress=progress)
    return measure(
        originals,
        method=align,
        data=settings.data,
        sizes=settings.sizes,
        device=settings.device,
        seed=settings.seed,
        progress=settings.progress,
    )
