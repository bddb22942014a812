"""Shapes of signal transforms and of their windows."""

from __future__ import annotations

from onnxcanon.shapes.values import Contradiction, OutputShapes, ShapeNode, norm_axis, rule


@rule("HannWindow", "HammingWindow", "BlackmanWindow")
def window(op: ShapeNode) -> OutputShapes:
    """size[] -> Y[size]."""
    return [(int(op.values(0)[0]),)]


@rule("MelWeightMatrix")
def mel_matrix(op: ShapeNode) -> OutputShapes:
    """bins[], dft_length[], ... -> Y[dft_length/2 + 1, bins]."""
    return [(int(op.values(1)[0]) // 2 + 1, int(op.values(0)[0]))]


@rule("DFT")
def dft(op: ShapeNode) -> OutputShapes:
    """X[B, *S, 1 or 2], dft_length[], axis[] -> Y[B, S with n or n/2 + 1 at the axis, 2]."""
    shape = op.shape(0)
    axis = norm_axis(
        int(op.values(2)[0]) if op.has(2) else op.attr("axis", 1 if op.version < 20 else -2), len(shape)
    )
    onesided, inverse = op.attr("onesided", 0), op.attr("inverse", 0)
    if op.has(1):
        length = int(op.values(1)[0])
    else:
        length = 2 * (shape[axis] - 1) if onesided and inverse else shape[axis]
    if onesided and not inverse:
        length = length // 2 + 1
    last = 1 if onesided and inverse else 2
    return [(*shape[:axis], length, *shape[axis + 1 : -1], last)]


@rule("STFT")
def stft(op: ShapeNode) -> OutputShapes:
    """signal[B, L, 1 or 2], step[], window[W], frame_length[] -> Y[B, frames, bins, 2]."""
    shape, step = op.shape(0), int(op.values(1)[0])
    frame = int(op.values(3)[0]) if op.has(3) else op.shape(2)[0]
    bins = frame // 2 + 1 if op.attr("onesided", 1) else frame
    frames = (shape[1] - frame) // step + 1
    if frames <= 0:
        raise Contradiction(f"no frame of {frame} in {shape}")
    return [(shape[0], frames, bins, 2)]
