"""The models tests run on: those shipped with the project, and those that may lie in a folder beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
SHIPPED = sorted((ROOT / "models").glob("*.onnx"))
MODELS = sorted((SHARED / "models").glob("*.onnx"))
TWINS = sorted(path.parent for path in (SHARED / "twins").glob("*/base.onnx"))
EXPORTS = sorted(path for folder in TWINS for path in folder.glob("reexport*.onnx"))

HELD = "may be overridden by the caller"
ABSENT = "there are no parameters"
TRIVIAL = {
    "deeplab-mobilenetv2-dm05-513": HELD,
    "dtln-1-lstm": "lstm_5: its initial state is fixed",  # the caller carries it from call to call
    "function-with-variadics": ABSENT,
    "gpt2-tiny-greedysearch-contrib": "com.microsoft::GreedySearch",
    "if-mul-tiny": ABSENT,
    "light-alexnet": ABSENT,  # every weight is a constant that the graph computes
    "light-shufflenet": "n15: concatenated with an axis of constant 'gpu_0/gconv3_0_w_0__SHAPE'",
    "local-functions-and-if": ABSENT,
    "loop-fp16-tiny": ABSENT,
    "loop-polygraphy": HELD,
    "loop-shadows-outer-scope": ABSENT,
    "scan-gru-tiny": HELD,
    "sinet-portrait-segmentation": HELD,
    "ultraface-rfb-320": HELD,
    "ultraface-slim-320-simplified": HELD,
}
"""Models in which nothing may change, and why: constants that are the caller's, an operator that the analyzer
does not see through, or the reason why an axis of a parameter is fixed."""


def label(path: Path) -> str:
    """How tests name a model: its file, with the folder where every folder has a file of that name."""
    return f"{path.parent.name}/{path.stem}" if path.parent.parent.name == "twins" else path.stem


def each(*groups: Iterable[Path]) -> list[Any]:
    """Parameters of a test, one per file or folder; a single skipped one where there is none."""
    paths = [path for group in groups for path in group]
    if not paths:
        return [pytest.param(SHARED, marks=pytest.mark.skip(reason=f"no models at {SHARED}"), id="none")]
    return [pytest.param(path, id=label(path)) for path in paths]


def document(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
