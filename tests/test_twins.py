"""Twins made elsewhere, from a specification written by hand: they come to one form, near misses do not."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from onnxcanon.canonical import CanonicalForm, canonicalize
from onnxcanon.model import Model, load
from tests.examples import bits, contents, values
from tests.shared import TWINS, document, each

EXACT = ("twin_perm", "twin_pow2", "twin_sign")
ROUNDED = ("twin_scale", "twin_both")
UNMOVED = {("resnet", "twin_sign")}  # the exporter folded the normalization whose signs were flipped
NEAR_MISSES = ("near_miss", "near_miss_bias", "near_miss_swap", "near_miss_scaled")
ORDERS = ("norm", "lexicographic", "nodesort")
ROUNDING = 1e-5


@cache
def canonical(path: Path, order: str = "norm", scale: str = "pow2") -> CanonicalForm:
    return canonicalize(load(path), order=order, scale=scale)


def parameters(canonical: CanonicalForm) -> dict[str, bytes]:
    """The bits of every tensor."""
    return {name: bits(array) for name, array in values(canonical.model).items()}


def distance(one: Model, other: Model) -> float:
    """The largest difference of an entry, relative to the largest entry of its tensor."""
    assert set(one.tensor_names()) == set(other.tensor_names())
    return max(
        float(np.abs(array - other.tensor(name)).max(initial=0) / (np.abs(array).max(initial=0) or 1))
        for name, array in values(one).items()
    )


def present(folder: Path, names: tuple[str, ...], expected: str) -> list[Path]:
    """The files of these names, of which the truth says what is expected."""
    paths = [path for path in (folder / f"{name}.onnx" for name in names) if path.exists()]
    entries = document(folder / "truth.json")["files"]
    assert all(entries[path.name]["expected"] == expected for path in paths)
    return paths


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("folder", each(TWINS))
def test_exact_twins_come_to_the_same_bits(folder: Path, order: str) -> None:
    base = parameters(canonical(folder / "base.onnx", order))
    twins = present(folder, EXACT, "equivalent")
    assert len(twins) >= 2
    for path in twins:
        moved = contents(load(path)) != contents(load(folder / "base.onnx"))
        assert moved == ((folder.name, path.stem) not in UNMOVED)
        assert parameters(canonical(path, order)) == base, path.name


@pytest.mark.parametrize("scale", ["balanced", "unit"])
@pytest.mark.parametrize("folder", each(TWINS))
def test_rescaled_twins_come_to_the_same_form_within_rounding(folder: Path, scale: str) -> None:
    base = canonical(folder / "base.onnx", scale=scale).model
    for path in present(folder, ROUNDED, "equivalent"):
        assert distance(base, load(path)) > 0.1
        assert distance(base, canonical(path, scale=scale).model) < ROUNDING, path.name


@pytest.mark.parametrize("folder", each(TWINS))
def test_near_misses_come_to_another_form(folder: Path) -> None:
    misses = present(folder, NEAR_MISSES, "not_equivalent")
    assert len(misses) == len(NEAR_MISSES)
    for path in misses:
        exact = canonical(folder / "base.onnx"), canonical(path)
        assert parameters(exact[0]) != parameters(exact[1]), path.name
        rounded = (
            canonical(folder / "base.onnx", scale="balanced").model,
            canonical(path, scale="balanced").model,
        )
        assert distance(*rounded) > 5 * ROUNDING, path.name


@pytest.mark.parametrize("folder", each(TWINS))
def test_the_group_is_as_large_as_its_specification(folder: Path) -> None:
    truth = document(folder / "truth.json")["log10_group_order"]
    for path in (folder / "base.onnx", folder / "reexport.onnx", folder / "reexport_raw.onnx"):
        assert canonical(path).symmetry.log10_orbit == pytest.approx(truth, rel=1e-3), path.name


@pytest.mark.parametrize("folder", each(TWINS))
def test_other_exports_of_a_permuted_twin_come_to_one_form(folder: Path) -> None:
    for kind in ("reexport", "reexport_raw"):
        assert distance(load(folder / f"{kind}.onnx"), load(folder / f"{kind}_perm.onnx")) > 0.1
        one, other = (canonical(folder / f"{kind}{end}.onnx") for end in ("", "_perm"))
        assert parameters(one) == parameters(other), kind
