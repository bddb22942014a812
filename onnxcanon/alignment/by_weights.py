"""The method `weights`: where the search of `weight_matching` starts, how often, and when it is enough."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from onnxcanon.alignment.frame import Frame
from onnxcanon.alignment.method import MethodResult
from onnxcanon.alignment.weight_matching import Matching
from onnxcanon.settings import Settings
from onnxcanon.transform import Transform

STARTS = 6
"""From how many arrangements of the units matching starts, for models so small that this takes no time."""

MANY = 1 << 24
"""Entries that are matched in all starts together; models of more are matched from one."""

ENOUGH = 1e-3
"""Of models that large: the part of the objective that a sweep has to gain for another to follow."""

ALIKE = 0.1
"""The part of the objective signatures lead to from which on large models are also matched as they come."""


def by_weights(frame: Frame, settings: Settings) -> MethodResult:
    """The element of the largest objective found. Large models are matched from the more promising of two
    starts: the one signatures lead to, and none. Small ones are from both, and then again and again from the
    best with one orbit shuffled (iterated local search, Lourenço et al. 2003)."""
    return MethodResult(match_weights(frame.matching(), settings))


def match_weights(matching: Matching, settings: Settings) -> Transform:
    """The element of the largest objective among several starts of weight matching."""

    def say(step: str) -> None:
        settings.progress(f"matching weights, {step}")

    size = sum(array.size for array in matching.start.values())
    if size > MANY:
        best = _promising(matching, say)
        best.run(say, enough=ENOUGH)
        return best.transform
    rng = np.random.default_rng(settings.seed)
    best, value = matching, -np.inf
    for start in range(max(2, min(STARTS, MANY // max(size, 1)))):
        search = best.fork()
        if start < 2:
            search.reset()
        if start == 0:
            search.from_signatures()
        elif start > 1:
            search.shuffle(rng)
        sweeps = search.run(partial(_say_of_start, say, start + 1))
        if (reached := search.objective()) > value:
            best, value = search, reached
        if sweeps <= 1 and start == 0:
            break
    return best.transform


def _say_of_start(say: Callable[[str], None], start: int, step: str) -> None:
    say(f"{step} (start {start})")


def _promising(matching: Matching, say: Callable[[str], None]) -> Matching:
    """The search begun where signatures lead, or, if models are somewhat alike as they come and that is
    better after one sweep, at the identity."""
    placed, still = matching.fork(), matching.fork()
    placed.from_signatures()
    if still.objective() < ALIKE * placed.objective():
        return placed
    for start in (placed, still):
        start.run(say, sweeps=1)
    return max(placed, still, key=Matching.objective)
