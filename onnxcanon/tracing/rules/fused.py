"""Convolutions and matrix products that onnxruntime fused with the activation behind them."""

from __future__ import annotations

from onnxcanon.graph.operators import CONTRIB
from onnxcanon.tracing.abstract_value import AbstractValue
from onnxcanon.tracing.constraints import System
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.contraction import gemm
from onnxcanon.tracing.rules.convolution import conv
from onnxcanon.tracing.rules.registry import Outputs, SymmetryNode, Unsupported, register

STOPPED = {
    "": None,
    **dict.fromkeys(("LeakyRelu", "Relu"), System.SIGN),
    "Tanh": System.SCALE,
    **dict.fromkeys(("Clip", "HardSigmoid", "Sigmoid"), System.BOTH),
}
"""What each activation ends: signs where it is homogeneous, scales where it is odd, or both."""


def activated(ctx: Context, op: SymmetryNode, y: AbstractValue) -> AbstractValue:
    """The attribute `activation` of a value."""
    name = op.attr("activation", "")
    if name not in STOPPED:
        raise Unsupported(f"the activation {name} has no rule here")
    system = STOPPED[name]
    return y if system is None else ctx.stop(y, system)


@register("FusedConv", domain=CONTRIB)
def fused_conv(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[N, C, *S], W[M, C/group, *K], B[M], Z[N, M, *S'] -> activation(X * W + B + Z)."""
    y = conv(ctx, op)
    if not isinstance(y, AbstractValue):
        raise Unsupported("a convolution without a rule")
    if op.has(3):
        y = ctx.elementwise([y, op.x(3)])
    return activated(ctx, op, y)


@register("FusedGemm", domain=CONTRIB)
def fused_gemm(ctx: Context, op: SymmetryNode) -> Outputs:
    """A, B, C -> activation(alpha · A' · B' + beta · C)."""
    y = gemm(ctx, op)
    if not isinstance(y, AbstractValue):
        raise Unsupported("a product without a rule")
    return activated(ctx, op, y)
