"""The rules, one file per operator family; importing this package enters them all in the table."""

from onnxcanon.symmetry.rules import (  # noqa: F401 - imported for their registration
    attention,
    control,
    convolution,
    elementwise,
    linear,
    normalization,
    quantization,
    rearrangement,
    recurrent,
    reduction,
    sequences,
    spatial,
)
from onnxcanon.symmetry.rules.registry import RULES, UNKNOWN_SHAPE, Barrier, Op

__all__ = ["RULES", "UNKNOWN_SHAPE", "Barrier", "Op"]
