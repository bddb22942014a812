"""Convolutions. Channels carry labels; kernel positions and image positions do not move.

A grouped convolution sees its input channels as [group, C/group] and its output channels as
[group, M/group]: permutations within a group on either side, and whole groups where both sides agree.
"""

from __future__ import annotations

import numpy as np

from onnxcanon.symmetry.constraints import Ids
from onnxcanon.symmetry.labels import FIXED, UNIFORM, Labelled, State, constant
from onnxcanon.symmetry.movement import Movement
from onnxcanon.symmetry.rules.registry import Op, Outputs, register

REASON = "image positions under a convolution"


def still_positions(t: Movement, x: Labelled, axes: range, reason: str) -> Labelled:
    """Fix the spatial axes and forget them (and the batch) as context of the channel labels."""
    for axis in axes:
        t.fix(x, axis, reason)
    out = t.copy(x)
    for k in range(x.rank):
        out.ids[k] = t.forget(x.ids[k], axes)
        out.degrees[k] = t.degree_forget(x.degrees[k], axes)
    return out


def convolve(t: Movement, x: Labelled, w: Labelled, groups: int, shape: tuple[int, ...], *, transposed: bool) -> Labelled:
    """X[N, C, *S] * W[M, C/g, *K] (transposed: W[C, M/g, *K]) -> Y[N, M, *S']."""
    t.bind(x)
    x = still_positions(t, x, range(2, x.rank), REASON)
    for k in (0, 1):
        x.ids[k] = t.forget(x.ids[k], [1 - k])
        x.degrees[k] = t.degree_forget(x.degrees[k], [1 - k])
    depthwise = groups > 1 and w.shape[1] == 1
    t.bind(w, (0, 1), {1: [0]} if groups > 1 and not depthwise else None)
    w = still_positions(t, w, range(2, w.rank), "kernel positions of a convolution")
    out = constant(shape)
    out.ids[0], out.degrees[0] = x.ids[0], x.degrees[0]
    if groups == 1:
        _dense(t, x, w, out, transposed=transposed)
    else:
        _grouped(t, x, w, out, groups, transposed=transposed)
    return out


def _dense(t: Movement, x: Labelled, w: Labelled, out: Labelled, *, transposed: bool) -> None:
    inner, outer = (0, 1) if transposed else (1, 0)
    t.meet([_line(x.ids[1], 1), _line(t.forget(w.ids[inner], [outer]), inner)], "contracted with a fixed axis")
    t._cancel([d for d in (_row(x.degrees[1]), _row(t.degree_forget(w.degrees[inner], [outer]))) if d is not None])
    _put(out, t.forget(w.ids[outer], [inner]), t.degree_forget(w.degrees[outer], [inner]))


def _grouped(t: Movement, x: Labelled, w: Labelled, out: Labelled, groups: int, *, transposed: bool) -> None:
    """Input channels [g, c], output channels [g, m]; the weight is [g·m, c] or, transposed, [g·c, m]."""
    channels, filters = x.shape[1] // groups, out.shape[1] // groups
    first = w.ids[0]
    first = first if isinstance(first, State) else t.forget(first, [1])
    lead = _line(first, 0)
    second = w.ids[1]
    inside = second if isinstance(second, State) else second.reshape(second.shape[0], second.shape[1])
    rows = filters if not transposed else channels
    if not isinstance(inside, State) and inside.shape[0] > 1:  # one label per group and position
        grid = inside.reshape(groups, rows, inside.shape[1])
        t.ledger.equal(grid[:, :1], grid)
        inside = grid[:, 0]
    elif not isinstance(inside, State):
        inside = np.broadcast_to(inside, (groups, inside.shape[1]))
    by_group = lead if isinstance(lead, State) else lead.reshape(groups, rows)
    ins, outs = (by_group, inside) if transposed else (inside, by_group)
    seen = _line(x.ids[1], 1)
    seen = seen if isinstance(seen, State) else seen.reshape(groups, channels)
    met = t.meet([seen, ins], "contracted with a fixed axis")
    if isinstance(met, State):
        group: Ids | None = None
    elif channels == 1:
        group = met  # depthwise: the group is its one input channel
    else:
        group = t.ledger.new_units((groups, 1))
        t.ledger.relate([met, group], None)
    whole = _group_outputs(t, group, outs, filters, fixed=met is FIXED)
    _grouped_degrees(t, x, w, out, groups, rows, channels, filters, transposed=transposed)
    out.ids[1] = whole if isinstance(whole, State) else whole.reshape([1, -1] + [1] * (out.rank - 2))


def _group_outputs(t: Movement, group: Ids | None, outs: Ids | State, filters: int, *, fixed: bool) -> Ids | State:
    """Labels of the output channels, which move with their group."""
    if isinstance(outs, State):
        if outs is UNIFORM and filters == 1 and group is not None:
            return group
        if group is not None:
            t.pin(group, "groups of a convolution with fixed output channels")
        return FIXED
    if fixed:
        t.pin(outs, "groups of a convolution over fixed channels")
        return FIXED
    if group is not None:
        _tie_groups(t, group, outs)
    return outs


def _tie_groups(t: Movement, group: Ids, outs: Ids) -> None:
    if outs.shape[1] == 1:
        t.ledger.equal(group, outs)
    else:
        t.ledger.relate([outs, group], None)


def _grouped_degrees(
    t: Movement, x: Labelled, w: Labelled, out: Labelled, groups: int, rows: int, channels: int, filters: int,
    *, transposed: bool,
) -> None:  # fmt: skip
    """x + w(input side) = 0 within each group; a depthwise filter just passes its channel's degree on."""
    first = _row(t.degree_forget(w.degrees[0], [1]))
    second = w.degrees[1]
    second = None if second is None else second.reshape(second.shape[0], second.shape[1])
    seen = _row(x.degrees[1])
    by_group = None if first is None else first.reshape(groups, rows)
    incoming = None if seen is None else seen.reshape(groups, channels)
    if second is not None:
        grid = np.broadcast_to(second, (groups * rows, second.shape[1])).reshape(groups, rows, -1)
        t.ledger.degree_equal(grid[:, :1], grid)
        second = grid[:, 0]
    ins, outs = (by_group, second) if transposed else (second, by_group)
    if channels == 1:
        total = t.ledger.degree_sum(incoming, ins if transposed else None)
        total = t.ledger.degree_sum(total, outs)
    else:
        t._cancel([d for d in (incoming, ins) if d is not None])
        total = outs
    if total is not None:
        total = np.broadcast_to(total, (groups, filters))
        out.degrees[1] = total.reshape([1, -1] + [1] * (out.rank - 2))


def _line(state: Ids | State, axis: int) -> Ids | State:
    """Labels of one axis, free of context, as a flat array."""
    return state if isinstance(state, State) else state.reshape(-1)


def _row(degree: Ids | None) -> Ids | None:
    return None if degree is None else degree.reshape(-1)


def _put(out: Labelled, ids: Ids | State, degree: Ids | None) -> None:
    shape = [1] * out.rank
    if isinstance(ids, State):
        out.ids[1] = ids if out.shape[1] > 1 else UNIFORM
    else:
        shape[1] = out.shape[1]
        out.ids[1] = ids.reshape(shape)
    if degree is not None:
        shape[1] = degree.size
        out.degrees[1] = degree.reshape(shape)


def add_bias(t: Movement, y: Labelled, bias: Labelled) -> Labelled:
    """Y[N, M, *S] + B[M]."""
    for _ in range(y.rank - 2):
        bias = t.insert(bias, bias.rank)
    return t.elementwise([y, bias])


@register("Conv")
def conv(t: Movement, op: Op) -> Outputs:
    """X[N, C, *S], W[M, C/group, *K], B[M] -> Y[N, M, *S']."""
    y = convolve(t, op.x(0), op.x(1), int(op.attr("group", 1)), op.out_shapes()[0], transposed=False)
    return add_bias(t, y, op.x(2)) if op.has(2) else y


@register("ConvTranspose")
def conv_transpose(t: Movement, op: Op) -> Outputs:
    """X[N, C, *S], W[C, M/group, *K], B[M] -> Y[N, M, *S']."""
    y = convolve(t, op.x(0), op.x(1), int(op.attr("group", 1)), op.out_shapes()[0], transposed=True)
    return add_bias(t, y, op.x(2)) if op.has(2) else y


@register("ConvInteger")
def conv_integer(t: Movement, op: Op) -> Outputs:
    """X int8 [N, C, *S], W int8 [M, C/group, *K], zero points (one; or per output channel) -> Y int32."""
    x = t.stop(op.x(0))
    y = convolve(t, x, op.x(1), int(op.attr("group", 1)), op.out_shapes()[0], transposed=False)
    if op.has(2):
        t.fix_all(op.x(2), "zero point of an activation")
    if op.has(3):
        zero_point = op.x(3)
        y = add_bias(t, y, zero_point) if zero_point.rank == 1 and zero_point.shape[0] > 1 else y
    return t.stop(y)
