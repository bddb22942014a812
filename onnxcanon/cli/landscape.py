"""The verbs that look around models: barrier, flatness and distance."""

from __future__ import annotations

from pathlib import Path

import click

from onnxcanon.choices import Method, PathAligner, PathKind, Repair
from onnxcanon.cli import options, writing
from onnxcanon.cli.console import Verb, emit, progress

PATHS = ("linear", "geodesic")


@click.command(
    cls=Verb,
    short_help="Measure loss and error on the way from one model to another.",
    epilog=options.example("onnxcanon barrier a.onnx b.onnx --data test.npz --plot curve.png"),
)
@click.argument("a", type=options.FILE)
@click.argument("b", type=options.FILE)
@options.labelled_option
@options.labels_option
@click.option(
    "--path",
    "kind",
    type=click.Choice(PATHS),
    default="linear",
    show_default=True,
    help="The way to B.",
)
@click.option(
    "--points",
    type=click.IntRange(min=2),
    default=25,
    show_default=True,
    metavar="N",
    help="How many points are measured, ends included.",
)
@click.option(
    "--align",
    type=click.Choice((*options.METHODS, "none")),
    default="weights",
    show_default=True,
    help="How B is aligned to A for the second curve.",
)
@click.option(
    "--repair",
    type=click.Choice(options.REPAIRS),
    default="none",
    show_default=True,
    help="How every point, ends included, is repaired before it is measured.",
)
@click.option(
    "--repair-data",
    type=options.FILE,
    metavar="C.npz",
    help="Inputs that statistics are measured on; by default those of D.",
)
@click.option("--plot", type=options.FILE, metavar="OUT.png|svg", help="Draw the curves; needs matplotlib.")
@click.option("--csv", "as_csv", is_flag=True, help="Print nothing but the curves, with commas.")
@options.judged_option
@options.batch_option
@options.shape_option
@options.device_option
@options.seed_option
@options.json_option
def barrier(
    a: Path,
    b: Path,
    data: Path,
    labels: Path | None,
    kind: PathKind,
    points: int,
    align: PathAligner,
    repair: Repair,
    repair_data: Path | None,
    plot: Path | None,
    as_csv: bool,
    output: str | None,
    batch: int,
    sizes: dict[str, int],
    device: str,
    seed: int,
    as_json: bool,
) -> int:
    """Measure loss and error along the path from A to B, before and after B is aligned to A.

    The barrier is how far they rise above the line between the ends; also told is how far above the mean of
    the ends, and above the worse one. A geodesic is the shortest way on the product of spheres on which the
    normalized weights of the units lie.
    """
    if as_csv and as_json:
        raise click.UsageError("give either --csv or --json, not both", click.get_current_context())
    if plot is not None:
        from onnxcanon.landscape import plotting

        named = {
            "A": a,
            "B": b,
            "the data": data,
            "the labels": labels,
            "the repair's data": repair_data,
        }
        writing.may_be_written(plot, named)
        plotting.may_be_plotted(plot)
    from onnxcanon.verbs.barrier import barrier as run

    with progress(as_json) as say:
        found = run(
            a,
            b,
            data,
            labels=labels,
            path=kind,
            points=points,
            align=align,
            repair=repair,
            repair_data=repair_data,
            output=output,
            batch=batch,
            sizes=sizes,
            device=device,
            seed=seed,
            progress=say,
        )
    if plot is not None:
        plotting.plot(found, plot)
    if as_json:
        emit(found.to_json())
    else:
        click.echo(found.to_csv() if as_csv else str(found), nl=not as_csv)
    return 0


@click.command(
    cls=Verb,
    short_help="Measure how much worse a model gets under noise on its weights.",
    epilog=options.example("onnxcanon flatness model.onnx --data train.npz --sigma 0.1 --sigma 0.5"),
)
@options.model_argument
@options.labelled_option
@options.labels_option
@click.option(
    "--sigma",
    "sigmas",
    type=click.FloatRange(min=0),
    multiple=True,
    metavar="S",
    help="Noise relative to each weight; repeatable.  [default: 0.05, 0.1, 0.2, 0.5]",
)
@click.option(
    "--draws",
    type=click.IntRange(min=2),
    default=10,
    show_default=True,
    metavar="N",
    help="How often noise is drawn for each.",
)
@options.judged_option
@options.batch_option
@options.shape_option
@options.device_option
@options.seed_option
@options.json_option
def flatness(
    model: Path,
    data: Path,
    labels: Path | None,
    sigmas: tuple[float, ...],
    draws: int,
    output: str | None,
    batch: int,
    sizes: dict[str, int],
    device: str,
    seed: int,
    as_json: bool,
) -> int:
    """Measure the mean rise of loss and error under noise on the weights of MODEL.

    The weights are normalized first (incoming weights of every unit have norm 1), so that all scalings of one
    function are equally flat; then each is multiplied by 1 + S z, with z standard normal.
    """
    from onnxcanon.verbs.flatness import flatness as run

    with progress(as_json) as say:
        found = run(
            model,
            data,
            labels=labels,
            sigmas=sigmas or None,
            draws=draws,
            output=output,
            batch=batch,
            sizes=sizes,
            device=device,
            seed=seed,
            progress=say,
        )
    if as_json:
        emit(found.to_json())
    else:
        click.echo(str(found))
    return 0


@click.command(
    cls=Verb,
    short_help="Measure how far models are from each other.",
    epilog=options.example("onnxcanon distance a.onnx b.onnx c.onnx"),
)
@click.argument("models", metavar="MODEL...", type=options.FILE, nargs=-1, required=True)
@click.option(
    "--align",
    type=click.Choice(options.METHODS),
    default="weights",
    show_default=True,
    help="How a model is aligned to another.",
)
@click.option("--data", type=options.FILE, metavar="D.npz", help="Inputs by name, if alignment needs them.")
@options.shape_option
@options.device_option
@options.seed_option
@options.json_option
def distance(
    models: tuple[Path, ...],
    align: Method,
    data: Path | None,
    sizes: dict[str, int],
    device: str,
    seed: int,
    as_json: bool,
) -> int:
    """Measure the distances between all MODELs, which have one structure.

    \b
      raw        between the weights as stored
      canonical  between the canonical forms
      aligned    between the canonical form of one and the other aligned to it
      spherical  on the product of spheres of the normalized weights, after alignment
    """
    from onnxcanon.verbs.distance import distance as run

    with progress(as_json) as say:
        found = run(models, align=align, data=data, sizes=sizes, device=device, seed=seed, progress=say)
    if as_json:
        emit(found.to_json())
    else:
        click.echo(str(found))
    return 0
