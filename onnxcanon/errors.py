"""The exception family. Every error a user can cause is an `OnnxcanonError` whose text is one clear line."""

from __future__ import annotations

import os
from collections.abc import Iterable


class OnnxcanonError(Exception):
    """Base of every error raised on purpose; the command line prints it as one line and exits with 2."""


class ModelError(OnnxcanonError):
    """A file that is not a model we can keep whole: missing, damaged, unsafe, or with parts we would lose."""


class ArgumentError(OnnxcanonError, TypeError):
    """A verb was called with what it does not take; the text says what it takes."""


class TransformError(OnnxcanonError):
    """A transform that does not fit the model it is applied to."""


class RuntimeUnavailableError(OnnxcanonError):
    """onnxruntime cannot run the model or does not offer the execution provider that was asked for."""


class DeviceUnavailableError(RuntimeUnavailableError):
    """There is no such device, or onnxruntime cannot use it; another model would not change that."""


def describe(value: object) -> str:
    """What a message calls a value that does not belong where it stands."""
    return repr(value) if isinstance(value, int | float | None) else f"a value of type {type(value).__name__}"


def check_path(path: object) -> None:
    """Raise unless a value can be a path.

    Raises:
        ArgumentError: it cannot.
    """
    if not isinstance(path, str | os.PathLike):
        raise ArgumentError(f"{describe(path)} is no path; give the name of a file")


def check_choice(what: str, choice: str, choices: Iterable[str]) -> None:
    """Raise unless a choice is one of those there are.

    Raises:
        OnnxcanonError: it is not.
    """
    if choice not in (choices := tuple(choices)):
        raise OnnxcanonError(f"there is no {what} '{choice}'; choose from {', '.join(choices)}")
