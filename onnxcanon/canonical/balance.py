"""The choice `balanced`: the element of the orbit with the smallest sum of squares.

In the logarithms of the factors the sum is convex, Σ w · e^(A·x), so the minimum is unique and no direction
of the graph is preferred: incoming and outgoing norms of each unit agree. One solve for the whole graph.

The squares of a parameter are a table over its scaled axes, and a term's factor is the product of one number
for each axis: sums over terms, and products with the Hessian, are matrix-vector products with the table.

A unit with the incoming weight 4 and the outgoing weight 1: 16·2^(2t) + 2^(-2t) is smallest at t = -1, where
both weights are 2.

>>> incoming, outgoing = (ScaledAxis(0, (1,), csr_matrix([[sign]])) for sign in (1.0, -1.0))
>>> terms = [ParameterTerms(np.array([16.0]), (incoming,)), ParameterTerms(np.array([1.0]), (outgoing,))]
>>> _minimize(terms, 1).round(9).tolist()
[-1.0]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from scipy.sparse.linalg import LinearOperator, cg

from onnxcanon.arrays import Floats, Ids
from onnxcanon.canonical.scaled_axes import ScaledAxis, scaled_axes
from onnxcanon.model import Model
from onnxcanon.symmetry import Symmetry

SWEEPS = 8
"""Rounds of coordinate-wise balance that bring any start near the minimum."""

NEWTON_STEPS, GRADIENT_STEPS = 100, 400
"""At most so many Newton steps, of so many conjugate gradients."""

STEP_SIZES = tuple(0.5**k for k in range(20))
"""Parts of a step that are tried, until the sum does not grow."""

CONVERGED = 1e-12
"""The gradient, relative to the curvature, at which the minimum is reached."""


@dataclass(frozen=True, slots=True)
class ParameterTerms:
    """Terms squares[p] · Π over axes of factor[p] of one parameter; a freedom acts along one axis."""

    squares: Floats
    sites: tuple[ScaledAxis, ...]

    def sums(self, factors: Sequence[Floats]) -> list[Floats]:
        """For each site the squares summed over all else, times the factors of the other sites, flat."""
        if len(self.sites) == 1:
            return [self.squares.ravel()]
        if self._matrix:
            first, second = factors
            table = self.squares.reshape(len(first), len(second))
            return [table @ second, first @ table]
        shaped = [f.reshape(site.shape) for f, site in zip(factors, self.sites, strict=True)]
        out = []
        for k, site in enumerate(self.sites):
            total = self.squares
            for j, factor in enumerate(shaped):
                total = total if j == k else total * factor
            out.append(total.sum(tuple(a for a, n in enumerate(site.shape) if n == 1), keepdims=True).ravel())
        return out

    @property
    def _matrix(self) -> bool:
        """Whether two sites are the rows and the columns of a matrix, as it is stored."""
        wide = [[a for a, n in enumerate(site.shape) if n > 1] for site in self.sites]
        return len(wide) == 2 and all(a < b for a in wide[0] for b in wide[1])

    def split(self, touched: NDArray[np.bool_]) -> tuple[ParameterTerms, ParameterTerms]:
        """The terms that none of the freedoms acts on, and the others."""
        hit = np.zeros((), bool)
        for site in self.sites:
            rows = np.asarray(abs(site.forms) @ touched.astype(np.float64)) > 0
            hit = hit | rows.reshape(site.shape)
        free = np.where(hit, 0.0, self.squares)
        return ParameterTerms(free, self.sites), ParameterTerms(self.squares - free, self.sites)


class Posynomial:
    """All terms, a posynomial in the factors: tables, and the forms of all their axes below each other."""

    def __init__(self, tables: Sequence[ParameterTerms]) -> None:
        self.tables = tables
        self.forms = vstack([site.forms for table in tables for site in table.sites]).tocsr()
        self.forms = self.forms.astype(np.float64)
        self.up, self.down = self.forms.maximum(0).T.tocsr(), (-self.forms).maximum(0).T.tocsr()
        self.square = self.forms.multiply(self.forms).T.tocsr()
        ends = np.cumsum([0, *(site.forms.shape[0] for table in tables for site in table.sites)]).tolist()
        pieces = iter(pairwise(ends))
        self.pieces = [[slice(*next(pieces)) for _ in table.sites] for table in tables]

    def factors(self, x: Floats) -> Floats:
        """What each position of each site is multiplied by, for log factors x of the freedoms."""
        return np.asarray(np.exp(np.clip(self.forms @ x, -350, 350)))

    def sums(self, factors: Floats) -> Floats:
        """For each position the squares there, times the factors of other sites."""
        out = np.empty_like(factors)
        for table, pieces in zip(self.tables, self.pieces, strict=True):
            for piece, total in zip(pieces, table.sums([factors[p] for p in pieces]), strict=True):
                out[piece] = total
        return out

    def value(self, parts: Floats) -> float:
        """The sum of all terms, from those at each position."""
        return float(sum(parts[pieces[0]].sum() for pieces in self.pieces))

    def parts(self, factors: Floats) -> Floats:
        """The sum of all terms at each position."""
        return factors * self.sums(factors)

    def hessian(self, factors: Floats, parts: Floats, v: Floats) -> Floats:
        """The second derivative along a direction."""
        along = self.forms @ v
        total = parts * along
        for table, pieces in zip(self.tables, self.pieces, strict=True):
            own, moved = [factors[p] for p in pieces], [factors[p] * along[p] for p in pieces]
            if len(pieces) == 2:  # what either site sees of the other is all there is
                crossed = table.sums(moved)
            else:
                turns = [table.sums([*own[:j], moved[j], *own[j + 1 :]]) for j in range(len(pieces))]
                crossed = [
                    sum((turn[i] for j, turn in enumerate(turns) if j != i), np.zeros(len(own[i])))
                    for i in range(len(pieces))
                ]
            for piece, factor, total_there in zip(pieces, own, crossed, strict=True):
                total[piece] += factor * total_there
        return np.asarray(self.forms.T @ total)


def balanced(model: Model, symmetry: Symmetry) -> Floats:
    """Exponents (log2) of the smallest sum of squares, float64 [freedoms]."""
    tables = [table for name in symmetry.exponents if (table := _terms_of(model, symmetry, name)) is not None]
    count = symmetry.scale.count
    return _minimize(tables, count) if tables else np.zeros(count)


def _terms_of(model: Model, symmetry: Symmetry, name: str) -> ParameterTerms | None:
    """The squares of a parameter, summed over the positions that no freedom tells apart."""
    sites = scaled_axes(symmetry.scale, symmetry.exponents[name])
    if not sites:
        return None
    squares = np.square(symmetry.read(model, name).astype(np.float64))
    shape = np.broadcast_shapes(*(s.shape for s in sites))
    rest = tuple(k for k in range(squares.ndim) if shape[k] == 1 and squares.shape[k] > 1)
    grouped = squares.sum(rest, keepdims=True) if rest else squares
    met = sum(np.bincount(np.unique(site.forms.indices), minlength=symmetry.scale.count) for site in sites)
    if np.max(met) == 1:
        return ParameterTerms(grouped, tuple(sites))
    return _by_terms(grouped, sites)


def _by_terms(grouped: Floats, sites: Sequence[ScaledAxis]) -> ParameterTerms:
    """Where a freedom acts along two axes, as in recurrent weights: every term has a form of its own."""
    total: csr_matrix | None = None
    for site in sites:
        rows = np.broadcast_to(np.arange(site.forms.shape[0]).reshape(site.shape), grouped.shape).ravel()
        picked = site.forms[rows]
        total = picked if total is None else total + picked
    assert total is not None
    total.eliminate_zeros()
    return ParameterTerms(grouped.ravel(), (ScaledAxis(0, (grouped.size,), total),))


def _minimize(tables: list[ParameterTerms], count: int) -> Floats:
    """argmin Σ w · 2^(2·A·t): one-sided freedoms first (they normalize what they have to norm 1), the rest by
    damped Newton steps with conjugate gradients.

    A freedom all of whose terms grow (or shrink) with it has no minimum: its terms vanish at the infimum, so
    they are taken out, again and again, and such a freedom is set last, so that the terms it has add up to 1.
    """
    rounds: list[tuple[Ids, Posynomial]] = []
    while True:
        terms = Posynomial(tables)
        there = (terms.sums(np.ones(terms.forms.shape[0])) > 0).astype(np.float64)
        single = np.flatnonzero((terms.up @ there > 0) ^ (terms.down @ there > 0))
        if not len(single):
            break
        touched = np.zeros(count, bool)
        touched[single] = True
        parts = [table.split(touched) for table in tables]
        tables = [free for free, _ in parts]
        rounds.append((single, Posynomial([gone for _, gone in parts])))
    x = _newton(terms, count)
    for single, gone in reversed(rounds):
        x = _normalize(x, single, gone)
    return np.asarray(x / (2 * np.log(2)))


def _normalize(x: Floats, freedoms: Ids, terms: Posynomial) -> Floats:
    """Set each freedom so that the terms it has add up to 1."""
    parts = terms.parts(terms.factors(x))
    grow, shrink = terms.up @ parts, terms.down @ parts
    total = grow + shrink
    out = x.copy()
    sure = freedoms[total[freedoms] > 0]
    out[sure] -= np.where(grow[sure] > shrink[sure], 1.0, -1.0) * np.log(total[sure])
    return out


def _newton(terms: Posynomial, count: int) -> Floats:
    """Minimize Σ w e^(A·x) for convex two-sided terms, from the coordinate-wise balance; steps are only as
    exact as the distance to the minimum asks for (Dembo, Eisenstat and Steihaug 1982)."""
    x = np.zeros(count)
    for _ in range(SWEEPS):
        parts = terms.parts(terms.factors(x))
        grow, shrink = terms.up @ parts, terms.down @ parts
        both = (grow > 0) & (shrink > 0)
        x[both] += 0.25 * np.log(shrink[both] / grow[both])
    factors = terms.factors(x)
    parts = terms.parts(factors)
    value = terms.value(parts)
    for _ in range(NEWTON_STEPS):
        gradient, curve = terms.forms.T @ parts, terms.square @ parts
        scale = np.where(curve > 0, curve, 1.0)
        left = float(np.abs(gradient / scale).max(initial=0.0))
        if left < CONVERGED:
            break
        matvec = partial(terms.hessian, factors, parts)
        hessian = LinearOperator((count, count), matvec=matvec, dtype=np.float64)
        damp = LinearOperator((count, count), matvec=lambda v, s=scale: v / s, dtype=np.float64)
        step, _ = cg(hessian, -gradient, rtol=min(1e-2, left), maxiter=GRADIENT_STEPS, M=damp)
        for size in STEP_SIZES:
            there = x + size * step
            factors = terms.factors(there)
            parts = terms.parts(factors)
            fresh = terms.value(parts)
            if fresh <= value * (1 + 1e-15):
                break
        else:
            break
        x, value = there, fresh
    return x
