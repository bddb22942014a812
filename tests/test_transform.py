"""Transforms form a group that acts on models, and files of them are read without trust."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxcanon.action import Action
from onnxcanon.errors import TransformError
from onnxcanon.model import Model, load
from onnxcanon.symmetry import symmetry
from onnxcanon.transform import TRANSFORM_FORMAT, Transform, load_transform
from tests.examples import Array, attention, bits, experts, layers, network, values
from tests.shared import SHIPPED, each

EXAMPLES: dict[str, Callable[[], Model]] = {
    "mlp": lambda: network(layers(6, 12, 10, 4)),
    "attention heads": attention,
    "stacked experts": experts,
    **{path.stem: lambda path=path: load(path) for path in SHIPPED},
}

every_example = pytest.mark.parametrize("kind", EXAMPLES)


def elements(kind: str, count: int, seed: int = 0) -> tuple[Model, list[Transform]]:
    """A model and random elements of its group, with powers of two as factors."""
    model = EXAMPLES[kind]()
    group = symmetry(model)
    rng = np.random.default_rng(seed)
    return model, [group.random(rng) for _ in range(count)]


def same_bits(one: Model, other: Model) -> bool:
    return all(bits(array) == bits(other.tensor(name)) for name, array in values(one).items())


def same(one: Transform, other: Transform) -> bool:
    """Whether two transforms do the same to every parameter, whatever arrays they keep."""
    for name in one.actions.keys() | other.actions.keys():
        shape = (one.actions.get(name) or other.actions[name]).shape
        idle = Action(shape)
        numbers = np.arange(1.0, np.prod(shape) + 1).reshape(shape)
        if not np.array_equal(one.actions.get(name, idle)(numbers), other.actions.get(name, idle)(numbers)):
            return False
    return one.model == other.model


# -- the laws of a group ----------------------------------------------------------------------------


@every_example
def test_a_tensor_in_blocks_is_the_tensor(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxcanon.arrays.BLOCK", 20)
    model, (element,) = elements(kind, 1)
    moved = element.apply(model)
    blocks = {name: list(moved.blocks(name)) for name in model.tensor_names()}
    for name, parts in blocks.items():
        assert b"".join(part.tobytes() for part in parts) == moved.tensor(name).tobytes(), name
    assert max(len(blocks[name]) for name in element.changes) > 2
    moved.save(tmp_path / "moved.onnx")
    assert same_bits(moved, load(tmp_path / "moved.onnx"))


@every_example
def test_inverse_undoes_bit_for_bit(kind: str) -> None:
    model, [t] = elements(kind, 1)
    moved = t.apply(model)
    assert not same_bits(moved, model)
    assert same_bits(t.inverse().apply(moved), model)
    assert same_bits(t.then(t.inverse()).apply(model), model)
    assert same(t.inverse().inverse(), t)
    assert same(t.then(t.inverse()), t.inverse().then(t))


@every_example
def test_then_is_one_after_the_other(kind: str) -> None:
    model, [s, t] = elements(kind, 2)
    assert same_bits(s.then(t).apply(model), t.apply(s.apply(model)))
    assert not same(s.then(t), t.then(s))


@every_example
def test_then_is_associative_and_reversed_by_inversion(kind: str) -> None:
    _, [r, s, t] = elements(kind, 3)
    assert same(r.then(s).then(t), r.then(s.then(t)))
    assert same(s.then(t).inverse(), t.inverse().then(s.inverse()))


@every_example
def test_the_transform_of_nothing_is_neutral(kind: str) -> None:
    model, [t] = elements(kind, 1)
    nothing = Transform({}, model.name)
    assert same(t.then(nothing), t)
    assert same(nothing.then(t), t)
    assert nothing.apply(model).tensor_names() == model.tensor_names()
    assert same_bits(nothing.apply(model), model)


def test_an_array_of_no_columns_whose_rows_move_in_blocks() -> None:
    action = Action((5, 0), {0: np.zeros((5, 0), np.int64)}, {0: np.full((5, 1), 2.0)})
    [block] = action.blocks(np.zeros((5, 0), np.float32))
    assert block.shape == (5, 0)


def test_heads_move_as_blocks_with_orders_of_their_own_within() -> None:
    """Queries and keys move alike, values in another order within the same heads."""
    model = attention(heads=3, width=4)
    t = symmetry(model).random(np.random.default_rng(0), scale=False, sign=False)
    order = {name: t.actions[name].index[1].reshape(3, 4) for name in ("wq", "wk", "wv")}
    order["wo"] = t.actions["wo"].index[0].reshape(3, 4)
    blocks = {name: rows // 4 for name, rows in order.items()}
    assert all((rows == rows[:, :1]).all() for rows in blocks.values())
    assert len({str(rows) for rows in blocks.values()}) == 1
    assert np.array_equal(order["wq"], order["wk"])
    assert np.array_equal(order["wv"], order["wo"])
    assert not np.array_equal(order["wq"], order["wv"])
    assert len({str(row % 4) for row in order["wq"]}) == 3


def test_experts_move_whole_with_orders_of_their_own_within() -> None:
    t = symmetry(experts(count=3, hidden=5)).random(np.random.default_rng(0), scale=False)
    blocks = [
        t.actions[name].index[axis].ravel().tolist() for name, axis in (("router", 1), ("w1", 0), ("w2", 0))
    ]
    assert blocks[0] == blocks[1] == blocks[2] != [0, 1, 2]
    inner = t.actions["w1"].index[2]
    assert inner.shape == (3, 1, 5)
    assert np.array_equal(inner.ravel(), t.actions["w2"].index[1].ravel())
    assert len({str(row) for row in inner}) == 3


def test_action_reads_source_positions_in_the_context_of_the_target() -> None:
    """W'[e, j] = W[s(e), r(e, j)] written out, for blocks that change places and orders within."""
    rng = np.random.default_rng(1)
    array = rng.normal(size=(3, 5)).astype(np.float32)
    blocks, inner = np.array([2, 0, 1]), np.stack([rng.permutation(5) for _ in range(3)])
    factor = 2.0 ** rng.integers(-2, 3, (3, 5))
    action = Action((3, 5), {0: blocks.reshape(3, 1), 1: inner}, {1: factor})
    expected = np.empty_like(array)
    for e, j in product(range(3), range(5)):
        expected[e, j] = factor[e, j] * array[blocks[e], inner[e, j]]
    assert np.array_equal(action(array), expected)
    assert np.array_equal(action.inverse()(expected), array)


def test_factors_leave_no_negative_zero() -> None:
    action = Action((2,), {}, {0: np.array([-1.0, 2.0])})
    assert action(np.array([0.0, -0.0], np.float32)).tobytes() == bytes(8)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint8])
def test_permutations_keep_every_type(dtype: type) -> None:
    array = np.arange(6).astype(dtype).reshape(2, 3)
    moved = Action((2, 3), {1: np.array([[2, 0, 1]])})(array)
    assert moved.dtype == dtype
    assert moved.tolist() == [[2, 0, 1], [5, 3, 4]]


# -- another model ----------------------------------------------------------------------------------


def test_a_model_without_the_parameter_is_refused_by_name() -> None:
    model, [t] = elements("mlp", 1)
    other = network(layers(6, 12, 4))
    with pytest.raises(TransformError, match="has no parameter 'w2'") as refusal:
        Transform({"w2": t.actions["w2"]}, model.name).apply(other)
    assert "\n" not in str(refusal.value)


def test_a_parameter_of_another_shape_is_refused_by_name() -> None:
    _, [t] = elements("mlp", 1)
    with pytest.raises(TransformError, match=r"'b0' has shape \[13\], the transform expects \[12\]"):
        Transform({"b0": t.actions["b0"]}).apply(network(layers(6, 13, 10, 4)))


# -- files ------------------------------------------------------------------------------------------


@every_example
def test_saved_transforms_are_read_back_and_written_alike(kind: str, tmp_path: Path) -> None:
    _, [t] = elements(kind, 1)
    t.save(tmp_path / "one")
    again = load_transform(tmp_path / "one")
    assert again.model == t.model
    assert again.actions.keys() == t.actions.keys()
    for name, action in t.actions.items():
        read = again.actions[name]
        assert read.shape == action.shape
        for kept, back in ((action.index, read.index), (action.factor, read.factor)):
            assert {a: (x.dtype, x.tolist()) for a, x in kept.items()} == {
                a: (x.dtype, x.tolist()) for a, x in back.items()
            }
    again.save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


def test_the_transform_of_nothing_is_saved(tmp_path: Path) -> None:
    Transform({}, "some model").save(tmp_path / "t")
    assert same(load_transform(tmp_path / "t"), Transform({}, "some model"))


def test_a_folder_that_is_not_there_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(TransformError, match="cannot be written"):
        Transform({}).save(tmp_path / "none" / "t")
    assert "no such file" in refusal(tmp_path / "t")


def refusal(path: Path) -> str:
    """The line that says why a file is refused."""
    with pytest.raises(TransformError) as caught:
        load_transform(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def npy(array: Array) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=True)
    return file.getvalue()


def head(*parameters: Mapping[str, Any], **entries: Any) -> bytes:
    document = {"format": TRANSFORM_FORMAT, "model": "m", "parameters": parameters, **entries}
    return npy(np.frombuffer(json.dumps(document).encode(), np.uint8))


def written(path: Path, header: bytes | None, **arrays: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in ({"header": header} if header else {}).items():
            archive.writestr(f"{name}.npy", content)
        for name, content in arrays.items():
            archive.writestr(f"{name.replace('_', '.')}.npy", content)
    return path


PLAIN = {"name": "w", "shape": [2, 3], "index": [1], "factor": []}
SCALED = {"name": "w", "shape": [2, 3], "index": [], "factor": [0]}
ORDER = np.array([[2, 0, 1]])
CLAIM = b"\x93NUMPY\x01\x00v\x00{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000, 3), }"
LENGTHY = b"\x93NUMPY\x02\x00\x00\x00\x08\x00{" + b" " * (1 << 19)


def test_a_file_written_by_hand_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "t", head(PLAIN), p0_index_1=npy(ORDER))
    assert load_transform(path).actions["w"](np.arange(6).reshape(2, 3)).tolist() == [[2, 0, 1], [5, 3, 4]]


REFUSED: dict[str, tuple[bytes | None, dict[str, bytes]]] = {
    "no header": (None, {}),
    "header of another type": (npy(np.zeros(3)), {}),
    "header is no JSON": (npy(np.frombuffer(b"{", np.uint8)), {}),
    "header is no text": (npy(np.frombuffer(b"\xff\xfe", np.uint8)), {}),
    "header nested too deep": (npy(np.frombuffer(b"[" * 100_000, np.uint8)), {}),
    "header is a list": (npy(np.frombuffer(b"[]", np.uint8)), {}),
    "another format": (head(format="onnxcanon-transform-9"), {}),
    "no parameters": (npy(np.frombuffer(json.dumps({"format": TRANSFORM_FORMAT}).encode(), np.uint8)), {}),
    "parameter without a shape": (head({"name": "w"}), {}),
    "parameters are numbers": (head(parameters=[1, 2]), {}),
    "negative size": (head({**PLAIN, "shape": [-2, -3]}), {"p0_index_1": npy(ORDER)}),
    "no such axis": (head({**PLAIN, "index": [2]}), {"p0_index_2": npy(ORDER)}),
    "negative axis": (head({**PLAIN, "index": [-1]}), {"p0_index_-1": npy(ORDER)}),
    "no such scaled axis": (head({**SCALED, "factor": [5]}), {"p0_factor_5": npy(np.ones((2, 1)))}),
    "index is missing": (head(PLAIN), {}),
    "index is no permutation": (head(PLAIN), {"p0_index_1": npy(np.array([[0, 0, 1]]))}),
    "index is out of range": (head(PLAIN), {"p0_index_1": npy(np.array([[1, 2, 3]]))}),
    "index does not fit": (head(PLAIN), {"p0_index_1": npy(np.array([[0, 1, 2, 3]]))}),
    "index has another rank": (head(PLAIN), {"p0_index_1": npy(np.array([0, 1, 2]))}),
    "index of real numbers": (head(PLAIN), {"p0_index_1": npy(ORDER.astype(np.float64))}),
    "indices in a circle": (
        head({"name": "w", "shape": [2, 2], "index": [0, 1], "factor": []}),
        {"p0_index_0": npy(np.array([[0, 1], [1, 0]])), "p0_index_1": npy(np.array([[0, 1], [1, 0]]))},
    ),
    "index is a pickle": (head(PLAIN), {"p0_index_1": npy(np.array([print, None], object))}),
    "index is no array": (head(PLAIN), {"p0_index_1": b"0, 1, 2"}),
    "index claims a huge size": (head(PLAIN), {"p0_index_1": CLAIM.ljust(127) + b"\n"}),
    "index has a lengthy header": (head(PLAIN), {"p0_index_1": LENGTHY}),
    "shape claims a huge size": (
        head({**PLAIN, "shape": [2, 10**12]}),
        {"p0_index_1": CLAIM.replace(b"(1000000000000, 3)", b"(1, 1000000000000)").ljust(127) + b"\n"},
    ),
    "factor does not fit": (head(SCALED), {"p0_factor_0": npy(np.ones((3, 1)))}),
    "factor zero": (head(SCALED), {"p0_factor_0": npy(np.array([[1.0], [0.0]]))}),
    "factor infinite": (head(SCALED), {"p0_factor_0": npy(np.array([[1.0], [np.inf]]))}),
    "factor not a number": (head(SCALED), {"p0_factor_0": npy(np.array([[1.0], [np.nan]]))}),
    "factor in single precision": (head(SCALED), {"p0_factor_0": npy(np.ones((2, 1), np.float32))}),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_unsound_files_are_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    header, arrays = REFUSED[kind]
    refusal(written(tmp_path / "t", header, **arrays))


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY", bytes(range(256)) * 8])
def test_files_of_other_kinds_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(content)
    assert "not an onnxcanon transform" in refusal(path)
    assert "not an onnxcanon transform" in refusal(tmp_path)


def test_models_are_no_transforms(tmp_path: Path) -> None:
    network(layers(2, 3, 1)).save(tmp_path / "model.onnx")
    refusal(tmp_path / "model.onnx")


def test_damaged_files_are_refused_or_hold_what_was_written(tmp_path: Path) -> None:
    """Bytes changed, cut off and put in anywhere: never another transform, never another error."""
    _, [t] = elements("stacked experts", 1)
    path = tmp_path / "t"
    t.save(path)
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for turn in range(600):
        damaged, at = bytearray(sound), int(rng.integers(len(sound)))
        if turn % 3 == 0:
            damaged[at] ^= int(rng.integers(1, 256))
        elif turn % 3 == 1:
            del damaged[at:]
        else:
            damaged[at:at] = rng.bytes(int(rng.integers(1, 9)))
        path.write_bytes(damaged)
        try:
            assert same(load_transform(path), t)
        except TransformError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 300


@pytest.mark.parametrize("path", each(SHIPPED))
def test_saved_transforms_do_what_they_did(path: Path, tmp_path: Path) -> None:
    model = load(path)
    t = symmetry(model).random(np.random.default_rng(3), pow2=False)
    t.save(tmp_path / "t")
    assert same_bits(load_transform(tmp_path / "t").apply(model), t.apply(model))
