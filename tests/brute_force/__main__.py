"""Compare many graphs: python -m tests.brute_force --graphs 500."""

from __future__ import annotations

import argparse
import time
from collections import Counter

from tests.brute_force.compare import Result, compare
from tests.brute_force.graphs import generate
from tests.fuzz.graphs import Case
from tests.fuzz.minimize import describe, minimize


def smallest(case: Case, result: Result, seed: int) -> Case:
    """The case cut down as long as it ends in the same way."""

    def alike(other: Case) -> bool:
        try:
            return compare(other, seed).word == result.word
        except Exception:  # what is left over does not run, or has no parameter
            return False

    return minimize(case, alike)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="*", help="just these seeds")
    parser.add_argument("--show", nargs="*", default=[], help="describe the graphs that end so, cut down")
    options = parser.parse_args()
    start, counts, failed = time.perf_counter(), Counter[str](), 0
    for seed in options.only or range(options.seed, options.seed + options.graphs):
        case = generate(seed)
        result = compare(case, seed)
        counts[result.word] += 1
        failed += result.failed
        if result.failed or result.word in options.show:
            print(f"seed {seed}: {result.word}, {result.ours} of {result.whole}", flush=True)
            if result.word in options.show:
                print(describe(smallest(case, result, seed)), flush=True)
    for word, count in counts.most_common():
        print(f"{count:5d}  {word}")
    print(f"{time.perf_counter() - start:.0f} s")
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
