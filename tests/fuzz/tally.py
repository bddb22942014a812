"""Counts over many graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.fuzz.check import Report, check
from tests.fuzz.graphs import Case, generate


@dataclass
class Tally:
    """Counts over many graphs."""

    graphs: int = 0
    permuted: int = 0
    scaled: int = 0
    flipped: int = 0
    controlled: int = 0
    vacuous: int = 0
    worst: float = 0.0
    operators: Counter[str] = field(default_factory=Counter)
    barriers: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[int, str]] = field(default_factory=list)

    def add(self, seed: int, case: Case, report: Report) -> None:
        self.graphs += 1
        self.permuted += report.permuted
        self.scaled += report.scaled
        self.flipped += report.flipped
        self.controlled += report.control is True
        self.vacuous += report.control is False
        if not report.problem:
            self.worst = max(self.worst, report.error)
        self.operators.update({n.op_type for n in case.proto.graph.node})
        self.barriers.update(set(report.barriers))
        if report.problem:
            self.findings.append((seed, report.problem))

    def __str__(self) -> str:
        n = max(self.graphs, 1)
        return (
            f"{self.graphs} graphs, {len(self.findings)} findings; permutations {self.permuted / n:.0%}, "
            f"scales {self.scaled / n:.0%}, signs {self.flipped / n:.0%}; "
            f"control noticed {self.controlled / n:.0%}, vacuous {self.vacuous / n:.0%}; "
            f"largest difference {self.worst:.1e}"
        )


def fuzz(seeds: Iterable[int], report: Callable[[int, Case, Report], None] | None = None) -> Tally:
    """Check a graph for each seed."""
    tally = Tally()
    for seed in seeds:
        case = generate(seed)
        result = check(case, seed)
        tally.add(seed, case, result)
        if result.problem and report is not None:
            report(seed, case, result)
    return tally
