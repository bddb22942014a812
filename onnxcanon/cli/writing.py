"""Writing a model: what may be written where, verification before anything is written, what to say then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxcanon.cli.console import complain, emit
from onnxcanon.cli.options import Writing
from onnxcanon.errors import OnnxcanonError, RuntimeUnavailableError

if TYPE_CHECKING:
    from onnxcanon.model import Model
    from onnxcanon.verifying.verification import Verification


def destination(model: Path, how: Writing) -> Path:
    """Where the result goes; never over the input unless that was asked for.

    Raises:
        click.UsageError: neither or both of -o and --in-place are given, or OUT is MODEL.
        OnnxcanonError: nothing can be written there.
    """
    if how.in_place and how.output is not None:
        raise _misuse("give either -o OUT or --in-place, not both")
    if how.in_place:
        return model
    if how.output is None:
        raise _misuse("give -o OUT, or --in-place to write over MODEL")
    may_be_written(how.output, {"the data": how.data})
    may_be_written(how.output, {"the input": model}, hint="; --in-place writes over it")
    return how.output


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
    from onnxcanon.model import load

    try:
        return load(file).reads(other)
    except OnnxcanonError:
        return False


def _misuse(message: str) -> click.UsageError:
    return click.UsageError(message, click.get_current_context())


def guarded(check: Callable[[], Any]) -> Any:
    """Run what verifies; where onnxruntime cannot, say how to do without.

    Raises:
        OnnxcanonError: it cannot.
    """
    try:
        return check()
    except RuntimeUnavailableError as error:
        about_device = str(error).startswith(("device ", "unknown device "))
        hint = "" if about_device else "; --no-verify writes without this check"
        raise OnnxcanonError(f"{error}; nothing was verified or written{hint}") from error


def verify(
    model: Path, moved: Model, how: Writing, *, changed: bool, say: Callable[[str], None]
) -> Verification | None:
    """Compare the result with the model it came from, if that was asked for and anything changed."""
    if how.unchecked or not changed:
        return None
    import onnxcanon as api

    found: Verification = guarded(
        lambda: api.verify(
            model, moved, device=how.device, seed=how.seed, data=how.data, sizes=how.sizes, progress=say
        )
    )
    return found


def write(moved: Model, target: Path, verification: Verification | None, say: Callable[[str], None]) -> bool:
    """Write the model, whole or not at all, unless its verification failed."""
    if verification is not None and not verification.same:
        complain(f"{target}: not written, the result is another function: {verification.reason}")
        return False
    say(f"writing {target}")
    moved.save(target)
    return True


def conclude(
    target: Path,
    how: Writing,
    *,
    written: bool,
    told: str,
    document: dict[str, Any],
    verification: Verification | None,
    changed: bool,
) -> int:
    """Report what was done; returns the exit status."""
    if how.as_json:
        check = None if verification is None else verification.to_json()
        emit({**document, "output": str(target), "written": written, "verification": check})
    elif written and not how.quiet:
        click.echo(f"{target}: {told}")
        if verification is not None:
            click.echo(f"  verified on {verification.device}: {verification.reason}")
        elif changed:
            click.echo("  not verified")
    if written and verification is not None and not how.quiet:
        for name, reason in verification.skipped.items():
            complain(f"{target}: output '{name}' was not compared: {reason}")
    return 0 if written else 1


def changes(permuted: int, rescaled: int) -> str:
    """What a transform did, in words."""
    return f"{permuted} parameter{'' if permuted == 1 else 's'} permuted, {rescaled} rescaled"
