"""Shapes of matrix products and what is built from them."""

from __future__ import annotations

from onnxcanon.arrays import Shape
from onnxcanon.graph.operators import CONTRIB
from onnxcanon.shapes.values import Contradiction, OutputShapes, ShapeNode, broadcast, norm_axis, rule


def product(left: Shape, right: Shape) -> Shape:
    """The shape of numpy's matmul."""
    if not left or not right:
        raise Contradiction(f"product of {left} and {right}")
    if left[-1] != right[-2 if len(right) > 1 else 0]:
        raise Contradiction(f"product of {left} and {right}")
    batch = broadcast((left[:-2], right[:-2])) if len(left) > 2 or len(right) > 2 else ()
    return (*batch, *left[-2:-1], *(right[-1:] if len(right) > 1 else ()))


@rule("MatMul", "MatMulInteger")
@rule("MatMulInteger16", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", domain=CONTRIB)
@rule("GemmFastGelu", domain=CONTRIB)
def matmul(op: ShapeNode) -> OutputShapes:
    """A[*B, n, k], B[*B, k, m] -> Y[*B, n, m]."""
    return [product(op.shape(0), op.shape(1))]


@rule("QLinearMatMul")
def quantized_matmul(op: ShapeNode) -> OutputShapes:
    """A[*B, n, k], a_scale, a_zero, B[*B, k, m], ... -> Y[*B, n, m]."""
    return [product(op.shape(0), op.shape(3))]


@rule("FusedMatMul", "TransposeMatMul", "FusedMatMulActivation", domain=CONTRIB)
def fused_matmul(op: ShapeNode) -> OutputShapes:
    """A[*B, n, k], B[*B, k, m] -> Y[*B, n, m]; transBatchA: A[n, *B, k], before transA: A[*B, k, n]; so B."""
    sides = []
    for index, side in enumerate("AB"):
        shape = op.shape(index)
        if op.attr(f"transBatch{side}", 0):
            shape = (*shape[1:-1], shape[0], shape[-1])
        if op.attr(f"trans{side}", 0) and len(shape) > 1:
            shape = (*shape[:-2], shape[-1], shape[-2])
        sides.append(shape)
    return [product(*sides)]


def gemm_shape(op: ShapeNode, left: Shape, right: Shape) -> Shape:
    """Y[n, m] of A[n, k] and B[k, m], either turned by transA, transB."""
    if len(left) != 2 or len(right) != 2:
        raise Contradiction(f"Gemm of {left} and {right}")
    rows, inner = left[::-1] if op.attr("transA", 0) else left
    inner_too, columns = right[::-1] if op.attr("transB", 0) else right
    if inner != inner_too:
        raise Contradiction(f"Gemm of {left} and {right}")
    return (rows, columns)


@rule("Gemm")
@rule("FusedGemm", domain=CONTRIB)
def gemm(op: ShapeNode) -> OutputShapes:
    """A[n, k], B[k, m], C[...] -> Y[n, m]."""
    return [gemm_shape(op, op.shape(0), op.shape(1))]


@rule("QGemm", domain=CONTRIB)
def quantized_gemm(op: ShapeNode) -> OutputShapes:
    """A[n, k], a_scale, a_zero, B[k, m], ... -> Y[n, m]."""
    return [gemm_shape(op, op.shape(0), op.shape(3))]


@rule("MatMulNBits", "MatMulBnb4", domain=CONTRIB)
def packed_matmul(op: ShapeNode) -> OutputShapes:
    """A[*S, K], B packed -> Y[*S, N]."""
    return [(*op.shape(0)[:-1], op.attr("N"))]


@rule("Det")
def det(op: ShapeNode) -> OutputShapes:
    """X[*S, m, m] -> Y[*S]."""
    return [op.shape(0)[:-2]]


@rule("Einsum")
def einsum(op: ShapeNode) -> OutputShapes:
    """A term per input, e.g. "...ij,...jk->...ik"; without an arrow the labels that occur once, in order."""
    left, arrow, right = op.attr("equation").replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    batches = []
    for term, shape in zip(left.split(","), op.shapes(), strict=True):
        head, dots, tail = term.partition("...")
        free = len(shape) - len(head) - len(tail)
        if free < 0 or (free and not dots):
            raise Contradiction(f"{term} of {shape}")
        batches.append(shape[len(head) : len(head) + free])
        labelled = shape[: len(head)] + shape[len(shape) - len(tail) :]
        for label, dim in zip(head + tail, labelled, strict=True):
            if sizes.setdefault(label, dim) != dim:
                if 1 not in (sizes[label], dim):
                    raise Contradiction(f"{op.attr('equation')} of {op.shapes()}")
                sizes[label] = max(dim, sizes[label])
    if not arrow:
        labels = left.replace("...", "").replace(",", "")
        right = ("..." if "..." in left else "") + "".join(sorted(c for c in sizes if labels.count(c) == 1))
    head, dots, tail = right.partition("...")
    middle = broadcast(batches) if dots else ()
    return [(*(sizes[c] for c in head), *middle, *(sizes[c] for c in tail))]


@rule("CDist", domain=CONTRIB)
def cdist(op: ShapeNode) -> OutputShapes:
    """A[n, d], B[m, d] -> Y[n, m]."""
    return [(op.shape(0)[0], op.shape(1)[0])]


@rule("NGramRepeatBlock", domain=CONTRIB)
def scores(op: ShapeNode) -> OutputShapes:
    """ids[B, S], scores[B, V] -> scores[B, V]."""
    return [op.shape(1)]


@rule("UnfoldTensor", domain=CONTRIB)
def unfold(op: ShapeNode) -> OutputShapes:
    """X[*S, n, *T] -> Y[*S, count, *T, size]: windows of `size` every `step` elements."""
    shape = op.shape(0)
    axis = norm_axis(op.attr("dim", -1), len(shape))
    count = (shape[axis] - op.attr("size")) // op.attr("step", 1) + 1
    return [(*shape[:axis], count, *shape[axis + 1 :], op.attr("size"))]
