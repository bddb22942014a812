"""Verbs that write a model: what may be written where, verification before that, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

import onnxcanon
from onnxcanon.cli import options
from onnxcanon.cli.command import Call, CommandBody, Verb, command
from onnxcanon.cli.console import complain, emit
from onnxcanon.errors import DeviceUnavailableError, OnnxcanonError, RuntimeUnavailableError
from onnxcanon.verbs.signature import parameters
from onnxcanon.verbs.verify import verify

if TYPE_CHECKING:
    from onnxcanon.model import Model
    from onnxcanon.transform import Transform
    from onnxcanon.verifying.verification import Verification

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Output:
    """Where the result of a verb goes, and how it is verified first.

    Attributes:
        call: the verb.
        target: the file to write.
        transform: the file to save the transform in, if any.
        settings: how both models are run; None if they are not.
    """

    call: Call[Any]
    target: Path
    transform: Path | None
    settings: Mapping[str, Any] | None

    def finish(
        self,
        moved: Model,
        text: str,
        document: dict[str, Any],
        *,
        changed: bool,
        transform: Transform | None = None,
        notes: Iterable[str] = (),
    ) -> int:
        """Verify and write what the verb made, and say so; returns the exit status."""
        verification = self._verification(moved) if changed else None
        written = verification is None or verification.same
        if verification is not None and not verification.same:
            complain(f"{self.target}: not written, the result is another function: {verification.reason}")
        else:
            with self.call.progress() as say:
                say(f"writing {self.target}")
                moved.save(self.target)
            if self.transform is not None and transform is not None:
                transform.save(self.transform)
        if self.call.as_json:
            if transform is not None:
                document["transform"] = str(self.transform) if self.transform else None
            check = None if verification is None else verification.to_json()
            emit({**document, "output": str(self.target), "written": written, "verification": check})
        elif written and not self.call.quiet:
            click.echo(f"{self.target}: {text}")
            if verification is not None:
                click.echo(f"  verified on {verification.device}: {verification.reason}")
            elif changed:
                click.echo("  not verified")
        if not self.call.quiet:
            for note in notes:
                complain(f"{self.call.arguments['model']}: {note}")
            if written and verification is not None:
                for name, reason in verification.skipped.items():
                    complain(f"{self.target}: output '{name}' was not compared: {reason}")
        return 0 if written else 1

    def _verification(self, moved: Model) -> Verification | None:
        """The comparison of the result with the model it came from, if that was asked for."""
        if self.settings is None:
            return None
        settings = self.settings
        with self.call.progress() as say:
            return guarded(
                lambda: onnxcanon.verify(self.call.arguments["model"], moved, **settings, progress=say)
            )


def writing_command(
    function: Callable[..., R], example: str, *, saves: bool = True
) -> Callable[[CommandBody], Verb]:
    """Make a command of a body that gets a `Call` of a verb which moves a model, and its `Output`.

    Args:
        function: the verb.
        example: a real call.
        saves: whether the transform can be saved.
    """
    own = {parameter.name for parameter in parameters(function)}
    running = [p for p in parameters(verify) if p.name in ("data", "device", "seed", "sizes")]
    more = [options.output_option, options.in_place_option]
    more += [options.transform_option] if saves else []
    more += [] if "verify" in own else [options.verify_option]
    more += [options.option(parameter) for parameter in running if parameter.name not in own]

    def decorate(body: CommandBody) -> Verb:
        def run(call: Call[R], *, output: Path | None, in_place: bool, **values: Any) -> int:
            everything = call.arguments | values
            settings = {p.name: everything[p.name] for p in running}
            side = values.get("transform") if saves else None
            target = _target(call, output, in_place=in_place, data=settings["data"])
            if side is not None:
                may_be_written(side, {**call.files, "the data": settings["data"], "the output": target})
            return body(call, Output(call, target, side, settings if everything["verify"] else None))

        run.__doc__ = body.__doc__
        return command(function, example, *more, quiet=True)(run)

    return decorate


def _target(call: Call[Any], output: Path | None, *, in_place: bool, data: Path | None) -> Path:
    """Where the result goes; never over an input unless that was asked for.

    Raises:
        click.UsageError: neither or both of -o and --in-place are given, or OUT is a file that is read.
        OnnxcanonError: nothing can be written there.
    """
    model: Path = call.arguments["model"]
    if in_place and output is not None:
        raise _misuse("give either -o OUT or --in-place, not both")
    if in_place:
        return model
    if output is None:
        raise _misuse("give -o OUT, or --in-place to write over MODEL")
    others = {words: path for words, path in call.files.items() if path is not model}
    may_be_written(output, {**others, "the data": data})
    may_be_written(output, {"the input": model}, hint="; --in-place writes over it")
    return output


def may_be_written(target: Path, others: Mapping[str, Path | None], hint: str = "") -> None:
    """Refuse, before any work, what would fail after it, and a file that has another part in the call."""
    from onnxcanon.files.storage import same_file

    for what, other in others.items():
        if other is None:
            continue
        if target.absolute() == other.absolute() or same_file(target, other):
            raise _misuse(f"{target} is {what}; name another file to write{hint}")
        if target.is_file() and _reads(other, target):
            raise _misuse(f"{target} holds data of {what}; name another file to write")
    if not target.absolute().parent.is_dir():
        raise OnnxcanonError(f"{target}: there is no folder {target.parent}; create it first")
    if target.is_dir():
        raise OnnxcanonError(f"{target}: it is a folder; name a file in it")


def _reads(file: Path, other: Path) -> bool:
    """Whether a file is a model that keeps tensors in the other one."""
    try:
        return onnxcanon.load(file).reads(other)
    except OnnxcanonError:
        return False


def _misuse(message: str) -> click.UsageError:
    return click.UsageError(message, click.get_current_context())


def guarded(check: Callable[[], R]) -> R:
    """Run what verifies; where onnxruntime cannot, say how to do without.

    Raises:
        OnnxcanonError: it cannot.
    """
    try:
        return check()
    except RuntimeUnavailableError as error:
        hint = "; --no-verify writes without this check"
        if isinstance(error, DeviceUnavailableError):
            hint = ""
        raise OnnxcanonError(f"{error}; nothing was verified or written{hint}") from error
