"""The command apply."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnxcanon
from onnxcanon.cli.command import Call
from onnxcanon.cli.output import Output, writing_command
from onnxcanon.verbs import apply as verb
from onnxcanon.verbs.transformed import changes

if TYPE_CHECKING:
    from onnxcanon.model import Model


@writing_command(verb.apply, "onnxcanon apply model.onnx transform.npz -o moved.onnx", saves=False)
def apply(call: Call[Model], output: Output) -> int:
    """The result is verified against MODEL in onnxruntime before it is written.

    That finds out a transform that was made for another model of the same shapes.
    """
    model, transform, inverse = (call.arguments[name] for name in ("model", "transform", "inverse"))
    element = onnxcanon.load_transform(transform)
    moved = onnxcanon.apply(**call.arguments | {"transform": element})
    counts = {"permuted": element.permuted, "rescaled": element.rescaled}
    return output.finish(
        moved,
        f"{model}, {transform} {'undone' if inverse else 'applied'}: {changes(element)}",
        {"model": str(model), "transform": str(transform), "inverse": inverse, **counts},
        changed=bool(element.permuted or element.rescaled),
    )
