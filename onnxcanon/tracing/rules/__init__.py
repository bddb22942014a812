"""The rules, one file per operator family; importing this package enters them all in the table."""

from onnxcanon.tracing.rules import (  # noqa: F401 - imported for their registration
    attention,
    contraction,
    control,
    convolution,
    elementwise,
    fixed_positions,
    fused,
    fused_attention,
    indexing,
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
from onnxcanon.tracing.rules.registry import OPEN, SYMMETRIES, SymmetryNode, Unsupported

__all__ = ["OPEN", "SYMMETRIES", "SymmetryNode", "Unsupported"]
