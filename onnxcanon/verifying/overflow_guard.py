"""Sums of integers that do not depend on their order.

Processors with AVX2 and no dot product of bytes (VNNI) add up two products of unsigned and signed bytes in
16 bits, and saturate: which products meet depends on the order of the weights, and equal models differ by
percents. With unsigned weights onnxruntime adds up in 32 bits. So weights and their zero points both move by
128, which changes no result where nothing saturates.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from onnxcanon.arrays import Array
from onnxcanon.graph.traits import row
from onnxcanon.model import Model, load

LARGEST = 1 << 28  # bytes of weights: the copy is held in memory


def guarded(model: Model) -> Model:
    """The model with the signed weights of its unsigned activations as unsigned ones."""
    if not any(row(node).weights for node in model.ir.graph) or model.serialized_size() > LARGEST:
        return model
    proto = model.to_proto()
    constants = set(model.tensor_names())
    dynamic = {o for n in proto.graph.node if n.op_type == "DynamicQuantizeLinear" for o in n.output}
    unsigned: dict[str, Array] = {}
    for node in proto.graph.node:
        for inputs in row(node).weights:
            weight, zero = _name(node, inputs.weight), _name(node, inputs.zero)
            activation = "" if inputs.activation is None else _name(node, inputs.activation)
            if not (
                inputs.activation is None
                or node.input[0] in dynamic
                or (activation in constants and model.tensor(activation).dtype == np.uint8)
            ):
                continue  # the activation may be signed
            if not {weight, zero or weight} <= constants or model.tensor(weight).dtype != np.int8:
                continue
            node.input.extend([""] * (inputs.zero + 1 - len(node.input)))
            for index, name in ((inputs.weight, weight), (inputs.zero, zero)):
                array = model.tensor(name) if name else np.array(0, np.int8)
                node.input[index] = f"{name or weight}.{'unsigned' if name else 'zero'}"
                unsigned[node.input[index]] = (array.astype(np.int16) + 128).astype(np.uint8)
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in unsigned.items())
    return load(proto) if unsigned else model


def _name(node: onnx.NodeProto, index: int) -> str:
    """The name of an input; empty where it is left out."""
    return node.input[index] if index < len(node.input) else ""
