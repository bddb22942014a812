"""The verb flatness: the rise of loss and error under noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcanon.verbs.signature import verb

if TYPE_CHECKING:
    from onnxcanon.choices import Device, Natural, Positive, TwoOrMore
    from onnxcanon.landscape.flatness import Flatness
    from onnxcanon.settings import Progress
    from onnxcanon.verbs.arguments import Data, Labels, ModelSource, Sizes, Strengths


@verb
def flatness(
    model: ModelSource,
    data: Data,
    *,
    labels: Labels | None = None,
    sigmas: Strengths | None = None,
    draws: TwoOrMore = 10,
    output: str | None = None,
    batch: Positive = 256,
    sizes: Sizes | None = None,
    device: Device = "auto",
    seed: Natural = 0,
    progress: Progress | None = None,
) -> Flatness:
    """Measure how loss and error rise under noise on the weights.

    The weights are normalized first (incoming weights of every unit have norm 1), so that all scalings of one
    function are equally flat; then each is multiplied by 1 + s z, with z standard normal.

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
        seed: the random seed of the noise.
        progress: called with a short line before each step that lasts.

    Raises:
        ModelError: the model cannot be read.
        OnnxcanonError: the data does not fit, a strength is negative, or there are fewer than two draws.
        RuntimeUnavailableError: onnxruntime cannot run the model.
    """
    from onnxcanon.landscape.flatness import SIGMAS
    from onnxcanon.landscape.flatness import flatness as measure
    from onnxcanon.verbs.arguments import opened, settings_for

    original = opened(model)
    settings = settings_for(
        original, sizes=sizes, device=device, seed=seed, data=data, labels=labels, progress=progress
    )
    return measure(
        original,
        sigmas=SIGMAS if sigmas is None else sigmas,
        draws=draws,
        output=output,
        batch=batch,
        settings=settings,
    )
