"""Do two models compute the same? Both are run, and the deviation is held against the models' own noise."""

from onnxcanon.verifying.differences import OutputDifference, outputs_equal
from onnxcanon.verifying.result import Verification
from onnxcanon.verifying.verify import verify

__all__ = ["OutputDifference", "Verification", "outputs_equal", "verify"]
