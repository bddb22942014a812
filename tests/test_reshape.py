"""Axes that are cut, merged and cut again: the whole group is found, a reshape in between or not."""

from __future__ import annotations

from math import factorial as f

from tests.fuzz.builder import Builder
from tests.groups import B, C, Group, S, building, final, weight


def linear(b: Builder, x: str, width: int) -> str:
    """x · W with a new weight."""
    return b.op("MatMul", x, weight(b, b.shape(x)[-1], width))


def reshaped(b: Builder, x: str, *shape: int) -> str:
    """x in another shape."""
    return b.op("Reshape", x, b.ints(*shape))


def test_heads_move_though_the_positions_inside_them_are_fixed() -> None:
    """One table rotates the queries and keys of all heads: its positions are the same ones in each head."""
    h, d = 3, 4
    b = building()
    table = weight(b, S, 1, d)
    turned = []
    for _ in range(2):
        z = reshaped(b, linear(b, "x", h * d), B, S, h, d)
        p, q = b.ops("Split", z, b.ints(1, d - 1), outputs=2, axis=3)
        rolled = b.op("Mul", b.op("Concat", q, b.op("Neg", p), axis=3), table)
        turned.append(b.op("Add", z, rolled))
    score = b.op("Softmax", b.op("Einsum", *turned, equation="nthd,nshd->nhts"), axis=-1)
    y = b.op("Einsum", score, "x", equation="nhts,nsc->nthc")
    Group(f(h), h).keeps(b, final(b, reshaped(b, y, B, S, h * C)))


def test_rows_of_a_weight_stored_flat_move_though_its_columns_are_fixed() -> None:
    b = building()
    w = reshaped(b, weight(b, 4 * C), 4, C)
    hidden = b.op("Sigmoid", b.op("MatMul", "x", b.op("Transpose", w, perm=[1, 0])))
    Group(f(4), 0).keeps(b, final(b, hidden))
