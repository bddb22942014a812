"""Blocks that only move entries: reshapes, transposes, slices, gathers, pads."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from tests.fuzz.blocks.registry import block, factors, reshaped
from tests.fuzz.builder import Builder, Rejected


@block(2)
def transpose(b: Builder, x: str) -> str:
    rank = len(b.shape(x))
    perm = [0, *(1 + b.rng.permutation(rank - 1))] if b.flip(0.8) else b.rng.permutation(rank)
    return b.op("Transpose", x, perm=[int(p) for p in perm])


@block(2)
def split_axis(b: Builder, x: str) -> str:
    s = b.shape(x)
    if len(s) > 4:
        raise Rejected("rank")
    k = b.axis(x, 4)
    return reshaped(b, x, (*s[:k], *factors(b, s[k]), *s[k + 1 :]))


@block(2)
def merge_axes(b: Builder, x: str) -> str:
    s = b.shape(x)
    if len(s) < 3:
        raise Rejected("rank")
    k = int(b.rng.integers(1 if b.flip(0.8) else 0, len(s) - 1))
    return reshaped(b, x, (*s[:k], s[k] * s[k + 1], *s[k + 2 :]))


@block(1)
def realign(b: Builder, x: str) -> str:
    """Reshape of two axes into two that do not line up."""
    s = b.shape(x)
    if len(s) < 3:
        raise Rejected("rank")
    k = int(b.rng.integers(1 if b.flip(0.8) else 0, len(s) - 1))
    return reshaped(b, x, (*s[:k], *factors(b, s[k] * s[k + 1]), *s[k + 2 :]))


@block(1)
def free_reshape(b: Builder, x: str) -> str:
    s = b.shape(x)
    total, new = math.prod(s[1:]), []
    while total > 1 and len(new) < 3:
        f = int(b.pick([d for d in range(2, total + 1) if total % d == 0]))
        new.append(f)
        total //= f
    return reshaped(b, x, (s[0], *new, *([total] if total > 1 else [])))


@block(2)
def shuffle(b: Builder, x: str) -> str:
    """Channel shuffle: [g, c] -> [c, g] inside one axis."""
    s, k = b.shape(x), b.axis(x, 4, free=False)
    p, q = factors(b, s[k])
    wide = reshaped(b, x, (*s[:k], p, q, *s[k + 1 :]))
    perm = [*range(k), k + 1, k, *range(k + 2, len(s) + 1)]
    return reshaped(b, b.op("Transpose", wide, perm=perm), s)


@block(1)
def squeeze_unsqueeze(b: Builder, x: str) -> str:
    s = b.shape(x)
    ones = [k for k, n in enumerate(s) if n == 1 and k]
    if ones and b.flip(0.7):
        return b.op("Squeeze", x, b.ints(int(b.pick(ones))))
    if len(s) > 4:
        raise Rejected("rank")
    y = b.op("Unsqueeze", x, b.ints(int(b.rng.integers(1, len(s) + 1))))
    if b.flip(0.5):
        return y
    s = b.shape(y)
    k = int(b.pick([k for k, n in enumerate(s) if n == 1]))
    m = b.size()
    if b.flip():
        return b.op("Expand", y, b.ints(*(1 if j != k else m for j in range(len(s)))))
    return b.op("Tile", y, b.ints(*(1 if j != k else m for j in range(len(s)))))


@block(0.5)
def flatten(b: Builder, x: str) -> str:
    return b.op("Flatten", x, axis=int(b.rng.integers(1, len(b.shape(x)))))


@block(0.7)
def tile(b: Builder, x: str) -> str:
    k = b.axis(x)
    return b.op("Tile", x, b.ints(*(2 if j == k else 1 for j in range(len(b.shape(x))))))


def sliced(b: Builder, x: str, k: int, start: int, stop: int, step: int = 1) -> str:
    return b.op("Slice", x, b.ints(start), b.ints(stop), b.ints(k), b.ints(step))


@block(2)
def cut(b: Builder, x: str) -> str:
    k = b.axis(x, 3)
    n = b.shape(x)[k]
    step = int(b.pick([1, 1, 2, 3, -1, -1, -2]))
    if step > 0:
        start = int(b.rng.integers(0, n - 1))
        return sliced(b, x, k, start, int(b.pick([n, 9999, max(start + 1, n - 1)])), step)
    return sliced(b, x, k, int(b.pick([-1, n - 1, n - 2])), -9999, step)


def parts_of(b: Builder, x: str, k: int, count: int, even: bool) -> list[str]:
    n = b.shape(x)[k]
    if even and n % count == 0:
        sizes = [n // count] * count
    else:
        cuts = sorted(b.rng.choice(np.arange(1, n), count - 1, replace=False).tolist()) if n > count else []
        sizes = np.diff([0, *cuts, n]).astype(int).tolist()
    if b.flip():
        return b.ops("Split", x, b.ints(*sizes), outputs=len(sizes), axis=k)
    at = np.cumsum([0, *sizes]).tolist()
    return [sliced(b, x, k, p, q) for p, q in pairwise(at)]


@block(2)
def split(b: Builder, x: str) -> list[str]:
    k = b.axis(x, 4)
    parts = parts_of(b, x, k, int(b.pick([2, 2, 3])), b.flip(0.7))
    return [parts[int(i)] for i in b.rng.permutation(len(parts))[: int(b.rng.integers(1, len(parts) + 1))]]


@block(2)
def regroup(b: Builder, x: str) -> str:
    """Slices of an axis put together again in another order, some twice."""
    k = b.axis(x, 4)
    parts = parts_of(b, x, k, int(b.pick([2, 2, 3])), b.flip(0.7))
    order = b.rng.permutation(len(parts)) if b.flip(0.7) else b.rng.integers(0, len(parts), len(parts) + 1)
    chosen = [parts[int(i)] for i in order]
    if b.flip(0.3):
        chosen[0] = b.op("Neg", chosen[0])
    return b.op("Concat", *chosen, axis=k)


@block(2)
def concat(b: Builder, x: str) -> str:
    k, s = b.axis(x, 1), b.shape(x)
    fits = [
        p
        for p in b.pool
        if len(b.shape(p)) == len(s)
        and all(n == m or j == k for j, (n, m) in enumerate(zip(b.shape(p), s, strict=True)))
    ]
    others = [x, str(b.pick(fits))] if fits else [x, x]
    if b.flip(0.2):
        size = b.size()
        constant = b.flip()
        shape = [size if j == k else n for j, n in enumerate(s)]
        others.append(b.uniform(shape, 0.0) if constant else b.weight(*shape))
    return b.op("Concat", *(others[int(i)] for i in b.rng.permutation(len(others))), axis=k)


@block(2)
def gather(b: Builder, x: str) -> str:
    k = b.axis(x, 2)
    n = b.shape(x)[k]
    way = b.rng.random()
    if way < 0.35:
        index = b.rng.permutation(n)
    elif way < 0.7:
        index = b.rng.integers(0, n, int(b.pick([n, n, 2, 4])))
    elif way < 0.8:
        index = np.array(b.rng.integers(-n, n))
    elif way < 0.9:
        index = np.sort(b.rng.permutation(n)[: max(1, n // 2)])
    else:
        index = (
            b.rng.integers(0, n, (2, 2)) if b.flip() else b.rng.permutation(n)[: n // 2 * 2].reshape(2, -1)
        )
    return b.op("Gather", x, b.constant(index.astype(np.int64), "i"), axis=k)


@block(1.5)
def pad(b: Builder, x: str) -> str:
    k, rank = b.axis(x, 2), len(b.shape(x))
    amounts = np.zeros((2, rank), np.int64)
    amounts[:, k] = b.pick([(1, 1), (0, 2), (2, 0), (-1, 1), (0, -1)])
    if b.flip(0.2):
        amounts[:, rank - 1] = (1, 1)
    mode = b.pick(["constant"] * 5 + ["reflect", "edge"])
    value = [b.scalar(float(b.pick([0.0, 0.0, 0.7])))] if mode == "constant" and b.flip() else []
    return b.op("Pad", x, b.ints(*amounts.ravel().tolist()), *value, mode=mode)


@block(1)
def depth_space(b: Builder, x: str) -> str:
    kind = b.pick(["DepthToSpace", "SpaceToDepth"])
    return b.op(kind, x, blocksize=2, mode=b.pick(["DCR", "CRD"]) if kind == "DepthToSpace" else None)


# contractions
