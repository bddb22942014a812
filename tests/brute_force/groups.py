"""Groups of permutations by their stabilizer chains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod

import numpy as np

from tests.brute_force.function import Places


def inverse(g: Places) -> Places:
    return np.argsort(g)


def orbit(start: int, generators: Iterable[Places]) -> set[int]:
    """All places that `start` comes to."""
    moves = list(generators)
    seen, todo = {start}, [start]
    while todo:
        k = todo.pop()
        for g in moves:
            if (n := int(g[k])) not in seen:
                seen.add(n)
                todo.append(n)
    return seen


class Chain:
    """A stabilizer chain filled by sifting elements: per level a base point and, for each place it comes to,
    an element that takes it there (Sims 1970)."""

    def __init__(self, degree: int) -> None:
        self.identity = np.arange(degree)
        self.levels: list[tuple[int, dict[int, Places]]] = []

    @property
    def order(self) -> int:
        return prod(len(transversal) for _, transversal in self.levels)

    def sift(self, g: Places) -> tuple[int, Places]:
        """Divide by the transversals: the level reached and what is left there."""
        for level, (base, transversal) in enumerate(self.levels):
            here = transversal.get(int(g[base]))
            if here is None:
                return level, g
            g = inverse(here)[g]
        return len(self.levels), g

    def __contains__(self, g: Places) -> bool:
        level, rest = self.sift(g)
        return level == len(self.levels) and np.array_equal(rest, self.identity)

    def add(self, g: Places) -> bool:
        """Enter one element; whether the chain grew."""
        level, rest = self.sift(g)
        if level == len(self.levels):
            moved = np.flatnonzero(rest != self.identity)
            if not len(moved):
                return False
            self.levels.append((int(moved[0]), {int(moved[0]): self.identity}))
        base, transversal = self.levels[level]
        transversal[int(rest[base])] = rest
        return True


def products(generators: Sequence[Places], rng: np.random.Generator) -> Callable[[], Places]:
    """Nearly uniform elements of the group that the generators make (product replacement)."""
    pool = [generators[k % len(generators)] for k in range(max(10, 2 * len(generators)))]
    last = pool[0]

    def draw() -> Places:
        nonlocal last
        i, j = rng.choice(len(pool), 2, replace=False).tolist()
        pool[i] = pool[i][pool[j] if rng.random() < 0.5 else inverse(pool[j])]
        last = last[pool[i]]
        return last

    for _ in range(100):
        draw()
    return draw


def chain(degree: int, draw: Callable[[], Places], patience: int = 60) -> Chain:
    """The group that uniformly random elements come from: until so many in a row bring nothing new."""
    out = Chain(degree)
    idle = 0
    while idle < patience:
        idle = 0 if out.add(draw()) else idle + 1
    return out
