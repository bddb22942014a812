"""The verbs as functions: what they take, what they refuse, and how results show themselves."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import onnx_ir
import pytest
from click.testing import CliRunner

import onnxcanon as oc
from onnxcanon.cli.main import VERBS, main
from onnxcanon.symmetry import symmetry
from onnxcanon.verbs.signature import parameters
from tests.shared import ROOT

MLP = [str(ROOT / "models" / f"digits_mlp_seed{seed}.onnx") for seed in (0, 1)]
DATA = str(ROOT / "models" / "digits_eval.npz")
CPU = {"device": "cpu"}


@pytest.fixture(scope="module")
def results() -> list[Any]:
    """One result of each verb, and what they hold."""
    twin = oc.scramble(MLP[0])
    model = oc.load(MLP[0])
    return [
        twin,
        twin.transform,
        twin.model,
        model,
        symmetry(model),
        oc.analyze(model),
        oc.canonicalize(MLP[0], **CPU),
        oc.fingerprint(MLP[0]),
        oc.sketch(MLP[0]),
        oc.compare(MLP[0], twin.model),
        oc.verify(*MLP, **CPU),
        oc.align(*MLP),
        oc.merge(*MLP, verify=False),
        *oc.evaluate(MLP[0], DATA, **CPU),
        oc.barrier(*MLP, DATA, points=2, align="none", **CPU),
        oc.flatness(MLP[0], DATA, sigmas=[0.1], draws=2, **CPU),
        oc.distance(*MLP),
    ]


def test_a_repr_is_short(results: list[Any]) -> None:
    for result in results:
        assert len(repr(result)) < 500, type(result)
        assert "\n" not in repr(result)
        assert type(result).__name__ in repr(result)


def test_results_can_be_pickled(results: list[Any]) -> None:
    for result in results:
        copy = pickle.loads(pickle.dumps(result))
        assert str(copy) == str(result)
        if hasattr(result, "to_json"):
            assert copy.to_json() == result.to_json()


def test_a_pickled_model_is_whole_whatever_becomes_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(onnx.load(MLP[0]), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = oc.load(path)
    moved = oc.scramble(model).model
    pickles = [pickle.dumps(one) for one in (model, moved)]
    path.unlink()
    (tmp_path / "weights.bin").unlink()
    for one, copy in zip((model, moved), map(pickle.loads, pickles), strict=True):
        assert copy.name == str(path)
        assert copy.tensor_names() == one.tensor_names()
        assert all((copy.tensor(name) == one.tensor(name)).all() for name in one.tensor_names())


def test_notebooks_show_what_print_shows(results: list[Any]) -> None:
    shown = [result for result in results if hasattr(result, "_repr_html_")]
    assert {"Analysis", "Comparison", "Barrier", "Distances", "Evaluation"} <= {
        type(result).__name__ for result in shown
    }
    for result in shown:
        assert escape(str(result)) in result._repr_html_()


def test_a_notebook_draws_the_curves_of_a_barrier(results: list[Any]) -> None:
    (barrier,) = (result for result in results if isinstance(result, oc.Barrier))
    drawing = barrier._repr_html_().split("<pre>")[0]
    (line,) = ElementTree.fromstring(drawing).findall("{http://www.w3.org/2000/svg}polyline")
    ends = [point.split(",") for point in line.attrib["points"].split()]
    assert [float(x) for x, _ in ends] == [0, 360]
    assert {float(y) for _, y in ends} == {0, 160}


@pytest.mark.parametrize("verb", [*VERBS, "sketch"])
def test_every_parameter_is_described(verb: str) -> None:
    function = getattr(oc, verb)
    described = {parameter.name: parameter.help for parameter in parameters(function)}
    assert all(described.values())
    varying = inspect.Parameter.VAR_POSITIONAL
    names = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not varying]
    assert list(described) == names


def test_a_model_may_be_given_in_many_ways() -> None:
    proto = onnx.load(MLP[0])
    wanted = oc.fingerprint(MLP[0]).fingerprint
    for model in (Path(MLP[0]), Path(MLP[0]).read_bytes(), proto, onnx_ir.from_proto(proto), oc.load(proto)):
        assert oc.fingerprint(model).fingerprint == wanted


def test_models_may_be_given_one_by_one() -> None:
    assert oc.distance(*MLP) == oc.distance(MLP)
    assert oc.merge(*MLP, align="none").models == oc.merge(MLP, align="none").models
    assert oc.merge(models=iter(MLP), align="none").weights == (0.5, 0.5)


def test_numbers_of_numpy_are_numbers() -> None:
    assert oc.scramble(MLP[0], seed=np.int64(3)).to_json() == oc.scramble(MLP[0], seed=3).to_json()
    assert type(oc.scramble(MLP[0], seed=np.int64(3)).seed) is int
    assert oc.canonicalize(MLP[0], base=np.float32(2), verify=False).order == "norm"
    for sizes in ({"batch": np.int64(3)}, {"x": np.array([3, 1, 8, 8])}):
        assert oc.analyze(MLP[0], sizes=sizes) == oc.analyze(MLP[0], sizes={"batch": 3})


@pytest.mark.parametrize(
    ("call", "cause"),
    [
        (lambda: oc.analyze([MLP[0]]), "list is no model; give a path"),
        (lambda: oc.analyze(None), "None is no model"),
        (lambda: oc.analyze(3), "3 is no model"),
        (lambda: oc.analyze(b"PK\x03\x04"), "<model>"),
        (lambda: oc.analyze(), "missing a required argument: 'model'; it is called as analyze(model, "),
        (lambda: oc.analyze(*MLP), "too many positional arguments"),
        (lambda: oc.compare(MLP), "'b'"),
        (lambda: oc.compare(*MLP, *MLP), "it is called as compare(a, b, rtol="),
        (lambda: oc.evaluate(*MLP, DATA), "it is called as evaluate(models, data, "),
        (lambda: oc.evaluate(MLP, 3), "3 is no data"),
        (lambda: oc.evaluate([], DATA), "nothing to evaluate"),
        (lambda: oc.evaluate(MLP, np.zeros((2, 64))), "ndarray is no data"),
        (lambda: oc.merge(MLP, [MLP[0]]), "list is no model"),
        (lambda: oc.merge(MLP, weights=0.5), "weights has to be a list of numbers, not 0.5"),
        (lambda: oc.merge(MLP, progress=True), "progress has to be a function"),
        (lambda: oc.scramble(MLP[0], seed="7"), "scramble: seed has to be an integer from 0 on"),
        (lambda: oc.scramble(MLP[0], seed=-1), "scramble: seed has to be an integer from 0 on, not -1"),
        (lambda: oc.canonicalize(MLP[0], base="2"), "base has to be a number"),
        (lambda: oc.analyze(MLP[0], sizes=3), "sizes has to be a dictionary"),
        (lambda: oc.analyze(MLP[0], sizes={"batch": -1}), "sizes has to be a dictionary"),
        (lambda: oc.analyze(MLP[0], sizes={"batch": "2"}), "sizes has to be a dictionary"),
        (lambda: oc.verify(*MLP, rtol=float("nan")), "rtol has to be a number from 0 on"),
        (lambda: oc.scramble(MLP[0], only=3), "only has to be a list of words, not 3"),
        (lambda: oc.flatness(MLP[0], None), "data is needed"),
        (lambda: oc.load_transform(None), "None is no path"),
        (lambda: oc.load(MLP[0]).save(3), "3 is no path"),
        (lambda: oc.verify(*MLP, device=0), "device has to be a string, not 0"),
        (lambda: oc.barrier(*MLP, DATA, points=2.5), "points has to be an integer"),
        (lambda: oc.apply(MLP[0], 3), "3 is no transform"),
        (lambda: oc.flatness(MLP[0], DATA, batch=0), "batch has to be an integer from 1 on, not 0"),
        (lambda: oc.analyze(MLP[0], frobnicate=True), "unexpected keyword argument 'frobnicate'"),
    ],
)  # fmt: skip  # a call and its answer stand in one line
def test_wrong_calls_say_what_to_pass(call: Callable[[], object], cause: str) -> None:
    with pytest.raises(oc.OnnxcanonError) as error:
        call()
    assert cause in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_wrong_call_is_a_type_error_too() -> None:
    with pytest.raises(TypeError):
        oc.analyze(3)  # type: ignore[arg-type]  # the point of it


def test_one_word_stands_for_a_list_of_one() -> None:
    assert oc.scramble(MLP[0], only="permute").only == ("permute",)  # type: ignore[arg-type]  # a kindness


def test_dir_shows_the_public_names_alone() -> None:
    assert dir(oc) == sorted(oc.__all__)


@pytest.mark.parametrize("verb", ["evaluate", "barrier", "flatness"])
def test_what_has_no_default_is_required_by_the_command_line(verb: str) -> None:
    result = CliRunner().invoke(main, [verb, *map(str, MLP)][: 2 if verb == "flatness" else 3])
    assert result.exit_code == 2
    assert "Missing option '--data'" in result.stderr
