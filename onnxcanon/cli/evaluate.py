"""The command evaluate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxcanon.cli.command import Call, command
from onnxcanon.cli.console import emit
from onnxcanon.verbs import evaluate as verb

if TYPE_CHECKING:
    from onnxcanon.runtime.evaluation import Evaluation


@command(verb.evaluate, "onnxcanon evaluate model.onnx other.onnx --data test.npz --ensemble")
def evaluate(call: Call[list[Evaluation]]) -> int:
    """Prints one line per MODEL."""
    evaluations = call()
    ensemble = evaluations.pop() if call.arguments["ensemble"] else None
    if call.as_json:
        documents = [evaluation.to_json() for evaluation in evaluations]
        emit({"models": documents, "ensemble": ensemble.to_json() if ensemble else None})
        return 0
    for evaluation in evaluations:
        click.echo(str(evaluation))
    if ensemble is not None:
        click.echo(f"{ensemble}  (ensemble)")
    return 0
