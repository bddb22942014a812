"""The verb merge on the command line: what is written, what is printed, and every exit status."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxcanon as oc
from tests.examples import layers, network
from tests.shared import ROOT
from tests.test_cli import CPU, Shell, shell  # noqa: F401 (a fixture)

MLP = [ROOT / "models" / f"digits_mlp_seed{k}.onnx" for k in (0, 1)]
RESNET = [ROOT / "models" / f"digits_resnet_seed{k}.onnx" for k in (0, 1)]
DATA = ROOT / "models" / "digits_calib.npz"


@pytest.fixture(autouse=True)
def in_folder(shell: Shell) -> None:  # noqa: F811
    """Every test runs in a folder of its own."""


def test_an_average_is_written(shell: Shell) -> None:  # noqa: F811
    told = shell("merge", *MLP, "-o", "merged.onnx", *CPU)
    assert (told.status, told.err) == (0, "")
    assert told.out == "merged.onnx: average of 2 models, aligned by weights to the reference\n"
    wanted = oc.merge(MLP, device="cpu").model
    assert wanted is not None
    wanted.save("wanted.onnx")
    assert Path("merged.onnx").read_bytes() == Path("wanted.onnx").read_bytes()


def test_a_repaired_average_is_measured(shell: Shell) -> None:  # noqa: F811
    call = ("merge", *MLP, "-o", "m.onnx", "--weights", "1,3", "--repair", "rescale", "--data", DATA, *CPU)
    told = shell(*call)
    assert told.status == 0
    first, *models, own = told.out.splitlines()
    assert first.endswith("; 3 layers repaired by rescale")
    assert [line.split()[-1] for line in models] == [str(path) for path in MLP]
    assert own.startswith("  accuracy ")
    assert own.endswith("  average")
    document = shell(*call, "--json").document
    assert document["weights"] == [0.25, 0.75]
    assert document["layers"] == 3
    assert document["written"]
    (found,) = oc.evaluate("m.onnx", DATA, device="cpu")
    assert document["evaluations"][-1]["after"]["loss"] == pytest.approx(found.loss, rel=1e-6)
    assert document["evaluations"][-1]["before"]["loss"] > found.loss


def test_labels_in_a_file_of_their_own(shell: Shell, tmp_path: Path) -> None:  # noqa: F811
    with np.load(DATA) as file:
        np.save("x.npy", file["x"])
        np.save("y.npy", file["y"])
    told = shell("merge", *MLP, "-o", "m.onnx", "--data", "x.npy", "--labels", "y.npy", "--json", *CPU)
    assert told.status == 0
    assert told.document["evaluations"][0]["before"]["accuracy"] == 1.0
    assert shell("merge", *MLP, "-o", "n.onnx", "--labels", "y.npy").status == 2


def test_data_that_spoils_the_models_is_a_no(shell: Shell) -> None:  # noqa: F811
    np.savez("noise.npz", x=np.random.default_rng(0).normal(size=(64, 1, 8, 8)).astype(np.float32))
    call = (
        "merge",
        *RESNET,
        "-o",
        "m.onnx",
        "--align",
        "none",
        "--repair",
        "reset-bn",
        "--data",
        "noise.npz",
    )
    told = shell(*call, *CPU)
    assert told.status == 1
    assert shell.files == {"noise.npz"}
    assert told.err.startswith("onnxcanon: m.onnx: not written: reset-bn on this data spoils")
    assert len(told.err.splitlines()) == 1
    document = json.loads(shell(*call, *CPU, "--json").out)
    assert not document["written"]
    assert "outputs move by" in document["refusal"]


@pytest.mark.parametrize("mode", ["same", "link", "data"])
def test_nothing_is_written_over_an_input(shell: Shell, mode: str) -> None:  # noqa: F811
    network(layers(8, 16, 3)).save("a.onnx")
    network(layers(8, 16, 3, seed=1)).save("b.onnx")
    np.savez("d.npz", x=np.zeros((4, 8), np.float32))
    Path("link.onnx").hardlink_to("b.onnx")
    before = {path.name: path.read_bytes() for path in shell.folder.iterdir()}
    target = {"same": "b.onnx", "link": "link.onnx", "data": "d.npz"}[mode]
    told = shell("merge", "a.onnx", "b.onnx", "-o", target, "--data", "d.npz", *CPU)
    assert told.status == 2
    assert target in told.complaint
    assert {path.name: path.read_bytes() for path in shell.folder.iterdir()} == before


@pytest.mark.parametrize("out", ["w0.bin", "w1.bin", "m.onnx"])
@pytest.mark.parametrize("verb", ["merge", "align"])
def test_external_data_of_an_input_is_an_input(shell: Shell, verb: str, out: str) -> None:  # noqa: F811
    for seed, location in ((0, "w0.bin"), (1, "w1.bin"), (2, "m.onnx.data")):
        proto = network(layers(8, 16, 3, seed=seed)).to_proto()
        onnx.save(proto, f"{seed}.onnx", save_as_external_data=True, location=location, size_threshold=0)
    models = ["0.onnx", "2.onnx"] if out == "m.onnx" else ["0.onnx", "1.onnx"]
    before = {path.name: path.read_bytes() for path in shell.folder.iterdir()}
    for options in ([], ["--normalize"]):
        order = models[::-1] if options else models
        told = shell(verb, *order, "-o", out, *options, *CPU)
        if told.status == 0:  # the normal form is one file: it needs no m.onnx.data
            assert (out, bool(options)) == ("m.onnx", True)
            Path(out).unlink()
        else:
            assert told.status == 2
            assert "holds data of" in told.complaint
        assert {path.name: path.read_bytes() for path in shell.folder.iterdir()} == before


def test_misuse_is_one_line(shell: Shell) -> None:  # noqa: F811
    network(layers(8, 16, 3)).save("a.onnx")
    network(layers(8, 32, 3)).save("b.onnx")
    np.savez("d.npz", x=np.zeros((0, 8), np.float32))
    for args, cause in (
        (["a.onnx"], "Missing option '-o'"),
        (["-o", "m.onnx"], "Missing argument 'MODEL...'"),
        (["a.onnx", "b.onnx", "-o", "m.onnx"], "models of different widths cannot be aligned or averaged"),
        (["a.onnx", "none.onnx", "-o", "m.onnx"], "none.onnx"),
        (["a.onnx", "-o", "m.onnx", "--weights", "1,x"], "'1,x' is not W1,W2"),
        (["a.onnx", "-o", "m.onnx", "--weights", "1,2"], "2 weights for 1 model"),
        (["a.onnx", "-o", "m.onnx", "--align", "magic"], "no alignment 'magic'"),
        (["a.onnx", "-o", "m.onnx", "--repair", "rescale"], "give --data"),
        (["a.onnx", "-o", "none/m.onnx"], "there is no folder none"),
        (["a.onnx", "-o", "m.onnx", "--repair", "rescale", "--data", "d.npz"], "d.npz holds 0 examples"),
    ):
        told = shell("merge", *args)
        assert told.status == 2, args
        assert cause in told.complaint
        assert shell.files == {"a.onnx", "b.onnx", "d.npz"}
