"""Order-free 64-bit hashing of arrays, the arithmetic of every colour refinement here.

`mix` is the finalizer of splitmix64 (Steele, Lea, Flood 2014); sums of mixed words modulo 2^64 are hashes of
multisets: exact, commutative, vectorized.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.arrays import Words

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: Words) -> Words:
    """A bijective scrambling of uint64 words, elementwise."""
    x = x + GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@lru_cache(1 << 16)
def salt(*words: int) -> np.uint64:
    """One word from several small integers."""
    out, whole = 0, (1 << 64) - 1
    for w in words:  # `mix` in Python's integers, which are faster for one number
        x = (out * int(GOLDEN) + w + int(GOLDEN)) & whole
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & whole
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & whole
        out = x ^ (x >> 31)
    return np.uint64(out)


def add_at(total: Words, index: NDArray[np.int64], words: Words) -> None:
    """total[index] += words, with repetitions, modulo 2^64."""
    np.add.at(total, index, words)


def distinct(values: NDArray[Any]) -> NDArray[Any]:
    """The different values, sorted; for large arrays a sort is several times faster than `numpy.unique`."""
    ranked = np.sort(values, axis=None)
    fresh = np.ones(len(ranked), bool)
    np.not_equal(ranked[1:], ranked[:-1], out=fresh[1:])
    return ranked[fresh]
