"""Paths from one model to another of the same structure, θ(0) = A and θ(1) = B.

- ``linear``    θ(a) = (1-a) A + a B, every floating tensor, in double precision.
- ``geodesic``  both ends in the scale `unit`, then the great circle between them on each sphere (a unit's
                incoming weights and bias; what is no unit's, tensor by tensor). The direction is

                    [sin((1-a) φ) · A/|A| + sin(a φ) · B/|B|] / sin φ,    φ the angle between A and B,

                and the radius (1-a) |A| + a |B|. The shortest way on the product of spheres (Pittorino et al.
                2022). Where the ends are parallel, opposite or zero it is the straight line.

Both ends are functionally the models: A itself, or A rescaled within its orbit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.arrays import Floats
from onnxcanon.comparison.metrics import wide
from onnxcanon.errors import OnnxcanonError
from onnxcanon.landscape.spheres import (
    Spheres,
    angles,
    spheres,
    unit_scale,
)
from onnxcanon.merging.averaging import average
from onnxcanon.model import Model
from onnxcanon.symmetry import Symmetry, symmetry
from onnxcanon.weights import averaged_names

LINEAR, GEODESIC = PATHS = ("linear", "geodesic")

SMALLEST_SINE = 1e-7
"""Below it an arc and its chord are the same in double precision, or it has no direction (opposite ends)."""

Path = Callable[[float], Model]
"""The model at each a from 0 to 1."""


def path(kind: str, a: Model, b: Model, group: Symmetry | None = None) -> Path:
    """The path of a kind between two models that share a graph (`expressed_in`).

    Args:
        kind: one of `PATHS`.
        a: the model at 0.
        b: the model at 1.
        group: the symmetry of `a`, if it is known.

    Raises:
        OnnxcanonError: there is no such kind.
    """
    if kind not in PATHS:
        raise OnnxcanonError(f"there is no path '{kind}'; choose from {', '.join(PATHS)}")
    if kind == LINEAR:
        return partial(_straight, (cache_replacements(a), cache_replacements(b)))
    return _geodesic(a, b, group or symmetry(a))


def cache_replacements(model: Model) -> Model:
    """The model with its replaced tensors computed once and kept: a path reads them at every point."""
    floating = averaged_names(model)
    return model.with_tensors({name: model.tensor(name) for name in floating if name in model.replaced})


def _straight(ends: tuple[Model, Model], at: float) -> Model:
    return average(ends, (1 - at, at))


def _geodesic(a: Model, b: Model, group: Symmetry) -> Path:
    ends = (
        cache_replacements(unit_scale(a, group).apply(a)),
        cache_replacements(unit_scale(b, group).apply(b)),
    )
    parts = spheres(a, group, averaged_names(a))
    return _GreatCircles(
        ends, parts, *(parts.products(ends[i], ends[j]) for i, j in ((0, 0), (1, 1), (0, 1)))
    )


@dataclass(frozen=True, slots=True)
class _GreatCircles:
    """Great circles between two models on their spheres; the products are those of `Spheres`, by sphere.

    >>> circle = _GreatCircles(None, None, np.array([1.0]), np.array([1.0]), np.array([0.0]))  # a right angle
    >>> [float(factor[0].round(3)) for factor in circle._factors(0.5)]
    [0.707, 0.707]
    """

    ends: tuple[Model, Model]
    parts: Spheres
    aa: Floats
    bb: Floats
    ab: Floats

    def __call__(self, at: float) -> Model:
        if at in (0, 1):
            return self.ends[int(at)]
        factors = self._factors(at)
        owners = self.parts.owner
        return self.ends[0].with_tensors(
            {name: partial(self._interpolated, name, factors) for name in owners}
        )

    def _factors(self, at: float) -> tuple[Floats, Floats]:
        """What A and B are multiplied by, on each sphere."""
        norms = np.sqrt(self.aa), np.sqrt(self.bb)
        angle = angles(self.aa, self.bb, self.ab)
        sine = np.sin(angle)
        with np.errstate(divide="ignore", invalid="ignore"):
            radius = ((1 - at) * norms[0] + at * norms[1]) / sine
            arc = radius * np.sin((1 - at) * angle) / norms[0], radius * np.sin(at * angle) / norms[1]
        curved = (sine > SMALLEST_SINE) & np.isfinite(arc).all(0)
        return np.where(curved, arc[0], 1 - at), np.where(curved, arc[1], at)

    def _interpolated(self, name: str, factors: tuple[Floats, Floats]) -> NDArray[Any]:
        a, b = (end.tensor(name) for end in self.ends)
        by_sphere = [factor[self.parts.owner[name]] for factor in factors]
        return np.asarray(wide(a) * by_sphere[0] + wide(b) * by_sphere[1]).astype(a.dtype)
