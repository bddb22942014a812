"""Values are combined: entry by entry, or summed over common axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxcanon.arrays import Ids
from onnxcanon.tracing.abstract_value import FIXED, UNIFORM, AbstractValue, AxisState, State, constant

if TYPE_CHECKING:
    from onnxcanon.tracing.context import Context


def elementwise(ctx: Context, values: Sequence[AbstractValue], *, product: bool = False) -> AbstractValue:
    """Broadcasting pointwise combination X…, Y… -> Z. Exponents agree (sum) or add up (`product`)."""
    shape = np.broadcast_shapes(*(v.shape for v in values))
    rank = len(shape)
    ctx.bind_together(values, rank)
    out = constant(shape)
    moving = _moving([[_padded(v, axis, rank)[0] for v in values] for axis in range(rank)])
    for axis in range(rank):
        states = [_padded(v, axis, rank) for v in values]
        out.ids[axis] = ctx.meet([s for s, _ in states], around=moving - {axis})
        exponents = [d for (_, d), v in zip(states, values, strict=True) if product or not v.zero]
        if product:
            total: Ids | None = None
            for d in exponents:
                total = ctx.constraints.exponent_sum(total, d)
            out.exponents[axis] = total
        elif exponents:
            out.exponents[axis] = ctx.exponents_meet(exponents)
    if product:
        out.zero = any(v.zero for v in values)
    else:
        out.zero = all(v.zero for v in values)
    return out


def bind_together(ctx: Context, values: Sequence[AbstractValue], rank: int) -> None:
    """Bind parameters with the contexts that the labels they meet already have."""
    context: dict[int, set[int]] = {}
    for v in values:
        if v.view is None:
            pad = rank - v.rank
            for axis, ids in enumerate(v.ids):
                if not isinstance(ids, State):
                    near = {k + pad for k in range(v.rank) if k != axis and ids.shape[k] > 1}
                    context[axis + pad] = context.get(axis + pad, near) & near
    for v in values:
        if v.view is not None:
            pad = rank - v.rank
            around = {
                axis - pad: [k - pad for k in near if k >= pad and v.shape[k - pad] > 1]
                for axis, near in context.items()
                if axis >= pad
            }
            ctx.bind(v, None, around)


def _padded(v: AbstractValue, axis: int, rank: int) -> tuple[AxisState, Ids | None]:
    """State and exponent of axis `axis` of the broadcast result, as operand `v` sees it."""
    pad = rank - v.rank
    if axis < pad:
        return UNIFORM, None
    state, exponent = v.ids[axis - pad], v.exponents[axis - pad]
    if pad:
        if not isinstance(state, State):
            state = state.reshape((1,) * pad + state.shape)
        if exponent is not None:
            exponent = exponent.reshape((1,) * pad + exponent.shape)
    return state, exponent


def contract(
    ctx: Context, values: Sequence[AbstractValue], letters: Sequence[Sequence[str]], out: Sequence[str]
) -> AbstractValue:
    """Einstein summation: sum over the letters absent from `out` of the product of the operands.

    A contracted letter makes its labels equal and its exponents cancel; one of `out` makes its labels
    equal and its exponents add up.
    """
    order = list(dict.fromkeys([*out, *(x for word in letters for x in word)]))
    _bind_contracted(ctx, values, letters, out)
    sizes = dict.fromkeys(order, 1)
    for v, word in zip(values, letters, strict=True):
        for n, x in zip(v.shape, word, strict=True):
            sizes[x] = max(sizes[x], n)
    gone = [k for k, x in enumerate(order) if x not in out]
    result = constant([sizes[x] for x in out])
    moving = _moving(
        [[v.ids[w.index(x)] for v, w in zip(values, letters, strict=True) if x in w] for x in order]
    )
    for k, x in enumerate(order):
        seen = [
            (_spread(v.ids[word.index(x)], word, order), _spread_exponent(v, word, x, order))
            for v, word in zip(values, letters, strict=True)
            if x in word
        ]
        state = ctx.meet([s for s, _ in seen], around=moving - {k})
        exponents = [d for _, d in seen if d is not None]
        if k in gone:
            ctx.cancel(exponents)
            continue
        state = ctx.forget(state, gone)
        result.ids[k] = state if isinstance(state, State) else state.reshape(state.shape[: len(out)])
        total: Ids | None = None
        for d in exponents:
            total = ctx.constraints.exponent_sum(total, d)
        total = ctx.exponent_forget(total, gone)
        result.exponents[k] = None if total is None else total.reshape(total.shape[: len(out)])
    return result


def _bind_contracted(
    ctx: Context, values: Sequence[AbstractValue], letters: Sequence[Sequence[str]], out: Sequence[str]
) -> None:
    """Bind parameters: a contracted letter depends on the batch letters it shares with another operand,
    a kept letter on the kept letters before it."""
    for v, word in zip(values, letters, strict=True):
        if v.view is None:
            continue
        kept = [k for k, x in enumerate(word) if x in out and v.shape[k] > 1]
        context: dict[int, list[int]] = {}
        for k, x in enumerate(word):
            if x in out:
                context[k] = [c for c in kept if c < k]
            else:
                near = {
                    y
                    for u, w in zip(values, letters, strict=True)
                    if u is not v and x in w
                    for y, n in zip(w, u.shape, strict=True)
                    if n > 1
                }
                context[k] = [c for c in kept if word[c] in near]
        carried = {c for k, cs in context.items() if k in kept for c in cs}
        ctx.bind(v, None, context, carried)


def _spread(state: AxisState, word: Sequence[str], order: Sequence[str]) -> AxisState:
    """Move labels over an operand's letters into the space of all letters."""
    return state if isinstance(state, State) else _letters(state, word, order)


def _spread_exponent(v: AbstractValue, word: Sequence[str], letter: str, order: Sequence[str]) -> Ids | None:
    exponent = v.exponents[word.index(letter)]
    return None if exponent is None else _letters(exponent, word, order)


def _moving(states: Sequence[Sequence[AxisState]]) -> set[int]:
    """The axes that are labelled and meet no fixed one, by the states that meet on each."""
    return {
        axis
        for axis, met in enumerate(states)
        if not any(s is FIXED for s in met) and any(not isinstance(s, State) for s in met)
    }


def _letters(array: Ids, word: Sequence[str], order: Sequence[str]) -> Ids:
    """Transpose an array over `word` into the axes of `order`, with size 1 where a letter is absent."""
    present = [x for x in order if x in word]
    moved = array.transpose([list(word).index(x) for x in present])
    sizes = iter(moved.shape)
    return moved.reshape([next(sizes) if x in word else 1 for x in order])
