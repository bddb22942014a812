"""Loss and accuracy: those that truth files state, whatever a model returns, in batches of any size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnxcanon as oc
from onnxcanon.errors import OnnxcanonError
from tests.shared import ROOT, TWINS, document, each
from tests.test_cli import CPU, Shell, shell  # noqa: F401 (a fixture)

ROWS, WIDTH, CLASSES = 37, 5, 4


@pytest.mark.parametrize("folder", each(TWINS))
def test_accuracy_is_the_one_that_was_measured(folder: Path) -> None:
    told = document(folder / "truth.json")["files"]
    for name in ("base.onnx", "other_seed.onnx"):
        (found,) = oc.evaluate(folder / name, folder / "eval.npz", device="cpu")
        assert found.accuracy == pytest.approx(told[name]["metric"], abs=1e-9)
        assert found.error == pytest.approx(1 - found.accuracy)


@pytest.mark.parametrize("folder", each(TWINS))
def test_an_export_for_one_example_is_as_accurate(folder: Path) -> None:
    if not (folder / "reexport_static.onnx").exists():
        pytest.skip("it was not exported for one example")
    with np.load(folder / "eval.npz") as file:
        data = {name: file[name][:40] for name in ("x", "y")}
    found = [oc.evaluate(folder / f"{name}.onnx", data)[0] for name in ("base", "reexport_static")]
    assert found[0].accuracy == found[1].accuracy
    assert found[0].loss == pytest.approx(found[1].loss, rel=1e-4)


def weights() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (WIDTH, CLASSES)).astype(np.float32)


def linear(
    *after: onnx.NodeProto, rows: int | str = "n", weight: np.ndarray | None = None
) -> onnx.ModelProto:
    """x W, then more nodes, of which the last makes the output `out`."""
    w = weights() if weight is None else weight
    first = helper.make_node("MatMul", ["x", "w"], ["z" if after else "out"])
    graph = helper.make_graph(
        [first, *after],
        "linear",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [rows, WIDTH])],
        [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def examples() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, (ROWS, WIDTH)).astype(np.float32)
    return {"x": x, "y": rng.integers(0, CLASSES, ROWS)}


def expected(data: dict[str, np.ndarray]) -> tuple[float, float]:
    z = data["x"].astype(np.float64) @ weights()
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    loss = -np.log(p[np.arange(ROWS), data["y"]]).mean()
    return float(loss), float((z.argmax(1) == data["y"]).mean())


@pytest.mark.parametrize(
    "after",
    [
        [],
        [helper.make_node("Softmax", ["z"], ["out"], axis=-1)],
        [helper.make_node("Softmax", ["z"], ["p"], axis=-1), helper.make_node("Identity", ["p"], ["out"])],
        [helper.make_node("LogSoftmax", ["z"], ["out"], axis=-1)],
        [helper.make_node("LogSoftmax", ["z"], ["p"], axis=-1), helper.make_node("Identity", ["p"], ["out"])],
    ],
    ids=["logits", "probabilities", "probabilities passed on", "logarithms", "logarithms passed on"],
)
@pytest.mark.parametrize("batch", [1, 10, 100])
def test_loss_of_whatever_the_output_is(after: list[Any], batch: int) -> None:
    data = examples()
    (found,) = oc.evaluate(linear(*after), data, batch=batch, device="cpu")
    loss, accuracy = expected(data)
    assert found.loss == pytest.approx(loss, rel=1e-5)
    assert found.accuracy == accuracy
    assert (found.samples, found.measure) == (ROWS, "cross-entropy")


@pytest.mark.parametrize("rows", [1, 8])
def test_a_fixed_batch_is_filled_up(rows: int) -> None:
    data = examples()
    (found,) = oc.evaluate(linear(rows=rows), data, device="cpu")
    assert (found.loss, found.accuracy) == (pytest.approx(expected(data)[0], rel=1e-5), expected(data)[1])


def test_numbers_are_squared() -> None:
    data = examples()
    target = np.random.default_rng(2).normal(0, 1, (ROWS, CLASSES))
    (found,) = oc.evaluate(linear(), {**data, "y": target}, batch=10, device="cpu")
    assert found.loss == pytest.approx(((data["x"] @ weights() - target) ** 2).mean(), rel=1e-5)
    assert found.accuracy is None
    assert found.error is None


def test_a_single_number_is_that_of_the_second_of_two_classes() -> None:
    data = examples()
    one = weights()[:, :1]
    y = data["y"] % 2
    z = (data["x"].astype(np.float64) @ one)[:, 0]
    loss = np.mean(np.log1p(np.exp(np.where(y == 1, -z, z))))
    for after in ([], [helper.make_node("Sigmoid", ["z"], ["out"])]):
        (found,) = oc.evaluate(linear(*after, weight=one), {"x": data["x"], "y": y}, device="cpu")
        assert found.loss == pytest.approx(loss, rel=1e-5)
        assert found.accuracy == ((z > 0) == (y == 1)).mean()


def test_an_ensemble_averages_probabilities() -> None:
    data = examples()
    other = np.random.default_rng(3).normal(0, 1, (WIDTH, CLASSES)).astype(np.float32)
    found = oc.evaluate([linear(), linear(weight=other)], data, ensemble=True, batch=10, device="cpu")
    assert len(found) == 3
    p = []
    for w in (weights(), other):
        z = np.exp(data["x"].astype(np.float64) @ w)
        p.append(z / z.sum(1, keepdims=True))
    mean = (p[0] + p[1]) / 2
    assert found[2].loss == pytest.approx(-np.log(mean[np.arange(ROWS), data["y"]]).mean(), rel=1e-5)
    assert found[2].accuracy == (mean.argmax(1) == data["y"]).mean()


def test_classes_may_stand_on_the_second_axis() -> None:
    """As they do where every pixel has a label."""
    data = examples()
    shape = numpy_helper.from_array(np.array([-1, CLASSES, 1]), "shape")
    proto = linear(helper.make_node("Reshape", ["z", "shape"], ["out"]))
    proto.graph.initializer.append(shape)
    (found,) = oc.evaluate(proto, {"x": data["x"], "y": data["y"][:, None]}, device="cpu")
    assert found.loss == pytest.approx(expected(data)[0], rel=1e-5)


def test_arrays_in_files_of_their_own(tmp_path: Path) -> None:
    data = examples()
    for name, array in data.items():
        np.save(tmp_path / f"{name}.npy", array)
    (found,) = oc.evaluate(linear(), tmp_path / "x.npy", labels=tmp_path / "y.npy", device="cpu")
    assert found.loss == pytest.approx(expected(data)[0], rel=1e-5)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda d: d.pop("y"), "no labels"),
        (lambda d: d.update(y=d["y"] + CLASSES), "not all among 4 classes"),
        (lambda d: d.update(y=np.zeros((ROWS, 2), int)), "no axis of classes"),
        (lambda d: d.update(y=np.zeros((ROWS, 2))), "the labels"),
        (lambda d: d.pop("x"), "no values for input"),
        (lambda d: d.update(x=d["x"][:, :, None]), r"takes \[n, 5\], the data holds \[37, 5, 1\]"),
        (lambda d: d.update(y=d["y"][:-1]), "as long as the 36 labels: 'x' "),
        (lambda d: d.update(x=d["x"][:-1]), "as long as the 37 labels: 'x' "),
        (lambda d: d.update(y=d["y"][0]), "a number for each example"),
        (lambda d: d.update(y=d["y"].astype(str)), "a number for each example"),
        (lambda d: d.update(x=d["x"][:0], y=d["y"][:0]), "a number for each example"),
    ],
)
def test_data_that_does_not_fit(change: Any, cause: str) -> None:
    data = examples()
    change(data)
    with pytest.raises(OnnxcanonError, match=cause):
        oc.evaluate(linear(), data, device="cpu")


def test_on_the_command_line(shell: Shell, tmp_path: Path) -> None:  # noqa: F811
    models = [str(ROOT / "models" / f"digits_mlp_seed{k}.onnx") for k in (0, 1)]
    data = ["--data", str(ROOT / "models" / "digits_eval.npz"), *CPU]
    told = shell("evaluate", *models, *data, "--ensemble", "--json")
    assert told.status == 0
    found = json.loads(told.out)
    assert [m["model"] for m in found["models"]] == models
    assert found["ensemble"]["accuracy"] >= 0.9
    assert {"loss", "accuracy", "error", "samples", "measure", "device"} <= found["models"][0].keys()
    plain = shell("evaluate", *models, *data)
    assert plain.status == 0
    assert len(plain.out.splitlines()) == 2
    wrong = shell("evaluate", models[0], "--data", str(tmp_path / "none.npz"), *CPU)
    assert (wrong.status, wrong.out) == (2, "")
    assert len(wrong.err.splitlines()) == 1
    assert shell("evaluate", models[0], *data, "--output", "nothing").status == 2
