"""Sketches: next to nothing apart for twins, little for near relatives, clearly for strangers."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxcanon as oc
from onnxcanon.canonical.sketch import MOST_ROWS, Sketch, sketch
from onnxcanon.model import Model, load
from onnxcanon.symmetry import symmetry
from tests import small_models
from tests.disguise import disguised
from tests.shared import MODELS, SHIPPED, TWINS, document, each
from tests.test_cli import Shell, model, shell  # noqa: F401 (fixtures)
from tests.test_compare import SLOW

TWIN = 1e-5
NEAR = 0.01
STRANGER = 0.05
BYTES = 8192
SMALL = [path for path in MODELS if path.stat().st_size < 300_000 and path.stem not in SLOW]


@cache
def drawn(path: Path) -> Sketch:
    return sketch(load(path))


def tuned(model: Model, share: float) -> Model:  # noqa: F811
    """Noise of a share of its spread on every weight."""
    rng = np.random.default_rng(8)
    new = {}
    for name in model.tensor_names():
        array = model.tensor(name)
        if array.dtype == np.float32 and array.size > 1:
            new[name] = (array + share * array.std() * rng.normal(size=array.shape)).astype(np.float32)
    return model.with_tensors(new)


@pytest.mark.parametrize("folder", each(TWINS))
def test_twins_are_next_to_nothing_apart_and_strangers_far(folder: Path) -> None:
    base = drawn(folder / "base.onnx")
    files = document(folder / "truth.json")["files"]
    twins = [name for name, told in files.items() if name.startswith("twin_")]
    assert len(twins) >= 4
    for name in twins:
        assert base.distance(drawn(folder / name)) < TWIN, name
        assert drawn(folder / name).structure == base.structure
    stranger = base.distance(drawn(folder / "other_seed.onnx"))
    assert STRANGER < stranger <= 1
    for name in [name for name in files if name.startswith("near_miss")]:
        near = base.distance(drawn(folder / name))
        assert near < NEAR, name
        assert near < stranger / 20, name


@pytest.mark.parametrize("path", each(SHIPPED, SMALL))
def test_neither_disguise_nor_factors_matter(path: Path) -> None:
    original = load(path)
    rng = np.random.default_rng(3)
    twin = symmetry(original).random(rng, pow2=False).apply(original)
    other = sketch(load(disguised(twin.to_proto(), rng)))
    assert drawn(path).distance(other) < TWIN
    assert drawn(path).structure == other.structure


@pytest.mark.parametrize("path", each(SHIPPED[::2]))
def test_further_training_lies_between_twins_and_strangers(path: Path) -> None:
    stranger = drawn(path).distance(drawn(path.with_name(path.name.replace("seed0", "seed1"))))
    distances = [drawn(path).distance(sketch(tuned(load(path), share))) for share in (0.001, 0.01, 0.05)]
    assert TWIN < distances[0] < distances[1] < distances[2] < stranger / 2


@pytest.mark.parametrize("path", each(SHIPPED, MODELS))
def test_a_sketch_is_small_and_survives_json(path: Path) -> None:
    if path.stat().st_size > 8_000_000:
        pytest.skip("large")
    text = json.dumps(drawn(path).to_json(), allow_nan=False)
    assert len(text) < BYTES
    assert len(drawn(path).rows) <= MOST_ROWS
    assert Sketch.from_json(json.loads(text)) == drawn(path)
    assert drawn(path).distance(drawn(path)) == 0


def test_distance_is_symmetric_and_at_most_one() -> None:
    sketches = [oc.sketch(small_models.mlp(hidden=n, seed=k)) for n, k in ((8, 0), (8, 1), (9, 0))]
    for one in sketches:
        for other in sketches:
            assert one.distance(other) == other.distance(one) <= 1
    assert sketches[0].distance(sketches[2]) == 1  # its parameters are not those of the others


def test_constants_that_are_the_callers_count_too() -> None:
    def overridable(seed: int) -> onnx.ModelProto:
        proto = small_models.mlp(seed=seed)
        for tensor in proto.graph.initializer:
            proto.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
        return proto

    assert oc.sketch(overridable(0)).distance(oc.sketch(overridable(1))) > STRANGER


def test_entries_that_are_no_numbers_do_no_harm() -> None:
    proto = load(small_models.mlp())
    weight = proto.tensor("w2").copy()
    weight[0, 0], weight[1, 1] = np.nan, -np.inf
    odd = sketch(proto.with_tensors({"w2": weight, "b1": np.zeros(8, np.float32)}))
    assert all(np.isfinite(size) for row in odd.rows for size in row.sizes)
    assert sketch(proto).distance(odd) < 1


def test_a_document_of_another_kind_is_refused() -> None:
    told = oc.sketch(small_models.mlp()).to_json()
    for broken in ({}, {**told, "format": "other"}, {**told, "rows": [[]]}, {**told, "rows": 3}):
        with pytest.raises(oc.OnnxcanonError, match="not a sketch"):
            Sketch.from_json(broken)


def test_the_verb_adds_it_to_its_document(shell: Shell, model: Path) -> None:  # noqa: F811
    told = shell("fingerprint", model, "--sketch", "--json").document
    assert told["fingerprint"] == str(oc.fingerprint(model))
    assert oc.Sketch.from_json(told["sketch"]) == oc.sketch(model)
    assert "sketch" not in shell("fingerprint", model, "--json").document
    several = shell("fingerprint", model, model, "--sketch", "--json").document["models"]
    assert [one["sketch"] for one in several] == [told["sketch"]] * 2
    refused = shell("fingerprint", model, "--sketch")
    assert refused.status == 2
    assert "--sketch needs --json" in refused.complaint
