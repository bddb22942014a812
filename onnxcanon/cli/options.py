"""Options of the command line, made from the parameters of verbs: each kind of parameter has its option."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import click

from onnxcanon import choices
from onnxcanon.choices import Pattern, Range
from onnxcanon.errors import OnnxcanonError, check_choice
from onnxcanon.verbs.signature import REQUIRED, VerbParameter

FILE = click.Path(path_type=Path)
"""A path; whether there is such a file is for `load` to say, which says it better."""

SEVERAL = "ModelSource | Sequence[ModelSource]"
"""The kind of a parameter that takes any number of models."""

FILES = {
    "model": "the input",
    "models": "the input",
    "reference": "the reference",
    "a": "A",
    "b": "B",
    "transform": "the transform",
    "data": "the data",
    "labels": "the labels",
    "repair_data": "the repair's data",
}
"""The parameters that name files, and what messages call these."""

SINGULAR = {"sizes": "shape", "sigmas": "sigma"}
"""What options are called that are given once for each value."""

CHOSEN = {"align": "alignment", "to": "target", "only": "change"}
"""What messages call what is chosen, where it is not called like its parameter."""


Check = Callable[[Any], Any]


def _refusing(check: Check) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback for click of a function that raises OnnxcanonError; what was not given is not checked."""

    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        try:
            return None if value is None else check(value)
        except OnnxcanonError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return callback


def _choice(name: str, words: tuple[str, ...], value: str) -> str:
    """One of several words, refused as the library refuses it."""
    check_choice(CHOSEN.get(name, name), value, words)
    return value


def _text(pattern: Pattern, value: str) -> str:
    """A text that matches; whether there is such a device, say, is for others to find out."""
    if not re.fullmatch(pattern.expression, value):
        raise OnnxcanonError(f"'{value}' is none of {pattern.words}")
    return value


def _words(words: tuple[str, ...], value: str) -> tuple[str, ...]:
    """Several words, separated by commas."""
    chosen = tuple(word.strip() for word in value.split(","))
    for word in chosen:
        if word not in words:
            raise OnnxcanonError(f"'{word}' is none of {', '.join(words)}")
    return chosen


def _numbers(value: str) -> tuple[float, ...]:
    """A number for each model, separated by commas."""
    try:
        return tuple(map(float, value.split(",")))
    except ValueError:
        raise OnnxcanonError(f"'{value}' is not W1,W2,… with a number for each model") from None


def _sizes(values: tuple[str, ...]) -> dict[str, int | tuple[int, ...]]:
    """Split each at the last equals sign: names of dimensions may hold any character. Several numbers with
    commas are the whole shape of an input."""
    sizes: dict[str, int | tuple[int, ...]] = {}
    for value in values:
        name, _, numbers = value.rpartition("=")
        parts = numbers.split(",")
        if not name or not all(re.fullmatch(r"0*[1-9][0-9]{0,17}", part) for part in parts):
            raise OnnxcanonError(f"'{value}' is not NAME=N with a positive N")
        sizes[name] = int(numbers) if len(parts) == 1 else tuple(map(int, parts))
    return sizes


_KINDS: dict[str, dict[str, Any]] = {
    "bool": {"is_flag": True},
    "str": {"metavar": "NAME"},
    "Data": {"type": FILE, "metavar": "D.npz"},
    "Labels": {"type": FILE, "metavar": "Y.npy"},
    "Sizes": {"multiple": True, "metavar": "NAME=N", "callback": _refusing(_sizes)},
    "Shares": {"metavar": "W1,W2,…", "callback": _refusing(_numbers)},
    "Strengths": {
        "type": click.FloatRange(min=0),
        "multiple": True,
        "metavar": "X",
        "callback": _refusing(lambda values: values or None),
    },
    "Sequence[Change]": {
        "metavar": "WORD,…",
        "callback": _refusing(partial(_words, choices.CHANGES)),
    },
}
"""What click is told of the kinds that are not defined in `choices`."""


def argument(parameter: VerbParameter) -> click.Argument | None:
    """The argument that gives a parameter; None if an option does."""
    if parameter.kind in ("ModelSource", "TransformSource"):
        return click.Argument([parameter.name], type=FILE)
    if parameter.kind == SEVERAL:
        return click.Argument([parameter.name], type=FILE, nargs=-1, required=True, metavar="MODEL...")
    return None


def option(parameter: VerbParameter) -> click.Option:
    """The option that gives a parameter."""
    flag = f"--{SINGULAR.get(parameter.name, parameter.name).replace('_', '-')}"
    if parameter.default is True:
        flag = f"{flag}/--no-{flag[2:]}"
    attributes = dict(_attributes(parameter))
    default = parameter.default
    if default is REQUIRED:  # even None would count as a default
        attributes["required"] = True
    else:
        attributes["default"] = ",".join(default) if isinstance(default, tuple) else default
    return click.Option(
        [flag, parameter.name],
        show_default=True,
        help=_help(parameter.help) + (" Repeatable." if attributes.get("multiple") else ""),
        **attributes,
    )


def _attributes(parameter: VerbParameter) -> dict[str, Any]:
    alias = getattr(choices, parameter.kind, None)
    if get_origin(alias) is Literal:
        words = get_args(alias)
        return {
            "metavar": f"[{'|'.join(words)}]",
            "callback": _refusing(partial(_choice, parameter.name, words)),
        }
    if get_origin(alias) is not Annotated:
        return _KINDS[parameter.kind]
    plain, rule = get_args(alias)
    if isinstance(rule, Pattern):
        metavar = f"[{rule.words.replace(', ', '|')}]"
        return {"metavar": metavar, "callback": _refusing(partial(_text, rule))}
    assert isinstance(rule, Range)
    if plain is int:
        return {"type": click.IntRange(min=int(rule.least)), "metavar": "N"}
    return {"type": click.FloatRange(min=rule.least, min_open=rule.open), "metavar": "X"}


def _help(text: str) -> str:
    """A line of a docstring as the help of an option: `whether to do it` is an order to do it."""
    text = text.replace("`", "").removeprefix("whether to ")
    return text[:1].upper() + text[1:]


json_option = click.Option(
    ["--json", "as_json"], is_flag=True, help="Print one JSON document and nothing else."
)

quiet_option = click.Option(["-q", "--quiet"], is_flag=True, help="Print nothing but errors.")

output_option = click.Option(["-o", "--output"], type=FILE, metavar="OUT", help="The file to write.")

in_place_option = click.Option(["--in-place"], is_flag=True, help="Write over MODEL instead of OUT.")

transform_option = click.Option(
    ["--transform"], type=FILE, metavar="T", help="Also save the transform that was applied."
)

verify_option = click.Option(
    ["--verify/--no-verify"],
    default=True,
    show_default=True,
    help="Run both models and compare before anything is written.",
)
