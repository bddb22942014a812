"""Reading and writing at positions that a tensor of indices names.

The axes that are indexed are fixed, the others pass. Where the indices are known and name whole slices along
one axis, writing is a concatenation in another order, and everything passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from onnxcanon.arrays import Array
from onnxcanon.graph.operators import BOTH, CLASSICAL
from onnxcanon.tracing.abstract_value import AbstractValue, constant
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.registry import Outputs, SymmetryNode, Unsupported, register

INDEXED = "its positions are named by indices"


def fixed_slice(ctx: Context, v: AbstractValue, axes: Iterable[int], reason: str = INDEXED) -> AbstractValue:
    """v with some axes fixed, forgotten as context, and cut to size 1: the labels of the others."""
    axes = list(axes)
    ctx.bind(v)
    for axis in axes:
        v = ctx.gather_unknown(v, axis, reason)
    out = constant([1 if k in axes else n for k, n in enumerate(v.shape)])
    for k in range(v.rank):
        if k not in axes:
            out.ids[k], out.exponents[k] = v.ids[k], v.exponents[k]
    out.zero = v.zero
    return out


def widened(v: AbstractValue, shape: Sequence[int]) -> AbstractValue:
    """v with axes of size 1 grown to fixed ones."""
    out = constant(shape)
    for k, n in enumerate(v.shape):
        if n == shape[k]:
            out.ids[k], out.exponents[k] = v.ids[k], v.exponents[k]
    out.zero = v.zero
    return out


def _sizes(op: SymmetryNode, i: int, axis: int) -> tuple[int, int]:
    a, b = op.in_shapes(i)
    return a[axis], b[axis]


# -- along one axis ----------------------------------------------------------------------------------------


def _same_everywhere(indices: Array | None, axis: int, shape: Sequence[int]) -> Array | None:
    """The positions along an axis, where they are known, the same at every position of the other axes, and
    those are all there."""
    if indices is None or indices.size == 0:
        return None
    if any(n != m for k, (n, m) in enumerate(zip(indices.shape, shape, strict=True)) if k != axis):
        return None
    first = indices.reshape(*indices.shape)
    for k in range(indices.ndim):
        if k != axis:
            first = first.take([0], k)
    return _positions(first.ravel(), shape[axis]) if (indices == first).all() else None


def _positions(index: Array, size: int) -> Array | None:
    """Positions counted from 0; None where they are out of range."""
    index = np.where(index < 0, index + size, index).astype(np.int64)
    return index if index.size and index.min() >= 0 and index.max() < size else None


def _paired_indices(ctx: Context, op: SymmetryNode, axis: int) -> tuple[AbstractValue, list[int]]:
    """The indices, and the axes along which their positions are not paired with those of the data."""
    v = ctx.stop(op.x(1))
    v.zero = False  # an index of 0 is no number that is added
    (a, b), (c, d) = op.in_shapes(0), op.in_shapes(1)
    return v, [k for k in range(v.rank) if k == axis or a[k] != c[k] or b[k] != d[k]]


@register("GatherElements")
def gather_elements(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[…, n, …], indices[…, m, …] -> Y[i, j, …] = X[i, indices[i, j, …], …]."""
    x = op.x(0)
    axis = op.axis(0, x.rank)
    (n, alt), static = _sizes(op, 0, axis), op.data(1)
    index = _same_everywhere(static, axis, x.shape) if n == alt else None
    if index is not None and op.in_shapes(0)[0] == op.in_shapes(0)[1]:
        return ctx.take(x, axis, index)
    indices, loose = _paired_indices(ctx, op, axis)
    core, picks = fixed_slice(ctx, x, loose), fixed_slice(ctx, indices, loose)
    zero = core.zero
    y = ctx.elementwise([core, picks], product=True)
    y.zero = zero
    return widened(y, op.out_shapes()[0])


@register("Scatter", "ScatterElements")
def scatter_elements(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[…, n, …], indices[…, m, …], updates -> X with Y[i, indices[i, j, …], …] = updates[i, j, …]."""
    x, updates = op.x(0), op.x(2)
    axis = op.axis(0, x.rank)
    static_shape = op.in_shapes(0)[0] == op.in_shapes(0)[1]
    index = _same_everywhere(op.data(1), axis, x.shape) if static_shape else None
    if index is not None and len(set(index.tolist())) == len(index) and _plain(op):
        return overwritten(ctx, x, updates, axis, index)
    indices, loose = _paired_indices(ctx, op, axis)
    values = [fixed_slice(ctx, v, loose) for v in (ctx.stop(x), indices, ctx.stop(updates))]
    return widened(ctx.elementwise(values), x.shape)


def _plain(op: SymmetryNode) -> bool:
    """Whether what is written takes the place of what was there."""
    return bool(op.attr("reduction", "none") == "none")


def overwritten(
    ctx: Context, x: AbstractValue, updates: AbstractValue, axis: int, index: Array
) -> AbstractValue:
    """X[…, n, …] with the positions `index` [m] of an axis, each named once, replaced by updates[…, m, …]."""
    rest = np.setdiff1d(np.arange(x.shape[axis]), index)
    joined = ctx.concat([ctx.take(x, axis, rest), updates], axis) if len(rest) else ctx.copy(updates)
    return ctx.take(joined, axis, np.argsort(np.concatenate([rest, index])))


@register("Compress", domain=BOTH)
def compress(ctx: Context, op: SymmetryNode) -> Outputs:
    """X, condition[n] -> the positions of an axis where it holds, or of the flattened X."""
    x = op.x(0)
    if op.attr("axis") is None:
        ctx.fix_all(x, "positions chosen by a condition")
        return [None]
    axis = op.axis(0, x.rank)
    y = fixed_slice(ctx, x, [axis], "its positions are chosen by a condition")
    return widened(y, op.out_shapes()[0])


@register("ArrayFeatureExtractor", domain=CLASSICAL)
def features(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[…, n], positions[m] -> X[…, positions]."""
    x, data = op.x(0), op.data(1)
    index = None if data is None else _positions(data.ravel(), x.shape[-1])
    n, alt = _sizes(op, 0, x.rank - 1)
    if index is None or n != alt or x.rank != 2:
        ctx.fix_all(x, INDEXED)
        return [None]
    return ctx.take(x, 1, index)


# -- along several axes ------------------------------------------------------------------------------------


def _mesh(indices: Array | None, shape: Sequence[int]) -> list[Array] | None:
    """The positions along each of the first axes, where the indices [q…, m] are known and their coordinate j
    depends on q_j alone: then they name a block."""
    if indices is None or indices.size == 0 or indices.ndim - 1 != indices.shape[-1]:
        return None
    lines = []
    for j in range(indices.shape[-1]):
        coordinate = indices[..., j]
        line = coordinate[tuple(slice(None) if k == j else 0 for k in range(coordinate.ndim))]
        spread = line.reshape([-1 if k == j else 1 for k in range(coordinate.ndim)])
        positions = _positions(line, shape[j])
        if positions is None or (coordinate != spread).any():
            return None
        lines.append(positions)
    return lines


def _all(line: Array, size: int) -> bool:
    return len(line) == size and bool((line == np.arange(size)).all())


@register("ScatterND")
def scatter_nd(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[n…, *S], indices[q…, m], updates[q…, *S] -> X with Y[indices[q…], :] = updates[q…, :]."""
    x, updates = op.x(0), op.x(2)
    (a, b), (q, q2) = op.in_shapes(0), op.in_shapes(1)
    m = q[-1]
    lines = _mesh(op.data(1), x.shape) if a[:m] == b[:m] else None
    if lines is not None and _plain(op) and all(len(set(line.tolist())) == len(line) for line in lines):
        partial = [j for j, line in enumerate(lines) if not _all(line, x.shape[j])]
        if len(partial) <= 1:
            axis = partial[0] if partial else 0
            return overwritten(ctx, x, updates, axis, lines[axis])
    if q2[-1] != m:
        raise Unsupported("indices of a dynamic number of axes")
    ctx.fix_all(op.x(1), INDEXED)
    core = _trailing(ctx, fixed_slice(ctx, ctx.stop(x), range(m)), m)
    other = _trailing(ctx, fixed_slice(ctx, ctx.stop(updates), range(len(q) - 1)), len(q) - 1)
    y = ctx.elementwise([core, other])
    for _ in range(m):
        y = ctx.insert(y, 0)
    return widened(y, x.shape)


def _trailing(ctx: Context, v: AbstractValue, count: int) -> AbstractValue:
    """v without its first axes, which are of size 1."""
    for _ in range(count):
        v = ctx.squeeze(v, 0)
    return v


@register("GatherND", domain=BOTH)
def gather_nd(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[b…, n…, *S], indices[b…, q…, m] -> Y[b…, q…, *S] = X[b…, indices[b…, q…], :]."""
    x, shape = op.x(0), op.out_shapes()[0]
    (q, q2), gone = op.in_shapes(1), op.attr("batch_dims", 0) + op.in_shapes(1)[0][-1]
    if q2[-1] != q[-1]:
        raise Unsupported("indices of a dynamic number of axes")
    ctx.fix_all(op.x(1), INDEXED)
    y = _trailing(ctx, fixed_slice(ctx, x, range(gone)), gone)
    for _ in range(len(q) - 1):
        y = ctx.insert(y, 0)
    return widened(y, shape)


@register("OneHot")
def one_hot(ctx: Context, op: SymmetryNode) -> Outputs:
    """indices[…], depth, values[2] -> Y[…, depth, …]: the new axis is the index itself."""
    x = ctx.stop(op.x(0))
    x.zero = False
    y = ctx.insert(x, op.axis(-1, x.rank + 1))
    shape = op.out_shapes()[0]
    out = widened(y, shape)
    out.zero = False
    return out
