"""Signatures: what a row of weights says of its unit whatever the order of all other units.

The entries of a row along axes whose units move are sorted, those along axes that stay are kept apart; of
long rows a few quantiles are enough. Two models whose weights differ by noise have nearly equal signatures,
so assigning units by them starts weight matching near its end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from onnxcanon.alignment.assignment import Singles
from onnxcanon.alignment.contacts import Branch, Rows
from onnxcanon.symmetry.analysis import Symmetry

QUANTILES = 32
"""Entries that are kept of a sorted row."""

MOST = 256
"""Numbers in the signature of a row; where axes that stay are larger, only the size along them is kept."""


def signatures(
    symmetry: Symmetry, branches: Sequence[Branch], weights: Mapping[str, Singles]
) -> dict[Rows, Singles]:
    """The signature of every row of every contact, float32 [rows, numbers]."""
    out: dict[Rows, Singles] = {}
    for branch in branches:
        for contact in branch.contacts:
            if contact.rows not in out:
                out[contact.rows] = _signature(symmetry, contact.rows, weights[contact.rows.name])
    return out


def _signature(symmetry: Symmetry, rows: Rows, array: Singles) -> Singles:
    classes, degrees = symmetry.classes[rows.name], symmetry.degrees[rows.name]
    moving = [
        a for a in rows.rest if a in classes and array.shape[a] > 1 and symmetry.moving[classes[a]].any()
    ]
    still = [a for a in rows.rest if a not in moving]
    shape = rows.count, prod(array.shape[a] for a in still), prod(array.shape[a] for a in moving)
    entries = array.transpose(*rows.axes, *still, *moving).reshape(shape)
    if any(symmetry.sign.forms[variables.ravel()].nnz for variables in degrees.values()):
        entries = np.abs(entries)
    if moving and shape[1] * min(QUANTILES, shape[2]) > MOST:
        entries = np.sqrt(np.square(entries).sum(1, keepdims=True))
    if not moving:
        return np.ascontiguousarray(entries.reshape(rows.count, -1))
    ordered = np.sort(entries, axis=-1)
    if shape[2] > QUANTILES:
        weight = np.float32(np.sqrt(shape[2] / QUANTILES))
        ordered = ordered[..., np.linspace(0, shape[2] - 1, QUANTILES).round().astype(int)] * weight
    return np.ascontiguousarray(ordered.reshape(rows.count, -1))
