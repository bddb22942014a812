"""Orbit after orbit, as the graph makes their units, each placed by its incoming weights alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxcanon.alignment.assignment import Singles
from onnxcanon.alignment.flow import Flow
from onnxcanon.alignment.incidence import Branch, Rows
from onnxcanon.alignment.weight_matching import SWEEPS, Matching
from onnxcanon.text import plural


@dataclass(frozen=True, slots=True)
class OrbitFeatures:
    """What the components of an orbit are compared by: rows of both models, and whether by distance."""

    ours: dict[Rows, Singles]
    theirs: dict[Rows, Singles]
    near: bool = False


def in_order(
    matching: Matching, flow: Flow, features: Callable[[int, Branch], OrbitFeatures | None]
) -> tuple[str, ...]:
    """Place the units of all orbits, earlier ones first; what to know about it.

    Args:
        matching: both models; theirs is moved.
        flow: the graph.
        features: for an orbit and its incidences with incoming weights, whose other units are in place, what
            the components are compared by; None where that says nothing: those orbits are then matched by
            all their weights.
    """
    placed, rest = 0, []
    signed = np.zeros(matching.symmetry.sign.count, bool)  # which signs are known to agree
    for k in flow.order:
        names = flow.incoming(k)
        branch = matching.branches[k]
        known = {c.rows for c in branch.incidences if c.rows.name in names}
        branch = branch.only({rows for rows in known if not matching.unplaced(rows, placed)})
        found = features(k, branch) if branch.incidences else None
        if found is None or not _compares_all_levels(branch.only(found.ours.keys())):
            rest.append(k)
            matching.place(k, placed, signed)
        else:
            branch = branch.only(found.ours.keys())
            own = signed.copy()
            own[branch.all_signs()] = True
            unsure = {rows for rows in found.ours if matching.unsure(rows, own)}
            ours, theirs = (
                {rows: np.abs(m) if rows in unsure else m for rows, m in side.items()}
                for side in (found.ours, found.theirs)
            )
            matching.assign(k, branch, ours, theirs, near=found.near, unsigned=unsure)
            signed |= own & (len(unsure) < len(ours))
        placed |= 1 << k
    matching.turn(guess=not signed.all())
    for _ in range(SWEEPS):
        gained = [k for k in rest if matching.visit(k)]
        if not gained:
            break
    if not rest:
        return ()
    return (
        f"no layer that the method knows makes {plural(len(rest), 'group')} of units: matched by weights",
    )


def _compares_all_levels(branch: Branch) -> bool:
    """Whether incidences are left of an orbit and of all inside it."""
    return all(level.incidences for level, _ in branch.levels())
