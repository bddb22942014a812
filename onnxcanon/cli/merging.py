"""The verbs that bring models together: align and merge."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxcanon.choices import AlignedScale, Aligner, Method, Repair, Target
from onnxcanon.cli import options, writing
from onnxcanon.cli.console import (
    Verb,
    complain,
    emit,
    progress,
)
from onnxcanon.cli.writing import guarded, may_be_written

if TYPE_CHECKING:
    from onnxcanon.alignment import Alignment
    from onnxcanon.merging import Merged

SCALES = ("nearest", "norms")

TARGETS = ("reference", "mean", "universe")


def _weights(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    try:
        return None if value is None else tuple(float(word) for word in value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"'{value}' is not W1,W2,… with a number for each model", ctx, param
        ) from None


@click.command(
    cls=Verb,
    short_help="Move a model within its orbit, close to another.",
    epilog=options.example("onnxcanon align a.onnx b.onnx -o aligned.onnx"),
)
@click.argument("reference", type=options.FILE)
@options.model_argument
@click.option(
    "--method",
    type=click.Choice(options.METHODS),
    default="weights",
    show_default=True,
    help="How units are matched; all but weights and cosine need --data.",
)
@click.option(
    "--scale",
    type=click.Choice(SCALES),
    default="nearest",
    show_default=True,
    help="Scales of the smallest distance, or the norms that units have in REFERENCE.",
)
@options.labels_option
@click.option("--normalize", is_flag=True, help="Align the normal forms, where exporters spell differently.")
@click.option("--transform", type=options.FILE, metavar="T", help="Also save the transform that was applied.")
@options.writing_options
def align(
    reference: Path,
    model: Path,
    method: Method,
    scale: AlignedScale,
    labels: Path | None,
    normalize: bool,
    transform: Path | None,
    how: options.Writing,
) -> int:
    """Move MODEL, which stays the same function, as close to REFERENCE as its symmetries allow.

    Both have one structure; names may differ. OUT is verified against MODEL before it is written.
    """
    target = writing.destination(model, how)
    inputs = {"the reference": reference, "the input": model, "the data": how.data, "the labels": labels}
    writing.may_be_written(target, {} if how.in_place else inputs)
    if transform is not None:
        if normalize:
            raise click.UsageError("--transform moves MODEL, and what --normalize moves is its normal form")
        writing.may_be_written(transform, {**inputs, "the output": target})
    from onnxcanon.verbs.align import align as run

    with progress(how.silent) as say:
        found: Alignment = run(
            reference,
            model,
            method=method,
            scale=scale,
            data=how.data,
            labels=labels,
            sizes=how.sizes,
            normalize=normalize,
            device=how.device,
            seed=how.seed,
            progress=say,
        )
        changed = normalize or bool(found.transform.changes)
        verification = writing.verify(model, found.model, how, changed=changed, say=say)
        written = writing.write(found.model, target, verification, say)
        if written and transform is not None:
            found.transform.save(transform)
    if not how.quiet:
        for note in found.notes:
            complain(f"{model}: {note}")
    before, after = found.distance
    moved = writing.changes(found.transform.permuted, found.transform.rescaled)
    return writing.conclude(
        target,
        how,
        written=written,
        told=f"{model} aligned to {reference} by {method}, distance {before:.4g} -> {after:.4g}: {moved}",
        document={**found.to_json(), "transform": str(transform) if transform else None},
        verification=verification,
        changed=changed,
    )


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
    type=click.Choice(options.REPAIRS),
    default="none",
    show_default=True,
    help="How statistics are set anew on the data: of every layer, or of BatchNormalization.",
)
@click.option(
    "--data", type=options.FILE, metavar="D.npz", help="Inputs by name; with labels 'y' to evaluate."
)
@options.labels_option
@click.option("--normalize", is_flag=True, help="Merge the normal forms, where exporters spell differently.")
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
    align: Aligner,
    to: Target,
    repair: Repair,
    data: Path | None,
    labels: Path | None,
    normalize: bool,
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
    may_be_written(output, {**others, "the data": data, "the labels": labels})
    from onnxcanon.verbs.merge import merge as run

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
            normalize=normalize,
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
