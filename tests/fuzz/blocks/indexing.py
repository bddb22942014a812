"""Blocks that read and write at positions named by indices, and others that read an axis in order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tests.fuzz.blocks.registry import block, factors
from tests.fuzz.builder import Array, Builder, Rejected


def indices(b: Builder, shape: Sequence[int], axis: int, size: int, distinct: bool) -> Array:
    """Positions along an axis: the same at every position of the other axes, of some, or of none."""
    count = shape[axis]
    if distinct and count > size:
        raise Rejected("too many")
    alike = [k != axis and b.flip(0.7) for k in range(len(shape))]
    around = [1 if k == axis or same else n for k, (n, same) in enumerate(zip(shape, alike, strict=True))]
    made = np.empty((*around, count), np.int64)
    for where in np.ndindex(*around):
        made[where] = b.rng.permutation(size)[:count] if distinct else b.rng.integers(0, size, count)
    lined = np.moveaxis(made, -1, axis).reshape([count if k == axis else n for k, n in enumerate(around)])
    return np.array(np.broadcast_to(lined, shape))


@block(1)
def gather_elements(b: Builder, x: str) -> str:
    s = b.shape(x)
    axis = b.axis(x)
    shape = [b.size() if k == axis else n for k, n in enumerate(s)]
    if b.flip(0.2):
        k = b.axis(x)
        shape[k] = min(shape[k], int(b.rng.integers(1, s[k] + 1)))
    return b.op("GatherElements", x, b.constant(indices(b, shape, axis, s[axis], False), "i"), axis=axis)


@block(1)
def scatter_elements(b: Builder, x: str) -> str:
    s = b.shape(x)
    axis = b.axis(x)
    shape = [int(b.rng.integers(1, n + 1)) if k == axis or b.flip(0.15) else n for k, n in enumerate(s)]
    named = b.constant(indices(b, shape, axis, s[axis], True), "i")
    reduction = b.pick([None, None, "add", "mul", "max"])
    return b.op("ScatterElements", x, named, b.weight(*shape), axis=axis, reduction=reduction)


@block(1)
def scatter_nd(b: Builder, x: str) -> str:
    """Whole slices at named positions, or a block of them."""
    s = b.shape(x)
    m = int(b.rng.integers(1, len(s) + 1))
    partial = b.axis(x) % m
    counts = [int(b.rng.integers(1, n + 1)) if k == partial else n for k, n in enumerate(s[:m])]
    lines = [b.rng.permutation(n)[:c] if c < n else np.arange(n) for c, n in zip(counts, s[:m], strict=True)]
    named = np.stack(np.meshgrid(*lines, indexing="ij"), -1)
    if b.flip(0.2):  # not a block
        named = named.reshape(-1, m)[b.rng.permutation(math.prod(counts))]
    shape = (*named.shape[:-1], *s[m:])
    reduction = b.pick([None, None, None, "add"])
    return b.op("ScatterND", x, b.constant(named, "i"), b.weight(*shape), reduction=reduction)


@block(0.7)
def gather_nd(b: Builder, x: str) -> str:
    s = b.shape(x)
    m = int(b.rng.integers(1, len(s)))
    count = b.size()
    named = np.stack([b.rng.integers(0, n, count) for n in s[:m]], -1)
    return b.op("GatherND", x, b.constant(named, "i"))


@block(0.7)
def in_order(b: Builder, x: str) -> str:
    """Axes that are read by position, the others as they are."""
    s = b.shape(x)
    if len(s) < 3:
        raise Rejected("rank")
    way = b.pick(["Trilu", "ReverseSequence", "Compress", "CenterCropPad"])
    if way == "Trilu":
        return b.op(way, x, upper=int(b.flip()))
    if way == "ReverseSequence":
        time = int(b.rng.integers(2))
        lengths = b.rng.integers(1, s[time] + 1, s[1 - time])
        return b.op(way, x, b.constant(lengths, "i"), time_axis=time, batch_axis=1 - time)
    axis = b.axis(x)
    if way == "Compress":
        kept = np.arange(s[axis]) % 2 == 0
        return b.op(way, x, b.constant(kept, "i"), axis=axis)
    return b.op(way, x, b.ints(max(1, s[axis] + int(b.rng.integers(-1, 3)))), axes=[axis])


@block(0.4)
def transform(b: Builder, x: str) -> str:
    """The real part of a Fourier transform."""
    s = b.shape(x)
    axis = int(b.rng.integers(1, len(s)))
    wide = b.op("Unsqueeze", x, b.ints(len(s)))
    where = b.constant(np.array(axis, np.int64), "i")
    y = b.op("DFT", wide, "", where) if b.opset >= 20 else b.op("DFT", wide, axis=axis)
    return b.op("Gather", y, b.constant(np.array(0, np.int64), "i"), axis=len(s))


@block(0.4)
def columns_to_image(b: Builder, x: str) -> str:
    s = b.shape(x)
    if len(s) != 3 or b.dtype != np.float32:
        raise Rejected("rank")
    size, _ = factors(b, s[1])
    return b.op("Col2Im", x, b.ints(1, s[2] + size - 1), b.ints(1, size))


@block(0.4)
def sampled(b: Builder, x: str) -> str:
    s = b.shape(x)
    if len(s) != 4 or b.dtype != np.float32:
        raise Rejected("rank")
    grid = b.constant(b.rng.uniform(-1.1, 1.1, (s[0], 3, 2, 2)).astype(np.float32), "g")
    return b.op("GridSample", x, grid)
