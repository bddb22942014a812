"""Normalizations, reductions, pooling, and operators that read an axis in order."""

from __future__ import annotations

import numpy as np

from tests.fuzz.blocks.registry import block
from tests.fuzz.builder import Builder, Rejected


@block(4)
def normalize(b: Builder, x: str) -> str:
    s = b.shape(x)
    c, last = s[1], s[-1]
    kind = b.pick(
        [
            "batch",
            "layer",
            "layer",
            "instance",
            "group",
            "group",
            "rms",
            "spelled rms",
            "spelled layer",
            "softmax",
            "softmax",
            "lp",
            "mvn",
        ]
    )
    if kind == "batch":
        mean = b.uniform((c,), 0.0) if b.flip(0.2) else b.weight(c, spread=0.3)
        var = b.uniform((c,), float(b.pick([0.0, 1.0]))) if b.flip(0.15) else b.weight(c, positive=True)
        epsilon = 0.5 if (b.value[var] == 0).any() else None
        return b.op("BatchNormalization", x, b.weight(c), b.weight(c), mean, var, epsilon=epsilon)
    if kind == "layer":
        k = int(b.rng.integers(1, len(s))) if b.flip(0.3) else len(s) - 1
        bias = [b.weight(*s[k:], spread=0.5)] if b.flip() else []
        return b.op("LayerNormalization", x, b.weight(*s[k:]), *bias, axis=k if b.flip() else k - len(s))
    if kind == "instance":
        return b.op("InstanceNormalization", x, b.weight(c), b.weight(c))
    if kind == "group":
        g = int(b.pick([g for g in range(1, c + 1) if c % g == 0]))
        n = g if b.opset < 21 else c
        return b.op("GroupNormalization", x, b.weight(n), b.weight(n), num_groups=g)
    if kind == "rms":
        return b.op("RMSNormalization", x, b.weight(last), axis=-1)
    if kind == "spelled rms":
        mean = b.op("ReduceMean", b.op("Pow", x, b.scalar(2.0)), b.ints(-1), keepdims=1)
        root = b.op("Sqrt", b.op("Add", mean, b.scalar(1e-2)))
        y = b.op("Div", x, root) if b.flip() else b.op("Mul", x, b.op("Reciprocal", root))
        return b.op("Mul", b.weight(last), y)
    if kind == "spelled layer":
        centred = b.op("Sub", x, b.op("ReduceMean", x, b.ints(-1), keepdims=1))
        var = b.op("ReduceMean", b.op("Mul", centred, centred), b.ints(-1), keepdims=1)
        y = b.op("Div", centred, b.op("Sqrt", b.op("Add", var, b.scalar(1e-2))))
        return b.op("Add", b.op("Mul", y, b.weight(last)), b.weight(last))
    if kind == "softmax":
        return b.op(b.pick(["Softmax", "Softmax", "LogSoftmax"]), x, axis=b.axis(x, 2))
    if kind == "lp":
        return b.op("LpNormalization", x, axis=b.axis(x, 2), p=int(b.pick([1, 2])))
    return b.op("MeanVarianceNormalization", x, axes=sorted({b.axis(x, 2), b.axis(x, 2)}))


@block(2)
def reduce(b: Builder, x: str) -> str:
    kinds = [
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
        "ReduceLogSumExp",
    ]
    axes = sorted({b.axis(x, 1, free=False) for _ in range(int(b.pick([1, 1, 2])))})
    return b.op(b.pick(kinds), x, b.ints(*axes), keepdims=int(b.flip()))


@block(1.5)
def pool(b: Builder, x: str) -> str:
    rank = len(b.shape(x)) - 2
    kind = b.pick(["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "Resize"])
    if rank not in (1, 2):
        raise Rejected("rank")
    if kind == "Resize":
        scales = b.constant(np.array([1, 1] + [2] * rank, np.float32))
        return b.op("Resize", x, "", scales, mode="nearest")
    if kind.startswith("Global"):
        return b.op(kind, x)
    strides = [int(b.pick([1, 2]))] * rank
    return b.op(kind, x, kernel_shape=[2] * rank, strides=strides)


@block(0.4)
def ordered(b: Builder, x: str) -> str:
    k = b.axis(x, 2, free=False)
    kind = b.pick(["CumSum", "TopK", "LRN"])
    if kind == "CumSum":
        return b.op("CumSum", x, b.constant(np.array(k, np.int64), "i"))
    if kind == "LRN":
        return b.op("LRN", x, size=3)
    return b.ops("TopK", x, b.ints(2), outputs=2, keep=[0], axis=k)[0]
