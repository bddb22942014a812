"""What operators are like: a row for each, which the package asks instead of keeping lists of names.

An operator without a row has no traits: it is then taken for one of which nothing is known, which is safe.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Flag, auto
from functools import cache

from onnxcanon.graph.operators import BOTH, CONTRIB, STANDARD, OperatorOf, Table, domain_of


class Trait(Flag):
    """What holds of an operator. The first group speaks of the function, the second of where entries go, the
    third of what it is used for."""

    NONE = 0
    POINTWISE = auto()
    """A function of each entry of its first input; all else it reads are numbers."""
    HOMOGENEOUS = auto()
    """f(a x) = a f(x) for a > 0."""
    ODD = auto()
    """f(-x) = -f(x)."""
    EVEN = auto()
    """f(-x) = f(x)."""
    LINEAR = HOMOGENEOUS | ODD
    """Both, as far as one input is concerned."""
    COMMUTATIVE = auto()
    """Its inputs may change places."""
    ASSOCIATIVE = auto()
    """A chain of it is one operation on all terms."""
    BITWISE = auto()
    """It works on the bits of integers."""
    SUMMING = auto()
    """Adds up entries, or products with them, over positions."""
    CONVOLUTION = auto()
    """Its weight has kernel positions from axis 2 on."""
    RECURRENT = auto()
    """Carries a state along a sequence; its weights have an axis 0 of directions."""
    NORMALIZATION = auto()
    """Its first output is its first input, normalized."""
    REDUCTION = auto()
    """Reduces axes, given as an attribute or as input 1, to one position or none."""
    SOFTMAX = auto()
    """Softmax or its logarithm."""
    ROOT = auto()
    """Takes a root, or may."""
    RANDOM = auto()
    """Draws numbers."""
    DROPOUT = auto()
    """Draws numbers if its last input says that it trains."""
    ROUNDING = auto()
    """Rounds to integers, or computes with what was rounded."""
    SATURATING = auto()
    """Its results hardly move while its input still does."""

    AXES = auto()
    """Cuts, joins and orders axes and does nothing else."""
    SELECTION = auto()
    """Hands on some positions along an axis of its first input."""
    REPETITION = auto()
    """Repeats the entries of its first input."""
    CAST = auto()
    """The entries of its first input, at most in another type."""
    QUANTIZATION = auto()
    """From floats to integers with a scale and a zero point, or back."""
    IN_RANGE = auto()
    """Its entries are some of its first input, or lie between these and bounds or fillings."""
    CHOICE = auto()
    """Each of its entries is one of one of its inputs."""
    GROWTH = auto()
    """It may make many entries of few."""
    SHOWING = auto()
    """Every entry of its inputs can be seen: at another place, in another type or on another scale."""
    SEPARATE = auto()
    """It sums over a position or hands it on, without mixing it with others that stay apart."""
    COUNT = auto()
    """Makes integers: sizes, positions."""

    INDEX_ARITHMETIC = auto()
    """Positions are computed with it."""
    MASKING = auto()
    """Scores are masked with it."""
    LAYER = auto()
    """Learned channels that a report lists as a layer."""
    OPTIONAL_OUTPUTS = auto()
    """Computes the same without the last of its outputs; onnxruntime's attention does not."""
    AXIS_OF_FIRST = auto()
    """Its attribute `axis` counts the axes of its first input."""


@dataclass(frozen=True, slots=True)
class QuantizedWeight:
    """Which inputs hold an integer weight, its zero point and that of the activation that it meets (None: the
    activation is unsigned whatever it is)."""

    weight: int
    zero: int
    activation: int | None


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one operator.

    Attributes:
        traits: what holds of it.
        statistics: inputs that hold statistics of the training data, the mean and the variance.
        tables: inputs that hold cosines and sines of positions.
        activations: the functions that it applies unless it says so, for one direction.
        weights: its quantized weights, with what an integer sum needs to know of them.
    """

    traits: Trait = Trait.NONE
    statistics: tuple[int, ...] = ()
    tables: tuple[int, ...] = ()
    activations: tuple[str, ...] = ()
    weights: tuple[QuantizedWeight, ...] = ()


ROWS: Table[Row] = Table("traits")
_NONE = Row()


def row(node: OperatorOf) -> Row:
    """The row of a node's operator; an empty one if it has none.

    Operators of onnxruntime are known in the standard domain too, where older releases wrote them.
    """
    return _row_of(domain_of(node), node.op_type)


@cache
def _row_of(domain: str, name: str) -> Row:
    entry = ROWS.find(domain, name, sys.maxsize)
    if entry is None and domain == STANDARD:
        entry = ROWS.find(CONTRIB, name, sys.maxsize)
    return entry or _NONE


def has(node: OperatorOf, traits: Trait) -> bool:
    """Whether a node's operator has one of some traits."""
    return bool(row(node).traits & traits)


def operators(traits: Trait, without: Trait = Trait.NONE, domain: str = STANDARD) -> list[str]:
    """The names of a domain's operators that have all of some traits and none of others.

    >>> operators(Trait.POINTWISE | Trait.EVEN, without=Trait.HOMOGENEOUS)
    ['Cos', 'Cosh']
    """
    return [
        key.name
        for key, entry in ROWS.entries.items()
        if key.domain == domain and traits in entry.traits and not entry.traits & without
    ]


T = Trait


def _row(
    name: str,
    traits: Trait = Trait.NONE,
    *,
    domain: str | Sequence[str] = STANDARD,
    statistics: tuple[int, ...] = (),
    tables: tuple[int, ...] = (),
    activations: tuple[str, ...] = (),
    weights: tuple[QuantizedWeight, ...] = (),
) -> None:
    ROWS.enter(Row(traits, statistics, tables, activations, weights), name, domain=domain)


_row("Abs", T.POINTWISE | T.HOMOGENEOUS | T.EVEN | T.SEPARATE)
_row("Acos", T.POINTWISE)
_row("Acosh", T.POINTWISE)
_row("Add", T.COMMUTATIVE | T.ASSOCIATIVE | T.SEPARATE | T.MASKING | T.INDEX_ARITHMETIC)
_row("And", T.COMMUTATIVE)
_row("ArgMax", T.COUNT | T.SATURATING | T.AXIS_OF_FIRST)
_row("ArgMin", T.COUNT | T.SATURATING | T.AXIS_OF_FIRST)
_row("Asin", T.POINTWISE | T.ODD)
_row("Asinh", T.POINTWISE | T.ODD)
_row("Atan", T.POINTWISE | T.ODD)
_row("Atanh", T.POINTWISE | T.ODD)
_row("AveragePool", T.SEPARATE)
_row("BatchNormalization", T.NORMALIZATION | T.SEPARATE | T.LAYER | T.OPTIONAL_OUTPUTS, statistics=(3, 4))
_row("Bernoulli", T.RANDOM)
_row("BitCast", T.POINTWISE)
_row("BitShift", T.BITWISE)
_row("BitwiseAnd", T.COMMUTATIVE | T.BITWISE)
_row("BitwiseNot", T.POINTWISE | T.BITWISE)
_row("BitwiseOr", T.COMMUTATIVE | T.BITWISE)
_row("BitwiseXor", T.COMMUTATIVE | T.BITWISE)
_row("Cast", T.CAST | T.SEPARATE | T.SHOWING)
_row("CastLike", T.CAST)
_row("Ceil", T.POINTWISE | T.SEPARATE)
_row("Celu", T.POINTWISE)
_row("Clip", T.IN_RANGE | T.SEPARATE | T.MASKING)
_row("Concat", T.CHOICE | T.SEPARATE | T.SHOWING | T.AXIS_OF_FIRST)
_row("ConstantOfShape", T.GROWTH)
_row("Conv", T.SUMMING | T.CONVOLUTION | T.SEPARATE | T.LAYER)
_row("ConvInteger", T.CONVOLUTION | T.ROUNDING, weights=(QuantizedWeight(1, 3, 2),))
_row("ConvTranspose", T.SUMMING | T.CONVOLUTION | T.LAYER)
_row("Cos", T.POINTWISE | T.EVEN | T.SEPARATE)
_row("Cosh", T.POINTWISE | T.EVEN)
_row("CumSum", T.INDEX_ARITHMETIC)
_row("DeformConv", T.CONVOLUTION)
_row("DequantizeLinear", T.QUANTIZATION | T.SEPARATE, domain=BOTH)
_row("Div", T.SEPARATE | T.MASKING | T.INDEX_ARITHMETIC)
_row("Dropout", T.POINTWISE | T.LINEAR | T.IN_RANGE | T.DROPOUT | T.OPTIONAL_OUTPUTS, domain=BOTH)
_row("DynamicQuantizeLinear", T.ROUNDING)
_row("Einsum", T.SUMMING | T.SEPARATE)
_row("Elu", T.POINTWISE | T.SEPARATE)
_row("Equal", T.COMMUTATIVE)
_row("Erf", T.POINTWISE | T.ODD | T.SEPARATE)
_row("Exp", T.POINTWISE | T.SEPARATE)
_row("Expand", T.REPETITION | T.GROWTH | T.SEPARATE)
_row("EyeLike", T.GROWTH)
_row("Flatten", T.AXES | T.SHOWING)
_row("Floor", T.POINTWISE | T.SEPARATE | T.INDEX_ARITHMETIC)
_row("GRU", T.RECURRENT | T.OPTIONAL_OUTPUTS, activations=("Sigmoid", "Tanh"))
_row("Gather", T.SELECTION | T.SEPARATE | T.AXIS_OF_FIRST)
_row("GatherElements", T.AXIS_OF_FIRST)
_row("Gelu", T.POINTWISE | T.SEPARATE, domain=BOTH)
_row("Gemm", T.SUMMING | T.SEPARATE | T.LAYER)
_row("GlobalAveragePool", T.SEPARATE)
_row("GlobalMaxPool", T.SEPARATE)
_row("GroupNormalization", T.NORMALIZATION)
_row("HardSigmoid", T.POINTWISE | T.SEPARATE)
_row("HardSwish", T.POINTWISE | T.SEPARATE)
_row("Hardmax", T.AXIS_OF_FIRST)
_row("Identity", T.POINTWISE | T.LINEAR | T.CAST | T.SEPARATE | T.SHOWING)
_row("InstanceNormalization", T.NORMALIZATION)
_row("IsInf", T.POINTWISE)
_row("IsNaN", T.POINTWISE)
_row("LSTM", T.RECURRENT | T.OPTIONAL_OUTPUTS, activations=("Sigmoid", "Tanh", "Tanh"))
_row("LayerNormalization", T.NORMALIZATION | T.OPTIONAL_OUTPUTS, domain=BOTH)
_row("LeakyRelu", T.POINTWISE | T.HOMOGENEOUS | T.SEPARATE)
_row("Log", T.POINTWISE | T.SEPARATE | T.SHOWING)
_row("LogSoftmax", T.SOFTMAX | T.AXIS_OF_FIRST)
_row("LpNormalization", T.NORMALIZATION | T.AXIS_OF_FIRST)
_row("MatMul", T.SUMMING | T.SEPARATE | T.LAYER)
_row("MatMulInteger", T.ROUNDING, weights=(QuantizedWeight(1, 3, 2),))
_row("Max", T.COMMUTATIVE | T.ASSOCIATIVE | T.CHOICE | T.SEPARATE | T.MASKING)
_row("MaxPool", T.SEPARATE | T.OPTIONAL_OUTPUTS)
_row("Mean", T.COMMUTATIVE)
_row("MeanVarianceNormalization", T.NORMALIZATION)
_row("Min", T.COMMUTATIVE | T.ASSOCIATIVE | T.CHOICE | T.SEPARATE | T.MASKING)
_row("Mish", T.POINTWISE)
_row("Mod", T.INDEX_ARITHMETIC)
_row("Mul", T.COMMUTATIVE | T.ASSOCIATIVE | T.SEPARATE | T.MASKING | T.INDEX_ARITHMETIC)
_row("Multinomial", T.RANDOM)
_row("Neg", T.POINTWISE | T.LINEAR | T.SEPARATE)
_row("NonZero", T.COUNT)
_row("Not", T.POINTWISE)
_row("OneHot", T.GROWTH)
_row("Or", T.COMMUTATIVE)
_row("PRelu", T.SEPARATE | T.LAYER)
_row("Pad", T.IN_RANGE | T.GROWTH | T.SEPARATE, domain=BOTH)
_row("ParametricSoftplus", T.POINTWISE)
_row("Pow", T.SEPARATE | T.ROOT)
_row("QLinearConv", T.CONVOLUTION | T.ROUNDING, weights=(QuantizedWeight(3, 5, 2),), domain=BOTH)
_row("QLinearMatMul", T.ROUNDING, weights=(QuantizedWeight(3, 5, 2),))
_row("QuantizeLinear", T.QUANTIZATION | T.SEPARATE | T.ROUNDING, domain=BOTH)
_row("RMSNormalization", T.NORMALIZATION)
_row("RNN", T.RECURRENT | T.OPTIONAL_OUTPUTS, activations=("Tanh",))
_row("RandomNormal", T.RANDOM)
_row("RandomNormalLike", T.RANDOM)
_row("RandomUniform", T.RANDOM)
_row("RandomUniformLike", T.RANDOM)
_row("Range", T.GROWTH | T.COUNT, domain=BOTH)
_row("Reciprocal", T.POINTWISE | T.SEPARATE)
_row("ReduceL1", T.REDUCTION | T.HOMOGENEOUS | T.EVEN)
_row("ReduceL2", T.REDUCTION | T.HOMOGENEOUS | T.EVEN | T.SUMMING | T.ROOT)
_row("ReduceLogSum", T.REDUCTION)
_row("ReduceLogSumExp", T.REDUCTION)
_row("ReduceMax", T.REDUCTION | T.HOMOGENEOUS)
_row("ReduceMean", T.REDUCTION | T.LINEAR | T.SUMMING)
_row("ReduceMin", T.REDUCTION | T.HOMOGENEOUS)
_row("ReduceProd", T.REDUCTION)
_row("ReduceSum", T.REDUCTION | T.LINEAR | T.SUMMING)
_row("ReduceSumSquare", T.REDUCTION | T.SUMMING)
_row("Relu", T.POINTWISE | T.HOMOGENEOUS | T.SEPARATE)
_row("Reshape", T.AXES | T.SHOWING)
_row("RotaryEmbedding", tables=(1, 2))
_row("Round", T.POINTWISE | T.ODD | T.ROUNDING)
_row("Rsqrt", T.ROOT)
_row("ScaledTanh", T.POINTWISE)
_row("ScatterElements", T.AXIS_OF_FIRST)
_row("Selu", T.POINTWISE | T.SEPARATE)
_row("Shape", T.COUNT)
_row("Shrink", T.POINTWISE)
_row("Sigmoid", T.POINTWISE | T.SEPARATE | T.SATURATING)
_row("Sign", T.POINTWISE | T.ODD)
_row("SimplifiedLayerNormalization", T.NORMALIZATION, domain=BOTH)
_row("Sin", T.POINTWISE | T.ODD | T.SEPARATE)
_row("Sinh", T.POINTWISE | T.ODD)
_row("Size", T.COUNT)
_row("Slice", T.SELECTION | T.SEPARATE)
_row("Softmax", T.SOFTMAX | T.SATURATING | T.AXIS_OF_FIRST)
_row("Softplus", T.POINTWISE | T.SEPARATE)
_row("Softsign", T.POINTWISE | T.ODD)
_row("Split", T.SELECTION | T.SEPARATE)
_row("Sqrt", T.POINTWISE | T.SEPARATE | T.ROOT)
_row("Squeeze", T.AXES | T.SEPARATE | T.SHOWING)
_row("Sub", T.SEPARATE | T.MASKING | T.INDEX_ARITHMETIC)
_row("Sum", T.COMMUTATIVE | T.ASSOCIATIVE)
_row("Swish", T.POINTWISE)
_row("Tan", T.POINTWISE | T.ODD)
_row("Tanh", T.POINTWISE | T.ODD | T.SEPARATE | T.SATURATING)
_row("ThresholdedRelu", T.POINTWISE)
_row("Tile", T.REPETITION | T.GROWTH)
_row("TopK", T.AXIS_OF_FIRST)
_row("Transpose", T.AXES | T.SEPARATE | T.SHOWING)
_row("Unique", T.AXIS_OF_FIRST)
_row("Unsqueeze", T.AXES | T.SEPARATE | T.SHOWING)
_row("Where", T.CHOICE | T.SEPARATE | T.MASKING)
_row("Xor", T.COMMUTATIVE)

# Operators of onnxruntime alone.
_row("BiasDropout", T.DROPOUT, domain=CONTRIB)
_row("BitmaskDropout", T.DROPOUT, domain=CONTRIB)
_row(
    "DynamicQuantizeLSTM",
    T.RECURRENT | T.ROUNDING,
    activations=("Sigmoid", "Tanh", "Tanh"),
    weights=(QuantizedWeight(1, 9, None), QuantizedWeight(2, 11, None)),
    domain=CONTRIB,
)
_row("DynamicQuantizeMatMul", T.ROUNDING, weights=(QuantizedWeight(1, 3, None),), domain=CONTRIB)
_row("FusedConv", T.CONVOLUTION, domain=CONTRIB)
_row("GroupQueryAttention", tables=(7, 8), domain=CONTRIB)
_row("MatMulIntegerToFloat", weights=(QuantizedWeight(1, 5, 4),), domain=CONTRIB)
_row("MatMulNBits", T.ROUNDING, domain=CONTRIB)
_row("PagedAttention", tables=(8, 9), domain=CONTRIB)
_row("QAttention", T.ROUNDING, domain=CONTRIB)
_row("QGemm", T.ROUNDING, weights=(QuantizedWeight(3, 5, 2),), domain=CONTRIB)
_row("QLinearAdd", T.ROUNDING, domain=CONTRIB)
_row("QLinearAveragePool", T.ROUNDING, domain=CONTRIB)
_row("QLinearConcat", T.ROUNDING, domain=CONTRIB)
_row("QLinearGlobalAveragePool", T.ROUNDING, domain=CONTRIB)
_row("QLinearLeakyRelu", T.ROUNDING, domain=CONTRIB)
_row("QLinearMul", T.ROUNDING, domain=CONTRIB)
_row("QLinearReduceMean", T.ROUNDING, domain=CONTRIB)
_row("QLinearSigmoid", T.ROUNDING, domain=CONTRIB)
_row("QLinearSoftmax", T.ROUNDING, domain=CONTRIB)
_row("QLinearWhere", T.ROUNDING, domain=CONTRIB)
_row("RotaryEmbedding", tables=(2, 3), domain=CONTRIB)
_row("Sampling", T.RANDOM, domain=CONTRIB)
_row("SparseAttention", tables=(9, 10), domain=CONTRIB)
