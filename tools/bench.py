"""Measure how long onnxcanon takes: to analyze models, to start, and to canonicalize one file.

- *analysis*: `analyze`, opening the file included, after everything is imported; the best of a few runs;
- *start*: whole processes running `onnxcanon --help`, beside ones that run an empty Python program;
- *growth* (`--growth`): `analyze` on made models without weights (tools/synthetic.py), with the peak memory
  of the process: transformers of 12 to 96 layers, a ShuffleNet and GroupNorm spelled by Reshape;
- *canonicalization*: choosing the form and writing it, without verification, beside copying the file and
  hashing it with BLAKE3. All three read the same cached file, so the ratios carry over between machines.

- *names* (`--names`): `fingerprint` of models with external data (a transformer of 110 million weights and
  a ResNet-50, made here) beside hashing their files, in processes of their own, where imports (the row
  `start`) do not count; `compare` of two permuted copies, and of two that are permuted and rescaled by any
  factors.

It takes a minute::

    python tools/bench.py models
    python tools/bench.py models my/collection --model large.onnx --json
    python tools/bench.py models --growth
    python tools/bench.py models --names
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import blake3

import onnxcanon as oc

SLOWEST_SHOWN = 10
GROWTH = (("transformer", 12), ("transformer", 24), ("transformer", 48), ("transformer", 96), ("shuffle", 16),
          ("group-norm", 16))  # fmt: skip
ONCE = """
import json, resource, sys, time
import onnxcanon as oc
oc.analyze(sys.argv[2])
start = time.perf_counter()
nodes, found = len(oc.load(sys.argv[1]).ir.graph), oc.analyze(sys.argv[1])
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
out = {"nodes": nodes, "seconds": seconds, "peak_megabytes": peak, "log10_orbit": found.log10_orbit}
print(json.dumps(out))
"""
"""One analysis in a process of its own, after another that imports everything."""


NAMES: tuple[tuple[str, list[str]], ...] = (("transformer", ["--vocabulary", "32000"]), ("resnet", []))
TWINS = """
import sys
import numpy as np
import onnxcanon as oc
from onnxcanon.symmetry import symmetry
path, moved, scaled = sys.argv[1:]
oc.scramble(path, seed=1, only=("permute",)).model.save(moved)
model = oc.load(path)
symmetry(model).random(np.random.default_rng(1), pow2=False).apply(model).save(scaled)
"""
"""Write a permuted and a permuted and rescaled twin of a model."""
USAGE = """
import json, resource, sys, time
import onnxcanon as oc
start = time.perf_counter()
{work}
wall = time.perf_counter() - start
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024]))
"""
"""Processor seconds of a whole process, seconds that its work took, and its peak memory in megabytes."""
WORKS = {
    "python": "pass",
    "start": "import onnxcanon.model; from onnxcanon.canonical import choose_scales, colours, digest",
    "hash": "import blake3; [blake3.blake3().update_mmap(p) for p in sys.argv[1:2]]",
    "fingerprint": "oc.fingerprint(sys.argv[2])",
    "compare permuted": "assert oc.compare(sys.argv[2], sys.argv[3]).verdict == 'symmetric'",
    "compare rescaled": "assert oc.compare(sys.argv[2], sys.argv[4]).verdict == 'symmetric'",
}


@dataclass(frozen=True, slots=True)
class Named:
    """What it takes to name a made model and to compare it: processor seconds and peak megabytes of whole
    processes, and the time that their work takes, by what they do."""

    kind: str
    megabytes: float
    seconds: dict[str, float]
    wall_seconds: dict[str, float]
    peak_megabytes: dict[str, float]


@dataclass(frozen=True, slots=True)
class Analyzed:
    """The analysis of one model; `seconds` is None where it failed, for the reason in `error`."""

    model: str
    megabytes: float
    nodes: int
    seconds: float | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Started:
    """Wall time of whole processes, in seconds: the median of several."""

    help_seconds: float
    python_seconds: float
    runs: int


@dataclass(frozen=True, slots=True)
class Grown:
    """The analysis of a made model, in a process of its own."""

    kind: str
    layers: int
    nodes: int
    seconds: float
    peak_megabytes: float
    log10_orbit: float


@dataclass(frozen=True, slots=True)
class Canonicalized:
    """One file: seconds to copy it, to hash it, to choose its canonical form, and to write that."""

    model: str
    megabytes: float
    copy_seconds: float
    hash_seconds: float
    choose_seconds: float
    write_seconds: float

    @property
    def seconds(self) -> float:
        """Choosing and writing."""
        return self.choose_seconds + self.write_seconds


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def best(work: Callable[[], object], runs: int) -> float:
    """The shortest of several runs: what else the machine does only ever adds."""
    return min(seconds(work) for _ in range(runs))


def models_in(places: Sequence[Path]) -> list[Path]:
    """The files named, and the ONNX files in the folders named."""
    return [
        path for place in places for path in (sorted(place.glob("*.onnx")) if place.is_dir() else [place])
    ]


def measure_analysis(path: Path, runs: int) -> Analyzed:
    """Analyze one model; the first run warms the file cache and does not count."""
    megabytes = path.stat().st_size / 1e6
    try:
        model = oc.load(path)
        oc.analyze(path)
        taken = best(lambda: oc.analyze(path), runs)
    except Exception as error:  # one bad file is no reason to lose the others
        return Analyzed(str(path), megabytes, 0, None, str(error) or type(error).__name__)
    return Analyzed(str(path), megabytes, len(model.ir.graph), taken)


def measure_start(runs: int) -> Started:
    """Time `onnxcanon --help` from outside, the first process aside."""
    commands = {"help": ["-m", "onnxcanon", "--help"], "python": ["-c", ""]}
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(runs + 1):
        for name, arguments in commands.items():
            run = partial(subprocess.run, [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            spent = seconds(run)
            if turn:
                taken[name].append(spent)
    return Started(statistics.median(taken["help"]), statistics.median(taken["python"]), runs)


def measure_growth(kind: str, layers: int, runs: int) -> Grown:
    """Make a model and analyze it; the best of a few processes."""
    tools = Path(__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        model, small = Path(folder, "model.onnx"), Path(folder, "small.onnx")
        for path, count in ((model, layers), (small, 1)):
            make = [sys.executable, str(tools / "synthetic.py"), kind, str(path), "--layers", str(count)]
            subprocess.run(make, check=True)
        once = [sys.executable, "-c", ONCE, str(model), str(small)]
        found = [
            json.loads(subprocess.run(once, check=True, capture_output=True).stdout) for _ in range(runs)
        ]
    return Grown(kind, layers, **min(found, key=lambda f: f["seconds"]))


def measure_canonicalization(path: Path, runs: int) -> Canonicalized:
    """Canonicalize one file, next to copying and hashing it; weights outside the file are not copied."""
    form = oc.canonicalize(path, verify=False).model  # imports what is needed
    with tempfile.TemporaryDirectory() as folder:
        copy, target = Path(folder, "copy.onnx"), Path(folder, "canonical.onnx")
        copied = best(lambda: shutil.copyfile(path, copy), runs)
        hashed = best(lambda: blake3.blake3(path.read_bytes()).digest(), runs)
        chosen = best(lambda: oc.canonicalize(path, verify=False), runs)
        written = best(lambda: form.save(target), runs)
    return Canonicalized(str(path), path.stat().st_size / 1e6, copied, hashed, chosen, written)


def measure_names(kind: str, options: Sequence[str], runs: int) -> Named:
    """Fingerprint and compare a made model with random weights; the best of a few processes each."""
    tools = Path(__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        model, moved, scaled = (Path(folder, f"{name}.onnx") for name in ("model", "moved", "scaled"))
        make = [sys.executable, str(tools / "synthetic.py"), kind, str(model), "--seed", "0", *options]
        subprocess.run(make, check=True)
        subprocess.run([sys.executable, "-c", TWINS, *map(str, (model, moved, scaled))], check=True)
        data = model.with_name(f"{model.name}.data")
        files = [str(path) for path in (data, model, moved, scaled)]
        seconds, walls, peaks = {}, {}, {}
        for name, work in WORKS.items():
            once = [sys.executable, "-c", USAGE.format(work=work), *files]
            found = [
                json.loads(subprocess.run(once, check=True, capture_output=True).stdout) for _ in range(runs)
            ]
            seconds[name], walls[name], peaks[name] = (min(values) for values in zip(*found, strict=True))
        return Named(kind, data.stat().st_size / 1e6, seconds, walls, peaks)


def show_names(found: Sequence[Named]) -> list[str]:
    """Rows for each model: processor and wall time, and both, start-up taken off, in units of hashing."""
    title = "names (whole processes)"
    lines = [f"{title:26}  {'CPU ms':>8}  {'x hash':>7}  {'wall ms':>8}  {'x hash':>7}  {'peak MB':>8}"]
    for named in found:
        lines.append(f"{named.kind} ({named.megabytes:.0f} MB)")
        for name in named.seconds:
            start = "python" if name in ("python", "start", "hash") else "start"
            row = f"  {name:24}"
            for taken in (named.seconds, named.wall_seconds):
                ratio = (taken[name] - taken[start]) / max(taken["hash"] - taken["python"], 1e-9)
                row += f"  {1e3 * taken[name]:8.0f}  {ratio:7.1f}"
            lines.append(f"{row}  {named.peak_megabytes[name]:8.0f}")
    return lines


def show_analysis(found: Sequence[Analyzed]) -> list[str]:
    """The slowest models, then what all come to."""
    done = sorted((a for a in found if a.seconds is not None), key=lambda a: -(a.seconds or 0))
    width = max((len(a.model) for a in done[:SLOWEST_SHOWN]), default=5)
    lines = [f"{'analysis':{width}}  {'MB':>6}  {'nodes':>6}  {'ms':>7}"]
    lines += [
        f"{a.model:{width}}  {a.megabytes:6.1f}  {a.nodes:6}  {1e3 * (a.seconds or 0):7.1f}"
        for a in done[:SLOWEST_SHOWN]
    ]
    taken = [a.seconds or 0 for a in done]
    if taken:
        median, largest = 1e3 * statistics.median(taken), 1e3 * max(taken)
        lines.append(f"{len(done)} models: median {median:.1f} ms, largest {largest:.1f} ms")
    return [*lines, *(f"{a.model} failed: {a.error}" for a in found if a.seconds is None)]


def show_start(found: Started) -> list[str]:
    """One line: the command line beside an empty program."""
    return [
        f"onnxcanon --help: {1e3 * found.help_seconds:.0f} ms, an empty Python program "
        f"{1e3 * found.python_seconds:.0f} ms (medians of {found.runs} processes)"
    ]


def show_growth(found: Sequence[Grown]) -> list[str]:
    """A row for each model."""
    lines = [f"{'growth':12}  {'layers':>6}  {'nodes':>6}  {'ms':>8}  {'us/node':>8}  {'peak MB':>8}"]
    lines += [
        f"{g.kind:12}  {g.layers:6}  {g.nodes:6}  {1e3 * g.seconds:8.0f}  {1e6 * g.seconds / g.nodes:8.0f}"
        f"  {g.peak_megabytes:8.0f}"
        for g in found
    ]
    return lines


def show_canonicalization(found: Canonicalized) -> list[str]:
    """Each step in milliseconds, and as a multiple of copying and of hashing the file."""
    rows = {
        "copy the file": found.copy_seconds,
        "hash it (BLAKE3)": found.hash_seconds,
        "choose its canonical form": found.choose_seconds,
        "write that": found.write_seconds,
        "choose and write": found.seconds,
    }
    lines = [f"{found.model} ({found.megabytes:.1f} MB)"]
    lines.append(f"{'canonicalization':26}  {'ms':>8}  {'x copy':>7}  {'x hash':>7}")
    for what, taken in rows.items():
        copies, hashes = taken / found.copy_seconds, taken / found.hash_seconds
        lines.append(f"{what:26}  {1e3 * taken:8.1f}  {copies:7.1f}  {hashes:7.1f}")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure how long onnxcanon takes.")
    parser.add_argument("models", nargs="+", type=Path, help="models, or folders of them, to analyze")
    parser.add_argument("--model", type=Path, help="the one to canonicalize (default: the largest)")
    parser.add_argument("--runs", type=int, default=3, help="how often each is repeated (default: 3)")
    parser.add_argument("--growth", action="store_true", help="also analyze made models of growing size")
    parser.add_argument("--names", action="store_true", help="also fingerprint and compare made models")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    given = parser.parse_args(arguments)
    paths = models_in(given.models)
    if not paths or given.runs < 1:
        parser.error("there are no models there" if not paths else "--runs is at least 1")

    analyzed = [measure_analysis(path, given.runs) for path in paths]
    started = measure_start(3 * given.runs)
    able = [a for a in analyzed if a.seconds is not None]
    if not able:
        parser.error(f"none of these models can be analyzed: {analyzed[0].error}")
    largest = max(able, key=lambda a: a.megabytes)
    canonicalized = measure_canonicalization(given.model or Path(largest.model), given.runs)
    grown = [measure_growth(kind, layers, given.runs) for kind, layers in GROWTH if given.growth]
    named = [measure_names(kind, options, given.runs) for kind, options in NAMES if given.names]
    if given.json:
        document: dict[str, Any] = {
            "machine": {"python": platform.python_version(), "processor": platform.machine()},
            "analysis": [asdict(a) for a in analyzed],
            "start": asdict(started),
            "growth": [asdict(g) for g in grown],
            "canonicalization": asdict(canonicalized),
            "names": [asdict(n) for n in named],
        }
        print(json.dumps(document, indent=2))
        return
    blocks = [show_analysis(analyzed), show_start(started), show_canonicalization(canonicalized)]
    blocks += [show_growth(grown)] if grown else []
    blocks += [show_names(named)] if named else []
    print("\n\n".join("\n".join(block) for block in blocks))


if __name__ == "__main__":
    main()
