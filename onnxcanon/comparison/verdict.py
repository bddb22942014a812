"""The verdict: from the strongest that can be proved to the weakest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcanon.comparison.correspondence import correspondence
from onnxcanon.comparison.maps import FittedMap, FoldedTensors, TensorDifference, find_map
from onnxcanon.errors import RuntimeUnavailableError
from onnxcanon.model import Model
from onnxcanon.results import Result
from onnxcanon.settings import Settings
from onnxcanon.transform import Transform

if TYPE_CHECKING:
    from onnxcanon.normalform import NormalForm
    from onnxcanon.verifying.verification import Verification

VERDICTS = ("identical", "symmetric", "equivalent", "close", "different")
SAME = frozenset(VERDICTS[:3])

PERTURBATIONS = 3
"""How often weights are moved at random, to see what rounding does."""

PRINTED_TENSORS = 8
"""Tensors whose differences are printed."""

KIN = 0.5
"""Weights that differ by less than this share of their size belong to one training: those of two differ by
as much as they are large, or more."""

Progress = Callable[[str], None]


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
    verdict: str
    reason: str
    transform: Transform | None = None
    differences: tuple[TensorDifference, ...] = field(default=(), repr=False)
    verification: Verification | None = field(default=None, repr=False)

    @property
    def same(self) -> bool:
        """Whether they are the same model."""
        return self.verdict in SAME

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
            lines += [f"  {_told(d)}" for d in apart[:PRINTED_TENSORS]]
            if len(apart) > PRINTED_TENSORS:
                lines.append(f"  and {len(apart) - PRINTED_TENSORS} more")
        return "\n".join(lines)


def compare(
    a: Model,
    b: Model,
    *,
    rtol: float | None = None,
    sizes: Mapping[str, int] | None = None,
    device: str = "auto",
    seed: int = 0,
    data: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two models, neither of which is changed.

    Args:
        a: the first model.
        b: the second model.
        rtol: how near outputs have to be for `close`, relative to their size; by default what rounding does
            to them.
        sizes: sizes of dynamic dimensions by name.
        device: where models without a map between them are run.
        seed: what inputs for that are drawn from.
        data: inputs by name for that, instead of drawn ones.
        progress: called with a short line before each step that lasts.

    Raises:
        RuntimeUnavailableError: models have to be run, and CUDA was asked for where there is none.
    """
    say = progress or (lambda _: None)
    known = dict(sizes or {})
    say("comparing graphs")
    pairs = correspondence(a, b)
    found = None if pairs is None else find_map(a, b, pairs, say, known)
    if found is not None and found.same:
        verdict = "identical" if found.identical else "symmetric"
        return _comparison(a, b, verdict, _proof(found), found)
    # What rounding does not explain in one graph it does not explain in the normal form either.
    stray = (
        frozenset(d.name for d in found.differences if d.unexplained)
        if found and found.unexplained
        else frozenset()
    )
    other = _in_normal_form(a, b, say, known, stray)
    if isinstance(other, FittedMap) and other.same:
        where = f"their normal forms have the same graph, {_proof(other)}"
        sizes = {**common_sizes(a, b), **known}
    else:
        found = found or (other if isinstance(other, FittedMap) else None)
        where = _parting(found) if found is not None else str(other)
    say("running both models")
    ran = _run(a, b, Settings(dict(sizes or {}), device, seed, data, say), rtol)
    return _judged(a, b, found, other, where, ran)


def _comparison(a: Model, b: Model, verdict: str, reason: str, found: FittedMap) -> Comparison:
    transform = found.transform if found.transform.actions else None
    return Comparison(a.name, b.name, verdict, reason, transform, tuple(found.differences))


def _in_normal_form(
    a: Model, b: Model, say: Progress, sizes: dict[str, int], changed: frozenset[str]
) -> FittedMap | str:
    """What holding the normal forms against each other found, or why they cannot be.

    Tensors of the first model that were `changed` have to be of no account in it: what is computed from them
    may agree only because it was rounded.
    """
    from onnxcanon.normalform import normal_form

    say("normalizing graphs")
    fixed = {**common_sizes(a, b), **sizes}
    forms = [normal_form(model, fixed) for model in (a, b)]
    for form in forms:
        if form.incomplete:
            return f"the graph of {form.original.name} has no normal form: {form.incomplete}"
    one, other = (form.model for form in forms)
    pairs = correspondence(one, other, versions=False)
    if pairs is None:
        return "their graphs differ"
    if any(changed.intersection(forms[0].sources.get(name, ())) for name, _ in pairs):
        return "their normal forms read what differs"
    made = frozenset(
        p for p in pairs if any(len(f.sources.get(n, ())) > 1 for f, n in zip(forms, p, strict=True))
    )
    computed = FoldedTensors(made, lambda: (_noise(forms[0], fixed), _noise(forms[1], fixed)))
    return find_map(one, other, pairs, say, sizes, computed)


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


def common_sizes(a: Model, b: Model) -> dict[str, int]:
    """Sizes of the inputs' dimensions that one model fixes and the other leaves open, by name."""
    sizes: dict[str, int] = {}
    for one, other in zip(a.ir.graph.inputs, b.ir.graph.inputs, strict=False):
        for x, y in zip(one.shape or (), other.shape or (), strict=False):
            for size, symbol in ((x, y), (y, x)):
                if isinstance(size, int) and not isinstance(symbol, int) and symbol.value:
                    sizes[symbol.value] = size
    return sizes


def _run(
    a: Model, b: Model, settings: Settings, rtol: float | None
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
    found: FittedMap | None,
    normal: FittedMap | str,
    where: str,
    ran: Verification | RuntimeUnavailableError,
) -> Comparison:
    """The verdict on models whose outputs were compared, `normal` being what was found on normal forms.

    That these agree is proof enough unless a rule that rewrites them is wrong; outputs would show that.
    """
    agree = isinstance(normal, FittedMap) and normal.same
    kept = (
        normal.differences if isinstance(normal, FittedMap) and agree else found.differences if found else ()
    )
    if isinstance(ran, RuntimeUnavailableError):
        verdict = "equivalent" if agree else "different"
        reason = f"{where}; their outputs could not be compared: {ran}"
        return Comparison(a.name, b.name, verdict, reason, None, tuple(kept))
    if agree:
        if ran.same:
            return Comparison(a.name, b.name, "equivalent", where, None, tuple(kept), ran)
        where = f"{where}, but they compute something else: a defect of ours, please report both models"
    if ran.same:
        reason = f"{where}, but their outputs agree: {ran.reason}"
        return Comparison(a.name, b.name, "close", reason, None, tuple(kept), ran)
    return Comparison(a.name, b.name, "different", f"{where}; {ran.reason}", None, tuple(kept), ran)


# -- words ------------------------------------------------------------------------------------------


def _proof(found: FittedMap) -> str:
    """Why two models are the same."""
    if found.identical:
        return "every parameter is equal bit for bit"
    done = [
        f"{count} parameters {what}"
        for count, what in ((found.transform.permuted, "permuted"), (found.transform.rescaled, "rescaled"))
        if count
    ]
    how = f"after a map ({', '.join(done)})" if done else "as they are"
    if found.exact:
        return f"every parameter is equal bit for bit {how}"
    largest = max(d.largest for d in found.differences)
    rounded = sum(d.equal < d.entries for d in found.differences)
    return f"parameters are equal {how}, {rounded} of them up to rounding (at most {largest:.1e})"


def _parting(found: FittedMap) -> str:
    """Where two models of one graph part."""
    entries = sum(d.entries for d in found.differences)
    near = sum(d.within_rounding for d in found.differences)
    first = next(d for d in found.differences if not d.rounded)
    text = f"after the best alignment {entries - near:,} of {entries:,} entries differ"
    return f"{text}, first in '{first.name}'{_kinship(found.differences, entries, near)}"


def _kinship(found: Sequence[TensorDifference], entries: int, near: int) -> str:
    """What one model may be of the other."""
    apart, zeroed = entries - near, sum(d.zeroed for d in found)
    if zeroed >= 0.9 * apart and near > apart - zeroed:
        return f": B looks like A pruned ({zeroed:,} entries are zero in B alone)"
    unlike = [d for d in found if not d.rounded]
    if all(d.fits_fp16 for d in unlike):
        return ": B looks like A rounded to half precision"
    if sum(d.entries for d in unlike if d.values) > sum(d.entries for d in unlike) / 2:
        return f": B looks like A quantized (tensors of at most {max(d.values for d in unlike)} values)"
    if near * 2 > entries:
        return f": one looks like the other changed in part ({near / entries:.2%} of the entries are equal)"
    share = float(np.sqrt(sum(d.entries * d.distance**2 for d in found) / entries))
    if share < KIN:
        return f": one looks like the other trained further (weights differ by {share:.1e} of their size)"
    return ""


def _told(d: TensorDifference) -> str:
    count = f"{d.entries - d.within_rounding:,} of {d.entries:,} entries differ"
    return f"{d.name}: {count}, by {d.distance:.1e} of the tensor's size"
