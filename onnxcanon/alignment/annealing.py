"""Simulated annealing: exchanges of single units, judged by the loss of the average of both models.

Entezari et al. (2022), started from weight matching. A step exchanges two components of an orbit, nested
orbits included; one that raises the loss by Δ is taken with the probability exp(-Δ / T). The temperature T
starts at a part of the median by which exchanges change the loss, and falls geometrically. The best state
that was seen is the result, so on the data that was looked at it is never worse than weight matching.

The loss is that of evaluation where the data has labels, else the mean squared difference to the mean of what
the two models say. A step is cheap: the parameters that may move are inputs of the graph, the average is kept
in arrays, and an exchange writes the rows that it touches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxcanon.alignment.contacts import Branch
from onnxcanon.alignment.frame import Frame
from onnxcanon.alignment.given import Found, Given
from onnxcanon.alignment.matching import Matching
from onnxcanon.alignment.watching import watched
from onnxcanon.alignment.weights import searched
from onnxcanon.comparison.unlike import AVERAGED
from onnxcanon.errors import OnnxcanonError
from onnxcanon.runtime.evaluation import LABELS, Judge, labels_of
from onnxcanon.runtime.feeding import feedable, open_fed
from onnxcanon.runtime.sessions import Arrays, Port, Session
from onnxcanon.symmetry.constraints import Ids
from onnxcanon.symmetry.group import Orbit
from onnxcanon.transform import Transform

STEPS = 1000
"""Exchanges that are tried."""

PROBES = 32
"""Exchanges that are tried first, and taken back, to set the temperature."""

HEAT = 0.1
"""The first temperature as a part of what an exchange changes: weight matching is a start worth keeping."""

COOLING = 1e-2
"""The last temperature as a part of the first."""

EXAMPLES = 256
"""How many examples the loss is taken of."""

NOTHING_MOVES = "no exchange of units can be tried one by one: they were matched by weights alone"


def by_annealing(frame: Frame, given: Given) -> Found:
    """The element of the lowest loss of the average that was seen.

    Raises:
        OnnxcanonError: there is no data, or it does not fit.
        RuntimeUnavailableError: a model does not run.
    """
    data = given.inputs("annealing")
    rng = np.random.default_rng(given.seed)
    matching = frame.matching()
    begun = searched(matching, given)
    average = Average(frame, matching, begun)
    if not average.pieces:
        return Found(begun, (NOTHING_MOVES,))
    some = _some(_labelled(frame, data, given.device), rng)
    with closing(average.session(given.device)) as session:
        judge = Judge(frame.reference, Fed(session, average.inputs), some, batch=EXAMPLES)
        first = judge().loss
        found = begun.then(frame.ours.action(_annealed(average, judge, first, rng, given)))
        average.put(found)
        if judge().loss > first:  # an exchange of rows was not what the group makes of it
            return Found(begun)
    return Found(found)


def _annealed(average: Average, judge: Judge, loss: float, rng: np.random.Generator, given: Given) -> Ids:
    """The image of every unit class in the best state."""
    changes = []
    for _ in range(PROBES):
        swap = average.drawn(rng)
        average.exchange(*swap)
        changes.append(abs(judge().loss - loss))
        average.exchange(*swap)
    first = HEAT * float(np.median(changes))
    best, kept = loss, average.source.copy()
    for step in range(STEPS):
        if step % 50 == 0:
            given.say(f"annealing, step {step} of {STEPS}: loss {best:.6g}")
        temperature = first * COOLING ** (step / STEPS)
        swap = average.drawn(rng)
        average.exchange(*swap)
        now = judge().loss
        if now > loss and rng.random() >= _chance(now - loss, temperature):
            average.exchange(*swap)
            continue
        loss = now
        if loss < best:
            best, kept = loss, average.source.copy()
    image = np.empty_like(kept)
    image[kept] = np.arange(len(kept))
    return average.frame.ours.solution.extend(image)


def _chance(rise: float, temperature: float) -> float:
    """With which probability a step that raises the loss is taken."""
    return float(np.exp(-rise / temperature)) if temperature > 0 else 0.0


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


@dataclass
class Average:
    """The average of the reference and the model in a state: what exchanges have made of weight matching.

    Attributes:
        source: which unit class, by its place after weight matching, is now in the place of each.
        pieces: what may be exchanged.
        inputs: the parameters that change, by the names of the graph; views of the average.
    """

    frame: Frame
    matching: Matching
    begun: Transform
    pieces: list[Piece] = field(init=False)
    inputs: Arrays = field(init=False)
    source: Ids = field(init=False)

    def __post_init__(self) -> None:
        symmetry, home = self.frame.ours, self.frame.scalings[0].inverse()
        self.source = np.arange(symmetry.solution.count)
        self.pieces = list(self._pieces())
        self._weights = np.array([len(piece.members) for piece in self.pieces], float)
        names = {name for piece in self.pieces for name, _ in piece.rows}
        self._reference = {name: symmetry.read(self.frame.reference, name).reshape(-1) for name in names}
        self._average = {name: array.copy() for name, array in self._reference.items()}
        self._factor = {}
        for name in names:
            ones = np.ones(symmetry.trace.parameters[name].shape)
            self._factor[name] = (home.actions[name](ones) if name in home.actions else ones).reshape(-1)
        self.put(self.begun)
        self.inputs = {}
        for name in names:
            whole = self._average[name].reshape(symmetry.trace.parameters[name].shape)
            members = symmetry.stacks.get(name)
            self.inputs |= {name: whole} if members is None else dict(zip(members, whole, strict=True))

    def put(self, found: Transform) -> None:
        """Take the model as an element of the group makes it."""
        self._moved = {}
        for name in self._reference:
            array = self.matching.start[name]
            moved = found.actions[name](array) if name in found.actions else array
            self._moved[name] = np.array(moved).reshape(-1)
            self._write(name, slice(None))

    def _write(self, name: str, entries: Ids | slice) -> None:
        there = self._moved[name][entries] * self._factor[name][entries]
        self._average[name][entries] = 0.5 * (self._reference[name][entries] + there)

    def drawn(self, rng: np.random.Generator) -> tuple[Piece, int, int]:
        """Two components at random that may change places."""
        piece = self.pieces[rng.choice(len(self.pieces), p=self._weights / self._weights.sum())]
        block = int(rng.integers(len(piece.members) // piece.size)) * piece.size
        one, other = rng.choice(piece.size, 2, replace=False).tolist()
        return piece, block + one, block + other

    def exchange(self, piece: Piece, one: int, other: int) -> None:
        """Exchange two components; twice is not at all."""
        pair, turned = [one, other], [other, one]
        self.source[piece.members[pair]] = self.source[piece.members[turned]]
        for name, rows in piece.rows:
            self._moved[name][rows[pair]] = self._moved[name][rows[turned]]
        for name, rows in piece.rows:
            self._write(name, rows[pair].reshape(-1))

    def _pieces(self) -> Iterator[Piece]:
        """The orbits whose parameters can be inputs of the graph, and which a swap of rows exchanges."""
        able = feedable(self.frame.reference)
        stacks = self.frame.ours.stacks
        for branch, curved in zip(self.matching.branches, self.matching.curved, strict=True):
            names = [c.rows.name for c in branch.contacts]
            if not names or not able.issuperset(n for name in names for n in stacks.get(name, (name,))):
                continue
            if curved and len(set(names)) == len(names):  # some entries belong to two components at once
                continue
            yield from _cut(branch)

    def session(self, device: str) -> Session:
        """The graph of the reference, opened with the average for weights, those that change as inputs."""
        frame = self.frame
        reference, other = frame.reference, frame.spelled(frame.element(self.begun))
        fixed = {}
        for name in reference.tensor_names():
            if name not in self.inputs and reference.tensor_info(name)[1] in AVERAGED:
                ours, theirs = reference.tensor(name), other.tensor(name)
                fixed[name] = (0.5 * (ours + theirs.astype(np.result_type(theirs, np.float32)))).astype(
                    ours.dtype
                )
        return open_fed(reference.with_tensors(fixed), list(self.inputs), device=device, optimize=True)


@dataclass(frozen=True, slots=True)
class Fed:
    """A session that is given some inputs again and again."""

    session: Session
    inputs: Arrays

    @property
    def device(self) -> str:
        """Where it runs."""
        return self.session.device

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What it returns."""
        return self.session.outputs

    def run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
        """The outputs by name."""
        return self.session.run({**inputs, **self.inputs})


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


def _members(orbit: Orbit, members: Ids) -> Iterator[Ids]:
    """The unit classes of an orbit's components, [components of all blocks, columns], and of those inside."""
    yield members
    for child in orbit.children:
        yield from _members(child, members[:, child.members].reshape(-1, child.members.shape[1]))


def _labelled(frame: Frame, data: Mapping[str, np.ndarray], device: str) -> Mapping[str, np.ndarray]:
    """The data with labels; where it has none, with the mean of what both models say."""
    if LABELS in data:
        return data
    output = frame.reference.ir.graph.outputs[0].name or ""
    means = [
        (ours[output] + theirs[output]) / 2.0
        for ours, theirs in watched(frame.models, [output], data, device=device)
    ]
    if not means[0].ndim:
        raise OnnxcanonError(f"{frame.reference.name}: output '{output}' says nothing of single examples")
    labels = np.concatenate(means)
    names = {value.name for value in frame.reference.ir.graph.inputs}
    inputs = {name: np.asarray(array) for name, array in data.items() if name in names}
    rows = max((len(array) for array in inputs.values() if array.ndim), default=0)
    # What fills no whole set, where the model takes a fixed number of examples, has not run.
    ran = {n: a[: len(labels)] if a.ndim and len(a) == rows else a for n, a in inputs.items()}
    return {**ran, LABELS: labels}


def _some(data: Mapping[str, np.ndarray], rng: np.random.Generator) -> Arrays:
    """Some examples of the data."""
    count = len(labels_of(data))
    chosen = np.sort(rng.permutation(count)[:EXAMPLES])
    return {
        name: np.asarray(array)[chosen] if np.ndim(array) and len(array) == count else np.asarray(array)
        for name, array in data.items()
    }
