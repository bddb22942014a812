"""What is let in: files that are no models, models we could not keep whole, tensors whose claims do not hold.

Every function raises `InvalidFile` or returns. Sizes are compared before anything is allocated: a tensor of a
hundred bytes that claims a hundred gigabytes is refused, not attempted.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import onnx
import onnx_ir as ir

from onnxcanon.files.storage import InvalidFile

GraphOrFunction = onnx.GraphProto | onnx.FunctionProto

TYPED_DATA = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_TYPED_DATA_OF = {
    ir.DataType.FLOAT: "float_data",
    ir.DataType.COMPLEX64: "float_data",
    ir.DataType.DOUBLE: "double_data",
    ir.DataType.COMPLEX128: "double_data",
    ir.DataType.INT64: "int64_data",
    ir.DataType.UINT32: "uint64_data",
    ir.DataType.UINT64: "uint64_data",
    ir.DataType.STRING: "string_data",
}

_KNOWN_TYPES = {dtype.value for dtype in ir.DataType} - {ir.DataType.UNDEFINED.value}

# Bytes no ONNX file has there: (offset, bytes, what the file is, what to do)
_SIGNATURES = (
    (0, b"version https://git-lfs", "it is a git-lfs pointer, not the model", "run 'git lfs pull'"),
    (3, b"\0ORTM", "it is an ORT flatbuffer (.ort)", "use the .onnx file it was made from"),
    (3, b"\0TFL3", "it is a TensorFlow Lite model", "convert it to ONNX first"),
    (0, b"PK\x03\x04", "it is a zip archive (a PyTorch checkpoint?)", "export the model to ONNX first"),
    (0, b"\x80\x02", "it is a Python pickle", "export the model to ONNX first"),
    (0, b"<", "it is an HTML or XML page", "download the file itself"),
)

_ATTRIBUTE_TYPES = {
    "f": onnx.AttributeProto.FLOAT,
    "i": onnx.AttributeProto.INT,
    "s": onnx.AttributeProto.STRING,
    "t": onnx.AttributeProto.TENSOR,
    "g": onnx.AttributeProto.GRAPH,
    "floats": onnx.AttributeProto.FLOATS,
    "ints": onnx.AttributeProto.INTS,
    "strings": onnx.AttributeProto.STRINGS,
    "tensors": onnx.AttributeProto.TENSORS,
    "graphs": onnx.AttributeProto.GRAPHS,
}


def check_signature(buffer: memoryview) -> None:
    """Refuse an empty file and the file kinds most often mistaken for ONNX."""
    if not len(buffer):
        raise InvalidFile("the file is empty", "fetch or export it again")
    for offset, magic, cause, advice in _SIGNATURES:
        if bytes(buffer[offset : offset + len(magic)]) == magic:
            raise InvalidFile(cause, advice)


def validate(model: onnx.ModelProto) -> None:
    """Refuse what onnx-ir would drop in silence, and adapt in place what it would stumble over.

    Adapted are only things that say nothing about the weights: types it cannot express are cleared (a value
    of unknown type), and attributes of the first files, which had no type, get the one they evidently have.
    """
    if not model.HasField("graph"):
        raise InvalidFile("it is not an ONNX model: it has no graph", "name the .onnx file")
    if not (model.graph.node or model.graph.output):
        raise InvalidFile("it is not an ONNX model: its graph is empty", "name the .onnx file")
    if model.training_info:
        raise InvalidFile(
            "it holds training information, which refers to the weights", "export it for inference"
        )
    for root in (model.graph, *model.functions):
        for block in blocks(root):
            _validate_block(block)


def blocks(root: GraphOrFunction) -> Iterator[GraphOrFunction]:
    """The graph or function and every graph nested in its nodes."""
    yield root
    for node in root.node:
        for attribute in node.attribute:
            for graph in _graphs(attribute):
                yield from blocks(graph)


def _graphs(attribute: onnx.AttributeProto) -> Iterator[onnx.GraphProto]:
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def _validate_block(block: GraphOrFunction) -> None:
    if isinstance(block, onnx.GraphProto):
        if block.sparse_initializer:
            raise InvalidFile("it has sparse initializers", "make them dense first")
        for info in (*block.input, *block.output, *block.value_info):
            if not _expressible(info.type):
                info.ClearField("type")
    for node in block.node:
        if not all(isinstance(name, str) for name in (node.name, *node.input, *node.output)):
            raise InvalidFile("a name in the graph is not UTF-8 text", "export it again")
        for attribute in node.attribute:
            _validate_attribute(attribute)


def _validate_attribute(attribute: onnx.AttributeProto) -> None:
    if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
        raise InvalidFile(f"attribute '{attribute.name}' is a sparse tensor", "make it dense first")
    if attribute.type == onnx.AttributeProto.UNDEFINED and not attribute.ref_attr_name:
        for descriptor, _ in attribute.ListFields():
            if descriptor.name in _ATTRIBUTE_TYPES:
                attribute.type = _ATTRIBUTE_TYPES[descriptor.name]


def _expressible(type_: onnx.TypeProto) -> bool:
    """Whether onnx-ir has a word for the type (maps and unspecified element types it has not)."""
    match type_.WhichOneof("value"):
        case "map_type":
            return False
        case "sequence_type":
            element = type_.sequence_type.elem_type
        case "optional_type":
            element = type_.optional_type.elem_type
        case _:
            return True
    if element.WhichOneof("value") in (None, "opaque_type"):
        return False
    return _expressible(element)


def declared_type(tensor: onnx.TensorProto) -> tuple[tuple[int, ...], ir.DataType, int]:
    """Shape, type and size in bytes that a tensor says it has (a string counts as one byte).

    Raises:
        Refusal: If a dimension is negative or the type is not one of ONNX's.
    """
    if not isinstance(tensor.name, str):
        raise InvalidFile("the name of a tensor is not UTF-8 text", "export it again")
    shape = tuple(tensor.dims)
    if any(size < 0 for size in shape):
        raise InvalidFile(f"tensor '{tensor.name}' has the shape {list(shape)}", "export it again")
    if tensor.data_type not in _KNOWN_TYPES:
        cause = f"tensor '{tensor.name}' has the unknown type {tensor.data_type}"
        raise InvalidFile(cause, "the file is damaged, or newer than onnx-ir: update that")
    dtype = ir.DataType(tensor.data_type)
    return shape, dtype, (prod(shape) * _bits(dtype) + 7) // 8


def _bits(dtype: ir.DataType) -> int:
    return 8 if dtype == ir.DataType.STRING else dtype.bitwidth


def check_size(tensor: onnx.TensorProto, raw: int | None) -> None:
    """Check that a tensor stored in the model holds as much as it claims.

    Args:
        tensor: The tensor, possibly without its raw data.
        raw: Size of its raw data in bytes, if there is any.

    Raises:
        Refusal: If the size differs, or the values are in the field of another type.
    """
    shape, dtype, nbytes = declared_type(tensor)
    if tensor.HasField("segment"):
        raise InvalidFile(f"tensor '{tensor.name}' is stored in segments", "export it again")
    if raw is None or dtype == ir.DataType.STRING:
        raw = _typed_size(tensor, dtype)
    if raw != nbytes:
        raise InvalidFile(
            f"tensor '{tensor.name}' should hold {nbytes} bytes ({dtype.name} {list(shape)}) but holds {raw}",
            "the file is damaged: fetch or export it again",
        )


def _typed_size(tensor: onnx.TensorProto, dtype: ir.DataType) -> int:
    """Size in bytes of the values in the typed field that belongs to the type."""
    count = len(getattr(tensor, _TYPED_DATA_OF.get(dtype, "int32_data")))
    match dtype:
        case ir.DataType.COMPLEX64 | ir.DataType.COMPLEX128:
            return count * dtype.bitwidth // 16
        case ir.DataType.FLOAT6E2M3 | ir.DataType.FLOAT6E3M2:
            return (count * 6 + 7) // 8
    return count * max(_bits(dtype) // 8, 1)
