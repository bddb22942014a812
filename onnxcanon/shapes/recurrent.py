"""Shapes of operators that carry a state along a sequence."""

from __future__ import annotations

from onnxcanon.graph.operators import CONTRIB
from onnxcanon.shapes.values import OutputShapes, ShapeNode, rule


@rule("RNN", "GRU", "LSTM")
@rule("DynamicQuantizeLSTM", domain=CONTRIB)
def recurrent(op: ShapeNode) -> OutputShapes:
    """X[T, B, in], W[D, g*H, in], R[D, g*H, H] -> Y[T, D, B, H], Y_h[D, B, H], Y_c[D, B, H].

    With layout 1 the batch comes first everywhere. The quantized weights are W[D, in, g*H], R[D, H, g*H].
    """
    first, second, _ = op.shape(0)
    directions = 2 if op.attr("direction", "forward") == "bidirectional" else 1
    hidden = op.attr("hidden_size")
    if hidden is None:
        hidden = op.shape(2)[1 if op.kind == "DynamicQuantizeLSTM" else 2]
    if op.attr("layout", 0):
        state = (first, directions, hidden)
        return [(first, second, directions, hidden), state, state]
    state = (directions, second, hidden)
    return [(first, directions, second, hidden), state, state]


@rule("CausalConvWithState")
def causal_conv(op: ShapeNode) -> OutputShapes:
    """X[B, C, L], W[C, 1, k], bias[C], past[B, C, k-1] -> Y[B, C, L], present[B, C, k-1]."""
    batch, channels, length = op.shape(0)
    return [(batch, channels, length), (batch, channels, op.shape(1)[2] - 1)]
