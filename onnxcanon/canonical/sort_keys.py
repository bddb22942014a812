"""Sort keys: siblings sorted by a key a person understands.

What the hash order leads to is already canonical, so any function of it is: siblings are sorted by ``norm``
of their incoming slice (largest first), ``lexicographic`` order of it, or ``nodesort`` (Sorensen 2020,
Algorithm 1: the next layer's weights read as digits in base p, last layer first); the hash order breaks ties.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.action import move
from onnxcanon.arrays import Ids
from onnxcanon.canonical.hash_order import Keys, sort_siblings
from onnxcanon.model import Model
from onnxcanon.solving.group import WreathNode
from onnxcanon.symmetry import Symmetry


def sort_by(
    model: Model,
    symmetry: Symmetry,
    permutation: Ids,
    key: Callable[[NDArray[Any]], NDArray[Any]],
    *,
    outgoing: bool,
) -> Ids:
    """Sort every orbit by a key of its slices of one parameter, one orbit after the other."""
    orbits = list(enumerate(symmetry.solution.tree))
    key_axes = _key_axes(symmetry, outgoing=outgoing)
    place = [-1 if axes is None else axes[0] for axes in key_axes]
    orbits.sort(key=lambda item: place[item[0]], reverse=outgoing)
    names = list(symmetry.classes)
    for number, orbit in orbits:
        key_axis = key_axes[number]
        if key_axis is None:
            continue
        name, axis = names[key_axis[0]], key_axis[1]
        array = move(symmetry.read(model, name), symmetry.indices(name, permutation))
        rows, slices = _rows(symmetry.classes[name][axis], array.astype(np.float64))

        def keys(
            _: WreathNode, members: Ids, rows: dict[int, Ids] = rows, slices: NDArray[Any] = slices
        ) -> NDArray[Any]:
            picked = [rows.get(u, np.zeros(0, np.int64)) for u in members.ravel().tolist()]
            if not any(map(len, picked)):
                return np.arange(len(members))
            width = members.shape[1]
            components = [picked[k : k + width] for k in range(0, len(picked), width)]
            table = [np.concatenate([slices[r].ravel() for r in component]) for component in components]
            length = max(map(len, table))
            return _ranks(key(np.stack([np.pad(t, (0, length - len(t))) for t in table])))

        source, target = sort_siblings(orbit, orbit.members, keys)
        step = np.arange(symmetry.solution.count)
        step[source] = target
        permutation = symmetry.solution.extend(step)[permutation]
    return permutation


def _rows(classes: Ids, array: NDArray[Any]) -> tuple[dict[int, Ids], NDArray[Any]]:
    """The rows of each class along an axis (with its context), and the slices of the array in these rows."""
    led = [k for k, n in enumerate(classes.shape) if n > 1]
    rest = [k for k in range(classes.ndim) if k not in led]
    table = array.transpose(led + rest).reshape(classes.size, -1)
    flat = classes.transpose(led + rest).ravel()
    order = np.argsort(flat, kind="stable")
    units, starts = np.unique(flat[order], return_index=True)
    return dict(zip(units.tolist(), np.split(order, starts[1:]), strict=True)), table


def _key_axes(symmetry: Symmetry, *, outgoing: bool) -> list[tuple[int, int] | None]:
    """Per orbit the parameter (by number) and axis that it is sorted by: the first matrix with its units, or
    the second for keys that read outgoing weights; vectors only where there is nothing else."""
    owner = np.full(symmetry.solution.count, -1, np.int64)
    for number, orbit in enumerate(symmetry.solution.tree):
        owner[orbit.members] = number
    matrices: list[list[tuple[int, int]]] = [[] for _ in symmetry.solution.tree]
    vectors: list[list[tuple[int, int]]] = [[] for _ in symmetry.solution.tree]
    for place, (name, classes) in enumerate(symmetry.classes.items()):
        wide = len(symmetry.trace.parameters[name].shape) > 1
        for axis, rows in classes.items():
            for number in np.unique(owner[rows]):
                if number >= 0:
                    (matrices if wide else vectors)[number].append((place, axis))
    out: list[tuple[int, int] | None] = []
    for wide_axes, narrow_axes in zip(matrices, vectors, strict=True):
        options = wide_axes or narrow_axes
        later = [o for o in options if o[0] != options[0][0]] if options else []
        out.append((later[0] if outgoing and later else options[0]) if options else None)
    return out


def _ranks(key: NDArray[Any]) -> NDArray[Any]:
    """Keys as numbers to sort by; rows of a matrix compare lexicographically."""
    if key.ndim == 1:
        return key
    _, inverse = np.unique(key, axis=0, return_inverse=True)
    return inverse.reshape(-1)


def by_norm(model: Model, symmetry: Symmetry, permutation: Ids, *, outgoing: bool) -> Ids:
    """Sort siblings by norms, largest first: of the slice they are sorted by, then of every other slice.

    After a real-valued choice of scale the norms carry rounding noise, so a near tie goes to the next norm.
    """
    sums = _power_sums(model, symmetry)
    names = list(symmetry.classes)
    slots = np.arange(symmetry.solution.count)
    for orbit, key_axis in zip(symmetry.solution.tree, _key_axes(symmetry, outgoing=outgoing), strict=True):
        first = [] if key_axis is None else [(names[key_axis[0]], key_axis[1])]
        rows = [sums[site] for site in [*first, *(s for s in sums if s not in first)]]
        used = [row for row in rows if row[:, orbit.members].any()]

        def keys(_: WreathNode, members: Ids, used: list[NDArray[Any]] = used) -> NDArray[Any]:
            table = [row[power, members].sum(-1) for power in (0, 1) for row in used]
            return _near_ranks(table) if table else np.arange(len(members))

        source, target = sort_siblings(orbit, orbit.members, _placed(keys, permutation, len(slots)))
        slots[source] = target
    return symmetry.solution.extend(slots)[permutation]


def _placed(keys: Keys, permutation: Ids, count: int) -> Keys:
    """Keys of the units that `permutation` has brought to the given slots."""
    origin = np.empty(count, np.int64)
    origin[permutation] = np.arange(count)
    return lambda orbit, members: keys(orbit, origin[members])


def _power_sums(model: Model, symmetry: Symmetry) -> dict[tuple[str, int], NDArray[Any]]:
    """Per parameter axis Σ w² and Σ w⁴ of each class's slice, float64 [2, classes]."""
    out: dict[tuple[str, int], NDArray[Any]] = {}
    for name, axes in symmetry.classes.items():
        if not axes:
            continue
        squares = symmetry.read(model, name).astype(np.float64) ** 2
        for axis, rows in axes.items():
            rest = tuple(k for k, n in enumerate(rows.shape) if n == 1 and squares.shape[k] > 1)
            out[name, axis] = np.stack(
                [
                    np.bincount(rows.ravel(), v.sum(rest).ravel(), symmetry.solution.count)
                    for v in (squares, squares**2)
                ]
            )
    for dependent in reversed(symmetry.solution.dependent):  # composites count for their parts
        for table in out.values():
            for line in table:
                own = line[dependent.products]
                for k in range(dependent.parts.shape[1]):
                    np.add.at(line, dependent.parts[:, k], own)
    return out


def _near_ranks(table: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Ranks by the first key, largest first; keys that differ by no more than rounding share a cluster, which
    the next key orders. The width of a cluster is chosen where no gap is close to it."""
    out = np.empty(len(table[0]), np.int64)
    place = 0

    def visit(chosen: NDArray[Any], level: int) -> None:
        nonlocal place
        if level == len(table) or len(chosen) == 1:
            out[chosen] = np.arange(place, place + len(chosen))
            place += len(chosen)
            return
        key = table[level]
        ranked = chosen[np.argsort(-key[chosen], kind="stable")]
        gaps = -np.diff(key[ranked]) / max(float(key.max()), 1e-300)
        cuts = np.flatnonzero(gaps > _width(gaps)) + 1
        for cluster in np.split(ranked, cuts):
            visit(np.sort(cluster), level + 1)

    visit(np.arange(len(table[0])), 0)
    return out


def _width(gaps: NDArray[Any]) -> float:
    """The largest of a few thresholds that no gap comes near."""
    options = [3e-6 / 2**k for k in range(6)]
    clear = (w for w in options if not ((gaps > w / 1.3) & (gaps < w * 1.3)).any())
    return float(next(clear, options[-1]))


def by_entries(slices: NDArray[Any]) -> NDArray[Any]:
    """Rows compared entry by entry."""
    return slices


def by_digits(slices: NDArray[Any], base: float) -> NDArray[Any]:
    """The projection Σ w_j p^j of Sorensen (2020, Algorithm 1), scaled so that it cannot overflow: only the
    leading digits count in floating point anyway.

    Nodesort of a layer with three units: the weights of the two units that read them are the digits, the last
    one leads, and units are sorted by the number they spell.

    >>> outgoing = np.array([[0, 1], [1, 0], [1, 1]], np.float64)  # [unit, next unit]
    >>> by_digits(outgoing, base=2.0).tolist(), np.argsort(by_digits(outgoing, base=2.0)).tolist()
    ([1.0, 0.5, 1.5], [1, 0, 2])
    """
    j = np.arange(slices.shape[1], dtype=np.float64)
    digits: NDArray[Any] = slices @ np.power(float(base), np.maximum(j - j[-1], -1000.0))
    return digits
