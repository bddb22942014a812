"""The command distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcanon.cli.command import Call, command
from onnxcanon.verbs import distance as verb

if TYPE_CHECKING:
    from onnxcanon.landscape.distance import Distances


@command(verb.distance, "onnxcanon distance a.onnx b.onnx c.onnx")
def distance(call: Call[Distances]) -> int:
    """Prints a table."""
    call.print(call())
    return 0
