"""A model without its rounding: what a quantized model computes, in smooth arithmetic.

A quantized model answers in steps: a difference of 1e-7 either vanishes or moves an integer by one, and what
follows by percents. Two equal models may then differ as much as two unequal ones. Taking the rounding and the
clipping to integers out of both leaves functions that two equal models share up to the rounding of floats:

    QuantizeLinear         x / scale + zero point
    DequantizeLinear       (q - zero point) · scale
    DynamicQuantizeLinear  x, scale 1, zero point 0
    ConvInteger, …         Conv and MatMul of (value - zero point)
    QLinear…, QGemm        the operator on dequantized operands, quantized as above

Constants are computed here, so that what was an integer weight with a scale becomes a floating one. The
rewriting of each operator is in `unrounding`; `rewriter` knows what flows.
"""

from __future__ import annotations

from onnxcanon.graph.traits import Trait, has
from onnxcanon.model import Model, load
from onnxcanon.verifying.smooth import operators  # noqa: F401 - enters the rules
from onnxcanon.verifying.smooth.rewriter import Rewriter, Unroundable

LARGEST = 1 << 28  # bytes of weights: floating copies of integers take four times as much


def unrounded(model: Model) -> Model:
    """The model without rounding to integers; what was an integer on its way is a float.

    Raises:
        Unroundable: an operator is in the way, or the model is too large.
    """
    if model.serialized_size() > LARGEST:
        raise Unroundable("it is too large to be held as floats")
    proto = model.to_proto()
    for function in proto.functions:
        if any(has(node, Trait.ROUNDING) for node in function.node):
            raise Unroundable(f"function {function.name} rounds")
    rewriter = Rewriter(model, proto)
    for node in proto.graph.node:
        rewriter.rewrite(node)
    return load(rewriter.finished())
