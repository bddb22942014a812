"""The verb align on the command line."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import onnxcanon as oc
from onnxcanon import choices
from onnxcanon.cli.main import main
from tests.shared import ROOT

ONE, OTHER = (ROOT / "models" / f"digits_mlp_seed{k}.onnx" for k in (0, 1))


def call(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(word) for word in words])
    return result.exit_code, result.stdout, result.stderr


def test_every_method_that_can_be_chosen_is_there() -> None:
    assert tuple(import_module("onnxcanon.alignment.align")._METHODS) == choices.METHODS


def test_align_writes_a_twin_that_is_closer(tmp_path: Path) -> None:
    out, transform = tmp_path / "aligned.onnx", tmp_path / "t.npz"
    status, told, _ = call("align", ONE, OTHER, "-o", out, "--transform", transform)
    assert status == 0
    assert "verified on" in told
    assert oc.verify(OTHER, out).same
    assert oc.distance([ONE, out]).raw[0][1] < oc.distance([ONE, OTHER]).raw[0][1]
    again = oc.apply(OTHER, transform)
    assert all((again.tensor(n) == oc.load(out).tensor(n)).all() for n in again.tensor_names())


def test_json_says_what_was_done(tmp_path: Path) -> None:
    status, told, _ = call("align", ONE, OTHER, "-o", tmp_path / "a.onnx", "--json")
    document = json.loads(told)
    assert status == 0
    assert document["written"]
    assert document["distance"] < document["distance_before"]
    assert document["verification"]["same"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give -o OUT"),
        (["-o", "REFERENCE"], "is the reference"),
        (["-o", "a.onnx", "--normalize", "--transform", "t"], "normal form"),
        (["-o", "a.onnx", "--method", "guessing"], "guessing"),
        (["-o", "a.onnx", "--data", "missing.npz"], "missing.npz"),
        (["-o", "a.onnx", "--data", "a.onnx"], "is the data"),
        (["-o", "a.onnx", "--labels", "a.onnx"], "is the labels"),
        (["-o", "a.onnx", "--transform", "t.npz", "--data", "t.npz"], "is the data"),
        (["-o", "a.onnx", "--labels", "y.npy"], "give inputs"),
    ],
)
def test_misuse_is_one_line_and_nothing_is_written(tmp_path: Path, words: list[str], told: str) -> None:
    named = {"REFERENCE": str(ONE), "a.onnx": str(tmp_path / "a.onnx")}
    status, _, complaint = call("align", ONE, OTHER, *(named.get(word, word) for word in words))
    assert status == 2
    assert told in complaint
    assert not any(tmp_path.iterdir())


def test_data_may_be_a_file_of_the_only_input(tmp_path: Path) -> None:
    with np.load(ROOT / "models" / "digits_eval.npz") as file:
        np.save(tmp_path / "x.npy", file["x"][:64])
    words = ["--method", "activations", "--data", tmp_path / "x.npy"]
    status, told, _ = call("align", ONE, OTHER, "-o", tmp_path / "a.onnx", *words)
    assert status == 0
    assert "compared in 2 runs" in told
    assert call("distance", ONE, OTHER, "--align", *words[1:])[0] == 0


def test_in_place_moves_the_model_and_keeps_its_function(tmp_path: Path) -> None:
    moved = tmp_path / "b.onnx"
    moved.write_bytes(OTHER.read_bytes())
    assert call("align", ONE, moved, "--in-place")[0] == 0
    assert moved.read_bytes() != OTHER.read_bytes()
    assert oc.verify(OTHER, moved).same
