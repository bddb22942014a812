"""Operators whose positions all mean something, each with the reason: nothing that they touch may move.

They are no barriers: a rule that would let through more of them is not missing.
"""

from __future__ import annotations

from onnxcanon.graph.operators import CLASSICAL, CONTRIB
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.normalization import root_mean_square
from onnxcanon.tracing.rules.registry import Outputs, SymmetryNode, register

DRAWN = "numbers are drawn for each position"
NUMBERED = "its positions are the result"
ATTRIBUTES = "attributes hold a number for each position"
MADE = "it makes positions of numbers"
TEXT = "text"

MEANINGS = {
    ("", "Bernoulli"): DRAWN,
    ("", "Multinomial"): "its positions are the classes that are drawn",
    ("", "RandomNormal"): DRAWN,
    ("", "RandomUniform"): DRAWN,
    ("", "NonZero"): NUMBERED,
    ("", "Unique"): NUMBERED,
    (CONTRIB, "Unique"): NUMBERED,
    ("", "NonMaxSuppression"): NUMBERED,
    ("", "MaxUnpool"): "positions to put maxima at",
    ("", "NegativeLogLikelihoodLoss"): "its positions are the classes of a loss",
    ("", "SoftmaxCrossEntropyLoss"): "its positions are the classes of a loss",
    ("", "AffineGrid"): "coefficients of a map of positions",
    ("", "Range"): MADE,
    (CONTRIB, "Range"): MADE,
    ("", "BlackmanWindow"): MADE,
    ("", "HammingWindow"): MADE,
    ("", "HannWindow"): MADE,
    ("", "MelWeightMatrix"): MADE,
    ("", "RegexFullMatch"): TEXT,
    ("", "StringConcat"): TEXT,
    ("", "StringNormalizer"): TEXT,
    ("", "StringSplit"): TEXT,
    ("", "TfIdfVectorizer"): "n-grams of positions",
    ("", "ImageDecoder"): "bytes of a file",
    (CLASSICAL, "CastMap"): "keys of a map",
    (CLASSICAL, "DictVectorizer"): "keys of a map",
    (CLASSICAL, "ZipMap"): "its positions become the keys of a map",
    (CLASSICAL, "FeatureVectorizer"): "features are joined by position",
    (CLASSICAL, "Imputer"): ATTRIBUTES,
    (CLASSICAL, "LinearClassifier"): ATTRIBUTES,
    (CLASSICAL, "LinearRegressor"): ATTRIBUTES,
    (CLASSICAL, "OneHotEncoder"): "its values are positions",
    (CLASSICAL, "Scaler"): ATTRIBUTES,
    (CLASSICAL, "SVMClassifier"): ATTRIBUTES,
    (CLASSICAL, "SVMRegressor"): ATTRIBUTES,
    (CLASSICAL, "TreeEnsemble"): ATTRIBUTES,
    (CLASSICAL, "TreeEnsembleClassifier"): ATTRIBUTES,
    (CLASSICAL, "TreeEnsembleRegressor"): ATTRIBUTES,
}
"""By domain and operator: why nothing moves."""


def still(ctx: Context, op: SymmetryNode) -> Outputs:
    """X, … -> Y, …, all of them fixed."""
    for i, value in enumerate(op.inputs):
        if value is not None:
            op.claimed.add(i)
            ctx.fix_all(value, MEANINGS[op.domain, op.kind])
    return [None] * len(op.node.outputs)


for _domain, _name in MEANINGS:
    register(_name, domain=_domain)(still)


@register("Binarizer", "CategoryMapper", "LabelEncoder", domain=CLASSICAL)
def each_by_itself(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> Y, one entry from one."""
    return ctx.stop(op.x(0))


@register("Normalizer", domain=CLASSICAL)
def normalizer(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[N, C] -> X divided by the largest, the sum or the norm of its row."""
    x = op.x(0)
    return ctx.stop(root_mean_square(ctx, ctx.stop(x), [x.rank - 1]))
