"""The command analyze."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxcanon.cli.command import Call, command
from onnxcanon.cli.console import emit
from onnxcanon.verbs import analyze as verb

if TYPE_CHECKING:
    from onnxcanon.explaining.analysis import Analysis

WHY = click.Option(["--why"], is_flag=True, help="Also list every axis that is not free, with what fixes it.")
OUTLINE = click.Option(
    ["--outline"], is_flag=True, help="Show all of it as an outline, repeated structures folded."
)


@command(verb.analyze, "onnxcanon analyze resnet50.onnx --why", WHY, OUTLINE)
def analyze(call: Call[Analysis], why: bool, outline: bool) -> int:
    """With --why, each axis that is fixed comes with the chain of nodes that leads to the cause."""
    analysis = call()
    if call.as_json:
        emit(analysis.to_json())
    elif outline:
        from onnxcanon.explaining.outline import outline as folded

        click.echo(folded(analysis).rstrip())
    else:
        click.echo(analysis.to_text(why=why))
    return 0
