"""Files that are damaged, unsafe or merely odd: each loads whole or is refused in one line that helps."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxcanon.errors import ModelError
from onnxcanon.files import wire
from onnxcanon.files.validation import blocks
from onnxcanon.model import Model, load
from tests.handmade import WEIGHT, files, graph_of, raw, refer, refusal, rich_model, same, simple_model, write

SHARED = Path(__file__).parents[2] / "shared"
MODELS = sorted(SHARED.glob("models/*.onnx"))
EDGE = sorted(SHARED.glob("models/edge/*.onnx"))
TWINS = sorted(SHARED.glob("twins/*/base.onnx")) + sorted(SHARED.glob("twins/mlp/reexport_extdata.onnx"))
NEEDS_SHARED = pytest.mark.skipif(not MODELS, reason=f"needs the collection of models in {SHARED}")
NEEDS_LINKS = pytest.mark.skipif(os.name != "posix", reason="needs symbolic links")


# Not a model


@pytest.mark.parametrize(
    ("content", "cause"),
    {
        b"": "the file is empty",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0": "git-lfs pointer",
        b"\x20\0\0\0ORTM" + bytes(100): "ORT flatbuffer",
        b"\x20\0\0\0TFL3" + bytes(100): "TensorFlow Lite",
        b"PK\x03\x04" + bytes(100): "zip archive",
        b"<!DOCTYPE html><html></html>": "HTML",
        b"hello world": "not an ONNX file, or damaged",
        bytes(1000): "not an ONNX file, or damaged",
        b"\xff" * 1000: "not an ONNX file, or damaged",
        b"\x08\x0a": "it has no graph",
        b"\x08\x0a\x3a\x00": "its graph is empty",
        TensorProto(dims=[2], data_type=1, raw_data=bytes(8)).SerializeToString(): "it has no graph",
    }.items(),
)
def test_what_is_no_model(tmp_path: Path, content: bytes, cause: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    assert cause in refusal(tmp_path / "m.onnx")


def test_what_is_no_file(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.onnx")
    assert "it is a folder" in refusal(tmp_path)
    assert "null character" in refusal(tmp_path / "a\0b")
    assert "File name too long" in refusal(tmp_path / ("x" * 300))
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert "not a regular file" in refusal(tmp_path / "pipe")


def test_a_producer_called_ortm_is_no_flatbuffer(tmp_path: Path) -> None:
    proto = simple_model()
    proto.producer_name = "ORTModule"
    content = proto.SerializeToString()
    assert content[4:8] == b"ORTM"
    assert load(write(tmp_path, proto)).ir.producer_name == "ORTModule"


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    content = simple_model().SerializeToString()
    whole = load(simple_model()).to_proto()
    for length in [*range(200), *range(200, len(content), 97)]:
        (tmp_path / "m.onnx").write_bytes(content[:length])
        try:
            model = load(tmp_path / "m.onnx")
        except ModelError as error:
            assert str(error).startswith(f"{tmp_path / 'm.onnx'}: ")
        else:  # cut exactly between the graph and what follows it
            assert same(model.to_proto(), onnx.ModelProto.FromString(content[:length]))
            assert model.to_proto().graph == whole.graph


# Claims that do not hold


def claims(name: str = "w", kind: int = TensorProto.FLOAT, **fields: object) -> onnx.ModelProto:
    return helper.make_model(graph_of([TensorProto(name=name, data_type=kind, **fields)]))


@pytest.mark.parametrize(
    "proto",
    {
        "100 GB of nothing": claims(dims=[25_000_000_000]),
        "100 GB of raw data": claims(dims=[25_000_000_000], raw_data=bytes(4)),
        "too large for 64 bits": claims(dims=[2**62, 2**62], raw_data=bytes(4)),
        "overflows to its true size": claims(dims=[2**32, 2**32], raw_data=bytes(4000)),
        "negative": claims(dims=[-1, -4], raw_data=bytes(16)),
        "one byte short": claims(dims=[512], raw_data=bytes(2047)),
        "one byte long": claims(dims=[512], raw_data=bytes(2049)),
        "no data": claims(dims=[]),
        "one value short": claims(dims=[3], float_data=[1, 2]),
        "in the wrong field": claims(dims=[3], int32_data=[1, 2, 3]),
        "packed wrong": claims(kind=TensorProto.INT4, dims=[3], int32_data=[1, 2, 3]),
        "complex": claims(kind=TensorProto.COMPLEX64, dims=[2], float_data=[1, 2]),
        "strings": claims(kind=TensorProto.STRING, dims=[2], string_data=[b"a"]),
        "strings in raw data": claims(kind=TensorProto.STRING, dims=[2], raw_data=b"ab"),
        "no type": claims(kind=0, dims=[0]),
        "unknown type": claims(kind=99, dims=[1], raw_data=bytes(4)),
    }.items(),
    ids=lambda item: item[0],
)
@pytest.mark.parametrize("where", ["initializer", "constant", "subgraph"])
def test_a_tensor_that_is_not_as_large_as_it_says(
    tmp_path: Path, proto: tuple[str, onnx.ModelProto], where: str
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(proto[1])
    (tensor,) = model.graph.initializer
    if where == "constant":
        model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    elif where == "subgraph":
        branch = helper.make_graph([], "b", [], [], [tensor])
        model.graph.node.insert(0, helper.make_node("If", ["x"], ["w"], then_branch=branch))
    if where != "initializer":
        del model.graph.initializer[:]
    message = refusal(write(tmp_path, model))
    assert "tensor 'w'" in message
    assert "should hold" in message or "has the" in message


@pytest.mark.parametrize(
    ("entries", "cause"),
    [
        ({"location": "w.bin", "offset": 1}, "is too short"),
        ({"location": "w.bin", "offset": 2**63}, "is too short"),
        ({"location": "w.bin", "offset": -8}, "at -8"),
        ({"location": "w.bin", "length": 4}, "names 4 external bytes"),
        ({"location": "w.bin", "length": 10**18}, "external bytes"),
        ({"location": "w.bin", "length": "many"}, "no valid external offset and length"),
        ({"location": "short.bin"}, "is too short"),
        ({"location": "none.bin"}, "the file is missing"),
        ({"location": "folder"}, "it is a folder"),
        ({}, "lies outside"),
        ({"location": "../w.bin"}, "lies outside"),
        ({"location": "folder/../../w.bin"}, "lies outside"),
        ({"location": "folder\\..\\..\\w.bin"}, "lies outside"),
        ({"location": "/etc/passwd"}, "lies outside"),
        ({"location": "C:\\w.bin"}, "lies outside"),
        ({"location": "\\\\host\\w.bin"}, "lies outside"),
        ({"location": "w\0.bin"}, "lies outside"),
        ({"location": "*/_ORT_MEM_ADDR_/*", "offset": 1234}, "another program's memory"),
        ({"location": "x" * 300}, "File name too long"),
    ],
)
def test_external_data_that_is_unsafe_or_not_there(
    tmp_path: Path, entries: dict[str, object], cause: str
) -> None:
    (tmp_path / "in" / "folder").mkdir(parents=True)
    for name in ("w.bin", "in/w.bin"):
        (tmp_path / name).write_bytes(WEIGHT.tobytes())
    (tmp_path / "in" / "short.bin").write_bytes(bytes(10))
    proto = helper.make_model(graph_of([refer(raw("w", WEIGHT), **entries)]))
    assert cause in refusal(write(tmp_path / "in", proto))
    assert "external data" in refusal(proto) or "tensor 'w'" in refusal(proto)


def test_external_data_of_a_model_in_memory_has_no_folder() -> None:
    proto = helper.make_model(graph_of([refer(raw("w", WEIGHT), location="w.bin")]))
    assert "pass the model's path" in refusal(proto)


def test_the_least_an_external_reference_has_to_say(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(WEIGHT.tobytes() + b"more")
    for location in ("sub/w.bin", "./sub/w.bin"):
        proto = helper.make_model(graph_of([refer(raw("w", WEIGHT), location=location)]))
        assert np.array_equal(load(write(tmp_path, proto)).tensor("w"), WEIGHT)
    empty = refer(raw("w", WEIGHT[:0]), location="not_there.bin")
    assert load(write(tmp_path, helper.make_model(graph_of([empty])))).tensor("w").shape == (0, 32)


# Links


@NEEDS_LINKS
def test_a_model_in_a_cache_of_links(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "x"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    proto = helper.make_model(graph_of([refer(raw("w", WEIGHT), location="model.onnx.data")]))
    write(blobs, proto, "abc")
    (blobs / "def").write_bytes(WEIGHT.tobytes())
    (snapshot / "model.onnx").symlink_to("../../blobs/abc")
    (snapshot / "model.onnx.data").symlink_to("../../blobs/def")
    model = load(snapshot / "model.onnx")
    assert np.array_equal(model.tensor("w"), WEIGHT)
    model.with_tensors({"w": WEIGHT + 1}).save(snapshot / "model.onnx")
    assert (blobs / "def").read_bytes() == WEIGHT.tobytes()
    assert not (snapshot / "model.onnx").is_symlink()
    assert load(snapshot / "model.onnx").tensor("w")[0, 0] == 1


@NEEDS_LINKS
def test_a_link_to_a_model_finds_the_data_beside_it(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    proto = helper.make_model(graph_of([refer(raw("w", WEIGHT), location="w.bin")]))
    (tmp_path / "there" / "w.bin").write_bytes(WEIGHT.tobytes())
    (tmp_path / "here" / "m.onnx").symlink_to(write(tmp_path / "there", proto))
    (tmp_path / "folder").symlink_to(tmp_path / "there")
    os.link(tmp_path / "there" / "w.bin", tmp_path / "there" / "hard.bin")
    (tmp_path / "there" / "w.bin").unlink()
    (tmp_path / "there" / "w.bin").hardlink_to(tmp_path / "there" / "hard.bin")
    for path in ("here/m.onnx", "folder/m.onnx"):
        assert np.array_equal(load(tmp_path / path).tensor("w"), WEIGHT)


@NEEDS_LINKS
def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "in2").mkdir()
    for secret in (tmp_path / "secret.bin", tmp_path / "in2" / "secret.bin"):
        secret.write_bytes(WEIGHT.tobytes())
        proto = helper.make_model(graph_of([refer(raw("w", WEIGHT), location="w.bin")]))
        (folder / "w.bin").unlink(missing_ok=True)
        (folder / "w.bin").symlink_to(secret)
        assert "leads out of the model's folder" in refusal(write(folder, proto))
    (folder / "up").symlink_to(tmp_path)
    proto.graph.initializer[0].external_data[0].value = "up/secret.bin"
    assert "leads out of the model's folder" in refusal(write(folder, proto))
    (folder / "w.bin").unlink()
    (folder / "w.bin").symlink_to("w.bin")
    proto.graph.initializer[0].external_data[0].value = "w.bin"
    assert "the file is missing" in refusal(write(folder, proto))


# What we would lose, or not see


def with_change(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    proto = rich_model()
    change(proto)
    return proto


def in_branch(proto: onnx.ModelProto) -> onnx.GraphProto:
    return next(node for node in proto.graph.node if node.op_type == "If").attribute[0].g


SPARSE = onnx.SparseTensorProto(values=raw("w", WEIGHT[0, :1]), dims=[4])


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda m: m.graph.sparse_initializer.append(SPARSE), "sparse initializers"),
        (lambda m: in_branch(m).sparse_initializer.append(SPARSE), "sparse initializers"),
        (
            lambda m: m.graph.node.append(helper.make_node("Constant", [], ["s"], sparse_value=SPARSE)),
            "sparse",
        ),
        (lambda m: m.training_info.add(), "training information"),
        (lambda m: m.graph.initializer[0].segment.CopyFrom(TensorProto.Segment(end=1)), "in segments"),
        (lambda m: m.graph.initializer.append(raw("w", WEIGHT)), "two initializers are named 'w'"),
        (lambda m: m.graph.node.append(m.graph.node[0]), "redeclared"),
        (lambda m: m.graph.initializer.append(raw("h", WEIGHT)), "redeclared"),
    ],
)
def test_what_onnx_ir_would_drop_is_refused(
    tmp_path: Path, change: Callable[[onnx.ModelProto], object], cause: str
) -> None:
    assert cause in refusal(write(tmp_path, with_change(change)))
    assert cause in refusal(with_change(change))


# Odd but whole


def odd(change: Callable[[onnx.ModelProto], object], tmp_path: Path) -> Model:
    """Load a changed model and check that it is written as it was."""
    path = write(tmp_path, with_change(change))
    model = load(path)
    model.save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == path.read_bytes()
    changed = model.with_tensors({"w": WEIGHT + 1}).to_proto()
    changed.graph.initializer[0].raw_data = WEIGHT.tobytes()
    assert same(changed, with_change(change))
    return model


def test_types_without_a_word_in_onnx_ir(tmp_path: Path) -> None:
    mapped = onnx.TypeProto()
    mapped.map_type.key_type = TensorProto.INT64
    mapped.map_type.value_type.tensor_type.elem_type = TensorProto.FLOAT
    nested = onnx.TypeProto()
    nested.sequence_type.elem_type.CopyFrom(mapped)
    bare = onnx.TypeProto()
    bare.optional_type.SetInParent()
    opaque = onnx.TypeProto()
    opaque.opaque_type.name = "o"
    for type_ in (mapped, nested, bare, opaque):
        info = onnx.ValueInfoProto(name="branched", type=type_)
        assert (
            odd(lambda m, info=info: m.graph.output.append(info), tmp_path).ir.graph.outputs[1].type is None
        )


def test_attributes_of_the_first_files_have_no_type(tmp_path: Path) -> None:
    def strip(proto: onnx.ModelProto) -> None:
        proto.graph.node.append(helper.make_node("Clip", ["h"], ["k"], max=1.5, axes=[1, 2], mode="m"))
        for node in proto.graph.node:
            for attribute in node.attribute:
                attribute.ClearField("type")

    model = odd(strip, tmp_path)
    clip = model.ir.graph[-1].attributes
    assert (clip["max"].value, clip["axes"].as_ints(), clip["mode"].value) == (1.5, (1, 2), "m")
    assert np.array_equal(model.tensor("c_tensor"), WEIGHT)
    twin = model.with_tensors({"c_tensor": WEIGHT + 1, "c_ints": np.array([7])[[0, 0]]}).to_proto()
    assert load(twin).tensor("c_ints").tolist() == [7, 7]


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.opset_import.pop(),
        lambda m: m.__setattr__("ir_version", 3),
        lambda m: m.ClearField("ir_version"),
        lambda m: m.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [16, 32])),
        lambda m: m.graph.output.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [16, 32])),
        lambda m: m.graph.node.insert(0, m.graph.node.pop()),
        lambda m: [setattr(node, "name", "twin") for node in m.graph.node],
        lambda m: m.graph.initializer.append(raw("", WEIGHT)),
        lambda m: m.graph.ClearField("name"),
        lambda m: m.graph.node[-1].input.append("nowhere"),
        lambda m: m.opset_import.add(domain="", version=3),
    ],
)
def test_odd_graphs_load_and_are_kept(tmp_path: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    assert np.array_equal(odd(change, tmp_path).tensor("w"), WEIGHT)


def test_a_graph_of_nothing_but_an_initializer(tmp_path: Path) -> None:
    proto = simple_model()
    del proto.graph.node[:]
    proto.graph.output[0].name = "w"
    assert load(write(tmp_path, proto)).tensor_names() == ["w"]


def test_a_graph_in_two_parts_is_one_graph(tmp_path: Path) -> None:
    first, second = onnx.ModelProto(), simple_model()
    first.graph.initializer.append(raw("v", WEIGHT))
    (tmp_path / "m.onnx").write_bytes(first.SerializeToString() + second.SerializeToString())
    model = load(tmp_path / "m.onnx")
    assert model.tensor_names() == ["v", "w"]
    model.save(tmp_path / "out.onnx")
    assert same(onnx.load(tmp_path / "out.onnx"), onnx.load(tmp_path / "m.onnx"))


def test_raw_data_given_twice_counts_once(tmp_path: Path) -> None:
    twice = wire.nest(
        wire.GRAPH_INITIALIZER,
        [
            raw("w", WEIGHT).SerializeToString(),
            TensorProto(raw_data=(WEIGHT + 1).tobytes()).SerializeToString(),
        ],
    )
    rest = graph_of([])
    graph = wire.nest(wire.MODEL_GRAPH, [rest.SerializeToString(), *twice])
    (tmp_path / "m.onnx").write_bytes(wire.join([onnx.ModelProto(ir_version=10).SerializeToString(), *graph]))
    assert np.array_equal(load(tmp_path / "m.onnx").tensor("w"), WEIGHT + 1)


# The collection


@NEEDS_SHARED
@pytest.mark.parametrize("path", EDGE, ids=lambda path: path.stem)
def test_every_edge_file_loads_or_is_refused(path: Path, tmp_path: Path) -> None:
    refused = {
        "empty-file",
        "external-path-traversal",
        "git-lfs-pointer",
        "missing-external-data-llama",
        "ort-flatbuffer-mnist",
        "sparse-initializer",
        "truncated-mnist",
    }
    if path.stem in refused:
        refusal(path)
    else:
        check_round_trip(path, tmp_path)


@NEEDS_SHARED
@pytest.mark.parametrize("path", MODELS + TWINS, ids=lambda path: f"{path.parent.stem}/{path.stem}")
def test_every_model_of_the_collection_keeps_everything(path: Path, tmp_path: Path) -> None:
    check_round_trip(path, tmp_path)


def check_round_trip(path: Path, tmp_path: Path) -> None:
    """Unchanged, and with one tensor replaced by itself, the model read back is the model."""
    model = load(path)
    expected = onnx.load(path)
    model.save(tmp_path / "out.onnx")
    if files(tmp_path) == {"out.onnx"}:
        assert (tmp_path / "out.onnx").read_bytes() == path.read_bytes()
    assert same(onnx.load(tmp_path / "out.onnx"), expected)
    for tensor in expected.graph.initializer:
        assert model.tensor_info(tensor.name) == (tuple(tensor.dims), tensor.data_type)
        if tensor.data_type != TensorProto.STRING:
            assert model.tensor(tensor.name).tobytes() == onnx.numpy_helper.to_array(tensor).tobytes()
    numbers = [name for name in model.tensor_names() if model.tensor_info(name)[1] != TensorProto.STRING]
    twin = model.with_tensors({name: (lambda name=name: model.tensor(name)) for name in numbers})
    twin.save(tmp_path / "twin.onnx")
    read = load(tmp_path / "twin.onnx")
    assert read.tensor_names() == model.tensor_names()
    for name in numbers:
        assert read.tensor_info(name) == model.tensor_info(name)
        assert read.tensor(name).tobytes() == model.tensor(name).tobytes()
    assert same(without_values(read.to_proto()), without_values(expected))


def without_values(proto: onnx.ModelProto) -> onnx.ModelProto:
    nested = [block for root in (proto.graph, *proto.functions) for block in blocks(root)]
    tensors = [t for block in nested for t in getattr(block, "initializer", ())]
    constants = [n for block in nested for n in block.node if n.op_type == "Constant"]
    tensors += [a.t for n in constants for a in n.attribute if a.HasField("t")]
    for tensor in tensors:
        for field in (
            "raw_data",
            "float_data",
            "int32_data",
            "int64_data",
            "double_data",
            "uint64_data",
            "data_location",
        ):
            tensor.ClearField(field)
    return proto
