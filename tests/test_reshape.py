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


def hidden(b: Builder, width: int) -> str:
    """A layer whose units can only change places."""
    return b.op("Sigmoid", linear(b, "x", width))


def test_reshapes_that_do_not_line_up_are_one_reshape() -> None:
    """[12] -> [4, 3] -> [2, 6]: nothing sees the [4, 3]."""
    b = building()
    y = reshaped(b, hidden(b, 12), B, S, 4, 3)
    y = reshaped(b, b.op("Relu", y), B, S, 2, 6)
    Group(f(6), 0).keeps(b, final(b, y))


def test_a_reshape_there_and_back_changes_nothing() -> None:
    b = building()
    y = reshaped(b, reshaped(b, hidden(b, 12), B, S, 4, 3), B, S, 3, 4)
    Group(f(12), 0).keeps(b, final(b, reshaped(b, y, B, S, 12)))


def test_a_shuffle_is_an_order_of_the_units() -> None:
    """[6] -> [2, 3] -> [3, 2] -> [6]: two groups of three whichever units they are."""
    b = building()
    y = b.op("Transpose", reshaped(b, hidden(b, 6), B, S, 2, 3), perm=[0, 1, 3, 2])
    groups = reshaped(b, y, B, S, 2, 3)
    y = b.op("Einsum", groups, weight(b, 2, 3, 4), equation="bsgi,gio->bsgo")
    y = reshaped(b, b.op("Sigmoid", y), B, S, 8)
    Group(2 * (f(3) * f(4)) ** 2, 0).keeps(b, final(b, y))


def test_parts_that_are_read_are_parts_of_all_that_follows() -> None:
    """[12] -> [4, 3] is read, and so is [4, 3] -> [2, 6]: the three move, and the six as two threes."""
    b = building()
    y = reshaped(b, hidden(b, 12), B, S, 4, 3)
    Group(f(3), 0).keeps(b, final(b, y), final(b, reshaped(b, y, B, S, 2, 6)))


def test_units_that_stand_twice_keep_their_order_through_a_transpose() -> None:
    """[6 and the same 6] as [3, 4], transposed: of units 2 and 3 the second position comes first."""
    b = building()
    h = hidden(b, 6)
    y = reshaped(b, b.op("Concat", h, h, axis=2), B, S, 3, 4)
    y = reshaped(b, b.op("Transpose", y, perm=[0, 1, 3, 2]), B, S, 12)
    Group(f(4) * f(2), 0).keeps(b, final(b, y))
