"""The command barrier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxcanon.cli.command import Call, command
from onnxcanon.cli.options import FILE
from onnxcanon.cli.output import may_be_written
from onnxcanon.verbs import barrier as verb

if TYPE_CHECKING:
    from onnxcanon.landscape.barrier import Barrier

PLOT = click.Option(["--plot"], type=FILE, metavar="OUT.png|svg", help="Draw the curves; needs matplotlib.")
CSV = click.Option(["--csv", "as_csv"], is_flag=True, help="Print nothing but the curves, with commas.")


@command(verb.barrier, "onnxcanon barrier a.onnx b.onnx --data test.npz --plot curve.png", PLOT, CSV)
def barrier(call: Call[Barrier], plot: Path | None, as_csv: bool) -> int:
    """The curves can be drawn, or printed for other programs."""
    if as_csv and call.as_json:
        raise click.UsageError("give either --csv or --json, not both", click.get_current_context())
    if plot is not None:
        from onnxcanon.landscape import plotting

        may_be_written(plot, call.files)
        plotting.may_be_plotted(plot)
    curves = call()
    if plot is not None:
        plotting.plot(curves, plot)
    if as_csv:
        click.echo(curves.to_csv(), nl=False)
    else:
        call.print(curves)
    return 0
