"""The verb verify: two models on the same inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcanon.verbs.signature import verb

if TYPE_CHECKING:
    from onnxcanon.choices import Device, Natural, NonNegative
    from onnxcanon.settings import Progress
    from onnxcanon.verbs.arguments import Data, ModelSource, Sizes
    from onnxcanon.verifying.verification import Verification


@verb
def verify(
    a: ModelSource,
    b: ModelSource,
    *,
    device: Device = "auto",
    seed: Natural = 0,
    data: Data | None = None,
    rtol: NonNegative | None = None,
    sizes: Sizes | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Run two models on the same inputs in onnxruntime and compare every output.

    Args:
        a: the reference: what rounding alone does to it is the tolerance.
        b: the model to compare with it.
        device: where to run them: auto, cpu, cuda or cuda:N.
        seed: the random seed of the inputs.
        data: inputs by name, or an .npz file of them, instead of drawn ones.
        rtol: a tolerance relative to each output's size, instead of the measured one.
        sizes: sizes of dynamic dimensions by name.
        progress: called with a short line before each step that lasts.

    Raises:
        ModelError: a model cannot be read.
        RuntimeUnavailableError: onnxruntime cannot run a model.
    """
    from onnxcanon.verbs.arguments import opened, settings_for
    from onnxcanon.verifying import verify as run_both

    first, second = opened(a), opened(b)
    settings = settings_for(first, sizes=sizes, device=device, seed=seed, data=data, progress=progress)
    return run_both(first, second, settings, rtol)
