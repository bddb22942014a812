"""The gains of one orbit's exchanges, kept between visits.

A table holds what putting component y of one model in the place of component x of the other gains. When
another orbit exchanges some of its components, only the columns of the shared parameters that these fill
change, so the table changes by the product of the reference's columns with the differences: late in a search
few units move, and this is far less than computing it again. When the orbit's own components are exchanged,
so are the table's columns.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxcanon.action import Action
from onnxcanon.alignment.assignment import Choice, Singles, assigned, weighed
from onnxcanon.alignment.incidence import Branch
from onnxcanon.arrays import Floats


class GainTable:
    """The table of an orbit in which nothing is nested: float32 [components of ours, components of theirs].

    `plain` holds the inner products of entries that keep their sign, `turning` those of entries that turn
    with their component's sign (None where there are none), `prices` the columns' of the last assignment.

    Args:
        branch: the orbit.
        ours: the parameters of the reference.
        theirs: those of the model whose components are exchanged.
    """

    def __init__(self, branch: Branch, ours: Mapping[str, Singles], theirs: Mapping[str, Singles]) -> None:
        self.branch, self.ours = branch, ours
        size = branch.orbit.size
        self.plain: Singles = np.zeros((size, size), np.float32)
        self.turning: Singles | None = None
        self.prices: Floats = np.zeros(size)
        self._add({name: (ours[name], theirs[name]) for name in {c.rows.name for c in branch.incidences}})

    def _add(self, pairs: Mapping[str, tuple[Singles, Singles]]) -> None:
        """Add the products of entries of some parameters."""
        for incidence in self.branch.incidences:
            if incidence.rows.name not in pairs:
                continue
            one, other = (incidence.components(array) for array in pairs[incidence.rows.name])
            for flips in (False, True):
                chosen = incidence.flips == flips
                if not chosen.any():
                    continue
                if flips and self.turning is None:
                    self.turning = np.zeros_like(self.plain)
                total = self.turning if flips and self.turning is not None else self.plain
                total += weighed(one, other, chosen)

    def best(self) -> tuple[Choice, float]:
        """The exchange of largest gain, and by how much it beats leaving all in place."""
        value = self.plain if self.turning is None else self.plain + np.abs(self.turning)
        source, self.prices = assigned(value, self.prices)
        places = np.arange(len(source))
        kept, flipped = self.plain.diagonal(), np.zeros(len(source), bool)
        if self.turning is not None:
            kept, flipped = kept + self.turning.diagonal(), self.turning[places, source] < 0
        gain = np.subtract(value[places, source], kept, dtype=np.float64).sum()
        return Choice(source[None, None], flipped[None, None]), float(gain)

    def take(self, choice: Choice) -> None:
        """Follow an exchange of the orbit's own components."""
        source, flipped = choice.source[0, 0], choice.flipped[0, 0]
        self.plain, self.prices = np.take(self.plain, source, 1), self.prices[source]
        if self.turning is not None:
            self.turning = np.take(self.turning, source, 1) * np.where(flipped, np.float32(-1), np.float32(1))

    def follow(self, name: str, action: Action, before: Singles, after: Singles) -> bool:
        """Follow what another orbit's exchange did to a parameter; False if it did more than to put other
        entries in some columns, so that the table has to be made anew."""
        axes = set(action.index) | set(action.factor)
        mine = {a for c in self.branch.incidences if c.rows.name == name for a in c.rows.axes}
        if len(axes) != 1 or axes & mine:
            return False
        (axis,) = axes
        changed = np.zeros(before.shape[axis], bool)
        for lines, still in ((action.index, np.arange(len(changed))), (action.factor, 1.0)):
            if axis in lines:
                if lines[axis].size != len(changed):
                    return False
                changed |= lines[axis].reshape(-1) != still
        places = np.flatnonzero(changed)
        one, old, new = (np.take(array, places, axis) for array in (self.ours[name], before, after))
        self._add({name: (one, new - old)})
        return True
