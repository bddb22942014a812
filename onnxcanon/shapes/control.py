"""Shapes through operators with subgraphs: their bodies are walked with what is known of their inputs.

What is known of a state that a loop carries must hold at every iteration: it starts as what is known before
the first and is weakened until the body gives it back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import onnx_ir as ir

from onnxcanon.arrays import Shape
from onnxcanon.graph.operators import Table
from onnxcanon.shapes.values import UNKNOWN, Op, SampleSequence, SampleValue, norm_axis, same


class SubgraphPropagation(Protocol):
    """What a rule needs of the walk."""

    contradictions: int
    unknown: int
    branches: Mapping[ir.Node, bool]

    def body(self, graph: ir.Graph, inputs: Sequence[SampleValue]) -> list[SampleValue]:
        """What is known of a subgraph's outputs, given what is known of its inputs."""

    def or_declared(self, value: ir.Value, known: SampleValue) -> SampleValue:
        """What is known of a value, or what the file declares where that is nothing."""


ControlRule = Callable[[Op, SubgraphPropagation], list[SampleValue]]
CONTROL: Table[ControlRule] = Table("shapes through bodies")


@CONTROL.register("If")
def if_(op: Op, walk: SubgraphPropagation) -> list[SampleValue]:
    """condition[] -> the outputs of the branch taken, or what both agree on."""
    data = op.value(0).data
    condition = walk.branches.get(op.node, bool(data.item()) if data is not None and data.size == 1 else None)
    if condition is None:
        outputs = [walk.body(op.attr(name), ()) for name in ("then_branch", "else_branch")]
        return [_both(*pair) for pair in zip(*outputs, strict=True)]
    taken, other = ("then_branch", "else_branch") if condition else ("else_branch", "then_branch")
    before = walk.contradictions, walk.unknown
    walk.body(op.attr(other), ())
    walk.contradictions, walk.unknown = before
    return walk.body(op.attr(taken), ())


@CONTROL.register("Loop")
def loop(op: Op, walk: SubgraphPropagation) -> list[SampleValue]:
    """trip count[], condition[], state[*S]... -> state[*S]..., stacked outputs[trips, *T]..."""
    body: ir.Graph = op.attr("body")
    number, _, *formals = body.inputs
    count = op.value(0).data if op.has(0) else None
    first = op.value(1) if op.has(1) else SampleValue((), np.array(True))
    given = [walk.or_declared(f, known or UNKNOWN) for f, known in zip(formals, op.inputs[2:], strict=True)]
    rank = 0 if number.shape is None else len(number.shape)
    (first, *states), outputs = _settled(body, [SampleValue((1,) * rank)], [first, *given], [], walk)
    endless = first.data is not None and bool(first.data.all())
    trips = int(count.item()) if endless and count is not None and count.size == 1 else None
    items = outputs[1 + len(states) :]
    return [
        *states,
        *(_stacked(item.shape, max(trips, 0) if trips is not None else None, 0) for item in items),
    ]


@CONTROL.register("Scan")
def scan(op: Op, walk: SubgraphPropagation) -> list[SampleValue]:
    """state[*S]..., sequence[T, *I]... -> state[*S]..., stacked[T, *O]... (axes as the attributes say)."""
    count = op.attr("num_scan_inputs")
    states = len(op.inputs) - count
    if op.version < 9:  # the sequence lengths come first, and every tensor has a batch axis
        return [SampleValue(op.shape(i)) for i in range(1, states)]
    axes = op.attr("scan_input_axes") or (0,) * count
    length, items = None, []
    for known, axis in zip(op.inputs[states:], axes, strict=True):
        if known is None or known.shape is None:
            items.append(UNKNOWN)
            continue
        at = norm_axis(axis, len(known.shape))
        length = known.shape[at]
        items.append(SampleValue(known.shape[:at] + known.shape[at + 1 :]))
    body: ir.Graph = op.attr("body")
    before = zip(body.inputs, op.inputs[:states], strict=False)
    given = [walk.or_declared(f, known or UNKNOWN) for f, known in before]
    after, outputs = _settled(body, [], given, items, walk)
    places = op.attr("scan_output_axes") or (0,) * (len(outputs) - states)
    stacked = zip(outputs[states:], places, strict=True)
    return [*after, *(_stacked(item.shape, length, place) for item, place in stacked)]


def _settled(
    body: ir.Graph,
    before: list[SampleValue],
    states: list[SampleValue],
    after: list[SampleValue],
    walk: SubgraphPropagation,
) -> tuple[list[SampleValue], list[SampleValue]]:
    """What is known of the states at every iteration, and of the body's outputs; its first are the states."""
    while True:
        counts = walk.contradictions, walk.unknown
        outputs = walk.body(body, [*before, *states, *after])
        weaker = [_kept(state, result) for state, result in zip(states, outputs, strict=False)]
        if all(new is old for new, old in zip(weaker, states, strict=True)):
            return states, outputs
        walk.contradictions, walk.unknown = counts
        states = weaker


def _kept(state: SampleValue, result: SampleValue) -> SampleValue:
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
