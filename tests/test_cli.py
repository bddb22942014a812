"""The command line: exit statuses, what is printed where, and that nothing is written unless it may be."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxcanon
from onnxcanon import choices
from onnxcanon.cli.main import VERBS, main
from onnxcanon.explaining.outline import outline as tell
from tests import data_graphs, small_models

SHARED = Path(__file__).parents[2] / "shared"
EDGE = sorted(SHARED.glob("models/edge/*.onnx"))
NEEDS_EDGE = pytest.mark.skipif(not EDGE, reason=f"needs the collection of models in {SHARED}")
NEEDS_LINKS = pytest.mark.skipif(os.name != "posix", reason="needs links")
CPU = ("--device", "cpu")


@dataclass
class Result:
    status: int
    out: str
    err: str

    @property
    def document(self) -> dict:
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The only line on stderr, where there is nothing on stdout."""
        assert self.out == ""
        (line,) = self.err.splitlines()
        assert line.startswith("onnxcanon: ")
        return line


class Shell:
    """Calls the command line in this process, in a folder of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self.capsys = capsys
        self.folder = folder

    def __call__(self, *args: str | Path) -> Result:
        with pytest.raises(SystemExit) as exit_:
            main.main([str(arg) for arg in args], "onnxcanon")
        captured = self.capsys.readouterr()
        return Result(int(exit_.value.code or 0), captured.out, captured.err)

    @property
    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(capsys, tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(small_models.mlp(), path)
    return path


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "onnxcanon", *args]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(onnxcanon.__file__).parents[1])}


# Help


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example_that_parses(shell: Shell, verb: str) -> None:
    result = shell(verb, "--help")
    assert result.status == 0
    line = next(line for line in result.out.splitlines() if line.strip().startswith(f"onnxcanon {verb} "))
    _, name, *args = line.split()
    known = main.get_command(None, name)  # type: ignore[arg-type]
    assert known is not None
    known.make_context(name, args)


def test_help_names_every_verb(shell: Shell) -> None:
    result = shell("--help")
    assert result.status == 0
    assert all(verb in result.out for verb in VERBS)
    assert shell("--version").out == f"onnxcanon {onnxcanon.__version__}\n"


def test_help_and_import_load_nothing_heavy() -> None:
    for code in (
        "import onnxcanon",
        "import sys; from onnxcanon.cli.main import main; main(['--help'], standalone_mode=False)",
    ):
        code += "\nimport sys; print(sorted({'numpy', 'onnx', 'onnx_ir', 'scipy'} & set(sys.modules)))"
        ran = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
        )
        assert ran.stdout.endswith("[]\n")


def test_names_of_the_package() -> None:
    assert onnxcanon.__all__ == sorted(onnxcanon.__all__)
    assert set(onnxcanon.__all__) <= set(dir(onnxcanon))
    for name in onnxcanon.__all__:
        assert getattr(onnxcanon, name) is not None
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = onnxcanon.nothing_such


def test_no_verb_is_hidden_by_a_module_of_its_name() -> None:
    """Importing `onnxcanon.x` sets the attribute x of the package, whatever stood there."""
    assert [name for name in onnxcanon.__all__ if find_spec(f"onnxcanon.{name}") is not None] == []


# Misuse


@pytest.mark.parametrize(
    ("args", "cause"),
    [
        (["frobnicate"], "there is no verb 'frobnicate'"),
        (["analyze"], "MODEL"),
        (["analyze", "none.onnx"], "none.onnx: No such file"),
        (["analyze", "model.onnx", "--frob"], "--frob"),
        (["analyze", "model.onnx", "--shape", "n"], "NAME=N"),
        (["analyze", "model.onnx", "--shape", "n=0"], "NAME=N"),
        (["analyze", "model.onnx", "--shape", "batch=2"], "no dynamic dimension is called 'batch'; it has n"),
        (["verify", "model.onnx"], "B"),
        (["verify", "model.onnx", "none.onnx"], "none.onnx: No such file"),
        (["verify", "model.onnx", "model.onnx", "--device", "gpu"], "none of auto, cpu, cuda, cuda:N"),
        (["verify", "model.onnx", "model.onnx", "--device", "cuda:99"], "cuda:99"),
        (["verify", "model.onnx", "model.onnx", "--data", "none.npz"], "none.npz: No such file"),
        (["verify", "model.onnx", "model.onnx", "--data", "model.onnx"], "model.onnx: not an .npz file"),
        (["verify", "model.onnx", "model.onnx", "--rtol", "-1"], "--rtol"),
        (["canonicalize", "model.onnx"], "-o OUT"),
        (["canonicalize", "model.onnx", "-o", "out.onnx", "--in-place"], "not both"),
        (["canonicalize", "model.onnx", "-o", "model.onnx"], "model.onnx is the input"),
        (["canonicalize", "model.onnx", "-o", "./model.onnx"], "model.onnx is the input"),
        (["canonicalize", "model.onnx", "-o", "out.onnx", "--transform", "out.onnx"], "is the output"),
        (["canonicalize", "model.onnx", "-o", "out.onnx", "--transform", "model.onnx"], "is the input"),
        (["canonicalize", "model.onnx", "-o", "none/out.onnx"], "there is no folder none"),
        (["canonicalize", "model.onnx", "-o", "."], "it is a folder"),
        (["canonicalize", "model.onnx", "-o", "out.onnx", "--order", "best"], "'best'"),
        (["canonicalize", "model.onnx", "-o", "out.onnx", "--base", "1"], "--base"),
        (["scramble", "model.onnx", "-o", "out.onnx", "--only", "rotate"], "'rotate' is none of"),
        (["scramble", "model.onnx", "-o", "model.onnx"], "model.onnx is the input"),
        (["apply", "model.onnx", "none.npz", "-o", "out.onnx"], "none.npz: no such file"),
        (["apply", "model.onnx", "model.onnx", "-o", "out.onnx"], "not an onnxcanon transform"),
        (["apply", "model.onnx", "t.npz", "-o", "t.npz"], "t.npz is the transform"),
    ],
)  # fmt: skip
def test_misuse_is_one_line_and_2(shell: Shell, model: Path, args: Sequence[str], cause: str) -> None:
    before = model.read_bytes()
    result = shell(*args)
    assert result.status == 2
    assert cause in result.complaint
    assert shell.files == {"model.onnx"}
    assert model.read_bytes() == before


@NEEDS_LINKS
@pytest.mark.parametrize("verb", ["canonicalize", "scramble"])
def test_the_input_under_another_name_is_the_input(shell: Shell, model: Path, verb: str) -> None:
    before = model.read_bytes()
    (shell.folder / "soft.onnx").symlink_to("model.onnx")
    os.link(model, shell.folder / "hard.onnx")
    for name in ("soft.onnx", "hard.onnx"):
        result = shell(verb, model, "-o", name)
        assert result.status == 2
        assert f"{name} is the input" in result.complaint
        assert model.read_bytes() == before


# analyze


def test_analyze_prints_a_table(shell: Shell, model: Path) -> None:
    result = shell("analyze", model)
    assert (result.status, result.err) == (0, "")
    assert "d0" in result.out
    assert "1 hidden dimension" in result.out
    assert "because" not in result.out
    why = shell("analyze", model, "--why")
    assert "graph output 'y'" in why.out


def test_analyze_outline(shell: Shell, model: Path) -> None:
    result = shell("analyze", model, "--outline")
    assert (result.status, result.err) == (0, "")
    assert result.out == tell(onnxcanon.analyze(model))
    assert "8 permute scale\n    w1[1], b1[0], w2[0]\n" in result.out


def test_data_and_the_callers_constants_stay_unless_asked(shell: Shell) -> None:
    onnx.save(data_graphs.masked(), shell.folder / "masked.onnx")
    onnx.save(small_models.overridable(), shell.folder / "overridable.onnx")
    for name, option in (("masked", "--permute-constants"), ("overridable", "--allow-overridable")):
        path = f"{name}.onnx"
        stays, moves = shell("analyze", path), shell("analyze", path, option)
        assert option in stays.out
        assert option not in moves.out
    assert "an equal copy" in shell("scramble", "overridable.onnx", "-o", "same.onnx", *CPU).out
    allowed = ("--allow-overridable", *CPU)
    assert shell("scramble", "overridable.onnx", "-o", "twin.onnx", *allowed).status == 0
    done = shell("canonicalize", "twin.onnx", "-o", "c.onnx", "--transform", "t.npz", *allowed)
    assert done.status == 0
    refused = shell("apply", "twin.onnx", "t.npz", "-o", "applied.onnx", *CPU)
    assert refused.status == 2
    assert "--allow-overridable" in refused.complaint
    assert shell("apply", "twin.onnx", "t.npz", "-o", "applied.onnx", *allowed).status == 0


def test_analyze_json(shell: Shell, model: Path) -> None:
    result = shell("analyze", model, "--json")
    assert (result.status, result.err) == (0, "")
    assert result.document["model"] == str(model)
    assert result.document["dimensions"][0]["size"] == 8
    assert result.document == onnxcanon.analyze(model).to_json()


def test_sizes_of_dynamic_dimensions(shell: Shell, model: Path) -> None:
    assert shell("analyze", model, "--shape", "n=3").status == 0
    assert shell("canonicalize", model, "-o", "c.onnx", "--shape", "n=3", *CPU).status == 0
    assert shell("verify", model, "c.onnx", "--shape", "n=3", *CPU).status == 0
    width = onnxcanon.load(model).ir.graph.inputs[0].shape[1]
    assert shell("verify", model, "c.onnx", "--shape", f"x=3,{width}", *CPU).status == 0
    proto = small_models.mlp()
    proto.graph.input[0].type.tensor_type.shape.dim[0].ClearField("dim_param")
    onnx.save(proto, "anonymous.onnx")
    assert shell("canonicalize", "anonymous.onnx", "-o", "d.onnx", "--shape", "x[0]=3", *CPU).status == 0


def test_analyze_of_nothing_is_an_answer_too(shell: Shell) -> None:
    onnx.save(small_models.opaque(), shell.folder / "opaque.onnx")
    result = shell("analyze", "opaque.onnx")
    assert (result.status, result.err) == (0, "")
    assert "nothing may change: oracle" in result.out


# verify


def test_verify_answers_by_its_status(shell: Shell, model: Path) -> None:
    onnx.save(small_models.mlp(seed=1), shell.folder / "other.onnx")
    same = shell("verify", model, model, *CPU)
    assert same.status == 0
    assert same.out.startswith("same")
    differ = shell("verify", model, "other.onnx", *CPU)
    assert differ.status == 1
    assert differ.out.startswith("different")
    quiet = shell("verify", model, "other.onnx", *CPU, "-q")
    assert (quiet.status, quiet.out, quiet.err) == (1, "", "")
    document = shell("verify", model, "other.onnx", *CPU, "--json").document
    assert document["same"] is False
    assert (document["a"], document["b"]) == (str(model), "other.onnx")
    assert document["outputs"]["y"]["max_relative_difference"] > 0
    assert shell("verify", model, "other.onnx", *CPU, "--rtol", "1e9").status == 0


def test_verify_on_data(shell: Shell, model: Path) -> None:
    np.savez(shell.folder / "d.npz", x=np.ones((5, 4), np.float32), other=np.zeros(3))
    assert shell("verify", model, model, *CPU, "--data", "d.npz", "--json").document["kinds"] == ["data"]
    np.savez(shell.folder / "wrong.npz", z=np.ones(3))
    result = shell("verify", model, model, *CPU, "--data", "wrong.npz")
    assert result.status == 2
    assert "'x'" in result.complaint
    np.savez(shell.folder / "object.npz", x=np.array([{}], object))
    result = shell("verify", model, model, *CPU, "--data", "object.npz")
    assert result.status == 2
    assert result.complaint.startswith("onnxcanon: object.npz: ")


# canonicalize, scramble, apply


def test_scrambled_twins_have_one_canonical_form(shell: Shell, model: Path) -> None:
    assert shell("canonicalize", model, "-o", "c.onnx", *CPU).status == 0
    for seed in range(3):
        result = shell("scramble", model, "-o", "s.onnx", "--seed", str(seed), *CPU)
        assert result.status == 0
        assert "3 parameters permuted" in result.out
        assert "verified on cpu" in result.out
        assert shell("canonicalize", "s.onnx", "-o", "d.onnx", *CPU).status == 0
        assert (shell.folder / "c.onnx").read_bytes() == (shell.folder / "d.onnx").read_bytes()
        assert (shell.folder / "s.onnx").read_bytes() != model.read_bytes()


def test_scramble_does_only_what_it_may(shell: Shell, model: Path) -> None:
    document = shell("scramble", model, "-o", "s.onnx", "--only", "permute", *CPU, "--json").document
    assert (document["permuted"], document["rescaled"], document["only"]) == (3, 0, ["permute"])
    document = shell("scramble", model, "-o", "s.onnx", "--only", "scale, sign", *CPU, "--json").document
    assert (document["permuted"], document["rescaled"]) == (0, 3)
    result = shell("scramble", model, "-o", "s.onnx", "--only", "sign", *CPU)
    assert result.status == 0
    assert "an equal copy, for nothing may change" in result.out
    assert (shell.folder / "s.onnx").read_bytes() == model.read_bytes()


def test_a_transform_leads_there_and_back(shell: Shell, model: Path) -> None:
    assert shell("canonicalize", model, "-o", "c.onnx", "--transform", "t.npz", *CPU).status == 0
    assert shell("apply", model, "t.npz", "-o", "d.onnx", *CPU).status == 0
    assert (shell.folder / "c.onnx").read_bytes() == (shell.folder / "d.onnx").read_bytes()
    result = shell("apply", "c.onnx", "t.npz", "--inverse", "-o", "b.onnx", *CPU)
    assert result.status == 0
    assert "undone" in result.out
    assert (shell.folder / "b.onnx").read_bytes() == model.read_bytes()


def test_a_transform_of_another_model_is_refused(shell: Shell, model: Path) -> None:
    onnx.save(small_models.mlp(hidden=5), shell.folder / "small.onnx")
    onnx.save(small_models.mlp("Sigmoid"), shell.folder / "sigmoid.onnx")
    assert shell("canonicalize", model, "-o", "c.onnx", "--transform", "t.npz", *CPU).status == 0
    result = shell("apply", "small.onnx", "t.npz", "-o", "bad.onnx", *CPU)
    assert result.status == 2
    assert "small.onnx: parameter" in result.complaint
    result = shell("apply", "sigmoid.onnx", "t.npz", "-o", "bad.onnx", *CPU)  # no scale is free there
    assert result.status == 1
    assert "bad.onnx: not written" in result.complaint
    assert not (shell.folder / "bad.onnx").exists()
    assert shell("apply", "sigmoid.onnx", "t.npz", "-o", "bad.onnx", "--no-verify").status == 0


def test_canonicalize_json(shell: Shell, model: Path) -> None:
    result = shell("canonicalize", model, "-o", "c.onnx", *CPU, "--json", "--order", "lexicographic")
    assert (result.status, result.err) == (0, "")
    document = result.document
    assert document["model"] == str(model)
    assert (document["output"], document["written"], document["transform"]) == ("c.onnx", True, None)
    assert (document["order"], document["scale"], document["trivial"]) == ("lexicographic", "pow2", False)
    assert (document["permuted"], document["rescaled"]) == (3, 3)
    assert document["verification"]["same"] is True
    document = shell("canonicalize", model, "-o", "c.onnx", "--no-verify", "--json").document
    assert document["verification"] is None


@pytest.mark.parametrize("order", choices.ORDERS)
@pytest.mark.parametrize("scale", choices.SCALES)
def test_every_choice_keeps_the_function(shell: Shell, model: Path, order: str, scale: str) -> None:
    assert shell("canonicalize", model, "-o", "c.onnx", "--order", order, "--scale", scale, *CPU).status == 0
    assert shell("verify", model, "c.onnx", *CPU).status == 0


def test_quiet_prints_nothing(shell: Shell, model: Path) -> None:
    for verb in ("canonicalize", "scramble"):
        result = shell(verb, model, "-o", "q.onnx", "-q", *CPU)
        assert (result.status, result.out, result.err) == (0, "", "")


def test_not_verified_is_said(shell: Shell, model: Path) -> None:
    assert "not verified" in shell("canonicalize", model, "-o", "c.onnx", "--no-verify").out


def test_in_place(shell: Shell, model: Path) -> None:
    assert shell("canonicalize", model, "-o", "c.onnx", *CPU).status == 0
    assert shell("canonicalize", model, "--in-place", *CPU).status == 0
    assert model.read_bytes() == (shell.folder / "c.onnx").read_bytes()
    again = shell("canonicalize", model, "--in-place", *CPU)
    assert "in canonical form already" in again.out
    assert model.read_bytes() == (shell.folder / "c.onnx").read_bytes()
    assert shell.files == {"model.onnx", "c.onnx"}


def test_nothing_to_change_is_copied_and_said(shell: Shell) -> None:
    path = shell.folder / "opaque.onnx"
    onnx.save(small_models.opaque(), path)
    result = shell("canonicalize", path, "-o", "c.onnx", *CPU)  # onnxruntime could not run it, and need not
    assert result.status == 0
    (line,) = result.out.splitlines()
    assert "nothing may change" in line
    assert "oracle" in line
    assert (shell.folder / "c.onnx").read_bytes() == path.read_bytes()
    document = shell("canonicalize", path, "-o", "c.onnx", *CPU, "--json").document
    assert (document["trivial"], document["written"], document["verification"]) == (True, True, None)


def test_external_data_goes_along(shell: Shell) -> None:
    proto = small_models.mlp(hidden=64)
    onnx.save(proto, "e.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert shell("canonicalize", "e.onnx", "-o", "c.onnx", *CPU).status == 0
    assert shell.files == {"e.onnx", "weights.bin", "c.onnx", "c.onnx.data"}
    assert shell("verify", "e.onnx", "c.onnx", *CPU).status == 0
    result = shell("canonicalize", "e.onnx", "-o", "weights.bin", *CPU)
    assert result.status == 2
    assert "weights.bin" in result.complaint
    assert shell("verify", "e.onnx", "c.onnx", *CPU).status == 0


def test_side_files_do_not_replace_external_data(shell: Shell) -> None:
    proto = small_models.mlp(hidden=64)
    onnx.save(proto, "e.onnx", save_as_external_data=True, location="weights.svg", size_threshold=0)
    before = (shell.folder / "weights.svg").read_bytes()
    data = {"x": np.zeros((2, 4), np.float32), "y": np.zeros(2, np.int64)}
    np.savez(shell.folder / "d.npz", **data)
    for call in (
        ["canonicalize", "e.onnx", "-o", "c.onnx", "--transform", "weights.svg"],
        ["align", "e.onnx", "e.onnx", "-o", "c.onnx", "--transform", "weights.svg"],
        ["barrier", "e.onnx", "e.onnx", "--data", "d.npz", "--plot", "weights.svg"],
    ):
        result = shell(*call)
        assert result.status == 2
        assert "weights.svg holds data of" in result.complaint
        assert (shell.folder / "weights.svg").read_bytes() == before
        assert not (shell.folder / "c.onnx").exists()


# Nothing unverified, nothing half


def test_a_result_that_differs_is_not_written(
    shell: Shell, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxcanon.transform import Transform

    def broken(self: Transform, model: onnxcanon.Model) -> onnxcanon.Model:
        return model.with_tensors({"w1": model.tensor("w1") + 1})

    monkeypatch.setattr(Transform, "apply", broken)
    for verb in ("canonicalize", "scramble"):
        result = shell(verb, model, "-o", "bad.onnx", *CPU)
        assert result.status == 1
        assert "bad.onnx: not written" in result.complaint
        result = shell(verb, model, "-o", "bad.onnx", *CPU, "--json")
        assert result.status == 1
        assert result.document["written"] is False
        assert result.document["verification"]["same"] is False
    assert shell.files == {"model.onnx"}


def test_what_onnxruntime_cannot_run_is_not_written_unless_told(shell: Shell) -> None:
    proto = small_models.mlp()
    node = onnx.helper.make_node("Mystery", ["x"], ["z"], domain="some.where")
    proto.graph.node.append(node)
    proto.opset_import.append(onnx.helper.make_opsetid("some.where", 1))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, None))
    onnx.save(proto, "strange.onnx")
    for verb in ("canonicalize", "scramble"):
        result = shell(verb, "strange.onnx", "-o", "c.onnx", *CPU)
        assert result.status == 2
        assert result.complaint.startswith("onnxcanon: strange.onnx: ")
        assert "--no-verify" in result.complaint
        assert shell.files == {"strange.onnx"}
    assert shell("canonicalize", "strange.onnx", "-o", "c.onnx", "--no-verify").status == 0


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_write_that_stops_leaves_nothing(
    shell: Shell, model: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException] | BaseException
) -> None:
    def fail(_: int) -> None:
        raise stop

    before = model.read_bytes()
    monkeypatch.setattr(os, "fsync", fail)
    for args in (["-o", "c.onnx"], ["--in-place"]):
        result = shell("canonicalize", model, *args, "--no-verify")
        assert result.status == (130 if stop is KeyboardInterrupt else 2)
        assert result.out == ""
        assert shell.files == {"model.onnx"}
        assert model.read_bytes() == before


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c(tmp_path: Path) -> None:
    """A real interrupt while the verb waits for its data."""
    onnx.save(small_models.mlp(), tmp_path / "model.onnx")
    code = (
        "import sys, time, onnxcanon as api\n"
        "api.canonicalize = lambda *a, **k: (print('here', flush=True), time.sleep(60))\n"
        "from onnxcanon.cli.main import main; main()"
    )
    args = [sys.executable, "-c", code, "canonicalize", "model.onnx", "-o", "c.onnx"]
    process = subprocess.Popen(
        args,
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # jobs may ignore it
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_an_error_of_ours_is_one_line(shell: Shell, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out\nof luck")

    monkeypatch.setattr("onnxcanon.analyze", fail)
    monkeypatch.delenv("ONNXCANON_TRACEBACK", raising=False)
    result = shell("analyze", model)
    assert result.status == 2
    assert result.complaint.startswith(f"onnxcanon: {model}: internal error: RuntimeError: out of luck")
    assert "please report" in result.complaint
    monkeypatch.setenv("ONNXCANON_TRACEBACK", "1")
    assert "Traceback" in shell("analyze", model).err


def test_progress_is_for_terminals(shell: Shell, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shell("canonicalize", model, "-o", "c.onnx", *CPU).err == ""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    shell("canonicalize", model, "-o", "c.onnx", *CPU)
    assert "…" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")  # and nothing of it is left
    length = len(terminal.getvalue())
    shell("canonicalize", model, "-o", "c.onnx", *CPU, "--json")
    assert len(terminal.getvalue()) == length


def test_a_closed_pipe_is_no_error(model: Path) -> None:
    process = subprocess.Popen(
        command("analyze", str(model), "--json"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.wait(timeout=30)


def test_names_a_terminal_cannot_show(shell: Shell) -> None:
    proto = small_models.mlp()
    proto.graph.output[0].name = proto.graph.node[-1].output[0] = "y→"
    onnx.save(proto, "m.onnx")
    ran = subprocess.run(
        command("analyze", "m.onnx", "--why"),
        cwd=shell.folder,
        env={**environment(), "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        check=True,
    )
    assert rb"graph output 'y\u2192'" in ran.stdout


# The collection of strange files


@NEEDS_EDGE
@pytest.mark.parametrize("path", EDGE, ids=lambda path: path.stem)
@pytest.mark.parametrize("verb", ["analyze", "canonicalize"])
def test_strange_files_are_answered_or_refused_in_a_line(shell: Shell, path: Path, verb: str) -> None:
    where = ["-o", shell.folder / "c.onnx", *CPU] if verb == "canonicalize" else []
    start = time.perf_counter()
    result = shell(verb, path, *where)
    assert time.perf_counter() - start < 60
    if result.status == 0:
        assert result.out
        assert "Traceback" not in result.err
        assert (shell.folder / "c.onnx").exists() == (verb == "canonicalize")
    else:
        assert result.status == 2
        assert path.name in result.complaint
        assert not shell.files


# Python


def test_python_takes_paths_protos_and_models(model: Path) -> None:
    sources = [str(model), model, onnx.load(model), onnxcanon.load(model)]
    for source in sources:
        assert onnxcanon.analyze(source).scale_freedoms == 8
        found = onnxcanon.canonicalize(source, device="cpu")
        assert found.verification is not None
        assert found.verification.same
        assert found.changed
        twin = onnxcanon.scramble(source, seed=3)
        assert onnxcanon.verify(source, twin.model, device="cpu").same
        back = onnxcanon.apply(twin.model, twin.transform, inverse=True)
        assert np.array_equal(back.tensor("w1"), onnxcanon.load(model).tensor("w1"))
    assert onnx.load(model) == sources[2]


def test_python_results_print_and_are_json(model: Path) -> None:
    results = [
        onnxcanon.analyze(model),
        onnxcanon.canonicalize(model, device="cpu"),
        onnxcanon.scramble(model),
        onnxcanon.verify(model, model, device="cpu"),
    ]
    for result in results:
        json.dumps(result.to_json())
        assert str(result)


@pytest.mark.parametrize(
    ("verb", "options", "told"),
    [
        ("scramble", {"only": ["rotate"]}, "there is no change 'rotate'; choose from permute, scale, sign"),
        ("canonicalize", {"order": "size"}, "there is no order 'size'; choose from norm"),
        ("canonicalize", {"scale": "one"}, "there is no scale 'one'; choose from pow2"),
        ("canonicalize", {"order": "nodesort", "base": 1.0}, "no base 1; choose one above 1"),
        ("fingerprint", {"level": "other"}, "there is no level 'other'; choose from canonical"),
        ("align", {"method": "other"}, "there is no method 'other'; choose from"),
    ],
)
def test_an_unknown_choice_is_an_error_that_names_the_choices(
    model: Path, verb: str, options: dict[str, Any], told: str
) -> None:
    models = [model, model] if verb == "align" else [model]
    with pytest.raises(onnxcanon.OnnxcanonError, match=told):
        getattr(onnxcanon, verb)(*models, **options)
