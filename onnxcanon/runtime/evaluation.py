"""Loss and accuracy of models on labelled data, and of their predictions averaged (an ensemble).

Labels of integers make it classification: cross-entropy of the output, be it logits, probabilities or their
logarithms, and the share of examples whose likeliest class is the label. Others make it regression: the mean
squared error. Everything is computed in double precision from what onnxruntime returns, batch by batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np

from onnxcanon.arrays import Array, Arrays, Floats
from onnxcanon.errors import OnnxcanonError
from onnxcanon.model import Model
from onnxcanon.results import Result
from onnxcanon.runtime.batches import converted, data_name
from onnxcanon.runtime.inputs import InputSpec, input_specs
from onnxcanon.runtime.predictions import (
    Form,
    Totals,
    classes_last,
    form_of,
    log_probabilities,
    mean_prediction,
)
from onnxcanon.runtime.session_values import SessionValue
from onnxcanon.runtime.sessions import open_session
from onnxcanon.runtime.weights.external import WeightSessions
from onnxcanon.settings import Settings

LABELS = "y"
"""What the data calls the labels."""

CROSS_ENTROPY, SQUARED_ERROR = "cross-entropy", "mean squared error"


class OpenModel(Protocol):
    """An open session, or what stands for one."""

    @property
    def device(self) -> str:
        """Where it runs."""

    @property
    def outputs(self) -> tuple[SessionValue, ...]:
        """What it returns."""

    def run(self, inputs: Mapping[str, Array]) -> Arrays:
        """The outputs by name."""


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation(Result):
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
    settings: Settings,
    *,
    ensemble: bool = False,
    output: str | None = None,
    batch: int = 256,
) -> list[Evaluation]:
    """Evaluate models on the same data; with `ensemble` the average of their predictions is the last result.

    Args:
        models: the models.
        settings: where they run, and the data: inputs by name, and the labels `y`, as long as the inputs that
            hold examples.
        ensemble: whether to average what the models predict: probabilities, or numbers.
        output: the output to evaluate, by name; by default the first.
        batch: how many examples run at a time where the model takes any number.

    Raises:
        OnnxcanonError: the data has no labels, or does not fit the models.
        RuntimeUnavailableError: a model does not run.
    """
    data = settings.data or {}
    labels = labels_of(data)
    with ExitStack() as stack:
        readers = [
            _reader(
                model,
                stack.enter_context(open_session(model, device=settings.device, optimize=True)),
                data,
                output,
            )
            for model in models
        ]
        classes = readers[0].classes
        totals = [Totals(classes) for _ in models]
        together = Totals(classes)
        # All models see a batch before the next one: their mean needs the predictions of no other.
        for start in range(0, len(labels), batch):
            settings.progress(f"evaluating {start:,} of {len(labels):,}")
            some = labels[start : start + batch]
            predictions = [reader.predictions(start, len(some)) for reader in readers]
            for total, prediction in zip(totals, predictions, strict=True):
                total.add(prediction, some)
            if ensemble and len(models) > 1:
                together.add(mean_prediction(predictions, classes=classes), some)
        devices = [reader.session.device for reader in readers]
    results = [
        _evaluation(model.name, total, device)
        for model, total, device in zip(models, totals, devices, strict=True)
    ]
    if ensemble and len(models) > 1:
        results.append(_evaluation(" + ".join(model.name for model in models), together, devices[0]))
    return results


class Evaluator:
    """Evaluates one graph with one set of weights after the other, on the same data.

    Only the weights are given to onnxruntime anew. What the output holds is decided by the first evaluation.

    Args:
        model: the model whose graph it is.
        settings: as for `evaluate`.
        output: as for `evaluate`.
        batch: as for `evaluate`.

    Raises:
        OnnxcanonError: the data has no labels.
    """

    def __init__(
        self, model: Model, settings: Settings, *, output: str | None = None, batch: int = 256
    ) -> None:
        self.data = settings.data or {}
        self.labels = labels_of(self.data)
        self.output, self.batch = output, batch
        self._sessions = WeightSessions(model, device=settings.device, optimize=True)
        self._reader: _OutputReader | None = None

    def __call__(self, model: Model) -> Evaluation:
        """Loss and accuracy of a model, best of this graph with other weights (`Model.with_tensors`).

        Raises:
            OnnxcanonError: the data does not fit.
            RuntimeUnavailableError: it does not run.
        """
        with self._sessions.open(model) as session:
            return self.in_session(model, session)

    def in_session(self, model: Model, session: OpenModel) -> Evaluation:
        """Loss and accuracy of a model that is open, with the weights that it has now.

        Raises:
            OnnxcanonError: the data does not fit.
            RuntimeUnavailableError: it does not run.
        """
        ours = model.shares_graph(self._sessions.model)
        if ours and self._reader is not None:
            reader = replace(self._reader, model=model, session=session)
        else:
            reader = _reader(model, session, self.data, self.output)
        totals = Totals(reader.classes)
        for start in range(0, len(self.labels), self.batch):
            some = self.labels[start : start + self.batch]
            totals.add(reader.predictions(start, len(some)), some)
        if ours:
            self._reader = reader
        return _evaluation(model.name, totals, session.device)


def labels_of(data: Mapping[str, Array]) -> Array:
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


@dataclass
class _OutputReader:
    """Reads one output of an open model against labels.

    Attributes:
        model: the model.
        session: where it is open.
        output: the name of the output.
        specs: the inputs of the model.
        data: inputs by name.
        labels: the labels.
        form: what an output of classes holds. It is None until the first batch decides, and then stays, for
            other weights too: a batch of logits may look like probabilities by chance, and two weights of one
            graph have to be compared by one measure.
    """

    model: Model
    session: OpenModel
    output: str
    specs: tuple[InputSpec, ...]
    data: Mapping[str, Array]
    labels: Array
    form: Form | None = None

    @property
    def classes(self) -> bool:
        """Whether labels are classes."""
        return self.labels.dtype.kind in "iub"

    def predictions(self, start: int, count: int) -> Floats:
        """Log-probabilities with the classes last, or numbers, for the examples from `start` on."""
        labels = self.labels[start : start + count]
        array = np.concatenate(list(self._outputs(start, count)))
        name = f"{self.model.name}: output '{self.output}'"
        if not self.classes:
            if array.size != labels.size:
                raise OnnxcanonError(f"{name} is {list(array.shape)}, the labels {list(labels.shape)}")
            return array
        array = classes_last(array, labels, name)
        if self.form is None:
            value = next(v for v in self.model.ir.graph.outputs if v.name == self.output)
            self.form = form_of(value, array)
        predictions = log_probabilities(array, self.form)
        if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < predictions.shape[-1]:
            raise OnnxcanonError(
                f"{self.model.name}: labels {int(labels.min())} to {int(labels.max())} are not all among"
                f" {predictions.shape[-1]} classes"
            )
        return predictions

    def _outputs(self, start: int, count: int) -> Iterator[Floats]:
        """What the model returns, in sets of as many examples as it takes."""
        given = [f"'{s.name}' {list(np.shape(self.data[s.name]))}" for s in self.specs if s.name in self.data]
        if given and not any(map(self._holds_examples, self.specs)):
            raise OnnxcanonError(
                f"{self.model.name}: no input in {data_name(self.data)} is as long as the"
                f" {len(self.labels)} labels: {', '.join(given)}"
            )
        fixed = [spec.dims[0] for spec in self.specs if spec.dims]
        step = min((n for n in fixed if isinstance(n, int)), default=count)
        for first in range(start, start + count, step):
            rows = min(step, start + count - first)
            inputs = {spec.name: self._examples(spec, first, rows, step) for spec in self.specs}
            array = self.session.run(inputs).get(self.output)
            if array is None or array.dtype.kind not in "fV" or array.ndim == 0:
                raise OnnxcanonError(
                    f"{self.model.name}: output '{self.output}' holds no numbers for each example"
                )
            yield np.asarray(array[:rows] if len(array) == step else array, np.float64)

    def _holds_examples(self, spec: InputSpec) -> bool:
        """Whether an input holds one entry for each label; any other goes whole into every batch."""
        return np.shape(self.data.get(spec.name, ()))[:1] == (len(self.labels),)

    def _examples(self, spec: InputSpec, first: int, rows: int, step: int) -> Array:
        """Some examples of one input; the last one again where a fixed number is not full."""
        if not self._holds_examples(spec):
            return converted(spec, self.data)
        some = converted(spec, self.data, slice(first, first + rows))
        return np.concatenate([some, *[some[-1:]] * (step - rows)]) if rows < step else some


def _reader(model: Model, session: OpenModel, data: Mapping[str, Array], output: str | None) -> _OutputReader:
    """What reads one output of an open model, the first unless another is named."""
    names = [value.name for value in session.outputs]
    if output is not None and output not in names:
        raise OnnxcanonError(f"{model.name}: no output is called '{output}'; it has {', '.join(names)}")
    specs = input_specs(model.ir, any_type=True)
    return _OutputReader(model, session, output or names[0], specs, data, labels_of(data))


def _evaluation(name: str, totals: Totals, device: str) -> Evaluation:
    """The means."""
    count = max(totals.count, 1)
    accuracy = totals.right / count if totals.classes else None
    measure = CROSS_ENTROPY if totals.classes else SQUARED_ERROR
    return Evaluation(name, totals.loss / count, accuracy, measure, totals.count, device)
