"""Do two models compute the same? Both are run, and the deviation is held against the models' own noise."""

from onnxcanon.verifying.differences import OutputDifference
from onnxcanon.verifying.verification import Verification
from onnxcanon.verifying.verifier import verify

__all__ = ["OutputDifference", "Verification", "verify"]
