"""The rules, one file per operator family; importing this package enters them all in the table."""

from onnxcanon.symmetry.rules import (  # noqa: F401 - imported for their registration
    attention,
    control,
    convolution,
    elementwise,
    fused,
    fused_attention,
    indexing,
    linear,
    meanings,
    normalization,
    quantization,
    quantized_pointwise,
    quantized_products,
    rearrangement,
    recurrent,
    reduction,
    rotary,
    sequences,
    signals,
    spatial,
)
from onnxcanon.symmetry.rules.registry import OPEN, RULES, UNKNOWN_SHAPE, Barrier, Op

__all__ = ["OPEN", "RULES", "UNKNOWN_SHAPE", "Barrier", "Op"]
