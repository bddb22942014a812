"""Rearrangements: chains of Reshape, Transpose and their like in the normal form of `axes`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxcanon.graph.nodes import attribute, made_by
from onnxcanon.normalform.axes import (
    REARRANGEMENTS,
    Chain,
    chain_of,
    divided,
    times,
)
from onnxcanon.normalform.engine import UNKNOWN_SIZES, Outputs, Refusal, Rewriting, ShapeSizes, static
from onnxcanon.normalform.rules.registry import RULES as rule
from onnxcanon.normalform.rules.sizes import size_vector


@rule(*REARRANGEMENTS)
def rearranged(g: Rewriting, node: ir.Node) -> Outputs:
    """X -> the same elements in another shape and order."""
    chain = chain_of(g, node.outputs[0])
    if chain.root is node.outputs[0]:
        return Refusal("has sizes that are not known, or cuts axes that do not line up")
    if g.is_constant(chain.root):
        return None
    return rebuilt(g, chain, node.outputs[0])


def rebuilt(g: Rewriting, chain: Chain, old: ir.Value | None = None) -> ir.Value | Refusal | None:
    """The rearrangement in its normal form, unless that cannot be written; None where `old` is it already."""
    steps = _steps(chain.merged())
    targets = [None if step.perm else _target(g, step.before, step.after) for step in steps]
    if any(target is None and not step.perm for step, target in zip(steps, targets, strict=True)):
        return Refusal("has sizes that are no multiples of an input's")
    if old is not None and _is_rebuilt(g, old, chain.root, steps, targets):
        return None
    value = chain.root
    for step, target in zip(steps, targets, strict=True):
        if step.perm:
            value = g.node("Transpose", value, attributes={"perm": list(step.perm)})
        else:
            value = g.node("Reshape", value, target, attributes={"allowzero": 0})
    return value


@dataclass(frozen=True, slots=True)
class _Step:
    """A Transpose, or without a permutation a Reshape, from one shape to another."""

    before: ShapeSizes
    after: ShapeSizes
    perm: tuple[int, ...] = ()


def _steps(chain: Chain) -> list[_Step]:
    """What leads from the root to the result."""
    source, order, root = chain.source, chain.order, chain.start
    if source == order:
        return [] if root == chain.shape else [_Step(root, chain.shape)]
    split = tuple(factor.size for factor in source)
    moved = tuple(factor.size for factor in order)
    steps = [] if split == root else [_Step(root, split)]
    steps.append(_Step(split, moved, tuple(source.index(factor) for factor in order)))
    return steps if moved == chain.shape else [*steps, _Step(moved, chain.shape)]


def _target(g: Rewriting, before: ShapeSizes, after: ShapeSizes) -> ir.Value | None:
    """The shape to give to a Reshape: 0 for a dynamic size that stays in place, -1 for another one.

    Zeros come first because they accept less: sizes that the model refuses are not to pass here unseen.
    """
    numbers = [static(size) for size in after]
    if 0 in numbers:
        return None
    dynamic = [k for k, number in enumerate(numbers) if number is None]
    moved = [k for k in dynamic if k >= len(before) or before[k] != after[k]]
    if len(moved) > 1:
        return size_vector(g, after)
    return g.integers(-1 if k in moved else number or 0 for k, number in enumerate(numbers))


def _is_rebuilt(
    g: Rewriting, value: ir.Value, root: ir.Value, steps: Sequence[_Step], targets: Sequence[ir.Value | None]
) -> bool:
    """Whether a value is computed from the root by just these steps."""
    for step, target in zip(reversed(steps), reversed(targets), strict=True):
        node = made_by(value, "Transpose" if step.perm else "Reshape")
        if node is None or node.inputs[0] is None:
            return False
        if step.perm and tuple(attribute(node, "perm") or ()) != step.perm:
            return False
        if not step.perm and not _is_target(g, node, target):
            return False
        value = node.inputs[0]
    return value is root


def _is_target(g: Rewriting, node: ir.Node, target: ir.Value | None) -> bool:
    shape = node.inputs[1]
    if attribute(node, "allowzero", 0) or shape is None or target is None:
        return False
    if g.is_constant(target):
        return g.is_constant(shape) and g.ints(shape) == g.ints(target)
    return shape in g.final


@rule("DepthToSpace")
def depth_to_space(g: Rewriting, node: ir.Node) -> Outputs:
    """X[N, C * b * b, H, W] -> Y[N, C, H * b, W * b]."""
    x, b = node.inputs[0], attribute(node, "blocksize")
    shape = g.sizes(x)
    if shape is None or len(shape[0]) != 4:
        return UNKNOWN_SIZES
    n, c, h, w = shape[0]
    block = (b,) * len(n)
    channels = divided(c, (b * b,) * len(n))
    if channels is None:
        return None
    rows = attribute(node, "mode", "DCR") == "CRD"
    split = (n, channels, block, block, h, w) if rows else (n, block, block, channels, h, w)
    perm = [0, 1, 4, 2, 5, 3] if rows else [0, 3, 4, 1, 5, 2]
    target = size_vector(g, split)
    result = size_vector(g, (n, channels, times(h, block), times(w, block)))
    if target is None or result is None:
        return UNKNOWN_SIZES
    value = g.node("Reshape", x, target)
    return g.node("Reshape", g.node("Transpose", value, attributes={"perm": perm}), result)


@rule("Transpose")
def explicit_perm(g: Rewriting, node: ir.Node) -> Outputs:
    """The default is made explicit, also where the result's sizes do not line up."""
    rank = g.rank(node.inputs[0])
    if rank is None or attribute(node, "perm") is not None:
        return None
    return g.renewed(node, {"perm": list(reversed(range(rank)))})
