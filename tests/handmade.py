"""Models made by hand for tests: small, with one of everything that a file can hold."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxcanon.errors import ModelError
from onnxcanon.model import load

WEIGHT = np.arange(16 * 32, dtype=np.float32).reshape(16, 32)


def raw(name: str, array: np.ndarray, kind: int = TensorProto.FLOAT) -> TensorProto:
    return TensorProto(name=name, data_type=kind, dims=array.shape, raw_data=array.tobytes())


def graph_of(initializers: list[TensorProto], nodes: list[onnx.NodeProto] | None = None) -> onnx.GraphProto:
    return helper.make_graph(
        nodes or [helper.make_node("MatMul", ["x", "w"], ["y"], name="matmul")],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 32])],
        initializers,
    )


def simple_model(*more: TensorProto) -> onnx.ModelProto:
    return helper.make_model(graph_of([raw("w", WEIGHT), *more]), ir_version=10)


def rich_model() -> onnx.ModelProto:
    """One of everything: every way to store a tensor, and something in every field that is easy to forget."""
    odd = TensorProto(
        name="typed", data_type=TensorProto.FLOAT, dims=[3], float_data=[1, 2, 3], doc_string="d"
    )
    odd.metadata_props.add(key="k", value="v")
    initializers = [
        raw("w", WEIGHT),
        odd,
        helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 16]),
        helper.make_tensor("half", TensorProto.FLOAT16, [2], [1.0, 2.0]),
        raw("brain", np.arange(800).astype(ml_dtypes.bfloat16), TensorProto.BFLOAT16),
        raw("eight", np.arange(2000).astype(ml_dtypes.float8_e4m3fn), TensorProto.FLOAT8E4M3FN),
        TensorProto(
            name="four",
            data_type=TensorProto.INT4,
            dims=[3, 1001],
            raw_data=bytes(range(250)) * 6 + b"\x01\x02",
        ),
        TensorProto(name="text", data_type=TensorProto.STRING, dims=[2], string_data=[b"a", b"\xff"]),
        raw("scalar", np.array(2.5, np.float32)),
        raw("none", np.zeros((0, 4), np.float32)),
    ]
    branch = helper.make_graph(
        [helper.make_node("Identity", ["inner"], ["out"])],
        "branch",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [16, 32])],
        [raw("inner", WEIGHT)],
    )
    nodes = [
        helper.make_node("Constant", [], ["c_tensor"], value=raw("", WEIGHT), name="c"),
        helper.make_node("Constant", [], ["c_float"], value_float=0.5),
        helper.make_node("Constant", [], ["c_floats"], value_floats=[0.5, 1.5]),
        helper.make_node("Constant", [], ["c_int"], value_int=-3),
        helper.make_node("Constant", [], ["c_ints"], value_ints=[-3, 4]),
        helper.make_node("Constant", [], ["c_string"], value_string="s"),
        helper.make_node("If", ["flag"], ["branched"], then_branch=branch, else_branch=branch),
        helper.make_node("MatMul", ["x", "w"], ["h"], doc_string="doc", overload="o"),
        helper.make_node("Twice", ["h"], ["y"], domain="local"),
    ]
    nodes[-2].metadata_props.add(key="node", value="meta")
    nodes[-2].device_configurations.add(configuration_id="d0")
    graph = graph_of(initializers, nodes)
    graph.doc_string = "graph doc"
    graph.metadata_props.add(key="graph", value="meta")
    graph.value_info.append(helper.make_tensor_value_info("unused", TensorProto.FLOAT, [1]))
    graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["n", 32]))
    graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    annotation = graph.quantization_annotation.add(tensor_name="h")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scalar")
    twice = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 21)],
    )  # fmt: skip
    imports = [helper.make_opsetid("local", 1), helper.make_opsetid("", 21)]
    made = helper.make_model(graph, functions=[twice], opset_imports=imports, ir_version=11)
    made.producer_name, made.producer_version, made.domain, made.model_version = "p", "1", "dom", 7
    made.doc_string = "model doc"
    for value in ("first", "second"):
        made.metadata_props.add(key="same key", value=value)
    made.configuration.add(name="d0", num_devices=2)
    return made


def nested_model() -> onnx.ModelProto:
    """Constants in branches, in graphs within graphs, and in functions; some of equal names."""

    def graph(*nodes: onnx.NodeProto, initializers: tuple[TensorProto, ...] = ()) -> onnx.GraphProto:
        out = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
        return helper.make_graph(
            [*nodes, helper.make_node("Identity", ["x"], ["o"])], "g", [], [out], initializers
        )

    def constant(name: str, k: int) -> onnx.NodeProto:
        return helper.make_node("Constant", [], [name], value=raw("", WEIGHT + k))

    one = np.ones(1, np.float32)
    inner = [
        graph(initializers=(raw("taken", 3 * one), raw("alone", 4 * one))),
        graph(initializers=(raw("taken", 5 * one),)),
    ]
    many = graph(
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("many", ["b"], ["c2"], domain="local", graphs=inner),
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node(
            "If", ["flag"], ["i"], then_branch=graph(constant("c", 1)), else_branch=graph(constant("c", 2))
        ),
        helper.make_node("If", ["flag"], ["j"], name="deep", then_branch=many, else_branch=graph()),
        constant("taken", 6),
    ]
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    functions = [
        helper.make_function(
            "local", "F", ["a"], ["d"],
            [constant("c", 8), helper.make_node("Constant", [], ["small"], value_float=0.25),
             helper.make_node("Add", ["a", "c"], ["d"])],
            imports[:1],
        ),
        helper.make_function("local", "F", ["a"], ["c"], [constant("c", 9)], imports[:1], overload="other"),
    ]  # fmt: skip
    main = graph_of([raw("w", WEIGHT)], nodes)
    main.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
    return helper.make_model(main, functions=functions, opset_imports=imports, ir_version=10)


def write(folder: Path, proto: onnx.ModelProto, name: str = "m.onnx") -> Path:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def write_external(folder: Path, proto: onnx.ModelProto, name: str = "m.onnx") -> Path:
    """Write a model with all large tensors in one data file, attributes and subgraphs included."""
    path = folder / name
    onnx.save(
        proto, path, save_as_external_data=True, location=f"{name}.weights", size_threshold=1024,
        convert_attribute=True,
    )  # fmt: skip
    return path


def same(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    return one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


def refer(tensor: TensorProto, **entries: object) -> TensorProto:
    """Make a tensor an external one with these entries."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def refusal(source: Path | onnx.ModelProto) -> str:
    with pytest.raises(ModelError) as caught:
        load(source)
    message = str(caught.value)
    assert "\n" not in message
    assert "; " in message
    if isinstance(source, Path):
        assert message.startswith(f"{source}: ")
    return message
