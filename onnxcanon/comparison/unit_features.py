"""Matching units by what they do, where rounding keeps their weights from being equal bit for bit.

Every unit gets a vector of features that moves with it and changes little when weights do: sums of its
weights, and of their squares, weighted by the features of the units at their other ends, a few rounds deep
(a colour refinement whose colours are points instead of hashes). Siblings of two models are then assigned to
each other, nearest first, along the tree of orbits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.arrays import Floats, Ids
from onnxcanon.solving.group import WreathNode
from onnxcanon.symmetry import Symmetry

Singles = NDArray[np.float32]
Read = Callable[[str], NDArray[Any]]
"""The entries of a parameter, by its name in the symmetry."""

FEATURES = 8
"""Features of a unit; half of them are sums of weights, half of squares."""

REFINEMENTS = 2


class UnitFeatures:
    """Features of all unit classes, float64 [classes, WIDTH]: the same function of both models' weights."""

    def __init__(self, symmetry: Symmetry, read: Read) -> None:
        self.symmetry, self.read = symmetry, read
        rng = np.random.default_rng(20)
        self.moving = symmetry.moving
        self.own = rng.choice([-1.0, 1.0], (symmetry.solution.count, FEATURES))  # of units that stay
        self.own[self.moving] = 1
        self.vectors = self.own.copy()
        self.group = _groups(symmetry)

    def refine(self) -> Floats:
        """The vectors after some rounds."""
        for _ in range(REFINEMENTS):
            total = np.zeros_like(self.vectors)
            for number, (name, classes) in enumerate(self.symmetry.classes.items()):
                moving = [axis for axis, rows in classes.items() if self.moving[rows].any()]
                if moving:
                    self._contribute(name, number, moving, total)
            self._follow_parts(total)
            self.vectors = np.where(self.moving[:, None], self._normal(total), self.own)
            for orbit in self.symmetry.solution.tree:
                self._gather(orbit, orbit.members[None])
        return self.vectors

    def _contribute(self, name: str, number: int, moving: Sequence[int], total: Floats) -> None:
        entries = self.read(name).astype(np.float32)
        if not np.isfinite(entries).all():
            entries = np.nan_to_num(entries, nan=0.0, posinf=0.0, neginf=0.0)
        size = np.sqrt(np.square(entries, dtype=np.float64).mean()) or 1.0
        half = FEATURES // 2
        entries = entries / np.float32(size)
        for part, values in ((slice(0, half), entries), (slice(half, None), entries * entries)):
            weights = [
                self._weights(name, number, axis, entries.shape)[..., part] for axis in range(entries.ndim)
            ]
            for axis in moving:
                classes = self.symmetry.classes[name][axis]
                np.add.at(total[:, part], classes.ravel(), _summed(values, weights, axis, classes.shape))

    def _weights(self, name: str, number: int, axis: int, shape: tuple[int, ...]) -> Singles:
        """What the positions of an axis count as: [..., WIDTH] over the parameter's axes."""
        classes = self.symmetry.classes[name].get(axis)
        if classes is not None:
            return self.vectors[classes].astype(np.float32)
        rng = np.random.default_rng([number, axis])
        line = [n if k == axis else 1 for k, n in enumerate(shape)]
        return rng.choice(np.array([-1, 1], np.float32), (*line, FEATURES))

    def _follow_parts(self, total: Floats) -> None:
        for dependent in self.symmetry.solution.dependent:
            whole = total[dependent.products]
            for column in dependent.parts.T:
                np.add.at(total, column, whole)
        for dependent in self.symmetry.solution.dependent:
            total[dependent.products] += sum(self.vectors[column] for column in dependent.parts.T)

    def _normal(self, total: Floats) -> Floats:
        """Each feature squashed, in units of its spread among the classes of one kind."""
        count = np.maximum(np.bincount(self.group), 1)[:, None]
        mean = _sums(self.group, total, len(count)) / count
        spread = np.sqrt(_sums(self.group, (total - mean[self.group]) ** 2, len(count)) / count)
        away = (total - mean[self.group]) / np.where(spread > 0, spread, 1)[self.group]
        return np.nan_to_num(np.tanh(away / 2))

    def _gather(self, orbit: WreathNode, members: Ids) -> Floats:
        """Units take in the mean of their component, inner ones first; members int64 [b, k, s]."""
        for child in orbit.children:
            self._gather(child, members[..., child.members].reshape(-1, *child.members.shape))
        mean: Floats = component_vectors(orbit, members, self.vectors)
        flat = members.reshape(-1, members.shape[-1])
        spread = mean.reshape(-1, 1, FEATURES) / np.sqrt(members.shape[-1])
        self.vectors[flat] = self.vectors[flat] + 0.5 * spread
        return mean


def component_vectors(orbit: WreathNode, members: Ids, vectors: Floats) -> Floats:
    """A vector for every component [..., s] of an orbit: its units' vectors added up, loose columns told
    apart, the components of nested orbits not."""
    rng = np.random.default_rng(30)
    sign = rng.choice([-1.0, 1.0], (members.shape[-1], FEATURES))
    for child in orbit.children:
        sign[child.members] = sign[child.members[0]][None]
    out: Floats = np.einsum("...sk,sk->...k", vectors[members], sign)
    return out


def match_units(symmetry: Symmetry, ours: Floats, theirs: Floats) -> Ids:
    """The permutation that takes each class of one model to the class of the other it resembles most.

    Args:
        symmetry: of both models, which have one numbering of classes.
        ours: the features of the first model's classes.
        theirs: those of the second's.
    """
    permutation = np.arange(symmetry.solution.count)
    for orbit in symmetry.solution.tree:
        _match(orbit, orbit.members, orbit.members, (ours, theirs), permutation)
    return symmetry.solution.extend(permutation)


def _match(
    orbit: WreathNode, ours: Ids, theirs: Ids, vectors: tuple[Floats, Floats], permutation: Ids
) -> None:
    """Match components [k, s] of one model with those of another, then what is inside them."""
    pairs = assign_points(
        component_vectors(orbit, ours, vectors[0]), component_vectors(orbit, theirs, vectors[1])
    )
    permutation[ours] = theirs[pairs]
    for child in orbit.children:
        for row, image in zip(ours, theirs[pairs], strict=True):
            _match(child, row[child.members], image[child.members], vectors, permutation)


def assign_points(ours: Floats, theirs: Floats) -> Ids:
    """For each of our points [k, d] one of theirs: the nearest, if that is one to one, else by least total
    squared distance."""
    cost = (ours**2).sum(1)[:, None] + (theirs**2).sum(1) - 2 * (ours @ theirs.T)
    nearest: Ids = cost.argmin(1)
    if len(np.unique(nearest)) == len(nearest):
        return nearest
    from scipy.optimize import linear_sum_assignment

    _, chosen = linear_sum_assignment(cost)
    return np.asarray(chosen, np.int64)


def _summed(values: Singles, weights: Sequence[Singles], axis: int, shape: tuple[int, ...]) -> Singles:
    """The entries along an axis (with its context), weighted by all other axes and summed: [positions, k]."""
    kept = [j for j, n in enumerate(shape) if n > 1]
    count = prod(n for j, n in enumerate(values.shape) if j not in kept)
    plain = kept in ([], [axis]) and all(_narrow(w, k) for k, w in enumerate(weights) if k != axis)
    out = _by_products(values, weights, axis) if plain else _by_einsum(values, weights, axis, kept)
    return np.asarray(out / np.float32(np.sqrt(max(count, 1)))).reshape(-1, out.shape[-1])


def _narrow(weight: Singles, axis: int) -> bool:
    """Whether the weights of an axis depend on no other one."""
    return all(n == 1 for k, n in enumerate(weight.shape[:-1]) if k != axis)


def _by_products(values: Singles, weights: Sequence[Singles], axis: int) -> Singles:
    """By matrix products over all axes before, and all after: the larger of the two first."""
    flat = [w.reshape(-1, w.shape[-1]) for w in weights]
    before, after = _product(flat[:axis], flat[axis]), _product(flat[axis + 1 :], flat[axis])
    n = values.shape[axis]
    if len(before) > len(after):
        first = (values.reshape(len(before), -1).T @ before).reshape(n, len(after), -1)
        return np.asarray((first * after).sum(1))
    first = (values.reshape(-1, len(after)) @ after).reshape(len(before), n, -1)
    return np.asarray((first * before[:, None]).sum(0))


def _product(weights: Sequence[Singles], like: Singles) -> Singles:
    """The weights of several axes in one, over all their positions: [positions, k]."""
    whole = np.ones((1, like.shape[-1]), np.float32)
    for weight in weights:
        whole = (whole[:, None] * weight).reshape(-1, like.shape[-1])
    return whole


def _by_einsum(values: Singles, weights: Sequence[Singles], axis: int, kept: list[int]) -> Singles:
    """The general way, for labels that depend on the position along other axes."""
    feature = values.ndim
    terms: list[Any] = [values, list(range(values.ndim))]
    for k, weight in enumerate(weights):
        if k != axis:
            wide = [j for j, n in enumerate(weight.shape[:-1]) if n > 1]
            narrow = weight.reshape([weight.shape[j] for j in wide] + [weight.shape[-1]])
            terms += [narrow, [*wide, feature]]
    if len(terms) == 2:
        terms += [np.ones(weights[axis].shape[-1], np.float32), [feature]]
    return np.asarray(np.einsum(*terms, [*kept, feature], optimize=True))


def _groups(symmetry: Symmetry) -> Ids:
    """A number for the classes of one kind: the column of an orbit; nested siblings share theirs."""
    group = np.zeros(symmetry.solution.count, np.int64)
    count = 1

    def enter(orbit: WreathNode, members: Ids) -> None:
        nonlocal count
        columns = count + np.arange(orbit.members.shape[1])
        count += orbit.members.shape[1]
        group[members] = columns
        for child in orbit.children:
            enter(child, members[..., child.members].reshape(-1, child.members.shape[1]))

    for orbit in symmetry.solution.tree:
        enter(orbit, orbit.members)
    for dependent in symmetry.solution.dependent:
        _, kinds = np.unique(group[dependent.parts], axis=0, return_inverse=True)
        group[dependent.products] = count + kinds.reshape(-1)
        count += int(kinds.max(initial=0)) + 1
    return group


def _sums(group: Ids, rows: Floats, count: int) -> Floats:
    out = np.zeros((count, rows.shape[1]))
    np.add.at(out, group, rows)
    return out
