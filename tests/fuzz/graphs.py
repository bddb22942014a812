"""Random graphs: blocks on a pool of values, and inputs to run them on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail as LoadFailure

from onnxcanon.graph.traits import Trait, has
from tests.fuzz.blocks import BLOCKS
from tests.fuzz.blocks.contraction import affine, conv, gemm
from tests.fuzz.blocks.elementwise import unary
from tests.fuzz.builder import OPSETS, Array, Builder, Feeds, Rejected, nodes_in, run, session

SPREAD = 0.02
"""The least deviation, relative to the mean, whose square single precision keeps to about 1e-4."""


@dataclass(frozen=True)
class Case:
    """A model with inputs to run it on."""

    proto: onnx.ModelProto
    feeds: list[Feeds]


def outputs_of(case: Case, proto: onnx.ModelProto) -> list[list[Array]]:
    running = session(proto.SerializeToString())
    return [[np.asarray(x) for x in running.run(None, f)] for f in case.feeds]


def tensors(case: Case) -> Feeds:
    """The initializers by name."""
    return {t.name: numpy_helper.to_array(t) for t in case.proto.graph.initializer}


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
        try:
            outputs = outputs_of(case, case.proto)
        except LoadFailure:  # every node runs alone, and yet the runtime cannot infer a function's types
            continue
        finite = all(np.isfinite(x).all() for row in outputs for x in row)
        plain = not _rounds_inside(case.proto) and not _chooses_in_vain(case.proto)
        if finite and plain and _settled(case, outputs) and not _cancels(case):
            return case


def _settled(case: Case, outputs: list[list[Array]]) -> bool:
    """Whether the outputs stay when the inputs move by a few last places: the sine of a large number, or a
    condition on an edge, make more of rounding than any tolerance allows."""
    near = [
        {
            n: a * (1 + 4 * np.finfo(a.dtype).eps).astype(a.dtype) if a.dtype.kind == "f" else a
            for n, a in f.items()
        }
        for f in case.feeds
    ]
    for one, other in zip(outputs, outputs_of(Case(case.proto, near), case.proto), strict=True):
        for p, q in zip(one, other, strict=True):
            if p.shape != q.shape or not np.allclose(
                p, q, rtol=1e-4, atol=1e-4 * float(np.abs(p).max(initial=0))
            ):
                return False
    return True


def _cancels(case: Case) -> bool:
    """Whether a variance is lost to rounding: the runtime takes it as the mean of squares less the square of
    the mean, in single precision, so that the order of a sum decides about values far from zero and close."""
    proto = onnx.ModelProto()
    proto.CopyFrom(case.proto)
    known = {value.name for value in (*proto.graph.input, *proto.graph.initializer)}
    normalizing = ("GroupNormalization", "LayerNormalization")
    taken = [n for n in proto.graph.node if n.op_type in normalizing and n.input[0] not in known]
    if not taken:
        return False
    del proto.graph.output[:]
    proto.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in dict.fromkeys(node.input[0] for node in taken)
    )
    names = [value.name for value in proto.graph.output]
    for row in outputs_of(case, proto):
        values = dict(zip(names, row, strict=True))
        if any(_spread(node, values[node.input[0]]) < SPREAD for node in taken):
            return True
    return False


def _spread(node: onnx.NodeProto, x: Array) -> float:
    """The least deviation of what a node normalizes together, relative to its mean."""
    attributes = {a.name: a.i for a in node.attribute}
    groups = len(x) * attributes.get("num_groups", 1)
    if node.op_type == "LayerNormalization":
        groups = math.prod(x.shape[: attributes.get("axis", -1) % x.ndim])
    rows = x.reshape(groups, -1).astype(np.float64)
    return float((rows.std(1) / np.maximum(np.abs(rows.mean(1)), 1e-30)).min(initial=np.inf))


def _rounds_inside(proto: onnx.ModelProto) -> bool:
    """Whether a body or function rounds, where a model cannot be run without its rounding."""
    bodies = [a.g for node in proto.graph.node for a in node.attribute if a.HasField("g")]
    return any(has(node, Trait.ROUNDING) for block in (*bodies, *proto.functions) for node in nodes_in(block))


def _chooses_in_vain(proto: onnx.ModelProto) -> bool:
    """Whether an `If` leads to no output: twins may choose the other branch there, which need not run."""
    wanted = {value.name for value in proto.graph.output}
    for node in reversed(proto.graph.node):
        if wanted & set(node.output):
            wanted |= {name for inner in nodes_in(onnx.GraphProto(node=[node])) for name in inner.input}
        elif node.op_type == "If":
            return True
    return False


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
