"""The product of spheres on which a model's weights lie once its scales are chosen (Pittorino et al. 2022).

The scale `unit` brings what a freedom multiplies at its home, the first parameter where its factor is the
only unknown one, to norm 1 together with the vectors that it alone multiplies: a unit's incoming weights and
its bias. These entries are the unit's sphere. Which ones they are follows from the symmetry, not from
operators: at a normalization it is the gain, which has a freedom of its own. All other entries of a tensor
(the last layer, layers whose units have no scale of their own) are one sphere for the tensor; its radius
stays free.

Angles and geodesics need no more than the inner product of two models' entries on each sphere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxcanon.arrays import Floats, Ids
from onnxcanon.canonical.sequential_scaling import Measure, SequentialScaling
from onnxcanon.comparison.metrics import wide
from onnxcanon.model import Model
from onnxcanon.symmetry import Symmetry
from onnxcanon.transform import Transform

LONE = -1
"""The owner of an entry that no unit has on its sphere."""


@dataclass(frozen=True, slots=True)
class Spheres:
    """The spheres that a model's tensors are cut into.

    Attributes:
        owner: for each tensor the number of each entry's sphere, int64, broadcasting against the tensor.
        count: how many spheres there are.
        units: how many of them belong to a unit; these are the first.
    """

    owner: Mapping[str, Ids]
    count: int
    units: int

    def products(self, a: Model, b: Model) -> Floats:
        """Σ a·b over the entries of each sphere, float64 [count]."""
        total = np.zeros(self.count)
        for name, owner in self.owner.items():
            x, y = wide(a.tensor(name)), wide(b.tensor(name))
            alike = tuple(axis for axis, size in enumerate(owner.shape) if size == 1)
            sums = np.real(x * y.conj()).sum(alike, keepdims=True)
            total += np.bincount(owner.ravel(), sums.ravel(), self.count)
        return total

    def angles(self, a: Model, b: Model) -> Floats:
        """The angle between two models on each sphere, float64 [count]; 0 where both are zero, and a right
        angle where one is."""
        return angles(self.products(a, a), self.products(b, b), self.products(a, b))


def angles(aa: Floats, bb: Floats, ab: Floats) -> Floats:
    """Angles from inner products."""
    size = np.sqrt(aa) * np.sqrt(bb)
    with np.errstate(invalid="ignore"):  # entries may be infinite, as those of masks
        cosine = np.divide(ab, size, out=np.where(aa + bb > 0, 0.0, 1.0), where=size > 0)
    return np.asarray(np.arccos(np.clip(cosine, -1, 1)))


def unit_scale(model: Model, symmetry: Symmetry) -> Transform:
    """The positive factors of the scale `unit`; no signs, which would undo an alignment."""
    return symmetry.action(None, _walked(model, symmetry).t)


def spheres(model: Model, symmetry: Symmetry, names: Sequence[str]) -> Spheres:
    """The spheres of the tensors of these names; those that the symmetry does not know have one each."""
    owners = {n: o for n, o in _owners(_walked(model, symmetry)).items() if (o != LONE).any()}
    known = np.unique(np.concatenate([np.zeros(0, np.int64), *(o[o != LONE] for o in owners.values())]))
    by_tensor: dict[str, Ids] = {}
    for name, owner in owners.items():
        numbered = np.where(owner == LONE, LONE, np.searchsorted(known, owner))
        by_tensor |= _members(symmetry, name, numbered)
    out, count = {}, len(known)
    for name in names:
        owner = by_tensor.get(name, np.full((1,) * len(model.tensor_info(name)[0]), LONE))
        if (owner == LONE).any():
            owner = np.where(owner == LONE, count, owner)
            count += 1
        out[name] = owner
    return Spheres(out, count, len(known))


def _walked(model: Model, symmetry: Symmetry) -> SequentialScaling:
    walk = SequentialScaling(model, symmetry, Measure(exact=False))
    walk.run()
    return walk


def _owners(walk: SequentialScaling) -> dict[str, Ids]:
    """For each parameter the freedom whose sphere an entry is on; the first one that comes has it."""
    shapes = {name: parameter.shape for name, parameter in walk.symmetry.trace.parameters.items()}
    owners = {name: np.full((1,) * len(shape), LONE) for name, shape in shapes.items()}
    determined = np.zeros((2, len(walk.t)), bool)  # by what they multiply, by what they divide
    for home in walk.anchors:
        mine = np.full(home.site.forms.shape[0], LONE)
        mine[home.positions] = home.freedoms
        owner, mine, *hidden = np.broadcast_arrays(
            owners[home.name], mine.reshape(home.site.shape), *(h for h in home.hidden if h.any())
        )
        seen = ~np.any(hidden, axis=0) if hidden else np.True_
        owners[home.name] = np.where((owner == LONE) & seen, mine, owner)
        determined[int(home.sign < 0), home.freedoms] = True
    for name in walk.biases:
        owners[name] = _bias(walk, name, determined, owners[name])
    return owners


def _bias(walk: SequentialScaling, name: str, determined: NDArray[np.bool_], owner: Ids) -> Ids:
    """The entries of a vector that one freedom alone acts on, in the way in which it was determined."""
    site = walk.axes[name][0]
    single = np.flatnonzero(np.diff(site.forms.indptr) == 1)
    first = site.forms.indptr[single]
    freedoms, signs = site.forms.indices[first], site.forms.data[first]
    counted = determined[(signs < 0).astype(np.int64), freedoms] & (np.abs(signs) == 1)
    out = np.broadcast_to(owner, site.shape).copy().reshape(-1)
    free = out[single] == LONE
    out[single[counted & free]] = freedoms[counted & free]
    return out.reshape(site.shape)


def _members(symmetry: Symmetry, name: str, owner: Ids) -> dict[str, Ids]:
    """The owners of a parameter, or of each member of a stack."""
    if name not in symmetry.stacks:
        return {name: owner}
    return {member: owner[k if len(owner) > 1 else 0] for k, member in enumerate(symmetry.stacks[name])}
