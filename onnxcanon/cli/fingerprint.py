"""The command fingerprint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import onnxcanon
from onnxcanon.cli.command import Call, command
from onnxcanon.cli.console import complain, emit
from onnxcanon.errors import OnnxcanonError
from onnxcanon.verbs import fingerprint as verb

if TYPE_CHECKING:
    from onnxcanon.verbs.fingerprint import Fingerprint

SKETCH = click.Option(
    ["--sketch", "sketched"], is_flag=True, help="Add a sketch of each model to the document of --json."
)


@command(verb.fingerprint, "onnxcanon fingerprint model.onnx twin.onnx", SKETCH, several=True)
def fingerprint(call: Call[Fingerprint], sketched: bool) -> int:
    """Prints one line per file, the digest first.

    A sketch is no name: sketches of copies that were rescaled by other factors, or trained further, are
    nearly the same. In Python, Sketch.from_json reads one, and its distance compares two.
    """
    if sketched and not call.as_json:
        raise click.UsageError("--sketch needs --json", click.get_current_context())
    models = call.arguments.pop("models")
    documents = []
    failed = False
    for model in models:
        try:
            name = call(model=model)
            document = name.to_json()
            if sketched:
                with call.progress() as say:
                    drawn = onnxcanon.sketch(model, sizes=call.arguments["sizes"], progress=say)
                document["sketch"] = drawn.to_json()
        except OnnxcanonError as error:
            if len(models) == 1:
                raise
            failed = True
            complain(str(error))  # and go on with the others
            continue
        documents.append(document)
        if not call.as_json:
            click.echo(f"{name}  {model}")
        for note in name.notes:
            complain(f"{model}: {note}")
    if call.as_json:
        emit(documents[0] if len(models) == 1 else {"models": documents})
    return 2 if failed else 0
