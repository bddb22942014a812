"""Hash order: colours that weigh the parameters decide which siblings are equal, bit for bit.

Weighted colour refinement: each entry of each parameter hashes its bits together with the colours of the
units on all of its axes (positions, where an axis does not move) and adds the word to every one of these
units; colours then gather within each component of the group's tree. Sums modulo 2^64 do not depend on any
order, so colours move with the units. Siblings are sorted by colour. Siblings of equal colour are either true
twins (exchanging them changes no entry) or are told apart one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.arrays import Ids, Words
from onnxcanon.model import Model
from onnxcanon.solving.group import WreathNode
from onnxcanon.solving.hashing import GOLDEN, add_at, mix, salt
from onnxcanon.symmetry import Symmetry
from onnxcanon.transform import Action, Transform

TRIALS = 4096
"""Cap on trials to tell siblings apart; beyond it they stay as stored, and a note says so."""

Keys = Callable[[WreathNode, Ids], NDArray[Any]]
"""Keys of the components [k, s] of an orbit, to sort them by."""


CACHED_ENTRIES = 1 << 22
"""Entries that are kept between rounds; those of larger models are read again where they are needed."""

LIGHT_ENTRIES = 1 << 14
"""Entries up to which a parameter counts as light: these tell most units apart, and cost nothing."""

SAMPLED_POSITIONS = 16
"""Positions along the other axes of a heavy parameter that are looked at before all are."""

ALL_POSITIONS = 1 << 62


@dataclass(slots=True)
class _MovingParameter:
    """One parameter with moving units: its entries and the classes along its axes."""

    name: str
    number: int
    shape: tuple[int, ...]
    classes: dict[int, Ids]
    read: Callable[[dict[int, Ids]], NDArray[Any]]

    def words(self, picks: dict[int, Ids]) -> Words:
        """The bits of the entries at some positions per axis, hashed with their positions along axes that do
        not move."""
        words = _bits(self.read(picks)) + salt(14, self.number)
        for axis, n in enumerate(self.shape):
            if axis not in self.classes and n > 1:
                line = [1] * len(self.shape)
                line[axis] = -1
                positions = picks.get(axis, np.arange(n)).astype(np.uint64)
                words = words + mix(positions + salt(15, axis)).reshape(line)
        return words

    def along(self, axis: int, picks: dict[int, Ids]) -> Ids:
        """The classes along an axis, at some positions."""
        rows = self.classes[axis]
        for k, positions in picks.items():
            if rows.shape[k] > 1:
                rows = rows.take(positions, k)
        return rows


class _ScaledEntries:
    """The entries of a parameter at some positions per axis, scaled as a transform without motions says."""

    def __init__(self, model: Model, symmetry: Symmetry, scaled: Transform, name: str, keep: bool) -> None:
        self.read = partial(symmetry.read, model, name)
        action = scaled.actions.get(name)
        self.factor = {} if action is None else action.factor
        self.keep = keep
        self.kept: NDArray[Any] | None = None

    def __call__(self, picks: dict[int, Ids]) -> NDArray[Any]:
        """The entries at the picked positions of each axis, all of them where none are picked."""
        if self.keep:
            if self.kept is None:
                self.kept = self._scaled({})
            return _at(self.kept, picks)
        return self._scaled(picks)

    def _scaled(self, picks: dict[int, Ids]) -> NDArray[Any]:
        array = _at(self.read(), picks)
        factor = {
            axis: _at(f, {k: p for k, p in picks.items() if f.shape[k] > 1})
            for axis, f in self.factor.items()
        }
        return Action(array.shape, {}, factor)(array)


class Colours:
    """Colours of all unit classes, uint64 [classes]."""

    def __init__(self, model: Model, symmetry: Symmetry, scaled: Transform | None = None) -> None:
        self.symmetry, self.solution = symmetry, symmetry.solution
        self.notes: list[str] = []
        self.moving = symmetry.moving
        self.colour = np.arange(self.solution.count, dtype=np.uint64)  # fixed units: themselves
        self.colour = mix(self.colour + salt(11))
        for number, orbit in enumerate(self.solution.tree):
            self.colour[orbit.members] = salt(12, number)
            _start(self.colour, orbit, orbit.members[None])
        for dependent in self.solution.dependent:
            self.colour[dependent.products] = mix(dependent.code.astype(np.uint64) + salt(13))
        self.open = self.moving  # units that share their colour
        self.sites = self._sites(model, scaled or Transform({}))

    def _sites(self, model: Model, scaled: Transform) -> list[_MovingParameter]:
        """The parameters some of whose units move."""
        parameters = self.symmetry.trace.parameters
        chosen = {
            name: (number, classes)
            for number, (name, classes) in enumerate(self.symmetry.classes.items())
            if any(self.moving[c].any() for c in classes.values())
        }
        keep = sum(prod(parameters[name].shape) for name in chosen) <= CACHED_ENTRIES
        return [
            _MovingParameter(
                name,
                k,
                parameters[name].shape,
                classes,
                _ScaledEntries(model, self.symmetry, scaled, name, keep),
            )
            for name, (k, classes) in chosen.items()
        ]

    def run(self) -> Ids:
        """The motion that sorts siblings by colour."""
        self.refine()
        left = TRIALS
        while (tied := self._tied()) is not None:
            left -= len(tied)
            if left < 0:
                self.notes.append(
                    "some siblings could not be told apart within the limit; they stay as stored"
                )
                break
            self.colour = min(map(self._singled_out, tied), key=self._sum)
        return self._motion()

    def _singled_out(self, sibling: Ids) -> Words:
        """The colours refined after one sibling has got a colour of its own."""
        before = self.colour
        self.colour = before.copy()
        self.colour[sibling] = mix(before[sibling] + salt(16))
        self.refine()
        after, self.colour = self.colour, before
        return after

    def _sum(self, colour: Words) -> int:
        """A number that stays the same when units change places."""
        return int(mix(colour[self.moving]).sum(dtype=np.uint64))

    # -- refinement ---------------------------------------------------------------------------------

    def refine(self) -> None:
        """Take in the parameters until siblings are distinct or nothing changes.

        Light parameters first, then heavy ones at a few positions, then all of them; what is told apart
        already is not looked at again.
        """
        light = [site for site in self.sites if prod(site.shape) <= LIGHT_ENTRIES]
        for sites, sample in (
            (light, ALL_POSITIONS),
            (self.sites, SAMPLED_POSITIONS),
            (self.sites, ALL_POSITIONS),
        ):
            known = -1
            while (count := self._count()) > known:
                if not self.open.any():
                    return
                known = count
                self._round(sites, sample)

    def _count(self) -> int:
        """The number of colours of moving units; which units share theirs is noted in `open`."""
        units = np.flatnonzero(self.moving)
        _, index, counts = np.unique(self.colour[units], return_inverse=True, return_counts=True)
        self.open = np.zeros(len(self.colour), bool)
        self.open[units] = counts[index] > 1
        return len(counts)

    def _round(self, sites: Sequence[_MovingParameter], sample: int) -> None:
        total = self.colour.copy()
        for site in sites:
            for axis, rows in site.classes.items():
                picks = self._picks(site, axis, sample) if self.open[rows].any() else None
                if picks is not None:
                    self._contribute(site, axis, picks, total)
        self.colour = np.where(self.open, mix(total), self.colour)
        self._follow_parts()
        for number, orbit in enumerate(self.solution.tree):
            self._gather(orbit, orbit.members[None], number)

    def _picks(self, site: _MovingParameter, axis: int, sample: int) -> dict[int, Ids] | None:
        """The positions of a parameter to look at, to tell apart the units along an axis: theirs, and along
        other axes at most `sample` that are known apart; None where there are none."""
        rows = site.classes[axis]
        others = tuple(k for k in range(rows.ndim) if k != axis)
        picks: dict[int, Ids] = {axis: np.flatnonzero(self.open[rows].any(others))}
        for k, n in enumerate(site.shape):
            if k == axis or n <= sample or rows.shape[k] > 1:
                continue
            classes = site.classes.get(k)
            if classes is None:
                picks[k] = np.arange(sample)
                continue
            flat = classes.ravel()
            known = np.flatnonzero(~self.open[flat]) if len(flat) == n else flat[:0]
            if not len(known):
                return None
            picks[k] = known[np.argsort(self.colour[flat[known]], kind="stable")[:sample]]
        return picks

    def _contribute(self, site: _MovingParameter, axis: int, picks: dict[int, Ids], total: Words) -> None:
        words = site.words(picks)
        for k in site.classes:
            words = words + mix(self.colour[site.along(k, picks)] + salt(17, k))
        words = _stir(words)
        classes = site.along(axis, picks)
        rest = tuple(k for k, n in enumerate(classes.shape) if n == 1 and words.shape[k] > 1)
        sums = words.sum(rest, keepdims=True, dtype=np.uint64)
        add_at(total, classes.ravel(), mix(sums.ravel() + salt(18, axis)))

    def _follow_parts(self) -> None:
        """Composites over full products gather their parts' colours and give them theirs."""
        for dependent in self.solution.dependent:
            composites, parts = dependent.products, dependent.parts
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

    def _gather(self, orbit: WreathNode, members: Ids, number: int) -> Words:
        """Colour of each component [b, k] of an orbit, given its units [b, k, s]; the units take it in."""
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
        """Siblings [k, s] of equal colour that are no true twins; None if there are none."""
        for orbit in self.solution.tree:
            found = self._tied_in(orbit, orbit.members[None])
            if found is not None:
                return found
        return None

    def _tied_in(self, orbit: WreathNode, members: Ids) -> Ids | None:
        for block in members:
            key = self._keys(orbit, block)
            order = np.argsort(key, kind="stable")
            ranked = key[order]
            ends = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1], True])
            for k in np.flatnonzero(np.diff(ends) > 1):
                siblings: Ids = block[order[ends[k] : ends[k + 1]]]
                if not self._twins(siblings, orbit):
                    return siblings
            for child in orbit.children:
                inner = block[order][:, child.members]
                found = self._tied_in(child, inner.reshape(-1, *child.members.shape))
                if found is not None:
                    return found
        return None

    def _keys(self, orbit: WreathNode, block: Ids) -> Words:
        """One word per component of an orbit: its units' colours, nested ones as sets."""
        nested = np.zeros(block.shape[1], bool)
        for child in orbit.children:
            nested[child.members] = True
        columns = np.arange(block.shape[1]).astype(np.uint64)
        columns[nested] = 0
        keys: Words = mix(self.colour[block] + mix(columns + salt(21))).sum(1, dtype=np.uint64)
        return keys

    def _twins(self, group: Ids, orbit: WreathNode) -> bool:
        """Whether exchanging any two of the components [k, s] changes no entry."""
        whole = None if orbit.children else self._with_composites(group)
        if whole is None:
            return False
        column = np.full(self.solution.count, -1, np.int64)
        for row in whole:
            column[row] = np.arange(whole.shape[1])
        for site in self.sites:
            axes = [a for a, c in site.classes.items() if (column[c] >= 0).any()]
            if len(axes) > 1 or any(not self._alike(site, a, column) for a in axes):
                return False
        return True

    def _with_composites(self, group: Ids) -> Ids | None:
        """The components with the composites that follow them, aligned; None where they do not align."""
        for dependent in self.solution.dependent:
            for k in range(dependent.parts.shape[1]):
                columns = np.flatnonzero(np.isin(group[0], dependent.parts[:, k]))
                rest = np.delete(dependent.parts, k, 1)
                for c in columns:
                    found = [np.flatnonzero(dependent.parts[:, k] == u) for u in group[:, c]]
                    keys = [np.lexsort((dependent.code[r], *rest[r].T)) for r in found]
                    lines = [r[q] for r, q in zip(found, keys, strict=True)]
                    others = [np.column_stack([rest[x], dependent.code[x]]) for x in lines]
                    if any(not np.array_equal(others[0], o) for o in others):
                        return None
                    group = np.concatenate([group, dependent.products[np.stack(lines)]], 1)
        return group

    def _alike(self, site: _MovingParameter, axis: int, column: Ids) -> bool:
        """Whether the slices of equal columns are equal entry by entry along a parameter axis."""
        classes = site.classes[axis]
        if classes.size != classes.shape[axis]:
            return False
        place = column[classes.ravel()]
        for c in np.unique(place[place >= 0]):
            slices = site.words({axis: np.flatnonzero(place == c)})
            if not (slices == np.take(slices, [0], axis)).all():
                return False
        return True

    # -- result -------------------------------------------------------------------------------------

    def _motion(self) -> Ids:
        """Every component goes to the slot of its rank among its siblings."""
        motion = np.arange(self.solution.count)
        for orbit in self.solution.tree:
            source, target = sort_siblings(orbit, orbit.members, self._keys)
            motion[source] = target
        return self.solution.extend(motion)


def _start(colour: Words, orbit: WreathNode, members: Ids) -> None:
    """First colours inside an orbit: the column, shared by the siblings of nested orbits."""
    columns = np.arange(members.shape[-1]).astype(np.uint64)
    for number, child in enumerate(orbit.children):
        columns[child.members] = salt(22, number)
    colour[members] = mix(colour[members] + columns)
    for child in orbit.children:
        _start(colour, child, members[..., child.members].reshape(-1, *child.members.shape))


def sort_siblings(orbit: WreathNode, members: Ids, keys: Keys) -> tuple[Ids, Ids]:
    """The motion (from, to) that sorts the components `members` [k, s] of an orbit, inner ones first."""
    rank = np.empty(len(members), np.int64)
    rank[np.argsort(keys(orbit, members), kind="stable")] = np.arange(len(members))
    target = members[rank]
    for row, slot in zip(members, target, strict=True):
        by = np.argsort(row) if orbit.children else row
        for child in orbit.children:
            here, there = (
                by[np.searchsorted(row, units, sorter=by)]
                for units in sort_siblings(child, row[child.members], keys)
            )
            slot[here] = slot[there]
    return members.ravel(), target.ravel()


def _at(array: NDArray[Any], picks: dict[int, Ids]) -> NDArray[Any]:
    """Some positions per axis."""
    for axis, positions in sorted(picks.items(), key=lambda item: len(item[1]) / array.shape[item[0]]):
        if len(positions) < array.shape[axis] or (positions[1:] < positions[:-1]).any():
            array = array.take(positions, axis, mode="clip")
    return array


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
