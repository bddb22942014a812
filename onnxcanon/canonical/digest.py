"""Digests of graphs: what a model computes as one word, whatever its file calls and orders things.

A value's digest is that of the operator, its attributes and the digests of what it reads (a Merkle tree over
the unfolded graph), a graph's that of its outputs. Names, the order of nodes and initializers, metadata,
storage, nodes that lead to no output and whether equal things are stored once or twice leave no trace. Equal
digests mean equal functions: nothing that matters to an output is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import onnx
import onnx_ir as ir
from blake3 import blake3

from onnxcanon.canonical.parallel import for_each
from onnxcanon.graph.element_types import INDEX_TYPES
from onnxcanon.graph.operators import domain_of
from onnxcanon.graph.traversal import inlined, live
from onnxcanon.model import LARGE_TENSOR, Model

Digest = bytes
"""32 bytes of BLAKE3."""

Content = Callable[[str], Digest]
"""What the digest says of a tensor's entries, by the tensor's name."""

TENSORS = (ir.AttributeType.TENSOR, ir.AttributeType.TENSORS)


def digest_of(kind: str, *parts: bytes | str | int) -> Digest:
    """The digest of a tuple; the length of every part goes before it.

    >>> digest_of("pair", "ab", "c") == digest_of("pair", "a", "bc")
    False
    """
    out = blake3(kind.encode())
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        out.update(len(data).to_bytes(8, "little"))
        out.update(data)
    return out.digest()


def contents(model: Model) -> Content:
    """The entries of tensors, bit for bit; large ones are all read when the first is asked for."""

    def read(name: str) -> Digest:
        out = blake3()
        for block in model.blocks(name):
            out.update(_bytes(block))
        return out.digest()

    @cache
    def large() -> dict[str, Digest]:
        names = [name for name in model.tensor_names() if model.tensor_size(name) >= LARGE_TENSOR]
        return dict(zip(names, for_each(names, read), strict=True))

    def content(name: str) -> Digest:
        return large()[name] if model.tensor_size(name) >= LARGE_TENSOR else read(name)

    return content


def shapes_only(model: Model, smallest: int = 2) -> Content:
    """Nothing about the entries of weights, also quantized ones: tensors of numbers that are no indices, of
    `smallest` entries or more."""
    whole = contents(model)

    def content(name: str) -> Digest:
        shape, dtype = model.tensor_info(name)
        weight = dtype not in INDEX_TYPES and int(np.prod(shape, dtype=np.int64)) >= smallest
        return b"" if weight else whole(name)

    return content


@dataclass(frozen=True, slots=True)
class ConstantUse:
    """What reads constants: the digest of a node (or of a graph, for its outputs), and their names in
    the order in which it reads them, None for other values."""

    reader: Digest
    constants: tuple[str | None, ...]


def graph_digest(model: Model, content: Content) -> Digest:
    """The digest of a model's graph.

    Args:
        model: the model; local functions are inlined.
        content: what to say of a tensor beside its shape and type.
    """
    program = inlined(model.ir)
    return _GraphDigest(model, program, content).of_graph(program.graph, 0)


def constant_uses(model: Model, *, versions: bool = True) -> list[ConstantUse]:
    """Where constants are read, in an order that is the same for graphs of one structure.

    Graphs whose readers are the same one by one are equal but for their floating-point constants; the sizes
    that their inputs declare are not compared, nor are the versions of operators unless `versions` says so.
    """
    program = inlined(model.ir)
    digest = _GraphDigest(model, program, shapes_only(model, 0), sizes=False, versions=versions)
    digest.of_graph(program.graph, 0)
    return digest.uses


def _bytes(array: np.ndarray) -> memoryview | bytes:
    if array.dtype.kind == "O":
        return b"".join(
            digest_of("string", x if isinstance(x, bytes) else str(x)) for x in array.ravel().tolist()
        )
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


class _GraphDigest:
    def __init__(
        self, model: Model, program: ir.Model, content: Content, *, sizes: bool = True, versions: bool = True
    ) -> None:
        self.model, self.program, self.content = model, program, content
        self.sizes, self.versions = sizes, versions
        self.uses: list[ConstantUse] = []
        self.values: dict[ir.Value, Digest] = {}
        self.tensors: dict[str, Digest] = {}
        self.dimensions: dict[str, int] = {}  # symbolic sizes, numbered as they are met
        self.functions: dict[ir.OperatorIdentifier, Digest] = {}

    def of_graph(self, graph: ir.Graph, depth: int) -> Digest:
        """The digest of a graph; those nested in it have a greater depth."""
        interface = []
        for k, value in enumerate(graph.inputs):
            described = digest_of("input", depth, k, *self._described(value))
            default = self._constant(value)
            self.values[value] = described if default is None else digest_of("default", described, default)
            interface.append(self.values[value])
        for node in live(graph):
            self._node(node, depth)
        digest = digest_of("graph", *interface, b"outputs", *map(self._value, graph.outputs))
        self._note(digest, graph.outputs)
        return digest

    def _note(self, reader: Digest, values: Sequence[ir.Value | None]) -> None:
        names = tuple(None if value is None else self.model.key(value) for value in values)
        self.uses.append(ConstantUse(reader, names))

    def _described(self, value: ir.Value) -> Iterator[str]:
        """The type and shape of an input; which sizes are one symbol, not what it is called."""
        yield _kind(value.type)
        for size in (value.shape or ()) if self.sizes else ():
            if isinstance(size, int):
                yield str(size)
            elif size.value is None:
                yield "?"
            else:
                yield f"?{self.dimensions.setdefault(size.value, len(self.dimensions))}"

    def _value(self, value: ir.Value | None) -> Digest:
        if value is None:
            return b""
        if value not in self.values:
            constant = self._constant(value)
            self.values[value] = digest_of("undefined", value.name or "") if constant is None else constant
        return self.values[value]

    def _constant(self, value: ir.Value) -> Digest | None:
        """The digest of a constant that the model knows by name, or that only the graph holds."""
        name = self.model.key(value)
        if name is not None:
            if name not in self.tensors:
                shape, dtype = self.model.tensor_info(name)
                self.tensors[name] = digest_of("tensor", dtype.name, str(shape), self.content(name))
            return self.tensors[name]
        return None if value.const_value is None else _of_tensor(value.const_value)

    def _node(self, node: ir.Node, depth: int) -> None:
        if len(node.outputs) == 1 and (constant := self._constant(node.outputs[0])) is not None:
            self.values[node.outputs[0]] = constant
            return
        inputs = [self._value(value) for value in node.inputs]
        while inputs and not inputs[-1]:
            inputs.pop()
        domain = domain_of(node)
        since, defaults = _schema(node.op_type, node.version or self.model.opset(domain), domain)
        version = since if self.versions else 0
        kind = digest_of("operator", domain, node.op_type, node.overload, version, self._called(node))
        digest = digest_of("node", kind, *self._attributes(node, defaults, depth), b"inputs", *inputs)
        self._note(digest, node.inputs)
        for k, value in enumerate(node.outputs):
            self.values[value] = digest_of("output", digest, k)

    def _called(self, node: ir.Node) -> Digest:
        """The body of a function that could not be inlined: as it is spelled."""
        function = self.program.functions.get(node.op_identifier())
        if function is None:
            return b""
        identifier = function.identifier()
        if identifier not in self.functions:
            self.functions[identifier] = b"itself"  # where it calls itself
            body = ir.to_proto(function).SerializeToString(deterministic=True)
            inner = sorted(self._called(call) for call in function.all_nodes())
            self.functions[identifier] = digest_of("function", body, *inner)
        return self.functions[identifier]

    def _attributes(self, node: ir.Node, defaults: Mapping[str, ir.Attr], depth: int) -> Iterator[Digest]:
        """The attributes by name, defaults included."""
        attributes = {**defaults, **node.attributes}
        for name in sorted(attributes):
            yield digest_of("attribute", name, *self._attribute(attributes[name], depth))

    def _attribute(self, attribute: ir.Attr, depth: int) -> Iterator[bytes | str]:
        yield attribute.type.name
        value = attribute.value
        if attribute.is_ref():
            yield f"reference {attribute.ref_attr_name}"
        elif attribute.type == ir.AttributeType.GRAPH:
            yield self.of_graph(value, depth + 1)
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from (self.of_graph(graph, depth + 1) for graph in value)
        elif attribute.type in TENSORS:
            yield from map(_of_tensor, value if attribute.type == ir.AttributeType.TENSORS else [value])
        else:
            yield from map(_plain, value if isinstance(value, list | tuple) else [value])


@lru_cache(512)
def _schema(operator: str, version: int, domain: str) -> tuple[int, dict[str, ir.Attr]]:
    """The version that gave an operator the meaning it has in an operator set, and its attributes' defaults;
    where its schema is not known, the version of the set and none."""
    try:
        schema = onnx.defs.get_schema(operator, version, domain)
    except onnx.defs.SchemaError:
        return version, {}
    protos = {name: attribute.default_value for name, attribute in schema.attributes.items()}
    defaults = ((name, proto) for name, proto in protos.items() if proto.type)
    return schema.since_version, {name: ir.serde.deserialize_attribute(proto) for name, proto in defaults}


def _of_tensor(tensor: ir.TensorProtocol) -> Digest:
    return digest_of(
        "tensor", tensor.dtype.name, str(tuple(tensor.shape)), blake3(_bytes(tensor.numpy())).digest()
    )


def _kind(kind: ir.TypeProtocol | None) -> str:
    """The type of a value in words of our own, which no library changes."""
    if isinstance(kind, ir.TensorType):
        return kind.dtype.name
    if isinstance(kind, ir.SequenceType | ir.OptionalType | ir.SparseTensorType):
        inner = kind.elem_type if isinstance(kind.elem_type, ir.TypeProtocol) else None
        name = kind.dtype.name if isinstance(kind, ir.SparseTensorType) or inner is None else _kind(inner)
        return f"{type(kind).__name__}({name})"
    return "unknown"


def _plain(value: object) -> bytes | str:
    """A number or text; floats as the 32 bits that they are stored in."""
    if isinstance(value, float):
        return np.float32(value).tobytes()
    return value if isinstance(value, bytes) else str(value)
