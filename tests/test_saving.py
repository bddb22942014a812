"""Where a saved model goes: its data file, the files around it, and what is left when saving fails."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxcanon import model as model_module
from onnxcanon.errors import ModelError
from onnxcanon.files import wire
from onnxcanon.model import load
from tests.handmade import (
    WEIGHT,
    files,
    graph_of,
    raw,
    refer,
    rich_model,
    same,
    simple_model,
    write,
    write_external,
)

# External data


def test_external_tensors_stay_external_in_one_file(tmp_path: Path) -> None:
    path = write_external(tmp_path, rich_model())
    source = onnx.load(path, load_external_data=False)
    (tmp_path / "new").mkdir()
    load(path).save(tmp_path / "new" / "out.onnx")
    assert files(tmp_path / "new") == {"out.onnx", "out.onnx.data"}
    saved = onnx.load(tmp_path / "new" / "out.onnx", load_external_data=False)
    assert {t.name for t in saved.graph.initializer if t.external_data} == {"w", "brain", "eight", "four"}
    for old, new in zip(source.graph.initializer, saved.graph.initializer, strict=True):
        assert (old.data_location, old.name) == (new.data_location, new.name)
    assert same(onnx.load(tmp_path / "new" / "out.onnx"), onnx.load(path))
    branch = next(n for n in saved.graph.node if n.op_type == "If").attribute[0].g
    assert branch.initializer[0].external_data[0].value == "out.onnx.data"
    again = load(tmp_path / "new" / "out.onnx")
    inner = next(node for node in again.ir.graph if node.op_type == "If").attributes["then_branch"].as_graph()
    assert np.array_equal(inner.initializers["inner"].const_value.numpy(), WEIGHT)
    assert again.to_proto().graph.initializer[0].raw_data == WEIGHT.tobytes()


def test_tensors_of_functions_and_lists_may_be_external(tmp_path: Path) -> None:
    proto = simple_model()
    part = refer(raw("", WEIGHT), location="f.bin")
    node = helper.make_node("Constant", [], ["b"], value=part)
    several = helper.make_node("Many", ["a"], ["c"], domain="local", tensors=[part, raw("", WEIGHT + 1)])
    opsets = [helper.make_opsetid("", 21)]
    proto.functions.append(helper.make_function("local", "F", ["a"], ["b"], [node, several], opsets))
    (tmp_path / "f.bin").write_bytes(WEIGHT.tobytes())
    model = load(write(tmp_path, proto))
    model.save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx.data").read_bytes() == WEIGHT.tobytes()
    (tmp_path / "f.bin").unlink()
    (function,) = load(tmp_path / "out.onnx").ir.functions.values()
    assert np.array_equal(function[0].attributes["value"].as_tensor().numpy(), WEIGHT)
    assert [t.numpy()[0, 0] for t in function[1].attributes["tensors"].as_tensors()] == [0, 1]
    inlined = model.to_proto().functions[0].node[0].attribute[0].t
    assert inlined.raw_data == WEIGHT.tobytes()
    assert not inlined.external_data


def test_many_data_files_become_one_and_shared_bytes_stay_shared(tmp_path: Path) -> None:
    names = ["w", "tied", "other"]
    proto = helper.make_model(graph_of([refer(raw(name, WEIGHT), location="a.bin") for name in names]))
    proto.graph.initializer[2].external_data[0].value = "b.bin"
    proto.graph.initializer[2].external_data.add(key="checksum", value="0")
    proto.graph.initializer[2].external_data.add(key="note", value="kept")
    (tmp_path / "a.bin").write_bytes(WEIGHT.tobytes())
    (tmp_path / "b.bin").write_bytes((WEIGHT + 1).tobytes())
    model = load(write(tmp_path, proto))
    model.save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx.data").stat().st_size == 2 * WEIGHT.nbytes
    saved = onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.initializer
    assert {e.key for e in saved[2].external_data} == {"location", "offset", "length", "note"}
    model.with_tensors({"tied": WEIGHT + 2}).save(tmp_path / "out.onnx")
    read = load(tmp_path / "out.onnx")
    assert [read.tensor(name)[0, 0] for name in names] == [0, 2, 1]


def test_tensors_in_the_data_file_can_be_mapped(tmp_path: Path) -> None:
    big = np.zeros((300, 301), np.float32)
    path = write_external(tmp_path, simple_model(raw("odd", np.zeros(1025, np.uint8), 2), raw("big", big)))
    load(path).save(tmp_path / "out.onnx")
    saved = onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.initializer
    offsets = [int(e.value) for t in saved for e in t.external_data if e.key == "offset"]
    assert [offset % 64 for offset in offsets] == [0, 0, 0]
    assert offsets[2] % 65536 == 0


def test_a_model_that_outgrows_protobuf_moves_its_large_tensors_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(rich_model()).with_tensors({"w": WEIGHT + 1})
    expected = model.to_proto()
    monkeypatch.setattr(model_module, "LARGEST_MESSAGE", 9000)
    model.save(tmp_path / "out.onnx")
    assert files(tmp_path) == {"out.onnx", "out.onnx.data"}
    saved = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    assert {t.name for t in saved.graph.initializer if t.external_data} == {"w", "brain", "eight", "four"}
    with pytest.raises(ModelError, match="over 2 GB"):
        model.to_proto()
    monkeypatch.undo()
    assert same(load(tmp_path / "out.onnx").to_proto(), expected)
    monkeypatch.setattr(model_module, "LARGEST_MESSAGE", 100)
    with pytest.raises(ModelError, match="over 2 GB remain"):
        model.save(tmp_path / "other.onnx")
    assert files(tmp_path) == {"out.onnx", "out.onnx.data"}


# Whole or not at all


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop", [Stop, KeyboardInterrupt, ModelError])
@pytest.mark.parametrize("store", [write, write_external])
def test_an_interrupted_save_leaves_no_trace(
    tmp_path: Path, store: Callable[[Path, onnx.ModelProto], Path], stop: type[BaseException]
) -> None:
    def fail() -> np.ndarray:
        raise stop

    source = tmp_path / "source"
    source.mkdir()
    model = load(store(source, rich_model()))
    twin = model.with_tensors({"w": WEIGHT + 1, "c_tensor": fail})
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(stop):
        twin.save(out / "m.onnx")
    assert files(out) == set()
    model.save(out / "m.onnx")
    before = {name: (out / name).read_bytes() for name in files(out)}
    with pytest.raises(stop):
        twin.save(out / "m.onnx")
    assert {name: (out / name).read_bytes() for name in files(out)} == before


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("links", [True, False])
def test_a_failing_rename_takes_the_data_file_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool, links: bool
) -> None:
    model = load(write_external(tmp_path, simple_model()))
    out = tmp_path / "out"
    out.mkdir()
    if existing:
        model.save(out / "m.onnx")
    before = {name: (out / name).read_bytes() for name in files(out)}
    replace = Path.replace

    def replace_data_only(self: Path, target: Path) -> Path:
        if target.suffix == ".onnx":
            raise PermissionError(13, "Permission denied", str(target))
        return replace(self, target)

    def no_link(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr(Path, "replace", replace_data_only)
    if not links:
        monkeypatch.setattr(os, "link", no_link)
    with pytest.raises(ModelError, match="Permission denied"):
        model.with_tensors({"w": WEIGHT + 1}).save(out / "m.onnx")
    assert {name: (out / name).read_bytes() for name in files(out)} == before


@pytest.mark.parametrize("store", [write, write_external])
def test_saving_over_the_source(tmp_path: Path, store: Callable[[Path, onnx.ModelProto], Path]) -> None:
    big = np.arange(50000, dtype=np.float32)
    path = store(tmp_path, simple_model(raw("big", big), raw("more", big)))
    model = load(path)
    for _ in range(2):  # the second save overwrites the data file that the first one wrote
        model = load(path)
        twin = model.with_tensors({"w": lambda model=model: model.tensor("w") + 1})
        twin.save(path)
        assert np.array_equal(model.tensor("big"), big)
        assert np.array_equal(twin.tensor("w"), load(path).tensor("w"))
    assert load(path).tensor("w")[0, 0] == 2
    assert np.array_equal(load(path).tensor("more"), big)


def test_a_source_of_the_model_is_not_overwritten_by_its_copy(tmp_path: Path) -> None:
    proto = helper.make_model(graph_of([refer(raw("w", WEIGHT), location="out.onnx.data")]))
    (tmp_path / "out.onnx.data").write_bytes(WEIGHT.tobytes())
    model = load(write(tmp_path, proto))
    for name in ("out.onnx", "out.onnx.data"):
        with pytest.raises(ModelError, match="data of the model being saved"):
            model.save(tmp_path / name)
    assert (tmp_path / "out.onnx.data").read_bytes() == WEIGHT.tobytes()
    assert files(tmp_path) == {"m.onnx", "out.onnx.data"}


def test_where_a_model_cannot_be_saved(tmp_path: Path) -> None:
    path = write_external(tmp_path, simple_model())
    model = load(path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "blocked.onnx.data").mkdir()
    before = files(tmp_path)
    for target, cause in {
        "none/m.onnx": "there is no folder",
        "folder": "not a regular file",
        "": "not a regular file",
        "blocked.onnx": "blocked.onnx.data is not a regular file",
        "x" * 300: "File name too long",
    }.items():
        with pytest.raises(ModelError, match=cause) as caught:
            model.save(tmp_path / target)
        assert "\n" not in str(caught.value)
    if Path(os.devnull).exists():
        with pytest.raises(ModelError, match="not a regular file"):
            model.save(os.devnull)
    assert files(tmp_path) == before


def test_overwriting_can_be_forbidden(tmp_path: Path) -> None:
    model = load(write_external(tmp_path, simple_model()))
    model.save(tmp_path / "out.onnx", overwrite=False)
    with pytest.raises(ModelError, match=r"out.onnx exists"):
        model.save(tmp_path / "out.onnx", overwrite=False)
    (tmp_path / "out.onnx").unlink()
    with pytest.raises(ModelError, match=r"out.onnx.data exists"):
        model.save(tmp_path / "out.onnx", overwrite=False)


@pytest.mark.skipif(os.name != "posix", reason="permission bits and symlinks as on POSIX")
def test_files_get_ordinary_permissions_and_keep_those_they_had(tmp_path: Path) -> None:
    model = load(simple_model())
    (tmp_path / "ordinary").touch()
    model.save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").stat().st_mode == (tmp_path / "ordinary").stat().st_mode
    (tmp_path / "out.onnx").chmod(0o640)
    model.save(tmp_path / "out.onnx")
    assert stat.S_IMODE((tmp_path / "out.onnx").stat().st_mode) == 0o640


def test_serializing_part_by_part_is_serializing() -> None:
    for proto in (rich_model(), onnx.ModelProto(ir_version=3)):
        before = proto.SerializeToString(deterministic=True)
        assert same(wire.parse(wire.serialize(proto)), proto)
        assert proto.SerializeToString(deterministic=True) == before
