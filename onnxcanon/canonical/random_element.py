"""A random element of a model's group, which leads to an equivalent model without losing a bit."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from onnxcanon.canonical.exact_scaling import ExponentRanges, exact_exponents
from onnxcanon.model import Model
from onnxcanon.symmetry import Symmetry
from onnxcanon.transform import Transform


def random_element(
    model: Model, symmetry: Symmetry, seed: int, only: Collection[str] = ("permute", "scale", "sign")
) -> Transform:
    """A random transform: uniform permutations and signs, scales 2^-3 … 2^3 where no bit is lost."""
    rng = np.random.default_rng(seed)
    permutation = symmetry.solution.random(rng) if "permute" in only else None
    exponents = None
    if "scale" in only:
        drawn = rng.integers(-3, 4, symmetry.scale.count).astype(np.float64)
        exponents, _ = exact_exponents(ExponentRanges(model, symmetry), drawn)
    flips = rng.integers(0, 2, symmetry.sign.count) if "sign" in only else None
    return symmetry.action(None, exponents, flips).then(symmetry.action(permutation))
