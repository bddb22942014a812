"""Signatures: what a row of weights says of its unit whatever the order of other units.

The entries of a row along axes whose units are not placed yet are sorted, those along other axes are kept
apart; of long rows a few quantiles are enough. The distance of two signatures is at most that of the rows
once all units are placed. Two models whose weights differ by noise have nearly equal signatures, so assigning
units by them starts weight matching near its end.
"""

from __future__ import annotations

from collections.abc import Collection
from math import prod

import numpy as np

from onnxcanon.alignment.assignment import Singles
from onnxcanon.alignment.incidence import Rows

QUANTILES = 32
"""Entries that are kept of a sorted row."""

MOST = 256
"""Numbers in the signature of a row; where axes that are kept are larger, only the size along them is."""


def signature(rows: Rows, array: Singles, sorted_axes: Collection[int], *, unsigned: bool) -> Singles:
    """The signature of every row of a parameter, float32 [rows, numbers].

    Args:
        rows: which axes are rows.
        array: the parameter.
        sorted_axes: the axes along which the order of entries says nothing.
        unsigned: whether their signs say nothing either.

    Four units of three inputs whose order is not known yet:

        >>> weight = np.array([[3, -1, 2], [0, 5, 1], [2, 2, 2], [1, 0, -4]], np.float32)
        >>> signature(Rows("w", (0,), (4, 3)), weight, [1], unsigned=False).astype(int).tolist()
        [[-1, 2, 3], [0, 1, 5], [2, 2, 2], [-4, 0, 1]]
    """
    kept = [a for a in rows.rest if a not in sorted_axes]
    shape = rows.count, prod(array.shape[a] for a in kept), prod(array.shape[a] for a in sorted_axes)
    entries = array.transpose(*rows.axes, *kept, *sorted_axes).reshape(shape)
    if unsigned:
        entries = np.abs(entries)
    if not sorted_axes:
        return np.ascontiguousarray(entries.reshape(rows.count, -1))
    if shape[1] * min(QUANTILES, shape[2]) > MOST:
        entries = np.sqrt(np.square(entries).sum(1, keepdims=True))
    ordered = np.sort(entries, axis=-1)
    if shape[2] > QUANTILES:
        weight = np.float32(np.sqrt(shape[2] / QUANTILES))
        ordered = ordered[..., np.linspace(0, shape[2] - 1, QUANTILES).round().astype(int)] * weight
    return np.ascontiguousarray(ordered.reshape(rows.count, -1))


def length(rows: Rows, sorted_axes: Collection[int]) -> int:
    """How many numbers tell about a row, sorted entries less than others."""
    kept = prod(rows.shape[a] for a in rows.rest if a not in sorted_axes)
    return kept * min(QUANTILES, prod(rows.shape[a] for a in sorted_axes))
