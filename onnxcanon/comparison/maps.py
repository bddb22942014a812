"""The element of the group that takes one model to another of the same structure.

Both models are brought to a form with scales and signs chosen (`unit`: by norms, which rounding hardly
moves), their units are matched there, and the three steps make one transform. It is then applied to the first
model and held against the second, entry by entry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxcanon.arrays import Floats
from onnxcanon.canonical.choose_scales import scaling
from onnxcanon.canonical.fingerprint import hash_form
from onnxcanon.comparison.correspondence import Pair
from onnxcanon.comparison.unit_features import Read, UnitFeatures, match_units
from onnxcanon.model import Model
from onnxcanon.symmetry import Symmetry, symmetry
from onnxcanon.transform import Transform

Noise = tuple[Model, Model]

ROUNDING = 2.0**-20
"""What rounding may do to an entry that was multiplied by other factors than powers of two: this much of the
entry itself, whose factors are known from norms as exactly as single precision allows, and of the median
of its tensor, for terms may have cancelled where an exporter folded a rescaled normalization."""

CANCELLED = 4.0
"""How many times what a unit in the last place of its sources makes of an entry that we computed rounding may
make of it: it was rounded more than once."""

FEW_UNEXPLAINED, DENSE = 8, 1 / 4
"""Fewer entries than this that differ though the map multiplies them by powers of two were changed and not
rounded, and so were entries that are less than this part of the units they lie in: an exporter that folds
a rescaled normalization rounds the weights of whole units, and about half of them move."""

QUANTIZED_VALUES = 256
"""Different values that the entries of a quantized tensor have at most."""

CHUNK_ENTRIES = 1 << 17
"""Entries that are compared together."""

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
class TensorDifference:
    """How far a tensor of the first model, mapped, is from its counterpart in the second.

    Attributes:
        name: the tensor in the first model.
        counterpart: the tensor in the second.
        entries: how many it has.
        equal: how many of them are the same bit for bit (0 and -0 are).
        near: how many differ by no more than rounding.
        zeroed: how many are zero in the second model only.
        stray: how many differ though the map multiplies them by powers of two; of tensors that are not the
            models' own, but computed from several of them, none.
        filled: which part they are of the slices they lie in, one of each aside, along the axis where it is
            largest; None of a vector, whose slices are single entries.
        values: how many different values the second model's entries have, where they are so few that they
            look quantized; else 0.
        halved: whether the second model's entries fit into half precision and the first one's do not.
        largest: the largest difference of two entries, relative to the larger of them.
        distance: the root mean square of all differences, relative to that of the second tensor's entries.
    """

    name: str
    counterpart: str
    entries: int
    equal: int
    within_rounding: int
    zeroed: int
    largest: float
    distance: float
    unexplained: int = 0
    density: float | None = None
    values: int = 0
    fits_fp16: bool = False

    @property
    def rounded(self) -> bool:
        """Whether rounding explains all of the difference."""
        return self.within_rounding == self.entries


def same_symmetry(a: Symmetry, b: Symmetry) -> bool:
    """Whether two groups are the same, number by number; they may differ where weights decide (a uniform
    tensor, a zero)."""
    if len(a.classes) != len(b.classes) or a.solution.count != b.solution.count:
        return False
    for freedom in ((a.scale, b.scale), (a.sign, b.sign)):
        if freedom[0].forms.shape != freedom[1].forms.shape or (freedom[0].forms != freedom[1].forms).nnz:
            return False
    for one, other in ((a.classes, b.classes), (a.exponents, b.exponents)):
        for ours, theirs in zip(one.values(), other.values(), strict=True):
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


def differences(
    transform: Transform,
    a: Model,
    b: Model,
    pairs: Sequence[Pair],
    computed: frozenset[Pair] = frozenset(),
    noise: Noise | None = None,
) -> list[TensorDifference]:
    """Hold every tensor of `a`, transformed, against its counterpart in `b`; `computed` are those that we
    computed, and `noise` says how exactly, if that was measured."""
    mapped = transform.apply(a)
    unsure = None if noise is None else (transform.apply(noise[0]), noise[1])
    found = []
    for name, other in pairs:
        ours, theirs = mapped.tensor(name), b.tensor(other)
        allowed = np.zeros(theirs.size)
        if (name, other) not in computed:
            allowed += ROUNDING * _typical(theirs)
        elif unsure is not None:
            off = unsure[0].tensor(name), unsure[1].tensor(other)
            if off[0].size == off[1].size:
                for moved in off:
                    allowed += CANCELLED * np.abs(moved.astype(np.float64)).reshape(-1)
        one = _difference(name, other, ours, theirs, allowed)
        if one.equal < one.entries and (name, other) not in computed:
            factors = transform.apply(a.with_tensors({name: np.ones(ours.shape, ours.dtype)}))
            one = _with_unexplained(one, ours, theirs, factors.tensor(name))
        found.append(one)
    return found


def _with_unexplained(
    found: TensorDifference,
    ours: NDArray[np.generic],
    theirs: NDArray[np.generic],
    factors: NDArray[np.generic],
) -> TensorDifference:
    """The same, knowing the entries that differ though they are multiplied by powers of two."""
    if ours.shape != theirs.shape or ours.dtype.kind != "f" or ours.dtype != theirs.dtype:
        return replace(found, unexplained=found.entries - found.equal, density=1.0)
    exact = np.abs(np.frexp(factors)[0]) == 0.5
    stray = exact & (ours != theirs) & ~(np.isnan(ours) & np.isnan(theirs))
    return replace(found, unexplained=int(stray.sum()), density=_density(stray, theirs != 0))


def _density(chosen: NDArray[np.bool_], among: NDArray[np.bool_]) -> float | None:
    """Which part of the slices they lie in the chosen entries are, along the axis where it is largest.

    The one that makes a slice count is not counted itself: it would be much of a small one.
    """
    long = [axis for axis, n in enumerate(chosen.shape) if n > 1]
    if len(long) < 2:
        return None
    parts = [0.0]
    for axis in long:
        rest = tuple(k for k in range(chosen.ndim) if k != axis)
        count, size = (kept.sum(rest) - 1 for kept in (chosen, among | chosen))
        parts.append(float(count[count >= 0].sum() / max(1, size[count >= 0].sum())))
    return max(parts)


def _unexplained(found: Sequence[TensorDifference]) -> bool:
    """Whether rounding does not explain what differs in the models' own entries, however small it is: they
    are few, or all is small and they do not fill units. Vectors show no units; they follow other tensors."""
    apart = [d for d in found if d.unexplained]
    if sum(d.unexplained for d in apart) < FEW_UNEXPLAINED:
        return bool(apart)
    filled = [d.density for d in apart if d.density is not None]
    return min(filled, default=0.0) < DENSE and all(d.rounded for d in found)


def _typical(array: NDArray[np.generic]) -> float:
    """The median of the magnitudes, of a sample if there are many."""
    if array.dtype.kind != "f" or not array.size:
        return 0.0
    flat = array.reshape(-1)
    return float(np.median(np.abs(flat[:: -(-len(flat) // CHUNK_ENTRIES)])))


def _difference(
    name: str, other: str, ours: NDArray[np.generic], theirs: NDArray[np.generic], allowed: Floats
) -> TensorDifference:
    """Of two tensors whose entries may be `allowed` apart beside what rounding explains; chunk by chunk, so
    that what is computed stays in the processor's cache."""
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape or ours.dtype.kind not in "fV":
        equal = int((ours == theirs).sum()) if ours.shape == theirs.shape else 0
        whole = max(ours.size, theirs.size)
        return TensorDifference(
            name, other, whole, equal, equal, 0, float(equal < whole), float(equal < whole)
        )
    x, y = ours.reshape(-1), theirs.reshape(-1)
    total = _Accumulator()
    for start in range(0, len(x), CHUNK_ENTRIES):
        part = slice(start, start + CHUNK_ENTRIES)
        total.add(x[part], y[part], allowed[part])
    own = np.sqrt(total.size)
    distance = float(np.sqrt(total.apart) / own) if own else float(total.apart > 0)
    counts = x.size, total.equal, total.within_rounding, total.zeroed
    values, fits_fp16 = (
        (0, False) if total.within_rounding == x.size else _coarse(x[:CHUNK_ENTRIES], y[:CHUNK_ENTRIES])
    )
    return TensorDifference(name, other, *counts, total.largest, distance, values=values, fits_fp16=fits_fp16)


def _coarse(ours: NDArray[np.generic], theirs: NDArray[np.generic]) -> tuple[int, bool]:
    """How many values theirs are if they look quantized, and whether they alone fit into half precision."""
    before, after = len(np.unique(ours)), len(np.unique(theirs))
    with np.errstate(over="ignore"):
        halved = [bool((a.astype(np.float16).astype(a.dtype) == a).all()) for a in (ours, theirs)]
    return after if after <= QUANTIZED_VALUES and 2 * after < before else 0, halved == [False, True]


class _Accumulator:
    """What the chunks of two tensors add up to."""

    def __init__(self) -> None:
        self.equal = self.within_rounding = self.zeroed = 0
        self.largest = self.apart = self.size = 0.0

    def add(self, ours: NDArray[np.generic], theirs: NDArray[np.generic], allowed: Floats) -> None:
        """One more chunk; entries may be `allowed` apart beside what is relative to them."""
        x, y = ours.astype(np.float64), theirs.astype(np.float64)
        with np.errstate(invalid="ignore"):
            self.size += float(np.dot(y, y))
            same = (x == y) | (np.isnan(x) & np.isnan(y))
            self.equal += int(same.sum())
            if same.all():
                self.within_rounding += len(x)
                return
            apart = np.where(same, 0.0, np.abs(x - y))
            size = np.maximum(np.abs(x), np.abs(y))
            self.within_rounding += int((same | (apart <= ROUNDING * size + allowed)).sum())
            self.zeroed += int(((y == 0) & (x != 0)).sum())
            self.apart += float(np.dot(apart, apart))
            relative = np.divide(apart, size, out=np.zeros_like(apart), where=size > 0)
            self.largest = max(self.largest, float(relative.max()))


@dataclass(frozen=True, slots=True)
class FittedMap:
    """What holding one model against another of the same structure found.

    Attributes:
        transform: takes the first model as near to the second as was found.
        differences: what is left, by tensor.
        identical: whether the tensors are the same without any map, bit for bit.
        stray: whether entries of the models' own differ in a way that rounding does not explain, however
            small the differences are.
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
    say: Callable[[str], None],
    sizes: dict[str, int] | None = None,
    computed: FoldedTensors | None = None,
) -> FittedMap:
    """The best map found from `a` to `b`, whose tensors correspond as `pairs` says.

    First none, then through both canonical forms, which is exact for twins by permutations, powers of two and
    signs, then by norms and features, which rounding does not mislead. `computed` are tensors that neither
    model holds as they are.
    """
    say("comparing parameters")
    nothing = Transform({}, a.name)
    if all(_same_bytes(a, name, b, other) for name, other in pairs):
        return FittedMap(nothing, differences(nothing, a, b, pairs), identical=True)
    say("analyzing")
    ours, theirs = symmetry(a, sizes), symmetry(b, sizes)
    tried = [nothing]
    if same_symmetry(ours, theirs):
        say("comparing canonical forms")
        exact = _through_canonical_forms(a, b, ours, theirs)
        mapped = exact.apply(a)
        if all(np.array_equal(mapped.tensor(name), b.tensor(other)) for name, other in pairs):
            return FittedMap(exact, differences(exact, a, b, pairs))
        say("matching units")
        tried = [approximate_map(a, b, ours, theirs), exact, nothing]
    return _best(tried, a, b, pairs, say, computed or FoldedTensors())


def _best(
    tried: Sequence[Transform],
    a: Model,
    b: Model,
    pairs: Sequence[Pair],
    say: Callable[[str], None],
    computed: FoldedTensors,
) -> FittedMap:
    """The first of some maps if it leaves nothing but rounding, else the one that leaves least."""
    noise = None

    def held(transform: Transform) -> FittedMap:
        found = differences(transform, a, b, pairs, computed.pairs, noise)
        stray = _unexplained(found)
        return FittedMap(transform, [_strict(d) for d in found] if stray else found, unexplained=stray)

    found = held(tried[0])
    if not found.same and computed.pairs and computed.measure is not None:
        say("measuring what rounding does to folded parameters")
        noise = computed.measure()
        found = held(tried[0])
    return found if found.same else min([found, *map(held, tried[1:])], key=lambda m: m.distance)


def _strict(difference: TensorDifference) -> TensorDifference:
    """The same, with stray entries not counted as near."""
    return replace(
        difference,
        within_rounding=min(difference.within_rounding, difference.entries - difference.unexplained),
    )


def _same_bytes(a: Model, name: str, b: Model, other: str) -> bool:
    one, two = a.tensor(name), b.tensor(other)
    if one.dtype != two.dtype or one.shape != two.shape:
        return False
    if one.dtype.kind == "O":
        return bool((one == two).all())
    ours, theirs = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (one, two))
    return np.array_equal(ours, theirs)


def _through_canonical_forms(a: Model, b: Model, ours: Symmetry, theirs: Symmetry) -> Transform:
    there, _ = hash_form(a, ours)
    back, _ = hash_form(b, theirs)
    return there.then(renamed(back.inverse(), theirs, ours))
