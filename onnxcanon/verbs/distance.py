"""The verb distance: how far models are from each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxcanon.verbs.signature import verb

if TYPE_CHECKING:
    from onnxcanon.choices import Device, Method, Natural
    from onnxcanon.landscape.distance import Distances
    from onnxcanon.settings import Progress
    from onnxcanon.verbs.arguments import Data, ModelSource, Sizes


@verb
def distance(
    models: ModelSource | Sequence[ModelSource],
    *more: ModelSource,
    align: Method = "weights",
    data: Data | None = None,
    sizes: Sizes | None = None,
    device: Device = "auto",
    seed: Natural = 0,
    progress: Progress | None = None,
) -> Distances:
    """Measure how far models of one structure are from each other, pair by pair.

      raw        between the weights as stored
      canonical  between the canonical forms
      aligned    between the canonical form of one and the other aligned to it
      spherical  on the product of spheres of the normalized weights, after alignment

    Args:
        models: two or more models of one structure, or the first of them.
        more: the others, where they are not given as a list.
        align: how a model is aligned to another.
        data: inputs by name, or an .npz file of them, where the alignment runs models.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        device: where to run then: auto, cpu, cuda or cuda:N.
        seed: the random seed of the alignment.
        progress: called with a short line before each step that lasts.

    Raises:
        ModelError: a model cannot be read.
        OnnxcanonError: the models have different structures, there is only one, there is no such alignment,
            or the data it needs is missing.
    """
    from onnxcanon.errors import OnnxcanonError
    from onnxcanon.landscape.distance import distance as measure
    from onnxcanon.verbs.arguments import all_opened, settings_for

    originals = all_opened(models, *more)
    if len(originals) < 2:
        raise OnnxcanonError("distances are between models; name two or more")
    settings = settings_for(originals[0], sizes=sizes, device=device, seed=seed, data=data, progress=progress)
    return measure(originals, method=align, settings=settings)
