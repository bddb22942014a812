"""Sums of integers that do not depend on their order.

Processors with AVX2 and no dot product of bytes (VNNI) add up two products of unsigned and signed bytes in
16 bits, and saturate: which products meet depends on the order of the weights, and twins differ by percents.
With unsigned weights onnxruntime adds up in 32 bits. So weights and their zero points both move by 128, which
changes no result where nothing saturates.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from onnxcanon.graph.traits import QuantizedWeight, row
from onnxcanon.model import Model, load

LARGEST = 1 << 28  # bytes of weights: the copy is held in memory


def guarded(model: Model) -> Model:
    """The model with the signed weights of its unsigned activations as unsigned ones."""
    nodes = [node for node in model.ir.graph if row(node).weights]
    if not nodes or model.serialized_size() > LARGEST:
        return model
    proto = model.to_proto()
    constants = set(model.tensor_names())
    dynamic = {o for n in proto.graph.node if n.op_type == "DynamicQuantizeLinear" for o in n.output}
    made: dict[str, np.ndarray] = {}
    for node in proto.graph.node:
        for slots in row(node).weights:
            if _unsigned(model, node, slots, constants, dynamic):
                _turn(model, node, slots, constants, made)
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in made.items())
    return load(proto) if made else model


def _unsigned(
    model: Model, node: onnx.NodeProto, slots: QuantizedWeight, constants: set[str], dynamic: set[str]
) -> bool:
    """Whether a node's activation is known to be unsigned."""
    if slots.activation is None or node.input[0] in dynamic:
        return True
    name = node.input[slots.activation] if slots.activation < len(node.input) else ""
    return name in constants and model.tensor(name).dtype == np.uint8


def _turn(
    model: Model,
    node: onnx.NodeProto,
    slots: QuantizedWeight,
    constants: set[str],
    made: dict[str, np.ndarray],
) -> None:
    """Replace a signed weight and its zero point."""
    weight = node.input[slots.weight]
    zero = node.input[slots.zero] if slots.zero < len(node.input) else ""
    if weight not in constants or (zero and zero not in constants):
        return
    if model.tensor(weight).dtype != np.int8:
        return
    node.input.extend([""] * (slots.zero + 1 - len(node.input)))
    for slot, name in ((slots.weight, weight), (slots.zero, zero)):
        array = model.tensor(name) if name else np.array(0, np.int8)
        twin = f"{name or weight}.{'unsigned' if name else 'zero'}"
        made[twin] = (array.astype(np.int16) + 128).astype(np.uint8)
        node.input[slot] = twin
