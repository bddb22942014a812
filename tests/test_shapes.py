"""The shape pass claims nothing that onnxruntime, or ONNX's own node tests, do not confirm."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxcanon.shapes import SampleValue, Shapes, infer_shapes, propagation

SHARED = Path(__file__).parents[2] / "shared"
SMALL = 3_000_000  # bytes of a model that is worth running here

MODELS = sorted(path for path in (SHARED / "models").glob("*.onnx") if path.stat().st_size < SMALL)
TWINS = [
    path
    for name in ("base", "reexport", "reexport_raw", "reexport_op23", "reexport_static")
    for path in sorted(SHARED.glob(f"twins/*/{name}.onnx"))
]
# Loops and branches whose results the file does not declare.
OPAQUE = {
    "gpt2-tiny-greedysearch-contrib",
    "loop-fp16-tiny",
    "loop-shadows-outer-scope",
    "lstm-as-loop-tiny",
    "silero-vad-v5-half-if",
    "silero-vad-v5-if",
}
# Files that the IR does not take, that declare a wrong shape, that do not run at these sizes (or slowly).
NOT_COMPARED = {
    "gpt2-tiny-greedysearch-contrib",
    "silero-vad-v5-if",
    "squeezenet-coreml-classifier",
    "loop-shadows-outer-scope",
}

# Operators whose result's size depends on the data; and text, training and other domains.
DYNAMIC_OR_EXOTIC = {
    *("NonMaxSuppression", "Unique", "OptionalGetElement", "OptionalHasElement", "Loop", "Scan", "If"),
    *("Adagrad", "Adam", "Momentum", "ArrayFeatureExtractor", "Binarizer", "LabelEncoder", "TreeEnsemble"),
    *("FlexAttention", "ImageDecoder", "RegexFullMatch", "StringConcat", "StringSplit", "StringNormalizer"),
    *("TfIdfVectorizer",),
}


def probe_graph(graph: ir.Graph, sizes: dict[str, int] | None = None) -> Shapes:
    return infer_shapes(graph, lambda value: value.const_value.numpy(), sizes)


def probe_text(text: str, sizes: dict[str, int] | None = None) -> tuple[Shapes, dict[str, ir.Value]]:
    """Probe a model in ONNX's text syntax; the values by name."""
    graph = ir.serde.deserialize_model(onnx.parser.parse_model(text)).graph
    values = {value.name: value for node in graph for value in node.outputs}
    return probe_graph(graph, sizes), values


# --- real models -----------------------------------------------------------------------------------


def exposed(path: Path) -> onnx.ModelProto:
    """The model with every intermediate value as an output."""
    proto = onnx.load(str(path))
    known = {value.name for value in proto.graph.output}
    for node in proto.graph.node:
        for name in node.output:
            if name and name not in known:
                known.add(name)
                proto.graph.output.append(onnx.ValueInfoProto(name=name))
    return proto


def feeds(graph: ir.Graph, shapes: Shapes, index: int) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    result = {}
    for value in graph.inputs:
        if value.const_value is None:
            shape, dtype = shapes.shapes(value)[index], value.dtype.numpy()
            noise = rng.standard_normal(shape) if dtype.kind == "f" else np.ones(shape)
            result[value.name] = noise.astype(dtype)
    return result


def session_of(proto: onnx.ModelProto) -> Any:
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def disagreements(path: Path, index: int) -> list[str]:
    """What the pass claims under a infer_shapes and onnxruntime does not confirm."""
    graph = ir.load(str(path)).graph
    shapes = probe_graph(graph)
    session = session_of(exposed(path))
    values = {value.name: value for node in graph for value in node.outputs}
    names = [output.name for output in session.get_outputs() if output.name in values]
    wrong = []
    for name, actual in zip(names, session.run(names, feeds(graph, shapes, index)), strict=True):
        shape, data = shapes.shapes(values[name])[index], shapes.float_pair(values[name])[index]
        if shape is not None and shape != np.shape(actual):
            wrong.append(f"{name}: shape {shape}, really {np.shape(actual)}")
        if data is not None and (
            data.dtype != actual.dtype or not np.allclose(data, actual, rtol=1e-6, equal_nan=True)
        ):
            wrong.append(f"{name}: value {data.ravel()[:8]}, really {np.ravel(actual)[:8]}")
    return wrong


@pytest.mark.skipif(not MODELS, reason="the shared models are not here")
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("path", MODELS + TWINS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_agrees_with_onnxruntime(path: Path, index: int) -> None:
    if path.stem in NOT_COMPARED:
        pytest.skip("not compared")
    assert disagreements(path, index) == []


@pytest.mark.skipif(not MODELS, reason="the shared models are not here")
@pytest.mark.parametrize("path", MODELS + TWINS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_shape_is_known(path: Path) -> None:
    if path.stem in OPAQUE | {"squeezenet-coreml-classifier"}:
        pytest.skip("has results of subgraphs that the file does not declare")
    graph = ir.load(str(path)).graph
    shapes = probe_graph(graph)
    values = [value for node in graph for value in node.outputs if value.name]
    assert [value.name for value in values if None in shapes.shapes(value)] == []
    assert shapes.contradictions == (0, 0)


# --- ONNX's node tests -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node_cases() -> list[Any]:
    loader = pytest.importorskip("onnx.backend.test.loader")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [case for case in loader.load_model_tests(kind="node") if case.model is not None]


def node_case(case: Any, is_constant: Callable[[Any], bool]) -> tuple[ir.Graph, Shapes] | None:
    """A node test with those of its inputs that are to be constants as such, and without declared shapes."""
    graph = ir.serde.deserialize_model(case.model).graph
    inputs, constants = case.data_sets[0][0], {}
    for value, array in zip(graph.inputs, inputs, strict=True):
        if not isinstance(array, np.ndarray) or array.dtype.kind == "O" or 0 in array.shape:
            return None
        if is_constant(array):
            value.const_value = ir.tensor(array, name=value.name)
            constants[value.name] = array
    for node in graph:
        for value in node.outputs:
            value.shape = None
    return graph, infer_shapes(graph, lambda value: constants[value.name])


def test_shapes_of_the_node_tests(node_cases: list[Any]) -> None:
    wrong, unknown, checked = [], set(), 0
    for case in node_cases:
        found = node_case(case, lambda array: array.dtype.kind in "iub" or array.size <= 8)
        if (
            found is None or case.name == "test_quantizelinear_blocked_symmetric"
        ):  # its expected output is empty
            continue
        graph, shapes = found
        for value, expected in zip(graph.outputs, case.data_sets[0][1], strict=True):
            shape = shapes.shapes(value)[0]
            if isinstance(expected, list):
                continue
            checked += 1
            if shape is None and not case.name.endswith("_expanded"):
                unknown.add(value.producer().op_type)
            elif shape not in (None, np.shape(expected)):
                wrong.append((case.name, shape, np.shape(expected)))
    assert wrong == []
    assert unknown <= DYNAMIC_OR_EXOTIC
    assert checked > 1500


def test_values_of_the_node_tests(node_cases: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With every input known: what is folded is right."""
    monkeypatch.setattr(
        propagation, "constant", lambda tensor, read: SampleValue(np.shape(read()), np.asarray(read()))
    )
    wrong, checked = [], 0
    for case in node_cases:
        found = node_case(case, lambda array: True)
        for value, expected in zip(found[0].outputs, case.data_sets[0][1], strict=True) if found else ():
            data = found[1].data_pair(value)[0]
            if data is None:
                continue
            checked += 1
            close = data.dtype == expected.dtype and np.allclose(
                data.astype(np.float64), expected.astype(np.float64), rtol=1e-5, atol=1e-7, equal_nan=True
            )
            if not close:
                wrong.append(case.name)
    assert wrong == []
    assert checked > 400


# --- onnxruntime's contrib operators ---------------------------------------------------------------


def real(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def byte(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)


def int32(*values: int) -> Any:
    return np.array(values, np.int32)


def int64(*values: int) -> Any:
    return np.array(values, np.int64)


NONE = None
S, Z = np.float32(0.1), np.uint8(3)  # a scale and a zero point
SCALES, ZEROS = np.full(1, 0.1, np.float32), np.full(1, 3, np.uint8)
IDS = np.ones((2, 3), np.int32)
COUNT5, COUNT7 = np.array(5, np.int32), np.array(7, np.int32)

CONTRIB: list[tuple[str, list[Any], int, dict[str, Any]]] = [
    ("Attention", [real(2, 5, 16), real(16, 48), real(48)], 1, {"num_heads": 4}),
    (
        "Attention",
        [real(2, 5, 16), real(16, 40), real(40)],
        1,
        {"num_heads": 4, "qkv_hidden_sizes": [16, 16, 8]},
    ),
    ("Attention", [real(2, 5, 16), real(16, 48), real(48), NONE, real(2, 2, 4, 3, 4)], 2, {"num_heads": 4}),
    ("QAttention", [byte(2, 5, 16), byte(16, 48), real(48), S, S, NONE, Z, Z], 1, {"num_heads": 4}),
    ("MultiHeadAttention", [real(2, 5, 16), real(2, 7, 16), real(2, 7, 24)], 1, {"num_heads": 4}),
    ("MultiHeadAttention", [real(2, 5, 16), real(2, 4, 7, 4), real(2, 4, 7, 4)], 1, {"num_heads": 4}),
    (
        "MultiHeadAttention",
        [real(2, 5, 16), real(2, 5, 16), real(2, 5, 16), *[NONE] * 3, real(2, 4, 3, 4), real(2, 4, 3, 4)],
        3,
        {"num_heads": 4},
    ),
    (
        "GroupQueryAttention",
        [real(2, 5, 32), real(2, 5, 16), real(2, 5, 16), NONE, NONE, int32(4, 4), COUNT5],
        3,
        {"num_heads": 4, "kv_num_heads": 2},
    ),
    (
        "GroupQueryAttention",
        [real(2, 5, 64), *[NONE] * 4, int32(4, 4), COUNT5],
        3,
        {"num_heads": 4, "kv_num_heads": 2},
    ),
    (
        "GroupQueryAttention",
        [*[real(2, 1, 8 * heads) for heads in (4, 2, 2)], *[real(2, 2, 6, 8)] * 2, int32(6, 6), COUNT7],
        3,
        {"num_heads": 4, "kv_num_heads": 2},
    ),
    ("SkipLayerNormalization", [real(2, 5, 16), real(2, 5, 16), real(16), real(16)], 4, {}),
    ("SkipSimplifiedLayerNormalization", [real(2, 5, 16), real(2, 5, 16), real(16)], 4, {}),
    (
        "EmbedLayerNormalization",
        [IDS, 0 * IDS, real(20, 8), real(10, 8), real(2, 8), real(8), real(8), IDS],
        3,
        {},
    ),
    ("FastGelu", [real(2, 8), real(8)], 1, {}),
    ("BiasGelu", [real(2, 8), real(8)], 1, {}),
    ("QuickGelu", [real(2, 8)], 1, {}),
    ("Gelu", [real(2, 8)], 1, {}),
    ("RotaryEmbedding", [real(2, 5, 16), int64(0), real(9, 2), real(9, 2)], 1, {"num_heads": 4}),
    (
        "FusedConv",
        [real(1, 4, 9, 9), real(6, 4, 3, 3), real(6)],
        1,
        {"activation": "Relu", "strides": [2, 2]},
    ),
    ("FusedMatMul", [real(3, 4, 5), real(3, 6, 5)], 1, {"transB": 1}),
    ("FusedMatMul", [real(3, 5, 4), real(3, 5, 6)], 1, {"transA": 1}),
    ("FusedMatMul", [real(4, 3, 5), real(5, 6)], 1, {}),
    ("FusedMatMul", [real(4, 3, 5), real(3, 5, 6)], 1, {"transBatchA": 1}),
    ("FusedMatMul", [real(5, 3, 4), real(3, 5, 6)], 1, {"transBatchA": 1, "transA": 1}),
    ("FusedGemm", [real(3, 4), real(4, 5), real(5)], 1, {"activation": "Relu"}),
    ("QGemm", [byte(3, 4), S, Z, byte(4, 5), S, Z, NONE, S, Z], 1, {}),
    (
        "MatMulNBits",
        [real(2, 3, 32), byte(7, 2, 8), real(14)],
        1,
        {"K": 32, "N": 7, "bits": 4, "block_size": 16},
    ),
    ("DynamicQuantizeMatMul", [real(2, 3, 4), byte(4, 5), S, Z], 1, {}),
    ("MatMulIntegerToFloat", [byte(2, 3, 4), byte(4, 5), S, S], 1, {}),
    ("QLinearAdd", [byte(2, 3), S, Z, byte(3), S, Z, S, Z], 1, {}),
    ("QLinearMul", [byte(2, 1), S, Z, byte(3), S, Z, S, Z], 1, {}),
    ("QLinearConcat", [S, Z, byte(2, 3), S, Z, byte(2, 4), S, Z], 1, {"axis": 1}),
    ("QLinearGlobalAveragePool", [byte(1, 3, 4, 5), S, Z, S, Z], 1, {}),
    ("QLinearGlobalAveragePool", [byte(1, 4, 5, 3), S, Z, S, Z], 1, {"channels_last": 1}),
    ("QLinearAveragePool", [byte(1, 3, 6, 6), S, Z, S, Z], 1, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("QLinearAveragePool", [byte(1, 6, 6, 3), S, Z, S, Z], 1, {"kernel_shape": [2, 2], "channels_last": 1}),
    ("QLinearLeakyRelu", [byte(2, 3), S, Z, S, Z], 1, {}),
    ("QLinearSigmoid", [byte(2, 3), S, Z, S, Z], 1, {}),
    ("QLinearSoftmax", [byte(2, 3), S, Z, S, Z], 1, {"opset": 13}),
    ("QLinearWhere", [np.array([True, False, True]), byte(2, 3), S, Z, byte(1, 3), S, Z, S, Z], 1, {}),
    ("QLinearConv", [byte(1, 9, 9, 4), S, Z, byte(6, 4, 3, 3), S, Z, S, Z], 1, {"channels_last": 1}),
    ("NhwcMaxPool", [byte(1, 6, 6, 3)], 1, {"kernel_shape": [2, 2]}),
    (
        "DynamicQuantizeLSTM",
        [real(5, 2, 3), byte(1, 3, 16), byte(1, 4, 16), *[NONE] * 5, SCALES, ZEROS, SCALES, ZEROS],
        3,
        {"hidden_size": 4},
    ),
    ("CDist", [real(3, 4), real(5, 4)], 1, {"metric": "euclidean"}),
    ("Inverse", [real(2, 3, 3)], 1, {}),
    ("Pad", [real(2, 3), int64(0, 1, 0, 1)], 1, {}),
    ("Trilu", [real(3, 4)], 1, {}),
    ("GridSample", [real(1, 3, 5, 6), real(1, 7, 8, 2)], 1, {}),
    ("Range", [np.array(0), np.array(9), np.array(2)], 1, {}),
    ("GatherND", [real(3, 4, 5), int64(0, 1, 2, 3).reshape(2, 2)], 1, {}),
    ("MoE", [real(6, 8), real(6, 4), real(4, 8, 16), NONE, real(4, 16, 8)], 1, {"k": 2}),
    ("UnfoldTensor", [real(2, 9)], 1, {"dim": 1, "size": 3, "step": 2}),
    ("NGramRepeatBlock", [int64(1, 2, 3, 4).reshape(2, 2), real(2, 9)], 1, {"ngram_size": 2}),
    ("TransposeMatMul", [real(4, 3), real(4, 5)], 1, {"transA": 1}),
    (
        "MatMulBnb4",
        [real(2, 32), byte(112), real(14)],
        1,
        {"K": 32, "N": 7, "quant_type": 1, "block_size": 16},
    ),
]


def one_node(
    op_type: str,
    inputs: list[Any],
    outputs: int,
    attributes: dict[str, Any],
    domain: str = "",
    opset: int = 17,
) -> onnx.ModelProto:
    """A model of one node whose inputs are constants; a tuple is a float input of that shape."""
    names = ["" if array is None else f"x{i}" for i, array in enumerate(inputs)]
    constants = [
        numpy_helper.from_array(np.asarray(array), name)
        for name, array in zip(names, inputs, strict=True)
        if array is not None and not isinstance(array, tuple)
    ]
    feeds = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, array)
        for name, array in zip(names, inputs, strict=True)
        if isinstance(array, tuple)
    ]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op_type, names, results, domain=domain, **attributes)
    declared = [onnx.ValueInfoProto(name=name) for name in results]
    graph = helper.make_graph([node], op_type, feeds, declared, constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def inferred(model: onnx.ModelProto) -> list[Any]:
    graph = ir.serde.deserialize_model(model).graph
    shapes = probe_graph(graph)
    return [shapes.shapes(value)[0] for value in graph.outputs]


@pytest.mark.parametrize(("op_type", "inputs", "outputs", "attributes"), CONTRIB)
def test_contrib_operators(op_type: str, inputs: list[Any], outputs: int, attributes: dict[str, Any]) -> None:
    model = one_node(op_type, inputs, outputs, attributes, "com.microsoft")
    actual = session_of(model).run(None, {})
    assert inferred(model) == [np.shape(array) for array in actual]


# --- spellings of earlier opsets -------------------------------------------------------------------

X = (2, 3, 8, 6)

EARLIER: list[tuple[str, int, list[Any], dict[str, Any], list[tuple[int, ...]]]] = [
    ("Add", 6, [X, real(3)], {"broadcast": 1, "axis": 1}, [X]),
    ("Reshape", 1, [X], {"shape": [0, -1]}, [(2, 144)]),
    ("Slice", 1, [X], {"axes": [2, 3], "starts": [1, -4], "ends": [7, 99]}, [(2, 3, 6, 4)]),
    ("Slice", 1, [X], {"starts": [1], "ends": [2]}, [(1, 3, 8, 6)]),
    ("Squeeze", 1, [(1, 3, 1)], {"axes": [0]}, [(3, 1)]),
    ("Unsqueeze", 1, [(3, 4)], {"axes": [0, 2]}, [(1, 3, 1, 4)]),
    ("ReduceSum", 1, [X], {"axes": [1], "keepdims": 0}, [(2, 8, 6)]),
    ("ReduceMean", 1, [X], {"axes": [-1]}, [(2, 3, 8, 1)]),
    ("Split", 2, [X], {"axis": 2, "split": [3, 5]}, [(2, 3, 3, 6), (2, 3, 5, 6)]),
    ("Split", 2, [X], {"axis": 3}, [(2, 3, 8, 3), (2, 3, 8, 3)]),
    ("Split", 18, [X], {"axis": 2, "num_outputs": 3}, [(2, 3, 3, 6), (2, 3, 3, 6), (2, 3, 2, 6)]),
    ("Pad", 2, [X], {"pads": [0, 0, 1, 2, 0, 0, 3, -1]}, [(2, 3, 12, 7)]),
    ("Pad", 1, [X], {"paddings": [0, 0, 1, 2, 0, 0, 3, 4]}, [(2, 3, 12, 12)]),
    ("Upsample", 1, [X], {"height_scale": 2.0, "width_scale": 3.0}, [(2, 3, 16, 18)]),
    ("Upsample", 7, [X], {"scales": [1.0, 1.0, 2.0, 1.5]}, [(2, 3, 16, 9)]),
    ("Upsample", 9, [X, np.float32([1, 1, 2, 2])], {}, [(2, 3, 16, 12)]),
    ("Resize", 10, [X, np.float32([1, 1, 0.5, 0.5])], {}, [(2, 3, 4, 3)]),
    ("Resize", 11, [X, real(0), np.float32([1, 1, 0.6, 2])], {}, [(2, 3, 4, 12)]),
    ("Resize", 11, [X, real(0), real(0), int64(2, 3, 5, 7)], {}, [(2, 3, 5, 7)]),
    ("Resize", 18, [X, None, None, int64(16, 16)], {"axes": [2, 3]}, [(2, 3, 16, 16)]),
    (
        "Resize",
        18,
        [X, None, None, int64(16, 16)],
        {"axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"},
        [(2, 3, 16, 12)],
    ),
    ("Dropout", 7, [X], {}, [X, X]),
    ("BatchNormalization", 1, [X, *[real(3)] * 4], {}, [X, (3,), (3,), (3,), (3,)]),
    ("TopK", 1, [X], {"k": 2}, [(2, 3, 8, 2), (2, 3, 8, 2)]),
    ("TopK", 10, [X, int64(4)], {"axis": 2}, [(2, 3, 4, 6), (2, 3, 4, 6)]),
    ("Tile", 1, [X, np.float32([2]), np.float32([1])], {}, [(2, 6, 8, 6)]),
    ("Cast", 1, [X], {"to": "FLOAT16"}, [X]),
    ("Crop", 1, [X], {"border": [1, 1, 1, 1]}, [(2, 3, 6, 4)]),
    ("Crop", 1, [X], {"border": [1, 1, 1, 1], "scale": [2, 3]}, [(2, 3, 2, 3)]),
    ("MaxPool", 10, [X], {"kernel_shape": [3, 3], "strides": [2, 2]}, [(2, 3, 3, 2), (2, 3, 3, 2)]),
    ("MaxPool", 10, [X], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, [(2, 3, 4, 3)]),
    (
        "AveragePool",
        10,
        [X],
        {"kernel_shape": [3, 3], "strides": [3, 4], "auto_pad": "SAME_UPPER"},
        [(2, 3, 3, 2)],
    ),
    ("MaxPool", 10, [X], {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "VALID"}, [(2, 3, 4, 3)]),
    ("ConvTranspose", 11, [X, real(3, 4, 2, 2)], {"strides": [2, 2]}, [(2, 4, 16, 12)]),
    (
        "ConvTranspose",
        11,
        [X, real(3, 4, 3, 3)],
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        [(2, 4, 16, 12)],
    ),
    (
        "ConvTranspose",
        11,
        [X, real(3, 2, 3, 3)],
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1], "group": 3},
        [(2, 6, 16, 12)],
    ),
    ("ConvTranspose", 11, [X, real(3, 4, 2, 2)], {"output_shape": [20, 20]}, [(2, 4, 20, 20)]),
    ("Flatten", 9, [X], {"axis": -2}, [(6, 48)]),
    (
        "LSTM",
        14,
        [(5, 2, 3), real(2, 16, 3), real(2, 16, 4)],
        {"direction": "bidirectional", "layout": 1},
        [(5, 2, 2, 4), (5, 2, 4), (5, 2, 4)],
    ),
    ("GRU", 7, [(5, 2, 3), real(1, 12, 3), real(1, 12, 4)], {}, [(5, 1, 2, 4), (1, 2, 4)]),
]


@pytest.mark.parametrize(("op_type", "opset", "inputs", "attributes", "expected"), EARLIER)
def test_earlier_opsets(
    op_type: str, opset: int, inputs: list[Any], attributes: dict[str, Any], expected: list[tuple[int, ...]]
) -> None:
    assert inferred(one_node(op_type, inputs, len(expected), attributes, opset=opset)) == expected


# --- the two samples -------------------------------------------------------------------------------


def test_a_slice_by_a_dynamic_length_is_not_static() -> None:
    shapes, values = probe_text("""<ir_version: 8, opset_import: ["": 17]>
    f (int64[batch, seq] ids, float[32, 4] table) => (float[s, 4] y) <int64[1] zero = {0}, int64 one = {1}> {
        shape = Shape (ids)
        length = Gather (shape, one)
        end = Unsqueeze (length, zero)
        y = Slice (table, zero, end, zero)
        rank = Shape (shape)
    }""")
    assert shapes.shapes(values["y"]) == ((5, 4), (7, 4))
    assert shapes.data(values["end"]) is None
    assert [array.tolist() for array in shapes.data_pair(values["end"]) if array is not None] == [[5], [7]]
    assert shapes.data(values["rank"]).tolist() == [2]
    assert {node.op_type for node in shapes.folded_nodes} == {"Shape", "Gather", "Unsqueeze"}


def test_a_given_size_is_not_probed() -> None:
    shapes, values = probe_text(
        """<ir_version: 8, opset_import: ["": 17]>
        f (float[batch, seq] x) => (int64[2] y) { y = Shape (x) }""",
        {"seq": 16},
    )
    assert shapes.shapes(next(iter(values["y"].producer().inputs))) == ((2, 16), (3, 16))


def test_sizes_that_the_model_refuses_are_tried_again() -> None:
    """A traced model works with a batch of 1 only; what depends on the batch is still not static."""
    shapes, values = probe_text("""<ir_version: 8, opset_import: ["": 17]>
    f (float[batch, 6] x) => (float[1, 6] y) <int64[2] one = {1, 6}> {
        y = Reshape (x, one)
        shape = Shape (x)
    }""")
    assert shapes.shapes(values["y"]) == ((1, 6), (1, 6))
    assert shapes.contradictions == (0, 0)
    assert shapes.unvaried == ("batch",)
    assert shapes.data(values["shape"]) is None


def test_a_contradiction_stays_local() -> None:
    shapes, values = probe_text("""<ir_version: 8, opset_import: ["": 17]>
    f (float[2, 3] x, float[2, 4] z) => (float[a, b] y) {
        y = Add (x, z)
        v = Relu (y)
        w = Relu (x)
    }""")
    assert [shapes.shapes(values[name])[0] for name in "yvw"] == [None, None, (2, 3)]
    assert shapes.contradictions[0] == 1


def test_unknown_operators_have_the_declared_shape() -> None:
    shapes, values = probe_text("""<ir_version: 8, opset_import: ["": 17, "custom": 1]>
    f (float[batch, 3] x) => (float[batch, 9] y) <float[batch, 5] known, float[unheard, 5] v> {
        known = custom.Op (x)
        v = custom.Op (x)
        w = custom.Op (x)
        y = custom.Op (x)
    }""")
    pairs = {name: shapes.shapes(value) for name, value in values.items()}
    assert pairs == {"known": ((2, 5), (3, 5)), "v": (None, None), "w": (None, None), "y": ((2, 9), (3, 9))}


def test_sums_of_lengths_fit() -> None:
    shapes, values = probe_text("""<ir_version: 8, opset_import: ["": 17]>
    f (float[batch, 2, seq, 4] k, float[batch, 2, past_len, 4] past, float[batch, total_len] mask)
    => (float[a] y) {
        all = Concat <axis = 2> (past, k)
        shape = Shape <start = 2, end = 3> (all)
        flat = Shape <start = 1> (mask)
        y = Equal (shape, flat)
    }""")
    assert shapes.data(values["y"]).tolist() == [True]


def test_weights_are_not_shown_as_values() -> None:
    """Two floats may be the scales of a Resize and serve to find its shape; they may be weights as well."""
    shapes, values = probe_text("""<ir_version: 8, opset_import: ["": 17]>
    f (float[1, 3, 8, 8] x) => (float[a, b, c, d] y)
    <float[2] one = {1, 1}, float[2] two = {2, 2}, float half = {0.5}> {
        scales = Concat <axis = 0> (one, two)
        y = Resize (x, , scales)
        less = Mul (two, half)
        scalar = Mul (half, half)
    }""")
    assert shapes.shapes(values["y"])[0] == (1, 3, 16, 16)
    assert shapes.data(values["scales"]) is None
    assert shapes.data(values["less"]) is None
    assert shapes.data(values["scalar"]).tolist() == 0.25


def test_sequences_keep_their_items_apart() -> None:
    shapes, values = probe_text("""<ir_version: 8, opset_import: ["": 17]>
    f (float[2, 3, 4] x) => (float[a, b] y) <int64 step = {2}, int64 at = {1}, int64 zero = {0}> {
        parts = SplitToSequence <axis = 1> (x, step)
        last = SequenceAt (parts, at)
        joined = ConcatFromSequence <axis = 1> (parts)
        rows = SplitToSequence <axis = 0, keepdims = 0> (x)
        y = SequenceAt (rows, zero)
        count = SequenceLength (rows)
        stack = ConcatFromSequence <axis = 0, new_axis = 1> (rows)
    }""")
    found = {name: shapes.shapes(values[name])[0] for name in ("last", "joined", "y", "stack")}
    assert found == {"last": (2, 1, 4), "joined": (2, 3, 4), "y": (3, 4), "stack": (2, 3, 4)}
    assert shapes.data(values["count"]).tolist() == 2


def test_nodes_may_stand_in_any_order() -> None:
    """onnxruntime sorts them, so some files are not sorted."""
    shapes, values = probe_text("""<ir_version: 8, opset_import: ["": 17]>
    f (float[2, 3] x) => (float[a, b] y) {
        y = Transpose (v)
        v = Relu (x)
    }""")
    assert shapes.shapes(values["y"]) == ((3, 2), (3, 2))


def test_large_values_are_shapes_only() -> None:
    shapes, values = probe_text("""<ir_version: 8, opset_import: ["": 17]>
    f (float[2, 3] x) => (float[a, b] y) <int64[2] big = {1000, 1000}, int64[2] small = {10, 10}> {
        y = ConstantOfShape (big)
        v = ConstantOfShape (small)
    }""")
    assert shapes.shapes(values["y"])[0] == (1000, 1000)
    assert shapes.data(values["y"]) is None
    assert shapes.data(values["v"]).shape == (10, 10)


def test_a_cycle_ends() -> None:
    graph = ir.serde.deserialize_model(
        onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        f (float[2, 3] x) => (float[a, b] y) { v = Relu (x) y = Add (v, x) }""")
    ).graph
    first, last = graph
    first.replace_input_with(0, last.outputs[0])
    assert probe_graph(graph).shapes(first.outputs[0]) == (None, None)


@pytest.mark.parametrize(
    "attributes", [{}, {"kernel_shape": [3]}, {"strides": [0, 0], "kernel_shape": [3, 3]}]
)
def test_a_malformed_node_is_unknown(attributes: dict[str, Any]) -> None:
    assert inferred(one_node("MaxPool", [(1, 2, 9, 9)], 1, attributes)) == [None]


def test_sizes_that_agree_by_chance_are_not_static() -> None:
    """batch // 64 is 0 in both samples, and not always."""
    shapes, values = probe_text(
        """<ir_version: 8, opset_import: ["": 17]>
        f (float[batch, 4] x) => (int64[1] y) {
            shape = Shape (x)
            divisor = Constant <value = int64[2] {64, 2}> ()
            many = Div (shape, divisor)
            first = Constant <value = int64[1] {0}> ()
            second = Constant <value = int64[1] {1}> ()
            y = Gather <axis = 0> (many, first)
            halves = Gather <axis = 0> (many, second)
        }"""
    )
    assert shapes.data(values["y"]) is None
    assert shapes.data(values["halves"]).tolist() == [2]
