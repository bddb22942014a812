"""Convolutions and matrix products that onnxruntime fused with the activation behind them."""

from __future__ import annotations

from onnxcanon.tracing.abstract_value import Labelled
from onnxcanon.tracing.constraints import System
from onnxcanon.tracing.context import Movement
from onnxcanon.tracing.rules.contraction import gemm
from onnxcanon.tracing.rules.convolution import conv
from onnxcanon.tracing.rules.registry import (
    Barrier,
    Op,
    Outputs,
    register,
)

STOPPED = {
    "": None, "Relu": System.SIGN, "LeakyRelu": System.SIGN, "Tanh": System.SCALE, "Clip": System.BOTH,
    "Sigmoid": System.BOTH, "HardSigmoid": System.BOTH,
}  # fmt: skip
"""What each activation ends: signs where it is homogeneous, scales where it is odd, or both."""


def activated(t: Movement, op: Op, y: Labelled) -> Labelled:
    """The attribute `activation` of a value."""
    name = op.attr("activation", "")
    if name not in STOPPED:
        raise Barrier(f"the activation {name} has no rule here")
    system = STOPPED[name]
    return y if system is None else t.stop(y, system)


@register("FusedConv", domain="com.microsoft")
def fused_conv(t: Movement, op: Op) -> Outputs:
    """X[N, C, *S], W[M, C/group, *K], B[M], Z[N, M, *S'] -> activation(X * W + B + Z)."""
    y = conv(t, op)
    if not isinstance(y, Labelled):
        raise Barrier("a convolution without a rule")
    if op.has(3):
        y = t.elementwise([y, op.x(3)])
    return activated(t, op, y)


@register("FusedGemm", domain="com.microsoft")
def fused_gemm(t: Movement, op: Op) -> Outputs:
    """A, B, C -> activation(alpha · A' · B' + beta · C)."""
    y = gemm(t, op)
    if not isinstance(y, Labelled):
        raise Barrier("a product without a rule")
    return activated(t, op, y)
