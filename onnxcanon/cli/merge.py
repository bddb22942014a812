"""The command merge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxcanon.cli.command import Call, command
from onnxcanon.cli.console import complain, emit
from onnxcanon.cli.options import FILE
from onnxcanon.cli.output import guarded, may_be_written
from onnxcanon.verbs import merge as verb

if TYPE_CHECKING:
    from onnxcanon.merging import Merged

OUTPUT = click.Option(["-o", "--output"], type=FILE, required=True, metavar="OUT", help="The file to write.")


@command(
    verb.merge,
    "onnxcanon merge a.onnx b.onnx -o merged.onnx --repair rescale --data train.npz",
    OUTPUT,
    quiet=True,
)
def merge(call: Call[Merged], output: Path) -> int:
    """OUT has the graph of the first MODEL."""
    may_be_written(output, call.files)
    # Without data the models are run for the sake of verification alone, which can be left out.
    only_to_verify = call.arguments["data"] is None and call.arguments["verify"]
    merged = guarded(call) if only_to_verify else call()
    if merged.model is None:
        complain(f"{output}: not written: {merged.refusal}")
    else:
        with call.progress() as say:
            say(f"writing {output}")
            merged.model.save(output)
    written = merged.model is not None
    if call.as_json:
        emit({**merged.to_json(), "output": str(output), "written": written})
    elif not call.quiet:
        if written:
            click.echo(f"{output}: {merged.summary}")
        for evaluation in merged.evaluations:
            click.echo(f"  {evaluation}")
    if not call.quiet:
        for note in merged.notes:
            complain(f"{output}: {note}")
    return 0 if written else 1
