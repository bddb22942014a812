"""Reshapes as arithmetic of sizes: the finest blocks, and the factors, that two shapes have in common.

Sizes come in pairs, those in the first and in the second sample of dynamic dimensions: a block or a factor
has to fit in both.
"""

from __future__ import annotations

from collections.abc import Sequence

SizePairs = list[tuple[int, int]]


def blocks(source: SizePairs, target: Sequence[tuple[int, int]]) -> list[tuple[SizePairs, SizePairs]] | None:
    """Two shapes, as pairs (first sample, second), in the finest blocks of equal product."""
    out: list[tuple[SizePairs, SizePairs]] = []
    i = j = 0
    while i < len(source) and j < len(target):
        ins, outs = [source[i]], [target[j]]
        (a, x), (b, y) = source[i], target[j]
        i, j = i + 1, j + 1
        while (a, x) != (b, y):
            if (a < b or (a == b and x < y)) and i < len(source):
                a, x = a * source[i][0], x * source[i][1]
                ins.append(source[i])
                i += 1
            elif j < len(target):
                b, y = b * target[j][0], y * target[j][1]
                outs.append(target[j])
                j += 1
            else:
                return None
        out.append((ins, outs))
    return out if i == len(source) and j == len(target) else None


def common_factors(ins: SizePairs, outs: SizePairs) -> tuple[list[list[int]], list[list[int]]] | None:
    """The factors (first sample) both lists of sizes are products of, grouped for each list; None where they
    do not line up in both samples."""
    ends = sorted({*_products(ins), *_products(outs)})
    factors, last = [], (1, 1)
    for end in ends:
        if end[0] % last[0] or end[1] % last[1]:
            return None
        factors.append((end[0] // last[0], end[1] // last[1]))
        last = end

    def grouped(sizes: SizePairs) -> list[list[int]]:
        groups, rest = [], iter(factors)
        for size in sizes:
            group, have = [], (1, 1)
            while have != size:
                f = next(rest)
                group.append(f[0])
                have = (have[0] * f[0], have[1] * f[1])
            groups.append(group)
        return groups

    return grouped(ins), grouped(outs)


def _products(sizes: SizePairs) -> list[tuple[int, int]]:
    """Running products of (first, second) sizes."""
    out, a, b = [], 1, 1
    for x, y in sizes:
        a, b = a * x, b * y
        out.append((a, b))
    return out
