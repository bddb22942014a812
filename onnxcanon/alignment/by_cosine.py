"""Cosine matching: units go where their incoming weights point in the direction of the reference's.

Both models are brought to the scale on which every unit has the norm 1, then the layers are taken in the
order of the graph: the units of one are assigned by the cosines of their incoming weights, biases included,
with all earlier ones in place and nothing looked at that comes later (Pittorino et al. 2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from onnxcanon.alignment.assignment import Singles
from onnxcanon.alignment.flow import Flow
from onnxcanon.alignment.frame import Frame
from onnxcanon.alignment.incidence import Branch, Rows
from onnxcanon.alignment.layers import OrbitFeatures, in_order
from onnxcanon.alignment.method import MethodResult
from onnxcanon.settings import Settings


def by_cosine(frame: Frame, settings: Settings) -> MethodResult:
    """The element that brings the incoming weights of all units nearest in direction, layer by layer."""
    matching = replace(frame, scale="unit").matching()
    flow = Flow(frame.ours)

    def features(k: int, branch: Branch) -> OrbitFeatures | None:
        settings.progress(f"matching cosines, {flow.order.index(k) + 1} of {len(flow.order)}")
        return OrbitFeatures(_directions(branch, matching.ours), _directions(branch, matching.moved))

    notes = in_order(matching, flow, features)
    return MethodResult(matching.transform, notes)


def _directions(branch: Branch, parameters: Mapping[str, Singles]) -> dict[Rows, Singles]:
    """The rows of an orbit's incidences; those of each component, at each level of nesting, of norm 1."""
    out = {c.rows: c.rows.matrix(parameters[c.rows.name]).copy() for c in branch.incidences}
    for level, found in branch.levels():
        loose = [(c.rows, rows[:, c.loose]) for c, rows in zip(level.incidences, found, strict=True)]
        total = sum((np.square(out[rows][which], dtype=np.float64).sum((1, 2)) for rows, which in loose), 0.0)
        norm = np.sqrt(np.where(total == 0, 1.0, total)).astype(np.float32)
        for rows, which in loose:
            out[rows][which] /= norm[:, None, None]
    return out
