"""The command scramble."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcanon.cli.command import Call
from onnxcanon.cli.output import Output, writing_command
from onnxcanon.verbs import scramble as verb

if TYPE_CHECKING:
    from onnxcanon.verbs.scramble import Scrambled


@writing_command(verb.scramble, "onnxcanon scramble model.onnx -o twin.onnx --seed 7")
def scramble(call: Call[Scrambled], output: Output) -> int:
    """The result is verified against MODEL in onnxruntime before it is written."""
    twin = call()
    model = call.arguments["model"]
    text = f"an equal copy, for nothing may change in {model} by {', '.join(twin.only)}"
    if twin.changed:
        text = f"random twin of {model} (seed {twin.seed}): {twin.summary}"
    return output.finish(twin.model, text, twin.to_json(), changed=twin.changed, transform=twin.transform)
