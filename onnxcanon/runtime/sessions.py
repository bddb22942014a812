"""Sessions: a model opened in onnxruntime on a chosen device, quiet, bounded and with errors of one line.

By default the graph is run as it is written: fusions change the rounding, and for quantized models by
percents, so two models are only comparable at one optimization level, and "none" is the level that does not
depend on names.
"""

from __future__ import annotations

import ctypes
import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from onnxcanon.arrays import Arrays
from onnxcanon.errors import RuntimeUnavailableError
from onnxcanon.runtime.devices import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    one_line,
    onnxruntime,
    providers_for,
)

if TYPE_CHECKING:
    import onnx

    from onnxcanon.model import Model

Level = Literal["none", "basic", "extended", "all"]

# protobuf ends at 2 GiB, and the serialized copy, the parsed copy and onnxruntime's own copy are alive at
# once.
INLINE_LIMIT = 1_500_000_000


_LEVELS: dict[Level, str] = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
# Types that onnxruntime computes with but cannot exchange as NumPy arrays: sent and read as raw bits.
_RAW_TYPES = {
    "tensor(bfloat16)": "bfloat16",
    "tensor(float8e4m3fn)": "float8_e4m3fn",
    "tensor(float8e4m3fnuz)": "float8_e4m3fnuz",
    "tensor(float8e5m2)": "float8_e5m2",
    "tensor(float8e5m2fnuz)": "float8_e5m2fnuz",
}


@dataclass(frozen=True, slots=True)
class SessionValue:
    """A graph input or output as onnxruntime sees it; a dimension is a size, a name, or None."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


class Closable(ABC):
    """What is closed when the context that it is used as ends."""

    @abstractmethod
    def close(self) -> None:
        """Releases what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Session(Closable):
    """An open onnxruntime session. Use it as a context manager, or `close` it: it may hold a temporary file.

    Attributes:
        device: where it runs: `cpu` or `cuda:N`.
        inputs: the inputs the caller must give (initializers that may be overridden are not among them).
        outputs: the graph outputs, then the extra ones.
    """

    def __init__(
        self,
        label: str,
        device: str,
        session: Any,
        folder: tempfile.TemporaryDirectory[str] | None,
        arrays: Sequence[np.ndarray] = (),
    ):
        self.label = label
        self.device = device
        self.inputs = tuple(_port(item) for item in session.get_inputs())
        self.outputs = tuple(_port(item) for item in session.get_outputs())
        self._session = session
        self._folder = folder
        self._arrays = arrays  # onnxruntime may read them as long as it runs
        self._raw = any(port.type in _RAW_TYPES for port in (*self.inputs, *self.outputs))

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Iterable[str] | None = None) -> Arrays:
        """Values of the named outputs (default: all). A sequence comes back as `name[0]`, `name[1]`, …

        Raises:
            RuntimeUnavailableError: an input is missing, or onnxruntime refuses or fails on these values.
        """
        self._check(inputs)
        feeds = {port.name: np.asarray(inputs[port.name]) for port in self.inputs}
        names = [port.name for port in self.outputs] if outputs is None else list(outputs)
        with self._told():
            values = self._run_raw(feeds, names) if self._raw else self._run_plain(feeds, names)
        flat: Arrays = {}
        for name, value in zip(names, values, strict=True):
            _flatten(name, value, flat)
        return flat

    def _run_plain(self, feeds: Arrays, names: list[str]) -> list[Any]:
        options = onnxruntime().RunOptions()
        options.log_severity_level = 4  # a failing run raises; its log line would only repeat that
        values: list[Any] = self._session.run(names, feeds, options)
        return values

    def _run_raw(self, feeds: Arrays, names: list[str]) -> list[Any]:
        ort = onnxruntime()
        given = {}
        for port in self.inputs:
            array = np.ascontiguousarray(feeds[port.name])
            make = ort.OrtValue.ortvalue_from_numpy
            if port.type in _RAW_TYPES:
                import onnx

                element = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
                bits = array.view(np.uint16 if array.itemsize == 2 else np.uint8)
                given[port.name] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, element)
            else:
                given[port.name] = make(array)
        options = ort.RunOptions()
        options.log_severity_level = 4
        return [_to_numpy(value) for value in self._session.run_with_ort_values(names, given, options)]

    def held(self, array: np.ndarray) -> Any:
        """A copy of an array on the device of this session, for `run_held`."""
        with self._told():
            return onnxruntime().OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), *self._place())

    def run_held(self, inputs: Mapping[str, Any], outputs: Iterable[str] | None = None) -> dict[str, Any]:
        """As `run`, with results that stay on the device; they, and `held` arrays, may be inputs.

        Returns:
            onnxruntime's values by name of the output; `.numpy()` brings one over.

        Raises:
            RuntimeUnavailableError: an input is missing, or onnxruntime refuses or fails on these values.
        """
        self._check(inputs)
        names = [port.name for port in self.outputs] if outputs is None else list(outputs)
        with self._told():
            binding = self._session.io_binding()
            for port in self.inputs:
                value = inputs[port.name]
                if isinstance(value, np.ndarray):
                    binding.bind_cpu_input(port.name, np.ascontiguousarray(value))
                else:
                    binding.bind_ortvalue_input(port.name, value)
            for name in names:
                binding.bind_output(name, *self._place())
            self._session.run_with_iobinding(binding)
            return dict(zip(names, binding.get_outputs(), strict=True))

    def _place(self) -> tuple[str, int]:
        kind, _, index = self.device.partition(":")
        return kind, int(index or 0)

    def _check(self, inputs: Mapping[str, Any]) -> None:
        if self._session is None:
            raise RuntimeUnavailableError(f"{self.label}: the session is closed")
        missing = [port.name for port in self.inputs if port.name not in inputs]
        if missing:
            raise RuntimeUnavailableError(f"{self.label}: no value for input {', '.join(map(repr, missing))}")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What onnxruntime raises, as an error of ours."""
        try:
            yield
        except Exception as error:
            raise RuntimeUnavailableError(
                f"{self.label}: onnxruntime cannot run it: {one_line(error)}"
            ) from error

    def close(self) -> None:
        """Releases the session's memory, then its temporary file."""
        self._session = None
        self._arrays = ()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def open_session(
    model: Model,
    *,
    device: str = "auto",
    optimize: bool | Level = False,
    extra_outputs: Iterable[str] = (),
) -> Session:
    """Opens `model` in onnxruntime.

    Args:
        model: the model; nothing of it is changed.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; a device that was named is never replaced by another.
        optimize: False runs the graph as written, True with every optimization, or a level in between.
        extra_outputs: names of intermediate values of the main graph to compute as well.

    Raises:
        RuntimeUnavailableError: the device is not there, or onnxruntime rejects the model; one line says why.
    """
    options = session_options(optimize)
    source, folder = _source(model, tuple(extra_outputs))
    return start(model.name, source, options, device, folder=folder)


def start(
    label: str,
    source: bytes | str,
    options: Any,
    device: str,
    *,
    folder: tempfile.TemporaryDirectory[str] | None = None,
    arrays: Sequence[np.ndarray] = (),
) -> Session:
    """Starts a session on a serialized model, or on a file.

    Args:
        label: what the model is called in messages.
        source: the bytes, or the path.
        options: onnxruntime's `SessionOptions`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        folder: what is removed when the session is closed, or does not start.
        arrays: memory that the options refer to; it is kept until the session is closed.

    Raises:
        RuntimeUnavailableError: the device is not there, or onnxruntime rejects the model; one line says why.
    """
    try:
        resolved, providers = providers_for(device)
        session = _inference(label, source, options, providers)
        active = session.get_providers()
        wanted = CPU_PROVIDER if resolved == "cpu" else CUDA_PROVIDER
        if wanted not in active:
            raise RuntimeUnavailableError(
                f"{label}: asked for {resolved}, but onnxruntime chose {', '.join(active)}"
            )
    except BaseException:
        if folder is not None:
            folder.cleanup()
        raise
    return Session(label, resolved, session, folder, arrays)


def _inference(label: str, source: bytes | str, options: Any, providers: list[Any]) -> Any:
    try:
        return onnxruntime().InferenceSession(source, options, providers=providers, enable_fallback=0)
    except Exception as error:
        raise RuntimeUnavailableError(
            f"{label}: onnxruntime cannot load the model: {one_line(error)}"
        ) from error


def session_options(optimize: bool | Level) -> Any:
    """onnxruntime's options for a quiet session; `optimize` as for `open_session`."""
    ort = onnxruntime()
    level: Level = ("all" if optimize else "none") if isinstance(optimize, bool) else optimize
    if level not in _LEVELS:
        raise RuntimeUnavailableError(f"unknown optimization level {level!r}: use {', '.join(_LEVELS)}")
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[level])
    options.log_severity_level = 4  # every failure is an exception as well
    options.use_deterministic_compute = True
    return options


def _source(
    model: Model, extra: tuple[str, ...]
) -> tuple[bytes | str, tempfile.TemporaryDirectory[str] | None]:
    """What onnxruntime reads: bytes where one message holds them, else a file with external data."""
    if model.serialized_size() < INLINE_LIMIT:
        proto = model.to_proto()
        _expose(proto, extra)
        return proto.SerializeToString(), None
    import onnx

    folder = tempfile.TemporaryDirectory(prefix="onnxcanon-", ignore_cleanup_errors=True)
    path = Path(folder.name) / "model.onnx"
    try:
        model.save(path)
        if extra:
            proto = onnx.load(path, load_external_data=False)
            _expose(proto, extra)
            path.write_bytes(proto.SerializeToString())
    except BaseException:
        folder.cleanup()
        raise
    return str(path), folder


def _expose(proto: onnx.ModelProto, extra: tuple[str, ...]) -> None:
    # onnxruntime infers the type of an output that states none.
    present = {value.name for value in proto.graph.output}
    for name in extra:
        if name not in present:
            present.add(name)
            proto.graph.output.add().name = name


def _port(item: Any) -> SessionValue:
    # A declared size of zero or below (exporters write -1) is no size.
    shape = tuple(None if isinstance(dim, int) and dim < 0 else dim for dim in item.shape or ())
    return SessionValue(item.name, item.type, shape)


def _to_numpy(value: Any) -> Any:
    """An OrtValue as an array; types NumPy lacks are read from its memory: outputs are on the CPU."""
    name = _RAW_TYPES.get(value.data_type())
    if name is None:
        return value.numpy()
    import ml_dtypes

    dtype = np.dtype(getattr(ml_dtypes, name))
    shape = value.shape()
    size = math.prod(shape) * dtype.itemsize
    return np.frombuffer(ctypes.string_at(value.data_ptr(), size), dtype=dtype).reshape(shape)


def _flatten(name: str, value: Any, into: Arrays) -> None:
    """Writes `value` into `into`: sequences item by item, the maps of a classifier as one table."""
    if isinstance(value, np.ndarray):
        into[name] = value
    elif value is None:  # an optional that holds nothing
        into[name] = np.zeros((0,), np.float32)
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        into[name] = np.array([[item[key] for key in sorted(item)] for item in value])
    elif isinstance(value, dict):
        into[name] = np.array([value[key] for key in sorted(value)])
    elif isinstance(value, list):
        into.update({f"{name}.length": np.array(len(value))})
        for index, item in enumerate(value):
            _flatten(f"{name}[{index}]", item, into)
    else:
        into[name] = np.asarray(value)
