from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxcanon.errors import OnnxcanonError, RuntimeUnavailableError
from onnxcanon.model import load
from onnxcanon.runtime.batches import data_inputs
from onnxcanon.runtime.inputs import input_specs
from onnxcanon.runtime.random_inputs import INPUT_KINDS, RandomInputs, accepted_inputs
from onnxcanon.runtime.sessions import open_session
from onnxcanon.settings import Settings
from onnxcanon.shapes.sizes import DynamicDimensions
from tests.runtime_graphs import SHARED, Shape, mlp, model, needs_shared, value

ALL_TYPES = [
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.DOUBLE,
    TensorProto.INT64,
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.BOOL,
]


def plan(base, shapes=None) -> RandomInputs:
    sizes = DynamicDimensions.of(base.ir.graph).fixed(shapes or {}, base.name)
    with open_session(base, device="cpu") as session:
        return accepted_inputs(input_specs(base.ir), session.run, Settings(sizes))


def echo(name: str, shape: Shape, dtype: int):
    """A model that gives its one input back."""
    return model(
        [helper.make_node("Identity", [name], ["y"])], [value(name, shape, dtype)], [value("y", None, dtype)]
    )


@pytest.mark.parametrize("dtype", ALL_TYPES)
@pytest.mark.parametrize("kind", INPUT_KINDS)
def test_inputs_have_the_declared_type_and_shape_and_are_finite(dtype, kind):
    made = plan(echo("x", ["batch", 3, 5], dtype)).draw(kind)["x"]
    assert made.dtype == helper.tensor_dtype_to_np_dtype(dtype)
    assert made.shape == (2, 3, 5)
    assert np.isfinite(made.astype(np.float64)).all()


def test_equal_seeds_make_equal_inputs_and_others_do_not():
    made = plan(mlp())
    for kind in INPUT_KINDS:
        first, again, other = (made.draw(kind, seed)["x"] for seed in (3, 3, 4))
        assert np.array_equal(first, again)
        assert kind in ("ones", "zeros") or not np.array_equal(first, other)


def test_kinds_differ_in_what_they_exercise():
    made = {kind: plan(echo("x", [1, 3, 32, 32], TensorProto.FLOAT)).draw(kind)["x"] for kind in INPUT_KINDS}
    steps = {
        kind: np.abs(np.diff(array, axis=-1)).mean() / array.std()
        for kind, array in made.items()
        if array.std()
    }
    assert steps["smooth"] < steps["normal"] / 2
    assert 0.05 < np.count_nonzero(made["sparse"]) / made["sparse"].size < 0.2
    assert made["bytes"].max() > 100
    magnitudes = np.abs(made["mixed"])
    assert magnitudes.max() / magnitudes.min() > 1e3


def test_half_precision_stays_far_from_its_largest_number():
    made = plan(echo("x", [64, 64], TensorProto.FLOAT16))
    assert max(np.abs(made.draw(kind)["x"]).max() for kind in INPUT_KINDS) < 100


@pytest.mark.parametrize("steps", [[], ["Cast", "Identity"], ["Unsqueeze"]])
@pytest.mark.parametrize("kind", INPUT_KINDS)
def test_ids_stay_within_the_table_they_index(steps, kind):
    name, nodes = "ids", []
    for index, op_type in enumerate(steps):
        extra = ["axis"] if op_type == "Unsqueeze" else []
        attributes = {"to": TensorProto.INT32} if op_type == "Cast" else {}
        nodes.append(helper.make_node(op_type, [name, *extra], [f"v{index}"], **attributes))
        name = f"v{index}"
    nodes.append(helper.make_node("Gather", ["table", name], ["y"]))
    base = model(
        nodes,
        [value("ids", ["batch", "seq"], TensorProto.INT64)],
        [value("y", None)],
        {"table": np.eye(6, dtype=np.float32), "axis": np.array([0])},
    )
    made = plan(base).draw(kind)["ids"]
    assert 0 <= made.min() <= made.max() < 6


def test_masks_keep_something_in_each_row():
    base = echo("attention_mask", ["batch", "seq"], TensorProto.INT64)
    for kind in INPUT_KINDS:
        mask = plan(base).draw(kind)["attention_mask"]
        assert set(np.unique(mask)) <= {0, 1}
        assert mask[:, 0].all()


def test_an_input_compared_with_a_constant_takes_it():
    nodes = [
        helper.make_node("Equal", ["rate", "known"], ["is"]),
        helper.make_node("Cast", ["is"], ["y"], to=TensorProto.FLOAT),
    ]
    base = model(
        nodes, [value("rate", [], TensorProto.INT64)], [value("y", None)], {"known": np.array(16000)}
    )
    assert plan(base).draw("normal")["rate"] == 16000


def test_strings_are_refused_and_taken_from_data():
    base = echo("text", [2], TensorProto.STRING)
    with pytest.raises(RuntimeUnavailableError, match="'text' holds STRING"):
        input_specs(base.ir)
    specs = input_specs(base.ir, any_type=True)
    (given,) = data_inputs(specs, {"text": np.array(["a", "b"], object)}, 4, 4)
    assert given["text"].tolist() == ["a", "b"]


def test_initializers_listed_as_inputs_are_not_inputs():
    inputs = [value("x", [1]), value("w", [1])]
    base = model(
        [helper.make_node("Add", ["x", "w"], ["y"])], inputs, [value("y", [1])], {"w": np.ones(1, np.float32)}
    )
    assert [spec.name for spec in input_specs(base.ir)] == ["x"]


def test_the_search_finds_the_only_size_that_runs():
    # 12 rows of 8 per example: the sequence has to be a multiple of 32 to reshape.
    shape = np.array([-1, 32, 8])
    base = model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [value("x", ["batch", "frames"])],
        [value("y", None)],
        {"shape": shape},
    )
    batch, frames = plan(base).shapes["x"]
    assert batch * frames % 256 == 0


def test_dimensions_of_one_name_share_one_size_and_totals_add_up():
    names = {"now": ["batch", "seq_len"], "past": ["batch", "past_len"], "mask": ["batch", "total_len"]}
    nodes = [
        helper.make_node("Concat", ["past", "now"], ["all"], axis=1),
        helper.make_node("Mul", ["all", "mask"], ["y"]),
    ]
    base = model(nodes, [value(name, dims) for name, dims in names.items()], [value("y", None)])
    shapes = plan(base).shapes
    assert shapes["mask"][1] == shapes["past"][1] + shapes["now"][1]
    assert len({shape[0] for shape in shapes.values()}) == 1


def test_the_caller_may_fix_sizes_by_dimension_or_input():
    assert plan(mlp(), shapes={"batch": 5}).shapes["x"] == (5, 8)
    assert plan(mlp(), shapes={"x": (7, 8)}).shapes["x"] == (7, 8)
    with pytest.raises(OnnxcanonError, match="is called 'width'; it has batch"):
        plan(mlp(), shapes={"width": 5})
    with pytest.raises(OnnxcanonError, match="does not fit input 'x'"):
        plan(mlp(), shapes={"x": (7, 9)})


def test_unnamed_dimensions_are_fixed_by_their_place():
    inputs = [value("x", [None, None]), value("z", [None, 4])]
    nodes = [helper.make_node("Identity", [name], [f"{name}2"]) for name in ("x", "z")]
    base = model(nodes, inputs, [value("x2", None), value("z2", None)])
    assert plan(base, {"x[0]": 5, "x[1]": 3}).shapes == {"x": (5, 3), "z": (5, 4)}
    assert plan(base, {"x": (5, 3), "z[0]": 2}).shapes == {"x": (5, 3), "z": (2, 4)}
    with pytest.raises(OnnxcanonError, match=r"called 'x:1'; it has x\[0\], x\[1\], z\[0\]"):
        plan(base, {"x:1": 3})


def test_where_nothing_runs_the_first_refusal_is_quoted():
    def refuse(inputs):
        raise RuntimeUnavailableError("no such kernel")

    with pytest.raises(RuntimeUnavailableError, match=r"no input shape was found .* no such kernel"):
        accepted_inputs(input_specs(mlp().ir), refuse, Settings())


def test_data_is_cut_into_batches_and_states_are_not():
    inputs = [value("x", ["batch", 2]), value("state", [1, 3])]
    base = model(
        [helper.make_node("Identity", [name], [f"{name}2"]) for name in ("x", "state")],
        inputs,
        [value("x2", None), value("state2", None)],
    )
    data = {"x": np.arange(14.0).reshape(7, 2), "state": np.zeros((1, 3)), "y": np.arange(7)}
    sets = data_inputs(input_specs(base.ir), data, batch=3, most=10)
    assert [made["x"].shape for made in sets] == [(3, 2), (3, 2), (1, 2)]
    assert {made["state"].shape for made in sets} == {(1, 3)}
    assert sets[0]["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("data", "message"),
    [({}, "no values for input 'x'"), ({"x": np.zeros(8)}, "takes"), ({"x": np.array([["a"] * 8])}, "takes")],
)
def test_data_that_does_not_fit_is_refused(data, message):
    with pytest.raises(OnnxcanonError, match=message):
        data_inputs(input_specs(mlp().ir), data, 4, 4)


def small_models() -> list[str]:
    if not SHARED.is_dir():
        return []
    entries = json.loads((SHARED / "models" / "MANIFEST.json").read_text())["models"]
    return [entry["file"] for entry in entries if entry["dynamic_shapes"] and entry["bytes"] < 3_000_000]


@needs_shared
@pytest.mark.parametrize("name", small_models())
def test_real_models_run_on_shapes_that_were_found(name):
    made = plan(load(SHARED / "models" / name))
    assert set(made.shapes) == {spec.name for spec in made.specs}
