"""The scales that bring one model nearest to another once its units are in place.

Minimizes the sum of squared differences over the exponents t of the scale freedoms: the entry at position i
of an axis is multiplied by 2^(forms_i · t). A parameter enters by two small tables only, its inner products
and squares summed over the axes that no scale acts on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxcanon.alignment.assignment import Singles
from onnxcanon.arrays import Floats
from onnxcanon.canonical.scaled_axes import ScaledAxis, scaled_axes
from onnxcanon.symmetry import Symmetry

FARTHEST = 4.0
"""The largest exponent, either way: units that share nothing with their counterparts would vanish."""

EVALUATIONS = 60


@dataclass(frozen=True, slots=True)
class _ScaledProducts:
    """A parameter: inner products and squares over its scaled positions, and the axes of these."""

    products: Floats
    squares: Floats
    sites: list[ScaledAxis]

    def cost(self, t: Floats, slope: Floats) -> float:
        """The squared difference, less what does not depend on t; its gradient is added to `slope`."""
        factor = np.ones(())
        for site in self.sites:
            factor = factor * np.exp2(site.exponents(t))
        linear, square = self.products * factor, self.squares * factor * factor
        steep = 2 * np.log(2) * (square - linear)
        for site in self.sites:
            others = tuple(k for k, n in enumerate(site.shape) if n == 1)
            slope += site.forms.T @ steep.sum(others, keepdims=True).ravel()
        return float((square - 2 * linear).sum())


def nearest_scale(symmetry: Symmetry, ours: Mapping[str, Singles], theirs: Mapping[str, Singles]) -> Floats:
    """The log2 of the scale freedoms that bring `theirs` nearest to `ours`, float64 [freedoms].

    Of four hidden units between two weights, two were scaled by 2 and by a half:

        >>> import onnx.parser
        >>> from onnxcanon.model import load
        >>> from onnxcanon.symmetry import symmetry
        >>> text = '''<ir_version: 8, opset_import: ["": 17]>
        ... mlp (float[N, 1] x) => (float[N, 1] y) <float[1, 4] w = {1,2,3,4}, float[4, 1] v = {1,1,1,1}>
        ... { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }'''
        >>> ours = {"w": np.array([[1, -2, 3, -4]], np.float32), "v": np.ones((4, 1), np.float32)}
        >>> factor = np.array([1, 2, 1, 0.5], np.float32)
        >>> theirs = {"w": ours["w"] * factor, "v": ours["v"] / factor[:, None]}
        >>> log2 = nearest_scale(symmetry(load(onnx.parser.parse_model(text))), ours, theirs)
        >>> log2.round(2).tolist() == [0, -1, 0, 1]
        True
    """
    from scipy.optimize import minimize

    found = (_table(symmetry, name, ours[name], theirs[name]) for name in theirs)
    tables = [table for table in found if table is not None]
    start = np.zeros(symmetry.scale.count)
    if not tables:
        return start
    size = sum(float(table.squares.sum()) for table in tables) or 1.0

    def cost(t: Floats) -> tuple[float, Floats]:
        slope = np.zeros_like(t)
        return sum(table.cost(t, slope) for table in tables) / size, slope / size

    bounds, options = [(-FARTHEST, FARTHEST)] * len(start), {"maxfun": EVALUATIONS}
    best = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.asarray(best.x if best.fun < cost(start)[0] else start)


def _table(symmetry: Symmetry, name: str, ours: Singles, theirs: Singles) -> _ScaledProducts | None:
    sites = scaled_axes(symmetry.scale, symmetry.exponents[name])
    if not sites:
        return None
    wide = np.broadcast_shapes(*(site.shape for site in sites))
    rest = tuple(k for k, n in enumerate(wide) if n == 1 and ours.shape[k] > 1)
    products = np.multiply(ours, theirs, dtype=np.float64).sum(rest, keepdims=True)
    squares = np.square(theirs, dtype=np.float64).sum(rest, keepdims=True)
    return _ScaledProducts(products, squares, sites)
