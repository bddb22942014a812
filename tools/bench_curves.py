"""Measure three ways of running a graph at many points between two sets of weights, on any device.

- *rebuilt*: a session for each point, from the whole model;
- *swapped*: a session for each point whose large weights are given as external initializers
  (`onnxcanon.runtime.weights.external`, what the verbs do on the CPU);
- *mixed*: a session that holds both sets and mixes them; what it makes stays on the device and is an input of
  a second session (`onnxcanon.runtime.weights.on_device`, what `barrier` does on CUDA).

Beside them *one*: the same runs of one open session, which no curve can beat. Each is warmed up with one
point. Told are wall and processor seconds, and the largest difference from *rebuilt* relative to the largest
output::

    python tools/bench_curves.py a.onnx b.onnx --points 25 --examples 256 --device cuda
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

import onnxcanon as oc
from onnxcanon.landscape.paths import cache_replacements, path
from onnxcanon.merging.averaging import expressed_in
from onnxcanon.runtime.inputs import input_specs
from onnxcanon.runtime.sessions import Session, open_session
from onnxcanon.runtime.weights.external import WeightSessions
from onnxcanon.runtime.weights.on_device import DeviceLine

Batch = Mapping[str, np.ndarray]
Outputs = list[np.ndarray]


def outputs(session: Session | DeviceLine, batches: Sequence[Batch]) -> Outputs:
    """The first output of every batch."""
    name = session.outputs[0].name
    return [session.run(batch, [name])[name] for batch in batches]


def examples(model: oc.Model, count: int, batch: int) -> list[Batch]:
    """Random inputs in batches; free dimensions are the batch's size."""
    rng = np.random.default_rng(0)
    shapes = {
        spec.name: [n if isinstance(n, int) else batch for n in spec.dims] for spec in input_specs(model.ir)
    }
    return [
        {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        for _ in range(-(-count // batch))
    ]


def one(a: oc.Model, b: oc.Model, batches: list[Batch], device: str) -> Iterator[Callable[[float], Outputs]]:
    """The same weights at every point."""
    with open_session(a, device=device, optimize=True) as session:
        yield lambda _: outputs(session, batches)


def rebuilt(
    a: oc.Model, b: oc.Model, batches: list[Batch], device: str
) -> Iterator[Callable[[float], Outputs]]:
    """A session from the whole model."""
    along = path("linear", a, b)

    def at(alpha: float) -> Outputs:
        with open_session(cache_replacements(along(alpha)), device=device, optimize=True) as session:
            return outputs(session, batches)

    yield at


def swapped(
    a: oc.Model, b: oc.Model, batches: list[Batch], device: str
) -> Iterator[Callable[[float], Outputs]]:
    """A session with external initializers."""
    along, swap = path("linear", a, b), WeightSessions(a, device=device, optimize=True)

    def at(alpha: float) -> Outputs:
        with swap.open(along(alpha)) as session:
            return outputs(session, batches)

    yield at


def mixed(
    a: oc.Model, b: oc.Model, batches: list[Batch], device: str
) -> Iterator[Callable[[float], Outputs]]:
    """Mixed weights that stay on the device."""
    with DeviceLine(a, b, device=device, optimize=True) as mix:
        yield lambda alpha: outputs(mix.at(alpha), batches)


WAYS = {way.__name__: way for way in (one, rebuilt, swapped, mixed)}


def main() -> None:
    """Print one line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    parser.add_argument("--points", type=int, default=25)
    parser.add_argument("--examples", type=int, default=256)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    given = parser.parse_args()
    a = oc.load(given.a)
    b = expressed_in(a, oc.load(given.b))
    batches = examples(a, given.examples, given.batch)
    alphas = [float(x) for x in np.linspace(0, 1, given.points)]
    exact: list[Outputs] | None = None
    print(f"{given.points} points, {given.examples} examples, {given.device}, onnxcanon {oc.__version__}")
    print("way        wall s    cpu s  difference")
    for name in given.ways:
        for at in WAYS[name](a, b, batches, given.device):
            at(0.5)
            wall, cpu = time.perf_counter(), time.process_time()
            found = [at(alpha) for alpha in alphas]
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            exact = found if name == "rebuilt" else exact
            print(f"{name:9s}{wall:8.3f} {cpu:8.3f}  {difference(found, exact, name)}", flush=True)


def difference(found: list[Outputs], exact: list[Outputs] | None, name: str) -> str:
    """The largest, relative to the largest output."""
    if exact is None or name == "one":
        return ""
    pairs = [(x, y) for f, e in zip(found, exact, strict=True) for x, y in zip(f, e, strict=True)]
    top = max(float(np.abs(y).max()) for _, y in pairs)
    return f"{max(float(np.abs(x - y).max()) for x, y in pairs) / top:.1e}"


if __name__ == "__main__":
    main()
