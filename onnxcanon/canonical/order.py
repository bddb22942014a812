"""The choice of order: colours that weigh the parameters decide equality, a readable key decides presentation.

**Hash order.** Weighted colour refinement: each entry of each parameter hashes its bits together with the
colours of the units on all of its axes (positions, where an axis does not move) and adds the word to every one
of these units; colours then gather within each component of the group's tree. Sums modulo 2^64 do not depend
on any order, so colours move with the units, bit for bit. Siblings are sorted by colour. Siblings of equal
colour are either true twins (exchanging them changes no entry) or are told apart one at a time.

**Presentation.** What the hash order leads to is already canonical, so any function of it is: siblings are then
sorted by ``norm`` of their incoming slice (largest first), ``lexicographic`` order of it, or ``nodesort``
(Sorensen 2020, Algorithm 1: the next layer's weights read as digits in base p, last layer first), the hash
order breaking ties.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.model import Model
from onnxcanon.symmetry.analysis import Symmetry
from onnxcanon.symmetry.constraints import Ids
from onnxcanon.symmetry.hashing import GOLDEN, Words, add_at, mix, salt
from onnxcanon.symmetry.solve import Orbit
from onnxcanon.transform import Transform, _move

ORDERS = ("norm", "lexicographic", "nodesort", "none")
INDIVIDUALIZATIONS = 4096
"""Cap on siblings told apart one at a time; beyond it they stay as stored, and a note says so."""


def ordering(
    model: Model, symmetry: Symmetry, order: str, base: float = 2.0, *, incoming_alike: bool = False
) -> tuple[Transform, list[str]]:
    """The transform that brings the units into canonical order, and notes.

    `incoming_alike` says that all incoming norms are 1, so that outgoing ones have to tell units apart.
    """
    if order == "none" or not symmetry.solution.orbits:
        return Transform({}, model.name), []
    colours = _Colours(model, symmetry)
    motion = colours.run()
    if order == "norm":
        motion = _by_norm(model, symmetry, motion, outgoing=incoming_alike)
    elif order == "lexicographic":
        motion = _present(model, symmetry, motion, _by_entries, outgoing=False)
    elif order == "nodesort":
        motion = _present(model, symmetry, motion, lambda s: _by_digits(s, base), outgoing=True)
    return symmetry.action(motion), colours.notes


# -- hash order -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Site:
    """One parameter with moving units: hashed bits of its entries and the classes along its axes."""

    name: str
    words: Words
    classes: dict[int, Ids]


class _Colours:
    """Colours of all unit classes, uint64 [classes]."""

    def __init__(self, model: Model, symmetry: Symmetry) -> None:
        self.symmetry, self.solution = symmetry, symmetry.solution
        self.notes: list[str] = []
        self.moving = symmetry.moving
        self.colour = np.arange(self.solution.count, dtype=np.uint64)  # fixed units: themselves
        self.colour = mix(self.colour + salt(11))
        for number, orbit in enumerate(self.solution.orbits):
            self.colour[orbit.members] = salt(12, number)
            _start(self.colour, orbit, orbit.members[None])
        for composites, _ in self.solution.derived:
            self.colour[composites] = salt(13)
        self.sites = [s for name in symmetry.classes if (s := self._site(model, name)) is not None]

    def _site(self, model: Model, name: str) -> _Site | None:
        classes = self.symmetry.classes[name]
        if not any(self.moving[c].any() for c in classes.values()):
            return None
        array = model.tensor(name)
        words = _bits(array) + salt(14, list(self.symmetry.classes).index(name))
        for axis, n in enumerate(array.shape):
            if axis not in classes and n > 1:
                line = [1] * array.ndim
                line[axis] = n
                words = words + mix(np.arange(n, dtype=np.uint64) + salt(15, axis)).reshape(line)
        return _Site(name, words, classes)

    def run(self) -> Ids:
        """The motion that sorts siblings by colour."""
        self.refine()
        for _ in range(INDIVIDUALIZATIONS):
            tied = self._tied()
            if tied is None:
                break
            self.colour[tied] = mix(self.colour[tied] + salt(16))
            self.refine()
        else:
            self.notes.append("some siblings could not be told apart within the limit; they stay as stored")
        return self._motion()

    # -- refinement ---------------------------------------------------------------------------------

    def refine(self) -> None:
        """Take in the parameters until siblings are distinct or nothing changes."""
        distinct = -1
        while True:
            total = self.colour.copy()
            for site in self.sites:
                self._contribute(site, total)
            self.colour = np.where(self.moving, mix(total), self.colour)
            self._follow_parts()
            for number, orbit in enumerate(self.solution.orbits):
                self._gather(orbit, orbit.members[None], number)
            now = len(np.unique(self.colour[self.moving]))
            if now == int(self.moving.sum()) or now == distinct:
                return
            distinct = now

    def _contribute(self, site: _Site, total: Words) -> None:
        words = site.words
        for axis, classes in site.classes.items():
            words = words + mix(self.colour[classes] + salt(17, axis))
        words = _stir(words)
        for axis, classes in site.classes.items():
            if not self.moving[classes].any():
                continue
            rest = tuple(k for k, n in enumerate(classes.shape) if n == 1 and words.shape[k] > 1)
            sums = words.sum(rest, keepdims=True, dtype=np.uint64)
            add_at(total, classes.ravel(), mix(sums.ravel() + salt(18, axis)))

    def _follow_parts(self) -> None:
        """Composites over full products gather their parts' colours and give them theirs."""
        for composites, parts in self.solution.derived:
            for k in range(parts.shape[1]):
                others = np.zeros(len(parts), np.uint64)
                for j in range(parts.shape[1]):
                    if j != k:
                        others = mix(others + self.colour[parts[:, j]])
                total = np.zeros(len(self.colour), np.uint64)
                add_at(total, parts[:, k], mix(others + self.colour[composites]))
                touched = np.unique(parts[:, k])
                touched = touched[self.moving[touched]]
                self.colour[touched] = mix(self.colour[touched] + total[touched])
            whole = self.colour[composites]
            for j in range(parts.shape[1]):
                whole = mix(whole + self.colour[parts[:, j]])
            self.colour[composites] = whole

    def _gather(self, orbit: Orbit, members: Ids, number: int) -> Words:
        """Colour of each component [b, k] of an orbit, given its units [b, k, s]; pushed back to the units."""
        loose = np.ones(orbit.members.shape[1], bool)
        inner = []
        for child in orbit.children:
            loose[child.members] = False
            inner.append(members[..., child.members].reshape(-1, *child.members.shape))
        columns = np.flatnonzero(loose)
        own = self.colour[members[..., columns]]
        total = mix(own + mix(columns.astype(np.uint64) + salt(19))).sum(-1, dtype=np.uint64)
        for c, (child, part) in enumerate(zip(orbit.children, inner, strict=True)):
            colours = self._gather(child, part, number)
            total = total + mix(colours + salt(20, c)).sum(-1, dtype=np.uint64).reshape(total.shape)
        total = mix(total)
        flat = members.reshape(-1, members.shape[-1])
        self.colour[flat] = mix(self.colour[flat] + total.reshape(-1, 1))
        return total

    # -- ties ---------------------------------------------------------------------------------------

    def _tied(self) -> Ids | None:
        """The units of one sibling whose colour another has, unless the two are true twins; None if none is."""
        for orbit in self.solution.orbits:
            found = self._tied_in(orbit, orbit.members[None])
            if found is not None:
                return found
        return None

    def _tied_in(self, orbit: Orbit, members: Ids) -> Ids | None:
        for block in members:
            key = self._keys(orbit, block)
            order = np.argsort(key, kind="stable")
            ranked = key[order]
            starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
            for group in np.split(order, starts[1:]):
                if len(group) > 1 and not self._twins(block[group], orbit):
                    return block[group[0]]
            for child in orbit.children:
                found = self._tied_in(child, block[:, child.members].reshape(-1, *child.members.shape))
                if found is not None:
                    return found
        return None

    def _keys(self, orbit: Orbit, block: Ids) -> Words:
        """One word per component of an orbit: its units' colours, nested ones as sets."""
        nested = np.zeros(block.shape[1], bool)
        for child in orbit.children:
            nested[child.members] = True
        columns = np.arange(block.shape[1]).astype(np.uint64)
        columns[nested] = 0
        return mix(self.colour[block] + mix(columns + salt(21))).sum(1, dtype=np.uint64)

    def _twins(self, group: Ids, orbit: Orbit) -> bool:
        """Whether exchanging any two of the components [k, s] changes no entry."""
        if orbit.children:
            return False
        column = np.full(self.solution.count, -1, np.int64)
        for row in group:
            column[row] = np.arange(group.shape[1])
        for site in self.sites:
            axes = [a for a, c in site.classes.items() if (column[c] >= 0).any()]
            if len(axes) > 1 or any(not self._alike(site, a, column, len(group)) for a in axes):
                return False
        return True

    def _alike(self, site: _Site, axis: int, column: Ids, count: int) -> bool:
        """Whether the slices of equal columns are equal entry by entry along a parameter axis."""
        classes = site.classes[axis]
        if classes.size != classes.shape[axis]:
            return False
        place = column[classes.ravel()]
        for c in np.unique(place[place >= 0]):
            slices = np.take(site.words, np.flatnonzero(place == c), axis)
            line = np.zeros(1, np.uint64)
            if axis not in site.classes:
                return False
            if not (slices == np.take(slices, [0], axis) + line).all():
                return False
        return True

    # -- result -------------------------------------------------------------------------------------

    def _motion(self) -> Ids:
        """Every component goes to the slot of its rank among its siblings."""
        motion = np.arange(self.solution.count)
        for orbit in self.solution.orbits:
            source, target = _sorted(orbit, orbit.members, self._keys)
            motion[source] = target
        return self.solution.extend(motion)


def _start(colour: Words, orbit: Orbit, members: Ids) -> None:
    """First colours inside an orbit: the column, shared by the siblings of nested orbits."""
    columns = np.arange(members.shape[-1]).astype(np.uint64)
    for number, child in enumerate(orbit.children):
        columns[child.members] = salt(22, number)
    colour[members] = mix(colour[members] + columns)
    for child in orbit.children:
        _start(colour, child, members[..., child.members].reshape(-1, *child.members.shape))


Keys = Callable[[Orbit, Ids], NDArray[Any]]


def _sorted(orbit: Orbit, members: Ids, keys: Keys) -> tuple[Ids, Ids]:
    """The motion (from, to) that sorts the components `members` [k, s] of an orbit, inner ones first."""
    source, target = [], []
    rank = np.empty(len(members), np.int64)
    rank[np.argsort(keys(orbit, members), kind="stable")] = np.arange(len(members))
    for row, slot in zip(members, rank, strict=True):
        place = np.arange(members.shape[1])
        for child in orbit.children:
            here, there = _sorted(child, row[child.members], keys)
            where = {int(u): k for k, u in enumerate(row)}
            for a, b in zip(here.tolist(), there.tolist(), strict=True):
                place[where[a]] = where[b]
        source.append(row)
        target.append(members[slot][place])
    return np.concatenate(source), np.concatenate(target)


def _bits(array: NDArray[Any]) -> Words:
    """The bits of each entry as a word; -0 counts as 0."""
    kind = array.dtype
    if kind.itemsize > 8:
        raise TypeError(f"entries of {kind} are wider than 64 bits")
    plain = np.ascontiguousarray(array)
    if kind.kind == "f":
        plain = plain + np.zeros((), kind)
    return _stir(plain.view(f"u{kind.itemsize}").astype(np.uint64))


def _stir(words: Words) -> Words:
    """A cheaper `mix` for whole parameters: one multiply-xor round on each side."""
    words = words * GOLDEN
    words ^= words >> np.uint64(32)
    words *= np.uint64(0xD6E8FEB86659FD93)
    words ^= words >> np.uint64(29)
    return words


# -- presentation -----------------------------------------------------------------------------------


def _present(
    model: Model,
    symmetry: Symmetry,
    motion: Ids,
    key: Callable[[NDArray[Any]], NDArray[Any]],
    *,
    outgoing: bool,
) -> Ids:
    """Sort every orbit by a key of its slices of one parameter, one orbit after the other."""
    orbits = list(enumerate(symmetry.solution.orbits))
    homes = _homes(symmetry, outgoing=outgoing)
    orbits.sort(key=lambda item: homes[item[0]][0] if homes[item[0]] else -1, reverse=outgoing)
    names = list(symmetry.classes)
    for number, orbit in orbits:
        home = homes[number]
        if home is None:
            continue
        name, axis = names[home[0]], home[1]
        array = _move(model.tensor(name), symmetry._indices(name, motion))
        rows, slices = _rows(symmetry.classes[name][axis], array.astype(np.float64))

        def keys(_: Orbit, members: Ids, rows: Ids = rows, slices: NDArray[Any] = slices) -> NDArray[Any]:
            picked = [rows[u] for u in members.ravel()]
            width = max((len(p) for p in picked), default=0)
            if width == 0:
                return np.arange(len(members))
            table = [
                np.concatenate([slices[p].ravel() for p in line])
                for line in _chunks(picked, members.shape[1])
            ]
            length = max(len(t) for t in table)
            return _ranks(key(np.stack([np.pad(t, (0, length - len(t))) for t in table])))

        source, target = _sorted(orbit, orbit.members, keys)
        step = np.arange(symmetry.solution.count)
        step[source] = target
        motion = symmetry.solution.extend(step)[motion]
    return motion


def _chunks(items: Sequence[Ids], width: int) -> list[Sequence[Ids]]:
    return [items[k : k + width] for k in range(0, len(items), width)]


def _rows(classes: Ids, array: NDArray[Any]) -> tuple[list[Ids], NDArray[Any]]:
    """Slices of an array per position of an axis (and its context): for each class its rows, and the slices."""
    led = [k for k, n in enumerate(classes.shape) if n > 1]
    rest = [k for k in range(classes.ndim) if k not in led]
    table = array.transpose(led + rest).reshape(classes.size, -1)
    flat = classes.transpose(led + rest).ravel()
    order = np.argsort(flat, kind="stable")
    ends = np.searchsorted(flat[order], np.arange(int(flat.max()) + 2))
    empty = np.zeros(0, np.int64)
    rows = [order[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)]
    return _Lookup(rows, empty), table  # type: ignore[return-value]


class _Lookup:
    """Rows per class; classes beyond the table have none."""

    def __init__(self, rows: list[Ids], empty: Ids) -> None:
        self.rows, self.empty = rows, empty

    def __getitem__(self, u: int) -> Ids:
        return self.rows[u] if u < len(self.rows) else self.empty


def _homes(symmetry: Symmetry, *, outgoing: bool) -> list[tuple[int, int] | None]:
    """Per orbit the parameter (by number) and axis that present it: the first matrix that holds its units, or
    the second for keys that read outgoing weights; vectors only where there is nothing else."""
    owner = np.full(symmetry.solution.count, -1, np.int64)
    for number, orbit in enumerate(symmetry.solution.orbits):
        owner[orbit.members] = number
    found: list[list[tuple[int, int]]] = [[] for _ in symmetry.solution.orbits]
    vectors: list[list[tuple[int, int]]] = [[] for _ in symmetry.solution.orbits]
    for place, (name, classes) in enumerate(symmetry.classes.items()):
        wide = len(symmetry.trace.parameters[name].shape) > 1
        for axis, rows in classes.items():
            for number in np.unique(owner[rows]):
                if number >= 0:
                    (found if wide else vectors)[number].append((place, axis))
    out: list[tuple[int, int] | None] = []
    for matrices, rest in zip(found, vectors, strict=True):
        options = matrices or rest
        later = [o for o in options if o[0] != options[0][0]] if options else []
        out.append((later[0] if outgoing and later else options[0]) if options else None)
    return out


def _ranks(key: NDArray[Any]) -> NDArray[Any]:
    """Keys as numbers to sort by; rows of a matrix compare lexicographically."""
    if key.ndim == 1:
        return key
    _, inverse = np.unique(key, axis=0, return_inverse=True)
    return inverse.reshape(-1)


def _by_norm(model: Model, symmetry: Symmetry, motion: Ids, *, outgoing: bool) -> Ids:
    """Sort siblings by norms, largest first: of the slice that presents them, then of every other slice.

    After a real-valued choice of scale the norms carry rounding noise, so a near tie is left to the next norm.
    """
    sums = _power_sums(model, symmetry)
    names = list(symmetry.classes)
    for orbit, home in zip(symmetry.solution.orbits, _homes(symmetry, outgoing=outgoing), strict=True):
        first = [] if home is None else [(names[home[0]], home[1])]
        rows = [sums[site] for site in [*first, *(s for s in sums if s not in first)]]
        touched = [r for r in rows if r[:, orbit.members].any()]

        def keys(_: Orbit, members: Ids, touched: list[NDArray[Any]] = touched) -> NDArray[Any]:
            table = [row[power, members].sum(-1) for power in (0, 1) for row in touched]
            return _near_ranks(table) if table else np.arange(len(members))

        slots = np.arange(symmetry.solution.count)
        source, target = _sorted(orbit, orbit.members, _placed(keys, motion, len(slots)))
        slots[source] = target
        motion = symmetry.solution.extend(slots)[motion]
    return motion


def _placed(keys: Keys, motion: Ids, count: int) -> Keys:
    """Keys of the units that `motion` has brought to the given slots."""
    origin = np.empty(count, np.int64)
    origin[motion] = np.arange(count)
    return lambda orbit, members: keys(orbit, origin[members])


def _power_sums(model: Model, symmetry: Symmetry) -> dict[tuple[str, int], NDArray[Any]]:
    """Per parameter axis Σ w² and Σ w⁴ of each class's slice, float64 [2, classes]."""
    out = {}
    for name, axes in symmetry.classes.items():
        if not axes:
            continue
        squares = model.tensor(name).astype(np.float64) ** 2
        for axis, rows in axes.items():
            rest = tuple(k for k, n in enumerate(rows.shape) if n == 1 and squares.shape[k] > 1)
            out[name, axis] = np.stack(
                [
                    np.bincount(rows.ravel(), v.sum(rest).ravel(), symmetry.solution.count)
                    for v in (squares, squares**2)
                ]
            )
    return out


def _near_ranks(table: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Ranks by the first key, largest first; keys nearer to each other than rounding explains share a cluster,
    which the next key orders. The width of a cluster is chosen where no gap is close to it."""
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
    return next((w for w in options if not ((gaps > w / 1.3) & (gaps < w * 1.3)).any()), options[-1])


def _by_entries(slices: NDArray[Any]) -> NDArray[Any]:
    """Rows compared entry by entry."""
    return slices


def _by_digits(slices: NDArray[Any], base: float) -> NDArray[Any]:
    """The projection Σ w_j p^j of Sorensen (2020), scaled so that it cannot overflow: only the leading digits
    count in floating point anyway."""
    j = np.arange(slices.shape[1], dtype=np.float64)
    return slices @ np.power(float(base), np.maximum(j - j[-1], -1000.0))
