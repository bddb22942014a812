"""Recurrent layers. A hidden unit owns one row in every gate, one column of the recurrence, its biases and
peepholes; all move together. Because the state enters through odd functions, its sign is free.

The stacked rows are split into gates, which do not move, and units.
"""

from __future__ import annotations

import numpy as np

from onnxcanon.arrays import Ids
from onnxcanon.graph.operators import CONTRIB
from onnxcanon.graph.traits import row
from onnxcanon.tracing.abstract_value import FIXED, AbstractValue, State, constant
from onnxcanon.tracing.constraints import Reason, System
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.registry import Outputs, SymmetryNode, Unsupported, register

GATES = {"LSTM": ("i", "o", "f", "c"), "GRU": ("z", "r", "h"), "RNN": ("h",)}
CANDIDATE = {"LSTM": "c", "GRU": "h", "RNN": "h"}
DIRECTIONS = "directions of a recurrent layer"


@register("GRU", "LSTM", "RNN")
def recurrent(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[T, B, I], W[D, G·H, I], R[D, G·H, H], B[D, 2·G·H], lengths, h0[D, B, H], c0, P[D, 3·H]
    -> Y[T, D, B, H], Y_h[D, B, H], Y_c (layout 0)."""
    if op.attr("layout", 0):
        raise Unsupported("a recurrent layer with layout 1")
    return _layer(ctx, op, op.kind, op.x(0), op.x(1), op.x(2))[0]


@register("DynamicQuantizeLSTM", domain=CONTRIB)
def quantized_lstm(ctx: Context, op: SymmetryNode) -> Outputs:
    """As LSTM, with int8 W[D, I, 4·H], R[D, H, 4·H], and the scale and zero point of each: [D] or [D, 4·H].

    X and the state are rounded with one scale from their extrema: nothing scales, and no sign changes.
    """
    x, w, r = op.x(0), op.x(1), op.x(2)
    outputs, layer = _layer(
        ctx, op, "LSTM", ctx.stop(x), ctx.transpose(w, (0, 2, 1)), ctx.transpose(r, (0, 2, 1))
    )
    ctx.constraints.exponent_zero(layer.sign)
    for k in range(8, 12):
        v = op.x(k)
        if v.rank == 2:
            layer.rows(v, 1)
        else:
            ctx.fix(v, 0, DIRECTIONS)
    return outputs


def _layer(
    ctx: Context, op: SymmetryNode, kind: str, x: AbstractValue, w: AbstractValue, r: AbstractValue
) -> tuple[list[AbstractValue | None], _Layer]:
    """The outputs of a layer with W[D, G·H, I] and R[D, G·H, H]; its other inputs are those of the node."""
    directions, hidden = r.shape[0], r.shape[2]
    unit = ctx.constraints.new_units((directions, hidden))
    sign = ctx.constraints.new_exponents((directions, hidden))
    ctx.constraints.exponent_zero(sign, System.SCALE)
    activations = [a.decode() if isinstance(a, bytes) else a for a in op.attr("activations", ())]
    if activations and tuple(activations) != row(op.node).activations * directions:
        ctx.constraints.exponent_zero(sign)
    _input(ctx, x, w)
    layer = _Layer(ctx, kind, unit, sign)
    layer.rows(w, 1)
    layer.rows(r, 1)
    layer.recurrence(r)
    if op.has(3):
        b = op.x(3)
        width = b.shape[1] // 2
        ctx.bind(b, (1,), {1: [0]})
        ctx.fix(b, 0, DIRECTIONS)
        layer.rows(_part(b, 0, width), 1)
        layer.rows(_part(b, width, 2 * width), 1)
    for k in (5, 6):
        if op.has(k):
            layer.state(op.x(k))
    if op.has(7):
        layer.peepholes(op.x(7))
    outputs = [
        layer.output(op.out_shapes(k)[0]) if op.node.outputs[k].name else None
        for k in range(len(op.node.outputs))
    ]
    return outputs, layer


def _input(ctx: Context, x: AbstractValue, w: AbstractValue) -> None:
    """The input features meet the columns of W in every direction."""
    ctx.bind(x)
    for k in (0, 1):
        ctx.fix(x, k, "time steps and batch of a recurrent layer")
    features = ctx.forget(x.ids[2], [0, 1])
    exponent = ctx.exponent_forget(x.exponents[2], [0, 1])
    ctx.bind(w, (1, 2), {1: [0]})
    ctx.fix(w, 0, DIRECTIONS)
    columns = ctx.forget(w.ids[2], [0, 1])
    ctx.meet([features, columns], Reason.CONTRACTED_WITH_FIXED)
    other = ctx.exponent_forget(w.exponents[2], [0, 1])
    ctx.cancel([d for d in (exponent, other) if d is not None])


def _part(v: AbstractValue, start: int, stop: int) -> AbstractValue:
    """Positions start … stop of axis 1."""
    out = constant((v.shape[0], stop - start))
    ids, exponent = v.ids[1], v.exponents[1]
    out.ids[1] = ids if isinstance(ids, State) else ids[:, start:stop]
    out.exponents[1] = None if exponent is None else exponent[:, start:stop]
    out.zero = v.zero
    return out


def _grid(array: Ids, gates: int) -> Ids:
    """[D or 1, G or 1, H, 1, …] as [D or 1, G, H]."""
    directions, _, hidden = array.shape[:3]
    return np.broadcast_to(array.reshape(array.shape[:3]), (directions, gates, hidden))


class _Layer:
    """One recurrent layer: its hidden units and their signs, both int64 [D, H]."""

    def __init__(self, ctx: Context, kind: str, unit: Ids, sign: Ids) -> None:
        self.ctx, self.kind, self.unit, self.sign = ctx, kind, unit, sign

    def rows(self, v: AbstractValue, axis: int) -> None:
        """Axis `axis` of a parameter stacks the gates: [D, G·H]."""
        self.ctx.bind(
            v,
            None if v.rank == 2 else (axis, axis + 1),
            {axis: [0], axis + 1: [0]} if v.rank == 3 else {axis: [0]},
        )
        self.ctx.fix(v, 0, DIRECTIONS)
        gates = GATES[self.kind]
        ids, exponent = self._by_gate(v, len(gates))
        if ids is FIXED:
            self.ctx.pin(self.unit, "a gate's rows are fixed")
        for g, gate in enumerate(gates):
            if not isinstance(ids, State):
                self.ctx.constraints.equal(ids[:, g], self.unit)
            self._sign(None if exponent is None else exponent[:, g], gate, zero=v.zero)

    def _by_gate(self, v: AbstractValue, gates: int) -> tuple[Ids | State, Ids | None]:
        """Labels and exponents of a stacked axis 1 [G·H] as arrays [D, G, H]; the gates do not move."""
        split = self.ctx.split_axis(v, 1, (gates, self.unit.shape[1]))
        self.ctx.fix(split, 1, "gates of a recurrent layer")
        others = range(3, split.rank)
        ids, exponent = (
            self.ctx.forget(split.ids[2], others),
            self.ctx.exponent_forget(split.exponents[2], others),
        )
        return (
            ids if isinstance(ids, State) else _grid(ids, gates),
            None if exponent is None else _grid(exponent, gates),
        )

    def _sign(self, exponent: Ids | None, gate: str, *, zero: bool) -> None:
        if gate != CANDIDATE[self.kind]:
            self.ctx.constraints.exponent_zero(exponent)
        elif exponent is not None:
            self.ctx.constraints.exponent_equal(exponent, self.sign)
        elif not zero:
            self.ctx.constraints.exponent_zero(self.sign)

    def recurrence(self, r: AbstractValue) -> None:
        """R's last axis reads the hidden units."""
        columns = r.ids[2]
        if isinstance(columns, State):
            if columns is FIXED:
                self.ctx.pin(self.unit, "the columns of the recurrence are fixed")
        else:
            met = self.ctx.forget(columns, [1])
            if not isinstance(met, State):
                self.ctx.constraints.equal(met.reshape(met.shape[0], -1), self.unit)
        exponent = r.exponents[2]
        if exponent is None:
            self.ctx.constraints.exponent_zero(self.sign)
        else:
            exponent = self.ctx.exponent_forget(exponent, [1])
            if exponent is not None:
                self.ctx.constraints.exponent_opposite(exponent.reshape(exponent.shape[0], -1), self.sign)

    def state(self, v: AbstractValue) -> None:
        """An initial state [D, B, H]."""
        self.ctx.bind(v, (2,), {2: [0]})
        for k in (0, 1):
            self.ctx.fix(v, k, "directions and batch of a recurrent layer")
        ids = self.ctx.forget(v.ids[2], [1])
        if isinstance(ids, State):
            if ids is FIXED:
                self.ctx.pin(self.unit, "its initial state is fixed")
        else:
            self.ctx.constraints.equal(ids.reshape(ids.shape[0], -1), self.unit)
        exponent = self.ctx.exponent_forget(v.exponents[2], [1])
        if exponent is not None:
            self.ctx.constraints.exponent_equal(exponent.reshape(exponent.shape[0], -1), self.sign)
        elif not v.zero:
            self.ctx.constraints.exponent_zero(self.sign)

    def peepholes(self, v: AbstractValue) -> None:
        """P[D, 3·H] reads the cell state into the gates i, o, f."""
        self.ctx.bind(v, (1,), {1: [0]})
        self.ctx.fix(v, 0, DIRECTIONS)
        ids, exponent = self._by_gate(v, 3)
        if ids is FIXED:
            self.ctx.pin(self.unit, "peepholes are fixed")
        for g in range(3):
            if not isinstance(ids, State):
                self.ctx.constraints.equal(ids[:, g], self.unit)
            if exponent is not None:
                self.ctx.constraints.exponent_opposite(exponent[:, g], self.sign)
            elif not v.zero:
                self.ctx.constraints.exponent_zero(self.sign)

    def output(self, shape: tuple[int, ...]) -> AbstractValue:
        """Y[T, D, B, H] or Y_h[D, B, H]: labels depend on the direction."""
        out = constant(shape)
        view = [1] * len(shape)
        view[-1], view[-3] = self.unit.shape[1], self.unit.shape[0]
        if shape[-1] > 1:
            out.ids[-1] = self.unit.reshape(view)
        out.exponents[-1] = self.sign.reshape(view)
        return out
