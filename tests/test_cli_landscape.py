"""The verbs barrier, flatness and distance on the command line."""

from __future__ import annotations

import csv
import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from onnxcanon import choices
from onnxcanon.landscape import paths, plotting
from tests.shared import ROOT
from tests.test_cli import CPU, Shell, shell  # noqa: F401 (a fixture)

A, B = (ROOT / "models" / f"digits_mlp_seed{seed}.onnx" for seed in (0, 1))
OTHER = ROOT / "models" / "digits_vit_seed0.onnx"
DATA = ROOT / "models" / "digits_eval.npz"
CURVE = {"alphas", "loss", "accuracy"} | {
    f"barrier_{what}{above}" for what in ("loss", "error") for above in ("", "_mean", "_worse")
}
needs_matplotlib = pytest.mark.skipif(find_spec("matplotlib") is None, reason="needs the extra 'plot'")


def barrier(shell: Shell, *args: str | Path) -> object:  # noqa: F811
    return shell("barrier", A, B, "--data", DATA, "--points", "3", *CPU, *args)


def test_the_choices_are_those_there_are() -> None:
    assert choices.PATH_KINDS == paths.PATHS


def test_barrier(shell: Shell) -> None:  # noqa: F811
    found = barrier(shell, "--json")
    assert found.status == 0
    told = found.document
    assert set(told) >= CURVE | {"a", "b", "path", "align", "aligned"}
    assert set(told["aligned"]) == CURVE
    assert told["alphas"] == [0, 0.5, 1]
    assert told["loss"][0] == pytest.approx(told["aligned"]["loss"][0])
    text = barrier(shell)
    assert text.status == 0
    for line in ("line between the ends", "mean of the ends", "worse end"):
        assert line in text.out
    assert f"{told['barrier_loss']:.4f}" in text.out


def test_barrier_without_alignment_on_a_geodesic(shell: Shell) -> None:  # noqa: F811
    told = barrier(shell, "--json", "--align", "none", "--path", "geodesic").document
    assert (told["aligned"], told["path"]) == (None, "geodesic")


def test_barrier_csv(shell: Shell) -> None:  # noqa: F811
    told, found = barrier(shell, "--json").document, barrier(shell, "--csv")
    rows = list(csv.DictReader(io.StringIO(found.out)))
    assert found.status == 0
    assert [float(row["alpha"]) for row in rows] == told["alphas"]
    assert [float(row["loss"]) for row in rows] == pytest.approx(told["loss"])
    assert [float(row["aligned_accuracy"]) for row in rows] == pytest.approx(told["aligned"]["accuracy"])
    assert "either --csv or --json" in barrier(shell, "--csv", "--json").complaint


@needs_matplotlib
@pytest.mark.parametrize(("name", "start"), [("curve.png", b"\x89PNG"), ("curve.svg", b"<?xml")])
def test_barrier_plot(shell: Shell, name: str, start: bytes) -> None:  # noqa: F811
    found = barrier(shell, "--plot", name)
    assert found.status == 0
    assert (shell.folder / name).read_bytes().startswith(start)
    assert shell.files == {name}


def test_a_plot_that_cannot_be_drawn_is_refused_before_any_work(
    shell: Shell,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "end its name with" in barrier(shell, "--plot", "curve.docx").complaint
    assert "is the data" in barrier(shell, "--plot", DATA).complaint
    other = barrier(shell, "--repair-data", "c.png", "--plot", "c.png")
    assert "is the repair's data" in other.complaint
    monkeypatch.setattr(plotting, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    found = barrier(shell, "--plot", "curve.png")
    assert found.status == 2
    assert "pip install 'onnxcanon[plot]'" in found.complaint
    assert not shell.files


def test_flatness(shell: Shell) -> None:  # noqa: F811
    call = ("flatness", A, "--data", DATA, "--sigma", "0.1", "--sigma", "0.5", "--draws", "3", *CPU)
    found = shell(*call, "--json")
    assert found.status == 0
    assert [rise["sigma"] for rise in found.document["rises"]] == [0.1, 0.5]
    assert set(found.document["rises"][0]) == {"sigma", "loss", "loss_stderr", "error", "error_stderr"}
    text = shell(*call)
    assert text.status == 0
    assert "±" in text.out
    assert found.document != shell(*call, "--json", "--seed", "1").document


def test_distance(shell: Shell) -> None:  # noqa: F811
    found = shell("distance", A, B, A, "--json")
    assert found.status == 0
    for kind in ("raw", "canonical", "aligned", "spherical"):
        matrix = np.array(found.document[kind])
        assert matrix.shape == (3, 3)
        assert matrix[0, 2] == pytest.approx(0, abs=1e-3)
        assert matrix[0, 1] > 1
    text = shell("distance", A, B)
    assert text.status == 0
    assert all(kind in text.out for kind in ("raw", "canonical", "aligned", "spherical"))


def test_what_does_not_fit_is_one_line_and_2(shell: Shell) -> None:  # noqa: F811
    np.savez("bare.npz", x=np.zeros((2, 1, 8, 8), np.float32))
    for args, cause in (
        (("barrier", A, OTHER, "--data", DATA), str(OTHER)),
        (("barrier", A, B, "--data", "bare.npz"), "bare.npz has no labels"),
        (("barrier", A, "absent.onnx", "--data", DATA), "absent.onnx"),
        (("barrier", A, B, "--data", DATA, "--points", "1"), "--points"),
        (("flatness", A, "--data", "bare.npz"), "bare.npz has no labels"),
        (("flatness", A, "--data", DATA, "--sigma", "-1"), "--sigma"),
        (("flatness", A, "--data", DATA, "--sigma", "nan"), "finite strength"),
        (("distance", A), "two or more"),
        (("distance", A, OTHER), str(OTHER)),
    ):
        found = shell(*args)
        assert found.status == 2
        assert cause in found.complaint
