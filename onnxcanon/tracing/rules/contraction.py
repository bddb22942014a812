"""Contractions: MatMul, Gemm, Einsum."""

from __future__ import annotations

import string

from onnxcanon.graph.operators import CONTRIB
from onnxcanon.tracing.abstract_value import AbstractValue
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.registry import Outputs, SymmetryNode, Unsupported, register


def product(ctx: Context, a: AbstractValue, b: AbstractValue) -> AbstractValue:
    """A[…, M, K] · B[…, K, N] with numpy's rules for rank 1 and for broadcasting batches."""
    batch = max(a.rank, b.rank) - 2
    names = string.ascii_uppercase[: max(batch, 0)]
    left = ["k"] if a.rank == 1 else [*names[len(names) - (a.rank - 2) :], "m", "k"]
    right = ["k"] if b.rank == 1 else [*names[len(names) - (b.rank - 2) :], "k", "n"]
    out = [*names, *(["m"] if a.rank > 1 else []), *(["n"] if b.rank > 1 else [])]
    return ctx.contract([a, b], [left, right], out)


@register("MatMul")
def matmul(ctx: Context, op: SymmetryNode) -> Outputs:
    """A[…, M, K], B[…, K, N] -> Y[…, M, N]."""
    return product(ctx, op.x(0), op.x(1))


@register("Gemm")
def gemm(ctx: Context, op: SymmetryNode) -> Outputs:
    """A[M, K], B[K, N], C[M?, N?] -> alpha·A'·B' + beta·C, with A' and B' transposed on request."""
    a, b = op.x(0), op.x(1)
    if a.rank != 2:  # opset 6 and earlier flattened
        raise Unsupported("Gemm on a tensor that is not a matrix")
    left = ["k", "m"] if op.attr("transA", 0) else ["m", "k"]
    right = ["n", "k"] if op.attr("transB", 0) else ["k", "n"]
    y = ctx.contract([a, b], [left, right], ["m", "n"])
    c = op.optional(2)
    return y if c is None or op.attr("beta", 1.0) == 0.0 else ctx.elementwise([y, c])


@register("Einsum")
def einsum(ctx: Context, op: SymmetryNode) -> Outputs:
    """Inputs… -> the Einstein sum of the attribute `equation`; '...' stands for leading batch axes."""
    values = op.xs()
    equation = op.attr("equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    dots = 0
    for term, v in zip(terms, values, strict=True):
        if "..." in term:
            dots = max(dots, v.rank - len(term.replace("...", "")))
    if not arrow:
        if left != left.lower() and left != left.upper():
            raise Unsupported("an Einsum whose output order depends on case")
        seen = left.replace(",", "").replace(".", "")
        right = ("..." if "..." in left else "") + "".join(sorted(x for x in set(seen) if seen.count(x) == 1))
    words = [_letters(term, v.rank, dots) for term, v in zip(terms, values, strict=True)]
    out = _letters(right, None, dots)
    if any(len(set(w)) < len(w) for w in words):
        raise Unsupported("an Einsum that takes a diagonal")
    return ctx.contract(values, words, out)


def _letters(term: str, rank: int | None, dots: int) -> list[str]:
    if "..." not in term:
        return list(term)
    before, after = term.split("...")
    count = dots if rank is None else rank - len(before) - len(after)
    return [*before, *(f".{k}" for k in range(dots - count, dots)), *after]


@register("FusedMatMul", domain=CONTRIB)
def fused_matmul(ctx: Context, op: SymmetryNode) -> Outputs:
    """A, B -> alpha · A' · B', either one with its last two axes transposed."""
    if op.attr("transBatchA", 0) or op.attr("transBatchB", 0):
        raise Unsupported("FusedMatMul with transposed batches")
    a, b = op.x(0), op.x(1)
    if op.attr("transA", 0):
        a = ctx.transpose(a, [*range(a.rank - 2), a.rank - 1, a.rank - 2])
    if op.attr("transB", 0):
        b = ctx.transpose(b, [*range(b.rank - 2), b.rank - 1, b.rank - 2])
    return product(ctx, a, b)
