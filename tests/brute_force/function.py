"""The function of a graph with its parameters as arguments."""

from __future__ import annotations

from functools import cached_property
from itertools import chain

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tests.fuzz.builder import Array, Feeds, session
from tests.fuzz.graphs import Case, tensors

Values = NDArray[np.float64]
Places = NDArray[np.int64]
"""A permutation of entries: entry k of the result is entry `places[k]` of the argument."""

TOLERANCE = 1e-9
"""Of outputs of order one in double precision; rounding errors of tiny graphs stay below 1e-12."""
DRAWS = 6
MORE_DRAWS = 18
"""For entries nobody seems to read: clips and maxima may hide them."""

COMMUTATIVE = frozenset({"Add", "Max", "Mean", "Min", "Mul", "Sum"})
LINEAR = frozenset({"Conv", "Einsum", "Gemm", "MatMul", "ReduceMean", "ReduceSum"})


class Function:
    """f(θ, x) for a graph: θ are the entries of all parameters, one after the other."""

    def __init__(self, case: Case, seed: int = 0, *, tagged: bool = False) -> None:
        known = tensors(case)
        self.shapes = {n: a.shape for n, a in known.items() if a.dtype.kind == "f" and a.size > 1}
        starts = np.cumsum([0, *(int(np.prod(s)) for s in self.shapes.values())]).tolist()
        self.slices = {n: slice(a, b) for n, a, b in zip(self.shapes, starts[:-1], starts[1:], strict=True)}
        self.count: int = starts[-1]
        self.positive = np.zeros(self.count, bool)
        for name, where in self.slices.items():
            self.positive[where] = bool((known[name] > 0).all())
        self._session = session(_open(case.proto, known, list(self.shapes), tagged).SerializeToString())
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
        return [self._sample(k) for k in range(DRAWS)]

    def _sample(self, k: int) -> tuple[Values, Feeds, Values]:
        theta = self.rng.normal(0, (0.8, 0.4, 1.2)[k % 3], self.count)
        positive = self.positive if k % 4 else np.ones(self.count, bool)
        theta[positive] = self.rng.uniform(0.4, 1.4, int(positive.sum()))
        feeds = {n: self._like(a) for n, a in self.feeds.items()}
        return theta, feeds, self(theta, feeds)

    def _like(self, array: Array) -> Array:
        return self.rng.normal(0, 1, array.shape).astype(array.dtype) if array.dtype.kind == "f" else array

    def keeps(self, places: Places) -> bool:
        """Whether moving the entries leaves every sample's outputs as they are."""
        return all(same(self(theta[places], feeds), want) for theta, feeds, want in self.samples)

    @cached_property
    def read(self) -> NDArray[np.bool_]:
        """Which entries the function depends on."""
        out = np.zeros(self.count, bool)
        more = (self._sample(k) for k in range(MORE_DRAWS))
        for theta, feeds, want in chain(self.samples, more):
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


def _open(proto: onnx.ModelProto, known: Feeds, names: list[str], tagged: bool) -> onnx.ModelProto:
    """The graph with these initializers as inputs."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    _spell_convolutions(made, known)
    if tagged:
        _tag_operands(made)
    kept = [t for t in made.graph.initializer if t.name not in names]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    for n in names:
        kind = helper.np_dtype_to_tensor_dtype(known[n].dtype)
        made.graph.input.append(helper.make_tensor_value_info(n, kind, known[n].shape))
    return made


def _spell_convolutions(proto: onnx.ModelProto, known: Feeds) -> None:
    """Convolutions of size 1 as Einsums: onnxruntime's are in single precision."""
    nodes = []
    for node in proto.graph.node:
        if node.op_type != "Conv":
            nodes.append(node)
            continue
        (x, w), (y,) = node.input, node.output
        g = next((a.i for a in node.attribute if a.name == "group"), 1)
        m, c, _ = known[w].shape
        shapes = {f"{y}.x": (0, g, c, -1), f"{y}.w": (g, m // g, c), f"{y}.y": (0, m, -1)}
        proto.graph.initializer.extend(
            numpy_helper.from_array(np.array(s, np.int64), f"{n}.shape") for n, s in shapes.items()
        )
        for source, made in ((x, f"{y}.x"), (w, f"{y}.w")):
            nodes.append(helper.make_node("Reshape", [source, f"{made}.shape"], [made]))
        nodes.append(
            helper.make_node("Einsum", [f"{y}.x", f"{y}.w"], [f"{y}.grid"], equation="ngct,gmc->ngmt")
        )
        nodes.append(helper.make_node("Reshape", [f"{y}.grid", f"{y}.y.shape"], [y]))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _tag_operands(proto: onnx.ModelProto) -> None:
    """Pass later operands of commutative operators, and what these and linear ones give, through y + sin y:
    what is left of the symmetries owes nothing to a + b = b + a, nor to sums of sums."""
    nodes = []

    def bent(source: str, made: str, times: int = 1) -> None:
        nodes.append(helper.make_node("Sin", [source], [f"{made}.sin"]))
        nodes.append(helper.make_node("Sum", [source] + [f"{made}.sin"] * times, [made]))

    for node in proto.graph.node:
        if node.op_type in COMMUTATIVE:
            for k in range(1, len(node.input)):
                bent(node.input[k], f"{node.output[0]}.{k}", k)
                node.input[k] = f"{node.output[0]}.{k}"
        nodes.append(node)
        if node.op_type in COMMUTATIVE | LINEAR:
            y, node.output[0] = node.output[0], f"{node.output[0]}.plain"
            bent(node.output[0], y)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
