"""The verb barrier: loss and error between two models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcanon.verbs.signature import verb

if TYPE_CHECKING:
    from onnxcanon.choices import Device, Natural, PathAligner, PathKind, Positive, Repair, TwoOrMore
    from onnxcanon.landscape.barrier import Barrier
    from onnxcanon.settings import Progress
    from onnxcanon.verbs.arguments import Data, Labels, ModelSource, Sizes


@verb
def barrier(
    a: ModelSource,
    b: ModelSource,
    data: Data,
    *,
    labels: Labels | None = None,
    path: PathKind = "linear",
    points: TwoOrMore = 25,
    align: PathAligner = "weights",
    repair: Repair = "none",
    repair_data: Data | None = None,
    output: str | None = None,
    batch: Positive = 256,
    sizes: Sizes | None = None,
    device: Device = "auto",
    seed: Natural = 0,
    progress: Progress | None = None,
) -> Barrier:
    """Measure loss and error on the way from one model to another, before and after alignment.

    The barrier is how far they rise above the line between the ends; measured is also how far above the mean
    of the ends, and above the worse one. A geodesic is the shortest way on the product of spheres on which
    the normalized weights of the units lie.

    Args:
        a: the model at 0.
        b: the model at 1, of the same structure.
        data: inputs by name and the labels `y`, or a file of these, as for `evaluate`.
        labels: the labels, where `data` does not hold any.
        path: the way: `linear`, or `geodesic` on the product of spheres.
        points: how many points, evenly from 0 to 1, ends included.
        align: how `b` is aligned to `a` for the second curve; `none` leaves that out.
        repair: how every point, ends included, is repaired before it is measured: `rescale`, `reset-bn` or
            `none`, as for `merge`.
        repair_data: inputs by name, or a file of them, that statistics are measured on; by default `data`.
        output: the output to judge, by name; by default the first.
        batch: how many examples run at a time where a model takes any number.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        device: where to run: auto, cpu, cuda or cuda:N.
        seed: the random seed of the alignment.
        progress: called with a short line before each step that lasts.

    Raises:
        ModelError: a model cannot be read.
        OnnxcanonError: the models have different structures, the data does not fit, there is no such path,
            alignment or repair, or there are fewer than two points.
        RuntimeUnavailableError: onnxruntime cannot run a model.
    """
    from onnxcanon.landscape.barrier import barrier as measure
    from onnxcanon.verbs.arguments import opened, settings_for
    from onnxcanon.verbs.data import load_data

    first, second = opened(a), opened(b)
    settings = settings_for(
        first, sizes=sizes, device=device, seed=seed, data=data, labels=labels, progress=progress
    )
    return measure(
        first,
        second,
        kind=path,
        points=points,
        method=align,
        repair=repair,
        repair_data=None if repair_data is None else load_data(first, repair_data),
        output=output,
        batch=batch,
        settings=settings,
    )
