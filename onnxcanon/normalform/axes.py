"""Chains of Reshape and Transpose as one permutation of factors.

Every axis of a tensor is a product of *factors*; Transpose permutes axes, Reshape regroups factors and splits
one where need be. After any chain of these the result is the factors of its root in another order, grouped
anew. Factors that stay neighbours, within one axis of the root and of the result, are one factor; axes of
size 1 hold none. What is left depends on the function of the chain alone, so

    root -> Reshape (to its factors) -> Transpose -> Reshape (to the result)

is a normal form, in which the outer two may be missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxcanon.graph.nodes import attribute, made_by
from onnxcanon.graph.traits import Trait, operators
from onnxcanon.normalform.engine import Rewriting, ShapeSizes, Size

REARRANGEMENTS = tuple(operators(Trait.AXES))


@dataclass(frozen=True, slots=True)
class Factor:
    """A part of an axis of the root: its size, the axis, and its place among all factors of the root."""

    size: Size
    axis: int
    place: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """A value as a rearrangement of another one.

    Attributes:
        root: the value that is rearranged.
        groups: the factors of each axis of the result, in order.
        shape: the shape of the result.
        start: the shape of the root.
    """

    root: ir.Value
    groups: tuple[tuple[Factor, ...], ...]
    shape: ShapeSizes
    start: ShapeSizes

    @property
    def order(self) -> list[Factor]:
        """The factors in the order of the result."""
        return [factor for group in self.groups for factor in group]

    @property
    def source(self) -> list[Factor]:
        """The factors in the order of the root."""
        return sorted(self.order, key=lambda factor: factor.place)

    def merged(self) -> Chain:
        """This chain with as few factors as possible."""
        rank = {factor: k for k, factor in enumerate(self.source)}
        groups = []
        for group in self.groups:
            row: list[Factor] = []
            last = -2
            for factor in group:
                if row and rank[factor] == last + 1 and factor.axis == row[-1].axis:
                    row[-1] = Factor(times(row[-1].size, factor.size), factor.axis, row[-1].place)
                else:
                    row.append(factor)
                last = rank[factor]
            groups.append(tuple(row))
        return Chain(self.root, tuple(groups), self.shape, self.start)


def chain_of(g: Rewriting, value: ir.Value) -> Chain:
    """How a value is rearranged from the farthest root."""
    nodes: list[ir.Node] = []
    node = made_by(value, *REARRANGEMENTS)
    while node is not None and node.inputs[0] is not None and g.sizes(node.inputs[0], value) is not None:
        nodes.append(node)
        node = made_by(node.inputs[0], *REARRANGEMENTS)
    while nodes:
        chain = _through(g, nodes, value)
        if chain is not None:
            return chain
        nodes.pop()
    sizes = g.sizes(value)
    return _start(value, sizes[0] if sizes else ())


def _through(g: Rewriting, nodes: Sequence[ir.Node], value: ir.Value) -> Chain | None:
    """The chain through nodes, the last one first; None where one cuts axes that do not line up."""
    root = nodes[-1].inputs[0]
    values = [root, *(node.outputs[0] for node in reversed(nodes))]
    sizes = g.sizes(*values)
    if root is None or sizes is None or values[-1] is not value:
        return None
    chain: Chain | None = _start(root, sizes[0])
    for node, shape in zip(reversed(nodes), sizes[1:], strict=True):
        if chain is None:
            return None
        chain = _transposed(chain, node, shape) if node.op_type == "Transpose" else regrouped(chain, shape)
    return chain


def _start(value: ir.Value, shape: ShapeSizes) -> Chain:
    groups = (() if is_one(size) else (Factor(size, k, (k,)),) for k, size in enumerate(shape))
    return Chain(value, tuple(groups), shape, shape)


def _transposed(chain: Chain, node: ir.Node, shape: ShapeSizes) -> Chain | None:
    perm = attribute(node, "perm") or list(reversed(range(len(shape))))
    if sorted(perm) != list(range(len(chain.groups))):
        return None
    return Chain(chain.root, tuple(chain.groups[k] for k in perm), shape, chain.start)


def regrouped(chain: Chain, shape: ShapeSizes) -> Chain | None:
    """The chain followed by a Reshape; None where axes would have to be cut that do not line up."""
    rest = chain.order[::-1]
    groups: list[tuple[Factor, ...]] = []
    for size in shape:
        group: list[Factor] = []
        need = size
        while not is_one(need):
            if not rest:
                return None
            factor = rest.pop()
            left = divided(need, factor.size)
            if left is None:
                parts = _cut(factor, need)
                if parts is None:
                    return None
                factor, after = parts
                rest.append(after)
                left = divided(need, factor.size)
                assert left is not None
            group.append(factor)
            need = left
        groups.append(tuple(group))
    return None if rest else Chain(chain.root, tuple(groups), shape, chain.start)


def _cut(factor: Factor, size: Size) -> tuple[Factor, Factor] | None:
    """A factor as the product of one of this size and another."""
    rest = divided(factor.size, size)
    if rest is None:
        return None
    first = Factor(size, factor.axis, (*factor.place, 0))
    return first, Factor(rest, factor.axis, (*factor.place, 1))


def is_one(size: Size) -> bool:
    """Whether a size is 1 in all samples."""
    return all(number == 1 for number in size)


def times(a: Size, b: Size) -> Size:
    """The product in each sample."""
    return tuple(x * y for x, y in zip(a, b, strict=True))


def divided(a: Size, b: Size) -> Size | None:
    """The quotient in each sample; None where b does not divide a in one of them."""
    if any(y <= 0 or x <= 0 or x % y for x, y in zip(a, b, strict=True)):
        return None
    return tuple(x // y for x, y in zip(a, b, strict=True))
