"""The models that growth is measured on have the symmetry their architecture gives them."""

from __future__ import annotations

import subprocess
import sys
from math import lgamma, log
from pathlib import Path

import pytest

from onnxcanon import analyze
from onnxcanon.explaining.analysis import Analysis
from tests.shared import ROOT

LAYERS = 2


def made(kind: str, folder: Path) -> Analysis:
    path = folder / "model.onnx"
    command = [sys.executable, str(ROOT / "tools" / "synthetic.py"), kind, str(path), "--layers", str(LAYERS)]
    subprocess.run(command, check=True)
    assert path.with_name("model.onnx.data").stat().st_blocks < 64  # a hole
    return analyze(path)


def log10_factorial(n: int) -> float:
    return lgamma(n + 1) / log(10)


def test_a_transformer(tmp_path: Path) -> None:
    found = made("transformer", tmp_path)
    head = 2 * log10_factorial(64)
    layer = log10_factorial(12) + 12 * head + log10_factorial(4 * 768)
    assert found.log10_orbit == pytest.approx(log10_factorial(768) + LAYERS * layer)
    inside, norms = (
        LAYERS * 2 * 768,
        (2 * LAYERS + 1) * 768,
    )  # queries and values; what a norm's gain may give away
    assert found.scale_freedoms == inside + norms
    assert not found.unsupported
    assert not found.defects


def test_group_normalization_by_reshape(tmp_path: Path) -> None:
    found = made("group-norm", tmp_path)
    assert found.log10_orbit == pytest.approx(log10_factorial(32) + 32 * log10_factorial(16))
    assert not found.defects


def test_a_shuffle_that_does_not_line_up(tmp_path: Path) -> None:
    """Groups of 80 channels are dealt out to three others, 27 or 26 to each; two of the outer groups change
    places, with all that they are dealt."""
    found = made("shuffle", tmp_path)
    cells = 3 * (2 * log10_factorial(27) + log10_factorial(26))
    expected = LAYERS * cells + 3 * log10_factorial(80) + log10_factorial(2)
    assert found.log10_orbit == pytest.approx(expected)
    assert not found.unsupported
    assert not found.defects
