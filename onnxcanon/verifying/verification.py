"""What a comparison of two models found: typed, printable, JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from onnxcanon.results import Result
from onnxcanon.text import plural
from onnxcanon.verifying.differences import OutputDifference

SMOOTH_LABEL = "(without rounding)"
"""Marks values of the two models without their rounding to integers."""


@dataclass(frozen=True, slots=True, repr=False)
class Verification(Result):
    """What a comparison of two models found.

    Attributes:
        same: whether every value compared agrees; False means that a difference was seen.
        outputs: the differences by output; "(before Softmax)" and the like mark values ahead of an output,
            "(without rounding)" those of quantized models with their rounding to integers taken out.
        kinds: the kinds of inputs run, or "data".
        runs: how many sets of inputs.
        device: where both ran.
        reason: the verdict in a sentence.
        skipped: what could not be compared, and why.
    """

    same: bool
    outputs: dict[str, OutputDifference]
    kinds: tuple[str, ...]
    runs: int
    device: str
    reason: str
    skipped: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON values; an infinite difference becomes None."""
        document: dict[str, Any] = asdict(self)
        document["kinds"] = list(self.kinds)
        for row in document["outputs"].values():
            row.update({key: None for key, value in row.items() if value == math.inf})
        return document

    def __str__(self) -> str:
        lines = [f"{'same' if self.same else 'different'}: {self.reason}"]
        width = max((len(name) for name in self.outputs), default=0)
        for name, row in self.outputs.items():
            mark = "" if row.same else f"  DIFFERENT on {row.kind}"
            lines.append(
                f"  {name:{width}}  deviates {row.max_relative_difference:7.1e}, allowed {row.tolerance:.1e},"
                f" noise {row.noise_floor:.1e}{mark}"
            )
        return "\n".join([*lines, *(f"  {name}  not compared: {why}" for name, why in self.skipped.items())])


def verdict(
    outputs: Mapping[str, OutputDifference],
    smooth: Mapping[str, OutputDifference],
    kinds: tuple[str, ...],
    runs: int,
    device: str,
    skipped: Mapping[str, str],
) -> Verification:
    """Sums up the differences: the one furthest beyond what is allowed is named.

    Args:
        outputs: the differences by label.
        smooth: those of the models without their rounding to integers, if they round.
        kinds: the kinds of inputs.
        runs: how many sets of inputs.
        device: where both ran.
        skipped: what could not be compared, and why.
    """
    outputs = {**outputs, **{f"{label} {SMOOTH_LABEL}": row for label, row in smooth.items()}}
    name, worst = max(outputs.items(), key=lambda item: _excess(item[1]))
    same = all(row.same for row in outputs.values())
    if same:
        reason = f"{plural(len(outputs), 'value')} compared in {plural(runs, 'run')}; the largest deviation"
        reason += f" is {worst.max_relative_difference:.1e} where {worst.tolerance:.1e} is allowed ({name!r})"
    elif math.isfinite(worst.max_relative_difference):
        reason = (
            f"{name!r} deviates by {worst.max_relative_difference:.1e} of its size on {worst.kind} inputs;"
        )
        reason += f" {worst.tolerance:.1e} is allowed"
    else:
        reason = f"{name!r} has another shape, or infinities or NaNs elsewhere, on {worst.kind} inputs"
    if same and smooth:
        apart = max(row.max_relative_difference for row in smooth.values())
        reason += f"; without rounding to integers it is at most {apart:.1e}"
    if skipped:
        reason += f"; {plural(len(skipped), 'value')} not compared"
    return Verification(same, dict(outputs), kinds, runs, device, reason, dict(skipped))


def _excess(row: OutputDifference) -> tuple[bool, float]:
    ratio = row.max_relative_difference / row.tolerance if row.tolerance else row.max_relative_difference
    return not row.same, ratio
