"""The verdict: from the strongest that can be proved to the weakest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from onnxcanon.comparison.correspondence import common_sizes, correspondence
from onnxcanon.comparison.maps import FittedMap, FoldedTensors, find_map
from onnxcanon.comparison.tensor_differences import TensorDifference
from onnxcanon.errors import RuntimeUnavailableError
from onnxcanon.model import Model
from onnxcanon.results import Result
from onnxcanon.settings import DEFAULTS, Settings
from onnxcanon.transform import Transform

if TYPE_CHECKING:
    from onnxcanon.normalform import NormalForm
    from onnxcanon.verifying.verification import Verification

Verdict = Literal["identical", "symmetric", "equivalent", "close", "different"]
"""From the strongest to the weakest; the first three say that both are the same model."""

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

PERTURBATIONS = 3
"""How often weights are moved at random, to see what rounding does."""

PRINTED_TENSORS = 8
"""Tensors whose differences are printed."""

RELATED = 0.5
"""Weights that differ by less than this share of their size belong to one training: those of two differ by
as much as they are large, or more."""


@dataclass(frozen=True, slots=True, repr=False)
class Comparison(Result):
    """Whether two models are the same.

    Attributes:
        a: the first model.
        b: the second.
        verdict: one of `VERDICTS`, the strongest that was proved.
        reason: why, in a sentence.
        transform: takes the first model to the second, or as near as was found; None where their graphs
            differ, so that it would act on their normal forms.
        differences: what is left between counterparts then; empty where the graphs have no correspondence.
        verification: the comparison of their outputs, where no map was found.
    """

    a: str
    b: str
    verdict: Verdict
    reason: str
    transform: Transform | None = None
    differences: tuple[TensorDifference, ...] = field(default=(), repr=False)
    verification: Verification | None = field(default=None, repr=False)

    @property
    def same(self) -> bool:
        """Whether they are the same model."""
        return self.verdict in VERDICTS[:3]

    @property
    def max_relative_difference(self) -> float | None:
        """The largest difference of two entries after the map, relative to the larger; None without a map."""
        return max((d.largest for d in self.differences), default=None)

    @property
    def permuted(self) -> int:
        """How many parameters have entries that move."""
        return 0 if self.transform is None else self.transform.permuted

    @property
    def rescaled(self) -> int:
        """How many parameters have entries that are multiplied."""
        return 0 if self.transform is None else self.transform.rescaled

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values; `transform` is the path it was saved to, filled in by who saves it."""
        return {
            "a": self.a,
            "b": self.b,
            "verdict": self.verdict,
            "reason": self.reason,
            "max_relative_difference": self.max_relative_difference,
            "permuted": self.permuted,
            "rescaled": self.rescaled,
            "transform": None,
            "differences": [asdict(d) for d in self.differences if d.equal < d.entries],
            "verification": None if self.verification is None else self.verification.to_json(),
        }

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {self.reason}"]
        if not self.same:
            apart = sorted((d for d in self.differences if not d.rounded), key=lambda d: -d.distance)
            lines += [f"  {_line(d)}" for d in apart[:PRINTED_TENSORS]]
            if len(apart) > PRINTED_TENSORS:
                lines.append(f"  and {len(apart) - PRINTED_TENSORS} more")
        return "\n".join(lines)


def compare(a: Model, b: Model, *, rtol: float | None = None, settings: Settings = DEFAULTS) -> Comparison:
    """Compare two models, neither of which is changed.

    Args:
        a: the first model.
        b: the second model.
        rtol: how near outputs have to be for `close`, relative to their size; by default what rounding does
            to them.
        settings: the sizes of dynamic dimensions; the device, data and seed for models that have to be run.

    Raises:
        RuntimeUnavailableError: models have to be run, and CUDA was asked for where there is none.
    """
    settings.progress("comparing graphs")
    pairs = correspondence(a, b)
    fit = None if pairs is None else find_map(a, b, pairs, settings)
    if fit is not None and fit.same:
        verdict: Verdict = "identical" if fit.identical else "symmetric"
        transform = fit.transform if fit.transform.actions else None
        return Comparison(a.name, b.name, verdict, _proof(fit), transform, tuple(fit.differences))
    # What rounding does not explain in one graph it does not explain in the normal form either.
    changed = (d.name for d in fit.differences if d.unexplained) if fit and fit.unexplained else ()
    normal = _in_normal_form(a, b, frozenset(changed), settings)
    if isinstance(normal, FittedMap) and normal.same:
        finding = f"their normal forms have the same graph, {_proof(normal)}"
        settings = replace(settings, sizes={**common_sizes(a, b), **settings.sizes})
    else:
        fit = fit or (normal if isinstance(normal, FittedMap) else None)
        finding = _disagreement(fit) if fit is not None else str(normal)
    settings.progress("running both models")
    return _judged(a, b, fit, normal, finding, _run(a, b, rtol, settings))


def _in_normal_form(a: Model, b: Model, changed: frozenset[str], settings: Settings) -> FittedMap | str:
    """The map between the normal forms, or why there is none.

    No counterpart there may be computed from tensors of the first model that were `changed`: it may agree
    only because it was rounded.
    """
    from onnxcanon.normalform import normal_form

    settings.progress("normalizing graphs")
    sizes = {**common_sizes(a, b), **settings.sizes}
    forms = [normal_form(model, sizes) for model in (a, b)]
    for form in forms:
        if form.incomplete:
            return f"the graph of {form.original.name} has no normal form: {form.incomplete}"
    ours, theirs = (form.model for form in forms)
    pairs = correspondence(ours, theirs, versions=False)
    if pairs is None:
        return "their graphs differ"
    if any(changed.intersection(forms[0].sources.get(name, ())) for name, _ in pairs):
        return "their normal forms read what differs"
    folded = frozenset(
        pair
        for pair in pairs
        if any(len(form.sources.get(name, ())) > 1 for form, name in zip(forms, pair, strict=True))
    )
    noise = FoldedTensors(folded, lambda: (_noise(forms[0], sizes), _noise(forms[1], sizes)))
    return find_map(ours, theirs, pairs, settings, noise)


def _noise(form: NormalForm, sizes: dict[str, int]) -> Model:
    """The normal form with every entry replaced by how far it moves when the original's weights move by one
    in the last place: nothing, for those that were not computed."""
    from onnxcanon.normalform import normal_form
    from onnxcanon.verifying.noise import perturbed

    computed = [name for name, sources in form.sources.items() if len(sources) > 1]
    names = set(form.model.tensor_names())
    moved = {n: np.zeros(form.model.tensor_info(n)[0]) for n in computed if n in names}
    for seed in range(PERTURBATIONS) if moved else ():
        other = normal_form(perturbed(form.original, seed, rounds=False), sizes).model
        there = set(other.tensor_names())
        for name, most in moved.items():
            if name not in there or other.tensor_info(name)[0] != most.shape:
                continue  # a rule that looks at values took another way
            apart = np.abs(other.tensor(name).astype(np.float64) - form.model.tensor(name))
            np.maximum(most, apart, out=most)
    return form.model.with_tensors(
        {
            name: moved.get(name, np.zeros(shape)).astype(dtype.numpy())
            for name in names
            for shape, dtype in [form.model.tensor_info(name)]
            if dtype.is_floating_point()
        }
    )


def _run(
    a: Model, b: Model, rtol: float | None, settings: Settings
) -> Verification | RuntimeUnavailableError:
    """The comparison of both models' outputs, or why there is none."""
    from onnxcanon.runtime.devices import providers_for
    from onnxcanon.verifying import verify

    if settings.device not in ("auto", "cpu"):
        providers_for(settings.device)  # what was asked for and is not there is an error, not an answer
    try:
        return verify(a, b, settings, rtol)
    except RuntimeUnavailableError as error:
        return error


def _judged(
    a: Model,
    b: Model,
    fit: FittedMap | None,
    normal: FittedMap | str,
    finding: str,
    outputs: Verification | RuntimeUnavailableError,
) -> Comparison:
    """The verdict on models whose outputs were compared.

    That normal forms agree is proof enough unless a rule that rewrites them is wrong, which outputs show.
    """
    agree = isinstance(normal, FittedMap) and normal.same
    best = normal if isinstance(normal, FittedMap) and agree else fit
    verification = None if isinstance(outputs, RuntimeUnavailableError) else outputs
    verdict: Verdict
    if verification is None:
        verdict = "equivalent" if agree else "different"
        reason = f"{finding}; their outputs could not be compared: {outputs}"
    elif agree and verification.same:
        verdict, reason = "equivalent", finding
    else:
        if agree:
            finding += ", but they compute something else: a defect of ours, please report both models"
        if verification.same:
            verdict, reason = "close", f"{finding}, but their outputs agree: {verification.reason}"
        else:
            verdict, reason = "different", f"{finding}; {verification.reason}"
    differences = tuple(best.differences) if best else ()
    return Comparison(a.name, b.name, verdict, reason, None, differences, verification)


# -- words ------------------------------------------------------------------------------------------


def _proof(fit: FittedMap) -> str:
    """Why two models are the same."""
    if fit.identical:
        return "every parameter is equal bit for bit"
    changes = [
        f"{count} parameters {what}"
        for count, what in ((fit.transform.permuted, "permuted"), (fit.transform.rescaled, "rescaled"))
        if count
    ]
    how = f"after a map ({', '.join(changes)})" if changes else "as they are"
    if fit.exact:
        return f"every parameter is equal bit for bit {how}"
    largest = max(d.largest for d in fit.differences)
    rounded = sum(d.equal < d.entries for d in fit.differences)
    return f"parameters are equal {how}, {rounded} of them up to rounding (at most {largest:.1e})"


def _disagreement(fit: FittedMap) -> str:
    """Where two models of one graph differ."""
    entries = sum(d.entries for d in fit.differences)
    near = sum(d.within_rounding for d in fit.differences)
    first = next(d for d in fit.differences if not d.rounded)
    text = f"after the best alignment {entries - near:,} of {entries:,} entries differ"
    return f"{text}, first in '{first.name}'{_relation(fit.differences, entries, near)}"


def _relation(differences: Sequence[TensorDifference], entries: int, near: int) -> str:
    """What one model may be of the other."""
    apart, zeroed = entries - near, sum(d.zeroed for d in differences)
    if zeroed >= 0.9 * apart and near > apart - zeroed:
        return f": B looks like A pruned ({zeroed:,} entries are zero in B alone)"
    mismatched = [d for d in differences if not d.rounded]
    if all(d.fits_fp16 for d in mismatched):
        return ": B looks like A rounded to half precision"
    if sum(d.entries for d in mismatched if d.values) > sum(d.entries for d in mismatched) / 2:
        return f": B looks like A quantized (tensors of at most {max(d.values for d in mismatched)} values)"
    if near * 2 > entries:
        return f": one looks like the other changed in part ({near / entries:.2%} of the entries are equal)"
    share = float(np.sqrt(sum(d.entries * d.distance**2 for d in differences) / entries))
    if share < RELATED:
        return f": one looks like the other trained further (weights differ by {share:.1e} of their size)"
    return ""


def _line(d: TensorDifference) -> str:
    count = f"{d.entries - d.within_rounding:,} of {d.entries:,} entries differ"
    return f"{d.name}: {count}, by {d.distance:.1e} of the tensor's size"
