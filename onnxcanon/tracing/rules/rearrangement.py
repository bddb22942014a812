"""Operators that rearrange entries: each is index arithmetic on the labels (`tracing/positions.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxcanon.graph.operators import CONTRIB
from onnxcanon.tracing.abstract_value import FIXED, UNIFORM, AbstractValue, constant
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.registry import Outputs, SymmetryNode, Unsupported, register


@register("Transpose", leaves_splits=True)
def transpose(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[…] -> Y with axes permuted by `perm` (reversed by default)."""
    x = op.x(0)
    return ctx.transpose(x, op.attr("perm") or list(reversed(range(x.rank))))


@register("ExpandDims", domain=CONTRIB, leaves_splits=True)
@register("Flatten", "Reshape", "Squeeze", "Unsqueeze", leaves_splits=True)
def reshape(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[s…] -> Y[t…], entries in row-major order."""
    a, b = op.out_shapes()
    return ctx.reshape_openly(op.x(0), a, op.in_shapes(0)[1], b)


@register("Expand")
def expand(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> X broadcast to a shape."""
    return ctx.expand(op.x(0), op.out_shapes()[0])


@register("Tile")
def tile(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[n, …] -> Y[n·r, …], whole axes repeated."""
    x, shape = op.x(0), op.out_shapes()
    before = op.in_shapes(0)
    for k, (n, m) in enumerate(zip(before[0], shape[0], strict=True)):
        if n == m and before[1][k] == shape[1][k]:
            continue
        if n == 1:
            wide = list(x.shape)
            wide[k] = m
            x = ctx.expand(x, tuple(wide))
        elif before[1][k] != n or shape[1][k] != m:
            x = resized_unknown(ctx, x, k, m, "tiled by a dynamic amount")
        else:
            x = ctx.take(x, k, np.tile(np.arange(n), m // n))
    return x


def resized_unknown(ctx: Context, x: AbstractValue, axis: int, size: int, reason: str) -> AbstractValue:
    """An axis cut or repeated in a way known only at run time."""
    still = ctx.gather_unknown(x, axis, reason)
    still.shape = tuple(size if k == axis else n for k, n in enumerate(x.shape))
    still.ids[axis] = UNIFORM if size == 1 else FIXED
    return still


@register("Slice")
def cut(ctx: Context, op: SymmetryNode) -> Outputs:
    """X, starts, ends, axes, steps -> X[starts:ends:steps] along the axes."""
    x = op.x(0)
    if op.version < 10:
        starts, ends, axes = op.attr("starts"), op.attr("ends"), op.attr("axes")
        inputs = [(s, s) for s in (starts, ends, axes, None)]
    else:
        inputs = [op.data_pair(k) if op.has(k) else (None, None) for k in (1, 2, 3, 4)]
    before, after = op.in_shapes(0), op.out_shapes()
    chosen = [_slices(x.rank, before[p], [pair[p] for pair in inputs]) for p in (0, 1)]
    for k in range(x.rank):
        if chosen[0] is None or chosen[1] is None:
            same = before[0][k] == after[0][k] and before[1][k] == after[1][k]
            if not same or not op.has(3) or op.has(4):
                x = resized_unknown(ctx, x, k, after[0][k], "cut at positions known only at run time")
            continue
        a, b = chosen[0][k], chosen[1][k]
        if a is None and b is None:
            continue
        n, m = before[0][k], before[1][k]
        first = np.arange(n)[a] if a is not None else np.arange(n)
        second = np.arange(m)[b] if b is not None else np.arange(m)
        if n == m and np.array_equal(first, second):
            x = ctx.take(x, k, first)
        elif len(first) == n and len(second) == m and np.array_equal(first, np.arange(n)):
            continue
        else:
            x = resized_unknown(ctx, x, k, len(first), "cut at positions that depend on a dynamic size")
    return x


def _slices(rank: int, shape: tuple[int, ...], inputs: list[Any]) -> list[slice | None] | None:
    """One slice per axis, or None where starts or ends are not known."""
    starts, ends, axes, steps = (None if a is None else [int(v) for v in np.ravel(a)] for a in inputs)
    if starts is None or ends is None:
        return None
    axes = axes if axes is not None else list(range(len(starts)))
    steps = steps if steps is not None else [1] * len(starts)
    out: list[slice | None] = [None] * rank
    for s, e, a, d in zip(starts, ends, axes, steps, strict=True):
        n = shape[a]
        s = s + n if s < 0 else s
        e = e + n if e < 0 else e
        if d > 0:
            out[a] = slice(min(max(s, 0), n), min(max(e, 0), n), d)
        else:
            s, e = min(max(s, 0), n - 1), min(max(e, -1), n - 1)
            out[a] = slice(s, None if e < 0 else e, d)
    return out


@register("Split")
def split(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> parts along an axis."""
    x = op.x(0)
    axis = op.axis(0, x.rank)
    outs: list[AbstractValue | None] = []
    at = (0, 0)
    for k in range(len(op.node.outputs)):
        a, b = op.out_shapes(k)
        if a[axis] == b[axis] and at[0] == at[1]:
            with ctx.at_slot(k):
                outs.append(ctx.take(x, axis, np.arange(at[0], at[0] + a[axis])))
        else:
            outs.append(
                resized_unknown(ctx, x, axis, a[axis], "split at positions that depend on a dynamic size")
            )
        at = (at[0] + a[axis], at[1] + b[axis])
    return outs


@register("Concat")
def concat(ctx: Context, op: SymmetryNode) -> Outputs:
    """X1, X2, … -> joined along an axis."""
    return concatenated(ctx, op, op.xs())


def concatenated(ctx: Context, op: SymmetryNode, values: Sequence[AbstractValue]) -> AbstractValue:
    """Values joined along the axis of a node; where the length of one is dynamic, positions are fixed."""
    axis = op.axis(1, values[0].rank)
    a, b = op.out_shapes()
    if a[axis] != b[axis]:
        for v in values:
            ctx.fix(v, axis, "concatenated with a dynamic axis")
    return ctx.concat(values, axis)


@register("Gather")
def gather(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[…, n, …], indices[q…] -> Y[…, q…, …]."""
    x = op.x(0)
    axis = op.axis(0, x.rank)
    a, b = op.out_shapes()
    indices = op.data(1)
    if indices is None:
        return looked_up(ctx, x, axis, a)
    n = x.shape[axis]
    if op.in_shapes(0)[1][axis] != n and (indices < 0).any():
        still = ctx.gather_unknown(x, axis, "indexed from the end of a dynamic axis")
        return _placed(ctx, still, axis, a)
    flat = np.where(indices < 0, indices + n, indices).astype(np.int64).ravel()
    if flat.size and (flat.min() < 0 or flat.max() >= n):
        raise Unsupported("Gather with indices out of range")
    y = ctx.take(x, axis, flat)
    if indices.ndim == 0:
        return ctx.squeeze(y, axis)
    if indices.ndim == 1:
        return y
    return ctx.reshape(y, a, (*b[:axis], flat.size, *b[axis + indices.ndim :]), b)


def looked_up(ctx: Context, x: AbstractValue, axis: int, shape: tuple[int, ...]) -> AbstractValue:
    """X[…, n, …] -> Y[…, q…, …] of the given shape, positions of an axis being chosen at run time."""
    still = ctx.gather_unknown(x, axis, "its positions are chosen at run time (an embedding's rows)")
    return _placed(ctx, still, axis, shape)


def _placed(ctx: Context, still: AbstractValue, axis: int, shape: tuple[int, ...]) -> AbstractValue:
    """Replace an axis nothing depends on by the axes of run-time indices."""
    core = constant(tuple(1 if k == axis else n for k, n in enumerate(still.shape)))
    core.ids = [UNIFORM if k == axis else s for k, s in enumerate(still.ids)]
    core.exponents, core.zero = list(still.exponents), still.zero
    core = ctx.squeeze(core, axis)
    for k in range(len(shape) - core.rank):
        core = ctx.insert(core, axis + k)
    new = range(axis, axis + len(shape) - (still.rank - 1))
    core.shape = shape
    for k in new:
        core.ids[k] = UNIFORM if shape[k] == 1 else FIXED
    return core


@register("TensorScatter")
def tensor_scatter(ctx: Context, op: SymmetryNode) -> Outputs:
    """cache[B, …, T, …], new[B, …, L, …], places[B] -> cache with the new rows written along an axis."""
    cache, new = op.x(0), op.x(1)
    axis = op.axis(-2, cache.rank)
    ctx.bind_together([cache, new], cache.rank)
    for v in (cache, new):
        for k in {0, axis}:
            ctx.fix(v, k, "written at positions chosen at run time")
    return resized_unknown(ctx, ctx.concat([cache, new], axis), axis, cache.shape[axis], "written in part")


@register("Pad")
def pad(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> Y, each axis extended or cut; constant padding with zeros keeps scale and sign."""
    x = op.x(0)
    after = op.out_shapes()[0]
    mode = op.attr("mode", "constant")
    amounts, others = (_pad_amounts(op, x.rank, sample) for sample in (0, 1))
    fill = op.attr("value", 0.0) if not op.has(2) else _item(op.data(2))
    for k in range(x.rank):
        pads = None if amounts is None else amounts.get(k, (0, 0))
        if pads is not None and others is not None and pads == others.get(k, (0, 0)):
            if pads == (0, 0):
                continue
            if mode == "constant" and op.in_shapes(0)[0][k] == op.in_shapes(0)[1][k]:
                x = ctx.take(x, k, np.arange(max(0, -pads[0]), x.shape[k] - max(0, -pads[1])))
                x = ctx.pad(x, k, max(0, pads[0]), max(0, pads[1]), zero=fill == 0.0)
                continue
        x = resized_unknown(ctx, x, k, after[k], "padded by its own positions")
        if mode == "constant" and fill != 0.0:
            x = ctx.stop(x)
    return x


def _pad_amounts(op: SymmetryNode, rank: int, sample: int) -> dict[int, tuple[int, int]] | None:
    """Amounts before and after, per axis, in one sample, where they are known."""
    pads = op.attr("pads", op.attr("paddings"))
    axes = list(range(rank))
    if pads is None:
        amounts = op.data_pair(1)[sample]
        if amounts is None:
            return None
        pads = amounts.ravel().tolist()
        if op.has(3):
            chosen = op.data(3)
            if chosen is None:
                return None
            axes = [int(a) % rank for a in chosen.ravel()]
    m = len(pads) // 2
    return {axes[k]: (int(pads[k]), int(pads[k + m])) for k in range(m)}


def _item(value: np.ndarray[Any, Any] | None) -> float | None:
    """The one number of a fill value; none given is zero."""
    if value is None:
        return None
    return float(value.ravel()[0]) if value.size else 0.0
