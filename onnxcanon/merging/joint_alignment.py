"""Joint alignment: models of one graph moved within their orbits into one basis, where they can be averaged.

Every way gives each model one map into a common frame, so the maps from model to model are consistent by
construction; the frame is then turned so that the first model stays where it was.

- *reference*: each model is aligned to the first.
- *mean*: then each in turn is aligned to the mean of the others, until none comes closer: MergeMany of Git
  Re-Basin (Ainsworth et al. 2023, Algorithm 3), started from the reference.
- *universe*: the same, started from the model to which all others come closest, whichever that is: no model
  is favoured for standing first. What is minimized, Σ wᵢ ‖pᵢ θᵢ - mean‖² over maps pᵢ into one universe, is
  the objective of C2M3 (Crisostomi et al. 2024).
- Annealing to the mean or a universe goes on from weight matching to it by exchanges of single units that
  lower the loss of the average of all (`joint_annealing`); to the reference, of each model with the first.
- *canonical*: the frame is the canonical form (scale balanced, order norm), which looks at each model alone
  (Sorensen 2020).

Permuting all models alike leaves that sum as it is, scaling them alike does not: it is always taken on the
scale of the first model. Every step of the iteration lowers it, so it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from onnxcanon.alignment import Alignment, align
from onnxcanon.alignment.method import data_for
from onnxcanon.canonical import canonicalize
from onnxcanon.choices import ALIGNERS, TARGETS, Aligner, Method, Target
from onnxcanon.comparison.maps import same_symmetry
from onnxcanon.errors import OnnxcanonError, check_choice
from onnxcanon.merging.averaging import average, distance, in_memory, shares_of
from onnxcanon.merging.joint_annealing import anneal_jointly
from onnxcanon.model import Model
from onnxcanon.settings import DEFAULTS, Progress, Settings, silent
from onnxcanon.transform import Transform

NONE, CANONICAL = "none", "canonical"
REFERENCE, UNIVERSE = "reference", "universe"

MOST_ROUNDS = 10
"""How often all models are aligned to their mean at most."""

CLOSER = 1 - 1e-6
"""Models have come closer when the sum is less than this part of what it was."""

AlignPair = Callable[[Model, Model], Alignment]


@dataclass(frozen=True, slots=True)
class AlignedModel:
    """A model in the basis of the first.

    Attributes:
        model: the moved model: the same function, in the graph and with the names of the first.
        transform: the group element that moved it, by these names.
        distance: the root mean square difference of its weights to those of the first, before and after.
    """

    model: Model
    transform: Transform
    distance: tuple[float, float]


def align_jointly(
    models: Sequence[Model],
    shares: Sequence[float],
    *,
    method: Aligner,
    to: Target,
    rescaled: bool = False,
    settings: Settings = DEFAULTS,
) -> list[AlignedModel]:
    """Move all models into the basis of the first, which stays.

    Args:
        models: models that share the graph of the first.
        shares: what each contributes to a mean; they add up to 1.
        method: how units are matched.
        to: what models are aligned to; has no effect for `canonical` and `none`.
        rescaled: whether the average will be rescaled: joint annealing takes the loss after that.
        settings: how methods that run the models do it; the seed also draws the order of the models.

    Returns:
        Each model, aligned.

    Raises:
        OnnxcanonError: there is no such method or target, or the method cannot align the models.
    """
    check_choice("alignment", method, ALIGNERS)
    check_choice("target", to, TARGETS)
    if method == "none" or len(models) == 1:
        maps = [Transform({}, models[0].name)] * len(models)
    elif method == "canonical":
        maps = _to_canonical_forms(models, settings)
    elif method == "annealing" and to != "reference":
        data_for(method, settings)  # before the work that needs none
        maps = _match(models, shares, "weights", to, settings)
        exchanges = anneal_jointly(_apply(models, maps), shares, settings, rescaled=rescaled)
        maps = [first.then(second) for first, second in zip(maps, exchanges, strict=True)]
    else:
        maps = _match(models, shares, method, to, settings)
    aligned = []
    for model, transform in zip(models, maps, strict=True):
        moved = transform.apply(model)
        before = distance(models[0], model)
        after = distance(models[0], moved) if transform.changes else before
        aligned.append(AlignedModel(moved, transform, (before, after)))
    return aligned


def _to_canonical_forms(models: Sequence[Model], settings: Settings) -> list[Transform]:
    """The maps into canonical forms, in the basis of the first."""
    settings.progress("bringing all models into canonical form")
    quiet = Settings(settings.sizes)
    forms = [canonicalize(model, order="norm", scale="balanced", settings=quiet) for model in models]
    for model, form in zip(models, forms, strict=True):
        if not same_symmetry(forms[0].symmetry, form.symmetry):
            raise OnnxcanonError(
                f"{model.name} and {models[0].name} have one graph, but not the same freedoms, for a"
                " tensor of one alone is constant or zero: their canonical forms have no average"
            )
    return _in_first_basis([form.transform for form in forms])


def _match(
    models: Sequence[Model], shares: Sequence[float], method: Method, to: Target, settings: Settings
) -> list[Transform]:
    """The map of each model into the basis of the first."""
    # Averages want the norms of the reference; each alignment would tell the same steps again.
    quiet = replace(settings, progress=silent)
    align_pair = partial(align, method=method, scale="norms", settings=quiet)
    say = settings.progress
    anchors = range(len(models)) if to == UNIVERSE and len(models) > 2 else (0,)
    starts = [_star(models, anchor, align_pair, say) for anchor in anchors]
    if to == REFERENCE or len(models) == 2:  # two models have one distance, whichever of them moves
        return starts[0]
    start = min(starts, key=lambda maps: _spread(_apply(models, maps), shares))
    return _align_to_mean(models, shares, start, align_pair, settings)


def _star(models: Sequence[Model], anchor: int, align_pair: AlignPair, say: Progress) -> list[Transform]:
    """The maps by way of one of the models, to which all others are aligned."""
    maps = []
    for k, model in enumerate(models):
        if k == anchor:
            maps.append(Transform({}, model.name))
            continue
        say(f"aligning model {k + 1} of {len(models)} to model {anchor + 1}")
        maps.append(align_pair(models[anchor], model).transform)
    return _in_first_basis(maps)


def _align_to_mean(
    models: Sequence[Model],
    shares: Sequence[float],
    maps: list[Transform],
    align_pair: AlignPair,
    settings: Settings,
) -> list[Transform]:
    """The maps after each model was aligned to the mean of the others until none came closer."""
    rng = np.random.default_rng(settings.seed)
    moved = _apply(models, maps)
    spread = _spread(moved, shares)
    for turn in range(MOST_ROUNDS):
        before = spread
        for step, k in enumerate(rng.permutation(len(models)).tolist(), 1):
            others = [0.0 if j == k else share for j, share in enumerate(shares)]
            if not any(others):
                continue
            settings.progress(f"aligning to the mean: round {turn + 1}, model {step} of {len(models)}")
            mean = in_memory(average(moved, shares_of(others, len(models))))
            step_map = align_pair(mean, moved[k]).transform
            # Composed and applied to the original: rounded once.
            tried = _in_first_basis([*maps[:k], maps[k].then(step_map), *maps[k + 1 :]])
            there = _apply(models, tried)
            if (now := _spread(there, shares)) < CLOSER * spread:
                maps, moved, spread = tried, there, now
        if spread == before:
            break
    return maps


def _in_first_basis(maps: Sequence[Transform]) -> list[Transform]:
    """The maps followed by the one that brings the first model back to where it was."""
    home = maps[0].inverse()
    return [Transform({}, maps[0].model), *(transform.then(home) for transform in maps[1:])]


def _apply(models: Sequence[Model], maps: Sequence[Transform]) -> list[Model]:
    return [transform.apply(model) for transform, model in zip(maps, models, strict=True)]


def _spread(models: Sequence[Model], shares: Sequence[float]) -> float:
    """Σ wᵢ ‖θᵢ - mean‖², per entry."""
    mean = in_memory(average(models, shares))
    return sum(w * distance(mean, model) ** 2 for w, model in zip(shares, models, strict=True))
