"""The verbs that tell whether models are the same: fingerprint."""

from __future__ import annotations

from pathlib import Path

import click

from onnxcanon.cli import options
from onnxcanon.cli.console import Verb, complain, emit, progress

LEVELS = ("canonical", "content", "structure", "file")


@click.command(
    cls=Verb,
    short_help="Print one name for all files of the same model.",
    epilog=options.example("onnxcanon fingerprint model.onnx twin.onnx"),
)
@click.argument("models", metavar="MODEL...", type=options.FILE, nargs=-1, required=True)
@click.option(
    "--level",
    type=click.Choice(LEVELS),
    default="canonical",
    show_default=True,
    help="What the fingerprint looks through.",
)
@options.shape_option
@options.json_option
def fingerprint(models: tuple[Path, ...], level: str, sizes: dict[str, int], as_json: bool) -> int:
    """Print a fingerprint of each MODEL, one line per file, the digest first.

    It is equal for files that differ by permutation, power-of-two scale, sign, names, metadata, node order,
    producer or storage. Of the other levels, content keeps to the weights as they are, structure leaves them
    out, file is a digest of the bytes.
    """
    from onnxcanon.api import fingerprint as run

    found = []
    for model in models:
        with progress(as_json) as say:
            found.append(run(model, level=level, sizes=sizes, progress=say))
        if not as_json:
            click.echo(f"{found[-1]}  {model}")
            for note in found[-1].notes:
                complain(f"{model}: {note}")
    if as_json:
        documents = [f.to_json() for f in found]
        emit(documents[0] if len(documents) == 1 else {"models": documents})
    return 0
