"""Where each tensor goes when a model is written: into the file, or into its external data file.

Layout follows the source. A tensor that neither moves nor changes is copied with the bytes around it; one
that does is spelled anew from its own message, which keeps its name, doc string, metadata and unknown fields.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import onnx
import onnx_ir as ir

from onnxcanon.files import wire
from onnxcanon.files.source import MappedTensor, Source, Tensor
from onnxcanon.files.storage import DataFile
from onnxcanon.files.validation import TYPED_DATA
from onnxcanon.files.wire import Field, FieldPath, Payload, Piece

# What the data file decides anew. Other entries of an external reference are kept.
_PLACE = ("location", "offset", "length", "checksum")
# The file that tensors are said to be in which are given by other means.
LEFT_OUT = "given"


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

    def outside(name: str, tensor: Tensor) -> bool:
        outgrown = moved is not None and tensor.nbytes >= moved and _may_move(tensor)
        return _is_external(tensor) or outgrown

    return _laid_out(source, new, outside, data, data)


def lay_out_without(source: Source, new: Mapping[str, Payload], left_out: Collection[str]) -> list[Piece]:
    """Spell a model that only refers to some initializers, in a file that there is not; all other tensors
    are in the model, external ones too."""
    return _laid_out(source, new, lambda name, tensor: name in left_out, DataFile(LEFT_OUT), None)


def _laid_out(
    source: Source,
    new: Mapping[str, Payload],
    outside: Callable[[str, Tensor], bool],
    data: DataFile | None,
    others: DataFile | None,
) -> list[Piece]:
    """Spell a model with the tensors that are `outside` in `data`, and in `others` what no node refers to."""
    changes: list[tuple[FieldPath, list[Piece]]] = []
    for name, tensor in source.tensors.items():
        if tensor.attribute:
            if name in new:
                changes.append((tensor.path, _numbers(source, tensor, new[name])))
            continue
        place = data if outside(name, tensor) else None
        if place is not None or _is_external(tensor) or name in new:
            payload = new.get(name) or _unchanged(tensor)
            slot = None if name in new else tensor.slot
            changes.append((tensor.path, _spelled(source, tensor.path[-1], payload, slot, place)))
    for path, slot in source.external:
        payload = _mapped(slot)
        changes.append((path, _spelled(source, path[-1], payload, slot, others)))
    return source.pieces(changes)


def _is_external(tensor: Tensor) -> bool:
    return tensor.slot is not None and tensor.slot.external


def _may_move(tensor: Tensor) -> bool:
    return tensor.dtype != ir.DataType.STRING and tensor.initializer


def _spelled(
    source: Source, part: Field, payload: Payload, slot: MappedTensor | None, data: DataFile | None
) -> list[Piece]:
    """A tensor with these values, in the data file if there is one; `slot` is where they come from."""
    proto = onnx.TensorProto.FromString(wire.cut_raw_data(source.buffer, part)[0])
    if data is None:
        return wire.nest(part.tag, _inline(proto, payload))
    _refer(proto, data, payload, slot)
    return wire.nest(part.tag, [proto.SerializeToString()])


def _unchanged(tensor: Tensor) -> Payload:
    return (
        Payload(tensor.nbytes, lambda: [tensor.value.tobytes()])
        if tensor.slot is None
        else _mapped(tensor.slot)
    )


def _mapped(slot: MappedTensor) -> Payload:
    return Payload(len(slot.data), lambda: [slot.data])


def _inline(proto: onnx.TensorProto, payload: Payload) -> list[Piece]:
    """The message of a tensor with these raw values."""
    _strip(proto)
    return [proto.SerializeToString(), wire.header(wire.TENSOR_RAW_DATA, payload.nbytes), payload]


def _refer(proto: onnx.TensorProto, data: DataFile, payload: Payload, slot: MappedTensor | None) -> None:
    """Place the values in the data file and refer to them; unchanged ones share places as they did before."""
    kept = [(entry.key, entry.value) for entry in proto.external_data if entry.key not in _PLACE]
    offset = data.place(payload, slot and _address(slot))
    _strip(proto)
    proto.data_location = onnx.TensorProto.EXTERNAL
    place = [("location", data.location), ("offset", str(offset)), ("length", str(payload.nbytes))]
    for key, value in place + kept:
        proto.external_data.add(key=key, value=value)


def _address(slot: MappedTensor) -> tuple[int, int] | None:
    """Where the mapped data lies in memory: equal for two tensors exactly if they name the same bytes."""
    return (np.frombuffer(slot.data, np.uint8).ctypes.data, len(slot.data)) if len(slot.data) else None


def _strip(proto: onnx.TensorProto) -> None:
    for name in (*TYPED_DATA, "raw_data", "data_location", "external_data"):
        proto.ClearField(name)


def _numbers(source: Source, tensor: Tensor, payload: Payload) -> list[Piece]:
    """An attribute with other numbers."""
    part = tensor.path[-1]
    attribute = onnx.AttributeProto.FromString(bytes(source.buffer[part.body : part.end]))
    _set_numbers(attribute, np.frombuffer(wire.join([payload]), tensor.dtype.numpy()))
    return wire.nest(part.tag, [attribute.SerializeToString()])


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
