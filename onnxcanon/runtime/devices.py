"""Execution providers: which device runs a model, and why it cannot where it cannot.

`auto` takes CUDA only where a session really starts on it, and is silent otherwise; `cuda` and `cuda:N` never
fall back. onnxruntime itself does: it drops a provider that fails to load, says so in its log, and runs on
the CPU. So every CUDA request is checked on a session, and the log is read for the reason.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from onnxcanon.errors import DeviceUnavailableError, RuntimeUnavailableError

CUDA_PROVIDER = "CUDAExecutionProvider"
CPU_PROVIDER = "CPUExecutionProvider"

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_STATUS = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
# Where in onnxruntime's source something failed, and in which C++ function: of no use to its users.
_SOURCE = re.compile(r"\S*/onnxruntime_src/\S+ |(?:[\w:&*]+ )?onnxruntime::[\w:~]+\([^)]*\) (?:const )?")

Provider = str | tuple[str, dict[str, Any]]


@functools.cache
def onnxruntime() -> Any:
    """The onnxruntime module, imported at its first use: that takes 0.1 s, and few verbs need it."""
    try:
        with captured_stderr():  # device discovery warns at import where there is no GPU to discover
            return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise RuntimeUnavailableError(f"onnxruntime cannot be imported: {one_line(error)}") from error


def providers_for(device: str) -> tuple[str, list[Provider]]:
    """The resolved device (`cpu` or `cuda:N`) and onnxruntime's provider list for it.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        RuntimeUnavailableError: the name is none of these, or CUDA was asked for and does not start.
    """
    if device == "cpu":
        return "cpu", [CPU_PROVIDER]
    if device == "auto":
        if _cuda_driver_devices() == 0 or _cuda_refusal(0) is not None:
            return "cpu", [CPU_PROVIDER]
        return "cuda:0", _cuda_providers(0)
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    if match is None:
        raise DeviceUnavailableError(f"unknown device {device!r}: use auto, cpu, cuda or cuda:N")
    index = int(match[1] or 0)
    refusal = _cuda_refusal(index)
    if refusal is not None:
        raise DeviceUnavailableError(f"device {device} is not available: {refusal}")
    return f"cuda:{index}", _cuda_providers(index)


def _cuda_providers(index: int) -> list[Provider]:
    # TensorFloat-32 keeps ten bits of a product's operands: it drifts by 1e-3, as a real change may. A timed
    # search for the fastest convolution may choose different algorithms, and rounding, for two sessions.
    options = {"device_id": index, "use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"}
    return [(CUDA_PROVIDER, options), CPU_PROVIDER]


@functools.cache
def _cuda_refusal(index: int) -> str | None:
    """Why onnxruntime cannot compute on CUDA device `index`, asked once per process; None where it can."""
    ort = onnxruntime()
    available = ort.get_available_providers()
    if CUDA_PROVIDER not in available:
        return f"this onnxruntime ({ort.__version__}) is built for {', '.join(available)}"
    with captured_stderr() as log, contextlib.redirect_stdout(io.StringIO()):
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # prints its complaints
        ort.set_default_logger_severity(3)  # each session on CUDA warns that its provider is no plugin
        options = ort.SessionOptions()
        options.log_severity_level = 3
        try:
            session = ort.InferenceSession(
                _probe_model(), options, providers=_cuda_providers(index), enable_fallback=0
            )
        except Exception as error:
            return one_line(error)
        active = session.get_providers()
    if CUDA_PROVIDER in active:
        return None
    return _logged_reason(log()) or f"onnxruntime started with {', '.join(active)} only"


def _probe_model() -> bytes:
    """The smallest model a provider can be started on: y = -x."""
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "probe", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    return bytes(model.SerializeToString())


@functools.cache
def _cuda_driver_devices() -> int:
    """How many GPUs the CUDA driver sees: a silent question, where starting a provider would log."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return 0
    except (OSError, AttributeError):
        return 0
    return count.value


def _logged_reason(log: str) -> str:
    """The cause in onnxruntime's log: its first error, from where it names the library or the failure."""
    lines = [_ANSI.sub("", line).strip() for line in log.splitlines()]
    errors = [line for line in lines if "[E:onnxruntime" in line] or [line for line in lines if line]
    if not errors:
        return ""
    reason = errors[0].rpartition("with error: ")[2]
    return one_line(reason)


def one_line(error: BaseException | str, limit: int = 300) -> str:
    """An onnxruntime message as one line: without its status code, source paths and line breaks."""
    text = _SOURCE.sub("", _STATUS.sub("", str(error)))
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


@contextlib.contextmanager
def captured_stderr() -> Iterator[Callable[[], str]]:
    """Holds back what native code writes to standard error; the yielded function returns it after the block.

    onnxruntime logs from C++ before any logger can be set, so nothing less than the file descriptor will do.
    """
    text = ""
    with tempfile.TemporaryFile() as sink:
        try:
            saved = os.dup(2)
        except OSError:  # no standard error at all (a service, a windowed program): nothing to hold back
            yield lambda: ""
            return
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(sink.fileno(), 2)
        try:
            yield lambda: text
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            sink.seek(0)
            text = sink.read().decode("utf-8", "replace")
