"""The command verify."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxcanon.cli.command import Call, command
from onnxcanon.verbs import verify as verb

if TYPE_CHECKING:
    from onnxcanon.verifying.verification import Verification


@command(verb.verify, "onnxcanon verify model.onnx canonical.onnx --data inputs.npz", quiet=True)
def verify(call: Call[Verification]) -> int:
    """Exits with 0 if they agree and 1 if they differ."""
    verification = call()
    call.print(verification, a=str(call.arguments["a"]), b=str(call.arguments["b"]))
    return 0 if verification.same else 1
