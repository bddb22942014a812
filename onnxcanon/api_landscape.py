"""The verbs that look around models, as functions; a part of `api`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from onnxcanon.api import (
    Data,
    Labels,
    ModelSource,
    Progress,
    _given,
    _known,
    _labelled,
)
from onnxcanon.model import load

if TYPE_CHECKING:
    from onnxcanon.landscape.barrier import Barrier
    from onnxcanon.landscape.distance import Distances
    from onnxcanon.landscape.flatness import Flatness

__all__ = ["barrier", "distance", "flatness"]


def barrier(
    a: ModelSource,
    b: ModelSource,
    data: Data,
    *,
    labels: Labels | None = None,
    path: str = "linear",
    points: int = 25,
    align: str = "weights",
    repair: str = "none",
    repair_data: Data | None = None,
    output: str | None = None,
    batch: int = 256,
    sizes: Mapping[str, int] | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Barrier:
    """Loss and error along the path between two models, and the barrier, before and after alignment.

    Args:
        a: the model at 0.
        b: the model at 1, of the same structure.
        data: inputs by name and the labels `y`, or a file of these, as for `evaluate`.
        labels: the labels, where `data` does not hold any.
        path: `linear`, or `geodesic` on the product of spheres.
        points: how many points, evenly from 0 to 1, ends included.
        align: how `b` is aligned to `a` for the second curve; `none` leaves that out.
        repair: how every point, ends included, is repaired before it is measured: `rescale`, `reset-bn` or
            `none`, as for `merge`.
        repair_data: inputs by name, or a file of them, that statistics are measured on; by default `data`.
        output: the output to judge, by name; by default the first.
        batch: how many examples run at a time where a model takes any number.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        device: where to run: auto, cpu, cuda or cuda:N.
        seed: what chance in the alignment is drawn from.
        progress: called with a short line before each step that lasts.

    Raises:
        ModelError: a model cannot be read.
        OnnxcanonError: the models have different structures, the data does not fit, there is no such path,
            alignment or repair, or there are fewer than two points.
        RuntimeUnavailableError: onnxruntime cannot run a model.
    """
    from onnxcanon.landscape.barrier import barrier as measure

    first, second = load(a), load(b)
    return measure(
        first,
        second,
        _labelled(first, data, labels),
        kind=path,
        points=points,
        method=align,
        repair=repair,
        repair_data=_given(first, repair_data),
        output=output,
        batch=batch,
        sizes=_known(first, sizes),
        device=device,
        seed=seed,
        progress=progress,
    )


def flatness(
    model: ModelSource,
    data: Data,
    *,
    labels: Labels | None = None,
    sigmas: Sequence[float] | None = None,
    draws: int = 10,
    output: str | None = None,
    batch: int = 256,
    sizes: Mapping[str, int] | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Flatness:
    """The mean rise of loss and error under multiplicative noise on the normalized weights.

    Args:
        model: the model.
        data: inputs by name and the labels `y`, or a file of these, as for `evaluate`.
        labels: the labels, where `data` does not hold any.
        sigmas: strengths of the noise, relative to each weight; by default 0.05, 0.1, 0.2 and 0.5.
        draws: how often noise is drawn for each, two times or more.
        output: the output to judge, by name; by default the first.
        batch: how many examples run at a time where the model takes any number.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        device: where to run: auto, cpu, cuda or cuda:N.
        seed: what the noise is drawn from.
        progress: called with a short line before each step that lasts.

    Raises:
        ModelError: the model cannot be read.
        OnnxcanonError: the data does not fit, a strength is negative, or there are fewer than two draws.
        RuntimeUnavailableError: onnxruntime cannot run the model.
    """
    from onnxcanon.landscape.flatness import SIGMAS
    from onnxcanon.landscape.flatness import flatness as measure

    original = load(model)
    return measure(
        original,
        _labelled(original, data, labels),
        sigmas=SIGMAS if sigmas is None else sigmas,
        draws=draws,
        output=output,
        batch=batch,
        sizes=_known(original, sizes),
        device=device,
        seed=seed,
        progress=progress,
    )


def distance(
    models: Sequence[ModelSource],
    *,
    align: str = "weights",
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
    from onnxcanon.landscape.distance import distance as measure

    opened = [load(model) for model in models]
    known = _known(opened[0], sizes) if opened else None
    return measure(
        opened,
        method=align,
        data=_given(opened[0], data) if opened else None,
        sizes=known,
        device=device,
        seed=seed,
        progress=progress,
    )
