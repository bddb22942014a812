"""The bits of a parameter's entries as words, at chosen positions, for hashing them into colours."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.action import Action
from onnxcanon.arrays import Ids, Shape, Words
from onnxcanon.model import Model
from onnxcanon.solving.hashing import GOLDEN, mix, salt
from onnxcanon.symmetry import Symmetry
from onnxcanon.transform import Transform

Picks = dict[int, Ids]
"""Positions to look at, by axis; all where an axis has none."""


class MovingParameter:
    """One parameter with moving units: its entries, scaled as a transform without permutations says, and the
    unit classes along its axes."""

    def __init__(
        self, model: Model, symmetry: Symmetry, scaled: Transform, name: str, number: int, *, cached: bool
    ) -> None:
        self.number = number
        self.shape: Shape = symmetry.trace.parameters[name].shape
        self.classes = symmetry.classes[name]
        self._read = partial(symmetry.read, model, name)
        action = scaled.actions.get(name)
        self._factor = {} if action is None else action.factor
        self._cached = cached
        self._cache: NDArray[Any] | None = None

    def words(self, picks: Picks) -> Words:
        """The bits of the picked entries, hashed with their positions along axes that do not move."""
        words = entry_words(self._entries(picks)) + salt(14, self.number)
        for axis, n in enumerate(self.shape):
            if axis not in self.classes and n > 1:
                line = [1] * len(self.shape)
                line[axis] = -1
                positions = picks.get(axis, np.arange(n)).astype(np.uint64)
                words = words + mix(positions + salt(15, axis)).reshape(line)
        return words

    def along(self, axis: int, picks: Picks) -> Ids:
        """The classes along an axis, at the picked positions."""
        rows = self.classes[axis]
        for k, positions in picks.items():
            if rows.shape[k] > 1:
                rows = rows.take(positions, k)
        return rows

    def _entries(self, picks: Picks) -> NDArray[Any]:
        if not self._cached:
            return self._scaled(picks)
        if self._cache is None:
            self._cache = self._scaled({})
        return _take(self._cache, picks)

    def _scaled(self, picks: Picks) -> NDArray[Any]:
        array = _take(self._read(), picks)
        factor = {
            axis: _take(f, {k: p for k, p in picks.items() if f.shape[k] > 1})
            for axis, f in self._factor.items()
        }
        return Action(array.shape, {}, factor)(array)


def _take(array: NDArray[Any], picks: Picks) -> NDArray[Any]:
    """The picked positions of each axis, the axis that shrinks most first."""
    for axis, positions in sorted(picks.items(), key=lambda item: len(item[1]) / array.shape[item[0]]):
        if len(positions) < array.shape[axis] or (positions[1:] < positions[:-1]).any():
            array = array.take(positions, axis, mode="clip")
    return array


def entry_words(array: NDArray[Any]) -> Words:
    """The bits of each entry as a well mixed word; -0 counts as 0.

    Raises:
        TypeError: entries are wider than 64 bits.
    """
    kind = array.dtype
    if kind.itemsize > 8:
        raise TypeError(f"entries of {kind} are wider than 64 bits")
    plain = np.ascontiguousarray(array)
    if kind.kind == "f":
        plain = plain + np.zeros((), kind)
    return stir(plain.view(f"u{kind.itemsize}").astype(np.uint64))


def stir(words: Words) -> Words:
    """A cheaper `mix` for whole parameters: one multiply-xor round on each side."""
    words = words * GOLDEN
    words ^= words >> np.uint64(32)
    words *= np.uint64(0xD6E8FEB86659FD93)
    words ^= words >> np.uint64(29)
    return words
