"""The verb align: a model moved near another."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onnxcanon.verbs.signature import verb

if TYPE_CHECKING:
    from onnxcanon.alignment import Alignment
    from onnxcanon.choices import AlignedScale, Device, Method, Natural
    from onnxcanon.settings import Progress
    from onnxcanon.verbs.arguments import Data, Labels, ModelSource, Sizes


@verb
def align(
    reference: ModelSource,
    model: ModelSource,
    *,
    method: Method = "weights",
    scale: AlignedScale = "nearest",
    data: Data | None = None,
    labels: Labels | None = None,
    sizes: Sizes | None = None,
    normalize: bool = False,
    device: Device = "auto",
    seed: Natural = 0,
    progress: Progress | None = None,
) -> Alignment:
    """Move a model within its orbit, as close to another as its symmetries allow.

    It stays the same function. Both have one structure; names may differ.

    Args:
        reference: the model that stays.
        model: the model that moves, of the same structure; names may differ.
        method: how units are matched: by their `weights` (Git Re-Basin, generalized), by their `activations`
            on the data, by the `cosine` of incoming weights layer by layer, by the `functional` difference
            they make, or by `annealing` on the loss of the average.
        scale: how scales are chosen: `nearest` for the smallest distance, or the `norms` of the reference's
            units, which is better for averaging.
        data: inputs by name, or an .npz file of them, for methods that run the models; labels `y` for those
            that need a loss.
        labels: the labels, or an .npy file of them, where `data` does not hold any.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        normalize: whether both models are brought to a normal form first, so that exports of one architecture
            by different exporters can be aligned; the result has the graph of the normal form.
        device: where models are run: auto, cpu, cuda or cuda:N.
        seed: the random seed.
        progress: called with a short line before each step that lasts.

    Returns:
        The moved model, evaluated tensor by tensor when it is read or saved, and the transform.

    Raises:
        ModelError: a model cannot be read.
        OnnxcanonError: the models differ in structure or width, there is no such method, or data is missing.
        RuntimeUnavailableError: onnxruntime cannot run a model.
    """
    from onnxcanon.alignment import align as bring
    from onnxcanon.verbs.arguments import opened, settings_for

    first, second = opened(reference), opened(model)
    settings = settings_for(
        first, sizes=sizes, device=device, seed=seed, data=data, labels=labels, progress=progress
    )
    alignment = bring(first, second, method=method, scale=scale, normalize=normalize, settings=settings)
    return replace(alignment, model=alignment.model.with_protected(first, second))
