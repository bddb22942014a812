"""Check many graphs: python -m tests.fuzz --graphs 2000 --seed 0."""

from __future__ import annotations

import argparse
import time

from tests.fuzz.check import Report
from tests.fuzz.graphs import Case
from tests.fuzz.minimize import describe, minimize, same_failure
from tests.fuzz.tally import fuzz


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="the first seed; graph k has seed + k")
    parser.add_argument("--only", type=int, nargs="*", help="just these seeds")
    parser.add_argument("--minimize", action="store_true", help="cut failing graphs down")
    parser.add_argument("--counts", action="store_true", help="list operators and barriers")
    options = parser.parse_args()
    start = time.perf_counter()

    def show(seed: int, case: Case, result: Report) -> None:
        print(f"seed {seed}: {result.problem}", flush=True)
        if options.minimize:
            print(describe(minimize(case, same_failure(result.problem, seed))), flush=True)

    tally = fuzz(options.only or range(options.seed, options.seed + options.graphs), show)
    if options.counts:
        for counts in (tally.operators, tally.barriers):
            print(", ".join(f"{k} {n}" for k, n in counts.most_common()))
    print(f"{tally}; {time.perf_counter() - start:.0f} s")
    raise SystemExit(bool(tally.findings))


if __name__ == "__main__":
    main()
