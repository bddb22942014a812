"""The element of the group that takes one model to another of the same structure.

Both models are brought to a form with scales and signs chosen (`unit`: by norms, which rounding hardly
moves), their units are matched there, and the three steps make one transform. It is then applied to the first
model and compared with the second, entry by entry (`tensor_differences`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxcanon.canonical.choose_scales import scaling
from onnxcanon.canonical.fingerprint import hash_form
from onnxcanon.comparison.correspondence import Pair, same_entries
from onnxcanon.comparison.tensor_differences import (
    Noise,
    TensorDifference,
    differences,
    unexplained_by_rounding,
)
from onnxcanon.comparison.unit_features import Read, UnitFeatures, match_units
from onnxcanon.model import Model
from onnxcanon.settings import DEFAULTS, Settings
from onnxcanon.symmetry import Symmetry, symmetry
from onnxcanon.transform import Transform

NEAREST_POWER = 2.0**-18
"""How near (as log2) an estimated factor is to a power of two that it is taken to be."""


@dataclass(frozen=True, slots=True)
class FoldedTensors:
    """Tensors that are not a model's own but computed from several of its.

    Attributes:
        pairs: which ones, in either model.
        measure: makes both models with every such entry replaced by how far it moves when the models' own
            weights move by one in the last place; called where nothing less explains the differences.
    """

    pairs: frozenset[Pair] = frozenset()
    measure: Callable[[], Noise] | None = None


@dataclass(frozen=True, slots=True)
class FittedMap:
    """The best map found between two models of the same structure.

    Attributes:
        transform: takes the first model as near to the second as was found.
        differences: what is left, by tensor.
        identical: whether the tensors are the same without any map, bit for bit.
        unexplained: whether entries of the models' own differ in a way that rounding does not explain,
            however small the differences are.
    """

    transform: Transform
    differences: list[TensorDifference]
    identical: bool = False
    unexplained: bool = False

    @property
    def exact(self) -> bool:
        """Whether the map leaves no difference."""
        return all(d.equal == d.entries for d in self.differences)

    @property
    def same(self) -> bool:
        """Whether the map leaves nothing but rounding."""
        return all(d.rounded for d in self.differences)

    @property
    def distance(self) -> float:
        """All differences in one number."""
        return sum(d.distance for d in self.differences)


def find_map(
    a: Model,
    b: Model,
    pairs: Sequence[Pair],
    settings: Settings = DEFAULTS,
    folded: FoldedTensors | None = None,
) -> FittedMap:
    """The best map from `a` to `b`, whose tensors correspond as `pairs` says.

    First none, then through both canonical forms, which is exact for twins by permutations, powers of two and
    signs, then by norms and features, which rounding does not mislead.

    Args:
        a: the first model.
        b: the second model.
        pairs: tensors and their counterparts.
        settings: the sizes of dynamic dimensions, and who follows the progress.
        folded: tensors that neither model holds as they are.
    """
    settings.progress("comparing parameters")
    identity = Transform({}, a.name)
    if all(same_entries(a, name, b, counterpart) for name, counterpart in pairs):
        return FittedMap(identity, differences(identity, a, b, pairs), identical=True)
    settings.progress("analyzing")
    ours, theirs = symmetry(a, settings.sizes), symmetry(b, settings.sizes)
    candidates = [identity]
    if same_symmetry(ours, theirs):
        settings.progress("comparing canonical forms")
        exact = _through_canonical_forms(a, b, ours, theirs)
        mapped = exact.apply(a)
        if all(np.array_equal(mapped.tensor(name), b.tensor(counterpart)) for name, counterpart in pairs):
            return FittedMap(exact, differences(exact, a, b, pairs))
        settings.progress("matching units")
        candidates = [approximate_map(a, b, ours, theirs), exact, identity]
    return _best(candidates, a, b, pairs, settings, folded or FoldedTensors())


def _best(
    candidates: Sequence[Transform],
    a: Model,
    b: Model,
    pairs: Sequence[Pair],
    settings: Settings,
    folded: FoldedTensors,
) -> FittedMap:
    """The first of some maps if it leaves nothing but rounding, else the one that leaves least."""
    noise = None

    def measured(transform: Transform) -> FittedMap:
        rest = differences(transform, a, b, pairs, folded.pairs, noise)
        unexplained = unexplained_by_rounding(rest)
        return FittedMap(
            transform, [_strict(d) for d in rest] if unexplained else rest, unexplained=unexplained
        )

    first = measured(candidates[0])
    if not first.same and folded.pairs and folded.measure is not None:
        settings.progress("measuring what rounding does to folded parameters")
        noise = folded.measure()
        first = measured(candidates[0])
    return first if first.same else min([first, *map(measured, candidates[1:])], key=lambda fit: fit.distance)


def _strict(difference: TensorDifference) -> TensorDifference:
    """Do not count unexplained entries as rounded, however small their differences are."""
    explained = difference.entries - difference.unexplained
    return replace(difference, within_rounding=min(difference.within_rounding, explained))


def _through_canonical_forms(a: Model, b: Model, ours: Symmetry, theirs: Symmetry) -> Transform:
    """To the first model's canonical form and back from the second's, which is the same for twins."""
    there, _ = hash_form(a, ours)
    back, _ = hash_form(b, theirs)
    return there.then(renamed(back.inverse(), theirs, ours))


def same_symmetry(a: Symmetry, b: Symmetry) -> bool:
    """Whether two groups are the same, number by number; they may differ where weights decide (a uniform
    tensor, a zero)."""
    if len(a.classes) != len(b.classes) or a.solution.count != b.solution.count:
        return False
    for freedom in ((a.scale, b.scale), (a.sign, b.sign)):
        if freedom[0].forms.shape != freedom[1].forms.shape or (freedom[0].forms != freedom[1].forms).nnz:
            return False
    for first, second in ((a.classes, b.classes), (a.exponents, b.exponents)):
        for ours, theirs in zip(first.values(), second.values(), strict=True):
            if ours.keys() != theirs.keys():
                return False
            if not all(np.array_equal(ours[axis], theirs[axis]) for axis in ours):
                return False
    return True


def renamed(transform: Transform, theirs: Symmetry, ours: Symmetry) -> Transform:
    """A transform of the second model, said of the first: parameters have the same numbers in both."""
    names = dict(zip(theirs.classes, ours.classes, strict=True))
    stacks = {names[name]: ours.stacks[names[name]] for name in transform.stacks}
    return Transform({names[name]: action for name, action in transform.actions.items()}, ours.model, stacks)


def approximate_map(a: Model, b: Model, ours: Symmetry, theirs: Symmetry) -> Transform:
    """The transform that takes `a` nearest to `b`, where both have the same group.

    It is exact up to rounding where the models are twins, a good alignment where they resemble each other.
    """
    scaled_a, _ = scaling(a, ours, "unit")
    scaled_b, _ = scaling(b, theirs, "unit")
    if ours.solution.tree:
        features = [
            UnitFeatures(symmetry, _scaled_reader(*parts)).refine()
            for parts in ((a, ours, scaled_a), (b, theirs, scaled_b))
            for symmetry in [parts[1]]
        ]
        moved = scaled_a.then(ours.action(match_units(ours, *features)))
    else:
        moved = scaled_a
    return snapped(moved.then(renamed(scaled_b.inverse(), theirs, ours)))


def _scaled_reader(model: Model, symmetry: Symmetry, scaled: Transform) -> Read:
    """Reads parameters scaled in single precision, which is enough to tell units apart."""

    def read(name: str) -> NDArray[np.float32]:
        array = symmetry.read(model, name)
        out = array.astype(np.float32)
        if name in scaled.actions:
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite matches nothing
                for factor in scaled.actions[name].factor.values():
                    out *= factor.astype(np.float32)
        model.drop_pages(array)
        return out

    return read


def snapped(transform: Transform) -> Transform:
    """With factors next to powers of two made exact; factors of one are left out."""
    actions = {}
    for name, action in transform.actions.items():
        factor = {axis: _snap(f) for axis, f in action.factor.items()}
        factor = {axis: f for axis, f in factor.items() if (f != 1).any()}
        if action.index or factor:
            actions[name] = replace(action, factor=factor)
    return Transform(actions, transform.model, {n: m for n, m in transform.stacks.items() if n in actions})


def _snap(factor: NDArray[np.float64]) -> NDArray[np.float64]:
    level = np.log2(np.abs(factor))
    near = np.abs(level - np.rint(level)) < NEAREST_POWER
    return np.where(near, np.copysign(np.exp2(np.rint(level)), factor), factor)
