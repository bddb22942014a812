"""The verb that averages models: merge."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxcanon.cli import options
from onnxcanon.cli.console import Verb, complain, emit, progress
from onnxcanon.cli.writing import guarded, may_be_written

if TYPE_CHECKING:
    from onnxcanon.merging import Merged

TARGETS = ("reference", "mean", "universe")
REPAIRS = ("none", "rescale", "reset-bn")


def _weights(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    try:
        return None if value is None else tuple(float(word) for word in value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"'{value}' is not W1,W2,… with a number for each model", ctx, param
        ) from None


@click.command(
    cls=Verb,
    short_help="Average models: align, average, repair.",
    epilog=options.example("onnxcanon merge a.onnx b.onnx -o merged.onnx --repair rescale --data train.npz"),
)
@click.argument("models", metavar="MODEL...", type=options.FILE, nargs=-1, required=True)
@click.option("-o", "--output", type=options.FILE, required=True, metavar="OUT", help="The file to write.")
@click.option(
    "--weights",
    metavar="W1,W2,…",
    callback=_weights,
    help="What each model contributes; by default the same.",
)
@click.option(
    "--align",
    default="weights",
    show_default=True,
    metavar="HOW",
    help="A method of `align`; 'canonical' to average canonical forms; 'none' for models that are aligned.",
)
@click.option(
    "--to",
    type=click.Choice(TARGETS),
    default="reference",
    show_default=True,
    help="What models are aligned to: the first, the mean of the others, or whatever lies best.",
)
@click.option(
    "--repair",
    type=click.Choice(REPAIRS),
    default="none",
    show_default=True,
    help="How statistics are set anew on the data: of every layer, or of BatchNormalization.",
)
@click.option(
    "--data", type=options.FILE, metavar="D.npz", help="Inputs by name; with labels 'y' to evaluate."
)
@click.option("--labels", type=options.FILE, metavar="Y.npy", help="The labels, where D holds none.")
@options.no_verify_option
@options.device_option
@options.seed_option
@options.shape_option
@options.json_option
@options.quiet_option
def merge(
    models: tuple[Path, ...],
    output: Path,
    weights: tuple[float, ...] | None,
    align: str,
    to: str,
    repair: str,
    data: Path | None,
    labels: Path | None,
    unchecked: bool,
    device: str,
    seed: int,
    sizes: dict[str, int],
    as_json: bool,
    quiet: bool,
) -> int:
    """Average the weights of any number of MODELs of one structure; OUT has the graph of the first.

    Units are matched first, or the average of two trainings is worth little; models that come from one
    training need no matching (--align none). Averaging loses variance: --repair gives it back.
    """
    others = {f"the input {model}": model for model in models}
    named = {what: path for what, path in (("the data", data), ("the labels", labels)) if path is not None}
    may_be_written(output, {**others, **named})
    from onnxcanon.api_merging import merge as run

    with progress(as_json or quiet) as say:
        call = partial(
            run,
            models,
            weights=weights,
            align=align,
            to=to,
            repair=repair,
            data=data,
            labels=labels,
            sizes=sizes,
            verify=not unchecked,
            device=device,
            seed=seed,
            progress=say,
        )
        # Without data the models are run for the sake of verification alone, which can be left out.
        found: Merged = guarded(call) if data is None and not unchecked else call()
        if found.model is not None:
            say(f"writing {output}")
            found.model.save(output)
    return _conclude(found, output, as_json=as_json, quiet=quiet)


def _conclude(found: Merged, output: Path, *, as_json: bool, quiet: bool) -> int:
    """Report what was done; returns the exit status."""
    written = found.model is not None
    if not written:
        complain(f"{output}: not written: {found.refusal}")
    if as_json:
        emit({**found.to_json(), "output": str(output), "written": written})
    elif not quiet:
        if written:
            click.echo(f"{output}: {found.told}")
        for judged in found.evaluations:
            click.echo(f"  {judged}")
    if not quiet:
        for note in found.notes:
            complain(f"{output}: {note}")
    return 0 if written else 1
