"""Transforms along an axis, and matrices that are read by position: those axes are fixed, the others pass."""

from __future__ import annotations

from onnxcanon.graph.operators import BOTH, CONTRIB
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.indexing import fixed_slice, widened
from onnxcanon.tracing.rules.registry import Outputs, SymmetryNode, Unsupported, register

TRANSFORMED = "positions under a Fourier transform"


@register("DFT")
def fourier(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[…, n, …, 1 or 2], length, axis -> Y[…, m, …, 1 or 2]: linear."""
    x = op.x(0)
    if op.has(2):
        index = op.data(2)
        if index is None:
            raise Unsupported("its axis is chosen at run time")
        axis = int(index.item()) % x.rank
    else:
        axis = op.axis(1 if op.version < 20 else -2, x.rank)
    return widened(fixed_slice(ctx, x, [axis, x.rank - 1], TRANSFORMED), op.out_shapes()[0])


@register("STFT")
def short_fourier(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[B, n, 1 or 2], step, window, length -> Y[B, frames, bins, 2]: linear."""
    x = op.x(0)
    if x.rank != 3:
        raise Unsupported("a signal without its last axis")
    y = fixed_slice(ctx, x, [1, 2], TRANSFORMED)
    return widened(ctx.insert(y, 1), op.out_shapes()[0])


@register("Det")
def determinant(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[…, m, m] -> Y[…]."""
    y = fixed_slice(
        ctx, ctx.stop(op.x(0)), (op.x(0).rank - 2, op.x(0).rank - 1), "rows and columns of a determinant"
    )
    return ctx.squeeze(ctx.squeeze(y, y.rank - 1), y.rank - 2)


@register("Inverse", domain=CONTRIB)
def inverse(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[…, m, m] -> Y[…, m, m]."""
    x = ctx.stop(op.x(0))
    return widened(fixed_slice(ctx, x, (x.rank - 2, x.rank - 1), "rows and columns of an inverse"), x.shape)


@register("Trilu", domain=BOTH)
def triangle(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[…, m, n], k -> X with zeros above or below a diagonal: linear."""
    x = op.x(0)
    return widened(
        fixed_slice(ctx, x, (x.rank - 2, x.rank - 1), "rows and columns under a diagonal"), x.shape
    )


@register("ReverseSequence")
def reversed_sequences(ctx: Context, op: SymmetryNode) -> Outputs:
    """X, lengths[batch] -> X with the first entries of each sequence in reverse: linear."""
    x = op.x(0)
    axes = (int(op.attr("batch_axis", 1)), int(op.attr("time_axis", 0)))
    ctx.fix_all(op.x(1), "lengths of sequences")
    return widened(fixed_slice(ctx, x, axes, "positions of sequences that are reversed"), x.shape)


@register("CDist", domain=CONTRIB)
def distances(ctx: Context, op: SymmetryNode) -> Outputs:
    """A[n, d], B[m, d] -> the distance of each row of A from each row of B."""
    a, b = ctx.stop(op.x(0)), ctx.stop(op.x(1))
    return ctx.stop(ctx.contract([a, b], ["nd", "md"], "nm"))
