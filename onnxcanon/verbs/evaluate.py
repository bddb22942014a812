"""The verb evaluate: loss and accuracy on labelled data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxcanon.verbs.signature import verb

if TYPE_CHECKING:
    from onnxcanon.choices import Device, Positive
    from onnxcanon.runtime.evaluation import Evaluation
    from onnxcanon.settings import Progress
    from onnxcanon.verbs.arguments import Data, Labels, ModelSource


@verb
def evaluate(
    models: ModelSource | Sequence[ModelSource],
    data: Data,
    *,
    labels: Labels | None = None,
    ensemble: bool = False,
    output: str | None = None,
    batch: Positive = 256,
    device: Device = "auto",
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Measure loss and accuracy of models on labelled data.

    Integer labels mean cross-entropy, of logits or of probabilities; others mean squared error.

    Args:
        models: a model, or several.
        data: inputs by name and the labels `y`, or an .npz file of these, or a memory-mapped .npy file of the
            only input's values.
        labels: the labels, or an .npy file of them, where `data` does not hold any.
        ensemble: whether the last result is that of the average of all predictions.
        output: the output to judge, by name; by default the first.
        batch: how many examples run at a time where a model takes any number.
        device: where to run: auto, cpu, cuda or cuda:N.
        progress: called with a short line before each step that lasts.

    Raises:
        ModelError: a model cannot be read.
        OnnxcanonError: the data cannot be read, has no labels or does not fit.
        RuntimeUnavailableError: onnxruntime cannot run a model.
    """
    from onnxcanon.errors import OnnxcanonError
    from onnxcanon.runtime.evaluation import evaluate as run
    from onnxcanon.verbs.arguments import all_opened, settings_for

    originals = all_opened(models)
    if not originals:
        raise OnnxcanonError("there is nothing to evaluate; name a model or more")
    settings = settings_for(originals[0], device=device, data=data, labels=labels, progress=progress)
    return run(originals, settings, ensemble=ensemble, output=output, batch=batch)
