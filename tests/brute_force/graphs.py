"""Tiny random graphs in double precision: the fuzzer's blocks at small sizes, and hand-made wholes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import helper

from tests.brute_force.function import Function
from tests.fuzz.blocks import BLOCKS
from tests.fuzz.blocks.contraction import affine
from tests.fuzz.blocks.elementwise import unary
from tests.fuzz.builder import Array, Builder, Rejected
from tests.fuzz.graphs import Case
from tests.fuzz.minimize import pruned

WIDTHS = (2, 2, 3, 3, 4)
ENTRIES = 72
"""Most parameter entries of a graph: some twelve units that move, with what they meet."""
LONGEST = 12
SINGLE = frozenset(
    {"Attention", "Cast", "DequantizeLinear", "GroupNormalization", "GRU", "LayerNormalization", "LSTM",
     "RNN", "RMSNormalization"}
)  # fmt: skip
"""Operators that onnxruntime computes in single precision, or that the search would not see as double."""


class Tiny(Builder):
    """A builder of small sizes; constants are initializers, weights mostly new."""

    def size(self) -> int:
        return int(self.pick(WIDTHS))

    def constant(self, array: Array, stem: str = "c") -> str:
        name = self.name(stem)
        self.initializers[name] = self.value[name] = np.asarray(array)
        return name

    def uniform(self, shape: Sequence[int], value: float) -> str:
        raise Rejected("a parameter whose value the analyzer looks at")

    def weight(self, *shape: int, spread: float = 1.0, positive: bool = False) -> str:
        if max(shape, default=1) > LONGEST:
            raise Rejected("too long")
        name = super().weight(*shape, spread=spread, positive=positive)
        if self.entries() > ENTRIES:
            raise Rejected("too many entries")
        return name

    def entries(self) -> int:
        return sum(a.size for a in self.initializers.values() if a.dtype.kind == "f" and a.size > 1)

    def pointwise(self, x: str, filters: int, groups: int = 1) -> str:
        """A convolution with kernels of size 1; onnxruntime has none in double precision, see `function`."""
        n, c, t = self.shape(x)
        w = self.constant(self.rng.normal(0, 0.7, (filters, c // groups, 1)), "w")
        y = self.name("v")
        self.nodes.append(helper.make_node("Conv", [x, w], [y], group=groups, kernel_shape=[1]))
        parts = self.value[x].reshape(n, groups, c // groups, t)
        kernel = self.value[w].reshape(groups, filters // groups, c // groups)
        self.value[y] = np.einsum("ngct,gmc->ngmt", parts, kernel).reshape(n, filters, t)
        return y

    def ops(
        self, kind: str, *inputs: str, outputs: int = 1, keep: Sequence[int] | None = None, **more: Any
    ) -> list[str]:
        if kind in SINGLE or more.get("domain"):
            raise Rejected(f"{kind} is not computed in double precision")
        return super().ops(kind, *inputs, outputs=outputs, keep=keep, **more)


def started(seed: int, *shape: int) -> Tiny:
    """A builder with one input x."""
    b = Tiny(np.random.default_rng([seed, 4711]), np.float64, 21)
    b.inputs["x"] = b.value["x"] = b.rng.normal(0, 1, shape)
    return b


def finished(b: Tiny, *outputs: str) -> Case:
    if b.entries() > ENTRIES:
        raise Rejected("too many entries")
    case = pruned(Case(b.model(outputs, dynamic=False), [b.inputs]), outputs)
    f = Function(case)
    if not all(f.read[where].any() for where in f.slices.values()):
        raise Rejected("a parameter cancels")
    return case


def generate(seed: int) -> Case:
    """A tiny random graph, the same for the same seed; every third is one of `WHOLES`."""
    rng = np.random.default_rng([seed, 815])
    while True:
        b = started(int(rng.integers(1 << 40)), *SHAPES[int(rng.integers(len(SHAPES)))])
        try:
            if seed % 3 == 0:
                return finished(b, *WHOLES[seed // 3 % len(WHOLES)](b))
            return finished(b, *_grown(b))
        except Rejected:
            continue


SHAPES = ((3, 2), (3, 3), (2, 2, 2), (2, 3, 2), (2, 2, 3), (2, 2, 2, 2), (1, 3, 3))


WITHOUT = ("control", "quantized")
"""Blocks with parameters in bodies, or that round."""


def _grown(b: Tiny) -> list[str]:
    """One to four blocks after a first layer; what nobody reads becomes an output, mostly projected."""
    blocks = [(w, f) for w, f in BLOCKS if not f.__module__.endswith(WITHOUT)]
    weights = np.array([w for w, _ in blocks])
    b.pool.append(b.tame(affine(b, "x")))
    goal, tries = int(b.rng.integers(1, 5)), 0
    while goal and tries < 30:
        tries += 1
        x = str(b.pick(b.pool[-3:]))
        made = b.attempt(blocks[int(b.rng.choice(len(blocks), p=weights / weights.sum()))][1], x)
        b.pool.extend(made)
        goal -= bool(made)
    read = {n for node in b.nodes for n in node.input}
    return [closed(b, p) for p in b.pool if p not in read]


def closed(b: Tiny, x: str) -> str:
    """One more projection, or a mean over everything but the batch."""
    if b.flip(0.7):
        made = b.attempt(lambda b, x: affine(b, x, 2), x)
    else:
        made = b.attempt(lambda b, x: b.op("ReduceMean", unary(b, x), b.ints(1), keepdims=0), x)
    return made[0] if made else x


# -- wholes: structures that random blocks rarely make ----------------------------------------------------


def dense(b: Tiny, x: str, *shape: int) -> str:
    """x · W with a new weight."""
    return b.op("MatMul", x, b.constant(b.rng.normal(0, 0.7, shape), "w"))


def ranked(b: Tiny) -> str:
    """x with three axes."""
    n, c, *rest = b.shape("x")
    return "x" if len(rest) == 1 else b.op("Reshape", "x", b.ints(n, c, int(np.prod(rest))))


def kinked(b: Tiny, x: str) -> str:
    return b.op(b.pick(["Relu", "Tanh", "Sigmoid"]), x)


def mlp(b: Tiny) -> list[str]:
    h, m = b.size(), b.size()
    x = b.op("Flatten", "x", axis=1)
    y = kinked(b, dense(b, x, b.shape(x)[1], h))
    return [dense(b, kinked(b, dense(b, y, h, m)), m, 2)]


def branches(b: Tiny) -> list[str]:
    """Parallel equal branches that meet in a sum (or a product, or a maximum)."""
    x, h = b.op("Flatten", "x", axis=1), int(b.pick([1, 2, 2, 3]))
    n = b.shape(x)[1]
    kind = b.pick(["Add", "Add", "Mul", "Max"])
    parts = [dense(b, b.op("Tanh", dense(b, x, n, h)), h, 2) for _ in range(int(b.pick([2, 2, 3])))]
    y = parts[0]
    for p in parts[1:]:
        y = b.op(kind, y, p)
    return [y]


def branch_then_joint(b: Tiny) -> list[str]:
    """Branches whose hidden units are joined by one weight: halves of a concatenation, or one by one."""
    x, h = b.op("Flatten", "x", axis=1), b.size()
    parts = [b.op("Relu", dense(b, x, b.shape(x)[1], h)) for _ in range(2)]
    y = b.op("Concat", *parts, axis=1) if b.flip() else b.op("Add", *parts)
    return [dense(b, y, b.shape(y)[1], 2)]


def misaligned(b: Tiny) -> list[str]:
    """[p, q] read as [r, s] where the cuts do not line up."""
    x = b.op("Flatten", "x", axis=1)
    p, q, r, s = b.pick([(2, 3, 3, 2), (3, 2, 2, 3), (4, 3, 2, 6), (3, 4, 6, 2), (4, 3, 3, 4)])
    n = b.shape(x)[1]
    y = b.op("Reshape", kinked(b, dense(b, x, n, p * q)), b.ints(0, p, q))
    if b.flip():
        y = kinked(b, b.op("MatMul", y, b.constant(b.rng.normal(0, 0.7, (q, q)), "w")))
    y = b.op("Reshape", y, b.ints(0, r, s))
    return [dense(b, y, s, 2)] if b.flip() else [b.op("ReduceSum", dense(b, y, s, 2), b.ints(1), keepdims=0)]


def realigned_weight(b: Tiny) -> list[str]:
    """A weight stored in one shape and read in another."""
    x = b.op("Flatten", "x", axis=1)
    n, h = b.shape(x)[1], int(b.pick([4, 6]))
    w = b.constant(b.rng.normal(0, 0.7, (h, n)), "w")
    y = kinked(b, b.op("MatMul", x, b.op("Reshape", w, b.ints(n, h))))
    return [dense(b, y, h, 2)]


def heads(b: Tiny, stacked: bool) -> list[str]:
    """Attention in heads; query, key and value in one weight where `stacked`, read as [3, h, d] or others."""
    x = ranked(b)
    n, t, c = b.shape(x)
    h, d = b.pick([(2, 1), (2, 2), (1, 3), (3, 1)])
    if stacked:
        order = b.pick([(3, h, d), (h, 3, d), (h, d, 3)])
        at = order.index(3) if h != 3 and d != 3 else b.pick([k for k in range(3) if order[k] == 3])
        if sorted(order[:at] + order[at + 1 :]) != sorted((h, d)):
            raise Rejected("order")
        y = b.op("Reshape", dense(b, x, c, 3 * h * d), b.ints(n, t, *order))
        parts = [b.op("Gather", y, b.constant(np.array(k), "i"), axis=2 + at) for k in range(3)]
    else:
        parts = [b.op("Reshape", dense(b, x, c, h * d), b.ints(n, t, h, d)) for _ in range(3)]
    q, k, v = (b.op("Transpose", p, perm=[0, 2, 1, 3]) for p in parts)
    score = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2]))
    if b.flip(0.8):
        score = b.op("Softmax", score, axis=-1)
    y = b.op("Transpose", b.op("MatMul", score, v), perm=[0, 2, 1, 3])
    y = b.op("Reshape", y, b.ints(n, t, h * d))
    return [dense(b, y, h * d, 2)]


def separate_heads(b: Tiny) -> list[str]:
    return heads(b, False)


def stacked_heads(b: Tiny) -> list[str]:
    return heads(b, True)


def rotated_heads(b: Tiny) -> list[str]:
    """Queries and keys of a stacked [2, h, d] weight, their halves turned by one table for all heads."""
    x = ranked(b)
    n, t, c = b.shape(x)
    h, d = 2, 2
    y = b.op("Reshape", dense(b, x, c, 2 * h * d), b.ints(n, t, 2, h, d))
    table = b.constant(b.rng.normal(0, 1, (t, 1, d)), "w")

    def turned(part: int) -> str:
        z = b.op("Gather", y, b.constant(np.array(part), "i"), axis=2)
        p, r = b.ops("Split", z, b.ints(1, 1), outputs=2, axis=3)
        return b.op("Add", z, b.op("Mul", b.op("Concat", b.op("Neg", r), p, axis=3), table))

    q, k = turned(0), turned(1)
    score = b.op("Einsum", q, k, equation="nthd,nshd->nhts")
    score = b.op("Softmax", score, axis=-1)
    y = b.op("Einsum", score, x, equation="nhts,nsc->nthc")
    return [dense(b, b.op("Reshape", y, b.ints(n, t, h * c)), h * c, 2)]


def mixture(b: Tiny) -> list[str]:
    """Experts stacked in [e, n, h] and [e, h, o], gated."""
    x = b.op("Flatten", "x", axis=1)
    n, e, h = b.shape(x)[1], int(b.pick([2, 3])), int(b.pick([2, 3]))
    w1, w2 = (b.constant(b.rng.normal(0, 0.7, s), "w") for s in ((e, n, h), (e, h, 2)))
    y = kinked(b, b.op("Einsum", x, w1, equation="bn,enh->beh"))
    y = b.op("Einsum", y, w2, equation="beh,eho->beo")
    if b.flip(0.7):
        gate = b.op("Softmax", dense(b, x, n, e), axis=-1)
        return [b.op("Einsum", gate, y, equation="be,beo->bo")]
    return [b.op("ReduceSum", y, b.ints(1), keepdims=0)]


def grouped(b: Tiny) -> list[str]:
    """A pointwise convolution, a shuffle of channels, a grouped convolution, another pointwise one."""
    x = ranked(b)
    n, _, t = b.shape(x)
    g, m = 2, int(b.pick([4, 4, 6]))

    y = kinked(b, b.pointwise(x, m))
    if b.flip():
        y = b.op("Reshape", y, b.ints(n, g, m // g, t))
        y = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.ints(n, m, t))
    return [b.pointwise(kinked(b, b.pointwise(y, m, g)), 2)]


def residual(b: Tiny) -> list[str]:
    x, m, h = b.op("Flatten", "x", axis=1), b.size(), b.size()
    s = dense(b, x, b.shape(x)[1], m)
    for _ in range(int(b.pick([1, 2]))):
        s = b.op("Add", s, dense(b, kinked(b, dense(b, s, m, h)), h, m))
    return [dense(b, kinked(b, s), m, 2)]


def shuffled_meeting(b: Tiny) -> list[str]:
    """Hidden units meet themselves in another order."""
    x, m = b.op("Flatten", "x", axis=1), int(b.pick([3, 4, 4, 6]))
    y = kinked(b, dense(b, x, b.shape(x)[1], m))
    moved = b.op("Gather", y, b.ints(*map(int, b.rng.permutation(m))), axis=1)
    y = b.op(b.pick(["Add", "Mul", "Max"]), y, moved)
    return [dense(b, y, m, 2)]


def two_biases(b: Tiny) -> list[str]:
    """Parameters that are added to the same value."""
    x, m = b.op("Flatten", "x", axis=1), b.size()
    y = dense(b, x, b.shape(x)[1], m)
    for _ in range(2):
        y = b.op("Add", y, b.constant(b.rng.normal(0, 0.7, m), "w"))
    return [dense(b, kinked(b, y), m, 2)]


def looked_up(b: Tiny) -> list[str]:
    """Rows of one stacked weight taken out and used one after the other."""
    x, m = b.op("Flatten", "x", axis=1), b.size()
    w = b.constant(b.rng.normal(0, 0.7, (2, m, m)), "w")
    y = dense(b, x, b.shape(x)[1], m)
    for k in range(2):
        part = b.op("Gather", w, b.constant(np.array(k), "i"), axis=0)
        y = kinked(b, b.op("MatMul", y, part))
    return [dense(b, y, m, 2)]


WHOLES: tuple[Callable[[Tiny], list[str]], ...] = (
    mlp, branches, branch_then_joint, misaligned, realigned_weight, separate_heads, stacked_heads,
    rotated_heads, mixture, grouped, residual, shuffled_meeting, two_biases, looked_up,
)  # fmt: skip
