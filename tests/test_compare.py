"""Are two models the same: twins made elsewhere, twins of ours, near misses, and what is said of each."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import onnxcanon as oc
from onnxcanon.comparison import (
    VERDICTS,
    Comparison,
    compare,
    verdict,
)
from onnxcanon.comparison.correspondence import correspondence
from onnxcanon.comparison.maps import find_map
from onnxcanon.model import Model, load
from onnxcanon.settings import Settings
from onnxcanon.symmetry import symmetry
from tests import small_models
from tests.examples import layers, network
from tests.shared import MODELS, SHIPPED, TRIVIAL, TWINS, document, each
from tests.test_cli import CPU, Shell, shell  # noqa: F401 (a fixture)
from tests.test_fingerprint import touched

SAME = ("identical", "symmetric", "equivalent")
ON_CPU = Settings(device="cpu")
BOUND = 1e-5
"""More than rounding does to an entry of a rescaled twin, relative to its size."""

SLOW = {
    "blazeface-back-256",
    "fastestdet-shufflenetv2",
    "gpt2-tiny-pytorch14-raw",
    "gtcrn-stream-raw-gru",
    "gtcrn-stream-simplified-gru",
    "light-densenet121",
    "light-inception-v2",
    "mediapipe-selfie-segmentation",
    "ppocr-v2-cls",
}
"""Small models whose analysis takes a second."""
SMALL = [path for path in MODELS if path.stat().st_size < 1_000_000 and path.stem not in SLOW]

UNMOVED = ("base", "reexport", "reexport_raw", "twin_sign")
"""Files that may hold the very parameters of the base: other graphs, and signs that the exporter folded."""


@cache
def base(folder: Path) -> Model:
    return load(folder / "base.onnx")


def check_map(found: Comparison, a: Model, b: Model) -> None:
    """The map of a comparison does what its differences say."""
    moved = a if found.transform is None else oc.apply(a, found.transform)
    assert found.differences
    for d in found.differences:
        ours, theirs = moved.tensor(d.name), b.tensor(d.counterpart)
        assert int((ours == theirs).sum()) == d.equal, d.name
        size = np.maximum(np.abs(ours), np.abs(theirs)).astype(np.float64)
        apart = np.abs(ours.astype(np.float64) - theirs)
        assert (apart <= d.largest * size * (1 + 1e-12)).all(), d.name
        assert found.max_relative_difference is not None
        assert d.largest <= found.max_relative_difference


def entries(found: Comparison) -> tuple[int, int]:
    """How many entries there are, and how many are the same bit for bit."""
    return sum(d.entries for d in found.differences), sum(d.equal for d in found.differences)


# Twins whose truth is known


@pytest.mark.parametrize("folder", each(TWINS))
def test_equivalent_files_are_the_same_and_the_map_proves_it(folder: Path) -> None:
    files = document(folder / "truth.json")["files"]
    alike = [folder / name for name, told in files.items() if told["expected"] == "equivalent"]
    assert len(alike) >= 9
    for path in alike:
        other = load(path)
        found = compare(base(folder), other)
        assert found.verdict in SAME, f"{path.name}: {found}"
        assert found.same
        assert found.max_relative_difference is not None
        if found.verdict == "identical":
            assert path.stem in UNMOVED
            assert found.max_relative_difference == 0
        if found.verdict == "equivalent":
            assert path.stem.startswith("reexport")
            assert found.transform is None
        else:
            check_map(found, base(folder), other)
        if path.stem in ("twin_perm", "twin_pow2", "twin_anon", "reexport_perm"):
            rounded = "up to rounding" in found.reason
            assert rounded == (entries(found)[0] != entries(found)[1])
            assert not rounded or found.verdict == "equivalent"


@pytest.mark.parametrize("folder", each(TWINS))
def test_other_functions_are_never_the_same(folder: Path) -> None:
    files = document(folder / "truth.json")["files"]
    others = [folder / name for name, told in files.items() if told["expected"] == "not_equivalent"]
    assert len(others) >= 6
    for path in others:
        other = load(path)
        pairs = correspondence(base(folder), other)
        if path.stem.startswith(("near_miss_attr", "reexport", "bad")):
            found = compare(base(folder), other)
            assert found.verdict == "different", f"{path.name}: {found}"
        else:  # without a run of both models, which would only see what the parameters show already
            assert pairs is not None
            left = find_map(base(folder), other, pairs)
            assert not left.same, path.name
            assert not left.exact, path.name


@pytest.mark.parametrize("folder", each(TWINS))
def test_near_misses_are_different_from_the_twins_of_the_base_too(folder: Path) -> None:
    for twin, miss in (("twin_perm", "near_miss_swap"), ("twin_both", "near_miss_scaled")):
        a, b = load(folder / f"{twin}.onnx"), load(folder / f"{miss}.onnx")
        pairs = correspondence(a, b)
        assert pairs is not None
        assert not find_map(a, b, pairs).same, miss


@pytest.mark.parametrize("folder", each(TWINS))
def test_the_same_function_by_another_freedom_is_at_least_close(folder: Path) -> None:
    files = document(folder / "truth.json")["files"]
    for name in [name for name, told in files.items() if told["expected"] == "outside_group"]:
        found = compare(base(folder), load(folder / name))
        assert VERDICTS.index(found.verdict) <= VERDICTS.index("close"), f"{name}: {found}"
        if found.verdict == "close":
            assert "outputs agree" in found.reason
            assert found.verification is not None
            assert found.verification.same
            assert found.transform is None


# Twins of our own


@pytest.mark.parametrize("path", each(SHIPPED, SMALL))
def test_scrambled_twins_are_symmetric_to_the_last_bit(path: Path) -> None:
    model = load(path)
    twin = oc.scramble(model, seed=5).model
    found = compare(model, twin)
    assert found.verdict == ("identical" if path.stem in TRIVIAL else "symmetric"), str(found)
    every, equal = entries(found)
    assert every == equal
    if found.differences:
        check_map(found, model, twin)


@pytest.mark.parametrize("path", each(SHIPPED, SMALL))
def test_twins_by_any_positive_factors_are_symmetric_within_rounding(path: Path) -> None:
    model = load(path)
    group = symmetry(model)
    twin = group.random(np.random.default_rng(1), pow2=False).apply(model)
    found = compare(model, twin)
    assert found.verdict in ("identical", "symmetric"), str(found)
    assert (found.verdict == "identical") <= (path.stem in TRIVIAL)
    if found.differences:
        check_map(found, model, twin)
        assert found.max_relative_difference is not None
        assert found.max_relative_difference < BOUND


@pytest.mark.parametrize("path", each(SHIPPED, SMALL))
def test_one_changed_entry_is_seen_under_a_map(path: Path) -> None:
    model = load(path)
    rng = np.random.default_rng(2)
    changed = touched(model, rng)
    if changed is None:
        pytest.skip("it has no weights that vary")
    group = symmetry(model)
    other = group.random(rng, pow2=False).apply(changed)
    pairs = correspondence(model, other)
    assert pairs is not None
    assert not find_map(model, other, pairs).same


@pytest.mark.parametrize("path", each(SHIPPED[::2]))
def test_one_changed_entry_is_never_called_the_same(path: Path) -> None:
    model = load(path)
    changed = touched(model, np.random.default_rng(4))
    assert changed is not None
    found = compare(model, changed, settings=ON_CPU)
    assert found.verdict in ("close", "different")
    assert found.transform is None
    assert "after the best alignment 1 of " in found.reason


@pytest.mark.parametrize("count", [1, 2, 7, 40])
@pytest.mark.parametrize("path", each(SHIPPED[::2]))
def test_a_few_entries_changed_by_their_last_place_are_no_rounding(path: Path, count: int) -> None:
    """A rescaling rounds whole units: of one, and of one with another, far more entries."""
    model, rng = load(path), np.random.default_rng(5)
    name = max(model.tensor_names(), key=model.tensor_size)
    array = model.tensor(name).copy()
    places = rng.choice(array.size, count, replace=False)
    array.reshape(-1)[places] = np.nextafter(array.reshape(-1)[places], np.float32(9))
    changed = model.with_tensors({name: array})
    found = compare(model, changed, settings=ON_CPU)
    assert found.verdict == "close"
    assert f"after the best alignment {count} of " in found.reason
    twin = symmetry(model).random(rng).apply(changed)
    assert compare(model, twin, settings=ON_CPU).verdict == "close"


@pytest.mark.parametrize("path", each(SHIPPED[::2]))
def test_a_vector_changed_by_its_last_place_is_no_rounding(path: Path) -> None:
    """What rounds a bias or a gain rounds the weights of its units as well."""
    model = load(path)
    vectors = [n for n in symmetry(model).trace.parameters if len(model.tensor_info(n)[0]) == 1]
    name = max(vectors, key=model.tensor_size)
    changed = model.with_tensors({name: np.nextafter(model.tensor(name), np.float32(9))})
    assert compare(model, changed, settings=ON_CPU).verdict == "close"


@pytest.mark.parametrize("path", each(SHIPPED[::2]))
def test_ten_entries_here_and_there_are_no_rounding_of_units(path: Path) -> None:
    """Nor where the units are small: the filters of the transformer have four entries each."""
    model, rng = load(path), np.random.default_rng(3)
    pairs = correspondence(model, model)
    assert pairs
    large = [name for name in symmetry(model).trace.parameters if model.tensor(name).size > 100]
    for name in large:
        array = model.tensor(name).copy()
        places = rng.choice(array.size, 10, replace=False)
        array.reshape(-1)[places] = np.nextafter(array.reshape(-1)[places], np.float32(9))
        assert not find_map(model, model.with_tensors({name: array}), pairs).same


def test_a_change_that_folding_rounds_away_is_a_change() -> None:
    """The normal form multiplies by the inverse, which is one number for two neighbours."""
    model = load(small_models.model("g (float[n, 16] x) => (float[n, 16] y) { y = Div(x, by) }", {"by": ()}))
    numbers = np.linspace(1.1, 1.9, 60, dtype=np.float32)
    alike = [x for x in numbers if 1 / x == 1 / np.nextafter(x, np.float32(9))]
    assert alike
    for number in alike:
        one, other = (
            model.with_tensors({"by": np.array(by)}) for by in (number, np.nextafter(number, np.float32(9)))
        )
        assert not compare(one, other, settings=ON_CPU).same


@pytest.mark.parametrize("path", each(SHIPPED[::2]))
def test_one_unit_that_was_rescaled_is_rounding(path: Path) -> None:
    model = load(path)
    group = symmetry(model)
    exponents = np.zeros(group.scale.count)
    exponents[0] = np.log2(3)
    there = group.action(None, exponents).apply(model)
    assert compare(model, there, settings=ON_CPU).same
    name = max(model.tensor_names(), key=model.tensor_size)
    array = there.tensor(name).copy()
    array.reshape(-1)[-1] = np.nextafter(array.reshape(-1)[-1], np.float32(9))
    assert not compare(model, there.with_tensors({name: array}), settings=ON_CPU).same


# What the interface changes


def two_inputs() -> onnx.ModelProto:
    """(x, y) -> (u, v), of which no order is arbitrary."""
    text = """two (float[n, 4] x, float[n, 4] y) => (float[n, 4] u, float[n, 4] v) {
        a = MatMul(x, w1)
        b = Tanh(a)
        c = Sub(b, y)
        u = MatMul(c, w2)
        v = Relu(c)
    }"""
    return small_models.model(text, {"w1": (4, 4), "w2": (4, 4)})


def edited(proto: onnx.ModelProto, change: Callable[[onnx.GraphProto], object]) -> onnx.ModelProto:
    out = onnx.ModelProto.FromString(proto.SerializeToString())
    change(out.graph)
    return out


def swap(values: object) -> None:
    """The first two of a repeated field change places."""
    first, second, *rest = list(values)  # type: ignore[call-overload]
    del values[:]  # type: ignore[attr-defined]
    values.extend([second, first, *rest])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda g: swap(g.input), id="inputs"),
        pytest.param(lambda g: swap(g.output), id="outputs"),
        pytest.param(lambda g: swap(g.node[2].input), id="operands"),
        pytest.param(lambda g: setattr(g.node[1], "op_type", "Sigmoid"), id="operator"),
    ],
)
def test_another_interface_or_operator_is_another_model(change: Callable[[onnx.GraphProto], object]) -> None:
    proto = two_inputs()
    assert oc.compare(proto, edited(proto, lambda _: None)).verdict == "identical"
    assert not oc.compare(proto, edited(proto, change), device="cpu").same


def test_a_changed_attribute_is_another_model() -> None:
    def change(graph: onnx.GraphProto) -> None:
        graph.node[1].attribute.append(helper.make_attribute("alpha", 0.1))

    proto = small_models.mlp("LeakyRelu")
    found = oc.compare(proto, edited(proto, change), device="cpu")
    assert found.verdict == "different"
    assert found.reason.startswith("their graphs differ")
    default = edited(proto, lambda g: g.node[1].attribute.append(helper.make_attribute("alpha", 0.01)))
    assert oc.compare(proto, default).verdict == "identical"


def test_names_make_no_difference() -> None:
    proto = two_inputs()
    names = {"x": "y", "y": "x", "u": "one", "v": "other", "w1": "weight"}
    renamed = edited(proto, lambda _: None)
    graph = renamed.graph
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    assert oc.compare(proto, renamed).verdict == "identical"


# What is said


def test_a_difference_is_told_tensor_by_tensor() -> None:
    theta = layers(6, 16, 16, 3)
    other = [(w, b + np.float32(0.5)) for w, b in theta]
    found = compare(network(theta), network(other), settings=ON_CPU)
    first, *rest = str(found).splitlines()
    assert first == f"different: {found.reason}"
    assert [line.split(":")[0].strip() for line in rest]
    assert all("entries differ, by" in line for line in rest)
    same = compare(network(theta), network(theta))
    assert str(same) == "identical: every parameter is equal bit for bit"


def pruned(model: Model, share: float) -> Model:
    """The smallest entries of every matrix set to zero."""
    new = {}
    for name in model.tensor_names():
        array = model.tensor(name)
        if array.ndim > 1 and array.dtype == np.float32:
            new[name] = np.where(np.abs(array) < np.quantile(np.abs(array), share), 0, array)
    return model.with_tensors({name: array.astype(np.float32) for name, array in new.items()})


def tuned(model: Model, names: list[str], by: float) -> Model:
    """Noise of a share of their spread added to the tensors of these names."""
    rng = np.random.default_rng(8)
    arrays = {name: model.tensor(name) for name in names}
    noise = {name: by * a.std() * rng.normal(size=a.shape) for name, a in arrays.items()}
    return model.with_tensors({name: (a + noise[name]).astype(np.float32) for name, a in arrays.items()})


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("path", each(SHIPPED[:1], SHIPPED[2:3]))
def test_a_pruned_copy_is_called_pruned(path: Path, share: float) -> None:
    model = load(path)
    found = compare(model, pruned(model, share), settings=ON_CPU)
    assert found.verdict == "different"
    assert "B looks like A pruned" in found.reason
    back = compare(pruned(model, share), model, settings=ON_CPU)
    assert "pruned" not in back.reason.replace("A looks like B pruned", "")


@pytest.mark.parametrize("path", each(SHIPPED[::2]))
def test_a_fine_tuned_copy_is_told_from_a_stranger(path: Path) -> None:
    model = load(path)
    weights = [name for name in model.tensor_names() if model.tensor(name).dtype == np.float32]
    weights = [name for name in weights if model.tensor(name).size > 1]
    last = compare(model, tuned(model, weights[-1:], 0.3), settings=ON_CPU)
    assert not last.same
    assert "changed in part" in last.reason
    every = compare(model, tuned(model, weights, 0.03), settings=ON_CPU)
    assert not every.same
    assert "trained further" in every.reason
    stranger = compare(model, load(path.with_name(path.name.replace("seed0", "seed1"))), settings=ON_CPU)
    assert stranger.verdict == "different"
    assert "looks like" not in stranger.reason


# The command line


@pytest.fixture
def shelf(shell: Shell, tmp_path: Path) -> Path:  # noqa: F811
    """A model and its relatives, by name."""
    model = load(small_models.mlp())
    model.save(tmp_path / "model.onnx")
    oc.scramble(model, seed=3).model.save(tmp_path / "twin.onnx")
    oc.scramble(model, seed=3, only=["scale"]).model.save(tmp_path / "scaled.onnx")
    tuned(model, ["w2"], 0.2).save(tmp_path / "tuned.onnx")
    nudged = np.nextafter(model.tensor("w2"), np.float32(9))
    model.with_tensors({"w2": nudged}).save(tmp_path / "nudged.onnx")
    onnx.save(small_models.mlp("Tanh"), tmp_path / "tanh.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    return tmp_path


@pytest.mark.parametrize(
    ("other", "verdict", "status"),
    [
        ("model.onnx", "identical", 0),
        ("twin.onnx", "symmetric", 0),
        ("scaled.onnx", "symmetric", 0),
        ("tuned.onnx", "different", 1),
        ("tanh.onnx", "different", 1),
    ],
)
def test_the_status_is_the_answer(
    shell: Shell,  # noqa: F811
    shelf: Path,
    other: str,
    verdict: str,
    status: int,
) -> None:
    result = shell("compare", "model.onnx", other, *CPU)
    assert (result.status, result.err) == (status, "")
    assert result.out.startswith(f"{verdict}: ")
    result = shell("compare", "model.onnx", other, *CPU, "-q")
    assert (result.status, result.out, result.err) == (status, "", "")
    result = shell("compare", "model.onnx", other, *CPU, "--json")
    assert (result.status, result.err) == (status, "")
    told = result.document
    keys = {"verdict", "reason", "max_relative_difference", "permuted", "rescaled", "transform"}
    assert keys <= told.keys()
    assert (told["verdict"], told["transform"]) == (verdict, None)
    assert (told["permuted"] > 0) == (other == "twin.onnx")
    assert (told["rescaled"] > 0) == (other in ("twin.onnx", "scaled.onnx"))
    assert (told["max_relative_difference"] is None) == (other == "tanh.onnx")
    assert (told["verification"] is not None) == (verdict == "different")


def test_the_map_is_saved_where_there_is_one(shell: Shell, shelf: Path) -> None:  # noqa: F811
    result = shell("compare", "model.onnx", "twin.onnx", "--transform", "t.npz", "--json")
    assert result.document["transform"] == "t.npz"
    assert result.document["permuted"] == oc.load_transform("t.npz").permuted == 3
    assert shell("apply", "model.onnx", "t.npz", "-o", "again.onnx", *CPU).status == 0
    assert shell("compare", "again.onnx", "twin.onnx").out.startswith("identical: ")
    for other, why in (
        ("model.onnx", "nothing has to move"),
        ("nudged.onnx", "nothing has to move"),
        ("tanh.onnx", "no map was found"),
        ("tuned.onnx", "no map was found"),
    ):
        result = shell("compare", "model.onnx", other, "--transform", "u.npz", *CPU)
        assert "u.npz" not in shell.files
        assert result.err == f"onnxcanon: u.npz: not written, for {why}\n"


def test_a_map_between_normal_forms_is_not_saved(shell: Shell, shelf: Path) -> None:  # noqa: F811
    proto = onnx.load("model.onnx")
    proto.graph.node.insert(0, helper.make_node("Identity", ["x"], ["same"]))
    proto.graph.node[1].input[0] = "same"
    onnx.save(proto, "spelled.onnx")
    result = shell("compare", "twin.onnx", "spelled.onnx", "--transform", "u.npz")
    assert result.status == 0
    assert result.out.startswith("equivalent: ")
    assert "for the graphs differ" in result.err
    assert "u.npz" not in shell.files


@pytest.mark.parametrize(
    ("args", "cause"),
    [
        (["model.onnx"], "B"),
        (["model.onnx", "none.onnx"], "none.onnx: No such file"),
        (["text.onnx", "model.onnx"], "text.onnx: "),
        (["model.onnx", "tanh.onnx", "--device", "cuda:99"], "cuda:99"),
        (["model.onnx", "twin.onnx", "--rtol", "-1"], "--rtol"),
        (["model.onnx", "twin.onnx", "--shape", "batch=2"], "no dynamic dimension is called 'batch'"),
        (["model.onnx", "twin.onnx", "--data", "none.npz"], "none.npz: No such file"),
        (["model.onnx", "twin.onnx", "--transform", "twin.onnx"], "twin.onnx is"),
        (["model.onnx", "twin.onnx", "--transform", "none/t.npz"], "there is no folder none"),
    ],
)
def test_misuse_is_one_line_and_2(shell: Shell, shelf: Path, args: list[str], cause: str) -> None:  # noqa: F811
    before = {path.name: path.read_bytes() for path in shelf.iterdir()}
    result = shell("compare", *args)
    assert result.status == 2
    assert cause in result.complaint
    assert before == {path.name: path.read_bytes() for path in shelf.iterdir()}


@pytest.mark.parametrize("path", each(SHIPPED[:1]))
def test_a_coarser_copy_is_called_so(path: Path) -> None:
    model = load(path)
    names = [n for n in model.tensor_names() if len(model.tensor_info(n)[0]) == 2]

    def copy(coarser: Callable[[np.ndarray], np.ndarray]) -> Model:
        return model.with_tensors({n: coarser(model.tensor(n)).astype(np.float32) for n in names})

    step = {n: np.abs(model.tensor(n)).max() / 127 for n in names}
    eighth = model.with_tensors(
        {n: (np.rint(model.tensor(n) / step[n]) * step[n]).astype(np.float32) for n in names}
    )
    assert "quantized" in oc.compare(model, eighth).reason
    assert "half precision" in oc.compare(model, copy(lambda w: w.astype(np.float16))).reason


def test_a_wrong_rule_of_the_normal_form_ends_in_no_equivalence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs that a broken rule makes one are told apart by their outputs."""
    proto = small_models.mlp()
    other = edited(proto, lambda g: setattr(next(n for n in g.node if n.op_type == "Relu"), "op_type", "Abs"))
    assert not oc.compare(proto, other).same
    genuine = verdict.correspondence

    def blind(a: Model, b: Model, *, versions: bool = True) -> object:
        return genuine(a, b, versions=versions) if versions else [(n, n) for n in a.tensor_names()]

    monkeypatch.setattr(verdict, "correspondence", blind)
    found = oc.compare(proto, other)
    assert not found.same
    assert "defect" in found.reason


def folded_late() -> onnx.ModelProto:
    """A convolution with batch normalization of widely different channels, which the normal form folds."""
    rng = np.random.default_rng(4)
    width = 16
    values = {
        "w": rng.normal(0, 1, (width, 3, 3, 3)),
        "scale": np.r_[1e-3, rng.uniform(1e3, 2e3, width - 1)],
        "bias": np.r_[1e-5, rng.normal(0, 1e3, width - 1)],
        "mean": np.r_[1e-8, rng.normal(0, 0.05, width - 1)],
        "var": rng.uniform(0.5, 2, width),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("BatchNormalization", ["c", "scale", "bias", "mean", "var"], ["y"]),
        ],
        "folded late",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(v.astype(np.float32), n) for n, v in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_small_change_is_not_lost_beside_large_channels_when_it_is_folded() -> None:
    model = load(folded_late())
    mean = model.tensor("mean").copy()
    mean[0] += 5e-5
    found = oc.compare(model, model.with_tensors({"mean": mean}), device="cpu")
    assert not found.same


def test_weights_that_are_not_finite_are_matched_all_the_same() -> None:
    model = load(small_models.mlp())
    name = next(n for n in model.tensor_names() if len(model.tensor_info(n)[0]) == 2)
    odd = model.tensor(name).copy()
    odd[0, 0] = np.nan
    other = odd.copy()
    other[1, 1] += 1
    found = oc.compare(model.with_tensors({name: odd}), model.with_tensors({name: other}), device="cpu")
    assert not found.same
