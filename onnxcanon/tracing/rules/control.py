"""Operators with subgraphs. Their bodies are traced with labelled inputs, like any other nodes.

What a loop carries from one iteration to the next has labels of its own, without context: they meet those of
the initial value and those of the body's result. By induction every constraint stated inside a body then
holds at every iteration, for whatever was true of the state before it is true of the state after it. What
differs between iterations (their number, the axis that a Scan goes along) is fixed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxcanon.graph.operators import is_standard
from onnxcanon.tracing.abstract_value import FIXED, AbstractValue, ValueSequence, constant
from onnxcanon.tracing.constraints import Reason
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.registry import Outputs, SymmetryNode, Unsupported, register


@register("If")
def if_(ctx: Context, op: SymmetryNode) -> Outputs:
    """condition[] -> the outputs of one branch; where it may be either, both transform alike."""
    condition = op.condition()
    if condition is not None:
        return op.body("then_branch" if condition else "else_branch", ())
    branches = zip(op.body("then_branch", ()), op.body("else_branch", ()), strict=True)
    return [_either(ctx, op, k, *pair) if op.used(k) else None for k, pair in enumerate(branches)]


@register("Loop")
def loop(ctx: Context, op: SymmetryNode) -> Outputs:
    """trip count, condition, state… -> state…, item[trips, …]…
    body: number, condition, state… -> condition, state…, item…"""
    graph = op.graph("body")
    count = len(graph.inputs) - 2
    fixed = [constant(op.shape_of(value) or ()) for value in graph.inputs[:2]]
    invariant = [_origin(graph.outputs[1 + k]) is graph.inputs[2 + k] for k in range(count)]
    states = [_entering(ctx, op, 2 + k, graph.inputs[2 + k], invariant[k]) for k in range(count)]
    condition, *results = op.body("body", [*fixed, *states])
    if condition is not None:
        ctx.fix_all(condition, "whether a loop goes on")
    items = [_stacked(ctx, op, count + k, item, 0) for k, item in enumerate(results[count:])]
    return [*_leaving(ctx, states, results[:count], invariant), *items]


@register("Scan")
def scan(ctx: Context, op: SymmetryNode) -> Outputs:
    """state…, sequence[T, …]… -> state…, item[T, …]…; body: state…, element… -> state…, item…
    (T along the axis that the attributes name, in either direction)."""
    if op.version < 9:
        raise Unsupported("a Scan over batches, as in opset 8")
    graph = op.graph("body")
    number = int(op.attr("num_scan_inputs"))
    count = len(op.node.inputs) - number
    axes = op.attr("scan_input_axes") or (0,) * number
    elements = [_element(ctx, op.x(count + k), axis) for k, axis in enumerate(axes)]
    invariant = [_origin(graph.outputs[k]) is graph.inputs[k] for k in range(count)]
    states = [_entering(ctx, op, k, graph.inputs[k], invariant[k]) for k in range(count)]
    results = op.body("body", [*states, *elements])
    places = op.attr("scan_output_axes") or (0,) * (len(results) - count)
    items = [
        _stacked(ctx, op, count + k, item, place)
        for k, (item, place) in enumerate(zip(results[count:], places, strict=True))
    ]
    return [*_leaving(ctx, states, results[:count], invariant), *items]


# -- If ---------------------------------------------------------------------------------------------


def _either(
    ctx: Context, op: SymmetryNode, k: int, first: AbstractValue | None, second: AbstractValue | None
) -> AbstractValue:
    """Output k, which is the one value or the other."""
    if first is None or second is None:
        raise Unsupported(Reason.UNKNOWN_SHAPE)
    if isinstance(first, ValueSequence) or isinstance(second, ValueSequence):
        raise Unsupported("its branches return sequences")
    if not first.shape == second.shape == op.out_shapes(k)[0]:
        raise Unsupported("its branches return different shapes")
    return ctx.elementwise([first, second])


# -- carried states ---------------------------------------------------------------------------------


def _entering(
    ctx: Context, op: SymmetryNode, i: int, formal: ir.Value, invariant: bool
) -> AbstractValue | None:
    """The state that starts as input i, as the body sees it: the input itself where the body keeps it; None
    (and the input is pinned) where its shape is not known."""
    if invariant:
        return ctx.copy(op.x(i))
    initial = op.inputs[i]
    shape = op.shape_of(formal)
    if initial is None or isinstance(initial, ValueSequence) or initial.shape != shape:
        return None
    ctx.bind(op.x(i))
    state = constant(shape)
    for axis, size in enumerate(shape):
        along = [1] * len(shape)
        along[axis] = size
        if size > 1 and initial.ids[axis] is not FIXED:
            state.ids[axis] = ctx.constraints.new_units(along)
            ctx.column(state, axis)
        if initial.zero or initial.exponents[axis] is not None:
            state.exponents[axis] = ctx.constraints.new_exponents(along)
    ctx.elementwise([state, initial])
    return state


def _origin(value: ir.Value) -> ir.Value:
    """The value that this one is a copy of."""
    node = value.producer()
    while node is not None and is_standard(node, "Identity"):
        if node.inputs[0] is None:
            break
        value = node.inputs[0]
        node = value.producer()
    return value


def _leaving(
    ctx: Context,
    states: Sequence[AbstractValue | None],
    results: Sequence[AbstractValue | None],
    invariant: Sequence[bool],
) -> list[AbstractValue | None]:
    """The states after the last iteration: alike before and after each."""
    out: list[AbstractValue | None] = []
    for state, result, same in zip(states, results, invariant, strict=True):
        if same and state is not None:
            out.append(ctx.copy(state))
            continue
        if state is not None and result is not None and state.shape == result.shape:
            out.append(ctx.elementwise([state, result]))
            continue
        for value in (state, result):
            if value is not None:
                ctx.fix_all(value, "a carried state of unknown shape")
        out.append(None)
    return out


# -- what differs between iterations ----------------------------------------------------------------


def _element(ctx: Context, sequence: AbstractValue, axis: int) -> AbstractValue:
    """One position of a sequence, any of them."""
    axis += sequence.rank if axis < 0 else 0
    alike = ctx.gather_unknown(sequence, axis, "positions that a Scan goes along")
    return ctx.squeeze(ctx.take(alike, axis, np.zeros(1, np.int64)), axis)


def _stacked(
    ctx: Context, op: SymmetryNode, k: int, item: AbstractValue | None, axis: int
) -> AbstractValue | None:
    """Output k: one item per iteration, along a new axis."""
    if item is None or not op.used(k):
        return None
    shape = op.shape_of(op.node.outputs[k])
    if shape is None or isinstance(item, ValueSequence) or len(shape) != item.rank + 1:
        ctx.fix_all(item, "stacked to an unknown length")
        return None
    axis += len(shape) if axis < 0 else 0
    out = ctx.insert(ctx.bind(item), axis)
    out.shape = (*out.shape[:axis], shape[axis], *out.shape[axis + 1 :])
    out.ids[axis] = out.ids[axis] if shape[axis] == 1 else FIXED
    return out
