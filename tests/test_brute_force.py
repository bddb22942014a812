"""On tiny graphs the group found is the one a brute-force search finds, or smaller for a stated reason."""

from __future__ import annotations

from collections import Counter

import numpy as np

from tests.brute_force.compare import Reason, compare
from tests.brute_force.function import Function
from tests.brute_force.graphs import finished, generate, mlp, started, two_biases
from tests.brute_force.groups import chain, products
from tests.brute_force.oracle import Oracle

GRAPHS = 40


def test_the_group_is_the_whole_one_or_smaller_for_a_stated_reason() -> None:
    counts = Counter[str]()
    for seed in range(GRAPHS):
        result = compare(generate(seed), seed)
        counts[result.word] += 1
        assert not result.failed, f"{seed}: {result.reason}, {result.ours} of {result.whole}"
    assert counts["equal"] >= GRAPHS // 2
    assert counts["too hard to search"] <= GRAPHS // 10


def test_the_oracle_finds_the_group_of_a_perceptron() -> None:
    case = finished(b := started(3, 3, 2), *mlp(b))
    f = Function(case)
    widths = [s[1] for s in list(f.shapes.values())[:-1]]
    factorials = {2: 2, 3: 6, 4: 24}
    assert Oracle(f).group("all").order == np.prod([factorials[w] for w in widths])


def test_the_oracle_tells_its_classes_apart() -> None:
    """Two biases that are added: only in the widest class do they exchange entries, unit by unit."""
    case = finished(b := started(3, 3, 2), *two_biases(b))
    f = Function(case)
    m = next(iter(f.shapes.values()))[1]
    orders = [Oracle(f).group(kind).order for kind in ("axes", "within", "all")]
    assert orders[0] == orders[1]
    assert orders[2] == orders[1] * 2**m
    assert compare(case).reason == Reason.ACROSS


def test_a_chain_has_the_order_of_the_group_that_makes_it() -> None:
    rng = np.random.default_rng(0)
    swap, turn = np.array([1, 0, 2, 3, 4]), np.array([1, 2, 3, 4, 0])
    assert chain(5, products([swap, turn], rng)).order == 120
    assert chain(5, products([turn], rng)).order == 5
