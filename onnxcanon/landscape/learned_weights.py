"""Which tensors a model has learned: those whose noise and distances mean something."""

from __future__ import annotations

from onnxcanon.explaining.report import weight_names
from onnxcanon.graph.element_types import AVERAGED
from onnxcanon.graph.traits import row
from onnxcanon.model import Model
from onnxcanon.symmetry import Symmetry


def learned(model: Model, symmetry: Symmetry) -> list[str]:
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
