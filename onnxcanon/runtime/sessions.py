"""Sessions: a model opened in onnxruntime on a chosen device, quiet, bounded and with errors of one line.

By default the graph is run as it is written: fusions change the rounding, and for quantized models by
percents, so two models are only comparable at one optimization level, and none at all is the level that
does not depend on names.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcanon.arrays import Array, Arrays
from onnxcanon.errors import RuntimeUnavailableError
from onnxcanon.graph.traversal import leading_to
from onnxcanon.runtime.devices import CPU_PROVIDER, CUDA_PROVIDER, one_line, onnxruntime, providers_for
from onnxcanon.runtime.session_values import SessionValue, flatten, to_numpy, to_ort

if TYPE_CHECKING:
    import onnx

    from onnxcanon.model import Model

# protobuf ends at 2 GiB, and the serialized copy, the parsed copy and onnxruntime's own copy are alive at
# once.
INLINE_LIMIT = 1_500_000_000

OPTIMIZED = "ORT_ENABLE_ALL"
"""The level of onnxruntime where a graph is optimized."""


@contextmanager
def our_errors(refusal: str) -> Iterator[None]:
    """What onnxruntime raises, as an error of ours."""
    try:
        yield
    except Exception as error:
        raise RuntimeUnavailableError(f"{refusal}: {one_line(error)}") from error


class Session(AbstractContextManager["Session", None]):
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
        arrays: Sequence[Array] = (),
    ):
        self.label = label
        self.device = device
        self.inputs = tuple(SessionValue.of(item) for item in session.get_inputs())
        self.outputs = tuple(SessionValue.of(item) for item in session.get_outputs())
        self._session = session
        self._folder = folder
        self._arrays = arrays  # onnxruntime may read them as long as it runs
        self._raw = any(value.raw for value in (*self.inputs, *self.outputs))

    def run(self, inputs: Mapping[str, Array], outputs: Iterable[str] | None = None) -> Arrays:
        """Values of the named outputs (default: all). A sequence comes back as `name[0]`, `name[1]`, …

        Raises:
            RuntimeUnavailableError: an input is missing, or onnxruntime refuses or fails on these values.
        """
        names = self._names(inputs, outputs)
        feeds = {value.name: np.asarray(inputs[value.name]) for value in self.inputs}
        options = onnxruntime().RunOptions()
        options.log_severity_level = 4  # a failing run raises; its log line would only repeat that
        values: Iterable[Any]
        with our_errors(f"{self.label}: onnxruntime cannot run it"):
            if self._raw:
                raw = {value.name: to_ort(value, feeds[value.name]) for value in self.inputs}
                values = map(to_numpy, self._session.run_with_ort_values(names, raw, options))
            else:
                values = self._session.run(names, feeds, options)
            pairs = list(zip(names, values, strict=True))
        return {part: array for name, value in pairs for part, array in flatten(name, value).items()}

    def on_device(self, array: Array) -> Any:
        """A copy of an array on the device of this session, for `run_on_device`."""
        with our_errors(f"{self.label}: onnxruntime cannot run it"):
            return onnxruntime().OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), *self._device_id())

    def run_on_device(
        self, inputs: Mapping[str, Any], outputs: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """Values of the named outputs (default: all), which stay on the device.

        Args:
            inputs: arrays, or what is on the device: results of a run, copies by `on_device`.
            outputs: the names of outputs.

        Returns:
            onnxruntime's values by name of the output; `.numpy()` brings one over.

        Raises:
            RuntimeUnavailableError: an input is missing, or onnxruntime refuses or fails on these values.
        """
        names = self._names(inputs, outputs)
        with our_errors(f"{self.label}: onnxruntime cannot run it"):
            binding = self._session.io_binding()
            for name, value in ((value.name, inputs[value.name]) for value in self.inputs):
                if isinstance(value, np.ndarray):
                    binding.bind_cpu_input(name, np.ascontiguousarray(value))
                else:
                    binding.bind_ortvalue_input(name, value)
            for name in names:
                binding.bind_output(name, *self._device_id())
            self._session.run_with_iobinding(binding)
            return dict(zip(names, binding.get_outputs(), strict=True))

    def _device_id(self) -> tuple[str, int]:
        kind, _, index = self.device.partition(":")
        return kind, int(index or 0)

    def _names(self, inputs: Mapping[str, Any], outputs: Iterable[str] | None) -> list[str]:
        """The outputs to compute, once nothing is missing."""
        if self._session is None:
            raise RuntimeUnavailableError(f"{self.label}: the session is closed")
        missing = [value.name for value in self.inputs if value.name not in inputs]
        if missing:
            raise RuntimeUnavailableError(f"{self.label}: no value for input {', '.join(map(repr, missing))}")
        return [value.name for value in self.outputs] if outputs is None else list(outputs)

    def __exit__(self, *error: object) -> None:
        self.close()

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
    optimize: bool = False,
    extra_outputs: Iterable[str] = (),
    only: Iterable[str] = (),
) -> Session:
    """Opens `model` in onnxruntime.

    Args:
        model: the model; nothing of it is changed.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; a device that was named is never replaced by another.
        optimize: whether to run the graph with every optimization, or as written.
        extra_outputs: names of intermediate values of the main graph to compute as well.
        only: names of values of the main graph to compute in place of the outputs. onnxruntime computes all
            of a graph whichever output is asked for, so the graph is cut at these values; a model that is
            too large for one message runs whole.

    Raises:
        RuntimeUnavailableError: the device is not there, or onnxruntime rejects the model; one line says why.
    """
    options = session_options(optimize)
    source, folder = _source(model, tuple(extra_outputs), tuple(only))
    return start(model.name, source, options, device, folder=folder)


def start(
    label: str,
    source: bytes | str,
    options: Any,
    device: str,
    *,
    folder: tempfile.TemporaryDirectory[str] | None = None,
    arrays: Sequence[Array] = (),
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
        with our_errors(f"{label}: onnxruntime cannot load the model"):
            session = onnxruntime().InferenceSession(source, options, providers=providers, enable_fallback=0)
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


def session_options(optimize: bool) -> Any:
    """onnxruntime's options for a quiet session; `optimize` as for `open_session`."""
    ort = onnxruntime()
    options = ort.SessionOptions()
    level = OPTIMIZED if optimize else "ORT_DISABLE_ALL"
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.log_severity_level = 4  # every failure is an exception as well
    options.use_deterministic_compute = True
    return options


def _source(
    model: Model, extra: tuple[str, ...], only: tuple[str, ...]
) -> tuple[bytes | str, tempfile.TemporaryDirectory[str] | None]:
    """What onnxruntime reads: bytes where one message holds them, else a file with external data."""
    if model.serialized_size() < INLINE_LIMIT:
        proto = model.to_proto()
        if only:
            _cut(proto.graph, leading_to(model.ir.graph, only))
        _expose(proto, extra + only)
        return proto.SerializeToString(), None
    import onnx

    folder = tempfile.TemporaryDirectory(prefix="onnxcanon-", ignore_cleanup_errors=True)
    path = Path(folder.name) / "model.onnx"
    try:
        model.save(path)
        if extra or only:
            proto = onnx.load(path, load_external_data=False)
            _expose(proto, extra + only)
            path.write_bytes(proto.SerializeToString())
    except BaseException:
        folder.cleanup()
        raise
    return str(path), folder


def _cut(graph: onnx.GraphProto, needed: set[str]) -> None:
    """Leave what makes the needed values, and no outputs."""
    for field in (graph.initializer, graph.input):
        chosen = [item for item in field if item.name in needed]
        del field[:]
        field.extend(chosen)
    nodes = [node for node in graph.node if needed.intersection(node.output)]
    del graph.node[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)


def _expose(proto: onnx.ModelProto, extra: tuple[str, ...]) -> None:
    # onnxruntime infers the type of an output that states none.
    present = {value.name for value in proto.graph.output}
    for name in extra:
        if name not in present:
            present.add(name)
            proto.graph.output.add().name = name
