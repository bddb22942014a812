"""The average of models whose units change places, kept in arrays: a step of annealing.

The parameters that may move are inputs of a graph that is opened once; an exchange of two components writes
the rows that it touches. Other numbers per unit, such as statistics, may move with a parameter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxcanon.alignment.frame import Frame
from onnxcanon.alignment.incidence import Branch
from onnxcanon.alignment.weight_matching import Matching
from onnxcanon.arrays import Arrays, Ids
from onnxcanon.graph.element_types import AVERAGED
from onnxcanon.runtime.sessions import Session
from onnxcanon.runtime.weights.as_inputs import input_tensors, open_with_inputs
from onnxcanon.solving.group import WreathNode
from onnxcanon.transform import Transform


@dataclass(frozen=True, slots=True)
class SwapSet:
    """Components that may change places two by two: an orbit of the tree, all copies of it.

    Attributes:
        size: how many components change places.
        members: their unit classes, int64 [copies · components, columns].
        rows: for each parameter they touch the entries of every component, [copies · components, entries].
    """

    size: int
    members: Ids
    rows: list[tuple[str, Ids]]


@dataclass(frozen=True, slots=True)
class MovingModel:
    """A model that moves.

    Attributes:
        frame: it and the reference.
        matching: both in the frame.
        start: the element that it starts from.
        weight: what it contributes to the average.
    """

    frame: Frame
    matching: Matching
    start: Transform
    weight: float


@dataclass(frozen=True, slots=True)
class CompanionTensor:
    """Numbers per unit that are averaged and move as a parameter does, such as the statistics of its layer.

    Attributes:
        name: the input of the graph that takes their average.
        host: the parameter, of as many entries in the same order; one that is stacked with others hosts
            none, and the numbers stay.
        each: those of the reference, then of every model that moves, where it starts.
    """

    name: str
    host: str
    each: Sequence[NDArray[Any]]


class GraphRepair(Protocol):
    """What a graph does to itself before its outputs are judged."""

    @property
    def companions(self) -> Sequence[CompanionTensor]:
        """The inputs that it needs."""

    def insert_into(self, proto: onnx.ModelProto) -> None:
        """Put it into a graph."""


class AnnealingState:
    """The average of the reference and the models that move, as exchanges have made them.

    Attributes:
        source: for each model which unit class, by its place at the start, is now in the place of each;
            [models, classes].
        swap_sets: what may be exchanged.
        inputs: what changes, by the names of the graph: parameters and companions; views of the average.
    """

    def __init__(
        self, moving_models: Sequence[MovingModel], companions: Sequence[CompanionTensor] = ()
    ) -> None:
        frame = moving_models[0].frame
        self.moving_models, self.frame, self.symmetry = moving_models, frame, frame.ours
        self._rest = 1 - sum(moving.weight for moving in moving_models)
        self.source = np.tile(np.arange(self.symmetry.solution.count), (len(moving_models), 1))
        self.swap_sets = list(self._swap_sets(companions))
        self._sizes = np.array([len(swap_set.members) for swap_set in self.swap_sets], float)
        self._companions = {companion.name: companion for companion in companions}
        names = {name for swap_set in self.swap_sets for name, _ in swap_set.rows} | set(self._companions)
        self._factor = {name: self._scale(name) for name in names}
        self._reference = {name: self._given(name).reshape(-1) for name in names}
        self._average = {name: array.copy() for name, array in self._reference.items()}
        self.put([moving.start for moving in moving_models])
        self.inputs: Arrays = {}
        for name in names:
            whole = self._average[name].reshape(self._given(name).shape)
            members = self.symmetry.stacks.get(name)
            self.inputs |= {name: whole} if members is None else dict(zip(members, whole, strict=True))

    def _given(self, name: str) -> NDArray[Any]:
        """What the reference has."""
        companion = self._companions.get(name)
        return self.symmetry.read(self.frame.reference, name) if companion is None else companion.each[0]

    def _scale(self, name: str) -> NDArray[np.float64]:
        """What leads from the frame back to the scale of the reference, for every entry."""
        companion, home = self._companions.get(name), self.frame.scalings[0].inverse()
        known = name if companion is None else companion.host
        if known not in home.actions:
            return np.ones(self._given(name).size)
        return home.actions[known](np.ones(self.symmetry.trace.parameters[known].shape)).reshape(-1)

    def put(self, found: Sequence[Transform]) -> None:
        """Take the models as elements of the group make them; companions are those of the start."""
        self._moved: list[dict[str, NDArray[Any]]] = []
        for k, (moving, element) in enumerate(zip(self.moving_models, found, strict=True)):
            moved = {}
            for name in self._reference:
                companion = self._companions.get(name)
                if companion is None:
                    array, host = moving.matching.start[name], name
                else:
                    array, host = self._values_in_frame(companion, 1 + k), companion.host
                action = element.actions.get(host)
                if action is not None:  # statistics change places as their host does, but not their signs
                    array = (action if companion is None else replace(action, factor={}))(array)
                moved[name] = np.array(array).reshape(-1)
            self._moved.append(moved)
        for name in self._reference:
            self._write(name, slice(None))

    def _values_in_frame(self, companion: CompanionTensor, k: int) -> NDArray[Any]:
        """The numbers of a model in the frame, in the shape of their carrier."""
        parameter = self.symmetry.trace.parameters.get(companion.host)
        array = companion.each[k].reshape(-1) / self._factor[companion.name]
        return array if parameter is None else array.reshape(parameter.shape)

    def _write(self, name: str, entries: Ids | slice) -> None:
        """Average anew; always from all models, so that twice the same exchange is none to the last bit."""
        factor = self._factor[name][entries]
        total = self._rest * self._reference[name][entries]
        for moving, moved in zip(self.moving_models, self._moved, strict=True):
            total = total + moving.weight * (moved[name][entries] * factor)
        self._average[name][entries] = total

    def draw(self, rng: np.random.Generator) -> tuple[int, SwapSet, int, int]:
        """Two components of a model at random that may change places."""
        moving = int(rng.integers(len(self.moving_models)))
        swap_set = self.swap_sets[rng.choice(len(self.swap_sets), p=self._sizes / self._sizes.sum())]
        block = int(rng.integers(len(swap_set.members) // swap_set.size)) * swap_set.size
        one, other = rng.choice(swap_set.size, 2, replace=False).tolist()
        return moving, swap_set, block + one, block + other

    def exchange(self, moving: int, swap_set: SwapSet, one: int, other: int) -> None:
        """Exchange two components of a model; twice is not at all."""
        pair, turned = [one, other], [other, one]
        source, moved = self.source[moving], self._moved[moving]
        source[swap_set.members[pair]] = source[swap_set.members[turned]]
        for name, rows in swap_set.rows:
            moved[name][rows[pair]] = moved[name][rows[turned]]
        for name, rows in swap_set.rows:
            self._write(name, rows[pair].reshape(-1))

    def _swap_sets(self, companions: Sequence[CompanionTensor]) -> Iterator[SwapSet]:
        """The orbits whose parameters can be inputs of the graph, and which a swap of rows exchanges."""
        able = input_tensors(self.frame.reference)
        stacks, matching = self.symmetry.stacks, self.moving_models[0].matching
        for branch, quadratic in zip(matching.branches, matching.quadratic, strict=True):
            names = [c.rows.name for c in branch.incidences]
            if not names or not able.issuperset(n for name in names for n in stacks.get(name, (name,))):
                continue
            if quadratic and len(set(names)) == len(names):  # some entries belong to two components at once
                continue
            for swap_set in _cut(branch):
                carried = [
                    (r.name, rows) for name, rows in swap_set.rows for r in companions if r.host == name
                ]
                yield replace(swap_set, rows=[*swap_set.rows, *carried])

    def session(self, device: str, repair: GraphRepair | None = None) -> Session:
        """The graph of the reference, opened with the average for weights, those that change as inputs."""
        reference = self.frame.reference
        others = [moving.frame.spelled(moving.frame.element(moving.start)) for moving in self.moving_models]
        fixed = {}
        for name in reference.tensor_names():
            if name not in self.inputs and reference.tensor_info(name)[1] in AVERAGED:
                ours = reference.tensor(name)
                total = self._rest * ours.astype(np.result_type(ours, np.float32))
                for moving, other in zip(self.moving_models, others, strict=True):
                    total = total + moving.weight * other.tensor(name).astype(total.dtype)
                fixed[name] = total.astype(ours.dtype)
        fed = [name for name in self.inputs if name not in self._companions]
        insert_into = None if repair is None else partial(self._insert, repair)
        return open_with_inputs(
            reference.with_tensors(fixed), fed, device=device, optimize=True, change=insert_into
        )

    def _insert(self, repair: GraphRepair, proto: onnx.ModelProto) -> None:
        """Give the graph its companions and the repair that reads them."""
        for name in self._companions:
            array = self.inputs[name]
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            proto.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
        repair.insert_into(proto)


def _cut(branch: Branch) -> Iterator[SwapSet]:
    """A tree of orbits as single ones."""
    entries = {
        c.rows: c.rows.matrix(np.arange(int(np.prod(c.rows.shape))).reshape(c.rows.shape))
        for c in branch.incidences
    }
    members = list(_members(branch.orbit, branch.orbit.members))
    for (swap_set, found), classes in zip(branch.levels(), members, strict=True):
        rows = [
            (c.rows.name, entries[c.rows][which].reshape(len(which), -1))
            for c, which in zip(swap_set.incidences, found, strict=True)
        ]
        yield SwapSet(swap_set.orbit.size, classes, rows)


def _members(orbit: WreathNode, members: Ids) -> Iterator[Ids]:
    """The unit classes of an orbit's components, [components of all blocks, columns], and of those inside."""
    yield members
    for child in orbit.children:
        yield from _members(child, members[:, child.members].reshape(-1, child.members.shape[1]))


def inverse(source: Ids) -> Ids:
    """Where each class went, from where each came."""
    image = np.empty_like(source)
    image[source] = np.arange(len(source))
    return image
