"""A short run of the fuzzer; `python -m tests.fuzz --graphs 2000` is the long one."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcanon.model import load
from onnxcanon.symmetry.analysis import symmetry
from onnxcanon.transform import Action, Transform
from tests.fuzz import TOLERANCE, fuzz, generate, outputs_of, worst_difference

CHUNK = 40


@pytest.mark.parametrize("first", range(0, 160, CHUNK))
def test_random_elements_keep_the_function(first: int) -> None:
    tally = fuzz(range(first, first + CHUNK))
    assert not tally.findings
    # A fuzzer whose graphs have no freedom, or whose outputs do not notice one, finds nothing.
    assert tally.permuted > 0.7 * CHUNK
    assert tally.scaled > 0.6 * CHUNK
    assert tally.flipped > 0.6 * CHUNK
    assert tally.controlled > 0.6 * CHUNK


def test_the_fuzzer_notices_a_wrong_element() -> None:
    """Swapping two rows of one parameter alone is no symmetry, and is seen."""
    noticed = 0
    for seed in range(20):
        case = generate(seed)
        model = load(case.proto)
        whole = symmetry(model).random(np.random.default_rng(seed))
        name, action = max(whole.actions.items(), key=lambda item: np.prod(item[1].shape))
        first = np.roll(np.arange(action.shape[0]), 1).reshape([-1, *[1] * (len(action.shape) - 1)])
        wrong = Transform({**whole.actions, name: action.then(Action(action.shape, {0: first}))})
        before = outputs_of(case, case.proto)
        after = outputs_of(case, wrong.apply(model).to_proto())
        noticed += worst_difference(before, after) > TOLERANCE["float32"]
    assert noticed >= 14


def test_the_same_seed_gives_the_same_graph() -> None:
    assert generate(3).proto.SerializeToString() == generate(3).proto.SerializeToString()
