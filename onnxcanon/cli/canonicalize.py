"""The command canonicalize."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onnxcanon.cli.command import Call
from onnxcanon.cli.output import Output, writing_command
from onnxcanon.verbs import canonicalize as verb

if TYPE_CHECKING:
    from onnxcanon.verbs.canonicalize import Canonicalized


@writing_command(verb.canonicalize, "onnxcanon canonicalize model.onnx -o canonical.onnx")
def canonicalize(call: Call[Canonicalized], output: Output) -> int:
    """Nothing is written if the verification fails."""
    form = call(verify=False)
    return output.finish(
        form.model,
        _summary(call.arguments["model"], form),
        form.to_json(),
        changed=form.changed,
        transform=form.transform,
        notes=form.notes,
    )


def _summary(model: Path, form: Canonicalized) -> str:
    """What was done, in a line."""
    if form.trivial:
        from onnxcanon.explaining.description import describe

        why = describe(form.model, form.symmetry).why_trivial()
        return f"an equal copy, for nothing may change in {model}: {why}"
    if not form.changed:
        return f"an equal copy, for {model} is in canonical form already"
    return f"canonical form of {model} (order {form.order}, scale {form.scale}): {form.summary}"
