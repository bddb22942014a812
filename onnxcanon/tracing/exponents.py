"""Exponents of scale and sign: how they meet, cancel, stop and turn round."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from onnxcanon.arrays import Ids
from onnxcanon.tracing.abstract_value import AbstractValue
from onnxcanon.tracing.constraints import System

if TYPE_CHECKING:
    from onnxcanon.tracing.context import Context


def exponents_meet(ctx: Context, exponents: Sequence[Ids | None]) -> Ids | None:
    """The common exponent of terms that are added: all equal."""
    known = [d for d in exponents if d is not None]
    if not known:
        return None
    base = min(known, key=lambda d: d.size)
    if len(known) < len(exponents):
        for d in known:
            ctx.constraints.exponent_zero(d)
        return None
    for d in known:
        ctx.constraints.exponent_equal(base, d)
    return base


def exponent_forget(
    ctx: Context, exponent: Ids | None, axes: Iterable[int], system: System = System.BOTH
) -> Ids | None:
    """Drop the context of an exponent column: the exponents along it become one."""
    for axis in axes:
        if exponent is not None and exponent.shape[axis] > 1:
            first = exponent.take([0], axis)
            ctx.constraints.exponent_equal(first, exponent, system)
            exponent = first
    return exponent


def cancel(ctx: Context, exponents: Sequence[Ids]) -> None:
    """The exponents along a contracted axis add up to zero."""
    if len(exponents) == 2:
        ctx.constraints.exponent_opposite(exponents[0], exponents[1])
    else:
        for d in exponents:
            ctx.constraints.exponent_zero(d)


def stop(ctx: Context, value: AbstractValue, system: System = System.BOTH) -> AbstractValue:
    """A copy whose exponents are zero in the given system(s), as demanded of the input.

    In one system the function is odd or homogeneous and keeps 0; in both it is any function.
    """
    ctx.bind(value)
    out = ctx.copy(value)
    out.zero = value.zero and system != System.BOTH
    for axis, exponent in enumerate(value.exponents):
        ctx.constraints.exponent_zero(exponent, system)
        if system == System.BOTH:
            out.exponents[axis] = None
    return out


def without(ctx: Context, value: AbstractValue, system: System) -> AbstractValue:
    """A copy whose exponents are zero in `system` where the input's stay free (an even function)."""
    ctx.bind(value)
    out = ctx.copy(value)
    other = System.BOTH ^ system
    for axis, exponent in enumerate(value.exponents):
        if exponent is not None:
            fresh = ctx.constraints.new_exponents(exponent.shape)
            ctx.constraints.exponent_zero(fresh, system)
            if other:
                ctx.constraints.exponent_equal(fresh, exponent, other)
            out.exponents[axis] = fresh
    return out


def opposite(ctx: Context, value: AbstractValue) -> AbstractValue:
    """A copy with negated exponents (the reciprocal)."""
    ctx.bind(value)
    out = ctx.copy(value)
    out.zero = False
    for axis, exponent in enumerate(value.exponents):
        if exponent is not None:
            fresh = ctx.constraints.new_exponents(exponent.shape)
            ctx.constraints.exponent_opposite(fresh, exponent)
            out.exponents[axis] = fresh
    return out
