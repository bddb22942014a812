"""What merging is worth: midpoints, barriers and averages of all for families of models trained apart.

    python tools/merging.py FOLDER... --methods weights activations --points 5

A folder holds seed_*.onnx, `eval.npz` (inputs and labels `y`) and `calib.npz` (inputs that statistics are
measured on). For every pair and every way of bringing one model to the other: the accuracy of the average and
the height of the barrier in the error, with and without repair; then the average of all models. Printed as
Markdown tables; means over pairs, and the worst pair.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

import onnxcanon as oc
from onnxcanon.alignment import METHODS

NONE, CANONICAL = "none", "canonical"
REPAIRS = ("none", "rescale")


@dataclass
class Row:
    """What was measured with one way of aligning, one number for each pair."""

    method: str
    accuracy: dict[str, list[float]] = field(default_factory=lambda: {r: [] for r in REPAIRS})
    barrier: dict[str, list[float]] = field(default_factory=lambda: {r: [] for r in REPAIRS})
    seconds: list[float] = field(default_factory=list)

    def told(self) -> list[str]:
        """The row of the table."""
        cells = [self.method]
        for repair in REPAIRS:
            right = self.accuracy[repair]
            cells += [f"{np.mean(right):.4f}", f"{np.min(right):.4f}", f"{np.mean(self.barrier[repair]):.4f}"]
        return [*cells, f"{np.mean(self.seconds):.2f}"]


class Family:
    """Models of one architecture, and the data they are judged on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = sorted(folder.glob("seed_*.onnx"))
        self.models = [oc.load(path) for path in self.paths]
        self.data = dict(np.load(folder / "eval.npz"))
        self.calibration = dict(np.load(folder / "calib.npz"))
        self.ends = [self.accuracy(model) for model in self.models]

    def accuracy(self, model: oc.Model) -> float:
        """The share of labels that a model gets right."""
        found = oc.evaluate(model, self.data)[0].accuracy
        assert found is not None, "the labels are not classes"
        return found

    def labelled(self) -> dict[str, np.ndarray]:
        """What methods that run the models are given: the calibration data, with labels if it has any."""
        return self.calibration


def pairs(family: Family, method: str, points: int) -> Row:
    """Every pair, with one way of aligning."""
    row = Row(method)
    for i, j in combinations(range(len(family.models)), 2):
        a, b = family.models[i], family.models[j]
        start = time.process_time()
        if method == CANONICAL:
            a, b = (oc.canonicalize(m, scale="balanced", verify=False).model for m in (a, b))
        elif method != NONE:
            b = oc.align(a, b, method=method, scale="norms", data=family.labelled()).model
        row.seconds.append(time.process_time() - start)
        for repair in REPAIRS:
            curve = oc.barrier(
                a, b, family.data, points=points, align=NONE, repair=repair, repair_data=family.calibration
            )
            assert curve.accuracy is not None
            assert curve.barrier_error is not None
            row.accuracy[repair].append(curve.accuracy[points // 2])
            row.barrier[repair].append(curve.barrier_error)
        print(f"{family.folder.name} {method} {i},{j}", file=sys.stderr)
    return row


def everything(family: Family, method: str, to: str) -> list[str]:
    """The average of all models, with one way of aligning: accuracies without and with repair."""
    cells = [method, to if method in METHODS else ""]
    for repair in REPAIRS:
        found = oc.merge(
            family.models, align=method, to=to, repair=repair, data=family.labelled(), verify=False
        )
        cells.append("refused" if found.model is None else f"{family.accuracy(found.model):.4f}")
    print(f"{family.folder.name} all by {method} to {to}", file=sys.stderr)
    return cells


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(family: Family, methods: Sequence[str], points: int, targets: Sequence[str]) -> str:
    """Both tables of a family."""
    ensemble = oc.evaluate(family.models, family.data, ensemble=True)[-1].accuracy
    count = len(family.models)
    head = ["aligned by", "midpoint", "worst", "barrier", "repaired", "worst", "barrier", "seconds"]
    one = table(head, [pairs(family, method, points).told() for method in methods])
    ways = [(m, to) for m in methods for to in (targets if m in METHODS else targets[:1])]
    other = table(
        ["aligned by", "to", "accuracy", "repaired"], [everything(family, method, to) for method, to in ways]
    )
    return (
        f"### {family.folder.name}\n\nThe {count} models: mean accuracy {np.mean(family.ends):.4f}, worst"
        f" {np.min(family.ends):.4f}; their ensemble {ensemble:.4f}."
        f" All {count * (count - 1) // 2} pairs:\n\n"
        f"{one}\n\nAll {count} averaged:\n\n{other}\n"
    )


def main() -> None:
    """Print the tables of every folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--methods", nargs="+", default=[NONE, CANONICAL, *METHODS], metavar="METHOD")
    parser.add_argument("--points", type=int, default=5, help="of a curve, an odd number (default: 5)")
    parser.add_argument("--to", nargs="+", default=["reference", "mean"], help="what all are aligned to")
    given = parser.parse_args()
    for folder in given.folders:
        print(report(Family(folder), given.methods, given.points, given.to), flush=True)


if __name__ == "__main__":
    main()
