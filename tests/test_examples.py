"""The example models under models/ are what models/README.md says they are."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

MODELS = Path(__file__).resolve().parent.parent / "models"
KINDS = ("mlp", "resnet", "vit")
NAMES = tuple(f"digits_{kind}_seed{seed}.onnx" for kind in KINDS for seed in (0, 1))
ROW = re.compile(
    r"^\| `(?P<name>[^`]+\.onnx)` \| .* \| (?P<parameters>\d+) \| (?P<accuracy>\d\.\d+) \|$", re.MULTILINE
)
# A directory of some machine: /home/name/..., /usr/lib/..., C:\\Users\\...; or a source file.
MACHINE_PATH = re.compile(
    rb"/(?:home|root|usr|tmp|opt|mnt|var|Users)/|[A-Za-z]:\\|site-packages|\.py\b|Traceback"
)


def table() -> dict[str, tuple[int, float]]:
    """Parameters and accuracy of every file in the table of models/README.md."""
    text = (MODELS / "README.md").read_text(encoding="utf-8")
    return {row["name"]: (int(row["parameters"]), float(row["accuracy"])) for row in ROW.finditer(text)}


def shape(value: onnx.ValueInfoProto) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_table_lists_exactly_the_files() -> None:
    assert set(table()) == set(NAMES) == {path.name for path in MODELS.glob("*.onnx")}


@pytest.mark.parametrize(("name", "size"), [("digits_eval.npz", 500), ("digits_calib.npz", 400)])
def test_data(name: str, size: int) -> None:
    with np.load(MODELS / name) as data:
        assert set(data.files) == {"x", "y"}
        x, y = data["x"], data["y"]
    assert x.shape == (size, 1, 8, 8)
    assert x.dtype == np.float32
    assert x.min() == 0.0
    assert x.max() == 1.0
    assert y.shape == (size,)
    assert y.dtype == np.int64
    assert set(y.tolist()) == set(range(10))


def test_calibration_images_are_not_held_out_ones() -> None:
    with np.load(MODELS / "digits_eval.npz") as held, np.load(MODELS / "digits_calib.npz") as calib:
        seen = {image.tobytes() for image in calib["x"]}
        assert not any(image.tobytes() in seen for image in held["x"])


@pytest.mark.parametrize("name", NAMES)
def test_accuracy(name: str) -> None:
    session = ort.InferenceSession(MODELS / name, providers=["CPUExecutionProvider"])
    with np.load(MODELS / "digits_eval.npz") as data:
        x, y = data["x"], data["y"]
    (logits,) = session.run(["logits"], {"x": x})
    assert logits.shape == (len(x), 10)
    accuracy = float(np.mean(np.argmax(logits, axis=1) == y))
    assert accuracy > 0.95
    assert accuracy == pytest.approx(table()[name][1], abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_file(name: str) -> None:
    path = MODELS / name
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert path.stat().st_size < 300_000
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    assert not model.functions

    (image,), (logits,) = model.graph.input, model.graph.output
    assert (image.name, shape(image)) == ("x", ["batch", 1, 8, 8])
    assert (logits.name, shape(logits)) == ("logits", ["batch", 10])
    for value in (image, logits):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@pytest.mark.parametrize("name", NAMES)
def test_parameters(name: str) -> None:
    graph = onnx.load(MODELS / name).graph
    statistics = {
        tensor for node in graph.node if node.op_type == "BatchNormalization" for tensor in node.input[3:]
    }
    weights = [
        tensor
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.dims and tensor.name not in statistics
    ]
    assert sum(int(np.prod(tensor.dims)) for tensor in weights) == table()[name][0]


@pytest.mark.parametrize("name", NAMES)
def test_no_trace_of_the_machine(name: str) -> None:
    model = onnx.load(MODELS / name)
    graph = model.graph
    holders = [model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for holder in holders:
        assert not holder.metadata_props
        assert not holder.doc_string
    for tensor in graph.initializer:
        tensor.ClearField("raw_data")
    assert not MACHINE_PATH.search(model.SerializeToString())


@pytest.mark.parametrize("kind", KINDS)
def test_two_seeds_share_one_structure(kind: str) -> None:
    first, second = (onnx.load(MODELS / f"digits_{kind}_seed{seed}.onnx").graph for seed in (0, 1))
    assert [node.SerializeToString() for node in first.node] == [
        node.SerializeToString() for node in second.node
    ]
    shapes = [[(t.name, t.data_type, tuple(t.dims)) for t in graph.initializer] for graph in (first, second)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("kind", KINDS)
def test_two_seeds_have_different_weights(kind: str) -> None:
    first, second = (onnx.load(MODELS / f"digits_{kind}_seed{seed}.onnx").graph for seed in (0, 1))
    for left, right in zip(first.initializer, second.initializer, strict=True):
        if left.data_type == onnx.TensorProto.FLOAT and left.dims:
            assert not np.allclose(onnx.numpy_helper.to_array(left), onnx.numpy_helper.to_array(right))


@pytest.mark.parametrize("seed", (0, 1))
def test_resnet_keeps_inference_batchnorm(seed: int) -> None:
    nodes = onnx.load(MODELS / f"digits_resnet_seed{seed}.onnx").graph.node
    norms = [node for node in nodes if node.op_type == "BatchNormalization"]
    assert len(norms) == sum(node.op_type == "Conv" for node in nodes) == 8
    for node in norms:
        assert len(node.output) == 1
        assert not any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
    assert not any(node.op_type == "Identity" for node in nodes)
