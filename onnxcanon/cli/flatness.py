"""The command flatness."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcanon.cli.command import Call, command
from onnxcanon.verbs import flatness as verb

if TYPE_CHECKING:
    from onnxcanon.landscape.flatness import Flatness


@command(verb.flatness, "onnxcanon flatness model.onnx --data train.npz --sigma 0.1 --sigma 0.5")
def flatness(call: Call[Flatness]) -> int:
    """Prints a table."""
    call.print(call())
    return 0
