"""The context of a rule: where it states constraints, and the helpers it is written with."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnxcanon.tracing import binding, combination, labels, positions, reshaping
from onnxcanon.tracing.abstract_value import ParameterView
from onnxcanon.tracing.constraints import Constraints


@dataclass(eq=False)
class Context:
    """The constraints so far, and everything a rule may do, each a plain function of a file of its subject.

    Helpers read abstract values and add constraints; they solve nothing. What returns a value leaves its
    arguments alone but for one thing: what needs the labels of a parameter *binds* it, in place, so that all
    its readers meet the same labels. `shown` lists what bound views show, until
    `record_shown`.
    """

    constraints: Constraints
    shown: list[tuple[ParameterView, int]] = field(default_factory=list)

    bind = binding.bind
    materialize = binding.materialize
    record_shown = binding.record_shown

    at_slot = labels.at_slot
    pin = labels.pin
    fix = labels.fix
    fix_all = labels.fix_all
    meet = labels.meet
    forget = labels.forget
    column = labels.column
    in_context = labels.in_context
    copy = labels.copy

    exponents_meet = labels.exponents_meet
    exponent_forget = labels.exponent_forget
    cancel = labels.cancel
    stop = labels.stop
    without = labels.without
    opposite = labels.opposite

    elementwise = combination.elementwise
    bind_together = combination.bind_together
    contract = combination.contract

    transpose = reshaping.transpose
    insert = reshaping.insert
    squeeze = reshaping.squeeze
    split_axis = reshaping.split_axis
    merge_axes = reshaping.merge_axes
    reshape = reshaping.reshape
    reshape_openly = reshaping.reshape_openly
    gather_unknown = reshaping.gather_unknown

    take = positions.take
    expand = positions.expand
    reduce = positions.reduce
    concat = positions.concat
    pad = positions.pad
