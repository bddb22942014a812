"""Which powers of two can be multiplied into a model's parameters without losing a bit."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from onnxcanon.arrays import Floats, Ids
from onnxcanon.canonical.parallel import for_each
from onnxcanon.canonical.scaled_axes import Mask, scaled_axes
from onnxcanon.model import Model
from onnxcanon.symmetry import Symmetry

SMALLEST_EXPONENT = {4: -149, 8: -1074}
"""The exponent of the smallest subnormal, by size of the type in bytes."""


def lowest_bit(values: Floats) -> Floats:
    """The exponent of the lowest bit set in each number; inf for zero.

    >>> lowest_bit(np.array([12.0, 0.75, 0.0]))
    array([ 2., -2., inf])
    """
    mantissa, exponent = np.frexp(values)
    whole = np.abs(mantissa * 2.0**53).astype(np.int64)
    with np.errstate(divide="ignore"):
        out = np.log2((whole & -whole).astype(np.float64)) + exponent - 53
    out[values == 0] = np.inf
    return out


class ExponentRanges:
    """Between which powers of two the entries of each parameter lie; each parameter is read once."""

    def __init__(self, model: Model, symmetry: Symmetry) -> None:
        self.model, self.symmetry = model, symmetry
        self._ranges: dict[str, tuple[int, int] | None] = {}

    def stay_normal(self, name: str, levels: Iterable[Ids]) -> bool:
        """Whether powers of two, given by their exponents for each axis, leave all entries of a parameter
        within the normal numbers of single precision: then no bit can be lost."""
        up = down = 0
        for exponents in levels:
            up += max(int(exponents.max(initial=0)), 0)
            down += min(int(exponents.min(initial=0)), 0)
        if up == down == 0:
            return True
        self.read([name])
        bounds = self._ranges[name]
        return bounds is not None and bounds[0] + down > 0 and bounds[1] + up < 255

    def read(self, names: Iterable[str]) -> None:
        """Read several parameters at once, those that were not read yet."""
        unread = [name for name in names if name not in self._ranges]
        self._ranges.update(zip(unread, for_each(unread, self._exponents), strict=True))

    def _exponents(self, name: str) -> tuple[int, int] | None:
        """The smallest and the largest biased exponent of entries in single precision, zeros aside."""
        smallest, largest = (1 << 32) - 1, 0
        for _, block in self.symmetry.blocks(self.model, name):
            if block.dtype != np.float32:
                return None
            shifted = np.ascontiguousarray(block).view(np.uint32) << np.uint32(1)  # without the sign
            largest = max(largest, int(shifted.max(initial=0)))
            shifted -= np.uint32(1)  # zero becomes the largest
            smallest = min(smallest, int(shifted.min(initial=smallest)))
        return (smallest + 1) >> 24, largest >> 24


def exact_exponents(ranges: ExponentRanges, t: Floats) -> tuple[Floats, list[str]]:
    """Exponents with those taken back whose powers of two would overflow or lose bits to subnormals."""
    t = t.copy()
    count = 0
    while (lossy := lossy_freedoms(ranges, t) & (t != 0)).any():
        count += int(lossy.sum())
        t[lossy] = 0
    note = f"{count} units keep their scale: a power of two would leave the range of their type"
    return t, [note] if count else []


def lossy_freedoms(ranges: ExponentRanges, t: Floats) -> Mask:
    """The freedoms that act on an entry which the exponents t do not bring back exactly."""
    model, symmetry = ranges.model, ranges.symmetry
    lossy = np.zeros(len(t), bool)
    actions = symmetry.action(None, t).actions
    ranges.read(
        name for name, action in actions.items() if any((f != 1).any() for f in action.factor.values())
    )
    for name, action in actions.items():
        if ranges.stay_normal(name, [np.frexp(f)[1] - 1 for f in action.factor.values()]):
            continue
        array = symmetry.read(model, name)
        with np.errstate(invalid="ignore"):
            changed = (action.inverse()(action(array)) != array) & np.isfinite(array)
        if changed.any():
            for site in scaled_axes(symmetry.scale, symmetry.exponents[name]):
                lossy[site.freedoms_at(changed)] = True
    return lossy
