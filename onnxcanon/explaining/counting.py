"""How many generators of the rescaling group really act: ranks of their action on the parameters.

The multiplier of an entry of a parameter is a sum of exponents, T(j) = Σ_a g_a(j_a, context). A generator is
idle where these cancel: a constant on one axis against a constant on another. Every T splits uniquely
into parts anchored at position 0, one per set U of axes (for two plain axes: their differences to the first
position, and the sum of the firsts), and T is zero exactly when all parts are:

    T_U(j) = Σ_a Σ_{V ⊆ U} (-1)^|U - V| g_a(j_V, 0 elsewhere)      for U within the axes g_a depends on

so the rank of the parts is the number of generators that act, exact without a look at every entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, combinations, pairwise
from math import gcd

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack

from onnxcanon.arrays import Ids
from onnxcanon.solving.hashing import distinct
from onnxcanon.solving.rescaling import RescalingGroup
from onnxcanon.solving.tables import connected
from onnxcanon.symmetry import Symmetry

Mask = NDArray[np.bool_]
Entries = tuple[Ids, Ids, Ids]  # rows, columns and values of a sparse matrix


@dataclass(frozen=True, slots=True)
class RescalingCounts:
    """How many scales and signs are free, and where.

    Attributes:
        scales: number of independent scales.
        signs: number of independent signs that are not the sign of a scale.
        scaling: which exponents some scale that acts on a parameter changes, bool [variables].
        flipping: which exponents some sign that acts on a parameter changes, bool [variables].
    """

    scales: int
    signs: int
    scaling: Mask
    flipping: Mask


def count_rescalings(symmetry: Symmetry) -> RescalingCounts:
    """Count the generators by the rank of their action.

    Where every exponent column follows its own axis alone, the generators that remain when idle ones are
    divided out are independent; columns that depend on other axes may cancel in more ways.
    """
    if all(len(_wide(d)) <= 1 for axes in symmetry.exponents.values() for d in axes.values()):
        sign = _sign_only_by_hash(symmetry)
        if sign is not None:
            return RescalingCounts(symmetry.scale.count, sign, _free(symmetry.scale), _free(symmetry.sign))
    parts = _parts(symmetry)
    scale = (parts @ symmetry.scale.forms).tocsr()
    sign = _modulo2(parts @ symmetry.sign.forms)
    return RescalingCounts(
        _rank(scale, modulo2=False),
        _sign_only(sign, _modulo2(scale.copy())),
        _changed(symmetry.scale, scale),
        _changed(symmetry.sign, sign),
    )


def _sign_only_by_hash(symmetry: Symmetry) -> int | None:
    """How many signs are not the sign of a scale, where one of the two kinds contains the other generator by
    generator; None where it takes a rank to tell.

    The action of a generator over GF(2) is hashed linearly: every part of every multiplier (module docstring)
    has a random word, and those of the parts that flip are xored: generators that flip the same parts have
    equal hashes, others hardly ever (64 bits).
    """
    words = np.zeros(symmetry.sign.forms.shape[0], np.uint64)
    rng = np.random.default_rng(0)
    for axes in symmetry.exponents.values():
        constant = rng.integers(0, 1 << 63, dtype=np.uint64)
        for exponents in axes.values():
            words[exponents.ravel()[:1]] ^= constant
    columns = {d.tobytes(): d.ravel() for axes in symmetry.exponents.values() for d in axes.values()}
    for exponents in columns.values():
        # An array of one axis has parts at its positions 1, 2, …, each against position 0, and one for the
        # sum of firsts. Position 0 flips all of the former, so its word is the xor of theirs.
        drawn = rng.integers(0, 1 << 63, len(exponents), dtype=np.uint64)
        drawn[0] ^= np.bitwise_xor.reduce(drawn)
        np.bitwise_xor.at(words, exponents, drawn)
    scale, sign = (distinct(_hashes(words, f)) for f in (symmetry.scale.forms, symmetry.sign.forms))
    common = len(sign) + len(scale) - len(distinct(np.concatenate([sign, scale])))
    return len(sign) - common if common in (len(sign), len(scale)) else None


def _hashes(words: NDArray[np.uint64], forms: csr_matrix) -> NDArray[np.uint64]:
    """For every generator, the words of the exponents that it flips, xored."""
    columns = forms.tocsc()
    odd = np.where(columns.data % 2 != 0, words[columns.indices], np.uint64(0))
    return np.bitwise_xor.reduceat(odd, columns.indptr[:-1]) if len(odd) else odd


def _changed(group: RescalingGroup, action: csr_matrix) -> Mask:
    """The exponent variables that depend on a generator whose action is not zero."""
    live = np.zeros(group.count, bool)
    live[action.indices[action.data != 0]] = True
    forms = group.forms
    rows = np.repeat(np.arange(forms.shape[0]), np.diff(forms.indptr))
    out = np.zeros(forms.shape[0], bool)
    out[rows[live[forms.indices]]] = True
    return out


def _free(group: RescalingGroup) -> Mask:
    """Which exponent variables need not be zero, bool [variables]."""
    free: Mask = np.diff(group.forms.indptr) > 0
    return free


def _sign_only(sign: csr_matrix, scale: csr_matrix) -> int:
    """Dimension of the signs modulo what scales become over GF(2)."""
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 1 << 62, sign.shape[0])  # equal columns have equal hashes, others hardly
    hashes = [(weights @ matrix).astype(np.int64) for matrix in (sign, scale)]
    new = np.flatnonzero((hashes[0] != 0) & ~np.isin(hashes[0], hashes[1]))
    if not len(new):
        return 0
    both = hstack([scale, sign.tocsc()[:, new]]).tocsr()
    return _rank(both, modulo2=True) - _rank(scale, modulo2=True)


def _modulo2(matrix: csr_matrix) -> csr_matrix:
    out = matrix.tocsr()
    out.data = out.data % 2
    out.eliminate_zeros()
    return out


# -- the parts of every parameter's multiplier ------------------------------------------------------


def _parts(symmetry: Symmetry) -> csr_matrix:
    """Rows over the exponent variables, int64 [parts, variables]; all are zero where nothing changes."""
    free = _free(symmetry.scale) | _free(symmetry.sign)
    single: list[Ids] = []
    entries: list[Entries] = []
    start = 0
    for axes in symmetry.exponents.values():
        moving = [d for d in axes.values() if free[d].any()]
        if len(moving) == 1:
            single.append(moving[0].ravel())
        elif moving:
            for rows, columns, values in _anchored(moving):
                entries.append((rows + start, columns, values))
            start += _height(moving)
    alone = distinct(np.concatenate([np.zeros(0, np.int64), *single]))
    entries.append((np.arange(start, start + len(alone)), alone, np.ones(len(alone), np.int64)))
    rows, columns, values = (np.concatenate([e[k] for e in entries]) for k in range(3))
    return csr_matrix((values, (rows, columns)), shape=(start + len(alone), len(free)))


def _subsets(axes: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1))


def _wide(array: Ids) -> tuple[int, ...]:
    return tuple(a for a, n in enumerate(array.shape) if n > 1)


def _layout(arrays: list[Ids]) -> dict[tuple[int, ...], int]:
    """The sets U of axes that occur, each with the number of entries of its part."""
    sizes = {a: n for array in arrays for a, n in enumerate(array.shape) if n > 1}
    subsets = {u for array in arrays for u in _subsets(_wide(array))}
    return {u: int(np.prod([sizes[a] - 1 for a in u], dtype=np.int64)) for u in sorted(subsets)}


def _height(arrays: list[Ids]) -> int:
    return sum(_layout(arrays).values())


def _anchored(arrays: list[Ids]) -> Iterator[Entries]:
    """The parts T_U of a sum of exponent arrays as entries of a matrix; positions 0 of U are left out.

    Two plain axes with the exponents a0 a1 and b0 b1 b2 (variables 0, 1 and 2, 3, 4) have four parts: the sum
    of firsts a0 + b0, then b1 - b0 and b2 - b0, then a1 - a0.

    >>> arrays = [np.array([[0], [1]]), np.array([[2, 3, 4]])]
    >>> matrix = np.zeros((_height(arrays), 5), int)
    >>> for rows, columns, values in _anchored(arrays):
    ...     np.add.at(matrix, (rows, columns), values)
    >>> matrix.tolist()
    [[1, 0, 1, 0, 0], [-1, 1, 0, 0, 0], [0, 0, -1, 1, 0], [0, 0, -1, 0, 1]]
    """
    # T_U by inclusion and exclusion: a subset V of U keeps its axes at their positions 1, 2, …, and puts the
    # others of U at 0, with the sign of how many these are.
    start = 0
    for u, height in _layout(arrays).items():
        for array in arrays:
            if set(u) <= set(_wide(array)):
                for v in _subsets(u):
                    picks = [
                        slice(1, None) if a in v else slice(0, 1) if a in u or n > 1 else slice(None)
                        for a, n in enumerate(array.shape)
                    ]
                    shape = [n - 1 if a in u else 1 for a, n in enumerate(array.shape)]
                    columns = np.broadcast_to(array[tuple(picks)], shape).ravel()
                    sign = -1 if (len(u) - len(v)) % 2 else 1
                    yield np.arange(start, start + height), columns, np.full(height, sign, np.int64)
        start += height


# -- rank -------------------------------------------------------------------------------------------


def _rank(matrix: csr_matrix, *, modulo2: bool) -> int:
    """The exact rank over the rationals, or over GF(2).

    >>> both = csr_matrix(np.array([[1, 1], [1, -1]]))  # x + y and x - y are one thing modulo 2
    >>> _rank(both, modulo2=False), _rank(_modulo2(both), modulo2=True)
    (2, 1)

    Rows of one or two entries ±c say that columns are zero or agree up to sign: they are contracted by
    connected components, as often as that makes more of them; the few that remain are eliminated.
    """
    total = matrix.shape[1]
    while True:
        matrix.eliminate_zeros()
        width = np.diff(matrix.indptr)
        matrix = matrix[width > 0]
        first, second, sign, short = _short_rows(matrix, modulo2=modulo2)
        if not short.any():
            break
        contraction = _contract(first, second, sign, matrix.shape[1], modulo2=modulo2)
        matrix = (matrix[~short] @ contraction).tocsr()
        if modulo2:
            matrix = _modulo2(matrix)
    rest = _rank_modulo2(matrix) if modulo2 else _rank_rational(matrix)
    return int(total - matrix.shape[1] + rest)


def _short_rows(matrix: csr_matrix, *, modulo2: bool) -> tuple[Ids, Ids, Ids, Mask]:
    """Rows x_a + s·x_b = 0 as (a, b, s), with b = -1 for x_a = 0; and which rows they are."""
    width, starts = np.diff(matrix.indptr), matrix.indptr[:-1]
    one, two = width == 1, width == 2
    last = np.minimum(starts + 1, max(len(matrix.data) - 1, 0))
    if len(starts):
        two &= np.abs(matrix.data[starts]) == np.abs(matrix.data[last])
    short = one | two
    at, then = starts[short], last[short]
    a = matrix.indices[at].astype(np.int64)
    b = np.where(one[short], -1, matrix.indices[then]).astype(np.int64)
    s = np.ones(len(a), np.int64) if modulo2 else np.sign(matrix.data[at] * matrix.data[then])
    return a, b, s, short


def _contract(a: Ids, b: Ids, s: Ids, n: int, *, modulo2: bool) -> csr_matrix:
    """Columns in terms of the classes left by x_a + s·x_b = 0, int64 [n, classes]; node 2n stands for 0."""
    zero = 2 * n
    flip = np.where((s > 0) & (not modulo2), n, 0)
    plus, minus = np.where(b < 0, zero, b + flip), np.where(b < 0, zero, b + n - flip)
    joined = connected(2 * n + 1, [a, a + n], [plus, minus])
    same, opposite = joined[:n], joined[n : 2 * n]
    lead = np.minimum(same, opposite)
    dead = same == joined[zero]
    if modulo2:
        opposite = same
        lead = same
    else:
        dead |= same == opposite
    names, index = np.unique(lead[~dead], return_inverse=True)
    signs = np.where(same <= opposite, 1, -1)[~dead]
    rows = np.flatnonzero(~dead)
    return csr_matrix((signs.astype(np.int64), (rows, index)), shape=(n, len(names)))


def _rows(matrix: csr_matrix) -> list[dict[int, int]]:
    """The distinct rows as dictionaries."""
    cuts, indices, data = matrix.indptr, matrix.indices.tolist(), matrix.data.tolist()
    rows = {tuple(sorted(zip(indices[a:b], data[a:b], strict=True))) for a, b in pairwise(cuts)}
    return [dict(row) for row in sorted(rows, key=len)]


def _rank_rational(matrix: csr_matrix) -> int:
    """Gauss elimination in integers."""
    pivots: dict[int, dict[int, int]] = {}
    for row in _rows(matrix):
        while row:
            lead = min(row)
            if lead not in pivots:
                divisor = gcd(*row.values())
                pivots[lead] = {x: c // divisor for x, c in row.items()}
                break
            other, mine = pivots[lead], row[lead]
            theirs = other[lead]
            row = {x: row.get(x, 0) * theirs - other.get(x, 0) * mine for x in row.keys() | other.keys()}
            row = {x: c for x, c in row.items() if c}
    return len(pivots)


def _rank_modulo2(matrix: csr_matrix) -> int:
    """Gauss elimination over GF(2); rows are the bits of integers."""
    pivots: dict[int, int] = {}
    for row in _rows(matrix):
        bits = sum(1 << x for x in row)
        while bits:
            lead = bits.bit_length()
            if lead not in pivots:
                pivots[lead] = bits
                break
            bits ^= pivots[lead]
    return len(pivots)
