"""The entry point: finds the verbs, and turns what they return or raise into an exit status.

0 done, yes or same; 1 a clean negative answer; 2 a usage error or bad input, one line on stderr; 130 Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from onnxcanon import __version__
from onnxcanon.cli.console import complain
from onnxcanon.errors import OnnxcanonError

VERBS = (
    "analyze",
    "canonicalize",
    "fingerprint",
    "compare",
    "verify",
    "align",
    "merge",
    "evaluate",
    "barrier",
    "flatness",
    "distance",
    "scramble",
    "apply",
)
"""The verbs in the order of the documentation; each is a module beside this one."""

ANSWERED_NO, FAILED, INTERRUPTED = 1, 2, 130


class Verbs(click.Group):
    """The group of verbs; they are imported when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order of the documentation."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = getattr(import_module(f"onnxcanon.cli.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb of a line; where there is none such, the error names those there are."""
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            raise click.UsageError(f"there is no verb '{args[0]}'; choose from {', '.join(VERBS)}", ctx)
        return super().resolve_command(ctx, args)

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run a verb and exit with its status."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # names of tensors need not be text that a terminal can show
                stream.reconfigure(errors="backslashreplace")
        if not extra.pop("standalone_mode", True):
            return super().main(args, prog_name, standalone_mode=False, **extra)
        sys.exit(self._status(args, prog_name or "onnxcanon", extra))

    def _status(self, args: Sequence[str] | None, prog_name: str, extra: dict[str, Any]) -> int:
        try:
            status = super().main(args, prog_name, standalone_mode=False, **extra)
        except (click.Abort, KeyboardInterrupt):
            return INTERRUPTED
        except click.UsageError as error:
            return self._misused(error)
        except (OnnxcanonError, click.ClickException) as error:
            _traceback()
            complain(error.format_message() if isinstance(error, click.ClickException) else str(error))
            return FAILED
        return status if isinstance(status, int) else 0

    def _misused(self, error: click.UsageError) -> int:
        context = error.ctx
        text = error.format_message()
        if context is not None and text == context.get_help():  # called without arguments
            click.echo(text, err=True)
        else:
            path = context.command_path if context else "onnxcanon"
            complain(f"{text.rstrip('.')}; see '{path} --help'")
        return FAILED


def _traceback() -> None:
    """Show where an error came from, for those who ask."""
    if os.environ.get("ONNXCANON_TRACEBACK"):
        import traceback

        traceback.print_exc()


@click.command("onnxcanon", cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="onnxcanon", message="%(prog)s %(version)s")
def main() -> None:
    """Find the function-preserving symmetries of an ONNX model's weights: permutations, scales and signs.

    \b
    Examples:
      onnxcanon analyze model.onnx
      onnxcanon canonicalize model.onnx -o canonical.onnx

    Exit status: 0 done or yes, 1 no, 2 usage error or bad input.
    """
