"""Distances between models of one structure, by weights alone.

- ``raw``        Euclidean, between the learned weights as they are stored.
- ``canonical``  the same between canonical forms (scale `balanced`, order `norm`).
- ``aligned``    the same between the canonical form of the earlier model and that of the later one aligned to
                 it, so that it does not matter how they are stored.
- ``spherical``  on the product of spheres (Pittorino et al. 2022), the later model aligned, both in the scale
                 `unit`: the root of the sum over all spheres of the squared angle, the length of a geodesic.
                 A unit's incoming weights are one sphere; what is no unit's, one for each tensor.

All but the first see models up to permutation, scale and sign: twins are at distance 0, up to rounding and to
how well they were aligned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onnxcanon.alignment import align
from onnxcanon.canonical import canonicalize
from onnxcanon.choices import Method
from onnxcanon.comparison.metrics import squared
from onnxcanon.errors import OnnxcanonError
from onnxcanon.landscape.spheres import spheres, unit_scale
from onnxcanon.merging.averaging import expressed_in
from onnxcanon.model import Model
from onnxcanon.results import Result
from onnxcanon.settings import DEFAULTS, Settings
from onnxcanon.symmetry import symmetry
from onnxcanon.text import table
from onnxcanon.weights import learned_names

Matrix = tuple[tuple[float, ...], ...]

DISTANCE_KINDS = {
    "raw": "as stored",
    "canonical": "between canonical forms",
    "aligned": "after alignment",
    "spherical": "angle over all spheres, after alignment",
}


@dataclass(frozen=True, slots=True, repr=False)
class Distances(Result):
    """Distances of models, pair by pair: symmetric matrices in the order of `models`.

    Attributes:
        models: the models.
        align: how each was aligned to those before it.
        entries: how many weights were compared.
        spheres: how many spheres they lie on.
        raw: Euclidean distances as stored.
        canonical: Euclidean distances of canonical forms.
        aligned: Euclidean distances after alignment.
        spherical: lengths of geodesics on the product of spheres, in radians.
    """

    models: tuple[str, ...]
    align: str
    entries: int
    spheres: int
    raw: Matrix
    canonical: Matrix
    aligned: Matrix
    spherical: Matrix

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON values."""
        matrices = {kind: [list(row) for row in getattr(self, kind)] for kind in DISTANCE_KINDS}
        return {**asdict(self), "models": list(self.models), **matrices}

    def __str__(self) -> str:
        numbers = [str(k) for k in range(1, len(self.models) + 1)]
        blocks = ["\n".join(f"{k}  {name}" for k, name in zip(numbers, self.models, strict=True))]
        for kind, meaning in DISTANCE_KINDS.items():
            rows = [["", *numbers]]
            for k, row in zip(numbers, getattr(self, kind), strict=True):
                rows.append([k, *(f"{number:.4f}" for number in row)])
            blocks.append(f"{kind} ({meaning})\n{table(rows, right=set(range(1, len(rows))))}")
        return "\n\n".join(blocks)


def distance(
    models: Sequence[Model],
    *,
    method: Method = "weights",
    settings: Settings = DEFAULTS,
) -> Distances:
    """Distances between all pairs of models.

    Args:
        models: two or more models of one structure.
        method: how a model is aligned to another.
        settings: how models run, where the method runs them.

    Raises:
        OnnxcanonError: the models have different structures, or there is only one.
    """
    if len(models) < 2:
        raise OnnxcanonError("distances are between models; name two or more")
    say = settings.progress
    first = models[0]
    group = symmetry(first, settings.sizes)
    names = learned_names(first, group)
    stored = [expressed_in(first, model) for model in models]
    forms = []
    for model in models:
        say(f"bringing {model.name} into canonical form")
        form = canonicalize(model, order="norm", scale="balanced", settings=Settings(settings.sizes))
        forms.append(expressed_in(first, form.model))
    upper = {kind: np.zeros((len(models), len(models))) for kind in DISTANCE_KINDS}
    count = 0
    for i, reference in enumerate(forms):
        scaled = unit_scale(reference, group).apply(reference)
        parts = spheres(reference, group, names)
        count = max(count, parts.count)
        for j in range(i + 1, len(models)):
            say(f"aligning {models[j].name} to {models[i].name}")
            aligned = align(reference, forms[j], method=method, scale="norms", settings=settings).model
            angles = parts.angles(scaled, unit_scale(aligned, group).apply(aligned))
            upper["raw"][i, j] = euclidean(stored[i], stored[j], names)
            upper["canonical"][i, j] = euclidean(reference, forms[j], names)
            upper["aligned"][i, j] = euclidean(reference, aligned, names)
            upper["spherical"][i, j] = np.sqrt((angles**2).sum())
    entries = sum(int(np.prod(first.tensor_info(name)[0], dtype=np.int64)) for name in names)
    matrices = {kind: tuple(map(tuple, (m + m.T).tolist())) for kind, m in upper.items()}
    return Distances(tuple(model.name for model in models), method, entries, count, **matrices)


def euclidean(a: Model, b: Model, names: Sequence[str]) -> float:
    """The Euclidean distance of some tensors of two models that share a graph."""
    return float(np.sqrt(squared(a, b, [(name, name) for name in names])[0]))
