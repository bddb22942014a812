"""Normalizations. Statistics tie positions together but do not tell them apart.

==================  ==========================================================================
BatchNormalization  input scale s exactly by mean·s and scale/s; output scale and sign through scale, bias
LayerNormalization  permutation; the sign of the whole axis; the gain scales against what follows
RMSNormalization    permutation; the sign of each unit; the gain scales against what follows
Instance, Group     permutation of channels (within and of groups); the sign of each channel / group
==================  ==========================================================================
"""

from __future__ import annotations

from onnxcanon.graph.operators import BOTH, CONTRIB
from onnxcanon.tracing.abstract_value import AbstractValue
from onnxcanon.tracing.constraints import System
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.rearrangement import looked_up
from onnxcanon.tracing.rules.registry import Outputs, SymmetryNode, Unsupported, register


def lined(ctx: Context, v: AbstractValue, axis: int, rank: int) -> AbstractValue:
    """A vector laid along one axis of a tensor of the given rank."""
    for _ in range(rank - axis - 1):
        v = ctx.insert(v, v.rank)
    return v


def centred(ctx: Context, x: AbstractValue, axes: list[int]) -> AbstractValue:
    """(x - mean) / sqrt(var + epsilon) over axes: no scale, one sign for all of each axis."""
    ctx.bind(x)
    out = ctx.stop(x, System.SCALE)
    for axis in axes:
        ctx.exponent_forget(out.exponents[axis], [axis], System.SIGN)
    out = ctx.copy(out)
    for k in range(x.rank):
        out.exponents[k] = ctx.exponent_forget(out.exponents[k], [a for a in axes if a != k], System.SIGN)
        out.ids[k] = out.ids[k] if k in axes else ctx.forget(out.ids[k], axes)
    return out


def scaled(
    ctx: Context, x: AbstractValue, gain: AbstractValue | None, bias: AbstractValue | None
) -> AbstractValue:
    """x · gain + bias."""
    if gain is not None:
        x = ctx.elementwise([x, gain], product=True)
    return x if bias is None else ctx.elementwise([x, bias])


@register("BatchNormalization")
def batch_normalization(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[N, C, *S], scale[C], B[C], mean[C], var[C] -> (X - mean) / sqrt(var + epsilon) · scale + B."""
    if op.attr("training_mode", 0) or any(op.used(k) for k in range(1, 5)):
        raise Unsupported("BatchNormalization in training mode")
    if op.version < 7 and not op.attr("is_test", 0):
        raise Unsupported("BatchNormalization in training mode")
    if not op.attr("spatial", 1):
        raise Unsupported("BatchNormalization with statistics of each position")
    x = op.x(0)
    gain, bias, mean, var = (lined(ctx, op.x(k), 1, max(x.rank, 2)) for k in (1, 2, 3, 4))
    shifted = ctx.elementwise([x, mean])
    var = ctx.stop(var)
    # sqrt(var + epsilon) keeps no scale, so it adds no exponent to the product.
    normal = ctx.elementwise([shifted, var], product=True)
    return [scaled(ctx, normal, gain, bias), *[None] * (len(op.node.outputs) - 1)]


@register("LayerNormalization", domain=BOTH)
def layer_normalization(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[…, *C], scale[*C], B[*C] -> normalized over the axes from `axis` on."""
    if op.used(1) or op.used(2):
        raise Unsupported("LayerNormalization whose mean or deviation is read")
    x = op.x(0)
    axes = list(range(op.axis(-1, x.rank), x.rank))
    y = scaled(ctx, centred(ctx, x, axes), op.x(1), op.optional(2))
    return [y, *[None] * (len(op.node.outputs) - 1)]


def divided_by_root_mean_square(ctx: Context, x: AbstractValue, axes: list[int]) -> AbstractValue:
    """x / sqrt(mean(x²) + epsilon): no scale, any signs."""
    ctx.bind(x)
    out = ctx.stop(x, System.SCALE)
    for k in range(x.rank):
        if k not in axes:
            out.ids[k] = ctx.forget(out.ids[k], axes)
    return out


@register("RMSNormalization", "SimplifiedLayerNormalization")
@register("SimplifiedLayerNormalization", domain=CONTRIB)
def rms_normalization(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[…, *C], scale[*C] -> X / rms(X) · scale over the axes from `axis` on."""
    if op.used(1):
        raise Unsupported(f"{op.kind} whose deviation is read")
    x = op.x(0)
    axes = list(range(op.axis(-1, x.rank), x.rank))
    return [
        scaled(ctx, divided_by_root_mean_square(ctx, x, axes), op.x(1), None),
        *[None] * (len(op.node.outputs) - 1),
    ]


@register("LpNormalization")
def lp_normalization(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> X / ‖X‖ along an axis; like RMS normalization without a gain."""
    x = op.x(0)
    return divided_by_root_mean_square(ctx, x, [op.axis(-1, x.rank)])


@register("MeanVarianceNormalization")
def mean_variance_normalization(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[N, C, …] -> (X - mean) / std over `axes`."""
    x = op.x(0)
    if op.attr("across_channels", 0):
        raise Unsupported("MeanVarianceNormalization across channels (opset 1)")
    return centred(ctx, x, [int(a) % x.rank for a in op.attr("axes", (0, 2, 3))])


@register("InstanceNormalization")
def instance_normalization(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[N, C, *S], scale[C], B[C] -> normalized over *S for each instance and channel."""
    x = op.x(0)
    gain, bias = (lined(ctx, op.x(k), 1, x.rank) for k in (1, 2))
    return scaled(ctx, centred(ctx, x, list(range(2, x.rank))), gain, bias)


@register("GroupNormalization")
def group_normalization(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[N, C, *S], scale, bias ([C] from opset 21 on, [groups] before) -> normalized over C/groups and *S."""
    x = op.x(0)
    groups = int(op.attr("num_groups"))
    (n, c, *rest), (n2, _, *rest2) = op.in_shapes(0)
    split, alt = (n, groups, c // groups, *rest), (n2, groups, c // groups, *rest2)
    inner = ctx.reshape(x, split, (n2, c, *rest2), alt)
    inner = centred(ctx, inner, list(range(2, inner.rank)))
    gain, bias = op.x(1), op.x(2)
    if op.version < 21 and gain.shape[0] == groups:
        inner = scaled(ctx, inner, lined(ctx, gain, 1, inner.rank), lined(ctx, bias, 1, inner.rank))
        return ctx.reshape(inner, (n, c, *rest), alt, (n2, c, *rest2))
    y = ctx.reshape(inner, (n, c, *rest), alt, (n2, c, *rest2))
    return scaled(ctx, y, lined(ctx, gain, 1, y.rank), lined(ctx, bias, 1, y.rank))


@register("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=CONTRIB)
def skip_normalization(ctx: Context, op: SymmetryNode) -> Outputs:
    """X, skip, gamma[C], beta[C], bias[C] -> normalize(X + skip + bias) · gamma + beta; output 3: the sum."""
    if op.used(1) or op.used(2):
        raise Unsupported(f"{op.kind} whose mean or deviation is read")
    simplified = op.kind.startswith("SkipSimplified")
    extra = op.optional(3 if simplified else 4)
    total = ctx.elementwise([op.x(0), op.x(1)] + ([extra] if extra is not None else []))
    axes = [total.rank - 1]
    if simplified:
        y = scaled(ctx, divided_by_root_mean_square(ctx, total, axes), op.x(2), None)
    else:
        y = scaled(ctx, centred(ctx, total, axes), op.x(2), op.optional(3))
    return [y, None, None, total][: len(op.node.outputs)]


@register("EmbedLayerNormalization", domain=CONTRIB)
def embed_layer_normalization(ctx: Context, op: SymmetryNode) -> Outputs:
    """ids[B, S], segments, words[V, C], positions[P, C], segment rows[2, C], gamma[C], beta[C], mask, places
    -> normalize(rows of the tables, added) · gamma + beta, mask index[B], the sum[B, S, C]."""
    shape = op.out_shapes()[0]
    total = ctx.elementwise([looked_up(ctx, op.x(i), 0, shape) for i in (2, 3, 4) if op.has(i)])
    y = scaled(ctx, centred(ctx, total, [2]), op.x(5), op.x(6))
    return [y, None, total][: len(op.node.outputs)]
