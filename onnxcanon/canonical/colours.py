"""Hash order: colours that weigh the parameters decide which siblings are equal, bit for bit.

Weighted colour refinement: each entry of each parameter hashes its bits together with the colours of the
units on all of its axes (positions, where an axis does not move) and adds the word to every one of these
units; colours then gather within each component of the group's tree. Sums modulo 2^64 do not depend on any
order, so colours move with the units. Siblings are sorted by colour. Siblings of equal colour are either true
twins (exchanging them changes no entry) or are told apart one at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.model import Model
from onnxcanon.symmetry.analysis import Symmetry
from onnxcanon.symmetry.constraints import Ids
from onnxcanon.symmetry.group import Orbit
from onnxcanon.symmetry.hashing import GOLDEN, Words, add_at, mix, salt

TRIALS = 4096
"""Cap on trials to tell siblings apart; beyond it they stay as stored, and a note says so."""

Keys = Callable[[Orbit, Ids], NDArray[Any]]
"""Keys of the components [k, s] of an orbit, to sort them by."""


KEPT = 1 << 25
"""Entries whose hashed bits are kept between rounds; those of larger models are read again each round."""


@dataclass(slots=True)
class _Site:
    """One parameter with moving units: its entries' hashed bits and the classes along its axes."""

    name: str
    number: int
    classes: dict[int, Ids]
    read: Callable[[str], NDArray[Any]]
    keep: bool
    kept: Words | None = None

    def words(self) -> Words:
        """The bits of each entry hashed with its position along axes that do not move."""
        if self.kept is not None:
            return self.kept
        array = self.read(self.name)
        words = _bits(array) + salt(14, self.number)
        for axis, n in enumerate(array.shape):
            if axis not in self.classes and n > 1:
                line = [1] * array.ndim
                line[axis] = n
                words = words + mix(np.arange(n, dtype=np.uint64) + salt(15, axis)).reshape(line)
        if self.keep:
            self.kept = words
        return words


class Colours:
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
        for derived in self.solution.derived:
            self.colour[derived.composites] = mix(derived.code.astype(np.uint64) + salt(13))
        self.sites = self._sites(model)

    def _sites(self, model: Model) -> list[_Site]:
        """The parameters some of whose units move."""
        all_classes = self.symmetry.classes
        chosen = {
            name: number
            for number, (name, classes) in enumerate(all_classes.items())
            if any(self.moving[c].any() for c in classes.values())
        }
        entries = sum(prod(self.symmetry.trace.parameters[name].shape) for name in chosen)
        keep = entries <= KEPT
        return [
            _Site(name, k, all_classes[name], partial(self.symmetry.read, model), keep)
            for name, k in chosen.items()
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
        words = site.words()
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
        for derived in self.solution.derived:
            composites, parts = derived.composites, derived.parts
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
                siblings: Ids = block[group]
                if len(group) > 1 and not self._twins(siblings, orbit):
                    return siblings
            for child in orbit.children:
                inner = block[order][:, child.members]
                found = self._tied_in(child, inner.reshape(-1, *child.members.shape))
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
        keys: Words = mix(self.colour[block] + mix(columns + salt(21))).sum(1, dtype=np.uint64)
        return keys

    def _twins(self, group: Ids, orbit: Orbit) -> bool:
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
        for derived in self.solution.derived:
            for k in range(derived.parts.shape[1]):
                columns = np.flatnonzero(np.isin(group[0], derived.parts[:, k]))
                rest = np.delete(derived.parts, k, 1)
                for c in columns:
                    found = [np.flatnonzero(derived.parts[:, k] == u) for u in group[:, c]]
                    keys = [np.lexsort((derived.code[r], *rest[r].T)) for r in found]
                    lines = [r[q] for r, q in zip(found, keys, strict=True)]
                    others = [np.column_stack([rest[x], derived.code[x]]) for x in lines]
                    if any(not np.array_equal(others[0], o) for o in others):
                        return None
                    group = np.concatenate([group, derived.composites[np.stack(lines)]], 1)
        return group

    def _alike(self, site: _Site, axis: int, column: Ids) -> bool:
        """Whether the slices of equal columns are equal entry by entry along a parameter axis."""
        classes = site.classes[axis]
        if classes.size != classes.shape[axis]:
            return False
        place = column[classes.ravel()]
        for c in np.unique(place[place >= 0]):
            slices = np.take(site.words(), np.flatnonzero(place == c), axis)
            if not (slices == np.take(slices, [0], axis)).all():
                return False
        return True

    # -- result -------------------------------------------------------------------------------------

    def _motion(self) -> Ids:
        """Every component goes to the slot of its rank among its siblings."""
        motion = np.arange(self.solution.count)
        for orbit in self.solution.orbits:
            source, target = sort_siblings(orbit, orbit.members, self._keys)
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


def sort_siblings(orbit: Orbit, members: Ids, keys: Keys) -> tuple[Ids, Ids]:
    """The motion (from, to) that sorts the components `members` [k, s] of an orbit, inner ones first."""
    source, target = [], []
    rank = np.empty(len(members), np.int64)
    rank[np.argsort(keys(orbit, members), kind="stable")] = np.arange(len(members))
    for row, slot in zip(members, rank, strict=True):
        place = np.arange(members.shape[1])
        for child in orbit.children:
            here, there = sort_siblings(child, row[child.members], keys)
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
