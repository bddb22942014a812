"""Where each tensor goes when a model is written: into the file, or into its external data file.

Layout follows the source. A tensor that neither moves nor changes is copied with the bytes around it; one
that does is spelled anew from its own message, which keeps its name, doc string, metadata and unknown fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import onnx
import onnx_ir as ir

from onnxcanon.files import wire
from onnxcanon.files.admission import TYPED_DATA, tensors_in
from onnxcanon.files.source import Slot, Source, Tensor
from onnxcanon.files.storage import DataFile
from onnxcanon.files.wire import Field, Payload, Piece

# What the data file decides anew. Other entries of an external reference are kept.
_PLACE = ("location", "offset", "length", "checksum")


def lay_out(
    source: Source, new: Mapping[str, Payload], data: DataFile | None, moved: int | None
) -> list[Piece]:
    """Spell a model, without fetching any tensor but numbers kept in attributes of Constant nodes.

    Args:
        source: The model.
        new: Raw values of the tensors that change.
        data: Takes the external tensors; None puts them into the model.
        moved: Initializers of this many bytes or more become external too; None: none do.
    """
    changes: dict[Field, list[Piece]] = {}
    within: dict[Field, Payload] = {}
    for name, tensor in source.tensors.items():
        external = tensor.slot is not None and tensor.slot.external
        if tensor.attribute:
            if name in new and external:
                within[tensor.part] = new[name]
            elif name in new:
                changes[tensor.part] = _constant(source, tensor, new[name])
            continue
        outgrown = moved is not None and tensor.nbytes >= moved and tensor.dtype != ir.DataType.STRING
        if not (external or outgrown or name in new):
            continue
        proto = onnx.TensorProto.FromString(wire.cut_raw_data(source.buffer, tensor.part)[0])
        payload = new.get(name) or _unchanged(tensor)
        if data is not None and (external or outgrown):
            _refer(proto, data, payload, tensor.slot if name not in new else None)
            changes[tensor.part] = wire.nest(tensor.part.tag, [proto.SerializeToString()])
        else:
            changes[tensor.part] = wire.nest(tensor.part.tag, _inline(proto, payload))
    for part, slots in source.external.items():
        changes[part] = _embedding(source, part, slots, within.get(part), data)
    return source.pieces(changes)


def _unchanged(tensor: Tensor) -> Payload:
    slot = tensor.slot
    return Payload(tensor.nbytes, tensor.value.tobytes if slot is None else lambda: slot.data)


def _inline(proto: onnx.TensorProto, payload: Payload) -> list[Piece]:
    """The message of a tensor with these raw values."""
    _strip(proto)
    return [proto.SerializeToString(), wire.header(wire.TENSOR_RAW_DATA, payload.nbytes), payload]


def _refer(proto: onnx.TensorProto, data: DataFile, payload: Payload, slot: Slot | None) -> None:
    """Place the values in the data file and refer to them; unchanged ones share places as they did before."""
    kept = [(entry.key, entry.value) for entry in proto.external_data if entry.key not in _PLACE]
    offset = data.place(payload, slot and _address(slot))
    _strip(proto)
    proto.data_location = onnx.TensorProto.EXTERNAL
    place = [("location", data.location), ("offset", str(offset)), ("length", str(payload.nbytes))]
    for key, value in place + kept:
        proto.external_data.add(key=key, value=value)


def _address(slot: Slot) -> tuple[int, int] | None:
    """Where the mapped data lies in memory: equal for two tensors exactly if they name the same bytes."""
    return (np.frombuffer(slot.data, np.uint8).ctypes.data, len(slot.data)) if len(slot.data) else None


def _strip(proto: onnx.TensorProto) -> None:
    for name in (*TYPED_DATA, "raw_data", "data_location", "external_data"):
        proto.ClearField(name)


def _constant(source: Source, tensor: Tensor, payload: Payload) -> list[Piece]:
    """A Constant node with another value."""
    node = onnx.NodeProto.FromString(bytes(source.buffer[tensor.part.body : tensor.part.end]))
    attributes: list[Piece] = []
    for attribute in node.attribute:
        inner: list[Piece] = []
        if attribute.name == tensor.attribute == "value":
            proto = onnx.TensorProto()
            proto.CopyFrom(attribute.t)
            attribute.ClearField("t")
            inner = wire.nest(wire.ATTRIBUTE_TENSOR, _inline(proto, payload))
        elif attribute.name == tensor.attribute:
            _set_numbers(attribute, np.frombuffer(payload.read(), tensor.dtype.numpy()))
        attributes += wire.nest(wire.NODE_ATTRIBUTE, [attribute.SerializeToString(), *inner])
    del node.attribute[:]
    return wire.nest(tensor.part.tag, [node.SerializeToString(), *attributes])


def _set_numbers(attribute: onnx.AttributeProto, values: np.ndarray) -> None:
    match attribute.name:
        case "value_float":
            attribute.f = values.item()
        case "value_int":
            attribute.i = values.item()
        case "value_floats":
            attribute.floats[:] = values.tolist()
        case "value_ints":
            attribute.ints[:] = values.tolist()


def _embedding(
    source: Source, part: Field, slots: list[Slot], new: Payload | None, data: DataFile | None
) -> list[Piece]:
    """A node or function with external tensors inside; `new` is the value of a Constant's, if it changes."""
    content = bytes(source.buffer[part.body : part.end])
    message: onnx.NodeProto | onnx.FunctionProto
    if part.tag == wire.MODEL_FUNCTION:
        message = function = onnx.FunctionProto.FromString(content)
        nodes = list(function.node)
    else:
        message = onnx.NodeProto.FromString(content)
        nodes = [message]
    protos = [proto for proto in tensors_in(nodes) if proto.data_location == onnx.TensorProto.EXTERNAL]
    for proto, slot in zip(protos, slots, strict=True):
        payload = new or Payload(len(slot.data), partial(getattr, slot, "data"))
        if data is not None:
            _refer(proto, data, payload, None if new else slot)
        else:
            _strip(proto)
            proto.raw_data = bytes(payload.read())
    return wire.nest(part.tag, [message.SerializeToString()])
