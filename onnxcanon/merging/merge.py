"""The whole way from many models to one.

    models -> one graph -> one basis (verified) -> average -> repaired -> judged on the data

Two things make the answer no, and nothing is to be written then: an aligned model that is not the function it
was, and a repair that the models it is made of do not bear themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxcanon.errors import OnnxcanonError, check_choice
from onnxcanon.merging.acceptance import Judged, judge
from onnxcanon.merging.averaging import (
    average,
    kept,
    normalized,
    spelled_as,
)
from onnxcanon.merging.joint_alignment import (
    ALIGNERS,
    CANONICAL,
    NONE,
    TARGETS,
    Gathered,
    gather,
)
from onnxcanon.merging.repair import (
    REPAIRS,
    RESCALE,
    RESET,
    Repaired,
    rescale,
    reset_bn,
)
from onnxcanon.model import Model
from onnxcanon.results import Result
from onnxcanon.settings import Settings
from onnxcanon.text import plural
from onnxcanon.verifying import verify

AVERAGE = "average"
"""What the average is called among the models it is made of."""

Data = Mapping[str, np.ndarray]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, repr=False)
class Merged(Result):
    """The average of models.

    Attributes:
        model: the average, repaired if asked for; graph and metadata are those of the first model. None if
            it was refused.
        models: the names of the models.
        weights: what each contributed; they add up to 1.
        align: how they were aligned.
        to: to what.
        repair: how the average was repaired.
        layers: how many layers were repaired.
        notes: what to know, such as layers that could not be repaired.
        alignments: each model in the basis of the first.
        evaluations: each model, then the average, on the data; without labels only what a reset moves.
        refusal: why there is none; empty if nothing speaks against it.
    """

    model: Model | None
    models: tuple[str, ...]
    weights: tuple[float, ...]
    align: str
    to: str
    repair: str
    layers: int = 0
    notes: tuple[str, ...] = ()
    alignments: tuple[Gathered, ...] = ()
    evaluations: tuple[Judged, ...] = ()
    refusal: str = ""

    @property
    def told(self) -> str:
        """What was done, in a line."""
        unaligned = {NONE: "as they are", CANONICAL: "in canonical form"}
        how = unaligned.get(self.align, f"aligned by {self.align} to the {self.to}")
        repaired = f"; {plural(self.layers, 'layer')} repaired by {self.repair}" if self.layers else ""
        return f"average of {plural(len(self.models), 'model')}, {how}{repaired}"

    def to_json(self) -> dict[str, Any]:
        """What was done, as JSON values."""
        named = ("models", "weights", "align", "to", "repair", "layers", "notes", "refusal")
        aligned = [{"before": a.distance[0], "after": a.distance[1]} for a in self.alignments]
        return {
            **{name: getattr(self, name) for name in named},
            "distances": aligned,
            "evaluations": [judged.to_json() for judged in self.evaluations],
        }

    def __str__(self) -> str:
        lines = [self.told, *(f"  {judged}" for judged in self.evaluations)]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join([*lines, *([f"  refused: {self.refusal}"] if self.refusal else [])])


def merge(
    models: Sequence[Model],
    *,
    weights: Sequence[float] | None = None,
    align: str = "weights",
    to: str = "reference",
    repair: str = "none",
    data: Data | None = None,
    sizes: dict[str, int] | None = None,
    verified: bool = True,
    device: str = "auto",
    seed: int = 0,
    progress: Say | None = None,
) -> Merged:
    """Average models of one structure; `onnxcanon.merge` documents the arguments.

    Raises:
        OnnxcanonError: there is no such way, the models differ in structure or width, or data is missing or
            does not fit.
        RuntimeUnavailableError: a model does not run.
    """
    say = progress or (lambda _: None)
    shares = normalized(weights, len(models))
    _check(models, align, to, repair, data)
    made = Merged(None, tuple(model.name for model in models), shares, align, to, repair)
    alike = [spelled_as(models[0], model) for model in models]
    judged = _judged(models, repair, data, device, say)
    objections = [f"{repair} on this data spoils {told}" for one in judged if (told := one.objection)]
    if objections:
        return replace(made, evaluations=judged, refusal=objections[0])
    found = gather(
        alike,
        shares,
        method=align,
        to=to,
        data=data,
        sizes=sizes,
        rescaled=repair == RESCALE,
        seed=seed,
        device=device,
        say=say,
    )
    made = replace(made, alignments=tuple(found), evaluations=judged)
    if verified:
        refusal = _verified(alike, made, data, sizes, device, seed, say)
        if refusal:
            return replace(made, refusal=refusal)
    plain = average([one.model for one in found], shares)
    if repair == NONE or data is None:
        return _finished(made, plain, None, data, device, say)
    plain = kept(plain)
    if repair == RESET:
        fixed = reset_bn(plain, data, device=device, say=say)
    else:
        fixed = rescale(plain, [one.model for one in found], shares, data, device=device, say=say)
    return _finished(made, plain, fixed, data, device, say)


def _check(models: Sequence[Model], align: str, to: str, repair: str, data: Data | None) -> None:
    """Refuse what is asked for wrongly before any work."""
    for what, given, known in (
        ("alignment", align, ALIGNERS),
        ("target", to, TARGETS),
        ("repair", repair, REPAIRS),
    ):
        check_choice(what, given, known)
    if repair != NONE and data is None:
        raise OnnxcanonError(f"{models[0].name}: repair {repair} measures the models on data; give --data")


def _judged(
    models: Sequence[Model], repair: str, data: Data | None, device: str, say: Say
) -> tuple[Judged, ...]:
    """The models on the data, and what the repair does to each of them alone."""
    out = []
    for model in models if data is not None else ():
        assert data is not None
        say(f"evaluating {model.name}")
        repaired = reset_bn(model, data, device=device, say=say).model if repair == RESET else None
        out.append(judge(model.name, model, repaired, data, device=device))
    return tuple(one for one in out if one is not None)


def _verified(
    models: Sequence[Model],
    made: Merged,
    data: Data | None,
    sizes: dict[str, int] | None,
    device: str,
    seed: int,
    say: Say,
) -> str:
    """Why an aligned model is not the function that it was; empty if all are."""
    settings = Settings(sizes or {}, device, seed, data, say)
    for name, model, moved in zip(made.models, models, made.alignments, strict=True):
        if not moved.transform.changes:
            continue
        say(f"verifying {name}")
        found = verify(model, moved.model, settings)
        if not found.same:
            return f"{name}: aligned, it is another function: {found.reason}"
    return ""


def _finished(
    made: Merged, plain: Model, fixed: Repaired | None, data: Data | None, device: str, say: Say
) -> Merged:
    """The average with all that is to be said of it."""
    model = plain if fixed is None else fixed.model
    notes = () if fixed is None else fixed.notes
    told = made.evaluations
    if data is not None:
        say("evaluating the average")
        own = judge(AVERAGE, plain, None if fixed is None else model, data, device=device)
        told = (*told, *([own] if own is not None else []))
    return replace(made, model=model, notes=notes, evaluations=told, layers=fixed.layers if fixed else 0)
