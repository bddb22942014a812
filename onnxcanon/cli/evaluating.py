"""The verb that measures models on labelled data: evaluate."""

from __future__ import annotations

from pathlib import Path

import click

from onnxcanon.cli import options
from onnxcanon.cli.console import Verb, emit, progress


@click.command(
    cls=Verb,
    short_help="Measure loss and accuracy on labelled data.",
    epilog=options.example("onnxcanon evaluate model.onnx other.onnx --data test.npz --ensemble"),
)
@click.argument("models", metavar="MODEL...", type=options.FILE, nargs=-1, required=True)
@options.labelled_option
@options.labels_option
@click.option("--ensemble", is_flag=True, help="Also average the predictions of all models.")
@options.judged_option
@options.batch_option
@options.device_option
@options.json_option
def evaluate(
    models: tuple[Path, ...],
    data: Path,
    labels: Path | None,
    ensemble: bool,
    output: str | None,
    batch: int,
    device: str,
    as_json: bool,
) -> int:
    """Measure the loss of each MODEL on labelled data, and its accuracy if the labels are classes.

    Integer labels mean cross-entropy, of logits or of probabilities; others mean squared error.
    """
    from onnxcanon.verbs.evaluate import evaluate as run

    with progress(as_json) as say:
        found = run(
            models,
            data,
            labels=labels,
            ensemble=ensemble,
            output=output,
            batch=batch,
            device=device,
            progress=say,
        )
    together = found.pop() if len(found) > len(models) else None
    if as_json:
        documents = [f.to_json() for f in found]
        emit({"models": documents, "ensemble": together.to_json() if together else None})
        return 0
    for one in found:
        click.echo(str(one))
    if together is not None:
        click.echo(f"{together}  (ensemble)")
    return 0
