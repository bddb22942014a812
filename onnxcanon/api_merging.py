"""The verbs that bring models together, as functions: align and merge; a part of `api`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx

from onnxcanon.api import (
    Data,
    Labels,
    ModelSource,
    Progress,
    _given,
    _known,
)
from onnxcanon.errors import OnnxcanonError
from onnxcanon.model import Model, load

if TYPE_CHECKING:
    from onnxcanon.alignment import Alignment
    from onnxcanon.merging import Merged

__all__ = ["align", "merge"]


def align(
    reference: ModelSource,
    model: ModelSource,
    *,
    method: str = "weights",
    scale: str = "nearest",
    data: Data | None = None,
    labels: Labels | None = None,
    sizes: Mapping[str, int] | None = None,
    normalize: bool = False,
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Alignment:
    """Move a model within its orbit as close to another as can be: units, heads, scales and signs.

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
        seed: what chance is drawn from.
        progress: called with a short line before each step that lasts.

    Returns:
        The moved model, evaluated tensor by tensor when it is read or saved, and the transform.

    Raises:
        ModelError: a model cannot be read.
        OnnxcanonError: the models differ in structure or width, there is no such method, or data is missing.
        RuntimeUnavailableError: onnxruntime cannot run a model.
    """
    from onnxcanon.alignment import align as bring

    first, second = load(reference), load(model)
    known = _given(first, data, labels)
    found = bring(
        first,
        second,
        method=method,
        scale=scale,
        data=known,
        sizes=_known(first, sizes),
        normalize=normalize,
        device=device,
        seed=seed,
        progress=progress,
    )
    return replace(found, model=found.model.guarding(first, second))


def merge(
    models: Sequence[ModelSource],
    *,
    weights: Sequence[float] | None = None,
    align: str = "weights",
    to: str = "reference",
    repair: str = "none",
    data: Data | None = None,
    labels: Labels | None = None,
    sizes: Mapping[str, int] | None = None,
    normalize: bool = False,
    verify: bool = True,
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Merged:
    """Average models of one structure: aligned first, repaired after.

    Args:
        models: the models; the average takes graph, names and metadata of the first.
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
        seed: what chance is drawn from.
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
    from onnxcanon.merging import merge as average

    if isinstance(models, str | os.PathLike | onnx.ModelProto | Model):
        models = [models]
    loaded = opened = [load(model) for model in models]
    if not opened:
        raise OnnxcanonError("there is nothing to average; name a model or more")
    if normalize:
        from onnxcanon.alignment import normalized

        opened = normalized(opened, _known(opened[0], sizes))
    known = _given(opened[0], data, labels)
    found = average(
        opened,
        weights=weights,
        align=align,
        to=to,
        repair=repair,
        data=known,
        sizes=_known(opened[0], sizes),
        verified=verify,
        device=device,
        seed=seed,
        progress=progress,
    )
    return found if found.model is None else replace(found, model=found.model.guarding(*loaded))
