"""The verbs that tell whether models are the same: fingerprint and compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxcanon.choices import Level
from onnxcanon.cli import options, writing
from onnxcanon.cli.console import (
    Verb,
    complain,
    emit,
    progress,
)
from onnxcanon.errors import OnnxcanonError

if TYPE_CHECKING:
    from onnxcanon.comparison import Comparison

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
@click.option(
    "--sketch", "sketched", is_flag=True, help="Add a sketch of each model to the document of --json."
)
@options.shape_option
@options.json_option
def fingerprint(
    models: tuple[Path, ...], level: Level, sketched: bool, sizes: dict[str, int], as_json: bool
) -> int:
    """Print a fingerprint of each MODEL, one line per file, the digest first.

    It is equal for files that differ by permutation, power-of-two scale, sign, names, metadata, node order,
    producer or storage. Of the other levels, content keeps to the weights as they are, structure leaves them
    out, file is a digest of the bytes.

    A sketch is no name: sketches of copies that were rescaled by other factors, or trained further, are
    nearly the same. In Python, Sketch.from_json reads one, and its distance compares two.
    """
    if sketched and not as_json:
        raise click.UsageError("--sketch needs --json", click.get_current_context())
    from onnxcanon.verbs.fingerprint import fingerprint as run
    from onnxcanon.verbs.sketch import sketch

    documents = []
    failed = False
    for model in models:
        try:
            with progress(as_json) as say:
                found = run(model, level=level, sizes=sizes, progress=say)
                drawn = {"sketch": sketch(model, sizes=sizes, progress=say).to_json()} if sketched else {}
        except OnnxcanonError as error:
            if len(models) == 1:
                raise
            failed = True
            complain(str(error))  # and go on with the others
            continue
        documents.append({**found.to_json(), **drawn})
        if not as_json:
            click.echo(f"{found}  {model}")
        for note in found.notes:
            complain(f"{model}: {note}")
    if as_json:
        emit(documents[0] if len(models) == 1 else {"models": documents})
    return 2 if failed else 0


@click.command(
    cls=Verb,
    short_help="Tell whether two models are the same, and how.",
    epilog=options.example("onnxcanon compare model.onnx twin.onnx"),
)
@click.option("--transform", type=options.FILE, metavar="T", help="Save the map that takes A to B.")
@options.judging_options
def compare(a: Path, b: Path, transform: Path | None, how: options.Judging) -> int:
    """Tell whether A and B are the same model.

    \b
    The verdict, strongest first:
      identical   every parameter is equal bit for bit
      symmetric   equal after a permutation, scale or sign map
      equivalent  the graphs differ in ways that keep the function, the parameters agree as above
      close       no map was found, but the outputs agree on every probe
      different   none of these

    Exits with 0 for the first three and with 1 for the others.
    """
    if transform is not None:
        writing.may_be_written(transform, {"A": a, "B": b})
    from onnxcanon.verbs.compare import compare as run

    with progress(how.silent) as say:
        found = run(a, b, **how.arguments, progress=say)
    saved = False
    if transform is not None and found.same and found.transform is not None:
        found.transform.save(transform)
        saved = True
    if how.as_json:
        emit({**found.to_json(), "transform": str(transform) if saved else None})
    elif not how.quiet:
        click.echo(str(found))
    if transform is not None and not saved and not how.quiet:
        complain(f"{transform}: not written, {_no_map(found)}")
    return 0 if found.same else 1


def _no_map(found: Comparison) -> str:
    """Why there is no transform to save."""
    if not found.same:
        return "for no map was found"
    return "for the graphs differ" if found.verdict == "equivalent" else "for nothing has to move"
