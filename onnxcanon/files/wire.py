"""The protobuf wire format, as far as splicing an ONNX file needs it.

A message is a run of fields, each `tag value` with `tag = number << 3 | wire type`; a length-delimited value
is `length bytes` (https://protobuf.dev/programming-guides/encoding). That is enough to find a tensor's bytes
in a mapped file without parsing it, and to write a model as *pieces*: stretches of the source copied as they
are, and the few that change in between. What we do not look at cannot be lost, fields of later ONNX versions
included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import onnx
from google.protobuf.message import DecodeError, EncodeError
from google.protobuf.unknown_fields import UnknownFieldSet

# Tags of the length-delimited fields we stop at, named by message and field.
MODEL_GRAPH = 7 << 3 | 2
MODEL_FUNCTION = 25 << 3 | 2
GRAPH_NODE = 1 << 3 | 2
GRAPH_INITIALIZER = 5 << 3 | 2
FUNCTION_NODE = 7 << 3 | 2
NODE_ATTRIBUTE = 5 << 3 | 2
ATTRIBUTE_TENSOR = 5 << 3 | 2
ATTRIBUTE_GRAPH = 6 << 3 | 2
ATTRIBUTE_TENSORS = 10 << 3 | 2
ATTRIBUTE_GRAPHS = 11 << 3 | 2
TENSOR_RAW_DATA = 9 << 3 | 2


class WireError(ValueError):
    """Bytes that are not a protobuf message."""


class Field(NamedTuple):
    """One field of a message: its tag, and where the tag, the value and the next field begin."""

    tag: int
    start: int
    body: int
    end: int


@dataclass(frozen=True, slots=True)
class Payload:
    """The bytes of one tensor, fetched chunk by chunk when they are written and not before."""

    nbytes: int
    chunks: Callable[[], Iterable[bytes | memoryview]]


Piece = bytes | memoryview | Payload
FieldPath = tuple[Field, ...]  # fields, each within the one before
Message = TypeVar("Message", onnx.ModelProto, onnx.GraphProto, onnx.TensorProto)


def _varint_at(buffer: memoryview, position: int, end: int) -> tuple[int, int]:
    """Decode a varint; returns the value and the position behind it."""
    value = shift = 0
    while position < end and shift < 70:
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise WireError("it is cut off" if position >= end else "it is not protobuf")


def fields(buffer: memoryview, start: int, end: int) -> Iterator[Field]:
    """Yield the fields of the message in `buffer[start:end]`, in the order they are stored.

    Raises:
        WireError: If the bytes are cut off or no protobuf message.
    """
    position = start
    while position < end:
        tag, body = _varint_at(buffer, position, end)
        match tag & 7:
            case 0:
                _, stop = _varint_at(buffer, body, end)
            case 1:
                stop = body + 8
            case 2:
                length, body = _varint_at(buffer, body, end)
                stop = body + length
            case 5:
                stop = body + 4
            case _:
                raise WireError("it is not protobuf")
        if tag < 8:
            raise WireError("it is not protobuf")
        if stop > end:
            raise WireError("it is cut off")
        yield Field(tag, position, body, stop)
        position = stop


def cut_raw_data(buffer: memoryview, tensor: Field) -> tuple[bytes, memoryview | None]:
    """Split a stored TensorProto into the message without its `raw_data`, and that data (uncopied)."""
    rest, raw = [], None
    for field in fields(buffer, tensor.body, tensor.end):
        if field.tag == TENSOR_RAW_DATA:
            raw = buffer[field.body : field.end]  # of several, protobuf takes the last
        else:
            rest.append(buffer[field.start : field.end])
    return b"".join(rest), raw


def varint(value: int) -> bytes:
    """Encode a non-negative integer."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def header(tag: int, length: int) -> bytes:
    """The bytes before a length-delimited value."""
    return varint(tag) + varint(length)


def nest(tag: int, pieces: list[Piece]) -> list[Piece]:
    """Make the message that `pieces` spell a length-delimited field of the message around it."""
    return [header(tag, size(pieces)), *pieces]


def splice(
    buffer: memoryview, start: int, end: int, changes: Sequence[tuple[FieldPath, list[Piece]]]
) -> list[Piece]:
    """The message in `buffer[start:end]` with some fields at any depth spelled anew, all else copied.

    Args:
        buffer: The bytes.
        start: Where the message begins.
        end: Where it ends.
        changes: Per field the path to it from this message, and what to write in its place.
    """
    within: dict[Field, list[tuple[FieldPath, list[Piece]]]] = {}
    for path, pieces in changes:
        within.setdefault(path[0], []).append((path[1:], pieces))
    out: list[Piece] = []
    for field in sorted(within, key=lambda field: field.start):
        (rest, pieces), *_ = inner = within[field]
        out.append(buffer[start : field.start])
        out += pieces if not rest else nest(field.tag, splice(buffer, field.body, field.end, inner))
        start = field.end
    out.append(buffer[start:end])
    return out


def size(pieces: Iterable[Piece]) -> int:
    """How many bytes the pieces are, without fetching any."""
    return sum(piece.nbytes if isinstance(piece, Payload) else len(piece) for piece in pieces)


def chunks(piece: Piece) -> Iterable[bytes | memoryview]:
    """The bytes of a piece, chunk by chunk."""
    return piece.chunks() if isinstance(piece, Payload) else [piece]


def join(pieces: list[Piece]) -> memoryview:
    """The bytes of all pieces, fetched one after the other."""
    joined = memoryview(bytearray(size(pieces)))
    end = 0
    for piece in pieces:
        for data in chunks(piece):
            start, end = end, end + len(data)
            joined[start:end] = data
    return joined.toreadonly()


def parse(serialized: memoryview) -> onnx.ModelProto:
    """Parse a model.

    Raises:
        WireError: If protobuf cannot.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(serialized)
    except DecodeError as error:
        raise WireError("protobuf cannot read it") from error
    return model


def serialize(model: onnx.ModelProto) -> memoryview:
    """Serialize a model of any size.

    Protobuf's own serializer stops at 2 GB and is slow with large fields, so initializers go one by one,
    their raw data copied. Messages with fields unknown to this version of onnx are left to protobuf.

    Raises:
        WireError: If protobuf cannot.
    """
    try:
        if not model.HasField("graph") or _has_unknown(model) or _has_unknown(model.graph):
            return memoryview(model.SerializeToString())
        graph: list[Piece] = [_without(model.graph, "initializer").SerializeToString()]
        for tensor in model.graph.initializer:
            graph += nest(GRAPH_INITIALIZER, _tensor(tensor))
        return join([_without(model, "graph").SerializeToString(), *nest(MODEL_GRAPH, graph)])
    except (EncodeError, TypeError, ValueError) as error:
        raise WireError("protobuf cannot write it (over 2 GB without its initializers?)") from error


def _tensor(tensor: onnx.TensorProto) -> list[Piece]:
    if not tensor.HasField("raw_data") or _has_unknown(tensor):
        return [tensor.SerializeToString()]
    data = Payload(len(tensor.raw_data), lambda: [tensor.raw_data])
    return [_without(tensor, "raw_data").SerializeToString(), header(TENSOR_RAW_DATA, data.nbytes), data]


def _has_unknown(message: Message) -> bool:
    return len(UnknownFieldSet(message)) > 0


def _without(message: Message, left_out: str) -> Message:
    """A copy of a message, except for one field and for fields it does not know."""
    copy = type(message)()
    for descriptor, value in message.ListFields():
        if descriptor.name == left_out:
            continue
        if hasattr(value, "extend"):
            getattr(copy, descriptor.name).extend(value)
        elif hasattr(value, "CopyFrom"):
            getattr(copy, descriptor.name).CopyFrom(value)
        else:
            setattr(copy, descriptor.name, value)
    return copy
