"""Embeddings and sums normalized in one operator: the whole group is found, and it keeps the function."""

from __future__ import annotations

from math import factorial as f

import pytest

from tests.fuzz.builder import CONTRIB
from tests.groups import (
    B,
    Group,
    S,
    building,
    dense,
    final,
    given,
    ints,
    weight,
)


@pytest.mark.parametrize("segments", (False, True))
@pytest.mark.parametrize("placed", (False, True))
def test_embeddings_with_their_normalization(segments: bool, placed: bool) -> None:
    b = building()
    words = given(b, "words", ints(0, 3, 1, 4, 4, 2).reshape(B, S))
    kinds = given(b, "kinds", ints(0, 1, 1, 0, 0, 1).reshape(B, S)) if segments else ""
    mask = given(b, "mask", ints(1, 1, 0, 1, 0, 0).reshape(B, S))
    places = [given(b, "places", ints(2, 1, 0, 0, 1, 3).reshape(B, S))] if placed else []
    tables = [weight(b, 5, 6), weight(b, 4, 6), weight(b, 2, 6) if segments else ""]
    y, index, total = b.ops(
        "EmbedLayerNormalization", words, kinds, *tables, weight(b, 6), weight(b, 6), mask, *places,
        outputs=3, domain=CONTRIB,
    )  # fmt: skip
    # A gain scales and flips; one sign flips the whole stream.
    Group(f(6), 6, 7).keeps(b, b.op("Add", final(b, y), final(b, total)), index)


@pytest.mark.parametrize("extra", (False, True))
@pytest.mark.parametrize("shape", ((B, S, 6), (1, S, 6), (S, 6)))
def test_normalization_of_a_sum(extra: bool, shape: tuple[int, ...]) -> None:
    b = building()
    inputs = [dense(b, "x", 6), weight(b, *shape), weight(b, 6), weight(b, 6)]
    inputs += [weight(b, 6)] if extra else []
    y, total = b.ops("SkipLayerNormalization", *inputs, outputs=4, keep=[0, 3], domain=CONTRIB)
    Group(f(6), 6, 7).keeps(b, b.op("Add", final(b, y), final(b, total)))


@pytest.mark.parametrize("extra", (False, True))
def test_root_mean_square_of_a_sum(extra: bool) -> None:
    b = building()
    inputs = [dense(b, "x", 6), dense(b, "x", 6), weight(b, 6)] + ([weight(b, 6)] if extra else [])
    y, total = b.ops("SkipSimplifiedLayerNormalization", *inputs, outputs=4, keep=[0, 3], domain=CONTRIB)
    Group(f(6), 6, 12).keeps(b, b.op("Add", final(b, y), final(b, total)))


@pytest.mark.parametrize("kind", ("FastGelu", "BiasGelu", "QuickGelu", "Gelu"))
def test_gaussian_error_units(kind: str) -> None:
    b = building()
    bias = [weight(b, 6)] if kind in ("FastGelu", "BiasGelu") else []
    y = b.op(kind, dense(b, "x", 6), *bias, domain=CONTRIB)
    Group(f(6), 0).keeps(b, final(b, y))
