from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxcanon.errors import RuntimeUnavailableError
from onnxcanon.runtime import devices, open_session, sessions
from tests.devices import has_cuda, needs_cuda
from tests.running import LEVELS, outputs_equal, run
from tests.runtime_graphs import mlp, model, value

X = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)


def test_a_model_computes_what_numpy_computes():
    base = mlp()
    hidden = X
    for layer in range(3):
        hidden = hidden @ base.tensor(f"w{layer}") + base.tensor(f"b{layer}")
        hidden = np.maximum(hidden, 0) if layer < 2 else hidden
    assert outputs_equal(run(base, {"x": X}), {"y": hidden}, 1e-6)


def test_intermediate_values_come_on_request_under_their_names():
    values = run(mlp(), {"x": X}, extra_outputs=["h0", "s1"])
    assert list(values) == ["y", "h0", "s1"]
    assert values["h0"].shape == (3, 32)
    assert values["h0"].min() == 0


def test_replaced_tensors_are_what_runs():
    base = mlp()
    shifted = base.with_tensors({"b2": lambda: base.tensor("b2") + 1})
    np.testing.assert_allclose(run(shifted, {"x": X})["y"], run(base, {"x": X})["y"] + 1, rtol=1e-5)


def test_a_model_too_large_for_one_message_goes_through_a_file(monkeypatch, tmp_path):
    monkeypatch.setattr(sessions, "INLINE_LIMIT", 0)
    monkeypatch.setattr(sessions.tempfile, "tempdir", str(tmp_path))
    expected = run(mlp(), {"x": X}, extra_outputs=["h0"])
    with open_session(mlp(), extra_outputs=["h0"]) as session:
        assert list(tmp_path.iterdir())
        assert outputs_equal(session.run({"x": X}), expected, 0.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("level", LEVELS)
def test_every_optimization_level_computes_the_same_function(level, monkeypatch):
    monkeypatch.setattr(sessions, "OPTIMIZED", level)
    assert outputs_equal(run(mlp(), {"x": X}, optimize=True), run(mlp(), {"x": X}), 1e-5)


def test_a_missing_input_is_named():
    with pytest.raises(RuntimeUnavailableError, match="no value for input 'x'"):
        run(mlp(), {})


def test_refusals_of_onnxruntime_are_one_line():
    unknown = model([helper.make_node("Nonsense", ["x"], ["y"])], [value("x", [1])], [value("y", [1])])
    wrong = np.zeros((3, 9), np.float32)
    for base, inputs in ((unknown, {"x": X}), (mlp(), {"x": wrong})):
        with pytest.raises(RuntimeUnavailableError, match="onnxruntime cannot") as caught:
            run(base, inputs)
        text = str(caught.value)
        assert "\n" not in text
        assert "ONNXRuntimeError" not in text
        assert "onnxruntime_src" not in text


def test_a_closed_session_says_so():
    session = open_session(mlp())
    session.close()
    with pytest.raises(RuntimeUnavailableError, match="closed"):
        session.run({"x": X})


def test_types_numpy_lacks_pass_in_and_out():
    kinds = {"type": TensorProto.BFLOAT16}
    echo = model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [value("x", [2], kinds["type"])],
        [value("y", [2], kinds["type"])],
    )
    given = np.array([1.5, -3], ml_dtypes.bfloat16)
    (result,) = run(echo, {"x": given}).values()
    assert result.dtype == given.dtype
    assert result.tolist() == [1.5, -3]


def test_a_sequence_comes_back_item_by_item():
    split = model(
        [helper.make_node("SplitToSequence", ["x"], ["y"], axis=1)],
        [value("x", [1, 2])],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)],
    )
    values = run(split, {"x": np.array([[1, 2]], np.float32)})
    assert [array.ravel().tolist() for array in values.values()] == [[2], [1], [2]]
    assert list(values) == ["y.length", "y[0]", "y[1]"]


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:", "CPU"])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(RuntimeUnavailableError, match="use auto, cpu, cuda or cuda:N"):
        open_session(mlp(), device=device)


@pytest.mark.skipif(has_cuda(), reason="this machine has CUDA")
def test_cuda_without_cuda_is_refused_with_the_reason():
    with pytest.raises(RuntimeUnavailableError, match=r"device cuda:0 is not available: \S+"):
        open_session(mlp(), device="cuda:0")
    with open_session(mlp(), device="auto") as session:
        assert session.device == "cpu"


@needs_cuda
def test_cuda_computes_what_the_cpu_computes():
    with open_session(mlp(), device="cuda") as session:
        assert session.device == "cuda:0"
        assert outputs_equal(session.run({"x": X}), run(mlp(), {"x": X}, device="cpu"), 1e-5)


def test_the_automatic_device_is_silent():
    code = (
        "from tests.runtime_graphs import mlp; from onnxcanon.runtime import open_session;"
        "open_session(mlp()).close()"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_onnxruntime_is_not_imported_before_it_is_needed():
    code = "import sys, onnxcanon.runtime; sys.exit('onnxruntime' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True)


def test_what_native_code_writes_is_held_back_and_kept(capfd):
    with devices.captured_stderr() as log:
        subprocess.run([sys.executable, "-c", "import os; os.write(2, b'noise')"], check=True)
    assert log() == "noise"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (
            "\x1b[1;31m2026 [E:onnxruntime:Default, bridge.cc:1 operator()] /onnxruntime_src/a/b.cc:2 Get()"
            " Failed to load library x.so with error: libcublas.so.13: cannot open\n\x1b[m\nmore\n",
            "libcublas.so.13: cannot open",
        ),
        ("CUDA failure 100: no CUDA-capable device", "CUDA failure 100: no CUDA-capable device"),
        ("", ""),
    ],
)
def test_the_reason_is_read_from_the_log(log, reason):
    assert devices._logged_reason(log) == reason
