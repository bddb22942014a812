"""The choice of scale: one representative of the orbit under positive rescaling and sign flips.

Every freedom t multiplies the entries it acts on by 2^(±t). The choices:

- ``pow2``      t integral: the largest magnitude of the entries a freedom multiplies at its first parameter
                lies in [1/2, 1). Exact quantities only, bit-exact, hence the default.
- ``unit``      the same place has Euclidean norm 1: incoming weights (with those of earlier freedoms already
                normalized) on spheres, norms pushed toward the output (Pittorino et al. 2022).
- ``balanced``  the element of the orbit with the smallest sum of squares over all parameters: unique, no
                direction preferred. Convex in the exponents; solved by Newton steps on the whole graph.
- ``none``      nothing.

`pow2` and `unit` walk the parameters in the order of their use, solving for the freedoms whose other factors
are known, so that no choice depends on a later one. A freedom that meets only zeros keeps its scale.

Signs: the exact (integer) sum of the entries a freedom flips, at the first place where it is not zero, is
made positive.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from onnxcanon.model import Model
from onnxcanon.symmetry.analysis import Symmetry
from onnxcanon.symmetry.constraints import Ids
from onnxcanon.symmetry.hashing import mix
from onnxcanon.transform import Transform

Floats = NDArray[np.float64]
UNEVEN = (40, 20, 10, -1)
"""Where bits would be lost, units whose sides differ by 2^40 give way first, then those by 2^20, 2^10,
then all."""
LAST_BIT = {4: -149, 8: -1074}
"""The exponent of the smallest subnormal, by size of the type in bytes."""
SCALES = ("pow2", "balanced", "unit", "none")


def choose_scale(model: Model, symmetry: Symmetry, scale: str) -> tuple[Floats | None, list[str]]:
    """log2 exponents of the scale freedoms (None: leave them), and notes for the user."""
    if scale == "none" or not symmetry.acting[0].any():
        return None, []
    if scale == "balanced":
        return _balanced(model, symmetry), []
    if scale == "pow2":
        return _powers(model, symmetry)
    return _Walk(model, symmetry, _Measure(exact=False)).run(), []


def choose_signs(model: Model, symmetry: Symmetry) -> NDArray[np.int64] | None:
    """0 or 1 for each sign freedom (None: leave them)."""
    return _Signs(model, symmetry).run() if symmetry.acting[1].any() else None


# -- pow2 and unit: a walk over the parameters ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Measure:
    """The size of a set of magnitudes, as log2: by its largest (exact) or by its Euclidean norm."""

    exact: bool

    def of_positions(self, values: Floats, shape: tuple[int, ...]) -> Floats:
        """The size of the entries at each position of an array that broadcasts to `values`; -inf for zeros."""
        rest = tuple(k for k, n in enumerate(shape) if n == 1 and values.shape[k] > 1)
        if self.exact:
            return _binary_exponent(values.max(rest, keepdims=True, initial=0.0)).reshape(-1)
        with np.errstate(divide="ignore"):
            return 0.5 * np.log2((values**2).sum(rest, keepdims=True)).reshape(-1)

    def together(self, levels: Floats, groups: Ids, count: int) -> Floats:
        """The size of the union of sets whose sizes are known, per group."""
        if self.exact:
            out = np.full(count, -np.inf)
            np.maximum.at(out, groups, levels)
            return out
        with np.errstate(divide="ignore"):
            return 0.5 * np.log2(np.bincount(groups, np.exp2(2 * levels), count))


def _binary_exponent(largest: Floats) -> Floats:
    """e with 2^(e-1) <= x < 2^e; -inf for zero."""
    out = np.frexp(largest)[1].astype(np.float64)
    out[largest == 0] = -np.inf
    return out


def _last_bit(values: Floats) -> Floats:
    """The exponent of the lowest bit set in each number; inf for zero."""
    mantissa, exponent = np.frexp(values)
    whole = np.abs(mantissa * 2.0**53).astype(np.int64)
    with np.errstate(divide="ignore"):
        out = np.log2((whole & -whole).astype(np.float64)) + exponent - 53
    out[values == 0] = np.inf
    return out


@dataclass(slots=True)
class _Site:
    """One scaled axis of a parameter: the form (free degrees and coefficients) at each position."""

    axis: int
    shape: tuple[int, ...]
    forms: csr_matrix  # [positions, freedoms]

    def solvable(self, known: NDArray[np.bool_]) -> tuple[Ids, Ids, Ids]:
        """Positions with exactly one unknown freedom: (positions, freedoms, coefficients ±1)."""
        entries = self.forms.tocoo()
        rows, columns, values = entries.row, entries.col, entries.data
        open_ = ~known[columns]
        rows, columns, values = rows[open_], columns[open_], values[open_]
        count = np.bincount(rows, minlength=self.forms.shape[0])
        one = (count[rows] == 1) & (np.abs(values) == 1)
        return rows[one], columns[one], values[one].astype(np.int64)

    def open_positions(self, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Positions whose form holds an unknown freedom, in the site's shape."""
        return self.open_count(known) > 0

    def open_count(self, known: NDArray[np.bool_]) -> Floats:
        """How many unknown freedoms each position's form holds, in the site's shape."""
        return np.asarray(abs(self.forms) @ (~known).astype(np.float64)).reshape(self.shape)

    def exponents(self, t: Floats) -> Floats:
        """The exponent at each position, for the freedoms' current values."""
        return np.asarray(self.forms @ t).reshape(self.shape)


def _sites(forms: csr_matrix, degrees: Mapping[int, Ids]) -> list[_Site]:
    return [_Site(a, d.shape, forms[d.ravel()]) for a, d in degrees.items() if forms[d.ravel()].nnz]


def _powers(model: Model, symmetry: Symmetry) -> tuple[Floats, list[str]]:
    """Integral exponents whose powers of two lose no bit.

    A unit whose incoming weights are next to nothing (2^-100, say) would push its outgoing ones into
    subnormals; such units stop where the lowest bit would be lost. Which ones they are depends on the target
    alone, so every twin decides alike.
    """
    late = np.zeros(symmetry.scale.count, bool)
    for uneven in UNEVEN:
        while True:
            walk = _Walk(model, symmetry, _Measure(exact=True), late)
            t = walk.run()
            lossy = _lossy(model, symmetry, t)
            if not (lossy & (t != 0)).any():
                return t, []
            plus, minus = walk.extents(t)
            with np.errstate(invalid="ignore"):
                more = lossy & ~late & (np.abs(plus - minus) > uneven)
            if not more.any():
                break
            late |= more
    return exact_exponents(model, symmetry, t)


class _Walk:
    """Determine freedoms one parameter after the other; repeated until nothing more can be determined.

    Those marked `late` wait for all others; then they
    go as near to their target as the lowest bits of their entries allow.
    """

    def __init__(
        self, model: Model, symmetry: Symmetry, measure: _Measure, late: NDArray[np.bool_] | None = None
    ) -> None:
        self.model, self.measure = model, measure
        self.sites = {n: s for n, d in symmetry.degrees.items() if (s := _sites(symmetry.scale.forms, d))}
        self.t = np.zeros(symmetry.scale.count)
        self.known = ~symmetry.acting[0]
        self.late = np.zeros(symmetry.scale.count, bool) if late is None else late

    def run(self) -> Floats:
        """log2 exponent of every freedom."""
        while True:
            if any([self._visit(name, partial=False) for name in self.sites]):
                continue
            if not any(self._visit(name, partial=True) for name in self.sites):
                break
        self._settle_late()
        return self.t

    def _settle_late(self) -> None:
        """The late freedoms, those of one parameter after those of another."""
        for sites in self.sites.values():
            touched = np.zeros(len(self.t), bool)
            for site in sites:
                touched[site.forms.indices] = True
            group = touched & self.late & ~self.known
            if group.any():
                plus, minus = self.extents(self.t)
                target = np.where(np.isfinite(plus), -plus, np.where(np.isfinite(minus), minus, 0.0))
                up, down = self._slack(~self.known)
                nearest = np.where(
                    up + down < 0, np.floor((down - up) / 2), np.clip(target, -up, np.maximum(down, -up))
                )
                self.t[group] = nearest[group]
                self.known |= group

    def _slack(self, unknown: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """By how many powers of two the entries each freedom multiplies, and divides, may shrink before their
        lowest bit is lost; inf for none.

        Entries that two unknown freedoms act on do not count.
        """
        out = np.full((2, len(self.t)), np.inf)
        for name, sites in self.sites.items():
            array = self.model.tensor(name)
            lowest = _last_bit(array.astype(np.float64)) - LAST_BIT[array.dtype.itemsize]
            for site in sites:
                lowest = lowest + site.exponents(self.t)
            several = sum((site.open_count(~unknown) for site in sites), np.zeros(()))
            lowest = np.where(several <= 1, lowest, np.inf)
            for site in sites:
                rest = tuple(k for k, n in enumerate(site.shape) if n == 1 and lowest.shape[k] > 1)
                level = lowest.min(rest, keepdims=True, initial=np.inf).reshape(-1)
                entries = site.forms.tocoo()
                for side, chosen in enumerate((entries.data > 0, entries.data < 0)):
                    np.minimum.at(out[side], entries.col[chosen], level[entries.row[chosen]])
        return out[0], out[1]

    def extents(self, t: Floats) -> tuple[Floats, Floats]:
        """The exponents of the largest entries each freedom multiplies and divides; -inf for none."""
        out = np.full((2, len(t)), -np.inf)
        for name, sites in self.sites.items():
            values = np.abs(self.model.tensor(name).astype(np.float64))
            for site in sites:
                values = values * np.exp2(site.exponents(t))
            for site in sites:
                level = self.measure.of_positions(values, site.shape)
                entries = site.forms.tocoo()
                for side, chosen in enumerate((entries.data > 0, entries.data < 0)):
                    np.maximum.at(out[side], entries.col[chosen], level[entries.row[chosen]])
        return out[0], out[1]

    def _visit(self, name: str, *, partial: bool) -> bool:
        """Solve what one parameter determines; `partial` skips entries whose other factors are unknown."""
        sites = self.sites[name]
        moved = False
        for site in sites:
            positions, freedoms, signs = site.solvable(self.known)
            wanted = ~self.late[freedoms]
            positions, freedoms, signs = positions[wanted], freedoms[wanted], signs[wanted]
            if not len(positions):
                continue
            others = [s for s in sites if s is not site]
            hidden = [s.open_positions(self.known) for s in others]
            if any(h.any() for h in hidden) and not partial:
                continue
            moved |= self._solve(name, site, others, hidden, positions, freedoms, signs)
        return moved

    def _solve(self, name: str, site: _Site, others: list[_Site], hidden: list[NDArray[np.bool_]], positions: Ids,
               freedoms: Ids, signs: Ids) -> bool:  # fmt: skip
        values = np.abs(self.model.tensor(name).astype(np.float64))
        for s, h in zip(others, hidden, strict=True):
            values = values * np.exp2(s.exponents(self.t)) * ~h
        values = values * np.exp2(site.exponents(self.t * self.known))
        level = self.measure.of_positions(values, site.shape)
        names, inverse = np.unique(freedoms, return_inverse=True)
        solved = np.zeros(len(names), bool)
        for sign in (1, -1):  # where a freedom acts both ways here, the entries it multiplies decide
            chosen = signs == sign
            size = self.measure.together(level[positions[chosen]], inverse[chosen], len(names))
            fresh = np.isfinite(size) & ~solved
            self.t[names[fresh]] = -sign * size[fresh]
            solved |= fresh
        self.known[names[solved]] = True
        return bool(solved.any())


def exact_exponents(model: Model, symmetry: Symmetry, t: Floats) -> tuple[Floats, list[str]]:
    """Exponents with those taken back whose powers of two would overflow or lose bits to subnormals."""
    t = t.copy()
    held = 0
    while (lossy := _lossy(model, symmetry, t) & (t != 0)).any():
        held += int(lossy.sum())
        t[lossy] = 0
    notes = (
        [f"{held} units keep their scale: a power of two would leave the range of their type"] if held else []
    )
    return t, notes


def _lossy(model: Model, symmetry: Symmetry, t: Floats) -> NDArray[np.bool_]:
    """The freedoms that act on an entry which the exponents t do not bring back exactly."""
    lossy = np.zeros(len(t), bool)
    for name, action in symmetry.action(None, t).actions.items():
        array = model.tensor(name)
        moved = action(array)
        with np.errstate(invalid="ignore"):
            wrong = (action.inverse()(moved) != array) & np.isfinite(array)
        if not wrong.any():
            continue
        for site in _sites(symmetry.scale.forms, symmetry.degrees[name]):
            rest = tuple(k for k, n in enumerate(site.shape) if n == 1 and wrong.shape[k] > 1)
            rows = np.flatnonzero(wrong.any(rest, keepdims=True).reshape(-1))
            lossy[site.forms[rows].indices] = True
    return lossy


# -- balanced ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Squares:
    """Σ over rows of weight · 2^(2·form·t), the squares of one parameter grouped by equal forms."""

    weights: Floats
    forms: csr_matrix


def _balanced(model: Model, symmetry: Symmetry) -> Floats:
    """Exponents of the smallest sum of squares."""
    terms = list(_square_terms(model, symmetry))
    count = symmetry.scale.count
    if not terms:
        return np.zeros(count)
    weights = np.concatenate([s.weights for s in terms])
    from scipy.sparse import vstack

    forms = vstack([s.forms for s in terms]).tocsr().astype(np.float64)
    keep = (weights > 0) & (np.diff(forms.indptr) > 0)
    return _minimize(weights[keep], forms[keep], count)


def _square_terms(model: Model, symmetry: Symmetry) -> Iterator[_Squares]:
    """Per parameter the entries' squares, summed over the positions that no freedom tells apart."""
    for name, degrees in symmetry.degrees.items():
        sites = _sites(symmetry.scale.forms, degrees)
        if not sites:
            continue
        squares = model.tensor(name).astype(np.float64) ** 2
        shape = np.broadcast_shapes(*(s.shape for s in sites))
        rest = tuple(k for k in range(squares.ndim) if shape[k] == 1 and squares.shape[k] > 1)
        grouped = squares.sum(rest, keepdims=True)
        total: csr_matrix | None = None
        for site in sites:
            rows = np.broadcast_to(np.arange(site.forms.shape[0]).reshape(site.shape), grouped.shape).ravel()
            picked = site.forms[rows]
            total = picked if total is None else total + picked
        yield _Squares(grouped.ravel(), total)


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
    from scipy.sparse.linalg import LinearOperator, cg

    log_w = np.log(weights)
    up, down = forms.maximum(0).tocsc(), (-forms).maximum(0).tocsc()
    x = np.zeros(count)

    def terms(x: Floats) -> Floats:
        return np.exp(np.clip(log_w + forms @ x, -700, 700))

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
    return x / (2 * np.log(2))


# -- signs ------------------------------------------------------------------------------------------


class _Signs:
    """Signs in the order of use, by exact integer sums of the entries rounded to 2^-40 of the largest."""

    def __init__(self, model: Model, symmetry: Symmetry) -> None:
        self.model = model
        forms = symmetry.sign.forms
        self.sites = {n: s for n, d in symmetry.degrees.items() if (s := _sites(forms, d))}
        self.symmetry = symmetry
        self.flips = np.zeros(symmetry.sign.count, np.int64)
        self.known = ~symmetry.acting[1]

    def run(self) -> NDArray[np.int64]:
        """0 or 1 per freedom."""
        while True:
            if any([self._visit(name, partial=False) for name in self.sites]):
                continue
            if not any(self._visit(name, partial=True) for name in self.sites):
                return self.flips

    def _visit(self, name: str, *, partial: bool) -> bool:
        sites = self.sites[name]
        moved = False
        for site in sites:
            positions, freedoms, _ = site.solvable(self.known)
            if not len(positions):
                continue
            others = [s for s in sites if s is not site]
            hidden = [s.open_positions(self.known) for s in others]
            if any(h.any() for h in hidden) and not partial:
                continue
            moved |= self._solve(name, site, list(zip(others, hidden, strict=True)), positions, freedoms)
        return moved

    def _solve(
        self,
        name: str,
        site: _Site,
        others: Iterable[tuple[_Site, NDArray[np.bool_]]],
        positions: Ids,
        freedoms: Ids,
    ) -> bool:
        array = self.model.tensor(name).astype(np.float64)
        top = np.abs(array).max()
        if not np.isfinite(top) or top == 0:
            return False
        whole = np.rint(array * np.exp2(40 - np.frexp(top)[1])).astype(np.int64)
        for s, h in others:
            whole = whole * (1 - 2 * (s.exponents(self.flips) % 2)).astype(np.int64) * ~h
        whole = whole * (1 - 2 * (site.exponents(self.flips * self.known) % 2)).astype(np.int64)
        rest = tuple(k for k, n in enumerate(site.shape) if n == 1 and whole.shape[k] > 1)
        names, inverse = np.unique(freedoms, return_inverse=True)
        decided = np.zeros(len(names), bool)
        for odd in (whole, self._placed(name, whole), self._scattered(whole)):
            total = np.zeros(len(names), np.int64)
            np.add.at(total, inverse, odd.sum(rest).reshape(-1)[positions])
            fresh = (total != 0) & ~decided
            self.flips[names[fresh]] = total[fresh] < 0
            decided |= fresh
        self.known[names[decided]] = True
        return bool(decided.any())

    def _placed(self, name: str, whole: Ids) -> Ids:
        """The entries weighted by their position along axes that do not move (sums of waves are zero)."""
        for axis, n in enumerate(whole.shape):
            classes = self.symmetry.classes[name].get(axis)
            if n > 1 and (classes is None or not self.symmetry.moving[classes].any()):
                line = [1] * whole.ndim
                line[axis] = n
                whole = whole * (2 * np.arange(n, dtype=np.int64) + 1).reshape(line)
        return whole

    @staticmethod
    def _scattered(whole: Ids) -> Ids:
        """An odd function of the entries without linear relations."""
        words = mix(np.abs(whole).astype(np.uint64)) >> np.uint64(8)
        return np.sign(whole) * words.astype(np.int64)


def scaling(model: Model, symmetry: Symmetry, scale: str) -> tuple[Transform, list[str]]:
    """The transform that brings scales and signs to their canonical choice, and notes."""
    exponents, notes = choose_scale(model, symmetry, scale)
    first = symmetry.action(None, exponents)
    if scale == "none":
        return first, notes
    signs = choose_signs(first.apply(model), symmetry)
    return first.then(symmetry.action(None, None, signs)), notes
