"""Operators whose positions all mean something, each with the reason: nothing that they touch may move.

They are no barriers: a rule that would let through more of them is not missing.
"""

from __future__ import annotations

from onnxcanon.graph.operators import BOTH, CLASSICAL
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.normalization import divided_by_root_mean_square
from onnxcanon.tracing.rules.registry import Outputs, Rule, SymmetryNode, register


def fixed(reason: str) -> Rule:
    """X, … -> Y, …, all of them fixed for a reason."""

    def rule(ctx: Context, op: SymmetryNode) -> Outputs:
        for i, value in enumerate(op.inputs):
            if value is not None:
                op.claimed.add(i)
                ctx.fix_all(value, reason)
        return [None] * len(op.node.outputs)

    return rule


register("Bernoulli", "RandomNormal", "RandomUniform")(fixed("numbers are drawn for each position"))
register("Multinomial")(fixed("its positions are the classes that are drawn"))
register("NonMaxSuppression", "NonZero")(fixed("its positions are the result"))
register("Unique", domain=BOTH)(fixed("its positions are the result"))
register("MaxUnpool")(fixed("positions to put maxima at"))
register("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")(
    fixed("its positions are the classes of a loss")
)
register("AffineGrid")(fixed("coefficients of a map of positions"))
register("Range", domain=BOTH)(fixed("it makes positions of numbers"))
register("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix")(
    fixed("it makes positions of numbers")
)
register("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit")(fixed("text"))
register("TfIdfVectorizer")(fixed("n-grams of positions"))
register("ImageDecoder")(fixed("bytes of a file"))
register("CastMap", "DictVectorizer", domain=CLASSICAL)(fixed("keys of a map"))
register("ZipMap", domain=CLASSICAL)(fixed("its positions become the keys of a map"))
register("FeatureVectorizer", domain=CLASSICAL)(fixed("features are joined by position"))
register("OneHotEncoder", domain=CLASSICAL)(fixed("its values are positions"))
register(
    "Imputer",
    "LinearClassifier",
    "LinearRegressor",
    "Scaler",
    "SVMClassifier",
    "SVMRegressor",
    "TreeEnsemble",
    "TreeEnsembleClassifier",
    "TreeEnsembleRegressor",
    domain=CLASSICAL,
)(fixed("attributes hold a number for each position"))


@register("Binarizer", "CategoryMapper", "LabelEncoder", domain=CLASSICAL)
def each_by_itself(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> Y, one entry from one."""
    return ctx.stop(op.x(0))


@register("Normalizer", domain=CLASSICAL)
def normalizer(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[N, C] -> X divided by the largest, the sum or the norm of its row."""
    x = op.x(0)
    return ctx.stop(divided_by_root_mean_square(ctx, ctx.stop(x), [x.rank - 1]))
