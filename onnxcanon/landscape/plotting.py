"""A picture of loss and error along a path, drawn by matplotlib (the extra `plot`)."""

from __future__ import annotations

import io
from importlib import import_module
from pathlib import Path
from typing import Any

from onnxcanon.errors import OnnxcanonError
from onnxcanon.files.storage import Staging, blame
from onnxcanon.landscape.barrier import Barrier

FORMATS = (".png", ".svg", ".pdf")


def may_be_plotted(target: Path) -> None:
    """Refuse, before any work, what cannot be drawn.

    Raises:
        OnnxcanonError: matplotlib is missing, or the file's name ends in none of the formats.
    """
    if target.suffix.lower() not in FORMATS:
        raise OnnxcanonError(
            f"{target}: no picture that can be drawn; end its name with {', '.join(FORMATS)}"
        )
    _matplotlib()


def plot(found: Barrier, target: Path) -> None:
    """Draw loss and error, before and after alignment, into a file, whole or not at all.

    Raises:
        OnnxcanonError: matplotlib is missing, or the file cannot be written.
    """
    may_be_plotted(target)
    levels = [what for what in found.levels if what != "accuracy"]
    figure = _matplotlib().Figure(figsize=(4.5 * len(levels), 3.2), layout="constrained")
    for axes, what in zip(figure.subplots(1, len(levels), squeeze=False)[0], levels, strict=True):
        for name, curve in found.curves.items():
            axes.plot(curve.alphas, curve.levels[what], marker=".", label=name)
        axes.set_xlabel(f"from {Path(found.a).name} to {Path(found.b).name}")
        axes.set_ylabel(found.measure if what == "loss" else what)
        axes.legend()
    drawn = io.BytesIO()
    figure.savefig(drawn, format=target.suffix.lower()[1:], dpi=150)
    with blame(str(target)), Staging() as staging:
        staging.write(target, iter([drawn.getvalue()]), lambda: None)
        staging.commit()


def _matplotlib() -> Any:
    """The module that holds figures: without a window, and without a state of its own."""
    try:
        return import_module("matplotlib.figure")
    except ImportError as error:
        raise OnnxcanonError(
            f"plots need matplotlib, which cannot be imported ({error}): pip install 'onnxcanon[plot]'"
        ) from error
