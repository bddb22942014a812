"""A verb's options, read from its signature and docstring: what Python checks and the command line offers.

    def flatten(model: ModelSource, *, level: Level = "canonical", seed: Natural = 0) -> Model:
        \"\"\"Say what it does.

        Args:
            model: the model.
            level: what the name looks through.
            seed: the random seed.
        \"\"\"

The name of the annotation, without `| None`, is the kind of a parameter: what may stand there is defined in
`choices`, or is one of the words of `arguments`.
"""

from __future__ import annotations

import inspect
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from numbers import Real
from typing import Any, ParamSpec, TypeVar

from onnxcanon import choices
from onnxcanon.errors import ArgumentError, describe

P = ParamSpec("P")
R = TypeVar("R")

REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class VerbParameter:
    """One parameter of a verb.

    Attributes:
        name: what it is called.
        kind: the name of its annotation.
        default: what it is if it is left out; `REQUIRED` if it may not be.
        help: its line of the docstring.
    """

    name: str
    kind: str
    default: Any
    help: str


def parameters(verb: Callable[..., Any]) -> list[VerbParameter]:
    """The parameters of a verb in the order of its signature."""
    helps = _arguments_section(verb)
    return [
        VerbParameter(p.name, str(p.annotation).removesuffix(" | None"), p.default, helps[p.name])
        for p in inspect.signature(verb).parameters.values()
        if p.kind is not p.VAR_POSITIONAL
    ]


def description(verb: Callable[..., Any]) -> str:
    """What the docstring of a verb says before its first section."""
    return re.split(r"\n\n(?:Args|Returns|Raises):\n", inspect.getdoc(verb) or "")[0]


def _arguments_section(verb: Callable[..., Any]) -> dict[str, str]:
    """What the section Args of a docstring says of each parameter, in one line."""
    section = re.search(r"\nArgs:\n(.*?)(?:\n\n|\Z)", inspect.getdoc(verb) or "", re.DOTALL)
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """A public function whose arguments are checked by their kinds before anything is done.

    Wrong calls raise `ArgumentError`, which is a `TypeError` too, with what to pass instead.
    """

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        signature = inspect.signature(function)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            name = function.__name__
            raise ArgumentError(f"{name}: {error}; it is called as {name}{_usage(signature)}") from None
        for parameter in signature.parameters.values():
            if parameter.name in bound.arguments and parameter.kind is not parameter.VAR_POSITIONAL:
                value = bound.arguments[parameter.name]
                bound.arguments[parameter.name] = _converted(function.__name__, parameter, value)
        return function(*bound.args, **bound.kwargs)

    return checked


def _usage(signature: inspect.Signature) -> str:
    """A signature without types and defaults."""
    optional = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    positional = [str(p).split(":")[0] for p in signature.parameters.values() if p not in optional]
    return f"({', '.join([*positional, *(f'{p.name}=' for p in optional)])})"


def _converted(verb_name: str, parameter: inspect.Parameter, value: Any) -> Any:
    """An argument as its kind has it: a NumPy integer as an int, for instance."""
    annotation = str(parameter.annotation)
    kind = annotation.removesuffix(" | None")
    if value is None and kind != annotation:
        return None
    if value is None and kind == "Data":
        raise ArgumentError(
            f"{verb_name}: {parameter.name} is needed: give inputs by name, or a file of them"
        )
    conversion = _CONVERSIONS.get(kind) or _CONVERSIONS.get(_base(kind))
    if conversion is None:  # models, data and choices: who reads them refuses them with more to say
        return value
    convert, wanted = conversion
    try:
        return convert(value)
    except TypeError:
        raise ArgumentError(
            f"{verb_name}: {parameter.name} has to be {wanted}, not {describe(value)}"
        ) from None


def _base(kind: str) -> str:
    """The plain type behind a name of `choices`."""
    alias = getattr(choices, kind, None)
    return getattr(getattr(alias, "__origin__", None), "__name__", kind)


def _integer_from(least: int, value: Any) -> int:
    integer = operator.index(value)
    if integer < least:
        raise TypeError
    return integer


def _real_from(least: float, value: Any) -> float:
    real = _real(value)
    if not real >= least:  # nor is what is not a number
        raise TypeError
    return real


def _sizes(value: Any) -> dict[Any, int | tuple[int, ...]]:
    """Sizes as plain integers, whole shapes as tuples of them."""
    items = _instance(Mapping, value).items()
    positive = partial(_integer_from, 1)
    return {
        name: tuple(map(positive, size)) if isinstance(size, Iterable) else positive(size)
        for name, size in items
    }


def _words(value: Any) -> Any:
    return value if isinstance(value, str) else tuple(value)


def _real(value: Any) -> float:
    return float(_instance(Real, value))


def _reals(value: Any) -> tuple[float, ...]:
    return tuple(map(_real, value))


def _instance(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError
    return value


_CONVERSIONS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "Natural": (partial(_integer_from, 0), "an integer from 0 on"),
    "Positive": (partial(_integer_from, 1), "an integer from 1 on"),
    "Progress": (partial(_instance, Callable), "a function of a line"),
    "int": (operator.index, "an integer"),
    "float": (_real, "a number"),
    "str": (partial(_instance, str), "a string"),
    "NonNegative": (partial(_real_from, 0.0), "a number from 0 on"),
    "Sequence[Change]": (_words, "a list of words"),
    "Sizes": (_sizes, "a dictionary of names with sizes from 1 on"),
    "Shares": (_reals, "a list of numbers"),
    "Strengths": (_reals, "a list of numbers"),
}
"""How values of a kind are checked and made plain, and what else to pass."""
