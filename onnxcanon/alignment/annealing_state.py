"""The average of models whose units change places, kept in arrays: a step of annealing.

The parameters that may move are inputs of a graph that is opened once; an exchange of two components writes
the rows that it touches. Other numbers per unit, such as statistics, may ride along with a parameter.
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
class Piece:
    """An orbit of the tree, all copies of it.

    Attributes:
        size: how many components change places.
        members: their unit classes, int64 [copies · components, columns].
        rows: for each parameter they touch the entries of every component, [copies · components, entries].
    """

    size: int
    members: Ids
    rows: list[tuple[str, Ids]]


@dataclass(frozen=True, slots=True)
class Mover:
    """A model that moves.

    Attributes:
        frame: it and the reference.
        matching: both in the frame.
        begun: the element that it starts from.
        share: what it contributes to the average.
    """

    frame: Frame
    matching: Matching
    begun: Transform
    share: float


@dataclass(frozen=True, slots=True)
class Rider:
    """Numbers per unit that are averaged and move as a parameter does, such as the statistics of its layer.

    Attributes:
        name: the input of the graph that takes their average.
        carrier: the parameter, of as many entries in the same order; one that is stacked with others carries
            nothing, and the numbers stay.
        each: those of the reference, then of every model that moves, where it starts.
    """

    name: str
    carrier: str
    each: Sequence[NDArray[Any]]


class Repair(Protocol):
    """What a graph does to itself before its outputs are judged."""

    @property
    def riders(self) -> Sequence[Rider]:
        """The inputs that it needs."""

    def dress(self, proto: onnx.ModelProto) -> None:
        """Put it into a graph."""


class Average:
    """The average of the reference and the models that move, as exchanges have made them.

    Attributes:
        source: for each model which unit class, by its place at the start, is now in the place of each;
            [models, classes].
        pieces: what may be exchanged.
        inputs: what changes, by the names of the graph: parameters and riders; views of the average.
    """

    def __init__(self, movers: Sequence[Mover], riders: Sequence[Rider] = ()) -> None:
        frame = movers[0].frame
        self.movers, self.frame, self.symmetry = movers, frame, frame.ours
        self._rest = 1 - sum(mover.share for mover in movers)
        self.source = np.tile(np.arange(self.symmetry.solution.count), (len(movers), 1))
        self.pieces = list(self._pieces(riders))
        self._sizes = np.array([len(piece.members) for piece in self.pieces], float)
        self._riders = {rider.name: rider for rider in riders}
        names = {name for piece in self.pieces for name, _ in piece.rows} | set(self._riders)
        self._factor = {name: self._scale(name) for name in names}
        self._reference = {name: self._given(name).reshape(-1) for name in names}
        self._average = {name: array.copy() for name, array in self._reference.items()}
        self.put([mover.begun for mover in movers])
        self.inputs: Arrays = {}
        for name in names:
            whole = self._average[name].reshape(self._given(name).shape)
            members = self.symmetry.stacks.get(name)
            self.inputs |= {name: whole} if members is None else dict(zip(members, whole, strict=True))

    def _given(self, name: str) -> NDArray[Any]:
        """What the reference has."""
        rider = self._riders.get(name)
        return self.symmetry.read(self.frame.reference, name) if rider is None else rider.each[0]

    def _scale(self, name: str) -> NDArray[np.float64]:
        """What leads from the frame back to the scale of the reference, for every entry."""
        rider, home = self._riders.get(name), self.frame.scalings[0].inverse()
        known = name if rider is None else rider.carrier
        if known not in home.actions:
            return np.ones(self._given(name).size)
        return home.actions[known](np.ones(self.symmetry.trace.parameters[known].shape)).reshape(-1)

    def put(self, found: Sequence[Transform]) -> None:
        """Take the models as elements of the group make them; riders are those of the start."""
        self._moved: list[dict[str, NDArray[Any]]] = []
        for k, (mover, element) in enumerate(zip(self.movers, found, strict=True)):
            moved = {}
            for name in self._reference:
                rider = self._riders.get(name)
                array = mover.matching.start[name] if rider is None else self._carried(rider, 1 + k)
                action = element.actions.get(name if rider is None else rider.carrier)
                if action is not None:  # statistics change places as their carrier does, but not their signs
                    array = (action if rider is None else replace(action, factor={}))(array)
                moved[name] = np.array(array).reshape(-1)
            self._moved.append(moved)
        for name in self._reference:
            self._write(name, slice(None))

    def _carried(self, rider: Rider, k: int) -> NDArray[Any]:
        """The numbers of a model in the frame, in the shape of their carrier."""
        parameter = self.symmetry.trace.parameters.get(rider.carrier)
        array = rider.each[k].reshape(-1) / self._factor[rider.name]
        return array if parameter is None else array.reshape(parameter.shape)

    def _write(self, name: str, entries: Ids | slice) -> None:
        """Average anew; always from all models, so that twice the same exchange is none to the last bit."""
        factor = self._factor[name][entries]
        total = self._rest * self._reference[name][entries]
        for mover, moved in zip(self.movers, self._moved, strict=True):
            total = total + mover.share * (moved[name][entries] * factor)
        self._average[name][entries] = total

    def drawn(self, rng: np.random.Generator) -> tuple[int, Piece, int, int]:
        """Two components of a model at random that may change places."""
        mover = int(rng.integers(len(self.movers)))
        piece = self.pieces[rng.choice(len(self.pieces), p=self._sizes / self._sizes.sum())]
        block = int(rng.integers(len(piece.members) // piece.size)) * piece.size
        one, other = rng.choice(piece.size, 2, replace=False).tolist()
        return mover, piece, block + one, block + other

    def exchange(self, mover: int, piece: Piece, one: int, other: int) -> None:
        """Exchange two components of a model; twice is not at all."""
        pair, turned = [one, other], [other, one]
        source, moved = self.source[mover], self._moved[mover]
        source[piece.members[pair]] = source[piece.members[turned]]
        for name, rows in piece.rows:
            moved[name][rows[pair]] = moved[name][rows[turned]]
        for name, rows in piece.rows:
            self._write(name, rows[pair].reshape(-1))

    def _pieces(self, riders: Sequence[Rider]) -> Iterator[Piece]:
        """The orbits whose parameters can be inputs of the graph, and which a swap of rows exchanges."""
        able = input_tensors(self.frame.reference)
        stacks, matching = self.symmetry.stacks, self.movers[0].matching
        for branch, curved in zip(matching.branches, matching.curved, strict=True):
            names = [c.rows.name for c in branch.contacts]
            if not names or not able.issuperset(n for name in names for n in stacks.get(name, (name,))):
                continue
            if curved and len(set(names)) == len(names):  # some entries belong to two components at once
                continue
            for piece in _cut(branch):
                carried = [(r.name, rows) for name, rows in piece.rows for r in riders if r.carrier == name]
                yield replace(piece, rows=[*piece.rows, *carried])

    def session(self, device: str, repair: Repair | None = None) -> Session:
        """The graph of the reference, opened with the average for weights, those that change as inputs."""
        reference = self.frame.reference
        others = [mover.frame.spelled(mover.frame.element(mover.begun)) for mover in self.movers]
        fixed = {}
        for name in reference.tensor_names():
            if name not in self.inputs and reference.tensor_info(name)[1] in AVERAGED:
                ours = reference.tensor(name)
                total = self._rest * ours.astype(np.result_type(ours, np.float32))
                for mover, other in zip(self.movers, others, strict=True):
                    total = total + mover.share * other.tensor(name).astype(total.dtype)
                fixed[name] = total.astype(ours.dtype)
        fed = [name for name in self.inputs if name not in self._riders]
        dress = None if repair is None else partial(self._dress, repair)
        return open_with_inputs(
            reference.with_tensors(fixed), fed, device=device, optimize=True, change=dress
        )

    def _dress(self, repair: Repair, proto: onnx.ModelProto) -> None:
        """Give the graph its riders and the repair that reads them."""
        for name in self._riders:
            array = self.inputs[name]
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            proto.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
        repair.dress(proto)


def _cut(branch: Branch) -> Iterator[Piece]:
    """A tree of orbits as single ones."""
    entries = {
        c.rows: c.rows.matrix(np.arange(int(np.prod(c.rows.shape))).reshape(c.rows.shape))
        for c in branch.contacts
    }
    members = list(_members(branch.orbit, branch.orbit.members))
    for (piece, found), classes in zip(branch.pieces(), members, strict=True):
        rows = [
            (c.rows.name, entries[c.rows][which].reshape(len(which), -1))
            for c, which in zip(piece.contacts, found, strict=True)
        ]
        yield Piece(piece.orbit.size, classes, rows)


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
