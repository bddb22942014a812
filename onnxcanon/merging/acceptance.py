"""The acceptance check: the effect of a repair on the average, and on the models themselves.

Resetting BatchNormalization on data unlike that of training spoils every model, the average included. So the
models go through the same repair first, and if it spoils one of them, the repair is refused. (Rescaling
does not change a single model, by construction.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxcanon.merging.channel_statistics import ChannelStatistics
from onnxcanon.model import Model
from onnxcanon.runtime.batches import batches
from onnxcanon.runtime.evaluation import LABELS, Evaluation, evaluate
from onnxcanon.runtime.inputs import input_specs
from onnxcanon.runtime.sessions import open_session
from onnxcanon.settings import Settings

ALLOWED_FALL = 0.02
"""How much accuracy a model may lose by a repair that is accepted for an average."""

ALLOWED_MOVEMENT = 0.5
"""How far outputs may move by it, relative to their deviation over the data, where accuracy is not known.
Statistics of training images move those of a small ResNet by 0.06, of 32 of them by 0.25, of noise by 2."""


@dataclass(frozen=True, slots=True)
class RepairEffect:
    """A model before and after a repair, on the data of the repair.

    Attributes:
        model: its name.
        before: loss and accuracy, where the data has labels.
        after: those of the repaired model; None where it was not repaired.
        moved: how far the repair moved the outputs, relative to their deviation over the data; None where it
            was not repaired, or accuracy is known.
    """

    model: str
    before: Evaluation | None = None
    after: Evaluation | None = None
    moved: float | None = None

    @property
    def objection(self) -> str:
        """Why the repair is not fit for this model; empty if it is."""
        if self.moved is not None and self.moved > ALLOWED_MOVEMENT:
            limit = f"{ALLOWED_MOVEMENT} is allowed"
            return f"{self.model}: outputs move by {self.moved:.2f} of their deviation, {limit}"
        if self.before is None or self.after is None:
            return ""
        was, now = self.before.accuracy, self.after.accuracy
        if was is None or now is None or was - now <= ALLOWED_FALL:
            return ""
        return f"{self.model}: accuracy falls from {was:.4f} to {now:.4f}, {ALLOWED_FALL} is allowed"

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON values."""
        before, after = (None if one is None else one.to_json() for one in (self.before, self.after))
        return {"model": self.model, "before": before, "after": after, "output_movement": self.moved}

    def __str__(self) -> str:
        steps = [one for one in (self.before, self.after) if one is not None]
        parts = []
        if steps and steps[0].accuracy is not None:
            parts.append("accuracy " + " -> ".join(f"{one.accuracy:.4f}" for one in steps))
        if steps:
            parts.append(f"{steps[0].measure} " + " -> ".join(f"{one.loss:.4g}" for one in steps))
        if self.moved is not None:
            parts.append(f"outputs moved by {self.moved:.2f} of their deviation")
        return "  ".join([*parts, self.model])


def effect_of_repair(
    name: str, model: Model, repaired: Model | None, settings: Settings
) -> RepairEffect | None:
    """How a model does on data, and repaired; None where the data has no labels and there is no repair.

    Raises:
        OnnxcanonError: the data does not fit.
        RuntimeUnavailableError: the model does not run.
    """
    before = after = movement = None
    if LABELS in (settings.data or {}):
        before = _evaluation(name, model, settings)
        after = None if repaired is None else _evaluation(name, repaired, settings)
    if repaired is not None and (before is None or before.accuracy is None):
        movement = output_movement(model, repaired, settings)
    if before is None and movement is None:
        return None
    return RepairEffect(name, before, after, movement)


def _evaluation(name: str, model: Model, settings: Settings) -> Evaluation:
    return replace(evaluate([model], Settings(device=settings.device, data=settings.data))[0], model=name)


def output_movement(a: Model, b: Model, settings: Settings) -> float:
    """The root mean square difference of the floating outputs of two models, relative to the deviation of the
    first model's over the data; of the output that moves most."""
    device, data = settings.device, settings.data or {}
    spread: dict[str, ChannelStatistics] = {}
    gaps: dict[str, float] = {}
    with (
        open_session(a, device=device, optimize=True) as one,
        open_session(b, device=device, optimize=True) as two,
    ):
        for inputs in batches(input_specs(a.ir, any_type=True), data, one.run):
            after = two.run(inputs)
            for name, array in one.run(inputs).items():
                if array.dtype.kind != "f" or not array.ndim or name not in after:
                    continue
                spread.setdefault(name, ChannelStatistics()).add(array, -1)
                gap = after[name].astype(np.float64) - array
                gaps[name] = gaps.get(name, 0.0) + float((gap**2).sum())
    tiny = np.finfo(np.float64).tiny
    parts = [
        (gaps[name] / max(float(moments.squares.sum()), tiny)) ** 0.5 for name, moments in spread.items()
    ]
    return max(parts, default=0.0)
