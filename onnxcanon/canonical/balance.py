"""The choice `balanced`: the element of the orbit with the smallest sum of squares.

In the logarithms of the factors the sum is convex, Σ w · e^(A·x), so the minimum is unique and no direction
of the graph is preferred: incoming and outgoing norms of each unit agree. One solve for the whole graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix, vstack
from scipy.sparse.linalg import LinearOperator, cg

from onnxcanon.canonical.sites import Floats, sites_of
from onnxcanon.model import Model
from onnxcanon.symmetry.analysis import Symmetry
from onnxcanon.symmetry.constraints import Ids


@dataclass(slots=True)
class Squares:
    """Σ over rows of weight · 2^(2·form·t), the squares of one parameter grouped by equal forms."""

    weights: Floats
    forms: csr_matrix


def balanced(model: Model, symmetry: Symmetry) -> Floats:
    """Exponents of the smallest sum of squares."""
    terms = list(_square_terms(model, symmetry))
    count = symmetry.scale.count
    if not terms:
        return np.zeros(count)
    weights = np.concatenate([s.weights for s in terms])
    forms = vstack([s.forms for s in terms]).tocsr().astype(np.float64)
    keep = (weights > 0) & (np.diff(forms.indptr) > 0)
    return _minimize(weights[keep], forms[keep], count)


def _square_terms(model: Model, symmetry: Symmetry) -> Iterator[Squares]:
    """Per parameter the entries' squares, summed over the positions that no freedom tells apart."""
    for name, degrees in symmetry.degrees.items():
        sites = sites_of(symmetry.scale.forms, degrees)
        if not sites:
            continue
        squares = symmetry.read(model, name).astype(np.float64) ** 2
        shape = np.broadcast_shapes(*(s.shape for s in sites))
        rest = tuple(k for k in range(squares.ndim) if shape[k] == 1 and squares.shape[k] > 1)
        grouped = squares.sum(rest, keepdims=True)
        total: csr_matrix | None = None
        for site in sites:
            rows = np.broadcast_to(np.arange(site.forms.shape[0]).reshape(site.shape), grouped.shape).ravel()
            picked = site.forms[rows]
            total = picked if total is None else total + picked
        yield Squares(grouped.ravel(), total)


def _minimize(weights: Floats, forms: csr_matrix, count: int) -> Floats:
    """argmin Σ w · 2^(2·A·t): one-sided freedoms first (they normalize what they have to norm 1), the rest by
    damped Newton steps with conjugate gradients.

    A freedom all of whose terms grow (or shrink) with it has no minimum: its terms vanish at the infimum, so
    they are taken out, again and again, and such a freedom is set last, so that the terms it has add up to 1.
    """
    live = np.ones(len(weights), bool)
    rounds: list[tuple[Ids, Ids]] = []
    while True:
        part = forms[live]
        up = np.asarray(part.maximum(0).sum(0)).ravel() > 0
        down = np.asarray((-part).maximum(0).sum(0)).ravel() > 0
        single = np.flatnonzero(up ^ down)
        if not len(single):
            break
        marked = np.zeros(count)
        marked[single] = 1
        touched = live & (np.asarray(abs(forms) @ marked).ravel() > 0)
        rounds.append((single, np.flatnonzero(touched)))
        live &= ~touched
    t = np.zeros(count)
    if live.any():
        t = _newton(weights[live], forms[live], count)
    for single, rows in reversed(rounds):
        t = _normalize(t, single, weights[rows], forms[rows])
    return t


def _normalize(t: Floats, freedoms: Ids, weights: Floats, forms: csr_matrix) -> Floats:
    """Set each freedom so that the terms it has add up to 1."""
    t = t.copy()
    size = weights * np.exp2(2 * np.asarray(forms @ t).ravel())
    chosen = forms[:, freedoms].tocoo()
    total = np.bincount(chosen.col, size[chosen.row], len(freedoms))
    sign = np.sign(np.bincount(chosen.col, chosen.data, len(freedoms)))
    sure = total > 0
    t[freedoms[sure]] -= 0.5 * sign[sure] * np.log2(total[sure])
    return t


def _newton(weights: Floats, forms: csr_matrix, count: int) -> Floats:
    """Minimize Σ w e^(A·x) for convex two-sided terms, x = 2 ln2 · t, from the coordinate-wise balance."""
    log_w = np.log(weights)
    up, down = forms.maximum(0).tocsc(), (-forms).maximum(0).tocsc()
    x = np.zeros(count)

    def terms(x: Floats) -> Floats:
        out: Floats = np.exp(np.clip(log_w + forms @ x, -700, 700))
        return out

    for _ in range(20):  # coordinate balance brings any start near the minimum
        e = terms(x)
        p, n = np.asarray(up.T @ e).ravel(), np.asarray(down.T @ e).ravel()
        both = (p > 0) & (n > 0)
        x[both] += 0.25 * np.log(n[both] / p[both])
    value = float(terms(x).sum())
    for _ in range(100):
        e = terms(x)
        gradient = np.asarray(forms.T @ e).ravel()
        diagonal = np.asarray(forms.multiply(forms).T @ e).ravel()
        scale = np.where(diagonal > 0, diagonal, 1.0)
        if np.abs(gradient / scale).max() < 1e-12:
            break
        hessian = LinearOperator((count, count), matvec=lambda v, e=e: forms.T @ (e * (forms @ v)))
        damp = LinearOperator((count, count), matvec=lambda v, s=scale: v / s)
        step, _ = cg(hessian, -gradient, rtol=1e-10, maxiter=400, M=damp)
        size = 1.0
        while size > 1e-6 and not (fresh := float(terms(x + size * step).sum())) <= value * (1 + 1e-15):
            size /= 2
        if size <= 1e-6:
            break
        x, value = x + size * step, fresh
    out: Floats = x / (2 * np.log(2))
    return out
