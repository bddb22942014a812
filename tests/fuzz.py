"""A fuzzer for the analyzer: random graphs, a random element of the whole group, onnxruntime as the judge.

    python -m tests.fuzz --graphs 2000 --seed 0

A graph is built forward from random inputs; every node is run as it is added, so shapes are what onnxruntime
says and values stay of order one. `check` then applies one random element of the group `symmetry` finds
(permutations, scales and signs at once) and compares the outputs; half of the element's actions, as a
control, should change them. `minimize` cuts a graph that fails down to the nodes that matter.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from onnxcanon.model import load
from onnxcanon.symmetry.analysis import Symmetry, symmetry
from onnxcanon.symmetry.trace import OTHER_SHAPE
from onnxcanon.transform import Transform

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]

SIZES = (2, 3, 4, 4, 6, 6, 8, 12)
LARGEST = 6000
TOLERANCE = {"float64": 1e-9, "float32": 2e-4}
OPSETS = (18, 21, 21, 23)
CONTRIB = "com.microsoft"


class Rejected(Exception):
    """A proposed node that onnxruntime does not run, or whose result is of no use."""


# -- running ----------------------------------------------------------------------------------------------


def session(proto: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])


def run(proto: onnx.ModelProto, feeds: Feeds) -> list[Array]:
    return [np.asarray(x) for x in session(proto.SerializeToString()).run(None, feeds)]


@lru_cache(4096)
def _single(node: bytes, dtypes: tuple[str, ...], opset: int) -> ort.InferenceSession:
    made = onnx.NodeProto.FromString(node)
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.dtype(d)), None)
        for n, d in zip((n for n in made.input if n), dtypes, strict=True)
    ]
    outputs = [onnx.ValueInfoProto(name=n) for n in made.output if n]
    graph = helper.make_graph([made], "single", inputs, outputs)
    return session(model_of(graph, opset).SerializeToString())


def model_of(graph: onnx.GraphProto, opset: int) -> onnx.ModelProto:
    imports = [helper.make_opsetid("", opset)]
    if any(n.domain == CONTRIB for n in graph.node):
        imports.append(helper.make_opsetid(CONTRIB, 1))
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


# -- building ---------------------------------------------------------------------------------------------


@dataclass
class Builder:
    """A graph that grows node by node; `value` holds what every name is for the sample inputs."""

    rng: np.random.Generator
    dtype: Any
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, Array] = field(default_factory=dict)
    inputs: dict[str, Array] = field(default_factory=dict)
    value: dict[str, Array] = field(default_factory=dict)
    pool: list[str] = field(default_factory=list)
    names: int = 0

    # choices

    def flip(self, p: float = 0.5) -> bool:
        return bool(self.rng.random() < p)

    def pick(self, items: Sequence[Any]) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def size(self) -> int:
        return int(self.pick(SIZES))

    def name(self, stem: str) -> str:
        self.names += 1
        return f"{stem}{self.names}"

    def shape(self, x: str) -> tuple[int, ...]:
        return self.value[x].shape

    def axis(self, x: str, smallest: int = 2, free: bool = True) -> int:
        """An axis of at least some size; rarely the leading one, which is the batch."""
        shape = self.shape(x)
        axes = [k for k, n in enumerate(shape) if n >= smallest and (k > 0 or (free and self.flip(0.1)))]
        if not axes:
            raise Rejected("no such axis")
        return int(self.pick(axes))

    # constants

    def constant(self, array: Array, stem: str = "c") -> str:
        name = self.name(stem)
        array = np.asarray(array)
        if self.flip(0.1):
            tensor = numpy_helper.from_array(array, name)
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.initializers[name] = array
        self.value[name] = array
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64), "i")

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, self.dtype), "s")

    def _draw(self, shape: Sequence[int], spread: float, positive: bool) -> Array:
        array = self.rng.uniform(0.5, 1.5, shape) if positive else self.rng.normal(0, spread, shape)
        return array.astype(self.dtype)

    def weight(self, *shape: int, spread: float = 1.0, positive: bool = False) -> str:
        """A parameter: new, one already in use, or one in disguise behind movement operators."""
        kind = self.rng.random()
        twins = [
            n for n, a in self.initializers.items()
            if n[0] == "w" and a.shape == shape and (a > 0).all() == positive and a.dtype == self.dtype
        ]  # fmt: skip
        if kind < 0.12 and twins:
            return str(self.pick(twins))
        if kind < 0.72 or not shape or positive:
            return self.constant(self._draw(shape, spread, positive), "w")
        way = self.pick(
            ["transpose", "reshape", "slice", "concat", "identity", "cast", "quantized", "scaled", "gather",
             "crop", "turned", "reverse", "fold"]
        )  # fmt: skip
        rank = len(shape)
        k = int(self.rng.integers(rank))

        def fresh(*size: int) -> str:
            held = [
                n for n, a in self.initializers.items()
                if n[0] == "w" and a.shape == size and not (a > 0).all() and a.dtype == self.dtype
            ]  # fmt: skip
            if held and self.flip(0.3):
                return str(self.pick(held))
            return self.constant(self._draw(size, spread, False), "w")

        if way == "transpose":
            perm = [int(p) for p in self.rng.permutation(rank)]
            return self.op("Transpose", fresh(*(shape[perm.index(j)] for j in range(rank))), perm=perm)
        if way == "reshape":
            flat = self.pick([(math.prod(shape),), (math.prod(shape[:-1]), shape[-1]), (1, *shape)])
            return self.op("Reshape", fresh(*flat), self.ints(*shape))
        if way in ("slice", "crop"):
            more, start = int(self.rng.integers(1, 5)), int(self.rng.integers(0, 3))
            step = 2 if way == "crop" and self.flip(0.3) else 1
            wide = [n if j != k else start + n * step + more for j, n in enumerate(shape)]
            return self.op(
                "Slice",
                fresh(*wide),
                self.ints(start),
                self.ints(start + shape[k] * step),
                self.ints(k),
                self.ints(step),
            )
        if way == "concat":
            if shape[k] < 2:
                raise Rejected("too small")
            cut = int(self.rng.integers(1, shape[k]))
            parts = [[c if j == k else n for j, n in enumerate(shape)] for c in (cut, shape[k] - cut)]
            return self.op("Concat", *(fresh(*p) for p in parts), axis=k)
        if way == "cast":
            low = fresh(*shape)
            other = 1 if self.dtype == np.float64 else 11
            return self.op(
                "Cast",
                self.op("Cast", low, to=other),
                to=helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype)),
            )
        if way == "quantized":
            q = self.constant(self.rng.integers(-60, 60, shape).astype(np.int8), "q")
            per_axis = self.flip(0.7)
            scale = self.constant(
                self.rng.uniform(0.01, 0.03, shape[k] if per_axis else ()).astype(np.float32) * spread, "w"
            )
            zero = [
                self.constant(self.rng.integers(-5, 5, shape[k] if per_axis else ()).astype(np.int8), "z")
            ]
            w = self.op("DequantizeLinear", q, scale, *zero[: int(self.flip())], axis=k if per_axis else None)
            return w if self.dtype == np.float32 else self.op("Cast", w, to=11)
        if way == "scaled":
            return self.op("Mul", fresh(*shape), self.scalar(0.75))
        if way == "gather":
            order = (
                self.rng.permutation(shape[k]) if self.flip(0.6) else self.rng.integers(0, shape[k], shape[k])
            )
            return self.op("Gather", fresh(*shape), self.ints(*map(int, order)), axis=k)
        if way == "turned":
            wide = (*shape[:k], 3, *shape[k:])
            return self.op(
                "Gather",
                fresh(*wide),
                self.constant(np.array(int(self.rng.integers(3)), np.int64), "i"),
                axis=k,
            )
        if way == "reverse":
            return self.op(
                "Slice", fresh(*shape), self.ints(-1), self.ints(-9999), self.ints(k), self.ints(-1)
            )
        if way == "fold" and rank >= 2 and k:
            flat = (*shape[: k - 1], shape[k - 1] * shape[k], *shape[k + 1 :])
            return self.op("Reshape", fresh(*flat), self.ints(*shape))
        return self.op("Identity", fresh(*shape))

    def uniform(self, shape: Sequence[int], value: float) -> str:
        """A constant of equal entries, mostly one that others share."""
        for n, a in self.initializers.items():
            if n[0] == "u" and a.shape == tuple(shape) and (a == value).all() and self.flip(0.8):
                return n
        name = self.name("u")
        self.initializers[name] = self.value[name] = np.full(shape, value, self.dtype)
        return name

    # nodes

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        return self.ops(kind, *inputs, outputs=outputs, **attributes)[0]

    def ops(
        self, kind: str, *inputs: str, outputs: int = 1, keep: Sequence[int] | None = None, **attributes: Any
    ) -> list[str]:
        """Append a node and run it; `keep` names the outputs that are wanted, the others stay empty."""
        attributes = {k: v for k, v in attributes.items() if v is not None}
        wanted = range(outputs) if keep is None else keep
        unique = list(dict.fromkeys(n for n in inputs if n))
        short = {n: f"i{k}" for k, n in enumerate(unique)}
        shadow = helper.make_node(
            kind,
            [short.get(n, "") for n in inputs],
            [f"o{k}" if k in wanted else "" for k in range(outputs)],
            **attributes,
        )
        arrays = [self.value[n] for n in unique]
        try:
            single = _single(shadow.SerializeToString(), tuple(str(a.dtype) for a in arrays), self.opset)
            results = single.run(None, {short[n]: a for n, a in zip(unique, arrays, strict=True)})
        except Exception as error:
            raise Rejected(f"{kind}: {error}") from error
        for r in results:
            if r.size == 0 or r.size > LARGEST or (r.dtype.kind == "f" and not np.isfinite(r).all()):
                raise Rejected(f"{kind}: empty, large or not finite")
            if r.dtype.kind == "f" and np.abs(r).max() > 1e4:
                raise Rejected(f"{kind}: too large")
        names = [self.name("v") for _ in wanted]
        placed = dict(zip(wanted, names, strict=True))
        outs = [placed.get(k, "") for k in range(outputs)]
        self.nodes.append(
            helper.make_node(kind, list(inputs), outs, name=f"{kind}_{len(self.nodes)}", **attributes)
        )
        for n, r in zip(names, results, strict=True):
            self.value[n] = r
        return names

    def tame(self, x: str) -> str:
        """Bring a value to order one by a single number."""
        top = float(np.abs(self.value[x]).max())
        if 0.3 <= top <= 4:
            return x
        if top < 1e-3:
            raise Rejected("zero, or rounding errors only")
        return self.op("Mul", x, self.scalar(2.0 ** -round(math.log2(top))))

    def attempt(self, block: Callable[[Builder, str], str | list[str]], x: str) -> list[str]:
        """Run a block; what it added is taken back when it is rejected."""
        marks = len(self.nodes), set(self.initializers), set(self.value)
        try:
            made = block(self, x)
            made = [made] if isinstance(made, str) else made
            if any(len(self.shape(m)) < 2 for m in made):
                raise Rejected("rank")
            return [self.tame(m) for m in made]
        except Rejected:
            del self.nodes[marks[0] :]
            self.initializers = {n: a for n, a in self.initializers.items() if n in marks[1]}
            self.value = {n: a for n, a in self.value.items() if n in marks[2]}
            return []

    def fits(self, x: str) -> list[str]:
        """Values of the pool with the shape of x."""
        return [p for p in self.pool if self.shape(p) == self.shape(x) and p != x]

    def model(self, outputs: Iterable[str], dynamic: bool) -> onnx.ModelProto:
        def info(name: str, shape: Sequence[int | str] | None) -> onnx.ValueInfoProto:
            kind = helper.np_dtype_to_tensor_dtype(self.value[name].dtype)
            return helper.make_tensor_value_info(name, kind, shape)

        inputs = [info(n, ["batch", *a.shape[1:]] if dynamic else a.shape) for n, a in self.inputs.items()]
        outs = [info(n, [None] * self.value[n].ndim if dynamic else self.shape(n)) for n in outputs]
        tensors = [numpy_helper.from_array(a, n) for n, a in self.initializers.items()]
        return model_of(helper.make_graph(self.nodes, "fuzzed", inputs, outs, tensors), self.opset)


# -- blocks -----------------------------------------------------------------------------------------------

Block = Callable[[Builder, str], "str | list[str]"]
BLOCKS: list[tuple[float, Block]] = []


def block(weight: float) -> Callable[[Block], Block]:
    """Enter a block with its relative frequency."""

    def enter(f: Block) -> Block:
        BLOCKS.append((weight, f))
        return f

    return enter


def factors(b: Builder, n: int) -> tuple[int, int]:
    pairs = [(p, n // p) for p in range(2, n) if n % p == 0]
    if not pairs:
        raise Rejected("prime")
    return b.pick(pairs)  # type: ignore[no-any-return]


def reshaped(b: Builder, x: str, shape: Sequence[int]) -> str:
    """Reshape, written so that a leading batch stays dynamic where it can."""
    old, new = b.shape(x), list(map(int, shape))
    if old[0] == new[0]:
        new[0] = 0
        if b.flip(0.3) and len(new) > 1:
            new[int(b.rng.integers(1, len(new)))] = -1
    elif b.flip(0.8):
        new[int(np.argmax([n % old[0] == 0 for n in new]))] = -1
    return b.op("Reshape", x, b.ints(*new))


@block(2)
def transpose(b: Builder, x: str) -> str:
    rank = len(b.shape(x))
    perm = [0, *(1 + b.rng.permutation(rank - 1))] if b.flip(0.8) else b.rng.permutation(rank)
    return b.op("Transpose", x, perm=[int(p) for p in perm])


@block(2)
def split_axis(b: Builder, x: str) -> str:
    s = b.shape(x)
    if len(s) > 4:
        raise Rejected("rank")
    k = b.axis(x, 4)
    return reshaped(b, x, (*s[:k], *factors(b, s[k]), *s[k + 1 :]))


@block(2)
def merge_axes(b: Builder, x: str) -> str:
    s = b.shape(x)
    if len(s) < 3:
        raise Rejected("rank")
    k = int(b.rng.integers(1 if b.flip(0.8) else 0, len(s) - 1))
    return reshaped(b, x, (*s[:k], s[k] * s[k + 1], *s[k + 2 :]))


@block(1)
def realign(b: Builder, x: str) -> str:
    """Reshape of two axes into two that do not line up."""
    s = b.shape(x)
    if len(s) < 3:
        raise Rejected("rank")
    k = int(b.rng.integers(1 if b.flip(0.8) else 0, len(s) - 1))
    return reshaped(b, x, (*s[:k], *factors(b, s[k] * s[k + 1]), *s[k + 2 :]))


@block(1)
def free_reshape(b: Builder, x: str) -> str:
    s = b.shape(x)
    total, new = math.prod(s[1:]), []
    while total > 1 and len(new) < 3:
        f = int(b.pick([d for d in range(2, total + 1) if total % d == 0]))
        new.append(f)
        total //= f
    return reshaped(b, x, (s[0], *new, *([total] if total > 1 else [])))


@block(2)
def shuffle(b: Builder, x: str) -> str:
    """Channel shuffle: [g, c] -> [c, g] inside one axis."""
    s, k = b.shape(x), b.axis(x, 4, free=False)
    p, q = factors(b, s[k])
    wide = reshaped(b, x, (*s[:k], p, q, *s[k + 1 :]))
    perm = [*range(k), k + 1, k, *range(k + 2, len(s) + 1)]
    return reshaped(b, b.op("Transpose", wide, perm=perm), s)


@block(1)
def squeeze_unsqueeze(b: Builder, x: str) -> str:
    s = b.shape(x)
    ones = [k for k, n in enumerate(s) if n == 1 and k]
    if ones and b.flip(0.7):
        return b.op("Squeeze", x, b.ints(int(b.pick(ones))))
    if len(s) > 4:
        raise Rejected("rank")
    y = b.op("Unsqueeze", x, b.ints(int(b.rng.integers(1, len(s) + 1))))
    if b.flip(0.5):
        return y
    s = b.shape(y)
    k = int(b.pick([k for k, n in enumerate(s) if n == 1]))
    m = b.size()
    if b.flip():
        return b.op("Expand", y, b.ints(*(1 if j != k else m for j in range(len(s)))))
    return b.op("Tile", y, b.ints(*(1 if j != k else m for j in range(len(s)))))


@block(0.5)
def flatten(b: Builder, x: str) -> str:
    return b.op("Flatten", x, axis=int(b.rng.integers(1, len(b.shape(x)))))


@block(0.7)
def tile(b: Builder, x: str) -> str:
    k = b.axis(x)
    return b.op("Tile", x, b.ints(*(2 if j == k else 1 for j in range(len(b.shape(x))))))


def sliced(b: Builder, x: str, k: int, start: int, stop: int, step: int = 1) -> str:
    return b.op("Slice", x, b.ints(start), b.ints(stop), b.ints(k), b.ints(step))


@block(2)
def cut(b: Builder, x: str) -> str:
    k = b.axis(x, 3)
    n = b.shape(x)[k]
    step = int(b.pick([1, 1, 2, 3, -1, -1, -2]))
    if step > 0:
        start = int(b.rng.integers(0, n - 1))
        return sliced(b, x, k, start, int(b.pick([n, 9999, max(start + 1, n - 1)])), step)
    return sliced(b, x, k, int(b.pick([-1, n - 1, n - 2])), -9999, step)


def parts_of(b: Builder, x: str, k: int, count: int, even: bool) -> list[str]:
    n = b.shape(x)[k]
    if even and n % count == 0:
        sizes = [n // count] * count
    else:
        cuts = sorted(b.rng.choice(np.arange(1, n), count - 1, replace=False).tolist()) if n > count else []
        sizes = np.diff([0, *cuts, n]).astype(int).tolist()
    if b.flip():
        return b.ops("Split", x, b.ints(*sizes), outputs=len(sizes), axis=k)
    at = np.cumsum([0, *sizes]).tolist()
    return [sliced(b, x, k, p, q) for p, q in pairwise(at)]


@block(2)
def split(b: Builder, x: str) -> list[str]:
    k = b.axis(x, 4)
    parts = parts_of(b, x, k, int(b.pick([2, 2, 3])), b.flip(0.7))
    return [parts[int(i)] for i in b.rng.permutation(len(parts))[: int(b.rng.integers(1, len(parts) + 1))]]


@block(2)
def regroup(b: Builder, x: str) -> str:
    """Slices of an axis put together again in another order, some twice."""
    k = b.axis(x, 4)
    parts = parts_of(b, x, k, int(b.pick([2, 2, 3])), b.flip(0.7))
    order = b.rng.permutation(len(parts)) if b.flip(0.7) else b.rng.integers(0, len(parts), len(parts) + 1)
    chosen = [parts[int(i)] for i in order]
    if b.flip(0.3):
        chosen[0] = b.op("Neg", chosen[0])
    return b.op("Concat", *chosen, axis=k)


@block(2)
def concat(b: Builder, x: str) -> str:
    k, s = b.axis(x, 1), b.shape(x)
    fits = [
        p
        for p in b.pool
        if len(b.shape(p)) == len(s)
        and all(n == m or j == k for j, (n, m) in enumerate(zip(b.shape(p), s, strict=True)))
    ]
    others = [x, str(b.pick(fits))] if fits else [x, x]
    if b.flip(0.2):
        size = b.size()
        constant = b.flip()
        shape = [size if j == k else n for j, n in enumerate(s)]
        others.append(b.uniform(shape, 0.0) if constant else b.weight(*shape))
    return b.op("Concat", *(others[int(i)] for i in b.rng.permutation(len(others))), axis=k)


@block(2)
def gather(b: Builder, x: str) -> str:
    k = b.axis(x, 2)
    n = b.shape(x)[k]
    way = b.rng.random()
    if way < 0.35:
        index = b.rng.permutation(n)
    elif way < 0.7:
        index = b.rng.integers(0, n, int(b.pick([n, n, 2, 4])))
    elif way < 0.8:
        index = np.array(b.rng.integers(-n, n))
    elif way < 0.9:
        index = np.sort(b.rng.permutation(n)[: max(1, n // 2)])
    else:
        index = (
            b.rng.integers(0, n, (2, 2)) if b.flip() else b.rng.permutation(n)[: n // 2 * 2].reshape(2, -1)
        )
    return b.op("Gather", x, b.constant(index.astype(np.int64), "i"), axis=k)


@block(1.5)
def pad(b: Builder, x: str) -> str:
    k, rank = b.axis(x, 2), len(b.shape(x))
    amounts = np.zeros((2, rank), np.int64)
    amounts[:, k] = b.pick([(1, 1), (0, 2), (2, 0), (-1, 1), (0, -1)])
    if b.flip(0.2):
        amounts[:, rank - 1] = (1, 1)
    mode = b.pick(["constant"] * 5 + ["reflect", "edge"])
    value = [b.scalar(float(b.pick([0.0, 0.0, 0.7])))] if mode == "constant" and b.flip() else []
    return b.op("Pad", x, b.ints(*amounts.ravel().tolist()), *value, mode=mode)


@block(1)
def depth_space(b: Builder, x: str) -> str:
    kind = b.pick(["DepthToSpace", "SpaceToDepth"])
    return b.op(kind, x, blocksize=2, mode=b.pick(["DCR", "CRD"]) if kind == "DepthToSpace" else None)


# contractions


def affine(b: Builder, x: str, width: int | None = None) -> str:
    """x · W (+ bias) over the last axis."""
    n, m = b.shape(x)[-1], width or b.size()
    spread = n**-0.5
    if b.flip(0.15):  # the other way round
        y = b.op("MatMul", x, b.op("Transpose", b.weight(m, n, spread=spread), perm=[1, 0]))
    else:
        y = b.op("MatMul", x, b.weight(n, m, spread=spread))
    return b.op("Add", y, b.weight(m, spread=0.5)) if b.flip() else y


@block(5)
def linear(b: Builder, x: str) -> str:
    return affine(b, x)


@block(3)
def layer(b: Builder, x: str) -> str:
    return unary(b, affine(b, x))


@block(1)
def mix_rows(b: Builder, x: str) -> str:
    """W · x over the axis before the last."""
    s = b.shape(x)
    if len(s) < 3:
        raise Rejected("rank")
    return b.op("MatMul", b.weight(b.size(), s[-2], spread=s[-2] ** -0.5), x)


@block(2)
def batched(b: Builder, x: str) -> str:
    """x[…, E, T, D] · W[E, D, K], one weight per position of a batch axis."""
    s = b.shape(x)
    if len(s) < 3 or (len(s) == 3 and b.flip(0.7)):
        m = b.size()
        wide = b.op("Unsqueeze", x, b.ints(1))
        y = b.op(
            "MatMul", wide, b.weight(m, *([1] if len(s) == 1 else []), s[-1], b.size(), spread=s[-1] ** -0.5)
        )
        return b.op("Add", y, b.weight(m, 1, b.shape(y)[-1], spread=0.5)) if b.flip() else y
    lead = s[-3] if b.flip(0.7) else 1
    return b.op("MatMul", x, b.weight(lead, s[-1], b.size(), spread=s[-1] ** -0.5))


@block(1)
def gram(b: Builder, x: str) -> str:
    s = b.shape(x)
    if len(s) < 3:
        raise Rejected("rank")
    other = str(b.pick([x, *b.fits(x)]))
    perm = [*range(len(s) - 2), len(s) - 1, len(s) - 2]
    if b.flip():
        return b.op("MatMul", x, b.op("Transpose", other, perm=perm))
    return b.op("MatMul", b.op("Transpose", other, perm=perm), x)


@block(2)
def gemm(b: Builder, x: str) -> str:
    if len(b.shape(x)) != 2:
        x = b.op("Flatten", x, axis=1)
    n, m = b.shape(x)[1], b.size()
    ta, tb = int(b.flip(0.2)), int(b.flip())
    a = b.op("Transpose", x, perm=[1, 0]) if ta else x
    w = b.weight(*((m, n) if tb else (n, m)), spread=n**-0.5)
    bias = [b.weight(*b.pick([(m,), (1, m), (1,)]), spread=0.5)] if b.flip(0.7) else []
    return b.op(
        "Gemm", a, w, *bias, transA=ta, transB=tb, alpha=b.pick([None, 0.5]), beta=b.pick([None, 0.5])
    )


@block(2)
def einsum(b: Builder, x: str) -> str:
    """Contract one or two axes with a weight; it may share further axes as batches."""
    s = b.shape(x)
    letters = "abcdefg"[: len(s)]
    shared = [k for k in range(1, len(s)) if b.flip(0.5)]
    gone = [k for k in shared if b.flip(0.6)]
    word = [letters[k] for k in shared] + (["z"] if b.flip(0.8) else [])
    if not word or not gone:
        raise Rejected("no letters")
    size = {**dict(zip(letters, s, strict=True)), "z": b.size()}
    word = [word[int(i)] for i in b.rng.permutation(len(word))]
    out = [c for c in letters if letters.index(c) not in gone] + (["z"] if "z" in word else [])
    if b.flip(0.4):
        out = [out[0], *(out[1 + int(i)] for i in b.rng.permutation(len(out) - 1))]
    fan = math.prod(s[k] for k in gone)
    w = b.weight(*(size[c] for c in word), spread=fan**-0.5)
    return b.op("Einsum", x, w, equation=f"{letters},{''.join(word)}->{''.join(out)}")


@block(1)
def bilinear(b: Builder, x: str) -> str:
    s = b.shape(x)
    other = str(b.pick([x, *b.fits(x)]))
    if len(s) == 3:
        return b.op(
            "Einsum",
            x,
            other,
            equation=b.pick(["abc,abd->acd", "abc,abc->ab", "abc,adc->abd", "abc,abc->ac"]),
        )
    if len(s) == 2:
        return b.op("Einsum", x, other, equation=b.pick(["ab,ac->abc", "ab,ab->ab"]))
    raise Rejected("rank")


@block(4)
def conv(b: Builder, x: str) -> str:
    s = b.shape(x)
    if len(s) not in (3, 4):
        raise Rejected("rank")
    c, rank = s[1], len(s) - 2
    groups = int(b.pick([1, 1, c, *(g for g in (2, 3, 4) if c % g == 0)]))
    kernel = [int(b.pick([1, 1, 2, 3])) for _ in range(rank)]
    filters = groups * int(b.pick([1, 1, 2, 3])) if groups > 1 else b.size()
    spread = (c // groups * math.prod(kernel)) ** -0.5
    if b.flip(0.25):
        w = b.weight(c, filters // groups, *kernel, spread=spread)
        kind = "ConvTranspose"
    else:
        w = b.weight(filters, c // groups, *kernel, spread=spread)
        kind = "Conv"
    bias = [b.weight(filters, spread=0.5)] if b.flip(0.7) else []
    pads = [k // 2 for k in kernel] * 2 if b.flip() else None
    y = b.op(kind, x, w, *bias, group=groups if groups > 1 else None, pads=pads, kernel_shape=kernel)
    return unary(b, y) if b.flip(0.4) else y


# elementwise

UNARY = (
    "Relu", "Relu", "LeakyRelu", "Tanh", "Tanh", "Sigmoid", "Sin", "Cos", "Erf", "Softplus", "Abs", "Neg",
    "Clip6", "Clip0", "ClipOdd", "Softsign", "Gelu", "HardSwish", "Elu", "Pow2", "Pow3", "Exp", "Sqrt1",
    "Identity", "Square",
)  # fmt: skip


@block(5)
def unary(b: Builder, x: str) -> str:
    kind = str(b.pick(UNARY))
    if kind.startswith("Clip"):
        low, high = {"Clip6": (0.0, 0.8), "Clip0": (0.0, None), "ClipOdd": (-0.5, 0.5)}[kind]
        return b.op("Clip", x, b.scalar(low), *([] if high is None else [b.scalar(high)]))
    if kind.startswith("Pow"):
        return b.op("Pow", x, b.scalar(float(kind[3:])))
    if kind == "Square":
        return b.op("Mul", x, x)
    if kind == "Sqrt1":
        return b.op("Sqrt", b.op("Add", b.op("Mul", x, x), b.scalar(0.3)))
    if kind == "Gelu" and b.opset < 20:
        raise Rejected("opset")
    return b.op(kind, x)


def spelled(b: Builder, x: str, positive: bool = False) -> str:
    """A parameter that broadcasts against x: along one axis, several or all, leading ones dropped or not."""
    s = b.shape(x)
    keep = {b.axis(x, 2)}
    keep |= {k for k in range(1, len(s)) if b.flip(0.15)}
    shape = [n if k in keep else 1 for k, n in enumerate(s)]
    first = min(keep)
    shape = shape[int(b.rng.integers(0, first + 1)) :]
    if b.flip(0.06):
        return b.uniform(shape, float(b.pick([0.0, 1.0]) if not positive else 1.0))
    return b.weight(*shape, spread=0.7, positive=positive)


@block(5)
def with_parameter(b: Builder, x: str) -> str:
    kind = b.pick(["Add", "Add", "Mul", "Mul", "Sub", "RevSub", "Div", "Max", "Min", "PRelu", "Where", "Pow"])
    if kind == "RevSub":
        return b.op("Sub", spelled(b, x), x)
    if kind == "Pow":
        return b.op("Pow", b.op("Add", b.op("Abs", x), b.scalar(0.5)), spelled(b, x, positive=True))
    if kind == "Where":
        over = b.op("Greater", x, b.pick([b.scalar(0.0), spelled(b, x)]))
        return b.op("Where", over, x, spelled(b, x))
    if kind == "Max" and b.flip():
        return b.op(b.pick(["Max", "Min"]), x, b.scalar(0.0))
    return b.op(kind, x, spelled(b, x, positive=kind == "Div"))


@block(5)
def combine(b: Builder, x: str) -> str:
    """Two values of one shape meet; a missing partner is made by moving the entries of x."""
    fits = b.fits(x)
    if fits and b.flip(0.8):
        other = str(b.pick(fits))
    else:
        other = b.pick([shuffle, regroup, gather, transpose, cut])(b, x)
        other = other if isinstance(other, str) else other[0]
        if b.shape(other) != b.shape(x):
            raise Rejected("another shape")
    kind = b.pick(["Add", "Add", "Add", "Mul", "Sub", "Max", "Where", "Sum", "Div"])
    if kind == "Where":
        return b.op("Where", b.op("Less", x, b.scalar(0.1)), x, other)
    if kind == "Sum":
        return b.op("Sum", x, other, x)
    if kind == "Div":
        return b.op("Div", x, b.op("Add", b.op("Abs", other), b.scalar(0.5)))
    pair = [x, other] if b.flip() else [other, x]
    return b.op(kind, *pair)


@block(2)
def broadcast_meet(b: Builder, x: str) -> str:
    """Values of different shapes that broadcast."""
    s = b.shape(x)

    def fit(p: str) -> bool:
        try:
            return p != x and math.prod(np.broadcast_shapes(b.shape(p), s)) < 2000
        except ValueError:
            return False

    fits = [p for p in b.pool if fit(p)]
    if not fits:
        raise Rejected("nothing fits")
    return b.op(b.pick(["Add", "Mul", "Mul", "Sub"]), x, str(b.pick(fits)))


@block(2)
def residual(b: Builder, x: str) -> str:
    y = affine(b, unary(b, affine(b, x)), b.shape(x)[-1])
    return b.op("Add", *([x, y] if b.flip() else [y, x]))


@block(2)
def reduced_gate(b: Builder, x: str) -> str:
    """x · f(mean of x): squeeze and excitation, or a gate from the statistics."""
    axes = sorted({b.axis(x, 2) for _ in range(int(b.pick([1, 2])))})
    g = b.op(b.pick(["ReduceMean", "ReduceMax", "ReduceL2"]), x, b.ints(*axes), keepdims=1)
    return b.op("Mul", x, unary(b, g))


@block(1.5)
def glu(b: Builder, x: str) -> str:
    y = affine(b, x, 2 * b.size())
    p, q = parts_of(b, y, len(b.shape(y)) - 1, 2, True)
    return b.op("Mul", p, b.op(b.pick(["Sigmoid", "Tanh", "Relu", "Identity"]), q))


@block(1)
def constants_only(b: Builder, x: str) -> str:
    """Arithmetic of shared uniform constants, which carry no freedom, meeting x."""
    n = b.shape(x)[-1]
    c = b.uniform((n,), 0.0)
    y = b.op(b.pick(["Add", "Mul"]), x, c) if b.flip(0.3) else x
    z = b.op(b.pick(["Exp", "Cos", "Sigmoid", "Softplus"]), c)
    return b.op(b.pick(["Add", "Mul", "Sub", "Max"]), y, z)


# normalization, reductions, pooling


@block(4)
def normalize(b: Builder, x: str) -> str:
    s = b.shape(x)
    c, last = s[1], s[-1]
    kind = b.pick(
        [
            "batch",
            "layer",
            "layer",
            "instance",
            "group",
            "group",
            "rms",
            "spelled rms",
            "spelled layer",
            "softmax",
            "softmax",
            "lp",
            "mvn",
        ]
    )
    if kind == "batch":
        mean = b.uniform((c,), 0.0) if b.flip(0.2) else b.weight(c, spread=0.3)
        var = b.uniform((c,), float(b.pick([0.0, 1.0]))) if b.flip(0.15) else b.weight(c, positive=True)
        epsilon = 0.5 if (b.value[var] == 0).any() else None
        return b.op("BatchNormalization", x, b.weight(c), b.weight(c), mean, var, epsilon=epsilon)
    if kind == "layer":
        k = int(b.rng.integers(1, len(s))) if b.flip(0.3) else len(s) - 1
        bias = [b.weight(*s[k:], spread=0.5)] if b.flip() else []
        return b.op("LayerNormalization", x, b.weight(*s[k:]), *bias, axis=k if b.flip() else k - len(s))
    if kind == "instance":
        return b.op("InstanceNormalization", x, b.weight(c), b.weight(c))
    if kind == "group":
        g = int(b.pick([g for g in range(1, c + 1) if c % g == 0]))
        n = g if b.opset < 21 else c
        return b.op("GroupNormalization", x, b.weight(n), b.weight(n), num_groups=g)
    if kind == "rms":
        return b.op("RMSNormalization", x, b.weight(last), axis=-1)
    if kind == "spelled rms":
        mean = b.op("ReduceMean", b.op("Pow", x, b.scalar(2.0)), b.ints(-1), keepdims=1)
        root = b.op("Sqrt", b.op("Add", mean, b.scalar(1e-2)))
        y = b.op("Div", x, root) if b.flip() else b.op("Mul", x, b.op("Reciprocal", root))
        return b.op("Mul", b.weight(last), y)
    if kind == "spelled layer":
        centred = b.op("Sub", x, b.op("ReduceMean", x, b.ints(-1), keepdims=1))
        var = b.op("ReduceMean", b.op("Mul", centred, centred), b.ints(-1), keepdims=1)
        y = b.op("Div", centred, b.op("Sqrt", b.op("Add", var, b.scalar(1e-2))))
        return b.op("Add", b.op("Mul", y, b.weight(last)), b.weight(last))
    if kind == "softmax":
        return b.op(b.pick(["Softmax", "Softmax", "LogSoftmax"]), x, axis=b.axis(x, 2))
    if kind == "lp":
        return b.op("LpNormalization", x, axis=b.axis(x, 2), p=int(b.pick([1, 2])))
    return b.op("MeanVarianceNormalization", x, axes=sorted({b.axis(x, 2), b.axis(x, 2)}))


@block(2)
def reduce(b: Builder, x: str) -> str:
    kinds = [
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
        "ReduceLogSumExp",
    ]
    axes = sorted({b.axis(x, 1, free=False) for _ in range(int(b.pick([1, 1, 2])))})
    return b.op(b.pick(kinds), x, b.ints(*axes), keepdims=int(b.flip()))


@block(1.5)
def pool(b: Builder, x: str) -> str:
    rank = len(b.shape(x)) - 2
    kind = b.pick(["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "Resize"])
    if rank not in (1, 2):
        raise Rejected("rank")
    if kind == "Resize":
        scales = b.constant(np.array([1, 1] + [2] * rank, np.float32))
        return b.op("Resize", x, "", scales, mode="nearest")
    if kind.startswith("Global"):
        return b.op(kind, x)
    strides = [int(b.pick([1, 2]))] * rank
    return b.op(kind, x, kernel_shape=[2] * rank, strides=strides)


@block(0.4)
def ordered(b: Builder, x: str) -> str:
    k = b.axis(x, 2, free=False)
    kind = b.pick(["CumSum", "TopK", "LRN"])
    if kind == "CumSum":
        return b.op("CumSum", x, b.constant(np.array(k, np.int64), "i"))
    if kind == "LRN":
        return b.op("LRN", x, size=3)
    return b.ops("TopK", x, b.ints(2), outputs=2, keep=[0], axis=k)[0]


# larger pieces


def sequence(b: Builder, x: str) -> str:
    """A value of rank 3, made from x."""
    s = b.shape(x)
    if len(s) == 3:
        return mix_rows(b, x) if b.flip(0.25) else x  # type: ignore[return-value]
    if len(s) == 4:
        return reshaped(b, b.op("Transpose", x, perm=[0, 2, 3, 1]), (s[0], s[2] * s[3], s[1]))
    if len(s) == 2 and s[1] % 2 == 0:
        return reshaped(b, x, (s[0], 2, s[1] // 2))
    raise Rejected("rank")


@block(3)
def attention(b: Builder, x: str) -> str:
    """Multi-head attention spelled out, in one of many spellings."""
    x = sequence(b, x)
    n, t, c = b.shape(x)
    heads, d = int(b.pick([2, 2, 3, 4])), int(b.pick([2, 4]))
    shared = int(b.pick([g for g in (1, 1, 2, 3) if heads % g == 0]))  # query heads per key head
    e, kv = heads * d, heads // shared * d
    way = b.pick(["separate", "split", "slices", "stacked", "einsum"])

    def headed(y: str, h: int) -> str:
        return b.op("Transpose", reshaped(b, y, (n, t, h, d)), perm=[0, 2, 1, 3])

    if way == "stacked" and shared == 1:
        order = b.pick([(3, heads, d), (heads, 3, d), (heads, d, 3)])
        y = reshaped(b, affine(b, x, 3 * e), (n, t, *order))
        at = 2 + order.index(3) if order.count(3) == 1 else 2
        y = b.op("Transpose", y, perm=[at, 0, *(j for j in (1, 2, 3, 4) if j != at)])
        thirds = [b.op("Gather", y, b.constant(np.array(j), "i"), axis=0) for j in range(3)]
        if b.shape(thirds[0]) != (n, t, heads, d):
            raise Rejected("order")
        q, k, v = (b.op("Transpose", z, perm=[0, 2, 1, 3]) for z in thirds)
    elif way == "einsum":
        q, k, v = (
            b.op("Einsum", x, b.weight(c, h, d, spread=c**-0.5), equation="ntc,chd->nhtd")
            for h in (heads, heads // shared, heads // shared)
        )
    else:
        if way == "separate":
            q, k, v = affine(b, x, e), affine(b, x, kv), affine(b, x, kv)
        else:
            y = affine(b, x, e + 2 * kv)
            if way == "split":
                q, k, v = b.ops("Split", y, b.ints(e, kv, kv), outputs=3, axis=2)
            else:
                q, k, v = (sliced(b, y, 2, p, r) for p, r in ((0, e), (e, e + kv), (e + kv, e + 2 * kv)))
        q, k, v = headed(q, heads), headed(k, heads // shared), headed(v, heads // shared)
    if b.flip(0.25):  # positions turn pairs
        half = d // 2

        def turned(z: str) -> str:
            p, r = sliced(b, z, 3, 0, half), sliced(b, z, 3, half, 9999)
            flipped = b.op("Concat", b.op("Neg", r), p, axis=3)
            angle = b.rng.uniform(0, 3, (t, half))
            cos, sin = (b.constant(np.tile(f(angle), 2).astype(b.dtype), "r") for f in (np.cos, np.sin))
            return b.op("Add", b.op("Mul", z, cos), b.op("Mul", flipped, sin))

        q, k = turned(q), turned(k)
    if b.flip(0.2):  # norms per head
        q, k = (b.op("LayerNormalization", z, b.weight(d), axis=-1) for z in (q, k))
    if shared > 1:

        def repeated(z: str) -> str:
            wide = b.op("Unsqueeze", z, b.ints(2))
            wide = b.op("Expand", wide, b.ints(1, 1, shared, 1, 1))
            return reshaped(b, wide, (n, heads, t, d))

        k, v = repeated(k), repeated(v)
    flat = b.flip(0.2)
    if flat:  # batch and heads in one axis
        q, k, v = (reshaped(b, z, (n * heads, t, d)) for z in (q, k, v))
        score = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 2, 1]))
    else:
        score = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2]))
        if b.flip(0.2):
            score = b.op("Mul", score, b.weight(heads, 1, 1))
    if b.flip(0.8):
        score = b.op("Softmax", b.op("Mul", score, b.scalar(d**-0.5)), axis=-1)
    y = b.op("MatMul", score, v)
    if flat:
        y = reshaped(b, y, (n, heads, t, d))
    y = reshaped(b, b.op("Transpose", y, perm=[0, 2, 1, 3]), (n, t, e))
    y = affine(b, y, c)
    return b.op("Add", x, y) if b.flip() else y


@block(2)
def fused(b: Builder, x: str) -> str:
    """Operators that fuse several: the standard's attention, onnxruntime's own."""
    kind = b.pick(["Attention", "Attention", "skip", "matmul", "gelu"])
    if kind == "skip":
        x = sequence(b, x)
        other = str(b.pick([*b.fits(x), unary(b, x)]))
        c = b.shape(x)[-1]
        simple = b.flip(0.3)
        more = (
            [b.weight(c)]
            + ([] if simple else [b.weight(c)])
            + ([b.weight(c, spread=0.3)] if b.flip() else [])
        )
        name = "SkipSimplifiedLayerNormalization" if simple else "SkipLayerNormalization"
        outputs = b.ops(name, x, other, *more, outputs=4, keep=[0, 3] if b.flip() else [0], domain=CONTRIB)
        return str(b.pick(outputs))
    if kind == "matmul":
        s = b.shape(x)
        k = s[-1]
        if b.flip(0.3):
            perm = [*range(len(s) - 2), len(s) - 1, len(s) - 2]
            return b.op(
                "FusedMatMul",
                b.op("Transpose", x, perm=perm),
                b.weight(k, b.size()),
                transA=1,
                domain=CONTRIB,
            )
        return b.op(
            "FusedMatMul", x, b.weight(b.size(), k, spread=k**-0.5), transB=1, alpha=0.5, domain=CONTRIB
        )
    if kind == "gelu":
        name = str(b.pick(["QuickGelu", "FastGelu", "BiasGelu"]))
        bias = [] if name == "QuickGelu" else [b.weight(b.shape(x)[-1], spread=0.5)]
        return b.op(name, x, *bias, domain=CONTRIB)
    x = sequence(b, x)
    n, t, c = b.shape(x)
    heads, d, v = int(b.pick([2, 3, 4])), int(b.pick([2, 4])), int(b.pick([2, 3]))
    few = int(b.pick([g for g in (heads, heads, 1, 2) if heads % g == 0]))
    widths = (heads * d, few * d, few * v)
    qkv = [affine(b, x, w) for w in widths]
    counts: dict[str, Any] = {"q_num_heads": heads, "kv_num_heads": few}
    if b.flip(0.4):
        sizes = ((heads, d), (few, d), (few, v))
        qkv = [
            b.op("Transpose", reshaped(b, y, (n, t, *s)), perm=[0, 2, 1, 3])
            for y, s in zip(qkv, sizes, strict=True)
        ]
        counts = {}
    if b.flip(0.5):
        shapes = [(t, t), (1, 1, t, t), (1, heads, t, t), (n, 1, t, t), (n, heads, t, t)]
        qkv.append(b.weight(*b.pick(shapes)))
    if b.flip(0.3):
        counts["is_causal"] = 1
    y = b.op("Attention", *qkv, **counts)
    if len(b.shape(y)) == 4:
        y = reshaped(b, b.op("Transpose", y, perm=[0, 2, 1, 3]), (n, t, heads * v))
    return y


@block(2.5)
def recurrent(b: Builder, x: str) -> str:
    x = b.op("Transpose", sequence(b, x), perm=[1, 0, 2])
    t, n, c = b.shape(x)
    kind = str(b.pick(["LSTM", "GRU", "RNN"]))
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    d, h = int(b.pick([1, 2])), int(b.pick([1, 2, 3, 4, 6]))
    inputs = [x, b.weight(d, gates * h, c, spread=c**-0.5), b.weight(d, gates * h, h, spread=h**-0.5)]
    inputs.append("" if b.flip(0.3) else b.weight(d, 2 * gates * h, spread=0.5))
    if b.flip(0.12):
        inputs[-1] = b.uniform((d, 2 * gates * h), float(b.pick([0.0, 0.1])))
    if b.flip(0.3):
        inputs += ["", b.weight(d, n, h)]
        if kind == "LSTM" and b.flip():
            inputs += [b.weight(d, n, h)]
            if b.flip():
                inputs += [b.weight(d, 3 * h)]
    more: dict[str, Any] = {"direction": "bidirectional"} if d == 2 else {}
    if kind == "GRU":
        more["linear_before_reset"] = int(b.flip())
    if kind == "RNN" and b.flip(0.2):
        more["activations"] = ["Relu"] * d
    if b.flip(0.7):
        y = b.ops(kind, *inputs, outputs=1, hidden_size=h, **more)[0]
        return reshaped(b, b.op("Transpose", y, perm=[2, 0, 1, 3]), (n, t, d * h))
    y = b.ops(kind, *inputs, outputs=2, keep=[1], hidden_size=h, **more)[0]
    return reshaped(b, b.op("Transpose", y, perm=[1, 0, 2]), (n, d * h))


@block(1.5)
def experts(b: Builder, x: str) -> str:
    """A mixture of experts whose weights are stacked."""
    s = b.shape(x)
    if len(s) > 3:
        raise Rejected("rank")
    c, e, h, m = s[-1], int(b.pick([2, 3, 4])), b.size(), b.size()
    lead = "ab"[: len(s) - 1]
    w1, w2 = b.weight(e, c, h, spread=c**-0.5), b.weight(e, h, m, spread=h**-0.5)
    gate = b.op("Softmax", b.op("MatMul", x, b.weight(c, e)), axis=-1)
    y = b.op("Einsum", x, w1, equation=f"{lead}x,exh->{lead}eh")
    if b.flip():
        y = b.op("Add", y, b.weight(e, h, spread=0.5))
    y = unary(b, y)
    if b.flip():
        y = b.op("Einsum", y, w2, equation=f"{lead}eh,ehm->{lead}em")
        return b.op("Einsum", y, gate, equation=f"{lead}em,{lead}e->{lead}m")
    return b.op("Einsum", y, w2, gate, equation=f"{lead}eh,ehm,{lead}e->{lead}m")


@block(1)
def tied(b: Builder, x: str) -> str:
    """Looked-up rows of a table that also projects back."""
    c = b.shape(x)[-1]
    tables = [n for n, a in b.initializers.items() if n[0] == "w" and a.ndim == 2 and a.shape[1] == c]
    table = str(b.pick(tables)) if tables and b.flip(0.8) else b.weight(b.size(), c, spread=c**-0.5)
    if b.flip():
        return b.op("MatMul", x, b.op("Transpose", table, perm=[1, 0]))
    rows = b.rng.integers(0, b.shape(table)[0], b.shape(x)[-2] if len(b.shape(x)) > 2 else 1)
    return b.op("Add", x, b.op("Gather", table, b.ints(*map(int, rows)), axis=0))


@block(1)
def project_back(b: Builder, x: str) -> str:
    """To the width of an earlier value of the same leading shape, and added to it."""
    fits = [p for p in b.pool if b.shape(p)[:-1] == b.shape(x)[:-1] and p != x]
    if not fits:
        raise Rejected("nothing fits")
    other = str(b.pick(fits))
    return b.op("Add", affine(b, x, b.shape(other)[-1]), other)


# -- graphs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A model with inputs to run it on."""

    proto: onnx.ModelProto
    feeds: list[Feeds]


def _inputs(b: Builder) -> None:
    shape = b.pick(
        [
            (3, b.size()),
            (2, b.size(), b.size()),
            (2, 4, b.size()),
            (2, b.size(), 4, 4),
            (2, b.size(), 6),
            (2, 1, 4, 6),
        ]
    )
    b.inputs["x"] = b.value["x"] = b.rng.normal(0, 1, shape).astype(b.dtype)
    if b.flip(0.15):
        ids = b.rng.integers(0, 5, (shape[0], int(b.pick([3, 4, 6]))))
        b.inputs["ids"] = b.value["ids"] = ids
        b.pool.append(b.op("Gather", b.weight(5, b.size()), "ids", axis=0))


def generate(seed: int) -> Case:
    """A random graph with finite outputs, the same for the same seed."""
    rng = np.random.default_rng([seed, 20240])
    while True:
        case = _grown(rng)
        if all(np.isfinite(x).all() for row in outputs_of(case, case.proto) for x in row):
            return case


def _grown(rng: np.random.Generator) -> Case:
    b = Builder(rng, np.float32 if rng.random() < 0.45 else np.float64, int(rng.choice(OPSETS)))
    while not b.pool:
        try:
            _inputs(b)
            first = conv(b, "x") if len(b.shape("x")) == 4 and b.flip(0.7) else affine(b, "x")
            b.pool.append(b.tame(first))
        except Rejected:
            b = Builder(rng, b.dtype, b.opset)
    weights = np.array([w for w, _ in BLOCKS])
    goal, tries = int(rng.integers(3, 13)), 0
    while goal and tries < 60:
        tries += 1
        recent = b.pool[-4:] if b.flip(0.8) else b.pool
        x = str(b.pick(recent))
        made = b.attempt(BLOCKS[int(rng.choice(len(BLOCKS), p=weights / weights.sum()))][1], x)
        b.pool.extend(made)
        goal -= bool(made)
    outputs = _outputs(b)
    return _case(b, outputs)


def _outputs(b: Builder) -> list[str]:
    """Read what was not read yet, mostly through one more projection, rarely as it is."""
    read = {n for node in b.nodes for n in node.input}
    leaves = [p for p in b.pool if p not in read]
    rng = b.rng
    leaves = [p for p in leaves if rng.random() < 0.85] or leaves[-1:]
    outs: list[str] = []
    for leaf in leaves[-5:]:
        way = rng.random()
        if way < 0.07:
            made = [leaf]
        elif way < 0.6:
            made = b.attempt(lambda b, x: affine(b, x, 3), leaf)
        elif way < 0.75:
            made = b.attempt(without_rows, leaf)
        elif way < 0.9:
            made = b.attempt(
                lambda b, x: b.op("ReduceMean", unary(b, x), b.ints(*range(1, len(b.shape(x)))), keepdims=0),
                leaf,
            )
        else:
            made = b.attempt(lambda b, x: gemm(b, x), leaf)
        outs.extend(made or [leaf])
    if len(outs) > 1 and rng.random() < 0.5:
        outs = outs[-1:]  # the others are dead branches
    return list(dict.fromkeys(outs))


def without_rows(b: Builder, x: str) -> str:
    """A projection, then sums over everything between the batch and the last axis."""
    y = affine(b, x, 3)
    axes = range(1, len(b.shape(y)) - 1)
    return b.op(b.pick(["ReduceMean", "ReduceMax"]), y, b.ints(*axes), keepdims=0) if axes else y


def _case(b: Builder, outputs: list[str]) -> Case:
    def feeds(batch: int | None) -> Feeds:
        made = {}
        for n, a in b.inputs.items():
            shape = a.shape if batch is None else (batch, *a.shape[1:])
            made[n] = (
                b.rng.integers(0, 5, shape)
                if a.dtype.kind == "i"
                else b.rng.normal(0, 1, shape).astype(a.dtype)
            )
        return made

    if b.flip(0.5):
        case = Case(b.model(outputs, dynamic=True), [feeds(None), feeds(5)])
        try:
            for f in case.feeds:
                run(case.proto, f)
            return case
        except Exception:  # the batch is baked into the graph
            pass
    return Case(b.model(outputs, dynamic=False), [feeds(None), feeds(None)])


# -- checking ---------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What a check found: `problem` is empty for a graph that passes."""

    problem: str = ""
    permuted: bool = False
    scaled: bool = False
    flipped: bool = False
    control: bool | None = None  # whether half of the transform changed the outputs
    barriers: list[str] = field(default_factory=list)
    error: float = 0.0


def difference(one: Sequence[Array], other: Sequence[Array]) -> float:
    """Largest difference relative to the largest entry of each output."""
    worst = 0.0
    for p, q in zip(one, other, strict=True):
        if p.shape != q.shape:
            return math.inf
        if p.dtype.kind != "f":
            worst = max(worst, float(not np.array_equal(p, q)))
            continue
        if not np.isfinite(q).all():
            return math.inf
        top = max(float(np.abs(p).max(initial=0.0)), 1e-3)
        worst = max(worst, float(np.abs(p.astype(np.float64) - q).max(initial=0.0)) / top)
    return worst


def outputs_of(case: Case, proto: onnx.ModelProto) -> list[list[Array]]:
    running = session(proto.SerializeToString())
    return [[np.asarray(x) for x in running.run(None, f)] for f in case.feeds]


def worst_difference(one: list[list[Array]], other: list[list[Array]]) -> float:
    return max(difference(p, q) for p, q in zip(one, other, strict=True))


def check(case: Case, seed: int = 0) -> Report:
    """Analyze, transform, compare. Every exception of ours is a finding, of onnxruntime too."""
    rng = np.random.default_rng([seed, 7])
    try:
        model = load(case.proto)
        found = symmetry(model)
        report = _report(found)
        if found.solution.defects:
            report.problem = f"defect: {found.solution.defects[0]}"
            return report
        if any(b.reason == OTHER_SHAPE for b in found.trace.barriers):
            report.problem = "a rule and shape inference differ"
            return report
        whole = found.random(rng)
        report.problem = _algebra(case, found, whole, rng)
        if report.problem:
            return report
        before = outputs_of(case, case.proto)
        report.error = worst_difference(before, outputs_of(case, whole.apply(model).to_proto()))
        if report.error > TOLERANCE["float64" if _in_double(case) else "float32"]:
            report.problem = f"mismatch: {_magnitude(report.error)}"
        elif len(whole.actions) > 1:
            report.control = _control(case, whole, before, rng)
    except Exception as error:  # whatever it is, it is a finding
        return Report(f"{type(error).__name__}: {str(error)[:200]}")
    return report


def _magnitude(error: float) -> str:
    return "not finite" if not math.isfinite(error) else f"about 1e{round(math.log10(error))}"


def _in_double(case: Case) -> bool:
    """Whether the graph computes in double precision throughout."""
    kinds = {a.dtype.name for a in (*case.feeds[0].values(), *_tensors(case).values())}
    single = {
        "GroupNormalization",
        "LayerNormalization",
        "RMSNormalization",
    }  # stage one is in single precision
    return "float64" in kinds and not any(n.op_type in single for n in case.proto.graph.node)


def _report(found: Symmetry) -> Report:
    scales, signs = found.acting
    return Report(
        permuted=bool(found.solution.orbits), scaled=bool(scales.any()), flipped=bool(signs.any()),
        barriers=[f"{x.operator}: {x.reason}" for x in found.trace.barriers],
    )  # fmt: skip


def _algebra(case: Case, found: Symmetry, whole: Transform, rng: np.random.Generator) -> str:
    """Inverse and composition, bit for bit (all factors are powers of two)."""
    model = load(case.proto)
    back = whole.apply(model)
    back = whole.inverse().apply(back)
    composed = whole.then(whole.inverse()).apply(model)
    still = found.random(rng, scale=False, sign=False)
    again = still.inverse().apply(still.apply(model))
    for name in whole.actions:
        want = model.tensor(name)
        for what, other in (("undoing it", back), ("composing it with its inverse", composed)):
            if not np.array_equal(want, other.tensor(name)):
                return f"algebra: {what} does not give the model back"
    for name in still.actions:
        if model.tensor(name).tobytes() != again.tensor(name).tobytes():
            return "algebra: undoing a permutation does not give the bytes back"
    other = found.random(rng)
    two = other.apply(whole.apply(model))
    one = whole.then(other).apply(model)
    for name in {*whole.actions, *other.actions}:
        if not np.array_equal(two.tensor(name), one.tensor(name)):
            return "algebra: composing is not applying one after the other"
    return ""


def _control(case: Case, whole: Transform, before: list[list[Array]], rng: np.random.Generator) -> bool:
    """Whether some proper part of the transform changes the outputs, as it should."""
    names = sorted(whole.actions)
    for _ in range(3):
        chosen = rng.permutation(names)[: max(1, len(names) // 2)].tolist()
        half = Transform({n: whole.actions[n] for n in chosen}, whole.model)
        try:
            if worst_difference(before, outputs_of(case, half.apply(load(case.proto)).to_proto())) > 1e-4:
                return True
        except Exception:
            return True
    return False


# -- minimizing -------------------------------------------------------------------------------------------


def minimize(case: Case, fails: Callable[[Case], bool]) -> Case:
    """Cut nodes from a failing case as long as it fails: fewer outputs, inputs in the middle, shortcuts."""
    case = _pruned(case, [o.name for o in case.proto.graph.output])
    changed = True
    while changed:
        changed = False
        for smaller in _smaller(case):
            if len(smaller.proto.graph.node) < len(case.proto.graph.node) and fails(smaller):
                case, changed = smaller, True
                break
    return case


def _values(case: Case) -> Feeds:
    """Every value in the graph for the first feed."""
    every = onnx.ModelProto()
    every.CopyFrom(case.proto)
    del every.graph.output[:]
    names = [n for node in every.graph.node for n in node.output if n]
    every.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
    return dict(zip(names, run(every, case.feeds[0]), strict=True))


def _smaller(case: Case) -> Iterable[Case]:
    outputs = [o.name for o in case.proto.graph.output]
    if len(outputs) > 1:
        for o in outputs:
            yield _pruned(case, [p for p in outputs if p != o])
    try:
        values = _values(case)
    except Exception:
        return
    static = _static(case)
    floats = {n for n, a in values.items() if a.dtype.kind == "f"}
    for node in reversed(static.proto.graph.node):  # start in the middle
        for n in node.output:
            if n in floats:
                yield _from(static, n, values[n])
    for node in static.proto.graph.node:  # leave a node out
        for n in node.output:
            for source in node.input:
                known = {**values, **case.feeds[0], **_tensors(case)}
                if n in floats and source in known and known[source].shape == values[n].shape:
                    yield _renamed(static, n, source)


def _tensors(case: Case) -> Feeds:
    return {t.name: numpy_helper.to_array(t) for t in case.proto.graph.initializer}


def _static(case: Case) -> Case:
    proto = onnx.ModelProto()
    proto.CopyFrom(case.proto)
    for value in proto.graph.input:
        shape = case.feeds[0][value.name].shape
        kind = value.type.tensor_type.elem_type
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, shape))
    return Case(proto, case.feeds[:1])


def _from(case: Case, name: str, value: Array) -> Case:
    """The same graph with one value given as an input."""
    proto = onnx.ModelProto()
    proto.CopyFrom(case.proto)
    for node in proto.graph.node:
        for k, n in enumerate(node.output):
            if n == name:
                node.output[k] = f"{n}_gone"
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    proto.graph.input.append(helper.make_tensor_value_info(name, kind, value.shape))
    fresh = Case(proto, [{**f, name: value} for f in case.feeds])
    return _pruned(fresh, [o.name for o in proto.graph.output])


def _renamed(case: Case, name: str, source: str) -> Case:
    """The same graph reading another value of the same shape."""
    proto = onnx.ModelProto()
    proto.CopyFrom(case.proto)
    for node in proto.graph.node:
        for k, n in enumerate(node.input):
            if n == name:
                node.input[k] = source
    return _pruned(Case(proto, case.feeds), [o.name for o in proto.graph.output])


def _pruned(case: Case, outputs: Sequence[str]) -> Case:
    """Only what the outputs need."""
    needed, nodes = set(outputs), []
    for node in reversed(case.proto.graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed |= set(node.input)
    graph = case.proto.graph
    small = helper.make_graph(
        nodes[::-1], graph.name, [i for i in graph.input if i.name in needed],
        [o for o in graph.output if o.name in outputs], [t for t in graph.initializer if t.name in needed],
    )  # fmt: skip
    feeds = [{n: a for n, a in f.items() if n in needed} for f in case.feeds]
    return Case(model_of(small, case.proto.opset_import[0].version), feeds)


def describe(case: Case) -> str:
    """The graph in a few lines, constants of indices written out."""
    tensors = _tensors(case)
    lines = [f"opset {case.proto.opset_import[0].version}"]
    for value in case.proto.graph.input:
        dims = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        lines.append(f"  input {value.name} {dims}")
    for name, a in tensors.items():
        text = a.tolist() if a.dtype == np.int64 or a.size == 1 or (a == a.flat[0]).all() else a.dtype
        lines.append(f"  {name} {list(a.shape)} {text}")
    try:
        values = _values(case)
    except Exception:
        values = {}
    for node in case.proto.graph.node:
        attributes = ", ".join(
            f"{a.name}={'…' if a.name == 'value' else helper.get_attribute_value(a)}" for a in node.attribute
        )
        shapes = [list(values[o].shape) if o in values else "?" for o in node.output if o]
        lines.append(
            f"  {', '.join(node.output)} = {node.op_type}({', '.join(node.input)}) {attributes} {shapes}"
        )
    lines.append(f"  outputs {[o.name for o in case.proto.graph.output]}")
    return "\n".join(lines)


def same_failure(problem: str, seed: int) -> Callable[[Case], bool]:
    """Whether another case fails in the same way, for any of a few random elements."""
    kind = problem.split(":")[0]

    def fails(case: Case) -> bool:
        return any(check(case, seed + k).problem.startswith(kind) for k in range(3))

    return fails


@dataclass
class Tally:
    """Counts over many graphs."""

    graphs: int = 0
    permuted: int = 0
    scaled: int = 0
    flipped: int = 0
    controlled: int = 0
    vacuous: int = 0
    worst: float = 0.0
    operators: Counter[str] = field(default_factory=Counter)
    barriers: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[int, str]] = field(default_factory=list)

    def add(self, seed: int, case: Case, report: Report) -> None:
        self.graphs += 1
        self.permuted += report.permuted
        self.scaled += report.scaled
        self.flipped += report.flipped
        self.controlled += report.control is True
        self.vacuous += report.control is False
        if not report.problem:
            self.worst = max(self.worst, report.error)
        self.operators.update({n.op_type for n in case.proto.graph.node})
        self.barriers.update(set(report.barriers))
        if report.problem:
            self.findings.append((seed, report.problem))

    def __str__(self) -> str:
        n = max(self.graphs, 1)
        return (
            f"{self.graphs} graphs, {len(self.findings)} findings; permutations {self.permuted / n:.0%}, "
            f"scales {self.scaled / n:.0%}, signs {self.flipped / n:.0%}; "
            f"control noticed {self.controlled / n:.0%}, vacuous {self.vacuous / n:.0%}; "
            f"largest difference {self.worst:.1e}"
        )


def fuzz(seeds: Iterable[int], report: Callable[[int, Case, Report], None] | None = None) -> Tally:
    """Check a graph for each seed."""
    tally = Tally()
    for seed in seeds:
        case = generate(seed)
        result = check(case, seed)
        tally.add(seed, case, result)
        if result.problem and report is not None:
            report(seed, case, result)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="the first seed; graph k has seed + k")
    parser.add_argument("--only", type=int, nargs="*", help="just these seeds")
    parser.add_argument("--minimize", action="store_true", help="cut failing graphs down")
    parser.add_argument("--counts", action="store_true", help="list operators and barriers")
    options = parser.parse_args()
    start = time.perf_counter()

    def show(seed: int, case: Case, result: Report) -> None:
        print(f"seed {seed}: {result.problem}", flush=True)
        if options.minimize:
            print(describe(minimize(case, same_failure(result.problem, seed))), flush=True)

    tally = fuzz(options.only or range(options.seed, options.seed + options.graphs), show)
    if options.counts:
        for counts in (tally.operators, tally.barriers):
            print(", ".join(f"{k} {n}" for k, n in counts.most_common()))
    print(f"{tally}; {time.perf_counter() - start:.0f} s")
    raise SystemExit(bool(tally.findings))


if __name__ == "__main__":
    main()
