"""The verb flatness: the rise of loss and error under noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxcanon.landscape.flatness import Flatness
    from onnxcanon.settings import Progress
    from onnxcanon.verbs.arguments import Data, Labels, ModelSource


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
    from onnxcanon.verbs.arguments import opened, settings_for

    original = opened(model)
    settings = settings_for(
        original, sizes=sizes, device=device, seed=seed, data=data, labels=labels, progress=progress
    )
    assert settings.data is not None
    return measure(
        original,
        settings.data,
        sigmas=SIGMAS if sigmas is None else sigmas,
        draws=draws,
        output=output,
        batch=batch,
        sizes=settings.sizes,
        device=settings.device,
        seed=settings.seed,
        progress=settings.progress,
    )
