"""Shapes of elementwise operators and of everything else that keeps the shape of an input."""

from __future__ import annotations

from onnxcanon.graph.operators import BOTH, CLASSICAL, CONTRIB
from onnxcanon.graph.traits import Trait, operators
from onnxcanon.shapes.values import OutputShapes, ShapeNode, broadcast, rule


@rule(*operators(Trait.POINTWISE, without=Trait.DROPOUT))
@rule("Cast", "Clip", "Affine", "ImageScaler", "PRelu")
@rule("BiasGelu", "FastGelu", "Gelu", "QuickGelu", domain=CONTRIB)
@rule("QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax", domain=CONTRIB)
@rule("BiasDropout", "BiasSoftmax", "SoftmaxDropout", domain=CONTRIB)
@rule("DequantizeWithOrder", "QuantizeWithOrder", "BiasAdd", "NhwcBiasAdd", "Inverse", domain=CONTRIB)
@rule("LongformerAttention", "DecoderAttention", "MoE", "QMoE", domain=CONTRIB)
@rule("RotaryEmbedding", domain=BOTH)
@rule("Softmax", "LogSoftmax", "Hardmax", "LRN", "LpNormalization", "MeanVarianceNormalization", "CumSum")
@rule("InstanceNormalization", "GroupNormalization", "Bernoulli", "RandomNormalLike", "RandomUniformLike")
@rule("EyeLike", "Scatter", "ScatterElements", "ScatterND", "ReverseSequence", "TensorScatter", "CumProd")
@rule("QuantizeLinear", "DequantizeLinear", "Trilu", domain=BOTH)
@rule("SwiGLU")
@rule("GroupNorm", domain=CONTRIB)
@rule("Binarizer", "CategoryMapper", "Imputer", "LabelEncoder", "Normalizer", "Scaler", domain=CLASSICAL)
def alike(op: ShapeNode) -> OutputShapes:
    """X[*S], ... -> Y[*S] (slopes, biases, limits, tables and masks change nothing)."""
    return [op.shape(0)]


@rule("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Less", "Greater")
def arithmetic(op: ShapeNode) -> OutputShapes:
    """A[*S], B[*T] -> C[broadcast]; before opset 7, B spans axes of A from `axis` on and C[*S]."""
    if op.version < 7 and op.attr("broadcast", 0):
        return [op.shape(0)]
    return [broadcast((op.shape(0), op.shape(1)))]


@rule("Mod", "LessOrEqual", "GreaterOrEqual", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor")
@rule("Max", "Min", "Sum", "Mean", "Where")
def meeting(op: ShapeNode) -> OutputShapes:
    """A[*S], B[*T], ... -> C[broadcast]."""
    return [broadcast(op.shapes())]


@rule("QLinearAdd", "QLinearMul", domain=CONTRIB)
def quantized_meeting(op: ShapeNode) -> OutputShapes:
    """A[*S], a_scale, a_zero, B[*T], b_scale, b_zero, c_scale, c_zero -> C[broadcast]."""
    return [broadcast((op.shape(0), op.shape(3)))]


@rule("QLinearWhere", domain=CONTRIB)
def quantized_where(op: ShapeNode) -> OutputShapes:
    """condition[*S], X[*T], x_scale, x_zero, Y[*U], ... -> Z[broadcast]."""
    return [broadcast((op.shape(0), op.shape(1), op.shape(4)))]


@rule("Dropout", domain=BOTH)
@rule("BitmaskDropout", domain=CONTRIB)
def dropout(op: ShapeNode) -> OutputShapes:
    """X[*S] -> Y[*S], mask[*S]."""
    return [op.shape(0), op.shape(0)]


@rule("DynamicQuantizeLinear")
def dynamic_quantize(op: ShapeNode) -> OutputShapes:
    """X[*S] -> Y[*S], scale[], zero[]."""
    return [op.shape(0), (), ()]


@rule("BiasSplitGelu", domain=CONTRIB)
def split_gelu(op: ShapeNode) -> OutputShapes:
    """X[N, S, D], bias[D] -> Y[N, S, D/2]."""
    shape = op.shape(0)
    return [(*shape[:-1], shape[-1] // 2)]
