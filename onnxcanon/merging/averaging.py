"""Weighted averages of models of one structure: θ = Σ wᵢ θᵢ, tensor by tensor, in double precision.

All models are first spelled as one of them, the reference: its graph, its names, their parameters
(`expressed_in`). What is no weight has to be equal then, and everything that follows goes by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.comparison.correspondence import correspondence, same_entries
from onnxcanon.comparison.metrics import root_mean_square, wide
from onnxcanon.comparison.mismatch import explain_mismatch, why_not_averaged
from onnxcanon.errors import OnnxcanonError
from onnxcanon.graph.element_types import AVERAGED
from onnxcanon.model import Model
from onnxcanon.text import plural
from onnxcanon.weights import averaged_names

MEMORY_ENTRIES = 1 << 24
"""Entries up to which a model that is read again and again is computed once and in_memory."""


def expressed_in(reference: Model, model: Model) -> Model:
    """The parameters of `model` in the graph, with the names and metadata, of `reference`; read lazily.

    What no output depends on stays as it is in the reference.

    Raises:
        OnnxcanonError: the graphs differ, or widths, or a tensor that has no mean.
    """
    if model is reference:
        return reference
    pairs = correspondence(reference, model)
    if pairs is None:
        raise OnnxcanonError(explain_mismatch(reference, model))
    counterparts: dict[str, str] = {}
    for name, counterpart in pairs:
        first = counterparts.setdefault(name, counterpart)
        if first != counterpart and not same_entries(model, first, model, counterpart):
            raise OnnxcanonError(
                f"{reference.name} stores one tensor '{name}' where {model.name} has two that differ,"
                f" '{first}' and '{counterpart}'; export both alike"
            )
        if reference.tensor_info(name)[1] not in AVERAGED and not same_entries(
            reference, name, model, counterpart
        ):
            raise OnnxcanonError(why_not_averaged(reference, name, model, counterpart))
    averaged = {n: c for n, c in counterparts.items() if reference.tensor_info(n)[1] in AVERAGED}
    return reference.with_tensors({name: partial(_read, model, c) for name, c in averaged.items()})


def average(models: Sequence[Model], weights: Sequence[float]) -> Model:
    """Σ wᵢ θᵢ of models that share the graph of the first, evaluated tensor by tensor when it is read.

    Models of weight 0 are not read; one of weight 1 alone keeps its bits.
    """
    names = averaged_names(models[0])
    return models[0].with_tensors({name: partial(_mean, models, weights, name) for name in names})


def shares_of(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """Weights that add up to 1; equal ones by default.

    >>> shares_of([1, 3], 2)
    (0.25, 0.75)

    Raises:
        OnnxcanonError: their number is another, or they are not positive numbers or 0.
    """
    given = [1.0] * count if weights is None else [float(w) for w in weights]
    if len(given) != count:
        raise OnnxcanonError(
            f"{plural(len(given), 'weight')} for {plural(count, 'model')}; give one for each"
        )
    total = sum(given)
    if not all(0 <= w < np.inf for w in given) or not 0 < total < np.inf:
        told = ", ".join(f"{w:g}" for w in given)
        raise OnnxcanonError(f"weights {told}: give numbers from 0 on, not all of them 0")
    return tuple(w / total for w in given)


def in_memory(model: Model) -> Model:
    """The same model, its averaged tensors computed once if they are few enough to stay in memory."""
    names = averaged_names(model)
    if sum(int(np.prod(model.tensor_info(n)[0], dtype=np.int64)) for n in names) > MEMORY_ENTRIES:
        return model
    return model.with_tensors({name: model.tensor(name) for name in names})


def distance(a: Model, b: Model) -> float:
    """The root mean square difference of the averaged tensors of two models that share a graph."""
    return root_mean_square(a, b, [(name, name) for name in averaged_names(a)])


def _read(model: Model, name: str) -> NDArray[Any]:
    array = model.tensor(name)
    model.drop_pages(array)  # of the tensors before: this one is not touched yet
    return array


def _mean(models: Sequence[Model], weights: Sequence[float], name: str) -> NDArray[Any]:
    """Σ wᵢ θᵢ of one tensor, in its own type."""
    total: NDArray[Any] | None = None
    for model, weight in zip(models, weights, strict=True):
        if weight:
            part = wide(model.tensor(name)) * weight
            total = part if total is None else total + part
    assert total is not None  # weights add up to 1
    return total.astype(models[0].tensor_info(name)[1].numpy())
