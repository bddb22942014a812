"""From many models to one, each step entered once:

    models -> one graph -> joint alignment (verified) -> average -> repair -> evaluation

Two things make the answer no: an aligned model that computes another function, and a repair that spoils the
models themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from onnxcanon.choices import ALIGNERS, REPAIRS, TARGETS, Aligner, Repair, Target
from onnxcanon.errors import OnnxcanonError, check_choice
from onnxcanon.merging.acceptance import RepairEffect, effect_of_repair
from onnxcanon.merging.averaging import average, expressed_in, in_memory, shares_of
from onnxcanon.merging.joint_alignment import CANONICAL, NONE, AlignedModel, align_jointly
from onnxcanon.merging.repair import RESCALE, RESET, RepairResult, rescale, reset_bn
from onnxcanon.model import Model
from onnxcanon.results import Result
from onnxcanon.settings import DEFAULTS, Settings
from onnxcanon.text import plural
from onnxcanon.verifying import verify

AVERAGE = "average"
"""What the average is called among the models it is made of."""


@dataclass(frozen=True, slots=True, repr=False)
class Merged(Result):
    """The average of models.

    Attributes:
        model: the average, repaired if asked for; graph and metadata are those of the first model. None if
            it was refused.
        models: the names of the models.
        weights: the share of each; they add up to 1.
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
    alignments: tuple[AlignedModel, ...] = ()
    evaluations: tuple[RepairEffect, ...] = ()
    refusal: str = ""

    @property
    def summary(self) -> str:
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
            "evaluations": [effect.to_json() for effect in self.evaluations],
        }

    def __str__(self) -> str:
        lines = [self.summary, *(f"  {effect}" for effect in self.evaluations)]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join([*lines, *([f"  refused: {self.refusal}"] if self.refusal else [])])


def merge(
    models: Sequence[Model],
    *,
    weights: Sequence[float] | None = None,
    align: Aligner = "weights",
    to: Target = "reference",
    repair: Repair = "none",
    verified: bool = True,
    settings: Settings = DEFAULTS,
) -> Merged:
    """Average models of one structure; `onnxcanon.merge` documents the arguments.

    Raises:
        OnnxcanonError: there is no such choice, the models differ in structure or width, or data is missing
            or does not fit.
        RuntimeUnavailableError: a model does not run.
    """
    shares = shares_of(weights, len(models))
    _check(models, align, to, repair, settings)
    merged = Merged(None, tuple(model.name for model in models), shares, align, to, repair)
    # From here on every model has the graph and the names of the first.
    alike = [expressed_in(models[0], model) for model in models]
    effects = _effects(models, repair, settings)
    merged = replace(merged, evaluations=effects)
    for effect in effects:
        if effect.objection:
            return replace(merged, refusal=f"{repair} on this data spoils {effect.objection}")
    aligned = align_jointly(alike, shares, method=align, to=to, rescaled=repair == RESCALE, settings=settings)
    merged = replace(merged, alignments=tuple(aligned))
    if verified and (refusal := _verified(alike, merged, settings)):
        return replace(merged, refusal=refusal)
    endpoints = [one.model for one in aligned]
    plain = average(endpoints, shares)
    if repair != NONE:
        plain = in_memory(plain)
    repaired = _repaired(plain, endpoints, shares, repair, settings)
    settings.progress("evaluating the average")
    average_effect = _effect(AVERAGE, plain, None if repaired is None else repaired.model, settings)
    if average_effect is not None:
        merged = replace(merged, evaluations=(*effects, average_effect))
    if repaired is None:
        return replace(merged, model=plain)
    return replace(merged, model=repaired.model, notes=repaired.notes, layers=repaired.layers)


def _check(models: Sequence[Model], align: str, to: str, repair: str, settings: Settings) -> None:
    """Refuse wrong choices before any work."""
    for what, choice, choices in (
        ("alignment", align, ALIGNERS),
        ("target", to, TARGETS),
        ("repair", repair, REPAIRS),
    ):
        check_choice(what, choice, choices)
    if repair != NONE and settings.data is None:
        raise OnnxcanonError(f"{models[0].name}: repair {repair} measures the models on data; give --data")


def _effects(models: Sequence[Model], repair: str, settings: Settings) -> tuple[RepairEffect, ...]:
    """The models on the data, and what a reset does to each of them alone."""
    effects = []
    for model in models if settings.data is not None else ():
        settings.progress(f"evaluating {model.name}")
        repaired = reset_bn(model, settings).model if repair == RESET else None
        effects.append(_effect(model.name, model, repaired, settings))
    return tuple(effect for effect in effects if effect is not None)


def _effect(name: str, model: Model, repaired: Model | None, settings: Settings) -> RepairEffect | None:
    if settings.data is None:
        return None
    return effect_of_repair(name, model, repaired, settings)


def _verified(models: Sequence[Model], merged: Merged, settings: Settings) -> str:
    """Why an aligned model is not the function that it was; empty if all are."""
    for name, model, aligned in zip(merged.models, models, merged.alignments, strict=True):
        if not aligned.transform.changes:
            continue
        settings.progress(f"verifying {name}")
        verification = verify(model, aligned.model, settings)
        if not verification.same:
            return f"{name}: aligned, it is another function: {verification.reason}"
    return ""


def _repaired(
    plain: Model, endpoints: Sequence[Model], shares: Sequence[float], repair: str, settings: Settings
) -> RepairResult | None:
    """The average with its statistics restored, if that was asked for."""
    if repair == RESET:
        return reset_bn(plain, settings)
    return rescale(plain, endpoints, shares, settings) if repair == RESCALE else None
