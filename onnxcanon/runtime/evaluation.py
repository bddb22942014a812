"""Loss and accuracy of models on labelled data, and of their predictions averaged (an ensemble).

Labels of integers make it classification: cross-entropy of the output, be it logits, probabilities or their
logarithms, and the share of examples whose likeliest class is the label. Others make it regression: the mean
squared error. Everything is computed in double precision from what onnxruntime returns, batch by batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np

from onnxcanon.arrays import Arrays, Floats
from onnxcanon.errors import OnnxcanonError
from onnxcanon.model import Model
from onnxcanon.runtime.inputs import InputSpec, converted, data_name, input_specs
from onnxcanon.runtime.sessions import SessionValue, open_session
from onnxcanon.runtime.weights.external import WeightSessions

LABELS = "y"
"""What the data calls the labels."""

CROSS_ENTROPY, SQUARED_ERROR = "cross-entropy", "mean squared error"
TINY = 1e-300
"""The least probability that has a logarithm here."""


class Runs(Protocol):
    """An open session, or what stands for one."""

    @property
    def device(self) -> str:
        """Where it runs."""

    @property
    def outputs(self) -> tuple[SessionValue, ...]:
        """What it returns."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """The outputs by name."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well one model, or an ensemble, does on some data.

    Attributes:
        model: the model, or the models of an ensemble.
        loss: the mean over all labels.
        accuracy: the share of labels that are the likeliest class; None for regression.
        measure: what the loss is.
        samples: the number of labels.
        device: where it ran.
    """

    model: str
    loss: float
    accuracy: float | None
    measure: str
    samples: int
    device: str

    @property
    def error(self) -> float | None:
        """The share of labels that are not the likeliest class."""
        return None if self.accuracy is None else 1 - self.accuracy

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON values."""
        return {**asdict(self), "error": self.error}

    def __str__(self) -> str:
        right = "" if self.accuracy is None else f"accuracy {self.accuracy:.4f}  "
        return f"{right}{self.measure} {self.loss:.6g}  {self.samples:,} labels  {self.model}"


def evaluate(
    models: Sequence[Model],
    data: Mapping[str, np.ndarray],
    *,
    ensemble: bool = False,
    output: str | None = None,
    batch: int = 256,
    device: str = "auto",
    progress: Callable[[str], None] | None = None,
) -> list[Evaluation]:
    """Evaluate models on the same data; with `ensemble` the average of their predictions is the last result.

    Args:
        models: the models.
        data: inputs by name, and the labels `y`, as long as the inputs that hold examples.
        ensemble: whether to average what the models predict: probabilities, or numbers.
        output: the output to judge, by name; by default the first.
        batch: how many examples run at a time where the model takes any number.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        progress: called with a line before each step that lasts.

    Raises:
        OnnxcanonError: the data has no labels, or does not fit the models.
        RuntimeUnavailableError: a model does not run.
    """
    labels = labels_of(data)
    say = progress or (lambda _: None)
    classes = labels.dtype.kind in "iub"
    with ExitStack() as stack:
        runners = [
            _runner(
                model, stack.enter_context(open_session(model, device=device, optimize=True)), output, labels
            )
            for model in models
        ]
        together = _Tally(classes) if ensemble and len(models) > 1 else None
        for start in range(0, len(labels), batch):
            say(f"evaluating {start:,} of {len(labels):,}")
            some = labels[start : start + batch]
            guesses = [runner.run(data, start, some) for runner in runners]
            if together is not None:
                together.add(_averaged(guesses, classes=classes), some)
        found = [runner.evaluation() for runner in runners]
        if together is not None:
            names = " + ".join(model.name for model in models)
            found.append(together.evaluation(names, runners[0].session.device))
        return found


class Evaluator:
    """Evaluates one graph with one set of weights after the other, on the same data.

    Only the weights are given to onnxruntime anew. What the output holds is decided by the first model.

    Args:
        model: the model whose graph it is.
        data: as for `evaluate`.
        output: as for `evaluate`.
        batch: as for `evaluate`.
        device: as for `evaluate`.

    Raises:
        OnnxcanonError: the data has no labels.
    """

    def __init__(
        self,
        model: Model,
        data: Mapping[str, np.ndarray],
        *,
        output: str | None = None,
        batch: int = 256,
        device: str = "auto",
    ) -> None:
        self.data, self.labels = data, labels_of(data)
        self.output, self.batch = output, batch
        self._swap = WeightSessions(model, device=device, optimize=True)
        self._first: _Runner | None = None

    def __call__(self, model: Model) -> Evaluation:
        """Loss and accuracy of a model, best of this graph with other weights (`Model.with_tensors`).

        Raises:
            OnnxcanonError: the data does not fit.
            RuntimeUnavailableError: it does not run.
        """
        ours = model.shares_graph(self._swap.model)
        with self._swap.open(model) as session:
            if ours and self._first is not None:
                runner = self._first.again(model, session)
            else:
                runner = _runner(model, session, self.output, self.labels)
            found = runner.whole(self.data, self.batch)
            if ours:
                self._first = runner
            return found


class Judge:
    """Evaluates a graph again and again on the same data, in sessions that are open and given other weights.

    Args:
        model: the model that is open.
        session: the session.
        data: as for `evaluate`.
        output: as for `evaluate`.
        batch: as for `evaluate`.

    Raises:
        OnnxcanonError: the data has no labels.
    """

    def __init__(
        self,
        model: Model,
        session: Runs,
        data: Mapping[str, np.ndarray],
        *,
        output: str | None = None,
        batch: int = 256,
    ) -> None:
        self.data, self.labels, self.batch = data, labels_of(data), batch
        self._runner = _runner(model, session, output, self.labels)

    def __call__(self, session: Runs | None = None) -> Evaluation:
        """Loss and accuracy as they are now, in the session given, or the first one.

        Raises:
            OnnxcanonError: the data does not fit.
            RuntimeUnavailableError: it does not run.
        """
        self._runner = self._runner.again(self._runner.model, session or self._runner.session)
        return self._runner.whole(self.data, self.batch)


def labels_of(data: Mapping[str, np.ndarray]) -> np.ndarray:
    """The labels among the data.

    Raises:
        OnnxcanonError: there are none, or they are no list of numbers.
    """
    if LABELS not in data:
        raise OnnxcanonError(
            f"{data_name(data)} has no labels; name them '{LABELS}': it holds {', '.join(data)}"
        )
    labels = np.asarray(data[LABELS])
    if labels.dtype.kind not in "iubfV" or not labels.ndim or not labels.size:
        raise OnnxcanonError(
            f"the labels '{LABELS}' of {data_name(data)} are {labels.dtype} of shape"
            f" {list(labels.shape)}; give a number for each example"
        )
    return labels


@dataclass(slots=True)
class _Tally:
    """Sums over batches; `classes` says whether labels are classes."""

    classes: bool
    loss: float = 0.0
    right: int = 0
    count: int = 0

    def add(self, guess: Floats, labels: np.ndarray) -> None:
        """One more batch: log-probabilities with the classes last, or numbers."""
        self.count += labels.size
        if not self.classes:
            self.loss += float(((guess - labels.reshape(guess.shape)) ** 2).sum()) * labels.size / guess.size
            return
        wanted = labels.astype(np.int64)[..., None]
        self.loss -= float(np.take_along_axis(guess, wanted, -1).sum())
        self.right += int((guess.argmax(-1) == wanted[..., 0]).sum())

    def evaluation(self, name: str, device: str) -> Evaluation:
        """The means."""
        count = max(self.count, 1)
        accuracy = self.right / count if self.classes else None
        measure = CROSS_ENTROPY if self.classes else SQUARED_ERROR
        return Evaluation(name, self.loss / count, accuracy, measure, self.count, device)


@dataclass
class _Runner:
    """One open model with the sums over what it has seen."""

    model: Model
    session: Runs
    output: str
    labels: np.ndarray
    specs: tuple[InputSpec, ...]
    tally: _Tally
    kind: str = ""  # of the output: logits, probabilities, logarithms

    def again(self, model: Model, session: Runs) -> _Runner:
        """The same for other weights in the same graph, which have seen nothing yet."""
        return replace(self, model=model, session=session, tally=_Tally(self.tally.classes))

    def whole(self, data: Mapping[str, np.ndarray], batch: int) -> Evaluation:
        """The means over all examples."""
        for start in range(0, len(self.labels), batch):
            self.run(data, start, self.labels[start : start + batch])
        return self.evaluation()

    def run(self, data: Mapping[str, np.ndarray], start: int, labels: np.ndarray) -> Floats:
        """The guesses for the examples from `start` on, which are added up."""
        guess = np.concatenate(list(self._guesses(data, start, len(labels))))
        wanted = self._judged(guess, labels)
        self.tally.add(wanted, labels)
        return wanted

    def _guesses(self, data: Mapping[str, np.ndarray], start: int, count: int) -> Iterator[Floats]:
        """What the model returns, in sets of as many examples as it takes."""
        held = [f"'{s.name}' {list(np.shape(data[s.name]))}" for s in self.specs if s.name in data]
        if held and not any(self._examples(spec, data) for spec in self.specs):
            raise OnnxcanonError(
                f"{self.model.name}: no input in {data_name(data)} is as long as the"
                f" {len(self.labels)} labels: {', '.join(held)}"
            )
        step = self._step() or count
        for first in range(start, start + count, step):
            rows = min(step, start + count - first)
            feeds = {spec.name: self._rows(spec, data, first, rows, step) for spec in self.specs}
            found = self._named(self.session.run(feeds))
            yield found[:rows] if len(found) == step else found

    def _named(self, results: Arrays) -> Floats:
        found = results.get(self.output)
        if found is None or found.dtype.kind not in "fV" or found.ndim == 0:
            raise OnnxcanonError(
                f"{self.model.name}: output '{self.output}' holds no numbers for each example"
            )
        return np.asarray(found, np.float64)

    def _step(self) -> int | None:
        """How many examples the model takes at a time, where that is fixed."""
        fixed = [spec.shape.dims[0] for spec in self.specs if spec.shape.dims]
        return min((n for n in fixed if isinstance(n, int)), default=None)

    def _examples(self, spec: InputSpec, data: Mapping[str, np.ndarray]) -> bool:
        """Whether an input holds one entry for each label; any other goes whole into every batch."""
        return np.shape(data.get(spec.name, ()))[:1] == (len(self.labels),)

    def _rows(
        self, spec: InputSpec, data: Mapping[str, np.ndarray], first: int, rows: int, step: int
    ) -> np.ndarray:
        """Some examples of one input; the last one again where a fixed number is not full."""
        if self._examples(spec, data):
            some = converted(spec, data, slice(first, first + rows))
            return np.concatenate([some, *[some[-1:]] * (step - rows)]) if rows < step else some
        return converted(spec, data)

    def _judged(self, guess: Floats, labels: np.ndarray) -> Floats:
        """Log-probabilities with the classes last, or numbers shaped as the labels."""
        if not self.tally.classes:
            if guess.size != labels.size:
                raise OnnxcanonError(
                    f"{self.model.name}: output '{self.output}' is {list(guess.shape)},"
                    f" the labels {list(labels.shape)}"
                )
            return guess
        if guess.shape == labels.shape:
            guess = guess[..., None]
        axes = [
            k for k in (guess.ndim - 1, *range(1, guess.ndim - 1)) if _without(guess.shape, k) == labels.shape
        ]
        if not axes:
            raise OnnxcanonError(
                f"{self.model.name}: output '{self.output}' is {list(guess.shape)}, the labels"
                f" {list(labels.shape)}: there is no axis of classes"
            )
        guess = np.moveaxis(guess, axes[0], -1)
        self.kind = self.kind or self._kind(guess)
        guess = _two_classes(guess, self.kind)
        if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < guess.shape[-1]:
            raise OnnxcanonError(
                f"{self.model.name}: labels {int(labels.min())} to {int(labels.max())} are not all among"
                f" {guess.shape[-1]} classes"
            )
        return _log_probabilities(guess, self.kind)

    def _kind(self, guess: Floats) -> str:
        """What the output holds, by the operator that makes it or by its first values."""
        output = next(v for v in self.model.ir.graph.outputs if v.name == self.output)
        producer = output.producer()
        by_operator = {"Softmax": "probabilities", "Sigmoid": "probabilities", "LogSoftmax": "logarithms"}
        if producer is not None and producer.op_type in by_operator:
            return by_operator[producer.op_type]
        inside = bool(((guess >= 0) & (guess <= 1)).all())
        whole = guess.shape[-1] > 1 and bool(np.allclose(guess.sum(-1), 1, atol=1e-3))
        if inside and whole:
            return "probabilities"
        if guess.shape[-1] > 1 and bool(np.allclose(np.exp(np.minimum(guess, 1)).sum(-1), 1, atol=1e-3)):
            return "logarithms"
        return "logits"

    def evaluation(self) -> Evaluation:
        """The means over all batches."""
        return self.tally.evaluation(self.model.name, self.session.device)


def _runner(model: Model, session: Runs, output: str | None, labels: np.ndarray) -> _Runner:
    """What judges one output of an open model, the first unless another is named."""
    names = [port.name for port in session.outputs]
    if output is not None and output not in names:
        raise OnnxcanonError(f"{model.name}: no output is called '{output}'; it has {', '.join(names)}")
    specs = input_specs(model.ir, any_type=True)
    return _Runner(model, session, output or names[0], labels, specs, _Tally(labels.dtype.kind in "iub"))


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _two_classes(guess: Floats, kind: str) -> Floats:
    """A single number for each example is that of the second of two classes."""
    if guess.shape[-1] > 1:
        return guess
    other = 1 - guess if kind == "probabilities" else np.zeros_like(guess)
    return np.concatenate([other, guess], -1)


def _log_probabilities(guess: Floats, kind: str) -> Floats:
    """The logarithms of probabilities that add up to 1, from what a model returns."""
    if kind == "logarithms":
        return guess
    if kind == "probabilities":
        return np.asarray(np.log(np.maximum(guess, TINY)))
    shifted = guess - guess.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def _averaged(guesses: Sequence[Floats], *, classes: bool) -> Floats:
    """The mean of what models predict; of probabilities, not of their logarithms."""
    if any(guess.shape != guesses[0].shape for guess in guesses):
        raise OnnxcanonError("the models of an ensemble predict different numbers of classes")
    if not classes:
        return np.asarray(np.mean(guesses, 0))
    return np.asarray(np.log(np.maximum(np.mean(np.exp(guesses), 0), TINY)))
