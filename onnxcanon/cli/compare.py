"""The command compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxcanon.cli.command import Call, command
from onnxcanon.cli.console import complain, emit
from onnxcanon.cli.options import FILE
from onnxcanon.cli.output import may_be_written
from onnxcanon.verbs import compare as verb

if TYPE_CHECKING:
    from onnxcanon.comparison import Comparison

TRANSFORM = click.Option(["--transform"], type=FILE, metavar="T", help="Save the map that takes A to B.")


@command(verb.compare, "onnxcanon compare model.onnx twin.onnx", TRANSFORM, quiet=True)
def compare(call: Call[Comparison], transform: Path | None) -> int:
    """Exits with 0 for the first three and with 1 for the others."""
    if transform is not None:
        may_be_written(transform, call.files)
    comparison = call()
    saved = False
    if transform is not None and comparison.same and comparison.transform is not None:
        comparison.transform.save(transform)
        saved = True
    if call.as_json:
        emit({**comparison.to_json(), "transform": str(transform) if saved else None})
    elif not call.quiet:
        click.echo(str(comparison))
    if transform is not None and not saved and not call.quiet:
        complain(f"{transform}: not written, {_no_map(comparison)}")
    return 0 if comparison.same else 1


def _no_map(comparison: Comparison) -> str:
    """Why there is no transform to save."""
    if not comparison.same:
        return "for no map was found"
    return "for the graphs differ" if comparison.verdict == "equivalent" else "for nothing has to move"
