"""Weighted averages of models of one structure: θ = Σ wᵢ θᵢ, tensor by tensor, in double precision.

All models are first spelled as one of them, the reference: its graph, its names, their parameters
(`spelled_as`). What is no weight has to be equal then, and everything that follows goes by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir import DataType

from onnxcanon.comparison.correspondence import correspondence
from onnxcanon.errors import OnnxcanonError
from onnxcanon.model import Model
from onnxcanon.symmetry.graphs import inlined, live
from onnxcanon.symmetry.trace import node_name
from onnxcanon.wording import counted

AVERAGED = frozenset(
    {
        DataType.FLOAT, DataType.DOUBLE, DataType.FLOAT16, DataType.BFLOAT16,
        DataType.COMPLEX64, DataType.COMPLEX128,
    }
)  # fmt: skip
"""Types whose entries have a mean. All others have to be equal in all models."""

SHOWN = 3
"""How many tensors a message names."""

KEPT = 1 << 24
"""Entries up to which a model that is read again and again is computed once and kept."""


def spelled_as(reference: Model, model: Model) -> Model:
    """The parameters of `model` in the graph, with the names and metadata, of `reference`; read lazily.

    What no output depends on stays as it is in the reference.

    Raises:
        OnnxcanonError: the graphs differ, or widths, or a tensor that has no mean.
    """
    if model is reference:
        return reference
    pairs = correspondence(reference, model)
    if pairs is None:
        raise OnnxcanonError(difference(reference, model))
    counterparts: dict[str, str] = {}
    for name, counterpart in pairs:
        first = counterparts.setdefault(name, counterpart)
        if first != counterpart and not _equal(model, first, model, counterpart):
            raise OnnxcanonError(
                f"{reference.name} stores one tensor '{name}' where {model.name} has two that differ,"
                f" '{first}' and '{counterpart}'; export both alike"
            )
        if reference.tensor_info(name)[1] not in AVERAGED and not _equal(reference, name, model, counterpart):
            raise OnnxcanonError(_no_mean(reference, name, model, counterpart))
    averaged = {n: c for n, c in counterparts.items() if reference.tensor_info(n)[1] in AVERAGED}
    return reference.with_tensors({name: partial(_read, model, c) for name, c in averaged.items()})


def average(models: Sequence[Model], weights: Sequence[float]) -> Model:
    """Σ wᵢ θᵢ of models that share the graph of the first, evaluated tensor by tensor when it is read.

    Models of weight 0 are not read; one of weight 1 alone keeps its bits.
    """
    names = averaged_names(models[0])
    return models[0].with_tensors({name: partial(_mean, models, weights, name) for name in names})


def averaged_names(model: Model) -> list[str]:
    """The tensors that have a mean."""
    return [name for name in model.tensor_names() if model.tensor_info(name)[1] in AVERAGED]


def normalized(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """Weights that add up to 1; equal ones by default.

    Raises:
        OnnxcanonError: their number is another, or they are not positive numbers or 0.
    """
    given = [1.0] * count if weights is None else [float(w) for w in weights]
    if len(given) != count:
        raise OnnxcanonError(
            f"{counted(len(given), 'weight')} for {counted(count, 'model')}; give one for each"
        )
    total = sum(given)
    if not all(0 <= w < np.inf for w in given) or not 0 < total < np.inf:
        told = ", ".join(f"{w:g}" for w in given)
        raise OnnxcanonError(f"weights {told}: give numbers from 0 on, not all of them 0")
    return tuple(w / total for w in given)


def kept(model: Model) -> Model:
    """The same model, its averaged tensors computed once if they are few enough to stay in memory."""
    names = averaged_names(model)
    if sum(int(np.prod(model.tensor_info(n)[0], dtype=np.int64)) for n in names) > KEPT:
        return model
    return model.with_tensors({name: model.tensor(name) for name in names})


def distance(a: Model, b: Model) -> float:
    """The root mean square difference of the averaged tensors of two models that share a graph."""
    total, count = 0.0, 0
    for name in averaged_names(a):
        gap = np.abs(_wide(a.tensor(name)) - b.tensor(name))
        total += float((gap**2).sum())
        count += gap.size
    return float(np.sqrt(total / max(count, 1)))


def difference(reference: Model, model: Model) -> str:
    """Why two models are not of one structure, in a line."""
    nodes = (live(inlined(one.ir).graph) for one in (reference, model))
    widths: dict[str, None] = {}
    others: list[str] = []
    for one, other in zip_longest(*nodes):
        if one is None or other is None or _operator(one) != _operator(other):
            told = [f"{_operator(n)} '{node_name(n)}'" if n is not None else "no node" for n in (one, other)]
            return (
                f"{reference.name} has {told[0]} where {model.name} has {told[1]}: models of different"
                " structures cannot be averaged"
            )
        for name, counterpart in _constants(reference, one, model, other):
            (shape, dtype), (theirs, type_) = reference.tensor_info(name), model.tensor_info(counterpart)
            if dtype != type_:
                others.append(_unlike(name, dtype.name, reference, counterpart, type_.name, model))
            elif shape != theirs:
                widths[_unlike(name, str(list(shape)), reference, counterpart, str(list(theirs)), model)] = (
                    None
                )
            elif dtype not in AVERAGED and not _equal(reference, name, model, counterpart):
                others.append(_no_mean(reference, name, model, counterpart))
    if widths:
        return f"{', '.join(list(widths)[:SHOWN])}: models of different widths cannot be averaged"
    if others:
        return others[0]
    return (
        f"{reference.name} and {model.name} have the same operators, but their attributes or connections"
        " differ: models of different structures cannot be averaged"
    )


def _unlike(name: str, what: str, a: Model, counterpart: str, other: str, b: Model) -> str:
    called = "" if counterpart == name else f"{counterpart} is "
    return f"{name} is {what} in {a.name} and {called}{other} in {b.name}"


def _operator(node: ir.Node) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def _constants(a: Model, one: ir.Node, b: Model, other: ir.Node) -> Iterator[tuple[str, str]]:
    """The constants that two nodes read at the same place."""
    for ours, theirs in zip(one.inputs, other.inputs, strict=False):
        if ours is not None and theirs is not None:
            name, counterpart = a.key(ours), b.key(theirs)
            if name is not None and counterpart is not None:
                yield name, counterpart


def _no_mean(a: Model, name: str, b: Model, counterpart: str) -> str:
    """Why a tensor that differs cannot be averaged."""
    dtype = a.tensor_info(name)[1]
    what = "no weights, and has to be equal in all models"
    if dtype.bitwidth <= 8 and dtype not in (DataType.BOOL, DataType.STRING):
        what = "quantized weights, which cannot be averaged: merge the models before quantizing"
    called = "" if counterpart == name else f" ('{counterpart}')"
    differs = f"tensor '{name}'{called} differs from that of {a.name}"
    return f"{b.name}: {differs}; it is {dtype.name} and holds {what}"


def _equal(a: Model, name: str, b: Model, counterpart: str) -> bool:
    x, y = a.tensor(name), b.tensor(counterpart)
    if x.dtype != y.dtype or x.shape != y.shape:
        return False
    return bool((x == y).all()) if x.dtype == object else x.tobytes() == y.tobytes()


def _read(model: Model, name: str) -> NDArray[Any]:
    array = model.tensor(name)
    model.drop_pages(array)  # of the tensors before: this one is not touched yet
    return array


def _wide(array: NDArray[Any]) -> NDArray[Any]:
    """In double precision."""
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _mean(models: Sequence[Model], weights: Sequence[float], name: str) -> NDArray[Any]:
    """Σ wᵢ θᵢ of one tensor, in its own type."""
    total: NDArray[Any] | None = None
    for model, weight in zip(models, weights, strict=True):
        if weight:
            part = _wide(model.tensor(name)) * weight
            total = part if total is None else total + part
    assert total is not None  # weights add up to 1
    return total.astype(models[0].tensor_info(name)[1].numpy())
