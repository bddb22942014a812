"""The verb that writes canonical forms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxcanon.choices import Order, Scale
from onnxcanon.cli import options, writing
from onnxcanon.cli.console import Verb, complain, progress

if TYPE_CHECKING:
    from onnxcanon.verbs.canonicalize import Canonicalized

ORDERS = ("norm", "lexicographic", "nodesort", "none")
SCALES = ("pow2", "balanced", "unit", "none")


@click.command(
    cls=Verb,
    short_help="Write the canonical form of a model.",
    epilog=options.example("onnxcanon canonicalize model.onnx -o canonical.onnx"),
)
@options.model_argument
@click.option(
    "--order",
    type=click.Choice(ORDERS),
    default="norm",
    show_default=True,
    help="How units that may change places are ordered.",
)
@click.option(
    "--scale",
    type=click.Choice(SCALES),
    default="pow2",
    show_default=True,
    help="Which scales and signs are chosen; pow2 is bit-exact.",
)
@click.option(
    "--base",
    type=click.FloatRange(min=1, min_open=True),
    default=2.0,
    show_default=True,
    metavar="P",
    help="The base of nodesort's digits.",
)
@click.option("--transform", type=options.FILE, metavar="T", help="Also save the transform that was applied.")
@options.permute_constants_option
@options.allow_overridable_option
@options.writing_options
def canonicalize(
    model: Path,
    order: Order,
    scale: Scale,
    base: float,
    transform: Path | None,
    permute_constants: bool,
    allow_overridable: bool,
    how: options.Writing,
) -> int:
    """Write the canonical form of MODEL: one and the same for all models that differ by its symmetries.

    The result is verified against MODEL in onnxruntime before anything is written.
    """
    target = writing.destination(model, how)
    if transform is not None:
        writing.may_be_written(transform, {"the input": model, "the output": target})
    import onnxcanon as api

    with progress(how.silent) as say:
        found: Canonicalized = writing.guarded(
            lambda: api.canonicalize(
                model,
                order=order,
                scale=scale,
                base=base,
                sizes=how.sizes,
                permute_constants=permute_constants,
                allow_overridable=allow_overridable,
                verify=not how.unchecked,
                device=how.device,
                seed=how.seed,
                data=how.data,
                progress=say,
            )
        )
        written = writing.write(found.model, target, found.verification, say)
        if written and transform is not None:
            found.transform.save(transform)
    if not how.quiet:
        for note in found.notes:
            complain(f"{model}: {note}")
    return writing.conclude(
        target,
        how,
        written=written,
        told=_told(model, found),
        document={**found.to_json(), "transform": str(transform) if transform else None},
        verification=found.verification,
        changed=found.changed,
    )


def _told(model: Path, found: Canonicalized) -> str:
    """What was done, in a line."""
    if found.trivial:
        from onnxcanon.explaining.report import build

        why = build(found.model, found.symmetry).why_trivial()
        return f"an equal copy, for nothing may change in {model}: {why}"
    if not found.changed:
        return f"an equal copy, for {model} is in canonical form already"
    told = writing.changes(found.permuted, found.rescaled)
    return f"canonical form of {model} (order {found.order}, scale {found.scale}): {told}"
