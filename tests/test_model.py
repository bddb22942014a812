"""Opening a model and replacing tensors: every value is there, and nothing else changes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxcanon.errors import ModelError
from onnxcanon.files import wire
from onnxcanon.files.storage import MappedFiles
from onnxcanon.model import load
from tests.handmade import (
    WEIGHT,
    files,
    graph_of,
    nested_model,
    raw,
    rich_model,
    same,
    simple_model,
    write,
    write_external,
)

# What is read


def test_every_constant_is_a_tensor(tmp_path: Path) -> None:
    model = load(write(tmp_path, rich_model()))
    assert model.tensor_names() == [
        "w", "typed", "shape", "half", "brain", "eight", "four", "text", "scalar", "none",
        "c_tensor", "c_float", "c_floats", "c_int", "c_ints",
        "If_6.else_branch/inner", "If_6.then_branch/inner",
    ]  # fmt: skip
    assert model.tensor_info("w") == ((16, 32), onnx_ir.DataType.FLOAT)
    assert model.tensor_info("four") == ((3, 1001), onnx_ir.DataType.INT4)
    assert model.tensor_info("c_floats") == ((2,), onnx_ir.DataType.FLOAT)
    assert np.array_equal(model.tensor("w"), WEIGHT)
    assert np.array_equal(model.tensor("c_tensor"), WEIGHT)
    assert model.tensor("typed").tolist() == [1, 2, 3]
    assert model.tensor("shape").tolist() == [-1, 16]
    assert model.tensor("half").tolist() == [1, 2]
    assert model.tensor("brain").dtype == ml_dtypes.bfloat16
    assert model.tensor("eight").dtype == ml_dtypes.float8_e4m3fn
    assert model.tensor("four").dtype == ml_dtypes.int4
    assert model.tensor("four").shape == (3, 1001)
    assert model.tensor("four").ravel()[:4].astype(int).tolist() == [0, 0, 1, 0]
    assert model.tensor("text").tolist() == [b"a", b"\xff"]
    assert model.tensor("scalar") == 2.5
    assert model.tensor("none").shape == (0, 4)
    assert model.tensor("c_float") == 0.5
    assert model.tensor("c_int") == -3
    assert model.tensor("c_ints").tolist() == [-3, 4]


def test_constants_of_nested_graphs_and_functions_are_tensors(tmp_path: Path) -> None:
    model = load(write(tmp_path, nested_model()))
    assert model.tensor_names() == [
        "w", "taken",
        "If_1.else_branch/c", "If_1.then_branch/c",
        "deep.then_branch/many_2.graphs[0]/taken", "alone", "deep.then_branch/many_2.graphs[1]/taken",
        "local::F/c", "small", "local::F:other/c",
    ]  # fmt: skip
    assert model.tensor("alone").tolist() == [4]
    assert np.array_equal(model.tensor("local::F/c"), WEIGHT + 8)
    assert np.array_equal(model.tensor("local::F:other/c"), WEIGHT + 9)
    assert model.tensor("small") == np.float32(0.25)
    assert model.serialized_size() == 6 * WEIGHT.nbytes + 4 * 4


def test_a_tensor_is_known_by_its_value_in_a_clone_of_the_graph(tmp_path: Path) -> None:
    model = load(write(tmp_path, nested_model()))
    for graph in (model.ir, model.ir.clone()):
        values = [value for g in graph.graphs() for value in g.initializers.values()]
        nodes = [*graph.graph.all_nodes(), *(n for f in graph.functions.values() for n in f.all_nodes())]
        values += [node.outputs[0] for node in nodes]
        keys = [key for value in values if (key := model.key(value)) is not None]
        assert sorted(keys) == sorted(model.tensor_names())


def test_tensors_of_the_graph_are_those_of_the_file(tmp_path: Path) -> None:
    model = load(write(tmp_path, rich_model()))
    value = model.ir.graph.initializers["typed"].const_value
    assert (value.name, value.doc_string, value.metadata_props) == ("typed", "d", {"k": "v"})
    big = model.ir.graph.initializers["w"].const_value
    assert big.name == "w"
    assert np.array_equal(big.numpy(), WEIGHT)
    assert model.ir.graph.initializers["four"].const_value.tobytes() == bytes(range(250)) * 6 + b"\x01\x02"


def test_tensors_are_read_only(tmp_path: Path) -> None:
    model = load(write(tmp_path, rich_model()))
    own = WEIGHT.copy()
    twin = model.with_tensors({"c_tensor": own})
    for tensor in (
        model.tensor("w"),
        model.tensor("typed"),
        model.tensor("c_tensor"),
        twin.tensor("c_tensor"),
    ):
        with pytest.raises(ValueError, match="read-only"):
            tensor[...] = 0
    own[...] = 0  # the caller's array stays writable


def test_external_tensors_are_mapped_not_copied(tmp_path: Path) -> None:
    big = np.zeros((256, 256), np.float32)
    path = write_external(tmp_path, simple_model(raw("big", big)))
    model = load(path)
    assert np.shares_memory(model.tensor("big"), model.tensor("big"))
    assert model.tensor("big").flags.aligned
    assert load(write(tmp_path, simple_model(raw("big", big)))).tensor("big").flags.aligned


def test_memory_of_what_was_read_is_given_back_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = np.arange(1 << 16, dtype=np.float32).reshape(256, 256)
    model = load(write_external(tmp_path, simple_model(raw("big", big))))
    dropped = []
    monkeypatch.setattr(MappedFiles, "drop_pages", lambda _: dropped.append(1))
    monkeypatch.setattr("onnxcanon.files.storage.MOST_MAPPED", 3 * big.nbytes)
    for _ in range(7):
        assert np.array_equal(np.concatenate(list(model.blocks("big"))), big)
    assert len(dropped) == 2


def test_opsets(tmp_path: Path) -> None:
    model = load(write(tmp_path, rich_model()))
    assert (model.opset(), model.opset("ai.onnx"), model.opset("local"), model.opset("com.x")) == (
        21,
        21,
        1,
        0,
    )
    old = simple_model()
    del old.opset_import[:]
    assert (load(old).opset(), load(old).opset("com.x")) == (1, 0)
    old.opset_import.add(domain="com.x", version=2)
    assert (load(old).opset(), load(old).opset("com.x")) == (0, 2)
    old.opset_import.add(domain="ai.onnx", version=9)
    assert load(old).opset() == 9


def test_names_and_sizes(tmp_path: Path) -> None:
    path = write(tmp_path, simple_model())
    assert load(path).name == str(path)
    assert load(path).path == path
    assert load(str(path)).path == path
    assert load(simple_model()).name == "tiny"
    assert load(simple_model()).path is None
    assert load(path).serialized_size() == WEIGHT.nbytes
    with pytest.raises(ModelError, match="there is no tensor 'nope'"):
        load(path).tensor("nope")


def test_a_model_passes_through(tmp_path: Path) -> None:
    model = load(simple_model())
    assert load(model) is model


def test_a_proto_is_copied() -> None:
    proto = rich_model()
    before = proto.SerializeToString()
    model = load(proto)
    model.with_tensors({"w": WEIGHT + 1}).to_proto()
    assert proto.SerializeToString() == before
    proto.graph.initializer[0].raw_data = (WEIGHT + 7).tobytes()
    assert np.array_equal(model.tensor("w"), WEIGHT)


def test_importing_is_light() -> None:
    code = "import sys, onnxcanon.model; print({'onnxruntime', 'scipy', 'torch'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_oddities_of_a_graph_are_not_printed(tmp_path: Path) -> None:
    proto = simple_model()
    proto.graph.node[0].input[0] = "nowhere"
    path = write(tmp_path, proto)
    code = f"from onnxcanon.model import load; load({str(path)!r})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr == ""


# What is written


def test_an_unchanged_file_is_written_byte_for_byte(tmp_path: Path) -> None:
    path = write(tmp_path, rich_model())
    load(path).save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == path.read_bytes()
    assert files(tmp_path) == {"m.onnx", "out.onnx"}
    assert same(load(path).to_proto(), rich_model())
    assert same(load(rich_model()).to_proto(), rich_model())


def test_fields_of_later_versions_survive(tmp_path: Path) -> None:
    unknown = b"\xfa\x7f\x03new"  # field 2047
    tensor = wire.nest(wire.GRAPH_INITIALIZER, [raw("w", WEIGHT).SerializeToString(), unknown])
    node = wire.nest(
        wire.GRAPH_NODE, [helper.make_node("MatMul", ["x", "w"], ["y"]).SerializeToString(), unknown]
    )
    rest = graph_of([])
    del rest.node[:]
    graph = wire.nest(wire.MODEL_GRAPH, [rest.SerializeToString(), *tensor, *node, unknown])
    content = bytes(wire.join([onnx.ModelProto(ir_version=10).SerializeToString(), unknown, *graph]))
    (tmp_path / "m.onnx").write_bytes(content)
    model = load(tmp_path / "m.onnx")
    model.save(tmp_path / "same.onnx")
    assert (tmp_path / "same.onnx").read_bytes() == content
    model.with_tensors({"w": WEIGHT + 1}).save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes().count(unknown) == 4
    memory = load(onnx.ModelProto.FromString(content))
    assert memory.to_proto().SerializeToString(deterministic=True).count(unknown) == 4


REPLACEMENTS: dict[str, np.ndarray] = {
    "w": WEIGHT[::-1],
    "typed": np.array([3, 2, 1], np.float32),
    "shape": np.array([16, -1]),
    "half": np.array([2, 1], np.float16),
    "brain": np.arange(800)[::-1].astype(ml_dtypes.bfloat16),
    "eight": np.arange(2000)[::-1].astype(ml_dtypes.float8_e4m3fn),
    "four": (np.arange(3003) % 15 - 7).astype(ml_dtypes.int4).reshape(3, 1001),
    "scalar": np.array(7, np.float32),
    "none": np.zeros((0, 4), np.float32),
    "c_tensor": WEIGHT.T.copy().T + 1,
    "c_float": np.array(0.25, np.float32),
    "c_floats": np.array([9, 8], np.float32),
    "c_int": np.array(2**40),
    "c_ints": np.array([1, -(2**40)]),
}


@pytest.mark.parametrize("store", [write, write_external])
@pytest.mark.parametrize("name", REPLACEMENTS)
def test_replacing_a_tensor_changes_only_that(
    tmp_path: Path, name: str, store: Callable[[Path, onnx.ModelProto], Path]
) -> None:
    model = load(store(tmp_path, rich_model()))
    new = REPLACEMENTS[name]
    twin = model.with_tensors({name: lambda: new})
    twin.save(tmp_path / "out.onnx")
    for read in (load(tmp_path / "out.onnx"), load(twin.to_proto()), twin):
        assert read.tensor_names() == model.tensor_names()
        assert read.tensor(name).tobytes() == new.tobytes()
        for other in set(model.tensor_names()) - {name}:
            assert read.tensor(other).tobytes() == model.tensor(other).tobytes()
    back = load(tmp_path / "out.onnx").with_tensors({name: model.tensor(name)}).to_proto()
    assert same(with_raw_data(back), with_raw_data(rich_model()))


@pytest.mark.parametrize("store", [write, write_external])
@pytest.mark.parametrize("name", load(nested_model()).tensor_names())
def test_replacing_a_nested_tensor_changes_only_that(
    tmp_path: Path, name: str, store: Callable[[Path, onnx.ModelProto], Path]
) -> None:
    model = load(store(tmp_path, nested_model()))
    new = model.tensor(name) + 1
    twin = model.with_tensors({name: lambda: new})
    twin.save(tmp_path / "out.onnx")
    for read in (load(tmp_path / "out.onnx"), load(twin.to_proto()), twin):
        assert read.tensor_names() == model.tensor_names()
        assert read.tensor(name).tobytes() == new.tobytes()
        for other in set(model.tensor_names()) - {name}:
            assert read.tensor(other).tobytes() == model.tensor(other).tobytes()
    back = load(tmp_path / "out.onnx").with_tensors({name: model.tensor(name)})
    if store is write:
        back.save(tmp_path / "back.onnx")
        assert (tmp_path / "back.onnx").read_bytes() == (tmp_path / "m.onnx").read_bytes()
    assert same(back.to_proto(), nested_model())


def test_a_field_in_two_parts_is_merged(tmp_path: Path) -> None:
    proto = nested_model()
    node = proto.graph.node[1]
    assert node.attribute[0].name == "else_branch"
    half = onnx.AttributeProto()
    half.g.doc_string = "more"
    content = node.attribute[0].SerializeToString() + half.SerializeToString()
    rest = [a.SerializeToString() for a in node.attribute[1:]]
    del node.attribute[:]
    attributes = [piece for a in (content, *rest) for piece in wire.nest(wire.NODE_ATTRIBUTE, [a])]
    whole = wire.nest(wire.GRAPH_NODE, [node.SerializeToString(), *attributes])
    nodes = [n.SerializeToString() for n in proto.graph.node]
    del proto.graph.node[:]
    spelled = [wire.nest(wire.GRAPH_NODE, [n]) for n in nodes]
    spelled[1] = whole
    graph = wire.nest(wire.MODEL_GRAPH, [proto.graph.SerializeToString(), *(p for n in spelled for p in n)])
    proto.ClearField("graph")
    (tmp_path / "m.onnx").write_bytes(bytes(wire.join([proto.SerializeToString(), *graph])))
    model = load(tmp_path / "m.onnx")
    assert model.tensor_names() == load(nested_model()).tensor_names()
    model.with_tensors({"alone": model.tensor("alone") + 1}).save(tmp_path / "out.onnx")
    merged = onnx.load(tmp_path / "out.onnx").graph.node[1].attribute[0].g
    assert merged.doc_string == "more"
    assert len(merged.node) == 2


def with_raw_data(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with every initializer in raw form."""
    for tensor in proto.graph.initializer:
        if tensor.data_type != TensorProto.STRING and not tensor.HasField("raw_data"):
            array = numpy_helper.to_array(tensor)
            for field in ("float_data", "int32_data", "int64_data"):
                tensor.ClearField(field)
            tensor.raw_data = array.tobytes()
    return proto


def test_functions_are_called_once_per_save_and_one_at_a_time() -> None:
    events = []
    proto = simple_model(raw("v", WEIGHT), raw("u", WEIGHT))

    def value(name: str) -> np.ndarray:
        events.append(name)
        return WEIGHT + 1

    model = load(proto).with_tensors({name: lambda name=name: value(name) for name in "uvw"})
    assert events == []
    model.to_proto()
    assert events == ["w", "v", "u"]
    assert model.tensor("v")[0, 0] == 1
    assert events == ["w", "v", "u", "v"]


def test_replacements_add_up_and_leave_the_model_alone() -> None:
    model = load(simple_model(raw("v", WEIGHT)))
    once = model.with_tensors({"w": WEIGHT + 1, "v": WEIGHT + 1})
    twice = once.with_tensors({"v": WEIGHT + 2})
    assert [m.tensor("w")[0, 0] for m in (model, once, twice)] == [0, 1, 1]
    assert [m.tensor("v")[0, 0] for m in (model, once, twice)] == [0, 1, 2]
    assert twice.ir is model.ir


@pytest.mark.parametrize(
    "wrong", [WEIGHT[:8], WEIGHT.astype(np.float64), WEIGHT.astype(">f4"), WEIGHT.reshape(-1)], ids=str
)
def test_a_replacement_that_does_not_fit_is_refused(tmp_path: Path, wrong: np.ndarray) -> None:
    twin = load(simple_model()).with_tensors({"w": lambda: wrong})
    for use in (lambda: twin.tensor("w"), twin.to_proto, lambda: twin.save(tmp_path / "out.onnx")):
        with pytest.raises(ModelError, match="replacement of tensor 'w'"):
            use()
    assert files(tmp_path) == set()


def test_unknown_names_and_strings_cannot_be_replaced() -> None:
    with pytest.raises(ModelError, match="there is no tensor 'nope'"):
        load(rich_model()).with_tensors({"nope": WEIGHT})
    with pytest.raises(ModelError, match="'text' holds strings"):
        load(rich_model()).with_tensors({"text": np.array([b"b", b"c"])})
