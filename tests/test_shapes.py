"""The shape pass agrees with onnxruntime on every shape and every value that it claims to know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcanon.symmetry.shapes import Shapes, probe

SHARED = Path(__file__).parents[2] / "shared"
SMALL = 4_000_000  # bytes of a model that is worth running here

MODELS = sorted((SHARED / "models").glob("*.onnx"))
TWINS = sorted(SHARED.glob("twins/*/base.onnx")) + sorted(SHARED.glob("twins/*/reexport*.onnx"))
UNDECLARED = {  # outputs of opaque subgraphs, whose shape the file does not say
    "gpt2-tiny-greedysearch-contrib",
    "loop-fp16-tiny",
    "loop-polygraphy",
    "loop-shadows-outer-scope",
    "lstm-as-loop-tiny",
    "silero-vad-v5-half-if",
    "silero-vad-v5-if",
    "tract-qlstm-scan",
}


def run_probe(graph: ir.Graph) -> Shapes:
    return probe(graph, lambda name: graph.initializers[name].const_value.numpy())


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


def feeds(graph: ir.Graph, shapes: Shapes, index: int, fill: dict[str, Any]) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    result = {}
    for value in graph.inputs:
        if value.const_value is not None:
            continue
        shape = shapes.shapes(value)[index]
        dtype = value.dtype.numpy()
        if value.name in fill:
            result[value.name] = np.full(shape, fill[value.name], dtype)
        elif dtype.kind == "f":
            result[value.name] = rng.standard_normal(shape).astype(dtype)
        else:
            result[value.name] = rng.integers(1, 2, shape).astype(dtype)
    return result


def fills(name: str) -> dict[str, Any]:
    manifest = SHARED / "models" / "MANIFEST.json"
    if not manifest.exists():
        return {}
    for entry in json.loads(manifest.read_text())["models"]:
        if entry["name"] == name:
            return {i["name"]: i["fill"] for i in entry["ort"].get("run_inputs", []) if "fill" in i}
    return {}


def disagreements(path: Path, index: int) -> tuple[list[str], int]:
    """What the pass claims and onnxruntime does not confirm; and how many values it was asked about."""
    ort = pytest.importorskip("onnxruntime")
    graph = ir.load(str(path)).graph
    shapes = run_probe(graph)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    where = path.with_name(path.name)
    proto = exposed(where)
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = {value.name: value for node in graph for value in node.outputs}
    names = [output.name for output in session.get_outputs() if output.name in values]
    results = session.run(names, feeds(graph, shapes, index, fills(path.stem)))
    wrong = []
    for name, actual in zip(names, results, strict=True):
        shape, data = shapes.shapes(values[name])[index], shapes.data_pair(values[name])[index]
        if shape is not None and shape != np.shape(actual):
            wrong.append(f"{name}: shape {shape}, really {np.shape(actual)}")
        if data is not None and (
            data.dtype != actual.dtype or not np.allclose(data, actual, rtol=1e-6, equal_nan=True)
        ):
            wrong.append(f"{name}: value {data.ravel()[:8]}, really {np.ravel(actual)[:8]}")
    return wrong, len(names)
