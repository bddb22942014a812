"""What goes where: results to stdout, everything else to stderr, one JSON document if asked for."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click


def complain(message: str) -> None:
    """One line on stderr."""
    click.echo(f"onnxcanon: {' '.join(message.split())}", err=True)


def emit(document: dict[str, Any]) -> None:
    """One JSON document on stdout; numbers that JSON cannot hold become null."""
    click.echo(json.dumps(_finite(document), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


@contextmanager
def progress(quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Show what is being done on a line of its own, which is gone afterwards; only on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda line: None
        return

    def show(line: str) -> None:
        sys.stderr.write(f"\r\x1b[K{line} …")
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
