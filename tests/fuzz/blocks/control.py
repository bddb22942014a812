"""Blocks with bodies: branches, loops, scans and local functions around a few random layers."""

from __future__ import annotations

import numpy as np
from onnx import helper, numpy_helper

from tests.fuzz.blocks.contraction import affine
from tests.fuzz.blocks.elementwise import unary
from tests.fuzz.blocks.registry import BLOCKS, block
from tests.fuzz.builder import CONTRIB, Builder, Rejected, nodes_in

LOCAL = "local"
STEPS = 3
BOUNDED = ("Tanh", "Tanh", "Sin", "Sigmoid")


def grown(b: Builder, x: str) -> str:
    """A few random blocks on top of a value."""
    weights = np.array([w for w, _ in BLOCKS])
    for _ in range(int(b.rng.integers(1, 4))):
        made = b.attempt(BLOCKS[int(b.rng.choice(len(BLOCKS), p=weights / weights.sum()))][1], x)
        b.pool.extend(made)
        x = str(b.pick(made)) if made else x
    return x


def shaped(b: Builder, x: str, shape: tuple[int, ...]) -> str:
    """A value of this shape, made of x by at most one layer."""
    if b.shape(x) != shape and b.shape(x)[:-1] == shape[:-1]:
        x = affine(b, x, shape[-1])
    if b.shape(x) != shape:
        raise Rejected("another shape")
    return x


def grown_to(b: Builder, x: str, shape: tuple[int, ...]) -> str:
    """A few random blocks on top of a value, to this shape."""
    try:
        return shaped(b, grown(b, x), shape)
    except Rejected:
        return unary(b, shaped(b, x, shape))


@block(2)
def branches(b: Builder, x: str) -> str:
    """If with a constant condition, or one that depends on the data."""
    if b.flip(0.3):
        condition = b.constant(np.array(b.flip()), "i")
    else:
        total = b.op("ReduceSum", x, keepdims=0)
        level = float(b.value[total])  # not on the edge: rounding must not decide
        condition = b.op("Greater", total, b.scalar(level - 0.3 * abs(level) - 0.3))
    first = b.inside({})
    one = first.op("Identity", grown(first, x))
    graphs = [b.closed(first, [], [one])]
    second = b.inside({})
    if b.flip(0.15):
        two = second.uniform(first.shape(one), float(b.pick([0.0, 1.0])))
    else:
        two = grown_to(second, x, first.shape(one))
    graphs.append(b.closed(second, [], [second.op("Identity", two)]))
    order = int(b.rng.integers(2))
    return b.op("If", condition, then_branch=graphs[order], else_branch=graphs[1 - order])


def _initial(b: Builder, shape: tuple[int, ...], x: str | None) -> str:
    """A state to start with, of this shape but for the last axis; it may come from x."""
    shape = (*shape[:-1], b.size())
    kind = b.pick(["zero", "zero", "zero", "one", "weight", *["value", "value", "same"] * (x is not None)])
    if kind in ("zero", "one"):
        return b.uniform(shape, float(kind == "one"))
    if x is None or kind == "weight":
        return b.weight(*shape)
    return affine(b, x, shape[-1]) if kind == "value" else x


def _step(b: Builder, state: str, x: str) -> str:
    """The next state, of the same shape."""
    shape = b.shape(state)
    start = state
    if b.flip(0.85):
        recurrent = affine(b, state, shape[-1]) if b.flip(0.7) else state
        start = b.op(b.pick(["Add", "Add", "Mul"]), recurrent, shaped(b, x, shape))
    y = grown_to(b, start, shape) if b.flip(0.5) else start
    if b.flip(0.2):  # a gate
        gate = b.op("Sigmoid", affine(b, state, shape[-1]))
        y = b.op("Add", b.op("Mul", gate, y), b.op("Mul", b.op("Sub", b.scalar(1.0), gate), state))
    return b.op(b.pick(BOUNDED), y) if b.flip(0.9) else b.op("Relu", y)


def _advanced(b: Builder, states: list[str], x: str, bare: bool) -> list[str]:
    """The states after one step; some change places, some stay as they are, if `bare` without any node."""
    after = [s if b.flip(0.15) else _step(b, s, x) for s in states]
    if len(after) > 1 and b.shape(after[0]) == b.shape(after[1]) and b.flip(0.3):
        after[:2] = after[1::-1]
    return [b.op("Identity", s) if s in states and not (bare and b.flip()) else s for s in after]


@block(2)
def loop(b: Builder, x: str) -> list[str]:
    """Loop that reads x at every step; its states start as constants or values, the last one is stacked."""
    steps = int(b.rng.integers(1, STEPS + 1))
    initial = [_initial(b, b.shape(x), x) for _ in range(int(b.rng.integers(1, 4)))]
    number, condition, *states = (b.name("s") for _ in range(2 + len(initial)))
    given = {number: np.array(0), condition: np.array(True)}
    body = b.inside(given | {s: b.value[v] for s, v in zip(states, initial, strict=True)})
    read = x
    if b.flip(0.2):  # something of its own for every step
        table = body.weight(STEPS, b.shape(x)[-1], spread=0.5)
        read = body.op("Add", x, body.op("Gather", table, number, axis=0))
    after = _advanced(body, states, read, bare=True)
    ends = [body.op("Identity", condition), *after]
    stacked = [body.op("Identity", unary(body, after[-1]))] if b.flip() else []
    graph = b.closed(body, [number, condition, *states], [*ends, *stacked])
    trips = b.constant(np.array(steps), "i")
    go = "" if b.flip(0.3) else b.constant(np.array(True), "i")
    return b.ops("Loop", trips, go, *initial, outputs=len(after) + len(stacked), body=graph)


@block(2)
def scan(b: Builder, x: str) -> list[str]:
    """Scan along an axis of x, in either direction; weights may be scanned beside."""
    rank = len(b.shape(x))
    axis = int(b.rng.integers(0, rank - 1))
    if rank < 3:
        raise Rejected("rank")
    element = b.value[x].take(0, axis)
    initial = [_initial(b, element.shape, None) for _ in range(int(b.rng.integers(1, 3)))]
    states, e = [b.name("s") for _ in initial], b.name("e")
    n = element.shape[-1]
    weights = b.weight(b.shape(x)[axis], n, n, spread=n**-0.5) if b.flip(0.3) else ""
    body = b.inside({e: element} | {s: b.value[v] for s, v in zip(states, initial, strict=True)})
    scanned, elements, axes = [x], [e], [axis]
    read = e
    if weights:
        scanned.append(weights)
        elements.append(body.name("e"))
        body.value[elements[1]] = b.value[scanned[1]][0]
        axes.append(0)
        read = body.op("MatMul", e, elements[1])
    # A bare state leaves what onnxruntime's Scan returns uninitialized.
    after = _advanced(body, states, read, bare=False)
    stacked = [body.op("Identity", body.pick(after))] if b.flip(0.8) else []
    graph = b.closed(body, [*states, *elements], [*after, *stacked])
    places = [int(b.rng.integers(0, body.value[s].ndim + 1)) - b.flip(0.2) for s in stacked]
    return b.ops(
        "Scan", *initial, *scanned, outputs=len(after) + len(stacked), body=graph,
        num_scan_inputs=len(scanned), scan_input_axes=axes,
        scan_input_directions=[int(b.flip(0.3)) for _ in scanned],
        scan_output_axes=places if stacked else None,
    )  # fmt: skip


@block(2)
def function(b: Builder, x: str) -> list[str]:
    """A local function, called once or twice: its constants are the same in every call."""
    given = b.name("f")
    body = b.inside({given: b.value[x]}, captured=False)
    result = body.op("Identity", grown(body, given))
    b.names = body.names
    constants = [
        helper.make_node("Constant", [], [n], value=numpy_helper.from_array(a, n))
        for n, a in body.initializers.items()
    ]
    name = b.name("F")
    imports = [helper.make_opsetid("", b.opset), helper.make_opsetid(LOCAL, 1)]
    made = helper.make_function(LOCAL, name, [given], [result], [*constants, *body.nodes], imports)
    made.opset_import.extend(
        [helper.make_opsetid(CONTRIB, 1)] * any(n.domain == CONTRIB for n in nodes_in(made))
    )
    b.functions.append(made)
    first = b.op(name, x, domain=LOCAL)
    if b.flip(0.4):
        return [first]
    again = first if b.shape(first) == b.shape(x) else b.pick([x, *b.fits(x)])
    return [first, b.op(name, str(again), domain=LOCAL)]
