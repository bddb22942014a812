"""Which constants of a model are weights: by type, by use, and those that training has learned."""

from __future__ import annotations

from math import prod

from onnxcanon.graph.element_types import AVERAGED, INDEX_TYPES
from onnxcanon.graph.traits import Trait, has, row
from onnxcanon.model import Model
from onnxcanon.symmetry import Symmetry


def weight_count(model: Model) -> int:
    """Entries of all constants that are numbers, no indices. A single number counts where a layer reads it:
    most are settings that an exporter wrote down as constants."""
    return sum(prod(model.tensor_info(name)[0]) for name in weight_names(model))


def weight_names(model: Model) -> list[str]:
    """The constants whose entries count as weights."""
    values = model.ir.graph.initializers
    names = []
    for name in model.tensor_names():
        shape, dtype = model.tensor_info(name)
        single = prod(shape) == 1 and not (
            shape and name in values and any(has(node, Trait.LAYER) for node, _ in values[name].uses())
        )
        if dtype not in INDEX_TYPES and not single:
            names.append(name)
    return names


def averaged_names(model: Model) -> list[str]:
    """The tensors that have a mean."""
    return [name for name in model.tensor_names() if model.tensor_info(name)[1] in AVERAGED]


def learned_names(model: Model, symmetry: Symmetry) -> list[str]:
    """The floating weights: no data (masks, tables, frequencies), no statistics of normalizations."""
    measured = {
        model.key(value)
        for node in symmetry.trace.nodes
        for k in row(node).statistics
        if k < len(node.inputs) and (value := node.inputs[k]) is not None
    }
    return [
        name
        for name in weight_names(model)
        if model.tensor_info(name)[1] in AVERAGED
        and name not in symmetry.trace.data_constants
        and name not in measured
    ]
