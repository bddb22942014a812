"""The verb merge: the average of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from onnxcanon.verbs.signature import verb

if TYPE_CHECKING:
    from onnxcanon.choices import Aligner, Device, Natural, Repair, Target
    from onnxcanon.merging import Merged
    from onnxcanon.settings import Progress
    from onnxcanon.verbs.arguments import Data, Labels, ModelSource, Shares, Sizes


@verb
def merge(
    models: ModelSource | Sequence[ModelSource],
    *more: ModelSource,
    weights: Shares | None = None,
    align: Aligner = "weights",
    to: Target = "reference",
    repair: Repair = "none",
    data: Data | None = None,
    labels: Labels | None = None,
    sizes: Sizes | None = None,
    normalize: bool = False,
    verify: bool = True,
    device: Device = "auto",
    seed: Natural = 0,
    progress: Progress | None = None,
) -> Merged:
    """Average models of one structure: align, average, repair.

    Units are matched first, or the average of two trainings is worth little; models that come from one
    training need no matching. Averaging loses variance, which a repair gives back.

    Args:
        models: the models, or the first of them; the average takes graph, names and metadata of the first.
        more: the others, where they are not given as a list.
        weights: what each contributes, in any unit; by default all the same.
        align: how units are matched: a method of `onnxcanon.align`; `canonical` averages canonical forms;
            `none` averages the models as they are, right for checkpoints of one training (SWA).
        to: what models are aligned to: the `reference`, which is the first; the `mean` of the others, again
            and again; or a `universe`, the same from whichever model is the best to start from. Annealing to
            either moves all models at once, and judges the average of all as it will be rescaled.
        repair: how the statistics that averaging shrinks are set anew on `data`: `rescale` (REPAIR: mean and
            deviation of every channel as those of the models), `reset-bn` (running statistics of every
            BatchNormalization), or `none`.
        data: inputs by name, or an .npz file of them; with labels `y` all models and the average are
            evaluated.
        labels: the labels, or an .npy file of them, where `data` does not hold any.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        normalize: whether all models are brought to a normal form first, as in `align`.
        verify: whether to run each model beside itself aligned, and refuse if they differ.
        device: where models are run: auto, cpu, cuda or cuda:N.
        seed: the random seed.
        progress: called with a short line before each step that lasts.

    Returns:
        The average, evaluated tensor by tensor when it is read or saved; where something speaks against it,
        `refusal` says what, and `model` is None.

    Raises:
        ModelError: a model cannot be read.
        OnnxcanonError: the models differ in structure or width, or hold quantized weights; there is no such
            way; or data is missing or does not fit.
        RuntimeUnavailableError: onnxruntime cannot run a model.
    """
    from onnxcanon.alignment import in_normal_form
    from onnxcanon.errors import OnnxcanonError
    from onnxcanon.merging import merge as average
    from onnxcanon.verbs.arguments import all_opened, settings_for

    originals = all_opened(models, *more)
    if not originals:
        raise OnnxcanonError("there is nothing to average; name a model or more")
    settings = settings_for(
        originals[0], sizes=sizes, device=device, seed=seed, data=data, labels=labels, progress=progress
    )
    merged = average(
        in_normal_form(originals, settings.sizes) if normalize else originals,
        weights=weights,
        align=align,
        to=to,
        repair=repair,
        verified=verify,
        settings=settings,
    )
    return merged if merged.model is None else replace(merged, model=merged.model.with_protected(*originals))
