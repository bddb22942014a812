"""Scale and sign freedoms: the solutions of the ledger's equations about degrees.

Scale exponents solve the equations over the integers, signs over GF(2). Nearly all equations say that two
degrees agree or are opposite: a signed union-find (here: connected components of the doubled graph v, -v).
What remains are the sums of products; a degree that stands in a single sum is expressed by the other two,
again and again, and the small rest is eliminated row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, identity

from onnxcanon.symmetry.constraints import ZERO, Ids, Ledger, System
from onnxcanon.symmetry.tables import connected

CORE_LIMIT = 4096
"""Equations left for row-by-row elimination; a larger rest is set to zero (sound, never seen)."""


@dataclass(frozen=True, slots=True)
class Freedom:
    """A basis of the solutions: `forms` [variables, count] gives every degree as a sum of free ones."""

    forms: csr_matrix
    count: int


@dataclass(slots=True)
class _Equations:
    """Pairs a = s·b and sums t = a + b, over classes of variables."""

    n: int
    pairs: list[tuple[Ids, Ids, Ids]]
    sums: tuple[Ids, Ids, Ids]
    modulo2: bool


def solve_degrees(ledger: Ledger, system: System, parameters: Sequence[Sequence[Ids]] = ()) -> Freedom:
    """Solve the degree equations of one system.

    `parameters` lists the degree columns of each parameter, axis by axis. Solutions that change no parameter
    (they act on values alone, or their actions on two axes of a parameter cancel) are divided out.
    """
    whole = _solve(_equations(ledger, system))
    idle = _idle(ledger, system, parameters)
    return _quotient(whole, idle, parameters, modulo2=system == System.SIGN)


def _equations(ledger: Ledger, system: System) -> _Equations:
    pairs = [(a, b, np.full(len(a), s, np.int64)) for a, b, s, where in ledger.degree_pairs if where & system]
    sums = [(t, a, b) for t, a, b, where in ledger.degree_sums if where & system]
    zero = np.zeros(0, np.int64)
    joined = tuple(np.concatenate([zero, *(s[k] for s in sums)]) for k in range(3))
    return _Equations(ledger.degrees, pairs, joined, system == System.SIGN)  # type: ignore[arg-type]


def _solve(equations: _Equations) -> Freedom:
    n = equations.n
    classes, signs, count, zeros = _unite(equations)
    rest = _normal_sums(equations, classes, signs, zeros)
    forms, free = _eliminate(rest, count, zeros, modulo2=equations.modulo2)
    spread = csr_matrix((signs.astype(np.int64), (np.arange(n), classes)), (n, count))
    total = (spread @ forms).tocsr()
    if equations.modulo2:
        total.data %= 2
    total.eliminate_zeros()
    return Freedom(total, free)


def _idle(ledger: Ledger, system: System, parameters: Sequence[Sequence[Ids]]) -> Freedom:
    """The solutions that change no parameter: constant along every axis, the constants adding up to zero."""
    equations = _equations(ledger, system)
    sums: list[tuple[int, int, int]] = []
    for axes in parameters:
        columns = [a.ravel() for a in axes]
        for c in columns:
            equations.pairs.append((c[1:], np.full(len(c) - 1, c[0]), np.ones(len(c) - 1, np.int64)))
        total = ZERO
        for c in columns:
            fresh, equations.n = equations.n, equations.n + 1
            sums.append((fresh, total, int(c[0])))
            total = fresh
        if columns:
            equations.pairs.append((np.array([total]), np.array([ZERO]), np.ones(1, np.int64)))
    extra = np.array(sums, np.int64).reshape(-1, 3)
    equations.sums = tuple(np.concatenate([s, extra[:, k]]) for k, s in enumerate(equations.sums))  # type: ignore[assignment]
    return _solve(equations)


def _quotient(
    whole: Freedom, idle: Freedom, parameters: Sequence[Sequence[Ids]], *, modulo2: bool
) -> Freedom:
    """Set one free degree to zero for each idle solution: the one that acts on the most positions, so that
    alike units are treated alike."""
    if not idle.count:
        return whole
    single = np.flatnonzero(np.diff(whole.forms.indptr) == 1)
    single = single[whole.forms.data[whole.forms.indptr[single]] == 1]
    columns = whole.forms.indices[whole.forms.indptr[single]]
    _, first = np.unique(columns, return_index=True)
    rows = idle.forms[single[first]].T.tolil()  # [idle, free degrees]
    touched = [a.ravel() for axes in parameters for a in axes]
    weight = np.zeros(whole.count)
    for variables in touched:
        weight += np.bincount(whole.forms[variables].indices, minlength=whole.count)
    dropped = _pivots(
        [dict(zip(r, d, strict=True)) for r, d in zip(rows.rows, rows.data, strict=True)], weight, modulo2
    )
    keep = np.setdiff1d(np.arange(whole.count), dropped)
    return Freedom(whole.forms[:, keep].tocsr(), len(keep))


def _pivots(rows: list[dict[int, int]], weight: NDArray[np.float64], modulo2: bool) -> list[int]:
    """Pivot columns of idle solutions, heaviest first."""
    from fractions import Fraction

    done: dict[int, dict[int, Fraction]] = {}
    for row in rows:
        current = {x: Fraction(int(c)) for x, c in row.items() if c}
        for pivot, known in done.items():
            factor = current.get(pivot, Fraction(0))
            if factor:
                for x, c in known.items():
                    value = current.get(x, Fraction(0)) - factor * c
                    current[x] = value % 2 if modulo2 else value
                current = {x: c for x, c in current.items() if c}
        if current:
            pivot = max(current, key=lambda x: (weight[x], x))
            lead = current[pivot]
            done[pivot] = {x: c / lead for x, c in current.items()}
    return sorted(done)


def _unite(eq: _Equations) -> tuple[Ids, Ids, int, NDArray[np.bool_]]:
    """Classes of equal or opposite variables: class and sign per variable, class count, which are zero.

    Sums with a zero term are pairs in disguise and are taken in until nothing changes.
    """
    while True:
        classes, signs, zeros = _components(eq)
        t, a, b = eq.sums
        ct, ca, cb = classes[t], classes[a], classes[b]
        st, sa, sb = signs[t], signs[a], signs[b]
        found: list[NDArray[np.bool_]] = []

        def add(
            mask: NDArray[np.bool_], x: Ids, y: Ids, s: int, found: list[NDArray[np.bool_]] = found
        ) -> None:
            if mask.any():
                eq.pairs.append((x[mask], y[mask], np.full(int(mask.sum()), s, np.int64)))
                found.append(mask)

        origin = np.zeros(len(t), np.int64)
        za, zb, zt = zeros[ca], zeros[cb], zeros[ct]
        same_ab, opposite = ca == cb, sa * sb < 0
        add(za, t, b, 1)
        add(zb & ~za, t, a, 1)
        add(zt & ~za & ~zb, a, b, -1)
        open_ = ~(za | zb | zt)
        add(open_ & same_ab & (opposite | eq.modulo2), t, origin, 1)
        add(open_ & ~same_ab & (ct == ca) & ((st * sa > 0) | eq.modulo2), b, origin, 1)
        add(open_ & ~same_ab & (ct == cb) & ((st * sb > 0) | eq.modulo2), a, origin, 1)
        if not found:
            return classes, signs, int(classes.max()) + 1, zeros
        gone = np.logical_or.reduce(found)
        eq.sums = (t[~gone], a[~gone], b[~gone])


def _components(eq: _Equations) -> tuple[Ids, Ids, NDArray[np.bool_]]:
    n = eq.n
    zero = np.zeros(0, np.int64)
    a = np.concatenate([zero, *(p[0] for p in eq.pairs)])
    b = np.concatenate([zero, *(p[1] for p in eq.pairs)])
    s = np.concatenate([zero, *(p[2] for p in eq.pairs)])
    if eq.modulo2:
        label = connected(n, [a], [b])
        zeros = np.zeros(int(label.max()) + 1, bool)
        zeros[label[0]] = True
        return label, np.ones(n, np.int64), zeros
    flip = np.where(s < 0, n, 0)
    left = np.concatenate([a, a + n, [0]])
    right = np.concatenate([b + flip, b + n - flip, [n]])
    doubled = connected(2 * n, [left], [right])
    plus, minus = doubled[:n], doubled[n:]
    low = np.minimum(plus, minus)
    names, classes = np.unique(low, return_inverse=True)
    zeros = np.zeros(len(names), bool)
    zeros[classes[plus == minus]] = True
    return classes.astype(np.int64), np.where(plus <= minus, 1, -1), zeros


def _normal_sums(eq: _Equations, classes: Ids, signs: Ids, zeros: NDArray[np.bool_]) -> tuple[Ids, Ids]:
    """Remaining sums as rows over classes, 0 = c0·x0 + c1·x1 + c2·x2, without repetitions."""
    terms = np.stack([classes[v] for v in eq.sums], 1)
    coefficients = np.stack([signs[eq.sums[0]], -signs[eq.sums[1]], -signs[eq.sums[2]]], 1)
    if eq.modulo2:
        coefficients = np.abs(coefficients)
    lead = coefficients[:, :1]
    rows = np.unique(np.concatenate([terms, coefficients * lead], 1), axis=0)
    return rows[:, :3], rows[:, 3:]


def _eliminate(
    rest: tuple[Ids, Ids], count: int, zeros: NDArray[np.bool_], *, modulo2: bool
) -> tuple[csr_matrix, int]:
    """Forms of all classes over the free ones, int64 [classes, free]."""
    terms, coefficients = rest
    steps: list[tuple[Ids, Ids, Ids]] = []  # (variable, terms, coefficients) defined by a row
    while len(terms):
        uses = np.bincount(terms.ravel(), minlength=count)
        once = uses[terms] == 1
        able = once.any(1)
        if not able.any():
            break
        pick = once.argmax(1)
        rows = np.flatnonzero(able)
        chosen = pick[rows]
        lead = coefficients[rows, chosen]
        scaled = -coefficients[rows] * lead[:, None]
        scaled[np.arange(len(rows)), chosen] = 0
        steps.append((terms[rows, chosen], terms[rows], scaled))
        terms, coefficients = terms[~able], coefficients[~able]
    defined = np.zeros(count, bool)
    for variable, _, _ in steps:
        defined[variable] = True
    core, dead = _core(terms, coefficients, modulo2=modulo2)
    defined[list(core)] = True
    free = np.flatnonzero(~defined & ~zeros & ~np.isin(np.arange(count), dead))
    forms = csr_matrix((np.ones(len(free), np.int64), (free, np.arange(len(free)))), shape=(count, len(free)))
    if core:
        forms = _apply(forms, *_as_rows(core), count)
    for variable, t, c in reversed(steps):
        row = np.repeat(variable, 3)
        forms = _apply(forms, row, t.ravel(), c.ravel(), count)
    return forms, len(free)


def _apply(forms: csr_matrix, rows: Ids, terms: Ids, coefficients: Ids, count: int) -> csr_matrix:
    """Set the rows of defined classes to combinations of rows that are known."""
    step = coo_matrix((coefficients, (rows, terms)), shape=(count, count)).tocsr()
    return ((identity(count, dtype=np.int64, format="csr") + step) @ forms).tocsr()


def _as_rows(core: dict[int, dict[int, int]]) -> tuple[Ids, Ids, Ids]:
    triples = [(v, x, c) for v, row in core.items() for x, c in row.items()]
    table = np.array(triples, np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def _core(terms: Ids, coefficients: Ids, *, modulo2: bool) -> tuple[dict[int, dict[int, int]], list[int]]:
    """Gauss elimination of the rows that hold each other: definitions over free classes, and dead classes.

    Pivots have coefficient ±1, so the solutions stay integral; a row without one sets its classes to zero.
    """
    defined: dict[int, dict[int, int]] = {}
    dead: set[int] = set()
    if len(terms) > CORE_LIMIT:
        return {}, sorted(set(terms.ravel().tolist()))
    for ts, cs in zip(terms.tolist(), coefficients.tolist(), strict=True):
        row: dict[int, int] = {}
        for x, c in zip(ts, cs, strict=True):
            for y, d in (defined.get(x, {x: 1})).items():
                row[y] = row.get(y, 0) + c * d
        row = {x: (c % 2 if modulo2 else c) for x, c in row.items() if x not in dead}
        row = {x: c for x, c in row.items() if c}
        if not row:
            continue
        pivot = max((x for x, c in row.items() if abs(c) == 1), default=None)
        if pivot is None:
            dead.update(row)
            defined = {v: {x: c for x, c in r.items() if x not in dead} for v, r in defined.items()}
            continue
        lead = row.pop(pivot)
        rule = {x: -c * lead for x, c in row.items()}
        for v, r in defined.items():
            if pivot in r:
                factor = r.pop(pivot)
                for x, c in rule.items():
                    r[x] = r.get(x, 0) + factor * c
                defined[v] = {x: c for x, c in r.items() if c}
        defined[pivot] = rule
    return defined, sorted(dead)


def used(freedom: Freedom, variables: Sequence[Ids]) -> NDArray[np.bool_]:
    """Which free degrees act on any of the given variables, bool [count]."""
    mask = np.zeros(freedom.count, bool)
    for v in variables:
        mask[freedom.forms[v.ravel()].indices] = True
    return mask
