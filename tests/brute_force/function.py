"""The function of a graph with its parameters as arguments."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from tests.fuzz.builder import Array, Feeds, session
from tests.fuzz.graphs import Case, tensors

Values = NDArray[np.float64]
Places = NDArray[np.int64]
"""A permutation of entries: entry k of the result is entry `places[k]` of the argument."""

TOLERANCE = 1e-9
"""Of outputs of order one in double precision; rounding errors of tiny graphs stay below 1e-12."""
DRAWS = 6


class Function:
    """f(θ, x) for a graph: θ are the entries of all parameters, one after the other."""

    def __init__(self, case: Case, seed: int = 0) -> None:
        known = tensors(case)
        self.shapes = {n: a.shape for n, a in known.items() if a.dtype.kind == "f" and a.size > 1}
        starts = np.cumsum([0, *(int(np.prod(s)) for s in self.shapes.values())]).tolist()
        self.slices = {n: slice(a, b) for n, a, b in zip(self.shapes, starts[:-1], starts[1:], strict=True)}
        self.count: int = starts[-1]
        self.positive = np.zeros(self.count, bool)
        for name, where in self.slices.items():
            self.positive[where] = bool((known[name] > 0).all())
        self._session = session(_open(case.proto, known, list(self.shapes)).SerializeToString())
        self.rng = np.random.default_rng([seed, 31])
        self.feeds = case.feeds[0]

    def __call__(self, theta: Values, feeds: Feeds | None = None) -> Values:
        """All outputs in one vector."""
        arguments = {n: theta[self.slices[n]].reshape(s) for n, s in self.shapes.items()}
        results = self._session.run(None, {**(feeds or self.feeds), **arguments})
        return np.concatenate([np.ravel(np.asarray(r, np.float64)) for r in results])

    @cached_property
    def samples(self) -> list[tuple[Values, Feeds, Values]]:
        """Random parameters and inputs with what they give."""
        drawn = []
        for k in range(DRAWS):
            theta = self.rng.normal(0, 0.8, self.count)
            positive = self.positive if k % 3 else np.ones(self.count, bool)
            theta[positive] = self.rng.uniform(0.4, 1.4, int(positive.sum()))
            feeds = {n: self._like(a) for n, a in self.feeds.items()}
            drawn.append((theta, feeds, self(theta, feeds)))
        return drawn

    def _like(self, array: Array) -> Array:
        return self.rng.normal(0, 1, array.shape).astype(array.dtype) if array.dtype.kind == "f" else array

    def keeps(self, places: Places) -> bool:
        """Whether moving the entries leaves every sample's outputs as they are."""
        return all(same(self(theta[places], feeds), want) for theta, feeds, want in self.samples)

    @cached_property
    def read(self) -> NDArray[np.bool_]:
        """Which entries the function depends on."""
        out = np.zeros(self.count, bool)
        for theta, feeds, want in self.samples:
            for k in np.flatnonzero(~out):
                moved = theta.copy()
                moved[k] *= 1.7
                out[k] = not same(self(moved, feeds), want)
        return out


def same(one: Values, other: Values) -> bool:
    """Equal up to rounding; what is not a number must not be one on either side."""
    if not np.array_equal(np.isfinite(one), np.isfinite(other)):
        return False
    scale = max(1.0, float(np.abs(other[np.isfinite(other)]).max(initial=0.0)))
    return bool(np.allclose(one, other, 0, TOLERANCE * scale, equal_nan=True))


def _open(proto: onnx.ModelProto, known: Feeds, names: list[str]) -> onnx.ModelProto:
    """The graph with these initializers as inputs."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    kept = [t for t in made.graph.initializer if t.name not in names]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    for n in names:
        kind = helper.np_dtype_to_tensor_dtype(known[n].dtype)
        made.graph.input.append(helper.make_tensor_value_info(n, kind, known[n].shape))
    return made
