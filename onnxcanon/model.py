"""The model: an ONNX file as we see it, read and written without losing anything.

    >>> model = load("models/digits_mlp_seed0.onnx")
    >>> changed = model.with_tensors({"fc1.bias": lambda: model.tensor("fc1.bias")[::-1]})
    >>> changed.save("changed.onnx")

Weights are mapped, not loaded, and saving streams them one at a time; a save copies the bytes of the source
and changes only the tensors that were replaced, so whatever else the file holds is kept as it is.
"""

from __future__ import annotations

import copy
import logging
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx_ir import DataType

from onnxcanon.arrays import row_blocks
from onnxcanon.errors import ArgumentError, ModelError, check_path, describe
from onnxcanon.files import wire
from onnxcanon.files.layout import lay_out, lay_out_without
from onnxcanon.files.source import Source, Tensor, open_source
from onnxcanon.files.storage import DataFile, DataFolder, InvalidFile, MappedFiles, Staging, blame, same_file
from onnxcanon.files.validation import check_signature
from onnxcanon.files.wire import Payload, Piece
from onnxcanon.graph.operators import is_standard

# Protobuf reads and writes less than this.
LARGEST_MESSAGE = 2**31 - 1
# What moves to external data when a model outgrows that; smaller tensors are needed to infer shapes.
SMALLEST_MOVED = 1024
# Bytes from which a tensor is large.
LARGE_TENSOR = 1 << 20

Replacement = np.ndarray | Callable[[], np.ndarray]


class BlockReplacement(ABC):
    """A replacement that also knows to give its values in blocks, for which little memory is needed."""

    @abstractmethod
    def __call__(self) -> np.ndarray:
        """All values."""

    @abstractmethod
    def blocks(self) -> Iterator[np.ndarray]:
        """The values, some rows (along axis 0) at a time."""


# onnx-ir logs oddities of a graph that we accept; it is not for a library to print them.
logging.getLogger("onnx_ir").addHandler(logging.NullHandler())


class Model:
    """An ONNX model: graph, parameters (memory-mapped), opsets, storage. Made by `load`, never changed.

    Attributes:
        path: The file it came from; None for a model given in memory.
        ir: Its graph in onnx-ir. To be read only. Its tensors are those of the file: replacements made by
            `with_tensors` are seen through `tensor`, not here.
    """

    path: Path | None
    ir: onnx_ir.Model

    def __init__(self, path: Path | None, source: Source, mappings: MappedFiles) -> None:
        self.path = path
        self.ir = source.graph
        self._source = source
        self._mappings = mappings
        self._new: dict[str, Replacement] = {}
        self._protected: tuple[Model, ...] = ()

    def __repr__(self) -> str:
        return f"<Model {self.name}: {len(self._source.tensors)} tensors, {self.serialized_size()} bytes>"

    def __copy__(self) -> Model:
        """A model of the same source, which nothing was read of again."""
        model = object.__new__(Model)
        model.__dict__.update(self.__dict__)
        return model

    def __reduce__(self) -> tuple[Callable[..., Model], tuple[Any, ...]]:
        """Graph and weights are pickled as bytes, replacements and external data included, so that it does
        not matter what becomes of the file; its path stays as a name. A file over 2 GB is opened again."""
        pieces = lay_out(self._source, self._payloads(), None, None)
        if wire.size(pieces) <= LARGEST_MESSAGE:
            return _of_bytes, (self.path, wire.join(pieces).tobytes())
        if self._new or self.path is None:
            raise ModelError(f"{self.name}: over 2 GB, too large to be pickled; save it to a file")
        return load, (self.path,)

    @property
    def name(self) -> str:
        """What to call the model in messages: its path, else the name of its graph."""
        return str(self.path) if self.path else self.ir.graph.name or "<model>"

    def opset(self, domain: str = "") -> int:
        """The version of an operator set; 0 if not imported. A file importing none has the default at 1."""
        imports = self.ir.graph.opset_imports
        if domain in ("", "ai.onnx"):
            return imports.get("", imports.get("ai.onnx", 0 if imports else 1))
        return imports.get(domain, 0)

    def tensor_names(self) -> list[str]:
        """Names of all constant tensors: initializers, then outputs of Constant nodes.

        Those of the main graph come first, then those of nested graphs and local functions; such a tensor is
        called by its own name where no other thing has it, else with the nodes that lead to it.
        """
        return list(self._source.tensors)

    def key(self, value: onnx_ir.Value) -> str | None:
        """The name of the constant tensor that a value of the graph is; None if it is none.

        Goes by the identity of the tensor, so it also knows values of a clone of the graph.
        """
        node = value.producer()
        if node is None:
            return None if value.const_value is None else self._source.keys.get(id(value.const_value))
        if not is_standard(node, "Constant"):
            return None
        for attribute in node.attributes.values():
            tensor = attribute.value if attribute.type == onnx_ir.AttributeType.TENSOR else attribute
            if id(tensor) in self._source.keys:
                return self._source.keys[id(tensor)]
        return None

    def tensor_info(self, name: str) -> tuple[tuple[int, ...], DataType]:
        """Shape and type of a tensor, without reading it.

        Raises:
            ModelError: If there is no such tensor.
        """
        tensor = self._lookup(name)
        return tensor.shape, tensor.dtype

    def tensor(self, name: str) -> np.ndarray:
        """A tensor's values, read-only; views the file where stored raw, at an address the type allows.

        Types numpy has not (bfloat16, float8, int4) come as ml_dtypes arrays, one element each.

        Raises:
            ModelError: If there is no such tensor, or its replacement has another shape or type.
        """
        tensor = self._lookup(name)
        array = self._replacement(name) if name in self._new else tensor.value.numpy()
        array = array.view() if array.flags.aligned else array.copy()
        array.flags.writeable = False
        return array

    def blocks(self, name: str) -> Iterator[np.ndarray]:
        """A tensor's values some rows (along axis 0) at a time, to be read only; takes less memory than
        `tensor` where a replacement can be computed so. What was read is given back at the end, as by
        `drop_pages`.

        Raises:
            ModelError: As `tensor`.
        """
        size = self.tensor_size(name)
        new = self._new.get(name)
        if isinstance(new, BlockReplacement):
            yield from new.blocks()
        else:
            array = self.tensor(name)
            yield from (array[here] for here in row_blocks(array.shape))
        self._mappings.release(size)

    def overridable(self) -> list[str]:
        """Constants that are graph inputs too (IR version 4 or later): the caller may give others instead."""
        inputs = self.ir.graph.inputs if self.ir.ir_version >= 4 else ()
        return [v.name for v in inputs if v.name and v.name in self.ir.graph.initializers]

    @property
    def replaced(self) -> frozenset[str]:
        """Names of the tensors that `with_tensors` has replaced."""
        return frozenset(self._new)

    def tensor_size(self, name: str) -> int:
        """How many bytes the values of a tensor take.

        Raises:
            ModelError: If there is no such tensor.
        """
        return self._lookup(name).nbytes

    def serialized_size(self) -> int:
        """How many bytes the values of all tensors take."""
        return sum(tensor.nbytes for tensor in self._source.tensors.values())

    def with_tensors(self, new: Mapping[str, Replacement]) -> Model:
        """This model with some tensors replaced by arrays, or by functions called for the values.

        Functions are called at each `tensor` and `save`, where many tensors are read by several threads; what
        they return is not kept. Shape and type have to be those of the tensor, which is checked then.

        Raises:
            ModelError: If there is no such tensor, or it holds strings.
        """
        for name in new:
            if self._lookup(name).dtype == DataType.STRING:
                raise ModelError(f"{self.name}: tensor '{name}' holds strings; only numbers can be replaced")
        model = copy.copy(self)
        model._new = {**self._new, **new}
        return model

    def with_protected(self, *others: Model) -> Model:
        """This model, whose `save` will not replace the files that others are read from either."""
        model = copy.copy(self)
        model._protected = (*self._protected, *others)
        return model

    def reads(self, path: Path) -> bool:
        """Whether the model is read from this file, the file of the graph or one of external data."""
        return any(same_file(source, path) for source in self._mappings.paths)

    def drop_pages(self, last: np.ndarray) -> None:
        """Give back the memory that tensors read so far are mapped to, if with the last one they were many;
        they are read again from the file when they are touched."""
        self._mappings.release(last.nbytes)

    def stored(self) -> list[memoryview]:
        """The bytes of the file the model was read from and of its external data, by name; of a model in
        memory its serialized form. Replacements made by `with_tensors` do not show."""
        files = sorted(self._mappings.paths, key=lambda path: (path != self.path, path.name))
        return [self._mappings.view(path) for path in files] or [self._source.buffer]

    def to_proto(self) -> onnx.ModelProto:
        """The model in memory, replacements and external data included.

        Raises:
            ModelError: If it does not fit into one protobuf message (2 GB), or a replacement does not fit.
        """
        pieces = lay_out(self._source, self._payloads(), None, None)
        if wire.size(pieces) > LARGEST_MESSAGE:
            raise ModelError(f"{self.name}: over 2 GB, too large for a protobuf in memory; save it to a file")
        return wire.parse(wire.join(pieces))

    def without(self, names: Collection[str]) -> bytes:
        """The serialized model with the values of some initializers of the main graph left out: they are said
        to be external, for whoever reads it to provide. All other tensors are in it.

        Raises:
            ModelError: If the rest does not fit into one protobuf message (2 GB), or a replacement does not
                fit.
        """
        new = {name: payload for name, payload in self._payloads().items() if name not in names}
        pieces = lay_out_without(self._source, new, names)
        if wire.size(pieces) > LARGEST_MESSAGE:
            raise ModelError(f"{self.name}: over 2 GB without its large weights, too large for a protobuf")
        return wire.join(pieces).tobytes()

    def shares_graph(self, other: Model) -> bool:
        """Whether both come from one `load`, perhaps with different tensors replaced since."""
        return self._source is other._source

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write the model to a file, whole or not at all.

        Tensors stay where they were, in the file or external, external ones in `<path>.data`; should the file
        outgrow 2 GB, its large tensors become external too. A checksum of an external file is not kept.

        Args:
            path: The file to write; may be the source itself.
            overwrite: Whether an existing file may be replaced.

        Raises:
            ModelError: If it cannot be written, would destroy a file this model is read from, or one that is
                protected, or a replacement has another shape or type.
        """
        check_path(path)
        target = Path(path)
        with blame(str(target)), Staging() as staging:
            data, pieces = self._lay_out(target)
            self._check_target(target, overwrite)
            if not data.empty:
                companion = target.with_name(data.location)
                self._check_target(companion, overwrite, beside=target)
                staging.write(companion, data.pieces(), self._mappings.drop_pages)
            staging.write(target, iter(pieces), self._mappings.drop_pages)
            staging.commit()

    def _lay_out(self, target: Path) -> tuple[DataFile, list[Piece]]:
        new = self._payloads()
        for moved in (None, SMALLEST_MOVED):
            data = DataFile(f"{target.name}.data")
            pieces = lay_out(self._source, new, data, moved)
            if wire.size(pieces) <= LARGEST_MESSAGE:
                return data, pieces
        raise InvalidFile("over 2 GB remain that cannot be stored as external data", "split the model")

    def _check_target(self, target: Path, overwrite: bool, beside: Path | None = None) -> None:
        """Refuse to replace what is no file, what is there but may not be replaced, and what we read from."""
        if not target.parent.is_dir():
            raise InvalidFile(f"there is no folder {target.parent}", "create it first")
        if not target.exists():
            return
        if not target.is_file():
            raise InvalidFile(f"{target.name} is not a regular file", "name a new file")
        if not overwrite:
            raise InvalidFile(f"{target.name} exists", "choose another name")
        for model in (self, *self._protected):
            in_place = model.path is not None and same_file(model.path, beside or target)
            if not in_place and model.reads(target):
                whose = "the model being saved" if model is self else model.name
                raise InvalidFile(f"{target.name} holds data of {whose}", "choose another name")

    def _lookup(self, name: str) -> Tensor:
        try:
            return self._source.tensors[name]
        except KeyError:
            raise ModelError(f"{self.name}: there is no tensor '{name}'; see tensor_names()") from None

    def _payloads(self) -> dict[str, Payload]:
        tensors = self._source.tensors
        return {name: Payload(tensors[name].nbytes, partial(self._raw, name)) for name in self._new}

    def _raw(self, name: str) -> Iterator[bytes | memoryview]:
        """The bytes of a replacement, as ONNX stores them."""
        dtype = self._source.tensors[name].dtype
        if dtype.bitwidth < 8 or sys.byteorder != "little":
            yield onnx_ir.Tensor(self._replacement(name), dtype).tobytes()
            return
        for block in self.blocks(name):
            yield np.ascontiguousarray(block).reshape(-1).view(np.uint8).data

    def _replacement(self, name: str) -> np.ndarray:
        new, tensor = self._new[name], self._source.tensors[name]
        array = np.asarray(new() if callable(new) else new)
        if array.shape != tensor.shape or array.dtype != tensor.dtype.numpy():
            old = f"{tensor.dtype.numpy()} {list(tensor.shape)}"
            raise ModelError(
                f"{self.name}: the replacement of tensor '{name}' is {array.dtype} {list(array.shape)};"
                f" make it {old} like the tensor"
            )
        return array


def load(source: str | os.PathLike[str] | bytes | onnx.ModelProto | onnx_ir.Model | Model) -> Model:
    """Open a model: a path, the bytes of a file, a `ModelProto` or `onnx_ir.Model` (copied, not changed), or
    a `Model`, returned as it is.

    Neither checks the graph nor infers shapes; weights are mapped, not read.

    Raises:
        ModelError: If there is no model, it is damaged, its external data is missing or lies outside its
            folder, or it holds what we would lose or not see: sparse tensors, training information, segments.
        ArgumentError: If it is something else.
    """
    if isinstance(source, Model):
        return source
    if isinstance(source, onnx_ir.Model):
        source = onnx_ir.to_proto(source)
    if isinstance(source, onnx.ModelProto):
        with blame(source.graph.name or "<model>"):
            return Model(None, open_source(wire.serialize(source), None), MappedFiles())
    if isinstance(source, bytes):
        with blame("<model>"):
            check_signature(memoryview(source))
            return _of_bytes(None, source)
    if not isinstance(source, str | os.PathLike):
        raise ArgumentError(
            f"{describe(source)} is no model; give a path, an onnx.ModelProto, an onnx_ir.Model or an"
            " onnxcanon.Model"
        )
    with blame(os.fspath(source)):
        path, mappings = Path(source), MappedFiles()
        buffer = mappings.view(path)
        check_signature(buffer)
        return Model(path, open_source(buffer, DataFolder(path, mappings)), mappings)


def _of_bytes(path: Path | None, serialized: bytes) -> Model:
    """A model without external data; the path is a name alone."""
    return Model(path, open_source(memoryview(serialized), None), MappedFiles())
