"""The verbs that move a model within its orbit: scramble and apply."""

from __future__ import annotations

from pathlib import Path

import click

from onnxcanon.choices import Change
from onnxcanon.cli import options, writing
from onnxcanon.cli.console import Verb, progress

KINDS = ("permute", "scale", "sign")


def _kinds(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in value.split(","))
    for word in words:
        if word not in KINDS:
            raise click.BadParameter(f"'{word}' is none of {', '.join(KINDS)}", ctx, param)
    return words


@click.command(
    cls=Verb,
    short_help="Write a random equal twin of a model.",
    epilog=options.example("onnxcanon scramble model.onnx -o twin.onnx --seed 7"),
)
@options.model_argument
@click.option(
    "--only",
    default=",".join(KINDS),
    show_default=True,
    metavar="KINDS",
    callback=_kinds,
    help="What may be done: any of permute, scale, sign, separated by commas.",
)
@options.permute_constants_option
@options.allow_overridable_option
@options.writing_options
def scramble(
    model: Path,
    only: tuple[Change, ...],
    permute_constants: bool,
    allow_overridable: bool,
    how: options.Writing,
) -> int:
    """Write a random equal twin of MODEL: permuted, scaled by powers of two, flipped.

    The twin is verified against MODEL in onnxruntime before it is written.
    """
    target = writing.destination(model, how)
    import onnxcanon as api

    with progress(how.silent) as say:
        say("analyzing")
        found = api.scramble(
            model,
            seed=how.seed,
            only=only,
            sizes=how.sizes,
            permute_constants=permute_constants,
            allow_overridable=allow_overridable,
        )
        verification = writing.verify(model, found.model, how, changed=found.changed, say=say)
        written = writing.write(found.model, target, verification, say)
    told = f"an equal copy, for nothing may change in {model} by {', '.join(only)}"
    if found.changed:
        told = f"random twin of {model} (seed {how.seed}): {writing.changes(found.permuted, found.rescaled)}"
    return writing.conclude(
        target,
        how,
        written=written,
        told=told,
        document=found.to_json(),
        verification=verification,
        changed=found.changed,
    )


@click.command(
    cls=Verb,
    short_help="Apply a saved transform, or undo it.",
    epilog=options.example("onnxcanon apply model.onnx transform.npz -o moved.onnx"),
)
@options.model_argument
@click.argument("transform", type=options.FILE)
@click.option("--inverse", is_flag=True, help="Undo the transform.")
@options.allow_overridable_option
@options.writing_options
def apply(model: Path, transform: Path, inverse: bool, allow_overridable: bool, how: options.Writing) -> int:
    """Apply the saved TRANSFORM to MODEL, or undo it with --inverse.

    The result is verified against MODEL in onnxruntime before it is written: a transform that was made for
    another model of the same shapes is found out.
    """
    target = writing.destination(model, how)
    writing.may_be_written(target, {"the transform": transform})
    import onnxcanon as api

    with progress(how.silent) as say:
        element = api.load_transform(transform)
        changed = bool(element.permuted or element.rescaled)
        moved = api.apply(model, element, inverse=inverse, allow_overridable=allow_overridable)
        verification = writing.verify(model, moved, how, changed=changed, say=say)
        written = writing.write(moved, target, verification, say)
    done = {"permuted": element.permuted, "rescaled": element.rescaled}
    return writing.conclude(
        target,
        how,
        written=written,
        told=f"{model}, {transform} {'undone' if inverse else 'applied'}: {writing.changes(**done)}",
        document={"model": str(model), "transform": str(transform), "inverse": inverse, **done},
        verification=verification,
        changed=changed,
    )
