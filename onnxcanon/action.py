"""Action: what one element of a model's group does to one parameter.

W'[j] = F(j) · W[s(j)]. The source position s has one index array per moved axis, the factor F one array per
scaled axis; each array broadcasts against the parameter's shape, so the permutation of an axis may depend on
the position along others (its context: the head, the expert). Indices refer to the context's *target*
position.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.arrays import Rows, row_blocks
from onnxcanon.errors import TransformError
from onnxcanon.results import Brief

Index = NDArray[np.int64]
Factor = NDArray[np.float64]


@dataclass(frozen=True, slots=True, repr=False)
class Action(Brief):
    """What a transform does to one parameter of the given shape.

    Three units of two weights each: rows come from rows 2, 0 and 1, then the columns are scaled. Followed by
    its inverse nothing moves, and all factors are 1.

    >>> action = Action((3, 2), {0: np.array([[2], [0], [1]])}, {1: np.array([[2.0, 0.5]])})
    >>> action(np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])).tolist()
    [[6.0, 15.0], [2.0, 5.0], [4.0, 10.0]]
    >>> nothing = action.then(action.inverse())
    >>> nothing.index, nothing.factor
    ({}, {1: array([[1., 1.]])})

    Attributes:
        shape: the parameter's shape.
        index: per moved axis the source position of every position, int64.
        factor: per scaled axis what the entries are multiplied by, float64.
    """

    shape: tuple[int, ...]
    index: Mapping[int, Index] = field(default_factory=dict)
    factor: Mapping[int, Factor] = field(default_factory=dict)

    def __call__(self, array: NDArray[Any]) -> NDArray[Any]:
        """F(j) · W[s(j)], in the dtype of `array`; -0 becomes 0 where factors act."""
        out = move(array, self.index)
        if not self.factor:
            return out
        with np.errstate(over="ignore", under="ignore"):
            power = self._power(array.dtype)
            scaled: NDArray[Any]
            if power is not None:
                scaled = np.multiply(out, power, out=power if power.shape == out.shape else None)
            else:
                wide = out.astype(np.float64)  # one rounding at the end, none for powers of two in range
                for factor in self.factor.values():
                    wide = wide * factor
                scaled = wide.astype(array.dtype)
        scaled += np.zeros((), array.dtype)
        return scaled

    def blocks(self, array: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """The result of a call, some rows (along axis 0) at a time."""
        order = self.index.get(0)
        if not self.shape or (order is not None and order.size != len(order)):
            yield self(array)
            return
        rest = {axis: rows for axis, rows in self.index.items() if axis}
        for here in row_blocks(self.shape):
            part = array[here] if order is None else array.take(order.ravel()[here], 0, mode="clip")
            yield Action(part.shape, _rows_of(rest, here), _rows_of(self.factor, here))(part)

    def _power(self, dtype: np.dtype[Any]) -> NDArray[Any] | None:
        """All factors in one, in the type of the entries, if they are powers of two that it holds: a product
        is then rounded once, as in double precision."""
        levels = [np.frexp(factor) for factor in self.factor.values()]
        if dtype != np.float32 or any((np.abs(m) != 0.5).any() for m, _ in levels):
            return None
        if sum(int(np.abs(e).max(initial=0)) + 1 for _, e in levels) > 120:
            return None
        whole: NDArray[Any] = np.ones([1] * len(self.shape), dtype)
        for factor in sorted(self.factor.values(), key=lambda factor: factor.shape[0]):
            whole = spread(whole, self.shape) * factor.astype(dtype)
        return spread(whole, self.shape)

    def then(self, later: Action) -> Action:
        """The action of `later` after this one."""
        index = {a: move(i, later.index) for a, i in self.index.items()}
        for axis, i in later.index.items():
            index.setdefault(axis, i)
        factor = {a: move(f, later.index) for a, f in self.factor.items()}
        for axis, f in later.factor.items():
            factor[axis] = factor[axis] * f if axis in factor else f
        return Action(self.shape, tidy_index(index), factor)

    def member(self, k: int) -> tuple[int, Action]:
        """Of an action on a stack: which member the k-th comes from, and the action on that."""
        source = int(self.index[0].ravel()[k]) if 0 in self.index else k

        def row(array: NDArray[Any]) -> NDArray[Any]:
            return np.asarray(array[k if array.shape[0] > 1 else 0])

        index = {a - 1: row(i) for a, i in self.index.items() if a > 0}
        factor = {a - 1: row(f) for a, f in self.factor.items() if a > 0}
        return source, Action(self.shape[1:], tidy_index(index), factor)

    def inverse(self) -> Action:
        """The action that undoes this one."""
        index: dict[int, Index] = {}
        for axis in by_context(self.index):
            rows = np.argsort(self.index[axis], axis=axis)
            index[axis] = move(rows, index)
        factor = {a: 1.0 / move(f, index) for a, f in self.factor.items()}
        return Action(self.shape, index, factor)


def by_context(index: Mapping[int, Index]) -> list[int]:
    """Axes ordered so that each comes after the axes its indices depend on."""
    rest, out = dict(index), []
    while rest:
        ready = [a for a, i in rest.items() if not any(i.shape[b] > 1 for b in rest if b != a)]
        if not ready:
            raise TransformError("the index arrays of a parameter depend on each other in a circle")
        for axis in ready:
            out.append(axis)
            del rest[axis]
    return out


def move(array: NDArray[Any], index: Mapping[int, Index]) -> NDArray[Any]:
    """array[s(j)] for an array that broadcasts against the parameter (axes of size 1 stay)."""
    for axis in by_context(index):
        rows = index[axis]
        if array.shape[axis] == 1:
            continue
        if rows.size == rows.shape[axis]:
            array = np.take(array, rows.ravel(), axis, mode="clip")  # a permutation; no need to check again
            continue
        around = [n if k != axis else 1 for k, n in enumerate(rows.shape)]
        wide = np.broadcast_shapes(
            tuple(n if k != axis else 1 for k, n in enumerate(array.shape)), tuple(around)
        )
        array = np.broadcast_to(array, [array.shape[axis] if k == axis else n for k, n in enumerate(wide)])
        rows = np.broadcast_to(rows, [rows.shape[axis] if k == axis else n for k, n in enumerate(wide)])
        array = np.take_along_axis(array, rows, axis)
    return array


def rows_of(array: NDArray[Any], here: Rows) -> NDArray[Any]:
    """Some rows (along axis 0) of an array that broadcasts against a parameter."""
    return array[here] if array.shape[0] > 1 else array


def spread(factor: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A factor that broadcasts against a parameter, repeated along all axes but the first if it varies along
    one of them: numpy is slow where it has to repeat along the last axes itself."""
    if factor.size == factor.shape[0] or factor.shape[1:] == shape[1:]:
        return factor
    return np.array(np.broadcast_to(factor, (factor.shape[0], *shape[1:])), order="C")


def _rows_of(arrays: Mapping[int, NDArray[Any]], here: Rows) -> dict[int, NDArray[Any]]:
    return {axis: rows_of(array, here) for axis, array in arrays.items()}


def tidy_index(index: Mapping[int, Index]) -> dict[int, Index]:
    """Without the indices that move nothing."""
    out = {}
    for axis, rows in index.items():
        shape = [1] * rows.ndim
        shape[axis] = rows.shape[axis]
        if (rows != np.arange(rows.shape[axis]).reshape(shape)).any():
            out[axis] = rows
    return out
