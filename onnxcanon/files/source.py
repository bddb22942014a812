"""A serialized model, opened: its bytes, its graph without the weights, and where every weight lies.

A model is read twice over. The *bytes* stay as they are (mapped, if they come from a file) and are what a
save copies. The *skeleton* is a small `ModelProto` parsed from them without the large tensors; onnx-ir's
graph is built from it, and each tensor left out, in the file or beside it, is put back as a view into a
mapping. What onnx-ir does not know, or writes differently, is still in the bytes: a save loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxcanon.arrays import Shape
from onnxcanon.files import wire
from onnxcanon.files.storage import DataFolder, InvalidFile, check_location, one_line
from onnxcanon.files.tensors import GraphIndex, RepeatedField, TensorFinder, TensorLocation, tensor_keys
from onnxcanon.files.validation import check_size, declared_type, validate
from onnxcanon.files.wire import Field, FieldPath, Piece

# Smaller tensors stay in the skeleton: shape arithmetic reads them anyway, and a view would cost more.
SMALLEST_CUT = 1024


@dataclass(frozen=True, slots=True)
class MappedTensor:
    """A tensor whose bytes (raw, little-endian) are mapped instead of parsed."""

    shape: Shape
    dtype: ir.DataType
    data: memoryview
    external: bool


@dataclass(frozen=True, slots=True)
class Tensor:
    """A constant tensor of the model.

    `path` leads to the tensor in the bytes, or to the attribute of a Constant node that holds numbers, then
    named by `attribute`; `slot` is there if the data is mapped.
    """

    path: FieldPath
    initializer: bool
    attribute: str
    shape: Shape
    dtype: ir.DataType
    nbytes: int
    value: ir.TensorProtocol
    slot: MappedTensor | None


@dataclass(frozen=True, slots=True)
class Source:
    """The bytes of a model, and what was found in them.

    `tensors` are the constants that nodes can refer to, by key; `keys` tells the key of onnx-ir's tensor (or
    attribute of numbers) by its identity; `external` holds the other external tensors.
    """

    buffer: memoryview
    graph: ir.Model
    tensors: dict[str, Tensor]
    keys: dict[int, str]
    external: list[tuple[FieldPath, MappedTensor]]

    def pieces(self, changes: Sequence[tuple[FieldPath, list[Piece]]]) -> list[Piece]:
        """The whole model again, with some fields spelled anew."""
        return wire.splice(self.buffer, 0, len(self.buffer), changes)


def open_source(buffer: memoryview, folder: DataFolder | None) -> Source:
    """Open a serialized model; `folder` is where external data may come from (None: nowhere).

    Raises:
        Refusal: If it is no model, holds what we would lose, or a tensor's claims do not hold.
        wire.WireError: If the bytes are no protobuf message, or cut off.
    """
    try:
        finder = TensorFinder(buffer)
        skeleton, raw = _skeleton(finder)
    except RepeatedField:
        finder = TensorFinder(memoryview(wire.parse(buffer).SerializeToString()))
        skeleton, raw = _skeleton(finder)
    validate(skeleton)
    slots: list[MappedTensor] = []
    mapped: dict[FieldPath, MappedTensor] = {}
    locations = list(finder.find(skeleton))
    for location in locations:
        proto = location.proto
        if isinstance(proto, onnx.TensorProto) and (proto.ByteSize() or location.initializer):
            slot = _take_out(proto, raw.get(location.path[-1]), folder, slots)
            if slot is not None:
                mapped[location.path] = slot
    graph = _deserialize(skeleton)
    _put_back(graph, slots)
    tensors, names = _constants(locations, skeleton.graph, graph, mapped)
    named = {tensor.path for tensor in tensors.values()}
    external = [(path, slot) for path, slot in mapped.items() if slot.external and path not in named]
    return Source(finder.buffer, graph, tensors, names, external)


def _skeleton(finder: TensorFinder) -> tuple[onnx.ModelProto, dict[Field, memoryview]]:
    """Parse the model without the raw data of large tensors; returns that beside."""
    raw: dict[Field, memoryview] = {}
    changes: list[tuple[FieldPath, list[Piece]]] = []
    for path in finder.paths():
        part = path[-1]
        if part.end - part.body >= SMALLEST_CUT:
            rest, data = wire.cut_raw_data(finder.buffer, part)
            if data is not None and len(data) >= SMALLEST_CUT:
                raw[part] = data
                changes.append((path, wire.nest(part.tag, [rest])))
    skeleton = wire.parse(wire.join(wire.splice(finder.buffer, 0, len(finder.buffer), changes)))
    if not skeleton.HasField("graph"):
        raise InvalidFile("it is not an ONNX model: it has no graph", "name the .onnx file")
    return skeleton, raw


def _take_out(
    proto: onnx.TensorProto, raw: memoryview | None, folder: DataFolder | None, slots: list[MappedTensor]
) -> MappedTensor | None:
    """Check a tensor's size; if its data is mapped, leave a reference to its slot in the skeleton."""
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        slot = _external_slot(proto, folder)
    else:
        stored = raw if raw is not None else proto.raw_data if proto.HasField("raw_data") else None
        check_size(proto, None if stored is None else len(stored))
        if raw is None:
            return None
        shape, dtype, _ = declared_type(proto)
        slot = MappedTensor(shape, dtype, raw, external=False)
    proto.data_location = onnx.TensorProto.EXTERNAL
    del proto.external_data[:]
    proto.external_data.add(key="location", value=str(len(slots)))
    slots.append(slot)
    return slot


def _external_slot(proto: onnx.TensorProto, folder: DataFolder | None) -> MappedTensor:
    shape, dtype, nbytes = declared_type(proto)
    name = f"tensor '{proto.name}'"
    if dtype == ir.DataType.STRING:
        raise InvalidFile(f"{name} holds strings and is external", "export it again")
    entries = {entry.key: entry.value for entry in proto.external_data}
    if not all(isinstance(entry, str) for entry in entries.values()):
        raise InvalidFile(f"{name} refers to external data by no UTF-8 text", "export it again")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", nbytes))
    except ValueError:
        raise InvalidFile(f"{name} has no valid external offset and length", "export it again") from None
    if offset < 0 or length != nbytes:
        claimed = f"{nbytes} bytes ({dtype.name} {list(shape)})"
        raise InvalidFile(
            f"{name} should hold {claimed} but names {length} external bytes at {offset}",
            "the file is damaged: fetch or export it again",
        )
    location = entries.get("location", "")
    check_location(location)
    if nbytes == 0:
        return MappedTensor(shape, dtype, memoryview(b""), external=True)
    if folder is None:
        raise InvalidFile(f"{name} is external data of a model in memory", "pass the model's path instead")
    return MappedTensor(shape, dtype, folder.read(location, offset, nbytes), external=True)


def _deserialize(skeleton: onnx.ModelProto) -> ir.Model:
    try:
        return ir.serde.deserialize_model(skeleton)
    except Exception as error:  # a malformed graph may fail in any way
        cause = f"the graph is not valid: {one_line(error)}"
        raise InvalidFile(cause, "see what onnx.checker says of it") from error


def _put_back(model: ir.Model, slots: list[MappedTensor]) -> None:
    """Replace every reference to a slot by a tensor that views the mapped data."""
    graphs = [*model.graphs()]
    for function in model.functions.values():
        graphs += [function.graph, *function.subgraphs()]
    for graph in graphs:
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = _restored(value.const_value, slots)
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                content: Any = attribute.value
                if attribute.is_ref():
                    continue
                if attribute.type == ir.AttributeType.TENSOR:
                    content = _restored(content, slots)
                elif attribute.type == ir.AttributeType.TENSORS:
                    content = [_restored(tensor, slots) for tensor in content]
                if content is not attribute.value:
                    about = attribute.doc_string
                    node.attributes[name] = ir.Attr(name, attribute.type, content, doc_string=about)


def _restored(tensor: ir.TensorProtocol, slots: list[MappedTensor]) -> ir.TensorProtocol:
    """The tensor, or if it refers to a slot a view of the data there, under the same name."""
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    slot = slots[int(str(tensor.location))]
    data = np.frombuffer(slot.data, np.uint8)
    restored: ir.PackedTensor[np.ndarray] | ir.Tensor[np.ndarray]
    if slot.dtype.bitwidth < 8:
        restored = ir.PackedTensor(data, slot.dtype, shape=slot.shape)
    else:
        restored = ir.Tensor(data.view(slot.dtype.numpy()).reshape(slot.shape), slot.dtype)
    restored.name, restored.doc_string = tensor.name, tensor.doc_string
    restored.metadata_props.update(tensor.metadata_props)
    return restored


def _constants(
    locations: Sequence[TensorLocation],
    main: onnx.GraphProto,
    model: ir.Model,
    slots: Mapping[FieldPath, MappedTensor],
) -> tuple[dict[str, Tensor], dict[int, str]]:
    """Initializers and outputs of Constant nodes that hold numbers (or a tensor of strings), by key.

    An initializer without a name, which nothing can refer to, is only kept in the bytes.
    """
    graphs = GraphIndex(model)
    named: dict[tuple[object, ...], tuple[TensorLocation, Tensor, int]] = {}
    for location in locations:
        slot = slots.get(location.path)
        if location.initializer:
            mark = (location.function, location.steps, location.name)
            if mark in named or (slot and slot.external and not location.name):
                raise InvalidFile(
                    f"two initializers are named '{location.name}' or one has no name", "export it again"
                )
            value = graphs.initializer(location)
            if value is not None and location.name:
                tensor = Tensor(location.path, True, "", *declared_type(location.proto), value, slot)
                named[mark] = location, tensor, id(value)
        elif location.name and (attribute := graphs.attribute(location)) is not None:
            value = _constant_value(attribute)
            whole = attribute.type == ir.AttributeType.TENSOR
            if value is not None and whole == isinstance(location.proto, onnx.TensorProto):
                about = (
                    "" if whole else attribute.name,
                    tuple(value.shape.numpy()),
                    value.dtype,
                    value.nbytes,
                )
                tensor = Tensor(location.path, False, *about, value, slot)
                named[location.function, location.steps] = location, tensor, id(value if whole else attribute)
    values = {name for node in main.node for name in node.output} | {value.name for value in main.input}
    listed = list(named.values())
    tensors, identities = {}, {}
    for key, (_, tensor, identity) in zip(
        tensor_keys([location for location, _, _ in listed], values), listed, strict=True
    ):
        tensors[key] = tensor
        identities[identity] = key
    return tensors, identities


def _constant_value(attribute: ir.Attr) -> ir.TensorProtocol | None:
    value: ir.TensorProtocol | None = None
    if attribute.is_ref():
        return None
    match attribute.name, attribute.type:
        case "value", ir.AttributeType.TENSOR if attribute.value.dtype != ir.DataType.UNDEFINED:
            value = attribute.value
        case ("value_float", ir.AttributeType.FLOAT) | ("value_floats", ir.AttributeType.FLOATS):
            value = ir.tensor(np.array(attribute.value, np.float32))
        case ("value_int", ir.AttributeType.INT) | ("value_ints", ir.AttributeType.INTS):
            value = ir.tensor(np.array(attribute.value, np.int64))
    return value
