"""Do two models compute one function? Both run on the same inputs; the first one's noise is the tolerance.

A test on some inputs cannot prove equality, and a change of one weight that those inputs do not reach stays
hidden: exact comparison of parameters comes first, this second. It is made sharp by measuring what rounding
alone does to the model (see `noise`), by inputs of many kinds (see `random_inputs`), and by comparing values
before operators that saturate or are random (see `probes`).

Rounding to integers makes a model's own noise percents. Models that do so are compared a second time without
it (see `smooth`), where an equal model deviates by no more than floats do: `same` asks for both.

`same=False` always means that a difference was seen. What cannot be run or compared raises
RuntimeUnavailableError.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxcanon.arrays import Arrays
from onnxcanon.errors import RuntimeUnavailableError
from onnxcanon.model import Model
from onnxcanon.runtime.batches import data_inputs
from onnxcanon.runtime.inputs import input_specs
from onnxcanon.runtime.interface import agreed_sizes, signature_mismatch
from onnxcanon.runtime.random_inputs import INPUT_KINDS, accepted_inputs
from onnxcanon.runtime.sessions import Session, open_session
from onnxcanon.settings import Settings
from onnxcanon.verifying.compared_values import ComparedValue, compared_values, listed, names_to_run
from onnxcanon.verifying.differences import OutputDifference, PairedRun, compare, noise_limits
from onnxcanon.verifying.noise import coarsest_unit, perturbed, perturbed_inputs, rounds_to_integers
from onnxcanon.verifying.overflow_guard import guarded
from onnxcanon.verifying.probes import same_graph
from onnxcanon.verifying.smooth.model import smooth_model
from onnxcanon.verifying.smooth.scales import Unroundable
from onnxcanon.verifying.verification import SMOOTH_LABEL, Verification, verdict

# Every kind of input is worth something; a slow model runs at least on the first few of `INPUT_KINDS`.
_FEWEST_RUNS = 4
_BUDGET_SECONDS = 20.0
_QUICK_SECONDS, _SLOW_SECONDS = 0.005, 0.25
_LARGE_BYTES = 200_000_000
_DATA_ROWS, _DATA_RUNS = 32, 16

# Noise has a long tail where a value is next to a jump (a logarithm of almost nothing): before a difference
# up to so many times what is allowed counts, the noise of the first model is drawn a few times more.
DOUBT, MORE_DRAWS = 8.0, 4

Differences = dict[str, OutputDifference | str]
"""What was seen of each value, or the sentence why nothing can be said about it."""


@dataclass(frozen=True, slots=True)
class _Inputs:
    """Sets of inputs that both models run on, and the kind of each."""

    kinds: list[str]
    arrays: list[Arrays]

    def perturbed(self, seed: int, rounds: bool) -> list[Arrays]:
        """All of them, moved by as little as rounding does."""
        return [perturbed_inputs(inputs, seed, rounds) for inputs in self.arrays]


def verify(a: Model, b: Model, settings: Settings, rtol: float | None = None) -> Verification:
    """Runs both models on the same inputs and compares every output.

    Args:
        a: the reference: its noise is the tolerance.
        b: the model to verify.
        settings: where both run, on which data, or on inputs of which seed and sizes.
        rtol: tolerance for floating outputs, relative to each output's size, instead of the measured one.

    Raises:
        RuntimeUnavailableError: a model does not run, or nothing in it can be compared.
        OnnxcanonError: the data does not fit the inputs.
    """
    mismatch = signature_mismatch(a.ir, b.ir)
    if mismatch is not None:
        return Verification(False, {}, (), 0, settings.device, mismatch, {})
    values, skipped = compared_values(a, b)
    rounds = rounds_to_integers(a.ir)
    models = (guarded(a), guarded(b)) if rounds else (a, b)
    settings.progress("running the first model")
    with _open(models[0], names_to_run(values, 0), settings) as session:
        inputs, results, seconds = _first_run(session, a, b, names_to_run(values, 0), settings)
        device = session.device
    draws = 1 if seconds > _SLOW_SECONDS or a.serialized_size() > _LARGE_BYTES else 2
    comparison = _Comparison(settings, draws, rtol)
    rows = comparison.differences(*models, values, inputs, results, rounds=rounds)
    # What is compared ahead of an output is extra: where it says nothing, nothing is missing.
    names = [value.name for value in a.ir.graph.outputs]
    skipped |= {name: why for name, why in rows.items() if isinstance(why, str) and name in names}
    smooth: Differences = {}
    if rounds:
        try:
            smooth = comparison.without_rounding(a, b, inputs)
        except (Unroundable, RuntimeUnavailableError) as error:
            skipped[f"all {SMOOTH_LABEL}"] = str(error)
    outputs, smooth_outputs = _seen(rows), _seen(smooth)
    if not outputs and not smooth_outputs:
        raise RuntimeUnavailableError(f"{a.name}: nothing can be compared: {listed(skipped)}")
    kinds = tuple(dict.fromkeys(inputs.kinds))
    return verdict(outputs, smooth_outputs, kinds, len(inputs.arrays), device, skipped)


def _seen(rows: Differences) -> dict[str, OutputDifference]:
    return {label: row for label, row in rows.items() if not isinstance(row, str)}


@dataclass(frozen=True, slots=True)
class _Comparison:
    """How two models are compared on inputs that the first one has run on already.

    Attributes:
        settings: where they run, and the random seed of the noise.
        draws: how often the noise of the first model is drawn.
        rtol: the caller's own tolerance.
    """

    settings: Settings
    draws: int
    rtol: float | None

    def differences(
        self,
        a: Model,
        b: Model,
        values: Sequence[ComparedValue],
        inputs: _Inputs,
        results: Sequence[Arrays],
        *,
        rounds: bool,
    ) -> Differences:
        """The difference of every value."""
        self.settings.progress("running the second model")
        others = self._run(b, inputs.arrays, names_to_run(values, 1))
        limits = noise_limits(coarsest_unit(a), rounds, self.rtol)
        reruns: list[list[Arrays]] = []

        def drawn(draws: int) -> Differences:
            seeds = range(self.settings.seed + len(reruns), self.settings.seed + draws)
            names = names_to_run(values, 0)
            reruns.extend(self._noisy_rerun(a, inputs, results, names, seed, rounds) for seed in seeds)
            runs = [
                PairedRun(kind, results[i], others[i], tuple(rerun[i] for rerun in reruns))
                for i, kind in enumerate(inputs.kinds)
            ]
            return {value.label: compare(value, runs, limits) for value in values}

        rows = drawn(self.draws)
        # More draws only where the verdict hangs on them: each runs the first model on all inputs again.
        doubtful = self.rtol is None and not rounds and any(map(_doubtful, rows.values()))
        return drawn(self.draws + MORE_DRAWS) if doubtful else rows

    def without_rounding(self, a: Model, b: Model, inputs: _Inputs) -> Differences:
        """The differences between both models without their rounding to integers.

        Raises:
            Unroundable: they have no such form.
            RuntimeUnavailableError: that form does not run.
        """
        if not same_graph(a.ir, b.ir):
            raise Unroundable("the two graphs differ, and so may what they leave to the limits of integers")
        self.settings.progress("comparing without rounding to integers")
        some = _Inputs(inputs.kinds[: len(INPUT_KINDS)], inputs.arrays[: len(INPUT_KINDS)])
        try:
            a, b = smooth_model(a), smooth_model(b)
            values, _ = compared_values(a, b)
            results = self._run(a, some.arrays, names_to_run(values, 0))
            return self.differences(a, b, values, some, results, rounds=False)
        except (Unroundable, RuntimeUnavailableError) as error:
            raise Unroundable(f"{error}; what is less than the noise of rounding is not seen") from error

    def _noisy_rerun(
        self,
        a: Model,
        inputs: _Inputs,
        results: Sequence[Arrays],
        names: Sequence[str],
        seed: int,
        rounds: bool,
    ) -> list[Arrays]:
        """What the first model answers when weights and inputs move by as little as rounding does."""
        self.settings.progress("measuring the noise of the first model")
        moved = inputs.perturbed(seed, rounds)
        try:
            rerun = self._run(perturbed(a, seed, rounds), moved, names)
            pairs = list(zip(results, rerun, strict=True))
            if not any(all(x[name].shape != y[name].shape for x, y in pairs) for name in names):
                return rerun
        except RuntimeUnavailableError:
            pass
        # Some constant has to be exact, a size or a limit. The inputs alone may move.
        return self._run(a, moved, names)

    def _run(self, model: Model, inputs: Sequence[Arrays], names: Sequence[str]) -> list[Arrays]:
        with _open(model, names, self.settings) as session:
            return [_outputs(session, arrays, names) for arrays in inputs]


def _doubtful(row: OutputDifference | str) -> bool:
    """Whether a difference is so little above what is allowed that another draw of noise may show as much."""
    if isinstance(row, str) or row.same:
        return False
    return row.max_relative_difference <= DOUBT * row.tolerance


def _open(model: Model, names: Sequence[str], settings: Settings) -> Session:
    """A session for the graph as written: fusions change the rounding. One is open at a time: memory need
    not hold all models."""
    outputs = {value.name for value in model.ir.graph.outputs}
    extra = [name for name in names if name not in outputs]
    return open_session(model, device=settings.device, extra_outputs=extra)


def _first_run(
    session: Session, a: Model, b: Model, names: Sequence[str], settings: Settings
) -> tuple[_Inputs, list[Arrays], float]:
    """The inputs, what the first model makes of them, and how many seconds one run takes."""
    specs = input_specs(a.ir, any_type=settings.data is not None)
    sizes = agreed_sizes(specs, b.ir)
    if settings.data is not None:
        fixed = [spec.with_sizes(sizes) for spec in specs]
        sets = data_inputs(fixed, settings.data, _DATA_ROWS, _DATA_RUNS)
        return _Inputs(["data"] * len(sets), sets), [_outputs(session, one, names) for one in sets], 0.0
    drawn = accepted_inputs(specs, session.run, replace(settings, sizes={**sizes, **settings.sizes}))
    start = time.perf_counter()
    session.run(drawn.draw(INPUT_KINDS[0], settings.seed))
    seconds = time.perf_counter() - start
    inputs, results = _Inputs([], []), []
    refusal: RuntimeUnavailableError | None = None
    turns = ((turn, kind) for turn in itertools.count() for kind in INPUT_KINDS)
    for turn, kind in itertools.islice(turns, affordable_runs(seconds)):
        arrays = drawn.draw(kind, settings.seed + turn)
        try:
            results.append(_outputs(session, arrays, names))
        except RuntimeUnavailableError as error:
            refusal = error
            continue
        inputs.kinds.append(kind)
        inputs.arrays.append(arrays)
    if refusal is not None and not results:
        raise refusal
    return inputs, results, seconds


def affordable_runs(seconds: float) -> int:
    """How many sets of inputs: each is run by both models and by one or two noisy reruns."""
    if seconds < _QUICK_SECONDS:
        return 2 * len(INPUT_KINDS)
    return int(np.clip(_BUDGET_SECONDS / (4 * seconds), _FEWEST_RUNS, len(INPUT_KINDS)))


def _outputs(session: Session, inputs: Arrays, names: Sequence[str]) -> Arrays:
    """The named values; a sequence becomes one array of its lengths and items, as one thing to compare."""
    values = session.run(inputs, names)
    for name in names:
        if name not in values:
            parts = [array for key, array in values.items() if key.startswith((f"{name}[", f"{name}.length"))]
            shapes = [np.asarray(array.shape) for array in parts]
            values[name] = np.concatenate([piece.ravel() for piece in (*shapes, *parts)])
    return values
