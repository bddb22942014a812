"""The verb compare: are these the same model?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcanon.verbs.signature import verb

if TYPE_CHECKING:
    from onnxcanon.choices import Device, Natural, NonNegative
    from onnxcanon.comparison import Comparison
    from onnxcanon.settings import Progress
    from onnxcanon.verbs.arguments import Data, ModelSource, Sizes


@verb
def compare(
    a: ModelSource,
    b: ModelSource,
    *,
    rtol: NonNegative | None = None,
    sizes: Sizes | None = None,
    device: Device = "auto",
    seed: Natural = 0,
    data: Data | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Tell whether two models are the same, and how.

    Graphs are matched by structure, in normal form if they are spelled differently; parameters by the map
    that takes one model to the other. Only where there is none are the models run. The verdicts are,
    strongest first:

      identical   every parameter is equal bit for bit
      symmetric   equal after a permutation, scale or sign map
      equivalent  the graphs differ in ways that keep the function, the parameters agree as above
      close       no map was found, but the outputs agree on every probe
      different   none of these

    Args:
        a: the first model.
        b: the second model.
        rtol: how near outputs have to be to be `close`, relative to each output's size; by default as near as
            rounding alone brings them.
        sizes: sizes of dynamic dimensions by name, where a graph works only for some.
        device: where models are run: auto, cpu, cuda or cuda:N.
        seed: the random seed of the inputs.
        data: inputs for that by name, or an .npz file of them, instead of drawn ones.
        progress: called with a short line before each step that lasts.

    Raises:
        ModelError: a model cannot be read.
    """
    from onnxcanon.comparison import compare as judge
    from onnxcanon.verbs.arguments import opened, settings_for

    first, second = opened(a), opened(b)
    settings = settings_for(first, sizes=sizes, device=device, seed=seed, data=data, progress=progress)
    return judge(first, second, rtol=rtol, settings=settings)
