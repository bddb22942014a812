"""The verbs that only look: analyze and verify."""

from __future__ import annotations

from pathlib import Path

import click

from onnxcanon.cli import options
from onnxcanon.cli.console import Verb, emit, progress


@click.command(
    cls=Verb,
    short_help="Show what may change in a model, and why not the rest.",
    epilog=options.example("onnxcanon analyze resnet50.onnx --why"),
)
@options.model_argument
@click.option("--why", is_flag=True, help="Also list every axis that is not free, with what fixes it.")
@click.option("--outline", is_flag=True, help="Show all of it as an outline, repeated structures folded.")
@options.permute_constants_option
@options.allow_overridable_option
@options.shape_option
@options.json_option
def analyze(
    model: Path,
    why: bool,
    outline: bool,
    permute_constants: bool,
    allow_overridable: bool,
    sizes: dict[str, int],
    as_json: bool,
) -> int:
    """Show every hidden dimension of MODEL: its size, what it may do, where it appears.

    A dimension may permute (its positions change places), scale (by positive factors) or flip (signs)
    without changing what the model computes.
    """
    from onnxcanon.explaining.outline import outline as tell
    from onnxcanon.verbs.analyze import analyze as run

    with progress(as_json) as say:
        say(f"analyzing {model}")
        analysis = run(
            model,
            sizes=sizes,
            permute_constants=permute_constants,
            allow_overridable=allow_overridable,
        )
    if as_json:
        emit(analysis.to_json())
    else:
        click.echo(tell(analysis).rstrip() if outline else analysis.to_text(why=why))
    return 0


@click.command(
    cls=Verb,
    short_help="Run two models on the same inputs and compare.",
    epilog=options.example("onnxcanon verify model.onnx canonical.onnx --data inputs.npz"),
)
@options.judging_options
def verify(a: Path, b: Path, how: options.Judging) -> int:
    """Run A and B in onnxruntime on the same inputs and compare every output.

    Exits with 0 if they agree and 1 if they differ.
    """
    from onnxcanon.verbs.verify import verify as run

    with progress(how.silent) as say:
        found = run(a, b, **how.arguments, progress=say)
    if how.as_json:
        emit({"a": str(a), "b": str(b), **found.to_json()})
    elif not how.quiet:
        click.echo(str(found))
    return 0 if found.same else 1
