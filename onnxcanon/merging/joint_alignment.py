"""Gathering: models of one graph moved within their orbits into one basis, where their average makes sense.

Every way gives each model one map into a common frame, so the maps from model to model are consistent by
construction; the frame is then turned so that the first model stays where it was.

- *reference*: each model is aligned to the first.
- *mean*: then each in turn is aligned to the mean of the others, until none comes closer: MergeMany of Git
  Re-Basin (Ainsworth et al. 2023, Algorithm 3), started from the reference.
- *universe*: the same, started from the model to which all others come closest, whichever that is: no model
  is favoured for standing first. What is minimized, Σ wᵢ ‖pᵢ θᵢ - mean‖² over maps pᵢ into one universe, is
  the objective of C2M3 (Crisostomi et al. 2024).
- Annealing to the mean or a universe goes on from weight matching to it by exchanges of single units, judged
  by the loss of the average of all (`together`); to the reference, by that of each model with the first.
- *canonical*: the frame is the canonical form (scale balanced, order norm), which looks at each model alone
  (Sorensen 2020).

Permuting all models alike leaves that sum as it is, scaling them alike does not: it is always taken on the
scale of the first model. Every step of the iteration lowers it, so it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from onnxcanon.alignment import METHODS, Alignment, align
from onnxcanon.alignment.method import MethodContext
from onnxcanon.canonical import canonicalize
from onnxcanon.comparison.maps import same_symmetry
from onnxcanon.errors import OnnxcanonError
from onnxcanon.merging.averaging import (
    average,
    distance,
    kept,
    normalized,
)
from onnxcanon.merging.joint_annealing import together
from onnxcanon.model import Model
from onnxcanon.settings import Settings
from onnxcanon.transform import Transform

NONE, CANONICAL = "none", "canonical"
ANNEALING, START = "annealing", "weights"
REFERENCE, MEAN, UNIVERSE = TARGETS = ("reference", "mean", "universe")
ALIGNERS = (*METHODS, CANONICAL, NONE)

ROUNDS = 10
"""How often all models are aligned to their mean at most."""

CLOSER = 1 - 1e-6
"""Models have come closer when the sum is less than this part of what it was."""

Aligner = Callable[[Model, Model], Alignment]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Gathered:
    """A model in the basis of the first.

    Attributes:
        model: the moved model: the same function, in the graph and with the names of the first.
        transform: the group element that moved it, by these names.
        distance: the root mean square difference of its weights to those of the first, before and after.
    """

    model: Model
    transform: Transform
    distance: tuple[float, float]


def gather(
    models: Sequence[Model],
    weights: Sequence[float],
    *,
    method: str,
    to: str,
    data: Mapping[str, np.ndarray] | None = None,
    sizes: dict[str, int] | None = None,
    rescaled: bool = False,
    seed: int = 0,
    device: str = "auto",
    say: Say = lambda _: None,
) -> list[Gathered]:
    """Move all models into the basis of the first, which stays.

    Args:
        models: models that share the graph of the first.
        weights: what each contributes to a mean; they add up to 1.
        method: one of `ALIGNERS`.
        to: one of `TARGETS`; of no account for `canonical` and `none`.
        data: inputs by name for methods that run the models.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        rescaled: whether the average will be: annealing of all then judges it so.
        seed: what the order of the models, and chance in the method, is drawn from.
        device: where models are run.
        say: called with a line before each step that lasts.

    Returns:
        Each model, moved.

    Raises:
        OnnxcanonError: there is no such method or target, or the method cannot align the models.
    """
    if method not in ALIGNERS:
        raise OnnxcanonError(f"there is no alignment '{method}'; choose from {', '.join(ALIGNERS)}")
    if to not in TARGETS:
        raise OnnxcanonError(f"models are aligned to {', '.join(TARGETS)}, not to '{to}'")
    if method == NONE or len(models) == 1:
        maps = [Transform({}, models[0].name)] * len(models)
    elif method == CANONICAL:
        say("bringing all models into canonical form")
        forms = [
            canonicalize(model, order="norm", scale="balanced", settings=Settings(dict(sizes or {})))
            for model in models
        ]
        for model, form in zip(models, forms, strict=True):
            if not same_symmetry(forms[0].symmetry, form.symmetry):
                raise OnnxcanonError(
                    f"{model.name} and {models[0].name} have one graph, but not the same freedoms, for a"
                    " tensor of one alone is constant or zero: their canonical forms have no average"
                )
        maps = _at_home([form.transform for form in forms])
    else:
        jointly = method == ANNEALING and to != REFERENCE
        first, given = START if jointly else method, MethodContext(data, seed, device, say)
        if jointly:
            given.inputs(method)  # before the work that needs none
        one = partial(align, method=first, data=data, sizes=sizes, seed=seed, device=device)
        maps = _matched(models, weights, one, to, seed, say)
        if jointly:
            found = together(_moved(models, maps), weights, given, sizes=sizes, rescaled=rescaled)
            maps = [known.then(more) for known, more in zip(maps, found, strict=True)]
    out = []
    for model, transform in zip(models, maps, strict=True):
        moved = transform.apply(model)
        before = distance(models[0], model)
        after = distance(models[0], moved) if transform.changes else before
        out.append(Gathered(moved, transform, (before, after)))
    return out


def _matched(
    models: Sequence[Model], weights: Sequence[float], one: Aligner, to: str, seed: int, say: Say
) -> list[Transform]:
    """The map of each model into the basis of the first."""
    anchors = range(len(models)) if to == UNIVERSE and len(models) > 2 else (0,)
    starts = [_star(models, anchor, one, say) for anchor in anchors]
    if to == REFERENCE or len(models) == 2:  # two models have one distance, whichever of them moves
        return starts[0]
    start = min(starts, key=lambda maps: _spread(_moved(models, maps), weights))
    return _settled(models, weights, start, one, np.random.default_rng(seed), say)


def _star(models: Sequence[Model], anchor: int, one: Aligner, say: Say) -> list[Transform]:
    """The maps by way of one of the models, to which all others are aligned."""
    maps = []
    for k, model in enumerate(models):
        if k == anchor:
            maps.append(Transform({}, model.name))
            continue
        say(f"aligning model {k + 1} of {len(models)} to model {anchor + 1}")
        maps.append(one(models[anchor], model).transform)
    return _at_home(maps)


def _settled(
    models: Sequence[Model],
    weights: Sequence[float],
    maps: list[Transform],
    one: Aligner,
    rng: np.random.Generator,
    say: Say,
) -> list[Transform]:
    """The maps after each model was aligned to the mean of the others until none came closer."""
    moved = _moved(models, maps)
    spread = _spread(moved, weights)
    for turn in range(ROUNDS):
        before = spread
        for step, k in enumerate(rng.permutation(len(models)).tolist(), 1):
            others = [0.0 if j == k else weight for j, weight in enumerate(weights)]
            if not any(others):
                continue
            say(f"aligning to the mean: round {turn + 1}, model {step} of {len(models)}")
            found = one(kept(average(moved, normalized(others, len(models)))), moved[k])
            # Composed and applied to the original: rounded once.
            tried = _at_home([*maps[:k], maps[k].then(found.transform), *maps[k + 1 :]])
            there = _moved(models, tried)
            if (now := _spread(there, weights)) < CLOSER * spread:
                maps, moved, spread = tried, there, now
        if spread == before:
            break
    return maps


def _at_home(maps: Sequence[Transform]) -> list[Transform]:
    """The same maps, all followed by the one that brings the first model back to where it was."""
    home = maps[0].inverse()
    return [Transform({}, maps[0].model), *(found.then(home) for found in maps[1:])]


def _moved(models: Sequence[Model], maps: Sequence[Transform]) -> list[Model]:
    return [transform.apply(model) for transform, model in zip(maps, models, strict=True)]


def _spread(models: Sequence[Model], weights: Sequence[float]) -> float:
    """Σ wᵢ ‖θᵢ - mean‖², per entry."""
    centre = kept(average(models, weights))
    return sum(w * distance(centre, model) ** 2 for w, model in zip(weights, models, strict=True))
