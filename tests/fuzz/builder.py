"""A random graph that grows node by node; every node is run as it is added."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

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
def _single(
    node: bytes, dtypes: tuple[tuple[str, str], ...], opset: int, functions: tuple[bytes, ...]
) -> ort.InferenceSession:
    """Runs one node; `dtypes` names its inputs and what its subgraphs capture."""
    made = onnx.NodeProto.FromString(node)
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.dtype(d)), None)
        for n, d in dtypes
    ]
    outputs = [onnx.ValueInfoProto(name=n) for n in made.output if n]
    graph = helper.make_graph([made], "single", inputs, outputs)
    known = [onnx.FunctionProto.FromString(f) for f in functions]
    return session(model_of(graph, opset, known).SerializeToString())


def model_of(
    graph: onnx.GraphProto, opset: int, functions: Sequence[onnx.FunctionProto] = ()
) -> onnx.ModelProto:
    imports = [helper.make_opsetid("", opset)]
    domains = {n.domain for block in (graph, *functions) for n in nodes_in(block)} - {""}
    imports += [helper.make_opsetid(domain, 1) for domain in sorted(domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, functions=functions)


def nodes_in(block: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of graphs within nodes included."""
    for node in block.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes_in(attribute.g)


def captures(graph: onnx.GraphProto) -> list[str]:
    """The outer values that a subgraph reads."""
    own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    read: dict[str, None] = {}
    for node in graph.node:
        inner = [n for a in node.attribute if a.HasField("g") for n in captures(a.g)]
        read |= dict.fromkeys(n for n in (*node.input, *inner) if n and n not in own)
        own |= set(node.output)
    return list(read)


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
    functions: list[onnx.FunctionProto] = field(default_factory=list)

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
        domain = attributes.get("domain", CONTRIB) != CONTRIB
        unique = list(dict.fromkeys(n for n in inputs if n))
        short = {n: f"in_{k}" for k, n in enumerate(unique)}
        shadow = helper.make_node(
            kind,
            [short.get(n, "") for n in inputs],
            [f"out_{k}" if k in wanted else "" for k in range(outputs)],
            **attributes,
        )
        graphs = [a for a in attributes.values() if isinstance(a, onnx.GraphProto)]
        feeds = {short[n]: self.value[n] for n in unique}
        feeds |= {n: self.value[n] for g in graphs for n in captures(g)}
        try:
            dtypes = tuple((n, str(a.dtype)) for n, a in feeds.items())
            known = self.functions if graphs or domain else []
            functions = tuple(f.SerializeToString() for f in known)
            single = _single(shadow.SerializeToString(), dtypes, self.opset, functions)
            results = single.run(None, feeds)
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
        marks = len(self.nodes), set(self.initializers), set(self.value), len(self.functions)
        try:
            made = block(self, x)
            made = [made] if isinstance(made, str) else made
            if any(len(self.shape(m)) < 2 for m in made):
                raise Rejected("rank")
            return [self.tame(m) for m in made]
        except Rejected:
            del self.nodes[marks[0] :], self.functions[marks[3] :]
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
        graph = helper.make_graph(self.nodes, "fuzzed", inputs, outs, tensors)
        return model_of(graph, self.opset, self.functions)

    # bodies

    def inside(self, given: Feeds, captured: bool = True) -> Builder:
        """A builder for a body with these inputs, which may also read what is known outside."""
        body = Builder(self.rng, self.dtype, self.opset, names=self.names, functions=self.functions)
        if captured:
            body.initializers, body.value = dict(self.initializers), dict(self.value)
        body.value |= given
        body.pool = list(given)
        return body

    def closed(self, body: Builder, given: Iterable[str], outputs: Iterable[str]) -> onnx.GraphProto:
        """The body as a graph."""

        def info(name: str) -> onnx.ValueInfoProto:
            array = body.value[name]
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            return helper.make_tensor_value_info(name, kind, [None] * array.ndim)

        self.names = body.names
        own = {n: a for n, a in body.initializers.items() if n not in self.initializers}
        tensors = [numpy_helper.from_array(a, n) for n, a in own.items()]
        made, ends = [info(n) for n in given], [info(n) for n in outputs]
        return helper.make_graph(body.nodes, self.name("body"), made, ends, tensors)
