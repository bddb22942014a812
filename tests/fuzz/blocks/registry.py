"""The table of blocks: what a graph grows by, each with its relative frequency."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tests.fuzz.builder import Builder, Rejected

Block = Callable[[Builder, str], "str | list[str]"]
BLOCKS: list[tuple[float, Block]] = []


def block(weight: float) -> Callable[[Block], Block]:
    """Enter a block with its relative frequency."""

    def enter(f: Block) -> Block:
        BLOCKS.append((weight, f))
        return f

    return enter


def factors(b: Builder, n: int) -> tuple[int, int]:
    pairs = [(p, n // p) for p in range(2, n) if n % p == 0]
    if not pairs:
        raise Rejected("prime")
    return b.pick(pairs)  # type: ignore[no-any-return]


def reshaped(b: Builder, x: str, shape: Sequence[int]) -> str:
    """Reshape, written so that a leading batch stays dynamic where it can."""
    old, new = b.shape(x), list(map(int, shape))
    if old[0] == new[0]:
        new[0] = 0
        if b.flip(0.3) and len(new) > 1:
            new[int(b.rng.integers(1, len(new)))] = -1
    elif b.flip(0.8):
        new[int(np.argmax([n % old[0] == 0 for n in new]))] = -1
    return b.op("Reshape", x, b.ints(*new))
