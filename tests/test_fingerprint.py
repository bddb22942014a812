"""One name for all files of a model: it survives disguise and twins, and nothing else does."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxcanon as oc
from onnxcanon.canonical.fingerprint import fingerprint
from onnxcanon.choices import LEVELS
from onnxcanon.model import Model, load
from onnxcanon.transform import Transform
from tests import small_models
from tests.disguise import disguised
from tests.fuzz.graphs import generate
from tests.shared import MODELS, ROOT, SHIPPED, TWINS, document, each

ALIKE = ("base", "twin_perm", "twin_pow2", "twin_sign", "twin_anon", "reexport_extdata")
LARGEST = 8_000_000  # bytes of a file that the quick tests read


@cache
def name(path: Path, level: str = "canonical") -> str:
    return fingerprint(load(path), level)[0]


@pytest.mark.parametrize("path", each(SHIPPED))
def test_names_are_kept_for_ever(path: Path) -> None:
    """A change of these needs a new version in the name: registries hold them."""
    for level, golden in document(ROOT / "tests" / "golden" / "fingerprints.json")[path.name].items():
        assert name(path, level) == golden


@pytest.mark.parametrize("path", each(SHIPPED))
def test_names_do_not_depend_on_how_tensors_are_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large tensors are read in blocks, by several threads, again for every pass: here all of them are."""
    monkeypatch.setattr("onnxcanon.arrays.BLOCK", 50)
    monkeypatch.setattr("onnxcanon.canonical.digest.LARGE_TENSOR", 64)
    monkeypatch.setattr("onnxcanon.canonical.choose_signs.READ_ONCE_ENTRIES", 0)
    for level, golden in document(ROOT / "tests" / "golden" / "fingerprints.json")[path.name].items():
        assert fingerprint(load(path), level)[0] == golden


@pytest.mark.parametrize("folder", each(TWINS))
def test_twins_share_a_fingerprint_and_near_misses_do_not(folder: Path) -> None:
    base = name(folder / "base.onnx")
    files = document(folder / "truth.json")["files"]
    alike = [folder / f for f in files if Path(f).stem in ALIKE]
    assert len(alike) >= 4
    for path in alike:
        assert name(path) == base, path.name
    others = [folder / f for f, told in files.items() if told["expected"] == "not_equivalent"]
    assert len(others) >= 4
    for path in others:
        assert name(path) != base, path.name


@pytest.mark.parametrize("path", each(SHIPPED, MODELS))
def test_a_disguise_or_a_twin_changes_nothing(path: Path) -> None:
    if path.stat().st_size > LARGEST:
        pytest.skip("large")
    proto = onnx.load(path)
    other = disguised(proto, np.random.default_rng(len(path.name)))
    for level in ("structure", "content", "canonical"):
        assert fingerprint(load(other), level)[0] == name(path, level), level
    twin = oc.scramble(proto, seed=3).model
    assert fingerprint(load(disguised(twin.to_proto(), np.random.default_rng(1))))[0] == name(path)
    assert name(path, "file") != fingerprint(load(other), "file")[0]


@pytest.mark.parametrize("path", each(SHIPPED, MODELS))
def test_one_changed_entry_changes_the_fingerprint(path: Path) -> None:
    if path.stat().st_size > LARGEST:
        pytest.skip("large")
    model = load(path)
    rng = np.random.default_rng(0)
    for _ in range(3):
        changed = touched(model, rng)
        if changed is None:
            pytest.skip("it has no weights that vary")
        for level in ("content", "canonical"):
            assert fingerprint(changed, level)[0] != name(path, level)
        assert fingerprint(changed, "structure")[0] == name(path, "structure")


def touched(model: Model, rng: np.random.Generator) -> Model | None:
    """A random entry changed by a thousandth of its tensor's spread; one that an output depends on."""
    read = {key for node in model.ir.graph.all_nodes() for v in node.inputs if v and (key := model.key(v))}
    able = []
    for key in model.tensor_names():
        shape, dtype = model.tensor_info(key)
        if key in read and dtype.is_floating_point() and np.prod(shape, dtype=int) > 1:
            array = model.tensor(key).astype(np.float64)
            if array.std() > 0 and np.isfinite(array).all():
                able.append((key, array.std()))
    if not able:
        return None
    while True:
        key, spread = able[int(rng.integers(len(able)))]
        array = model.tensor(key).copy()
        place = tuple(int(rng.integers(n)) for n in array.shape)
        before = array[place]
        array[place] += np.asarray(1e-3 * spread * rng.choice([-1, 1])).astype(array.dtype)
        if array[place] != before:
            return model.with_tensors({key: array})


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_random_graphs_in_disguise(first: int) -> None:
    for seed in range(first, first + 20):
        proto = generate(seed).proto
        found, notes = fingerprint(load(proto))
        other = disguised(proto, np.random.default_rng(seed))
        assert fingerprint(load(other), "content")[0] == fingerprint(load(proto), "content")[0], seed
        twin = oc.scramble(other, seed=seed).model
        assert fingerprint(twin)[0] == found or notes, seed


def test_levels_look_through_more_and_more() -> None:
    proto = small_models.mlp()
    twin = oc.scramble(proto, seed=1).model
    names = {level: fingerprint(load(proto), level)[0] for level in LEVELS}
    twins = {level: fingerprint(twin, level)[0] for level in LEVELS}
    assert {level for level in LEVELS if names[level] == twins[level]} == {"canonical", "structure", "file"}
    assert len(set(names.values())) == len(LEVELS)  # a twin in memory still has the bytes it was read from


def test_a_constant_node_is_an_initializer_and_a_default_is_an_attribute() -> None:
    proto = small_models.mlp()
    spelled = onnx.ModelProto.FromString(proto.SerializeToString())
    first = spelled.graph.initializer[0]
    spelled.graph.node.insert(0, onnx.helper.make_node("Constant", [], [first.name], value=first))
    del spelled.graph.initializer[0]
    for node in spelled.graph.node:
        if node.op_type == "Gemm" and not any(a.name == "alpha" for a in node.attribute):
            node.attribute.append(onnx.helper.make_attribute("alpha", 1.0))
    assert fingerprint(load(spelled))[0] == fingerprint(load(proto))[0]


def test_what_matters_to_an_output_is_in_the_digest() -> None:
    proto = small_models.mlp()
    seen = {fingerprint(load(proto), "structure")[0]}
    changes = [
        lambda g: g.node[0].attribute.append(onnx.helper.make_attribute("beta", 2.0)),
        lambda g: g.output.append(onnx.helper.make_tensor_value_info(g.node[0].output[0], 1, None)),
        lambda g: setattr(g.input[0].type.tensor_type.shape.dim[0], "dim_value", 3),
        lambda g: g.initializer[0].CopyFrom(
            numpy_helper.from_array(
                numpy_helper.to_array(g.initializer[0]).astype(np.float64), g.initializer[0].name
            )
        ),
    ]
    for change in changes:
        other = onnx.ModelProto.FromString(proto.SerializeToString())
        change(other.graph)
        seen.add(fingerprint(load(other), "structure")[0])
    assert len(seen) == 1 + len(changes)


def test_the_result_prints_as_its_name() -> None:
    found = oc.fingerprint(small_models.mlp())
    assert str(found) == found.fingerprint
    assert found.to_json()["structure"].startswith("onnxcanon-1-structure-")
    assert isinstance(oc.scramble(small_models.mlp(), seed=0).transform, Transform)
