"""What merging is worth: midpoints, barriers and averages of all for families of models trained apart.

    python tools/merging.py FOLDER... --methods weights activations --points 5 --jobs 4

A folder holds seed_*.onnx, `eval.npz` (inputs and labels `y`) and `calib.npz` (inputs that statistics are
measured on). For every pair and every way of bringing one model to the other: the accuracy of the average and
the height of the barrier in the error, with and without repair; then the average of all models. Printed as
Markdown tables; means over pairs, the worst pair, and how many repaired averages are more accurate than the
plain one of their pair.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path

import numpy as np

import onnxcanon as oc
from onnxcanon.choices import METHODS

NONE, CANONICAL, JOINT = "none", "canonical", "annealing-to-mean"
"""Ways beside the methods of `align`: as they are, in the canonical basis, and by annealing that judges the
average as it will be repaired."""
REPAIRS = ("none", "rescale")
CPU = "cpu"
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass
class Row:
    """What was measured with one way of aligning, one number for each pair."""

    method: str
    accuracy: dict[str, list[float]] = field(default_factory=lambda: {r: [] for r in REPAIRS})
    barrier: dict[str, list[float]] = field(default_factory=lambda: {r: [] for r in REPAIRS})
    seconds: list[float] = field(default_factory=list)

    def told(self, plain: Row) -> list[str]:
        """The row of the table; a repaired average is compared with the plain one of the same pair."""
        cells = [self.method]
        for repair in REPAIRS:
            right = self.accuracy[repair]
            cells += [f"{np.mean(right):.4f}", f"{np.min(right):.4f}", f"{np.mean(self.barrier[repair]):.4f}"]
        better = np.greater(self.accuracy[REPAIRS[-1]], plain.accuracy[REPAIRS[0]])
        return [*cells, f"{better.sum()} of {better.size}", f"{np.mean(self.seconds):.2f}"]


class Family:
    """Models of one architecture, and the data they are judged on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = sorted(folder.glob("seed_*.onnx"))
        self.models = [oc.load(path) for path in self.paths]
        self.data = dict(np.load(folder / "eval.npz"))
        self.calibration = dict(np.load(folder / "calib.npz"))

    def accuracy(self, model: oc.Model) -> float:
        """The share of labels that a model gets right."""
        found = oc.evaluate(model, self.data, device=CPU)[0].accuracy
        assert found is not None, "the labels are not classes"
        return found


def pair(folder: Path, method: str, points: int, i: int, j: int) -> Row:
    """One pair, with one way of aligning."""
    family, row = Family(folder), Row(method)
    a, b = family.models[i], family.models[j]
    start = time.process_time()
    if method == CANONICAL:
        a, b = (oc.canonicalize(m, scale="balanced", verify=False).model for m in (a, b))
    elif method == JOINT:
        whole = oc.merge(
            [a, b], align="annealing", to="mean", repair=REPAIRS[-1], data=family.calibration, verify=False,
            device=CPU,
        )  # fmt: skip
        a, b = (gathered.model for gathered in whole.alignments)
    elif method != NONE:
        b = oc.align(a, b, method=method, scale="norms", data=family.calibration, device=CPU).model
    row.seconds.append(time.process_time() - start)
    for repair in REPAIRS:
        curve = oc.barrier(
            a, b, family.data, points=points, align=NONE, repair=repair, repair_data=family.calibration,
            device=CPU,
        )  # fmt: skip
        assert curve.accuracy is not None
        assert curve.barrier_error is not None
        row.accuracy[repair].append(curve.accuracy[points // 2])
        row.barrier[repair].append(curve.barrier_error)
    print(f"{folder.name} {method} {i},{j}", file=sys.stderr)
    return row


def joined(rows: Sequence[Row]) -> Row:
    """The rows of several pairs as one."""
    whole = Row(rows[0].method)
    for row in rows:
        whole.seconds += row.seconds
        for repair in REPAIRS:
            whole.accuracy[repair] += row.accuracy[repair]
            whole.barrier[repair] += row.barrier[repair]
    return whole


def everything(folder: Path, method: str, to: str) -> list[str]:
    """The average of all models, with one way of aligning: accuracies without and with repair."""
    family, cells = Family(folder), [method, to if method in METHODS else ""]
    for repair in REPAIRS:
        found = oc.merge(
            family.models, align=method, to=to, repair=repair, data=family.calibration, verify=False,
            device=CPU,
        )  # fmt: skip
        cells.append("refused" if found.model is None else f"{family.accuracy(found.model):.4f}")
    print(f"{folder.name} all by {method} to {to}", file=sys.stderr)
    return cells


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(folder: Path, given: argparse.Namespace, pool: Executor) -> str:
    """Both tables of a family."""
    family, methods = Family(folder), list(dict.fromkeys([NONE, *given.methods]))
    count = len(family.models)
    both = list(combinations(range(count), 2))
    ways = [(m, to) for m in methods if m != JOINT for to in (given.to if m in METHODS else given.to[:1])]
    # What takes longest is started first.
    averages = [pool.submit(everything, folder, *way) for way in reversed(ways)][::-1]
    found = {m: [pool.submit(pair, folder, m, given.points, *p) for p in both] for m in reversed(methods)}
    rows = {method: joined([one.result() for one in found[method]]) for method in methods}
    ends = [family.accuracy(model) for model in family.models]
    ensemble = oc.evaluate(family.models, family.data, ensemble=True, device=CPU)[-1].accuracy
    one = table(
        ["aligned by", *["midpoint", "worst", "barrier"], *["repaired", "worst", "barrier"], "above plain",
         "seconds"],
        [row.told(rows[NONE]) for row in rows.values()],
    )  # fmt: skip
    other = table(["aligned by", "to", "accuracy", "repaired"], [average.result() for average in averages])
    return (
        f"### {folder.name}\n\nThe {count} models: mean accuracy {np.mean(ends):.4f}, worst"
        f" {np.min(ends):.4f}; their ensemble {ensemble:.4f}. All {len(both)} pairs:\n\n"
        f"{one}\n\nAll {count} averaged:\n\n{other}\n"
    )


def main() -> None:
    """Print the tables of every folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--methods", nargs="+", default=[NONE, CANONICAL, *METHODS, JOINT], metavar="METHOD")
    parser.add_argument("--points", type=int, default=5, help="of a curve, an odd number (default: 5)")
    parser.add_argument("--to", nargs="+", default=["reference", "mean"], help="what all are aligned to")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each (default: 1)")
    given = parser.parse_args()
    os.environ |= dict.fromkeys(THREADS, "1")
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        for folder in given.folders:
            print(report(folder, given, pool), flush=True)


if __name__ == "__main__":
    main()
