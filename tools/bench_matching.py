"""Measure weight matching beside Git Re-Basin's algorithm, on the same parameters in the same process.

The peer is Algorithm 1 of "Git Re-Basin" (Ainsworth, Hayase and Srinivasa 2023) written here from the paper:
it starts from the identity and visits the permutable dimensions in random order; the gains of a dimension are
contractions of every parameter that has it, the other model's moved along all its other axes; an assignment
takes the best, until a sweep gains nothing. It knows one permutation for each dimension, so it moves the
orbits that have nothing nested in them; both sides are scored by the same sum over all parameters.

Each pair is matched in a process of its own with one thread, and processor seconds are told. The time that
brings both models to one scale is told apart: both sides start from its result. Pairs made here, of
ResNet-50s with folded normalizations (tools/synthetic.py):

- *random*: two seeds, nothing to be found;
- *uneven*: two seeds whose channels differ in size, as those of trained models do: harder assignments;
- *planted*: a model and its permuted copy with noise of half of each tensor's deviation.

::

    python tools/bench_matching.py
    python tools/bench_matching.py --made random --seeds 3 --json
    python tools/bench_matching.py --made --pair a.onnx b.onnx --pair a.onnx c.onnx
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import onnxcanon as oc
from onnxcanon.alignment.by_weights import match_weights
from onnxcanon.alignment.frame import Frame
from onnxcanon.alignment.weight_matching import Matching
from onnxcanon.settings import Settings
from onnxcanon.symmetry import symmetry
from onnxcanon.transform import Transform

Singles = NDArray[np.float32]
Assign = Callable[[NDArray[Any]], NDArray[np.int64]]

NOISE = 0.5
"""Of a planted pair, in deviations of each tensor."""
SWEEPS = 100
MADE = ("random", "uneven", "planted")
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Matched:
    """One search: processor seconds, sweeps of all its starts together, and the objective reached."""

    method: str
    seconds: float
    sweeps: int
    objective: float


@dataclass(slots=True)
class Measured:
    """A pair: the seconds it takes to bring both models to one scale, and every search."""

    pair: str
    weights: int
    identity: float
    frame_seconds: float
    found: list[Matched] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Site:
    """An axis of a parameter that a dimension permutes: the dimension's units, each with its positions."""

    dimension: int
    name: str
    axis: int
    slots: NDArray[np.int64]

    def order(self, permutation: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each position of the axis comes from."""
        out = np.empty(self.slots.size, np.int64)
        out[self.slots] = self.slots[permutation]
        return out


def sites(matching: Matching) -> list[Site]:
    """What the peer permutes: orbits with one permutation each, on whole axes."""
    out = []
    for k, branch in enumerate(matching.branches):
        mine = [Site(k, c.rows.name, c.rows.axes[0], c.slots) for c in branch.incidences]
        whole = all(len(c.rows.axes) == 1 and c.slots.size == c.rows.count for c in branch.incidences)
        if mine and whole and not branch.children:
            out += mine
    return out


def rebasin(
    ours: Mapping[str, Singles],
    theirs: Mapping[str, Singles],
    where: Sequence[Site],
    assign: Assign,
    seed: int,
) -> tuple[dict[str, Singles], int]:
    """Git Re-Basin's weight matching; the moved parameters and the number of sweeps."""
    rng = np.random.default_rng(seed)
    by_dimension: dict[int, list[Site]] = {}
    by_name: dict[str, list[Site]] = {}
    for site in where:
        by_dimension.setdefault(site.dimension, []).append(site)
        by_name.setdefault(site.name, []).append(site)
    permutation = {k: np.arange(len(mine[0].slots)) for k, mine in by_dimension.items()}

    def moved(name: str, but: int = -1) -> Singles:
        """A parameter of the other model, permuted along all axes but one."""
        array = theirs[name]
        for site in by_name.get(name, ()):
            if site.axis != but:
                array = np.take(array, site.order(permutation[site.dimension]), axis=site.axis)
        return array

    def gains(k: int) -> Singles:
        size = len(permutation[k])
        total = np.zeros((size, size), np.float32)
        for site in by_dimension[k]:
            one, other = (
                np.moveaxis(array, site.axis, 0)[site.slots.ravel()].reshape(size, -1)
                for array in (ours[site.name], moved(site.name, but=site.axis))
            )
            total += one @ other.T
        return total

    sweeps, rising = 0, True
    while rising and sweeps < SWEEPS:
        sweeps, rising = sweeps + 1, False
        for k in rng.permutation(list(by_dimension)).tolist():
            gain, rows = gains(k), np.arange(len(permutation[k]))
            chosen = assign(gain)
            before, after = (float(gain[rows, p].sum(dtype=np.float64)) for p in (permutation[k], chosen))
            permutation[k] = chosen
            rising |= after > before + 1e-12
    return {name: moved(name) for name in theirs}, sweeps


def scipy_assign(gain: NDArray[Any]) -> NDArray[np.int64]:
    """The columns of the largest sum."""
    from scipy.optimize import linear_sum_assignment

    return np.asarray(linear_sum_assignment(gain, maximize=True)[1], np.int64)


def lapx_assign(gain: NDArray[Any]) -> NDArray[np.int64]:
    """The same by lapx, if that is installed."""
    from lap import lapjvr

    _, _, columns = lapjvr(-gain.astype(np.float64))
    return np.asarray(columns, np.int64)


def solvers() -> dict[str, Assign]:
    """The assignments to run the peer with."""
    out: dict[str, Assign] = {"scipy": scipy_assign}
    try:
        import lap  # noqa: F401
    except ImportError:
        return out
    return {**out, "lapx": lapx_assign}


def objective(ours: Mapping[str, Singles], theirs: Mapping[str, Singles]) -> float:
    """The sum over all parameters of the inner products."""
    return sum(
        float(np.einsum("i,i->", ours[n].ravel(), a.ravel(), dtype=np.float64)) for n, a in theirs.items()
    )


def measure(pair: str, one: Path, other: Path, seeds: int) -> Measured:
    """Match one pair by the peer, once for every seed, and by onnxcanon."""
    from scipy.optimize import linear_sum_assignment  # noqa: F401  (imports are not measured)

    start = time.process_time()
    frame = Frame.of(oc.load(one), oc.load(other))
    matching = frame.matching()
    taken = time.process_time() - start
    ours, theirs = matching.ours, matching.start
    out = Measured(pair, sum(a.size for a in ours.values()), objective(ours, theirs), taken)
    for seed in range(seeds):
        sweeps: list[str] = []
        start = time.process_time()
        fresh = Matching(matching.symmetry, ours, theirs)
        found = match_weights(fresh, Settings(seed=seed, progress=sweeps.append))
        taken = time.process_time() - start
        out.found.append(Matched("onnxcanon", taken, len(sweeps), objective(ours, _moved(found, theirs))))
    where = sites(matching)
    for name, assign in solvers().items():
        for seed in range(seeds):
            start = time.process_time()
            moved, count = rebasin(ours, theirs, where, assign, seed)
            taken = time.process_time() - start
            out.found.append(Matched(f"Git Re-Basin, {name}", taken, count, objective(ours, moved)))
    return out


def _moved(found: Transform, theirs: Mapping[str, Singles]) -> dict[str, Singles]:
    actions = found.actions
    return {name: actions[name](array) if name in actions else array for name, array in theirs.items()}


def make(kind: str, folder: Path) -> tuple[Path, Path]:
    """Write a pair of ResNet-50s."""
    tool = str(Path(__file__).with_name("synthetic.py"))
    paths = folder / f"{kind}_0.onnx", folder / f"{kind}_1.onnx"
    options = ["--uneven"] if kind == "uneven" else []
    for seed, path in enumerate(paths[: 1 if kind == "planted" else 2]):
        subprocess.run([sys.executable, tool, "resnet", str(path), "--seed", str(seed), *options], check=True)
    if kind == "planted":
        plant(*paths)
    return paths


def plant(path: Path, target: Path) -> None:
    """Write a permuted copy with noise."""
    model, rng = oc.load(path), np.random.default_rng(0)
    known = symmetry(model)
    arrays = {name: model.tensor(name) for name in known.classes}
    noisy = {
        name: array + np.float32(NOISE * array.std()) * rng.standard_normal(array.shape, dtype=np.float32)
        for name, array in arrays.items()
    }
    known.action(known.solution.random(rng)).apply(model.with_tensors(noisy)).save(target)


def show(found: Measured) -> list[str]:
    """A row for every search, and what the peers take in units of ours on average."""
    lines = [
        f"{found.pair}: {found.weights / 1e6:.2f} million weights, objective {found.identity:.6g}"
        f" as they are, {found.frame_seconds:.1f} s of CPU to bring both to one scale",
        f"  {'':24}  {'CPU s':>8}  {'sweeps':>6}  {'s/sweep':>8}  {'objective':>12}  {'x CPU':>6}",
    ]
    own = float(np.mean([m.seconds for m in found.found if m.method == "onnxcanon"]))
    lines += [
        f"  {m.method:24}  {m.seconds:8.3f}  {m.sweeps:6}  {m.seconds / max(m.sweeps, 1):8.4f}"
        f"  {m.objective:12.6f}  {m.seconds / own:6.1f}"
        for m in found.found
    ]
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure weight matching beside Git Re-Basin's algorithm.")
    parser.add_argument("--made", nargs="*", choices=MADE, help="pairs to make (default: all)")
    parser.add_argument("--pair", nargs=2, type=Path, action="append", default=[], help="two models to match")
    parser.add_argument("--seeds", type=int, default=1, help="how often each search is run (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--once", help=argparse.SUPPRESS)  # measure the pair in this process, by this name
    given = parser.parse_args(arguments)
    if given.once:
        one, other = given.pair[0]
        print(json.dumps(asdict(measure(given.once, one, other, given.seeds))))
        return
    results = []
    with tempfile.TemporaryDirectory() as folder:
        pairs = [(kind, make(kind, Path(folder))) for kind in (MADE if given.made is None else given.made)]
        pairs += [(f"{one.parent.name}/{one.stem} {other.stem}", (one, other)) for one, other in given.pair]
        for name, paths in pairs:
            once = [sys.executable, __file__, "--seeds", str(given.seeds), "--once", name]
            once += ["--pair", *map(str, paths)]
            env = {**os.environ, **dict.fromkeys(THREADS, "1")}
            done = subprocess.run(once, check=True, stdout=subprocess.PIPE, env=env)
            raw = json.loads(done.stdout)
            results.append(Measured(**{**raw, "found": [Matched(**m) for m in raw["found"]]}))
            if not given.json:
                print("\n".join(show(results[-1])), flush=True)
    if given.json:
        print(json.dumps([asdict(r) for r in results], indent=2))


if __name__ == "__main__":
    main()
