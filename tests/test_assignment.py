"""Assignments are the best there are, weight matching only ever gains, and finds what was planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import onnxcanon as oc
from onnxcanon.alignment import by_weights
from onnxcanon.alignment.assignment import assigned
from onnxcanon.alignment.by_weights import match_weights
from onnxcanon.alignment.frame import Frame
from onnxcanon.alignment.gains import GainTable
from onnxcanon.alignment.weight_matching import Matching
from onnxcanon.settings import Settings
from onnxcanon.symmetry import symmetry
from onnxcanon.transform import Transform
from tests.shared import ROOT, SHARED, each

NOISE = 0.5
TRIALS = 5
RESNETS = each(
    (ROOT / "models").glob("digits_resnet_seed0.onnx"), (SHARED / "twins").glob("resnet/base.onnx")
)
OTHERS = each((ROOT / "models").glob("digits_*_seed0.onnx"))


def tables(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """GainTable of many kinds: of random and of structured weights, and with ties."""
    rank_three = rng.normal(size=(n, 3)) @ rng.normal(size=(3, n))
    sizes = np.exp(rng.normal(size=(n, 1))) * np.exp(rng.normal(size=n))
    return {
        "random": rng.normal(size=(n, n)),
        "single precision": rng.normal(size=(n, n)).astype(np.float32),
        "uneven": sizes * rng.normal(size=(n, n)),
        "of rank one": np.outer(rng.normal(size=n), rng.normal(size=n)),
        "of rank three": rank_three,
        "planted": np.eye(n)[rng.permutation(n)] + 0.3 * rng.normal(size=(n, n)),
        "small integers": rng.integers(0, 3, (n, n)).astype(float),
        "all alike": np.full((n, n), 0.1),
        "huge": 1e30 * rng.normal(size=(n, n)),
    }


@pytest.mark.parametrize("n", [1, 2, 7, 64, 200, 384])
def test_an_assignment_has_the_largest_total_whatever_the_prices(n: int) -> None:
    rng = np.random.default_rng(n)
    for kind, gain in tables(n, rng).items():
        best = gain[linear_sum_assignment(gain, maximize=True)].sum(dtype=np.float64)
        prices = None
        for _ in range(3):  # none, those found, others
            columns, found = assigned(gain, prices)
            assert sorted(columns) == list(range(n)), kind
            total = gain[np.arange(n), columns].sum(dtype=np.float64)
            assert total >= best - 1e-12 * n * np.abs(gain).max(), kind
            prices = found if prices is None else rng.normal(size=n) * gain.std()


def planted(path: Path, seed: int) -> tuple[oc.Model, oc.Model, Transform]:
    """A model, its permuted copy with noise of a part of each tensor's deviation, and what permuted it."""
    model, rng = oc.load(path), np.random.default_rng(seed)
    known = symmetry(model)
    arrays = {name: model.tensor(name) for name in known.classes}
    noisy = {
        name: (a + NOISE * a.std() * rng.standard_normal(a.shape)).astype(a.dtype)
        for name, a in arrays.items()
    }
    hidden = known.action(known.solution.random(rng))
    return model, hidden.apply(model.with_tensors(noisy)), hidden


@pytest.mark.parametrize("large", [False, True], ids=["small", "as if large"])
@pytest.mark.parametrize("path", RESNETS)
def test_planted_permutations_of_a_resnet_are_found(
    path: Path, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        monkeypatch.setattr(by_weights, "MANY", 1)
    for seed in range(TRIALS):
        model, moved, hidden = planted(path, seed)
        frame = Frame.of(model, moved)
        found = frame.element(match_weights(frame.matching(), Settings(seed=seed)))
        assert hidden.permuted and hidden.then(found).permuted == 0


@pytest.mark.parametrize("path", OTHERS)
def test_the_objective_never_falls(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = path.with_name(path.name.replace("seed0", "seed1"))
    matching = Frame.of(oc.load(path), oc.load(other)).matching()
    values = [matching.objective()]
    visit = Matching.visit

    def recorded(self: Matching, k: int) -> bool:
        gained = visit(self, k)
        values.append(self.objective())
        assert gained == (values[-1] != values[-2])
        return gained

    monkeypatch.setattr(Matching, "visit", recorded)
    assert matching.run() > 1
    assert len(values) > 2 * len(matching.branches)
    assert (np.diff(values) >= 0).all()


@pytest.mark.parametrize("path", OTHERS)
def test_gains_that_are_kept_are_those_of_the_weights_as_they_lie(path: Path) -> None:
    other = path.with_name(path.name.replace("seed0", "seed1"))
    matching = Frame.of(oc.load(path), oc.load(other)).matching()
    kept = 0
    for _ in range(3):
        matching.run(sweeps=1)
        kept += len(matching.gains)
        for k, table in matching.gains.items():
            fresh = GainTable(matching.branches[k], matching.ours, matching.moved)
            for one, again in ((table.plain, fresh.plain), (table.turning, fresh.turning)):
                assert (one is None) == (again is None)
                if one is not None and again is not None:
                    np.testing.assert_allclose(one, again, rtol=0, atol=1e-5 * np.abs(again).max())
    assert kept


@pytest.mark.parametrize("alike", [0.0, np.inf])
def test_large_models_go_on_from_the_better_start(alike: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_weights, "ALIKE", alike)
    matching = Frame.of(
        *(oc.load(ROOT / "models" / f"digits_resnet_seed{k}.onnx") for k in (0, 1))
    ).matching()
    for start in range(4):
        values = []
        misled = [np.random.default_rng(start) for _ in range(2)]
        for rng in (misled[0], None):
            matching.reset()
            if rng is not None:
                matching.shuffle(rng)
                shuffled = matching.objective()
            matching.run(sweeps=1)
            values.append(matching.objective())
        matching.reset()
        monkeypatch.setattr(Matching, "from_signatures", lambda self, rng=misled[1]: self.shuffle(rng))
        chosen = by_weights._promising(matching, lambda _: None).objective()
        assert chosen == (shuffled if alike == np.inf and shuffled > 0 else max(values))
