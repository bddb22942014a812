"""Linear layers: MatMul and Add for matrices, Conv with a bias for images; factors and terms are folded in.

    Gemm(x, W, b) = x @ W + b
    (x @ W + b) * c = x @ (W * c) + b * c
    conv(x, W, b) * c = conv(x, W * c, b * c)

A factor is folded only into a weight that nothing else reads: shared weights stay shared.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxcanon.arrays import Array
from onnxcanon.graph.nodes import attribute, given, made_by
from onnxcanon.normalform.axes import Chain, chain_of
from onnxcanon.normalform.engine import (
    NO_FLOATS,
    NOT_COMPUTED,
    SHARED_VALUE,
    SHARED_WEIGHT,
    Outputs,
    Rewriting,
    static,
)
from onnxcanon.normalform.rules.arithmetic import computed
from onnxcanon.normalform.rules.rearrangement import rebuilt
from onnxcanon.normalform.rules.registry import RULES as rule

CONVOLUTIONS = ("Conv", "ConvTranspose")


@rule("Gemm")
def gemm(g: Rewriting, node: ir.Node) -> Outputs:
    """A[M, K], B[K, N], C -> alpha * A @ B + beta * C."""
    a, b, c = node.inputs[0], node.inputs[1], given(node, 2)
    if a is None or b is None or not g.is_float(a):
        return NO_FLOATS
    if attribute(node, "transA", 0):
        a = g.node("Transpose", a, attributes={"perm": [1, 0]})
    if attribute(node, "transB", 0):
        b = g.node("Transpose", b, attributes={"perm": [1, 0]})
    value = _times(g, g.node("MatMul", a, b), attribute(node, "alpha", 1.0))
    return value if c is None else g.node("Add", value, _times(g, c, attribute(node, "beta", 1.0)))


def _times(g: Rewriting, value: ir.Value, factor: float) -> ir.Value:
    return value if factor == 1 else g.node("Mul", value, g.number(factor, value))


@rule("MatMul")
def before_rearrangement(g: Rewriting, node: ir.Node) -> Outputs:
    """R(X) @ W[K, N] -> R(X @ W) where R rearranges all but the last axis."""
    x, weight = node.inputs
    shape = g.sizes(weight)
    if x is None or weight is None or not g.is_constant(weight) or shape is None or len(shape[0]) != 2:
        return None
    chain = chain_of(g, x).merged()
    if chain.root is x or not _keeps_last_axis(chain) or g.is_constant(chain.root):
        return None
    return rebuilt(g, _with_last_axis(chain, g.node("MatMul", chain.root, weight), static(shape[0][1])))


@rule("Add", "Mul")
def parameter_before_rearrangement(g: Rewriting, node: ir.Node) -> Outputs:
    """R(X @ W) + b[N] -> R(X @ W + b) where R rearranges all but the last axis."""
    x, c = node.inputs
    if x is None or not g.is_constant(c) or g.rank(c) != 1 or made_by(x, "Reshape", "Transpose") is None:
        return None
    chain = chain_of(g, x).merged()
    if made_by(chain.root, "MatMul", "Add", "Mul") is None or not _keeps_last_axis(chain):
        return None
    if g.shape(c) != (static(chain.shape[-1]),):
        return None
    moved = g.node(node.op_type, chain.root, c)
    return rebuilt(g, _with_last_axis(chain, moved, static(chain.shape[-1])))


def _keeps_last_axis(chain: Chain) -> bool:
    """Whether the last axis of the result is that of the root, as it was."""
    if not chain.groups or not chain.start or len(chain.groups[-1]) != 1:
        return False
    (factor,) = chain.groups[-1]
    return factor.axis == len(chain.start) - 1 and factor.size == chain.start[-1]


def _with_last_axis(chain: Chain, root: ir.Value, size: int | None) -> Chain:
    """This rearrangement for a root with another last axis."""
    assert size is not None  # weights have static shapes
    (factor,) = chain.groups[-1]
    sizes = (size,) * len(factor.size)
    last = () if size == 1 else (replace(factor, size=sizes),)
    return Chain(root, (*chain.groups[:-1], last), (*chain.shape[:-1], sizes), (*chain.start[:-1], sizes))


@rule("MatMul")
def factor_after_product(g: Rewriting, node: ir.Node) -> Outputs:
    """(X * s) @ Y -> (X @ Y) * s for a number s and factors that are no constants."""
    if g.is_constant(node.inputs[0]) or g.is_constant(node.inputs[1]):
        return None
    for k, value in enumerate(node.inputs):
        if value is None:
            continue
        chain = chain_of(g, value)
        scaled = made_by(chain.root, "Mul")
        if scaled is None or not g.is_constant(scaled.inputs[1]) or g.rank(scaled.inputs[1]) != 0:
            continue
        plain = scaled.inputs[0]
        if plain is None or not g.is_float(plain):
            continue
        inputs = list(node.inputs)
        inputs[k] = replayed(g, value, chain.root, plain)
        return g.node("Mul", g.node("MatMul", *inputs), scaled.inputs[1])
    return None


def replayed(g: Rewriting, value: ir.Value, root: ir.Value, other: ir.Value) -> ir.Value:
    """The rearrangement that leads from a root to a value, of another root of the same shape."""
    nodes = []
    while value is not root:
        node = value.producer()
        assert node is not None and node.inputs[0] is not None  # it lies on the chain
        nodes.append(node)
        value = node.inputs[0]
    for node in reversed(nodes):
        other = g.renewed(node, inputs=[other, *node.inputs[1:]])[0]
    return other


# -- factors and terms folded into weights ----------------------------------------------------------


@rule("Mul")
def factor_into_matrix(g: Rewriting, node: ir.Node) -> Outputs:
    """(X @ W[K, N]) * c[N] -> X @ (W * c)."""
    product, c = made_by(node.inputs[0], "MatMul"), node.inputs[1]
    if product is None or node.inputs[0] is None or not g.is_constant(product.inputs[1]):
        return None
    weight = product.inputs[1]
    shape, factor = g.shape(weight), g.shape(c)
    if not g.is_constant(c) or not shape or factor != shape[-1:]:
        return None
    if not g.sole_use(node.inputs[0]):
        return SHARED_VALUE
    if not _is_own(g, weight) or not g.is_own(c):
        return SHARED_WEIGHT
    folded = computed(g, np.multiply, weight, c)
    return NOT_COMPUTED if folded is None else g.node("MatMul", product.inputs[0], folded)


@rule("Mul")
def factor_into_convolution(g: Rewriting, node: ir.Node) -> Outputs:
    """Conv(X, W, b) * c[C, 1, ..., 1] -> Conv(X, W * c, b * c)."""
    layer = made_by(node.inputs[0], *CONVOLUTIONS)
    factor = None if layer is None else channelwise(g, node.inputs[1], g.rank(node.inputs[0]))
    if layer is None or factor is None or factor.size == 1:
        return None
    folded = None
    if g.is_own(node.inputs[1]):
        folded = scaled_convolution(g, layer, factor, np.zeros_like(factor), node.inputs[1])
    return SHARED_WEIGHT if folded is None else folded


@rule("Add")
def term_into_convolution(g: Rewriting, node: ir.Node) -> Outputs:
    """Conv(X, W, b) + c[C, 1, ..., 1] -> Conv(X, W, b + c)."""
    x, c = node.inputs
    layer = made_by(x, *CONVOLUTIONS)
    term = None if layer is None else channelwise(g, c, g.rank(x))
    if layer is None or x is None or term is None:
        return None
    if not g.sole_use(x):
        return SHARED_VALUE
    if not g.is_own(c):
        return SHARED_WEIGHT
    channels = out_channels(g, layer)
    if channels is None or term.size not in (1, channels):
        return None
    bias = given(layer, 2)
    if bias is not None and not g.is_own(bias):
        return SHARED_WEIGHT
    spread = np.broadcast_to(term, (channels,))
    total = computed(g, lambda *_: spread, c)
    if bias is not None:
        total = computed(g, lambda b, _: b + spread, bias, c)
    if total is None:
        return NOT_COMPUTED
    return g.renewed(layer, inputs=[*layer.inputs[:2], total])


@rule(*CONVOLUTIONS)
def no_bias(g: Rewriting, node: ir.Node) -> Outputs:
    """A bias of zeros is left out."""
    bias = given(node, 2)
    fill = made_by(bias, "Expand")
    array = g.array(bias if fill is None else fill.inputs[0])
    if array is None or array.any():
        return None
    return g.renewed(node, inputs=node.inputs[:2])


def scaled_convolution(
    g: Rewriting, layer: ir.Node, factor: Array, term: Array, *sources: ir.Value | None
) -> ir.Value | None:
    """A convolution whose output channels are multiplied and shifted; None where others use its weights."""
    result, weight, bias = layer.outputs[0], layer.inputs[1], given(layer, 2)
    channels = out_channels(g, layer)
    if not g.sole_use(result) or not _is_own(g, weight) or channels is None or factor.size != channels:
        return None
    if bias is not None and not g.is_constant(bias):
        return None
    rank, group = g.rank(weight) or 0, attribute(layer, "group", 1)
    if layer.op_type == "Conv":
        folded = computed(g, lambda w, *_: w * factor.reshape(-1, *(1,) * (rank - 1)), weight, *sources)
    else:
        folded = computed(g, lambda w, *_: _scaled_transposed(w, factor, group), weight, *sources)
    if folded is None or weight is None or weight.dtype is None:
        return None
    old = np.zeros(channels) if bias is None else np.asarray(g.array(bias), np.float64)
    shifted = (old * factor + term).astype(weight.dtype.numpy())
    new = g.constant(shifted, bias, *sources) if bias is not None or term.any() else None
    return g.renewed(layer, inputs=[layer.inputs[0], folded, new])[0]


def _scaled_transposed(weight: Array, factor: Array, group: int) -> Array:
    """W[C, M / group, *K] with its output channels scaled."""
    split = weight.reshape(group, -1, *weight.shape[1:])
    factors = factor.reshape(group, 1, -1, *(1,) * (weight.ndim - 2))
    return np.asarray(split * factors).reshape(weight.shape)


def channelwise(g: Rewriting, value: ir.Value | None, rank: int | None) -> Array | None:
    """A constant [C, 1, ..., 1] or [1, C, 1, ..., 1] for tensors of this rank, as a list of numbers."""
    array = g.array(value)
    if array is None or rank is None or rank < 3 or not g.is_float(value) or array.ndim > rank:
        return None
    whole = array.reshape((1,) * (rank - array.ndim) + array.shape)
    if whole.size != whole.shape[1]:
        return None
    return np.asarray(whole.reshape(-1), np.float64)


def out_channels(g: Rewriting, layer: ir.Node) -> int | None:
    """How many channels a convolution makes."""
    shape = g.shape(layer.inputs[1])
    if not shape or len(shape) < 2:
        return None
    if layer.op_type == "Conv":
        return shape[0]
    return None if shape[1] is None else shape[1] * attribute(layer, "group", 1)


def _is_own(g: Rewriting, weight: ir.Value | None) -> bool:
    return weight is not None and g.is_constant(weight) and g.is_float(weight) and len(weight.uses()) == 1
