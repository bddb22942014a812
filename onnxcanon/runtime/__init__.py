"""Running models in onnxruntime: sessions on a device, inputs nobody described, comparison of two models."""

from onnxcanon.runtime.measure import OutputDifference, outputs_equal
from onnxcanon.runtime.sessions import Session, open_session, run
from onnxcanon.runtime.verification import Verification
from onnxcanon.runtime.verify import verify

__all__ = [
    "OutputDifference",
    "Session",
    "Verification",
    "open_session",
    "outputs_equal",
    "run",
    "verify",
]
