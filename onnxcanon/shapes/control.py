"""Shapes through operators with subgraphs: their bodies are visited with what is known of their inputs.

What is known of a state that a loop carries must hold at every iteration: it starts as what is known before
the first and is weakened until the body gives it back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxcanon.arrays import Shape
from onnxcanon.graph.operators import Table
from onnxcanon.shapes.values import UNKNOWN, SampleSequence, SampleValue, ShapeNode, norm_axis, same

if TYPE_CHECKING:
    from onnxcanon.shapes.propagation import Propagation

ControlRule = Callable[[ShapeNode, "Propagation"], list[SampleValue]]
CONTROL: Table[ControlRule] = Table("shapes through bodies")


@CONTROL.register("If")
def if_(op: ShapeNode, sample: Propagation) -> list[SampleValue]:
    """condition[] -> the outputs of the branch taken, or what both agree on."""
    data = op.value(0).data
    known = bool(data.item()) if data is not None and data.size == 1 else None
    condition = sample.branches.get(op.node, known)
    if condition is None:
        outputs = [sample.body(op.attr(name), ()) for name in ("then_branch", "else_branch")]
        return [_both(*pair) for pair in zip(*outputs, strict=True)]
    taken, other = ("then_branch", "else_branch") if condition else ("else_branch", "then_branch")
    before = sample.contradictions, sample.unknown
    sample.body(op.attr(other), ())
    sample.contradictions, sample.unknown = before
    return sample.body(op.attr(taken), ())


@CONTROL.register("Loop")
def loop(op: ShapeNode, sample: Propagation) -> list[SampleValue]:
    """trip count[], condition[], state[*S]... -> state[*S]..., stacked outputs[trips, *T]..."""
    body: ir.Graph = op.attr("body")
    number, _, *formals = body.inputs
    count = op.value(0).data if op.has(0) else None
    first = op.value(1) if op.has(1) else SampleValue((), np.array(True))
    before = zip(formals, op.inputs[2:], strict=True)
    carried = [sample.or_declared(f, value or UNKNOWN) for f, value in before]
    rank = 0 if number.shape is None else len(number.shape)
    (first, *states), outputs = _fixpoint(body, [SampleValue((1,) * rank)], [first, *carried], [], sample)
    endless = first.data is not None and bool(first.data.all())
    trips = int(count.item()) if endless and count is not None and count.size == 1 else None
    items = outputs[1 + len(states) :]
    return [
        *states,
        *(_stacked(item.shape, max(trips, 0) if trips is not None else None, 0) for item in items),
    ]


@CONTROL.register("Scan")
def scan(op: ShapeNode, sample: Propagation) -> list[SampleValue]:
    """state[*S]..., sequence[T, *I]... -> state[*S]..., stacked[T, *O]... (axes as the attributes say)."""
    count = op.attr("num_scan_inputs")
    states = len(op.inputs) - count
    if op.version < 9:  # the sequence lengths come first, and every tensor has a batch axis
        return [SampleValue(op.shape(i)) for i in range(1, states)]
    axes = op.attr("scan_input_axes") or (0,) * count
    length, items = None, []
    for value, axis in zip(op.inputs[states:], axes, strict=True):
        if value is None or value.shape is None:
            items.append(UNKNOWN)
            continue
        at = norm_axis(axis, len(value.shape))
        length = value.shape[at]
        items.append(SampleValue(value.shape[:at] + value.shape[at + 1 :]))
    body: ir.Graph = op.attr("body")
    before = zip(body.inputs, op.inputs[:states], strict=False)
    carried = [sample.or_declared(f, value or UNKNOWN) for f, value in before]
    after, outputs = _fixpoint(body, [], carried, items, sample)
    places = op.attr("scan_output_axes") or (0,) * (len(outputs) - states)
    stacked = zip(outputs[states:], places, strict=True)
    return [*after, *(_stacked(item.shape, length, place) for item, place in stacked)]


def _fixpoint(
    body: ir.Graph,
    before: list[SampleValue],
    states: list[SampleValue],
    after: list[SampleValue],
    sample: Propagation,
) -> tuple[list[SampleValue], list[SampleValue]]:
    """What is known of the states at every iteration, and of the body's outputs; its first are the states."""
    # What is known only gets weaker and has few degrees (value, shape, nothing), so this ends soon.
    while True:
        counts = sample.contradictions, sample.unknown
        outputs = sample.body(body, [*before, *states, *after])
        weaker = [_weakened(state, result) for state, result in zip(states, outputs, strict=False)]
        if all(new is old for new, old in zip(weaker, states, strict=True)):
            return states, outputs
        sample.contradictions, sample.unknown = counts
        states = weaker


def _weakened(state: SampleValue, result: SampleValue) -> SampleValue:
    """What is known of a state that also holds after an iteration."""
    if state.shape is None and not isinstance(state, SampleSequence):
        return state
    hidden = result.private and not state.private
    if same(state, result) and not hidden:
        return state
    if state.shape is None or state.shape != result.shape:
        return UNKNOWN
    return state if state.data is None else SampleValue(state.shape)


def _both(one: SampleValue, other: SampleValue) -> SampleValue:
    """What is known of a value that is one or the other."""
    if same(one, other):
        return other if other.private else one
    return SampleValue(one.shape) if one.shape == other.shape else UNKNOWN


def _stacked(item: Shape | None, length: int | None, place: int) -> SampleValue:
    """The shape of one output of every iteration, stacked along a new axis."""
    if item is None or length is None:
        return UNKNOWN
    at = norm_axis(place, len(item) + 1)
    return SampleValue((*item[:at], length, *item[at:]))
