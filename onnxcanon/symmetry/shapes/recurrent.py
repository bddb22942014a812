"""Shapes of recurrent operators, and of Scan's carried states."""

from __future__ import annotations

from onnxcanon.symmetry.shapes.known import Op, Shapes, rule


@rule("RNN", "GRU", "LSTM")
@rule("DynamicQuantizeLSTM", contrib=True)
def recurrent(op: Op) -> Shapes:
    """X[T, B, in], W[D, g*H, in], R[D, g*H, H] -> Y[T, D, B, H], Y_h[D, B, H], Y_c[D, B, H]; layout 1: batch first."""
    first, second, _ = op.shape(0)
    directions = 2 if op.attr("direction", "forward") == "bidirectional" else 1
    hidden = op.attr("hidden_size")
    if hidden is None:
        hidden = op.shape(2)[2]
    if op.attr("layout", 0):
        state = (first, directions, hidden)
        return [(first, second, directions, hidden), state, state]
    state = (directions, second, hidden)
    return [(first, directions, second, hidden), state, state]


@rule("Scan")
def scan(op: Op) -> Shapes:
    """state[*S]..., sequences... -> state[*S]..., stacked outputs (known only from the file)."""
    scanned = op.attr("num_scan_inputs")
    if op.version < 9:  # Scan-8 has the sequence lengths in front and a batch axis
        return [op.shape(i) for i in range(1, len(op.inputs) - scanned)]
    return [op.shape(i) for i in range(len(op.inputs) - scanned)]
