"""Do two models compute one function? Both run on the same inputs; the first one's noise is the tolerance.

A test on some inputs cannot prove equality, and a change of one weight that those inputs do not reach stays
hidden: exact comparison of parameters comes first, this second. It is made sharp by measuring what rounding
alone does to the model (see `noise`), by inputs of many kinds (see `inputs`), and by comparing values before
operators that saturate or throw dice (see `taps`).

Rounding to integers makes a model's own noise percents. Models that do so are compared a second time without
it (see `unrounded`), where a twin deviates by no more than floats do: `same` asks for both.

`same=False` always means that a difference was seen. What cannot be run or compared raises
RuntimeUnavailableError.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxcanon.arrays import Arrays
from onnxcanon.errors import RuntimeUnavailableError
from onnxcanon.model import Model
from onnxcanon.runtime.inputs import KINDS, data_inputs, input_specs, plan_inputs
from onnxcanon.runtime.interface import agreed_specs, signature_mismatch
from onnxcanon.runtime.sessions import Level, Session, open_session
from onnxcanon.verifying.differences import ComparedValue, OutputDifference, PairedRun, compare, noise_limits
from onnxcanon.verifying.noise import coarsest_unit, perturbed, perturbed_inputs, rounds_to_integers
from onnxcanon.verifying.overflow_guard import guarded
from onnxcanon.verifying.probes import ARGMAX, Probe, randomness, same_graph, saturating_probes
from onnxcanon.verifying.smooth.model import unrounded
from onnxcanon.verifying.smooth.rewriter import Unroundable
from onnxcanon.verifying.verification import SMOOTH, Verification, verdict

Feed = tuple[str, Arrays]  # a kind of inputs, and inputs

# Every kind of input is worth something; a slow model runs at least on the first few of `KINDS`.
_FEWEST_RUNS = 4
_BUDGET_SECONDS = 20.0
_QUICK_SECONDS, _SLOW_SECONDS = 0.005, 0.25
_LARGE_BYTES = 200_000_000
_DATA_ROWS, _DATA_RUNS = 32, 16

# Noise has a long tail where a value is next to a jump (a logarithm of almost nothing): before a difference
# up to so many times what is allowed counts, the noise of the first model is drawn a few times more.
DOUBT, MORE_DRAWS = 8.0, 4


def verify(
    a: Model,
    b: Model,
    *,
    device: str = "auto",
    seed: int = 0,
    data: Mapping[str, np.ndarray] | None = None,
    rtol: float | None = None,
    samples: int | None = None,
    shapes: Mapping[str, int | Sequence[int]] | None = None,
    optimize: bool | Level = False,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Verification:
    """Runs both models on the same inputs and compares every output.

    Args:
        a: the reference: its noise is the tolerance.
        b: the model to verify.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        seed: what inputs and noise are drawn from.
        data: inputs by name, instead of drawn ones; other entries are ignored.
        rtol: tolerance for floating outputs, relative to each output's size, instead of the measured one.
        samples: how many sets of inputs; by default as many as are quick, at least four.
        shapes: sizes of dynamic dimensions by name, or shapes of inputs by name.
        optimize: onnxruntime's optimization level for both. Fusions change the rounding: leave it off for
            verdicts.
        threads: upper bound of threads within an operator.
        progress: called with a line before each step that lasts.

    Raises:
        RuntimeUnavailableError: a model does not run, or nothing in it can be compared.
        OnnxcanonError: `data` does not fit the inputs.
    """
    mismatch = signature_mismatch(a.ir, b.ir)
    if mismatch is not None:
        return Verification(False, {}, (), 0, device, mismatch, {})
    channels, skipped = _channels(a, b)
    names_a, _ = _names(channels)
    specs = agreed_specs(input_specs(a.ir, any_type=data is not None), b.ir)
    runner = _Runner(device, optimize, threads, progress or (lambda line: None))
    jumps = rounds_to_integers(a.ir)
    judged = (guarded(a), guarded(b)) if jumps else (a, b)
    runner.say("running the first model")
    with runner.open(judged[0], names_a) as session:
        where = session.device
        if data is None:
            plan = plan_inputs(specs, session.run, shapes=shapes, seed=seed)
            seconds = _seconds(session, plan.make(KINDS[0], seed))
            feeds, results_a = _drawn(session, plan.make, seed, samples or _affordable(seconds), names_a)
        else:
            seconds = 0.0
            feeds = [("data", inputs) for inputs in data_inputs(specs, data, _DATA_ROWS, _DATA_RUNS)]
            results_a = [_outputs(session, inputs, names_a) for _, inputs in feeds]
    draws = 1 if seconds > _SLOW_SECONDS or a.serialized_size() > _LARGE_BYTES else 2
    judge = _Judge(runner, seed, draws, rtol)
    results = judge.differences(*judged, channels, feeds, results_a, jumps=jumps)
    # What is compared ahead of an output is extra: where it says nothing, nothing is missing.
    names = [value.name for value in a.ir.graph.outputs]
    skipped |= {name: why for name, why in results.items() if isinstance(why, str) and name in names}
    if jumps:
        smooth = judge.without_rounding(a, b, feeds[: len(KINDS)])
        if isinstance(smooth, str):
            skipped[f"all {SMOOTH}"] = smooth
        else:
            results |= {f"{name} {SMOOTH}": result for name, result in smooth.items()}
    found = {label: result for label, result in results.items() if not isinstance(result, str)}
    if not found:
        raise RuntimeUnavailableError(f"{a.name}: nothing can be compared: {_list(skipped)}")
    return verdict(found, tuple(dict.fromkeys(kind for kind, _ in feeds)), len(feeds), where, skipped)


@dataclass(frozen=True, slots=True)
class _Judge:
    """Compares two models on inputs that the first one has run on already."""

    runner: _Runner
    seed: int
    draws: int
    rtol: float | None

    def differences(
        self,
        a: Model,
        b: Model,
        channels: Sequence[ComparedValue],
        feeds: Sequence[Feed],
        results_a: Sequence[Arrays],
        *,
        jumps: bool,
    ) -> dict[str, OutputDifference | str]:
        """The difference of every channel, or a sentence where nothing can be said about it."""
        names_a, names_b = _names(channels)
        self.runner.say("running the second model")
        results_b = self.runner.results(b, feeds, names_b)
        limits = noise_limits(coarsest_unit(a), jumps, self.rtol)
        twins: list[list[Arrays]] = []

        def judged(draws: int) -> dict[str, OutputDifference | str]:
            seeds = range(self.seed + len(twins), self.seed + draws)
            twins.extend(_twin(self.runner, a, feeds, results_a, names_a, seed, jumps) for seed in seeds)
            runs = [
                PairedRun(kind, results_a[i], results_b[i], tuple(twin[i] for twin in twins))
                for i, (kind, _) in enumerate(feeds)
            ]
            return {channel.label: compare(channel, runs, limits) for channel in channels}

        found = judged(self.draws)
        doubtful = self.rtol is None and not jumps and any(map(_doubtful, found.values()))
        return judged(self.draws + MORE_DRAWS) if doubtful else found

    def without_rounding(
        self, a: Model, b: Model, feeds: Sequence[Feed]
    ) -> dict[str, OutputDifference | str] | str:
        """The same of both models without their rounding; a sentence where they have no such form."""
        if not same_graph(a.ir, b.ir):
            return "the two graphs differ, and so may what they leave to the limits of integers"
        self.runner.say("comparing without rounding to integers")
        try:
            a, b = unrounded(a), unrounded(b)
            channels, _ = _channels(a, b)
            results_a = self.runner.results(a, feeds, _names(channels)[0])
            return self.differences(a, b, channels, feeds, results_a, jumps=False)
        except (Unroundable, RuntimeUnavailableError) as error:
            return f"{error}; what is less than the noise of rounding is not seen"


def _doubtful(found: OutputDifference | str) -> bool:
    """Whether a difference is so little above what is allowed that another draw of noise may show as much."""
    if isinstance(found, str) or found.same:
        return False
    return found.max_relative_difference <= DOUBT * found.tolerance


@dataclass(frozen=True, slots=True)
class _Runner:
    """Opens sessions alike for every model, one at a time: memory need not hold all of them."""

    device: str
    optimize: bool | Level
    threads: int | None
    say: Callable[[str], None]

    def open(self, model: Model, names: Mapping[str, None]) -> Session:
        present = {value.name for value in model.ir.graph.outputs}
        extra = [name for name in names if name not in present]
        return open_session(
            model, device=self.device, optimize=self.optimize, extra_outputs=extra, threads=self.threads
        )

    def results(self, model: Model, feeds: Sequence[Feed], names: Mapping[str, None]) -> list[Arrays]:
        with self.open(model, names) as session:
            return [_outputs(session, inputs, names) for _, inputs in feeds]


def _twin(
    runner: _Runner,
    a: Model,
    feeds: Sequence[Feed],
    results: Sequence[Arrays],
    names: Mapping[str, None],
    seed: int,
    jumps: bool,
) -> list[Arrays]:
    """What the first model answers when weights and inputs move by as little as rounding does."""
    runner.say("measuring the noise of the first model")
    moved = [(kind, perturbed_inputs(inputs, seed, jumps)) for kind, inputs in feeds]
    try:
        twin = runner.results(perturbed(a, seed, jumps), moved, names)
        pairs = list(zip(results, twin, strict=True))
        if not any(all(x[name].shape != y[name].shape for x, y in pairs) for name in names):
            return twin
    except RuntimeUnavailableError:
        pass
    # Some constant has to be exact, a size or a limit. The inputs alone may move.
    return runner.results(a, moved, names)


def _outputs(session: Session, inputs: Arrays, names: Mapping[str, None]) -> Arrays:
    """The named values; a sequence becomes one array of its lengths and items, as one thing to compare."""
    values = session.run(inputs, names)
    for name in names:
        if name not in values:
            parts = [array for key, array in values.items() if key.startswith((f"{name}[", f"{name}.length"))]
            shapes = [np.asarray(array.shape) for array in parts]
            values[name] = np.concatenate([piece.ravel() for piece in (*shapes, *parts)])
    return values


def _names(channels: Sequence[ComparedValue]) -> tuple[dict[str, None], dict[str, None]]:
    """The values to compute in either model."""
    one, two = ({name: None for c in channels for name in c.names(side)} for side in (0, 1))
    return one, two


def _channels(a: Model, b: Model) -> tuple[list[ComparedValue], dict[str, str]]:
    """What to compare, and outputs that cannot be, with the reason."""
    chance = randomness(a.ir)
    channels: dict[str, ComparedValue] = {}
    skipped = {}
    for value in a.ir.graph.outputs:
        name = value.name or ""
        if name in chance.outputs:
            skipped[name] = f"it depends on chance ({chance.outputs[name]})"
        else:
            channels |= _with_taps(a, b, ComparedValue(name, name, name))
    if chance.frontier and same_graph(a.ir, b.ir):
        for name, op_type in chance.frontier.items():
            channels |= _with_taps(a, b, ComparedValue(f"{name} (into {op_type})", name, name))
    if not channels:
        raise RuntimeUnavailableError(f"{a.name}: nothing can be compared: {_list(skipped)}")
    # A value before two outputs, or before an output and the dice, is compared once.
    once = {(c.a, c.b, c.forget): c for c in reversed(channels.values())}
    return list(reversed(once.values())), skipped


def _with_taps(a: Model, b: Model, channel: ComparedValue) -> dict[str, ComparedValue]:
    """A channel by label, and channels for the values before the saturating operators it comes from."""
    taps_a, taps_b = saturating_probes(a.ir, channel.a), saturating_probes(b.ir, channel.b)
    if len(taps_a) != len(taps_b) or not all(map(Probe.matches, taps_a, taps_b)):
        return {channel.label: channel}
    pairs = list(zip(taps_a, taps_b, strict=True))
    scores = tuple(pair for pair in pairs if pair[0].form == ARGMAX)
    bounded = bool(pairs) and not scores  # by 1: what shows a Softmax, Sigmoid or Tanh
    channels = {channel.label: replace(channel, scores=scores, bounded=bounded)}
    for tap, twin in pairs:
        mark = tap.op_type if len(pairs) == 1 else f"{tap.op_type} of {tap.value}"
        label = f"{channel.label} (before {mark})"
        channels[label] = ComparedValue(label, tap.value, twin.value, forget=tap)
    return channels


def _list(skipped: Mapping[str, str]) -> str:
    return "; ".join(f"{name!r}: {why}" for name, why in skipped.items()) or "it has no outputs"


def _drawn(
    session: Session, make: Callable[[str, int], Arrays], seed: int, count: int, names: Mapping[str, None]
) -> tuple[list[Feed], list[Arrays]]:
    """Inputs of all kinds in turn that the model accepts, and what it answers."""
    feeds, results = [], []
    refusal: RuntimeUnavailableError | None = None
    for turn, kind in itertools.islice(((t, k) for t in itertools.count() for k in KINDS), count):
        inputs = make(kind, seed + turn)
        try:
            results.append(_outputs(session, inputs, names))
            feeds.append((kind, inputs))
        except RuntimeUnavailableError as error:
            refusal = error
    if refusal is not None and not feeds:
        raise refusal
    return feeds, results


def _seconds(session: Session, inputs: Arrays) -> float:
    start = time.perf_counter()
    session.run(inputs)
    return time.perf_counter() - start


def _affordable(seconds: float) -> int:
    """How many sets of inputs: each is run by both models and by one or two noisy twins."""
    if seconds < _QUICK_SECONDS:
        return 2 * len(KINDS)
    return int(np.clip(_BUDGET_SECONDS / (4 * seconds), _FEWEST_RUNS, len(KINDS)))
