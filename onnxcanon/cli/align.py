"""The command align."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxcanon.cli.command import Call
from onnxcanon.cli.output import Output, writing_command
from onnxcanon.verbs import align as verb
from onnxcanon.verbs.transformed import changes

if TYPE_CHECKING:
    from onnxcanon.alignment import Alignment


@writing_command(verb.align, "onnxcanon align a.onnx b.onnx -o aligned.onnx")
def align(call: Call[Alignment], output: Output) -> int:
    """OUT is verified against MODEL before it is written."""
    normalize = call.arguments["normalize"]
    if output.transform is not None and normalize:
        raise click.UsageError("--transform moves MODEL, and what --normalize moves is its normal form")
    alignment = call()
    before, after = alignment.distance
    names = "{model} aligned to {reference} by {method}".format(**call.arguments)
    return output.finish(
        alignment.model,
        f"{names}, distance {before:.4g} -> {after:.4g}: {changes(alignment.transform)}",
        alignment.to_json(),
        changed=normalize or bool(alignment.transform.changes),
        transform=alignment.transform,
        notes=alignment.notes,
    )
