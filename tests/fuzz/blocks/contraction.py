"""Blocks that contract: linear layers, MatMul, Gemm, Einsum, convolutions."""

from __future__ import annotations

import math

from tests.fuzz.blocks.elementwise import unary
from tests.fuzz.blocks.registry import block
from tests.fuzz.builder import Builder, Rejected


def affine(b: Builder, x: str, width: int | None = None) -> str:
    """x · W (+ bias) over the last axis."""
    n, m = b.shape(x)[-1], width or b.size()
    spread = n**-0.5
    if b.flip(0.15):  # the other way round
        y = b.op("MatMul", x, b.op("Transpose", b.weight(m, n, spread=spread), perm=[1, 0]))
    else:
        y = b.op("MatMul", x, b.weight(n, m, spread=spread))
    return b.op("Add", y, b.weight(m, spread=0.5)) if b.flip() else y


@block(5)
def linear(b: Builder, x: str) -> str:
    return affine(b, x)


@block(3)
def layer(b: Builder, x: str) -> str:
    return unary(b, affine(b, x))


@block(1)
def mix_rows(b: Builder, x: str) -> str:
    """W · x over the axis before the last."""
    s = b.shape(x)
    if len(s) < 3:
        raise Rejected("rank")
    return b.op("MatMul", b.weight(b.size(), s[-2], spread=s[-2] ** -0.5), x)


@block(2)
def batched(b: Builder, x: str) -> str:
    """x[…, E, T, D] · W[E, D, K], one weight per position of a batch axis."""
    s = b.shape(x)
    if len(s) < 3 or (len(s) == 3 and b.flip(0.7)):
        m = b.size()
        wide = b.op("Unsqueeze", x, b.ints(1))
        y = b.op(
            "MatMul", wide, b.weight(m, *([1] if len(s) == 1 else []), s[-1], b.size(), spread=s[-1] ** -0.5)
        )
        return b.op("Add", y, b.weight(m, 1, b.shape(y)[-1], spread=0.5)) if b.flip() else y
    lead = s[-3] if b.flip(0.7) else 1
    return b.op("MatMul", x, b.weight(lead, s[-1], b.size(), spread=s[-1] ** -0.5))


@block(1)
def gram(b: Builder, x: str) -> str:
    s = b.shape(x)
    if len(s) < 3:
        raise Rejected("rank")
    other = str(b.pick([x, *b.fits(x)]))
    perm = [*range(len(s) - 2), len(s) - 1, len(s) - 2]
    if b.flip():
        return b.op("MatMul", x, b.op("Transpose", other, perm=perm))
    return b.op("MatMul", b.op("Transpose", other, perm=perm), x)


@block(2)
def gemm(b: Builder, x: str) -> str:
    if len(b.shape(x)) != 2:
        x = b.op("Flatten", x, axis=1)
    n, m = b.shape(x)[1], b.size()
    ta, tb = int(b.flip(0.2)), int(b.flip())
    a = b.op("Transpose", x, perm=[1, 0]) if ta else x
    w = b.weight(*((m, n) if tb else (n, m)), spread=n**-0.5)
    bias = [b.weight(*b.pick([(m,), (1, m), (1,)]), spread=0.5)] if b.flip(0.7) else []
    return b.op(
        "Gemm", a, w, *bias, transA=ta, transB=tb, alpha=b.pick([None, 0.5]), beta=b.pick([None, 0.5])
    )


@block(2)
def einsum(b: Builder, x: str) -> str:
    """Contract one or two axes with a weight; it may share further axes as batches."""
    s = b.shape(x)
    letters = "abcdefg"[: len(s)]
    shared = [k for k in range(1, len(s)) if b.flip(0.5)]
    gone = [k for k in shared if b.flip(0.6)]
    word = [letters[k] for k in shared] + (["z"] if b.flip(0.8) else [])
    if not word or not gone:
        raise Rejected("no letters")
    size = {**dict(zip(letters, s, strict=True)), "z": b.size()}
    word = [word[int(i)] for i in b.rng.permutation(len(word))]
    out = [c for c in letters if letters.index(c) not in gone] + (["z"] if "z" in word else [])
    if b.flip(0.4):
        out = [out[0], *(out[1 + int(i)] for i in b.rng.permutation(len(out) - 1))]
    fan = math.prod(s[k] for k in gone)
    w = b.weight(*(size[c] for c in word), spread=fan**-0.5)
    return b.op("Einsum", x, w, equation=f"{letters},{''.join(word)}->{''.join(out)}")


@block(1)
def bilinear(b: Builder, x: str) -> str:
    s = b.shape(x)
    other = str(b.pick([x, *b.fits(x)]))
    if len(s) == 3:
        return b.op(
            "Einsum",
            x,
            other,
            equation=b.pick(["abc,abd->acd", "abc,abc->ab", "abc,adc->abd", "abc,abc->ac"]),
        )
    if len(s) == 2:
        return b.op("Einsum", x, other, equation=b.pick(["ab,ac->abc", "ab,ab->ab"]))
    raise Rejected("rank")


@block(4)
def conv(b: Builder, x: str) -> str:
    s = b.shape(x)
    if len(s) not in (3, 4):
        raise Rejected("rank")
    c, rank = s[1], len(s) - 2
    groups = int(b.pick([1, 1, c, *(g for g in (2, 3, 4) if c % g == 0)]))
    kernel = [int(b.pick([1, 1, 2, 3])) for _ in range(rank)]
    filters = groups * int(b.pick([1, 1, 2, 3])) if groups > 1 else b.size()
    spread = (c // groups * math.prod(kernel)) ** -0.5
    if b.flip(0.25):
        w = b.weight(c, filters // groups, *kernel, spread=spread)
        kind = "ConvTranspose"
    else:
        w = b.weight(filters, c // groups, *kernel, spread=spread)
        kind = "Conv"
    bias = [b.weight(filters, spread=0.5)] if b.flip(0.7) else []
    pads = [k // 2 for k in kernel] * 2 if b.flip() else None
    y = b.op(kind, x, w, *bias, group=groups if groups > 1 else None, pads=pads, kernel_shape=kernel)
    return unary(b, y) if b.flip(0.4) else y
