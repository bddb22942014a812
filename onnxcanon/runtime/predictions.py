"""What labelled outputs predict: numbers, or log-probabilities of classes; and the loss of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import onnx_ir as ir

from onnxcanon.arrays import Array, Floats
from onnxcanon.errors import OnnxcanonError

TINY = 1e-300
"""The least probability that has a logarithm here."""


class Form(Enum):
    """What an output of classes holds."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    LOGARITHMS = "logarithms of probabilities"


_MAKERS = {"Softmax": Form.PROBABILITIES, "Sigmoid": Form.PROBABILITIES, "LogSoftmax": Form.LOGARITHMS}


@dataclass(slots=True)
class Totals:
    """Sums over batches; `classes` says whether labels are classes."""

    classes: bool
    loss: float = 0.0
    right: int = 0
    count: int = 0

    def add(self, predictions: Floats, labels: Array) -> None:
        """One more batch: log-probabilities with the classes last, or numbers."""
        self.count += labels.size
        if not self.classes:
            squares = (predictions - labels.reshape(predictions.shape)) ** 2
            self.loss += float(squares.sum()) * labels.size / predictions.size
            return
        wanted = labels.astype(np.int64)[..., None]
        self.loss -= float(np.take_along_axis(predictions, wanted, -1).sum())
        self.right += int((predictions.argmax(-1) == wanted[..., 0]).sum())


def classes_last(array: Floats, labels: Array, name: str) -> Floats:
    """An output with the axis of classes at the end: the one that the labels do not have.

    Args:
        array: the output.
        labels: the labels of the same examples.
        name: what messages call the output.

    Raises:
        OnnxcanonError: there is no such axis.
    """
    if array.shape == labels.shape:  # a single number for each label, of the second of two classes
        return array[..., None]
    for axis in (array.ndim - 1, *range(1, array.ndim - 1)):
        if array.shape[:axis] + array.shape[axis + 1 :] == labels.shape:
            return np.moveaxis(array, axis, -1)
    raise OnnxcanonError(
        f"{name} is {list(array.shape)}, the labels {list(labels.shape)}: there is no axis of classes"
    )


def form_of(output: ir.Value, array: Floats) -> Form:
    """What an output holds, by the operator that makes it or by its values, the classes last."""
    producer = output.producer()
    if producer is not None and producer.op_type in _MAKERS:
        return _MAKERS[producer.op_type]
    if array.shape[-1] > 1:
        inside = bool(((array >= 0) & (array <= 1)).all())
        if inside and np.allclose(array.sum(-1), 1, atol=1e-3):
            return Form.PROBABILITIES
        if np.allclose(np.exp(np.minimum(array, 1)).sum(-1), 1, atol=1e-3):
            return Form.LOGARITHMS
    return Form.LOGITS


def log_probabilities(array: Floats, form: Form) -> Floats:
    """The logarithms of probabilities that add up to 1, of two classes where there is a single number.

    >>> log_probabilities(np.array([[0.25]]), Form.PROBABILITIES).round(3).tolist()
    [[-0.288, -1.386]]
    >>> log_probabilities(np.array([[3.0, 3.0]]), Form.LOGITS).round(3).tolist()
    [[-0.693, -0.693]]
    """
    if array.shape[-1] == 1:
        other = 1 - array if form is Form.PROBABILITIES else np.zeros_like(array)
        array = np.concatenate([other, array], -1)
    if form is Form.LOGARITHMS:
        return array
    if form is Form.PROBABILITIES:
        return np.asarray(np.log(np.maximum(array, TINY)))
    shifted = array - array.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def mean_prediction(predictions: Sequence[Floats], *, classes: bool) -> Floats:
    """The mean of what models predict; of probabilities, not of their logarithms.

    Raises:
        OnnxcanonError: they predict different numbers of classes.
    """
    if any(array.shape != predictions[0].shape for array in predictions):
        raise OnnxcanonError("the models of an ensemble predict different numbers of classes")
    if not classes:
        return np.asarray(np.mean(predictions, 0))
    return np.asarray(np.log(np.maximum(np.mean(np.exp(predictions), 0), TINY)))
