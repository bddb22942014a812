"""A command for a verb: its options and help are those of the verb's function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import click

import onnxcanon
from onnxcanon.cli import options
from onnxcanon.cli.console import emit, progress
from onnxcanon.errors import OnnxcanonError
from onnxcanon.settings import Progress
from onnxcanon.verbs.signature import description, parameters

R = TypeVar("R")
CommandBody = Callable[..., int]


@dataclass(frozen=True, slots=True)
class Call(Generic[R]):
    """What the user asked of a verb that returns an R.

    Attributes:
        verb: the name of the verb.
        arguments: what its function is called with.
        as_json: whether one JSON document is printed and nothing else.
        quiet: whether nothing is printed but errors.
    """

    verb: str
    arguments: dict[str, Any]
    as_json: bool
    quiet: bool

    @property
    def silent(self) -> bool:
        """Whether only errors and JSON are printed."""
        return self.as_json or self.quiet

    def __call__(self, **more: Any) -> R:
        """Run the verb; `more` are arguments that the user cannot give."""
        with self.progress() as say:
            result: R = getattr(onnxcanon, self.verb)(**self.arguments | {"progress": say} | more)
            return result

    def progress(self) -> AbstractContextManager[Progress]:
        """Show what is being done, where somebody looks."""
        return progress(self.silent)

    def print(self, result: Any, **entries: Any) -> None:
        """The result as the user wants it; `entries` stand before it in the JSON document."""
        if self.as_json:
            emit({**entries, **result.to_json()})
        elif not self.quiet:
            click.echo(str(result))

    @property
    def files(self) -> dict[str, Path]:
        """The files that are read, by what messages call them."""
        names: dict[str, Path] = {}
        for parameter, words in options.FILES.items():
            value = self.arguments.get(parameter)
            if isinstance(value, tuple):
                names |= {f"{words} {path}": path for path in value}
            elif value is not None:
                names[words] = value
        return names


class Verb(click.Command):
    """A command whose unexpected errors become one line that names the file at hand."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; whatever a strange file causes is reported as an error of ours."""
        try:
            return super().invoke(ctx)
        except (OnnxcanonError, click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except Exception as error:
            files = [ctx.params[name] for name in ("model", "a", "b") if name in ctx.params]
            files += ctx.params.get("models", ())
            kind, text = type(error).__name__, " ".join(str(error).split())
            raise OnnxcanonError(
                f"{' '.join(map(str, files))}: internal error: {kind}: {text[:300]}; please report"
                " (ONNXCANON_TRACEBACK=1 shows where)"
            ) from error


def command(
    function: Callable[..., R],
    example: str,
    *more: click.Parameter,
    quiet: bool = False,
    several: bool = False,
) -> Callable[[CommandBody], Verb]:
    """Make a command of a body that gets a `Call` of the function, and what `more` options give.

    Args:
        function: the verb.
        example: a real call.
        more: options beside those of the verb.
        quiet: whether there is an option that silences it.
        several: whether any number of models may be given, as `models`, where the function takes one.
    """
    own = [parameter for parameter in parameters(function) if parameter.kind != "Progress"]
    if several:
        own[0] = replace(own[0], name="models", kind=options.SEVERAL)
    names = [parameter.name for parameter in own]
    clicks = [options.argument(parameter) or options.option(parameter) for parameter in own]

    def decorate(body: CommandBody) -> Verb:
        def run(*, as_json: bool, quiet: bool = False, **values: Any) -> int:
            arguments = {name: values.pop(name) for name in names}
            return body(Call(function.__name__, arguments, as_json, quiet), **values)

        text = description(function)
        return Verb(
            function.__name__,
            params=[*clicks, *more, options.json_option, *([options.quiet_option] if quiet else [])],
            callback=run,
            short_help=text.partition("\n")[0],
            help=_paragraphs(text, inspect.getdoc(body)),
            epilog=f"\b\nExample:\n  {example}",
        )

    return decorate


def _paragraphs(*texts: str | None) -> str:
    """Paragraphs for click, which breaks the lines of those anew that are not indented."""
    paragraphs = "\n\n".join(text for text in texts if text).replace("`", "").split("\n\n")
    return "\n\n".join(f"\b\n{p}" if p.startswith(" ") else p for p in paragraphs)
