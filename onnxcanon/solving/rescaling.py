"""The rescaling groups: all solutions of the equations between exponents, over the integers for scales and
over GF(2) for signs.

Nearly all equations say that two exponents agree or are opposite: a signed union-find (here: connected
components of the doubled graph v, -v). What remains are the sums of products; an exponent that stands in a
single sum is expressed by the other two, again and again, and the small rest is eliminated row by row.

Three hidden units between two weights, the first two of them tied: two generators. What the rows of the first
weight gain (exponents in units of a generator), the columns of the second lose.

>>> constraints = Constraints()
>>> rows, columns = constraints.new_exponents((3,)), constraints.new_exponents((3,))
>>> constraints.exponent_opposite(rows, columns)
>>> constraints.exponent_equal(columns[:1], columns[1:2])
>>> blocks = unite_exponents(constraints)
>>> rows, columns = blocks.variables(rows), blocks.variables(columns)
>>> scales = solve_exponents(constraints, blocks, System.SCALE, [[rows], [columns]])
>>> scales.forms[rows].toarray(), scales.forms[columns].toarray()
(array([[1, 0], [1, 0], [0, 1]]), array([[-1, 0], [-1, 0], [ 0, -1]]))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, identity, vstack

from onnxcanon.arrays import Ids
from onnxcanon.solving.blocks import Blocks, unite_blocks
from onnxcanon.solving.tables import connected, row_numbers
from onnxcanon.tracing.constraints import ZERO, Constraints, System

CORE_LIMIT = 4096
"""Equations left for row-by-row elimination; a larger rest is set to zero (sound, never seen)."""


@dataclass(frozen=True, slots=True)
class RescalingGroup:
    """All rescalings, by `count` generators: `forms` [variables, count] gives every exponent as a
    combination of the free ones; `dropped` are free variables that changed no parameter: zero."""

    forms: csr_matrix
    count: int
    dropped: Ids = field(default_factory=lambda: np.zeros(0, np.int64))

    def act(self, variables: Ids) -> bool:
        """Whether any of some exponents depends on a free one."""
        starts = self.forms.indptr
        return bool((starts[variables] < starts[variables + 1]).any())


@dataclass(slots=True)
class _Equations:
    """Pairs a = s·b and sums t = a + b of n variables: rows of variables and of their signs, [sums, 3]."""

    n: int
    pairs: list[tuple[Ids, Ids, Ids]]
    terms: Ids
    signs: Ids
    modulo2: bool


def unite_exponents(constraints: Constraints) -> Blocks:
    """What both systems say about whole blocks of exponents."""
    both = ((a, b, s) for a, b, s, where in constraints.exponent_pairs if where == System.BOTH)
    return unite_blocks(constraints.exponent_blocks, constraints.exponents, both, zero=True)


def solve_exponents(
    constraints: Constraints, blocks: Blocks, system: System, parameters: Sequence[Sequence[Ids]] = ()
) -> RescalingGroup:
    """Solve the exponent equations of one system, for the variables that `blocks.variables` numbers.

    `parameters` lists the exponent columns of each parameter, axis by axis. Solutions that change no
    parameter (they act on values alone, or their actions on two axes of a parameter cancel) are divided out.
    """
    modulo2 = system == System.SIGN
    united = _unite(_equations(constraints, blocks, system))
    whole = _solve(united, blocks, modulo2=modulo2)
    idle = _solve(_idle(united, parameters, modulo2=modulo2), blocks, modulo2=modulo2)
    return _quotient(whole, idle, parameters, modulo2=modulo2)


def _equations(constraints: Constraints, blocks: Blocks, system: System) -> _Equations:
    alone = [(a, b, s) for a, b, s, where in constraints.exponent_pairs if where == system]
    sums = [(t, a, b) for t, a, b, where in constraints.exponent_sums if where & system]
    nothing = np.zeros(0, np.int64)
    columns = [blocks.signed(np.concatenate([nothing, *(s[k] for s in sums)])) for k in range(3)]
    terms, signs = (np.stack(arrays, 1) for arrays in zip(*columns, strict=True))
    pairs = [*blocks.pairs, *blocks.mapped(alone)]
    return _Equations(blocks.count, pairs, terms, signs, system == System.SIGN)


def _solve(united: _United, blocks: Blocks, *, modulo2: bool) -> RescalingGroup:
    """The solutions, of the variables and of their opposites where there are any."""
    forms, free = _eliminate(
        _normal_sums(united, modulo2=modulo2), united.count, united.zeros, modulo2=modulo2
    )
    total = forms[united.classes]
    total.data = total.data * np.repeat(united.signs, np.diff(total.indptr))
    if blocks.signs is not None:
        total = vstack([total, -total]).tocsr()
    if modulo2:
        total.data %= 2
    total.eliminate_zeros()
    return RescalingGroup(total, free)


def _idle(united: _United, parameters: Sequence[Sequence[Ids]], *, modulo2: bool) -> _United:
    """The solutions that change no parameter: constant along every axis, the constants adding up to zero."""
    count = united.count + 1  # one more class stands for zero
    arrays = {a.tobytes(): a.ravel() for axes in parameters for a in axes}  # most stand at many axes
    flat = united.signed(np.concatenate([np.zeros(0, np.int64), *arrays.values()]))
    sizes = np.array([a.size for a in arrays.values()], np.int64)
    leads = flat[np.cumsum(sizes) - sizes]
    first = np.repeat(leads, sizes)
    differ = flat != first
    flat, first = flat[differ], first[differ]
    pairs = [(np.abs(flat) - 1, np.abs(first) - 1, np.sign(flat) * np.sign(first))]
    sums: list[tuple[Ids, Ids]] = []
    constants = dict(zip(arrays, leads.tolist(), strict=True))
    for axes in parameters:
        total = count  # as signed: class count - 1
        for lead in (constants[a.tobytes()] for a in axes):
            fresh, count = count + 1, count + 1
            sums.append((np.array([fresh, total, abs(lead)]) - 1, np.array([1, 1, 1 if lead > 0 else -1])))
            total = fresh
        if axes:
            pairs.append((np.array([total - 1]), np.array([united.count]), np.ones(1, np.int64)))
    terms = np.array([t for t, _ in sums], np.int64).reshape(-1, 3)
    signs = np.array([s for _, s in sums], np.int64).reshape(-1, 3)
    zeros = np.zeros(count, bool)
    zeros[: united.count] = united.zeros
    zeros[united.count] = True
    grown = replace(
        united,
        count=count,
        zeros=zeros,
        terms=np.concatenate([united.terms, terms]),
        coefficients=np.concatenate([united.coefficients, signs]),
    )
    return grown.contracted(pairs, modulo2=modulo2)


def _quotient(
    whole: RescalingGroup, idle: RescalingGroup, parameters: Sequence[Sequence[Ids]], *, modulo2: bool
) -> RescalingGroup:
    """Set one free exponent to zero for each idle solution: the one that acts on the most positions.

    A factor common to all units would else be divided out of one of them, chosen by its number; the heaviest
    exponent mostly belongs to all units at once, so that alike units are treated alike.
    """
    if not idle.count:
        return whole
    single = np.flatnonzero(np.diff(whole.forms.indptr) == 1)
    single = single[whole.forms.data[whole.forms.indptr[single]] == 1]
    columns = whole.forms.indices[whole.forms.indptr[single]]
    _, first = np.unique(columns, return_index=True)
    rows = idle.forms[single[first]].T.tolil()  # [idle, free exponents]
    touched = [a.ravel() for axes in parameters for a in axes]
    weight = np.zeros(whole.count)
    for variables in touched:
        weight += np.bincount(whole.forms[variables].indices, minlength=whole.count)
    dropped = _pivots(
        [dict(zip(r, d, strict=True)) for r, d in zip(rows.rows, rows.data, strict=True)], weight, modulo2
    )
    keep = np.setdiff1d(np.arange(whole.count), dropped)
    return RescalingGroup(whole.forms[:, keep].tocsr(), len(keep), single[first][dropped])


def _pivots(rows: list[dict[int, int]], weight: NDArray[np.float64], modulo2: bool) -> list[int]:
    """Pivot columns of idle solutions, heaviest first."""
    from fractions import Fraction

    done: dict[int, dict[int, Fraction]] = {}
    for row in rows:
        current = {x: Fraction(int(c)) for x, c in row.items() if c}
        for pivot, other in done.items():
            factor = current.get(pivot, Fraction(0))
            if factor:
                for x, c in other.items():
                    value = current.get(x, Fraction(0)) - factor * c
                    current[x] = value % 2 if modulo2 else value
                current = {x: c for x, c in current.items() if c}
        if current:
            pivot = max(current, key=lambda x: (weight[x], x))
            lead = current[pivot]
            done[pivot] = {x: c / lead for x, c in current.items()}
    return sorted(done)


@dataclass(frozen=True, slots=True)
class _United:
    """Variables in classes of equal or opposite ones, and the sums left between these.

    Attributes:
        classes: the class of each variable, int64 [variables].
        signs: the variable is this sign times its class.
        count: the number of classes.
        zeros: which classes are zero, bool [count].
        terms: rows t, a, b of sums of classes, int64 [sums, 3].
        coefficients: their signs: c0·t = c1·a + c2·b.
    """

    classes: Ids
    signs: Ids
    count: int
    zeros: NDArray[np.bool_]
    terms: Ids
    coefficients: Ids

    def signed(self, variables: Ids) -> Ids:
        """Classes of variables, counted from 1, with the sign; numbers beyond the variables are opposites."""
        opposite = variables >= len(self.classes)
        if not opposite.any():
            return (self.classes[variables] + 1) * self.signs[variables]
        variables = np.where(opposite, variables - len(self.classes), variables)
        return (self.classes[variables] + 1) * self.signs[variables] * np.where(opposite, -1, 1)

    def contracted(self, pairs: Sequence[tuple[Ids, Ids, Ids]], *, modulo2: bool) -> _United:
        """With pairs a = s·b of classes taken in, and the sums that thereby become pairs, until none does."""
        out = self
        more = list(pairs)
        while more:
            out = out._merged(more, modulo2=modulo2)
            more, keep = _pairs_in_sums(out, modulo2=modulo2)
            out = replace(out, terms=out.terms[keep], coefficients=out.coefficients[keep])
        return out

    def _merged(self, pairs: Sequence[tuple[Ids, Ids, Ids]], *, modulo2: bool) -> _United:
        a, b, s = (np.concatenate([p[k] for p in pairs]) for k in range(3))
        # What equals zero is marked, not united: zero would else join classes of opposite signs.
        vanish = self.zeros[a] | self.zeros[b]
        vanished = self.zeros.copy()
        vanished[a[vanish]] = vanished[b[vanish]] = True
        a, b, s = a[~vanish], b[~vanish], s[~vanish]
        names, signs, zeros = _components(self.count, a, b, s, modulo2=modulo2)
        zeros[names[vanished]] = True
        return _United(
            classes=names[self.classes],
            signs=self.signs * signs[self.classes],
            count=len(zeros),
            zeros=zeros,
            terms=names[self.terms],
            coefficients=self.coefficients * signs[self.terms],
        )


def _unite(eq: _Equations) -> _United:
    """Classes of equal or opposite variables, with variable 0 zero."""
    n = np.arange(eq.n)
    apart = _United(n, np.ones(eq.n, np.int64), eq.n, n == ZERO, eq.terms, eq.signs)
    nothing = np.zeros(0, np.int64)  # one round at least, which looks for pairs among the sums
    return apart.contracted([(nothing, nothing, nothing), *eq.pairs], modulo2=eq.modulo2)


def _pairs_in_sums(u: _United, *, modulo2: bool) -> tuple[list[tuple[Ids, Ids, Ids]], NDArray[np.bool_]]:
    """The sums that only say that two classes agree or that one is zero, as pairs; and which sums stay."""
    (ct, ca, cb), (st, sa, sb) = u.terms.T, u.coefficients.T
    origin = np.full(len(ct), np.flatnonzero(u.zeros)[0])
    za, zb, zt = u.zeros[ca], u.zeros[cb], u.zeros[ct]
    open_, same = ~(za | zb | zt), ca == cb
    cases = [  # (where t = a + b is but a pair, x, y, s): x = s·y there
        (za, ct, cb, st * sb),
        (zb & ~za, ct, ca, st * sa),
        (zt & ~za & ~zb, ca, cb, -sa * sb),
        (open_ & same & ((sa * sb < 0) | modulo2), ct, origin, st),
        (open_ & ~same & (ct == ca) & ((st * sa > 0) | modulo2), cb, origin, sb),
        (open_ & ~same & (ct == cb) & ((st * sb > 0) | modulo2), ca, origin, sa),
    ]
    pairs = [(x[mask], y[mask], s[mask]) for mask, x, y, s in cases if mask.any()]
    return pairs, ~np.logical_or.reduce([mask for mask, *_ in cases])


def _components(n: int, a: Ids, b: Ids, s: Ids, *, modulo2: bool) -> tuple[Ids, Ids, NDArray[np.bool_]]:
    """Classes and signs of n variables under a = s·b, and which classes are their own opposite: zero."""
    plain = (s > 0) | modulo2
    label = connected(n, [a[plain]], [b[plain]])
    count = int(label.max(initial=-1)) + 1
    if plain.all():
        return label, np.ones(n, np.int64), np.zeros(count, bool)
    a, b = label[a[~plain]], label[b[~plain]]
    doubled = connected(2 * count, [a, a + count], [b + count, b])
    plus, minus = doubled[:count], doubled[count:]
    names, classes = np.unique(np.minimum(plus, minus), return_inverse=True)
    zeros = np.zeros(len(names), bool)
    zeros[classes[plus == minus]] = True
    return classes[label], np.where(plus <= minus, 1, -1)[label], zeros


def _normal_sums(u: _United, *, modulo2: bool) -> tuple[Ids, Ids]:
    """Remaining sums as rows over classes, 0 = c0·x0 + c1·x1 + c2·x2, without repetitions."""
    coefficients = u.coefficients * np.array([1, -1, -1])
    if modulo2:
        coefficients = np.abs(coefficients)
    coefficients = coefficients * coefficients[:, :1]
    _, first = np.unique(row_numbers(*u.terms.T, *coefficients.T), return_index=True)
    return u.terms[first], coefficients[first]


def _eliminate(
    rest: tuple[Ids, Ids], count: int, zeros: NDArray[np.bool_], *, modulo2: bool
) -> tuple[csr_matrix, int]:
    """Forms of all classes over the free ones, int64 [classes, free].

    A class that stands in one sum alone is defined by that sum and constrains nothing else: all such sums
    leave at once, which makes more classes stand alone, until only sums are left that all share their classes
    (the core). Then the definitions are evaluated backwards, the last first.
    """
    terms, coefficients = rest
    steps: list[tuple[Ids, Ids, Ids]] = []  # (variable, terms, coefficients) defined by a row
    while len(terms):
        uses = np.bincount(terms.ravel(), minlength=count)
        once = uses[terms] == 1
        defining = once.any(1)
        if not defining.any():
            break
        rows = np.flatnonzero(defining)
        chosen = once.argmax(1)[rows]
        lead = coefficients[rows, chosen]
        scaled = -coefficients[rows] * lead[:, None]
        scaled[np.arange(len(rows)), chosen] = 0
        steps.append((terms[rows, chosen], terms[rows], scaled))
        terms, coefficients = terms[~defining], coefficients[~defining]
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
    """Set the rows of defined classes to combinations of other rows."""
    step = coo_matrix((coefficients, (rows, terms)), shape=(count, count)).tocsr()
    return ((identity(count, dtype=np.int64, format="csr") + step) @ forms).tocsr()


def _as_rows(core: dict[int, dict[int, int]]) -> tuple[Ids, Ids, Ids]:
    triples = [(v, x, c) for v, row in core.items() for x, c in row.items()]
    table = np.array(triples, np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def _core(terms: Ids, coefficients: Ids, *, modulo2: bool) -> tuple[dict[int, dict[int, int]], list[int]]:
    """Gauss elimination of the rows that share all their classes: definitions over free classes, and classes
    set to zero.

    Pivots have coefficient ±1, so the solutions stay integral; a row without one (x = -x + …) sets its
    classes to zero, which loses solutions and is sound.

    >>> _core(np.array([[1, 2, 3], [2, 4, 3]]), np.array([[1, -1, -1], [1, -1, -1]]), modulo2=False)
    ({3: {1: 1, 2: -1}, 4: {2: 2, 1: -1}}, [])
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


def used(group: RescalingGroup, variables: Sequence[Ids]) -> NDArray[np.bool_]:
    """Which generators act on any of some variables, bool [count]."""
    mask = np.zeros(group.count, bool)
    if variables:
        mask[group.forms[np.concatenate([v.ravel() for v in variables])].indices] = True
    return mask
