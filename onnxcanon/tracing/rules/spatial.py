"""Pooling, resizing and the other operators over image positions, which they fix; channels pass through."""

from __future__ import annotations

from collections.abc import Sequence

from onnxcanon.graph.operators import BOTH
from onnxcanon.tracing.abstract_value import FIXED, UNIFORM, AbstractValue, State, constant
from onnxcanon.tracing.constraints import System
from onnxcanon.tracing.context import Context
from onnxcanon.tracing.rules.convolution import still_positions
from onnxcanon.tracing.rules.registry import Outputs, SymmetryNode, Unsupported, register


def resized(
    ctx: Context, x: AbstractValue, shape: tuple[int, ...], axes: Sequence[int], reason: str
) -> AbstractValue:
    """X -> Y with other sizes along `axes`, whose positions are fixed."""
    ctx.bind(x)
    still = still_positions(ctx, x, axes, reason)
    out = constant(shape)
    for k in range(x.rank):
        if k in axes:
            out.ids[k] = UNIFORM if shape[k] == 1 else FIXED
        else:
            out.ids[k], out.exponents[k] = still.ids[k], still.exponents[k]
    return out


@register("AveragePool", "LpPool", "MaxPool")
def pool(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[N, C, *S] -> Y[N, C, *S']: linear for averages, positively homogeneous for maxima and norms."""
    x = ctx.bind(op.x(0))
    if op.kind != "AveragePool":
        x = ctx.stop(x, System.SIGN)
    y = resized(ctx, x, op.out_shapes()[0], range(2, x.rank), "image positions under pooling")
    if op.used(1):
        ctx.fix_all(x, "the positions of pooled maxima are used")
        return [constant(y.shape), None]
    return [y, *[None] * (len(op.node.outputs) - 1)]


@register("GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool")
def global_pool(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[N, C, *S] -> Y[N, C, 1, …]."""
    x = ctx.bind(op.x(0))
    if op.kind != "GlobalAveragePool":
        x = ctx.stop(x, System.SIGN)
    return ctx.reduce(x, list(range(2, x.rank)), keepdims=True)


@register("Resize", "Upsample")
def resize(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> Y: axes that keep their size in both samples pass, the others are image positions."""
    before, after = op.in_shapes(0), op.out_shapes()
    kept = _unscaled(op, len(before[0]))
    changed = [
        k
        for k in range(len(before[0]))
        if k not in kept or before[0][k] != after[0][k] or before[1][k] != after[1][k]
    ]
    if op.attr("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        raise Unsupported("Resize that crops")
    return resized(ctx, op.x(0), after[0], changed, "image positions under resizing")


def _unscaled(op: SymmetryNode, rank: int) -> set[int]:
    """The axes whose scale is 1: floor(1.2 · 4) is 4 as well, but the positions are not the same."""
    axes = [int(a) % rank for a in op.attr("axes") or range(rank)]
    if op.kind == "Resize" and op.has(3):  # sizes: of what keeps its size the scale is 1
        return set(range(rank)) if op.attr("keep_aspect_ratio_policy", "stretch") == "stretch" else set()
    given = op.attr("scales")
    pair = (
        (given, given)
        if given is not None
        else op.float_pair(2 if op.kind == "Resize" and op.version > 10 else 1)
    )
    if any(scales is None or len(scales) != len(axes) for scales in pair):
        return set()
    scaled = {a for a, one, two in zip(axes, *pair, strict=True) if one != 1 or two != 1}
    return set(range(rank)) - scaled


@register("Crop", "LRN")
def by_position(ctx: Context, op: SymmetryNode) -> Outputs:
    """LRN reads neighbouring channels: nothing moves. Crop cuts image positions."""
    x = op.x(0)
    if op.kind == "Crop":
        return resized(ctx, x, op.out_shapes()[0], range(2, x.rank), "image positions under cropping")
    return ctx.stop(ctx.gather_unknown(x, 1, "LRN sums over neighbouring channels"))


@register("CenterCropPad")
def center_crop_pad(ctx: Context, op: SymmetryNode) -> Outputs:
    """X -> the middle of X, or X amid zeros, along the axes that change their size."""
    before, after = op.in_shapes(0), op.out_shapes()
    pairs = list(zip(*before, *after, strict=True))
    changed = [k for k, (a, b, c, d) in enumerate(pairs) if a != c or b != d]
    return resized(ctx, op.x(0), after[0], changed, "positions under cropping or padding")


@register("GridSample", domain=BOTH)
def grid_sample(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[N, C, *S], grid[N, *S', d] -> Y[N, C, *S']: linear in X, each channel alike."""
    x = op.x(0)
    ctx.fix(x, 0, "each picture has its own grid")
    ctx.fix_all(op.x(1), "positions to sample at")
    return resized(ctx, x, op.out_shapes()[0], [0, *range(2, x.rank)], "image positions under a grid")


@register("MaxRoiPool", "RoiAlign")
def regions(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[N, C, H, W], regions[R, 4 or 5], batch indices[R] -> Y[R, C, h, w]."""
    x = op.x(0)
    if op.kind == "MaxRoiPool" or op.attr("mode", "avg") != "avg":
        x = ctx.stop(x, System.SIGN)
    for i in range(1, len(op.node.inputs)):
        ctx.fix_all(op.x(i), "regions of a picture")
    return resized(ctx, x, op.out_shapes()[0], [0, 2, 3], "image positions under regions")


@register("Col2Im")
def columns_to_image(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[N, C · block, L] -> Y[N, C, *S]: a sum of the blocks where they lie."""
    (a, b), shape = op.in_shapes(0), op.out_shapes()[0]
    block = a[1] // shape[1]
    x = ctx.reshape(op.x(0), (a[0], shape[1], block, a[2]), b, (b[0], shape[1], block, b[2]))
    still = still_positions(ctx, ctx.bind(x), (2, 3), "image positions of a block")
    out = constant(shape)
    for k in (0, 1):
        state, exponent = still.ids[k], still.exponents[k]
        grown = (*(slice(None),) * 2, *(0,) * 2, *(None,) * (len(shape) - 2))
        out.ids[k] = state if isinstance(state, State) else state[grown]
        out.exponents[k] = None if exponent is None else exponent[grown]
    return out


@register("DepthToSpace")
def depth_to_space(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[N, C·b², H, W] -> Y[N, C, H·b, W·b]."""
    b = int(op.attr("blocksize"))
    (n, c, h, w), (n2, _, h2, w2) = op.in_shapes(0)
    if op.attr("mode", "DCR") == "DCR":
        middle, perm = (b, b, c // b**2), (0, 3, 4, 1, 5, 2)
    else:
        middle, perm = (c // b**2, b, b), (0, 1, 4, 2, 5, 3)
    x = ctx.reshape(op.x(0), (n, *middle, h, w), (n2, c, h2, w2), (n2, *middle, h2, w2))
    x = ctx.transpose(x, perm)
    before = tuple((n2, *middle, h2, w2)[p] for p in perm)
    return ctx.reshape(x, *_triple(op.out_shapes(), before))


@register("SpaceToDepth")
def space_to_depth(ctx: Context, op: SymmetryNode) -> Outputs:
    """X[N, C, H·b, W·b] -> Y[N, b·b·C, H, W]."""
    b = int(op.attr("blocksize"))
    (n, c, h, w), alt = op.in_shapes(0)
    n2, _, h2, w2 = alt
    x = ctx.reshape(op.x(0), (n, c, h // b, b, w // b, b), alt, (n2, c, h2 // b, b, w2 // b, b))
    x = ctx.transpose(x, (0, 3, 5, 1, 2, 4))
    return ctx.reshape(x, *_triple(op.out_shapes(), (n2, b, b, c, h2 // b, w2 // b)))


def _triple(
    out: tuple[tuple[int, ...], tuple[int, ...]], before: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    return out[0], before, out[1]
