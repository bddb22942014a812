"""Options that several verbs share, each defined once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., int]], Callable[..., int]]

METHODS = ("weights", "activations", "cosine", "functional", "annealing")
"""How units are matched; the library has the same, which takes longer to load."""

REPAIRS = ("none", "rescale", "reset-bn")
"""How statistics are set anew, likewise."""

FILE = click.Path(path_type=Path)
"""A path; whether there is such a file is for `load` to say, which says it better."""


def _device(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Check the spelling; whether there is such a device is for onnxruntime to say."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise click.BadParameter(f"'{value}' is none of auto, cpu, cuda, cuda:N", ctx, param)
    return value


def _sizes(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """Split each at the last equals sign: names of dimensions may hold any character."""
    sizes = {}
    for value in values:
        name, _, number = value.rpartition("=")
        if not name or not re.fullmatch(r"[0-9]{1,18}", number) or int(number) == 0:
            raise click.BadParameter(f"'{value}' is not NAME=N with a positive N", ctx, param)
        sizes[name] = int(number)
    return sizes


model_argument = click.argument("model", type=FILE)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")

device_option = click.option(
    "--device",
    default="auto",
    callback=_device,
    show_default=True,
    metavar="auto|cpu|cuda[:N]",
    help="Where onnxruntime runs the models.",
)

seed_option = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="What chance is drawn from.",
)

data_option = click.option(
    "--data", type=FILE, metavar="D.npz", help="Inputs by name to run the models on, instead of drawn ones."
)

labelled_option = click.option(
    "--data",
    type=FILE,
    required=True,
    metavar="D.npz",
    help="Inputs by name and the labels 'y'; or an .npy file of the only input.",
)

labels_option = click.option("--labels", type=FILE, metavar="Y.npy", help="The labels, where D holds none.")

judged_option = click.option("--output", metavar="NAME", help="The output to judge; by default the first.")

batch_option = click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    metavar="N",
    help="Examples that run at a time.",
)

rtol_option = click.option(
    "--rtol",
    type=click.FloatRange(min=0),
    metavar="TOLERANCE",
    help="Tolerance relative to each output's size, instead of A's own rounding noise.",
)

shape_option = click.option(
    "--shape",
    "sizes",
    multiple=True,
    callback=_sizes,
    metavar="NAME=N",
    help="Size of a dynamic dimension, where the graph works only for some; repeatable.",
)

allow_overridable_option = click.option(
    "--allow-overridable",
    is_flag=True,
    help="Also change constants that are graph inputs too, which a caller may override.",
)

permute_constants_option = click.option(
    "--permute-constants",
    is_flag=True,
    help="Also move constants that are data, not weights: masks, tables, frequencies.",
)

output_option = click.option("-o", "--output", type=FILE, metavar="OUT", help="The file to write.")

in_place_option = click.option("--in-place", is_flag=True, help="Write over MODEL instead of OUT.")

no_verify_option = click.option(
    "--no-verify", "unchecked", is_flag=True, help="Write without running both models and comparing."
)


def example(line: str) -> str:
    """The end of a help text: a real call."""
    return f"\b\nExample:\n  {line}"


@dataclass(frozen=True, slots=True)
class Writing:
    """The options of every verb that writes a model."""

    output: Path | None
    in_place: bool
    unchecked: bool
    data: Path | None
    device: str
    seed: int
    sizes: dict[str, int]
    as_json: bool
    quiet: bool

    @property
    def silent(self) -> bool:
        """Whether only errors and JSON are printed."""
        return self.as_json or self.quiet


@dataclass(frozen=True, slots=True)
class Judging:
    """The options of every verb that judges one model by another, running them where it has to."""

    rtol: float | None
    data: Path | None
    sizes: dict[str, int]
    device: str
    seed: int
    as_json: bool
    quiet: bool

    @property
    def silent(self) -> bool:
        """Whether only errors and JSON are printed."""
        return self.as_json or self.quiet

    @property
    def arguments(self) -> dict[str, Any]:
        """What the verb's function is called with."""
        names = ("rtol", "data", "sizes", "device", "seed")
        return {name: getattr(self, name) for name in names}


def _bundled(
    command: Callable[..., int], kind: type[Writing | Judging], options: Iterable[Decorator]
) -> Callable[..., int]:
    """Give a command options, the first of them listed first, as one argument `how`."""
    names = [field.name for field in fields(kind)]

    @wraps(command)
    def bundled(**given: Any) -> int:
        how = kind(**{name: given.pop(name) for name in names})
        return command(how=how, **given)

    decorated: Callable[..., int] = bundled
    for decorate in reversed(list(options)):
        decorated = decorate(decorated)
    return decorated


def writing_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of `Writing`, as one argument `how`."""
    options = (
        output_option,
        in_place_option,
        no_verify_option,
        data_option,
        device_option,
        seed_option,
        shape_option,
        json_option,
        quiet_option,
    )
    return _bundled(command, Writing, options)


def judging_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command two models `a` and `b`, and the options of `Judging` as one argument `how`."""
    options = (rtol_option, data_option, shape_option, device_option, seed_option, json_option, quiet_option)
    models = (click.argument("a", type=FILE), click.argument("b", type=FILE))
    decorated = _bundled(command, Judging, options)
    for decorate in reversed(models):
        decorated = decorate(decorated)
    return decorated
