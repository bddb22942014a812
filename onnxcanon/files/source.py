"""A serialized model, opened: its bytes, its graph without the weights, and where every weight lies.

A model is read twice over. The *bytes* stay as they are (mapped, if they come from a file) and are what a
save copies. The *skeleton* is a small `ModelProto` parsed from them without the large tensors; onnx-ir's
graph is built from it, and each tensor left out, in the file or beside it, is put back as a view into a
mapping. What onnx-ir does not know, or writes differently, is still in the bytes: a save loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxcanon.files import wire
from onnxcanon.files.admission import admit, check_size, claim, tensors_in
from onnxcanon.files.storage import DataFolder, Refusal, check_location, one_line
from onnxcanon.files.wire import Field, Piece

# Smaller tensors stay in the skeleton: shape arithmetic reads them anyway, and a view would cost more.
SMALLEST_CUT = 1024

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor whose bytes (raw, little-endian) are mapped instead of parsed."""

    shape: Shape
    dtype: ir.DataType
    data: memoryview
    external: bool


@dataclass(frozen=True, slots=True)
class Tensor:
    """A constant tensor of the main graph.

    `part` is the initializer or the Constant node in the bytes; `attribute` is the node's attribute, empty
    for an initializer; `slot` is there if the data is mapped.
    """

    part: Field
    attribute: str
    shape: Shape
    dtype: ir.DataType
    nbytes: int
    value: ir.TensorProtocol
    slot: Slot | None


@dataclass(frozen=True, slots=True)
class Source:
    """The bytes of a model, the fields they divide into, and what was found in them.

    `external` holds the external tensors that lie within nodes and functions, in the order of `tensors_in`.
    """

    buffer: memoryview
    model_fields: list[Field]
    graph_fields: list[Field]
    graph: ir.Model
    tensors: dict[str, Tensor]
    external: dict[Field, list[Slot]]

    def pieces(self, changes: Mapping[Field, list[Piece]]) -> list[Piece]:
        """The whole model again, with some fields of the model or its graph spelled anew."""
        graph = self._spell(self.graph_fields, changes)
        main = next(part for part in self.model_fields if part.tag == wire.MODEL_GRAPH)
        return self._spell(self.model_fields, {**changes, main: wire.nest(wire.MODEL_GRAPH, graph)})

    def _spell(self, parts: list[Field], changes: Mapping[Field, list[Piece]]) -> list[Piece]:
        pieces: list[Piece] = []
        for part in parts:
            pieces += changes.get(part, [self.buffer[part.start : part.end]])
        return pieces


def open_source(buffer: memoryview, folder: DataFolder | None) -> Source:
    """Open a serialized model; `folder` is where external data may come from (None: nowhere).

    Raises:
        Refusal: If it is no model, holds what we would lose, or a tensor's claims do not hold.
        wire.WireError: If the bytes are no protobuf message, or cut off.
    """
    buffer, model_fields, graph_fields = _divide(buffer)
    skeleton, raw = _skeleton(buffer, model_fields, graph_fields)
    admit(skeleton)
    slots: list[Slot] = []
    cut: list[Slot | None] = []
    for proto, data in zip(skeleton.graph.initializer, raw, strict=True):
        cut.append(_take_out(proto, data, folder, slots))
    external: dict[Field, list[Slot]] = {}
    for part, message in _with_parts(skeleton, model_fields, graph_fields):
        nodes = [message] if isinstance(message, onnx.NodeProto) else message.node
        for proto in tensors_in(nodes):
            if proto.ByteSize() and (slot := _take_out(proto, None, folder, slots)):
                external.setdefault(part, []).append(slot)
    graph = _deserialize(skeleton)
    _put_back(graph, slots)
    tensors = _initializers(skeleton, graph_fields, graph, cut)
    tensors |= _constants(skeleton, graph_fields, graph, external)
    return Source(buffer, model_fields, graph_fields, graph, tensors, external)


def _divide(buffer: memoryview) -> tuple[memoryview, list[Field], list[Field]]:
    model_fields = list(wire.fields(buffer, 0, len(buffer)))
    graphs = [part for part in model_fields if part.tag == wire.MODEL_GRAPH]
    if len(graphs) > 1:  # legal: protobuf merges them, so let it
        return _divide(memoryview(wire.parse(buffer).SerializeToString()))
    if not graphs:
        raise Refusal("it is not an ONNX model: it has no graph", "name the .onnx file")
    return buffer, model_fields, list(wire.fields(buffer, graphs[0].body, graphs[0].end))


def _skeleton(
    buffer: memoryview, model_fields: list[Field], graph_fields: list[Field]
) -> tuple[onnx.ModelProto, list[memoryview | None]]:
    """Parse the model without the raw data of large initializers; returns that beside (None: not large)."""
    graph: list[Piece] = []
    raw: list[memoryview | None] = []
    for part in graph_fields:
        if part.tag == wire.GRAPH_INITIALIZER:
            rest, data = wire.cut_raw_data(buffer, part)
            if data is not None and len(data) >= SMALLEST_CUT:
                raw.append(data)
                graph += wire.nest(part.tag, [rest])
                continue
            raw.append(None)
        graph.append(buffer[part.start : part.end])
    model: list[Piece] = []
    for part in model_fields:
        is_graph = part.tag == wire.MODEL_GRAPH
        model += wire.nest(part.tag, graph) if is_graph else [buffer[part.start : part.end]]
    return wire.parse(wire.join(model)), raw


def _with_parts(
    skeleton: onnx.ModelProto, model_fields: list[Field], graph_fields: list[Field]
) -> Iterator[tuple[Field, onnx.NodeProto | onnx.FunctionProto]]:
    """The nodes and functions of the model, each with the field it comes from."""
    yield from zip(_tagged(graph_fields, wire.GRAPH_NODE), skeleton.graph.node, strict=True)
    yield from zip(_tagged(model_fields, wire.MODEL_FUNCTION), skeleton.functions, strict=True)


def _tagged(parts: list[Field], tag: int) -> list[Field]:
    return [part for part in parts if part.tag == tag]


def _take_out(
    proto: onnx.TensorProto, raw: memoryview | None, folder: DataFolder | None, slots: list[Slot]
) -> Slot | None:
    """Check a tensor's size; if its data is mapped, leave a reference to its slot in the skeleton."""
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        slot = _external_slot(proto, folder)
    else:
        stored = raw if raw is not None else proto.raw_data if proto.HasField("raw_data") else None
        check_size(proto, None if stored is None else len(stored))
        if raw is None:
            return None
        shape, dtype, _ = claim(proto)
        slot = Slot(shape, dtype, raw, external=False)
    proto.data_location = onnx.TensorProto.EXTERNAL
    del proto.external_data[:]
    proto.external_data.add(key="location", value=str(len(slots)))
    slots.append(slot)
    return slot


def _external_slot(proto: onnx.TensorProto, folder: DataFolder | None) -> Slot:
    shape, dtype, nbytes = claim(proto)
    name = f"tensor '{proto.name}'"
    if dtype == ir.DataType.STRING:
        raise Refusal(f"{name} holds strings and is external", "export it again")
    entries = {entry.key: entry.value for entry in proto.external_data}
    if not all(isinstance(entry, str) for entry in entries.values()):
        raise Refusal(f"{name} refers to external data by no UTF-8 text", "export it again")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", nbytes))
    except ValueError:
        raise Refusal(f"{name} has no valid external offset and length", "export it again") from None
    if offset < 0 or length != nbytes:
        claimed = f"{nbytes} bytes ({dtype.name} {list(shape)})"
        raise Refusal(
            f"{name} should hold {claimed} but names {length} external bytes at {offset}",
            "the file is damaged: fetch or export it again",
        )
    location = entries.get("location", "")
    check_location(location)
    if nbytes == 0:
        return Slot(shape, dtype, memoryview(b""), external=True)
    if folder is None:
        raise Refusal(f"{name} is external data of a model in memory", "pass the model's path instead")
    return Slot(shape, dtype, folder.read(location, offset, nbytes), external=True)


def _deserialize(skeleton: onnx.ModelProto) -> ir.Model:
    try:
        return ir.serde.deserialize_model(skeleton)
    except Exception as error:  # a malformed graph may fail in any way
        cause = f"the graph is not valid: {one_line(error)}"
        raise Refusal(cause, "see what onnx.checker says of it") from error


def _put_back(model: ir.Model, slots: list[Slot]) -> None:
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
                held: Any = attribute.value
                if attribute.is_ref():
                    continue
                if attribute.type == ir.AttributeType.TENSOR:
                    held = _restored(held, slots)
                elif attribute.type == ir.AttributeType.TENSORS:
                    held = [_restored(tensor, slots) for tensor in held]
                if held is not attribute.value:
                    about = attribute.doc_string
                    node.attributes[name] = ir.Attr(name, attribute.type, held, doc_string=about)


def _restored(tensor: ir.TensorProtocol, slots: list[Slot]) -> ir.TensorProtocol:
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


def _initializers(
    skeleton: onnx.ModelProto, graph_fields: list[Field], model: ir.Model, cut: list[Slot | None]
) -> dict[str, Tensor]:
    """The initializers by name; one without a name, which nothing can refer to, is only kept in the bytes."""
    parts = _tagged(graph_fields, wire.GRAPH_INITIALIZER)
    tensors: dict[str, Tensor] = {}
    for part, proto, slot in zip(parts, skeleton.graph.initializer, cut, strict=True):
        if proto.name in tensors or (slot and slot.external and not proto.name):
            raise Refusal(f"two initializers are named '{proto.name}' or one has no name", "export it again")
        if proto.name:
            value = model.graph.initializers[proto.name].const_value
            assert value is not None
            tensors[proto.name] = Tensor(part, "", *claim(proto), value, slot)
    return tensors


def _constants(
    skeleton: onnx.ModelProto, graph_fields: list[Field], model: ir.Model, external: dict[Field, list[Slot]]
) -> dict[str, Tensor]:
    """The outputs of Constant nodes that hold numbers (or a tensor of strings), by name."""
    parts = _tagged(graph_fields, wire.GRAPH_NODE)
    tensors = {}
    for part, node in zip(parts, model.graph, strict=True):
        if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or len(node.outputs) != 1:
            continue
        for attribute in node.attributes.values():
            value = _constant_value(attribute)
            name = node.outputs[0].name
            if value is not None and name:
                shape, dtype = tuple(value.shape.numpy()), value.dtype
                slot = external.get(part, [None])[0]
                tensors[name] = Tensor(part, attribute.name, shape, dtype, value.nbytes, value, slot)
    return tensors


def _constant_value(attribute: ir.Attr) -> ir.TensorProtocol | None:
    value: ir.TensorProtocol | None = None
    match attribute.name, attribute.type:
        case "value", ir.AttributeType.TENSOR if attribute.value.dtype != ir.DataType.UNDEFINED:
            value = attribute.value
        case ("value_float", ir.AttributeType.FLOAT) | ("value_floats", ir.AttributeType.FLOATS):
            value = ir.tensor(np.array(attribute.value, np.float32))
        case ("value_int", ir.AttributeType.INT) | ("value_ints", ir.AttributeType.INTS):
            value = ir.tensor(np.array(attribute.value, np.int64))
    return value
