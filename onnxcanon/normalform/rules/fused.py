"""Operators that stand for several simpler ones, which older operator sets and exporters write out."""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxcanon.graph.nodes import attribute, given
from onnxcanon.normalform.engine import UNKNOWN_SIZES, Outputs, Refusal, Rewriting
from onnxcanon.normalform.rules.registry import RULES as rule
from onnxcanon.normalform.rules.sizes import size_vector


@rule("Gelu")
def gelu(g: Rewriting, node: ir.Node) -> Outputs:
    """X -> X * (1 + erf(X / sqrt 2)) / 2, or the approximation by tanh."""
    x = node.inputs[0]
    if x is None or not g.is_float(x):
        return None
    if attribute(node, "approximate", "none") == "tanh":
        cube = g.node("Mul", g.node("Mul", x, x), x)
        inner = g.node("Add", x, g.node("Mul", cube, g.number(0.044715, x)))
        gate = g.node("Tanh", g.node("Mul", inner, g.number(math.sqrt(2 / math.pi), x)))
    else:
        gate = g.node("Erf", g.node("Mul", x, g.number(math.sqrt(0.5), x)))
    return g.node("Mul", g.node("Mul", x, g.node("Add", gate, g.number(1, x))), g.number(0.5, x))


@rule("HardSigmoid")
def hard_sigmoid(g: Rewriting, node: ir.Node) -> Outputs:
    """X -> clip(alpha * X + beta, 0, 1)."""
    x = node.inputs[0]
    if x is None or not g.is_float(x):
        return None
    scaled = g.node("Mul", x, g.number(attribute(node, "alpha", 0.2), x))
    shifted = g.node("Add", scaled, g.number(attribute(node, "beta", 0.5), x))
    return g.node("Clip", shifted, g.number(0, x), g.number(1, x))


@rule("HardSwish")
def hard_swish(g: Rewriting, node: ir.Node) -> Outputs:
    """X -> X * clip(X / 6 + 1 / 2, 0, 1)."""
    x = node.inputs[0]
    gate = g.node("HardSigmoid", x, attributes={"alpha": 1 / 6, "beta": 0.5})
    return g.node("Mul", x, gate)


@rule("Swish")
def swish(g: Rewriting, node: ir.Node) -> Outputs:
    """X -> X * sigmoid(alpha * X)."""
    x, alpha = node.inputs[0], attribute(node, "alpha", 1.0)
    if x is None or not g.is_float(x):
        return None
    return g.node("Mul", x, g.node("Sigmoid", x if alpha == 1 else g.node("Mul", x, g.number(alpha, x))))


@rule("Mish")
def mish(g: Rewriting, node: ir.Node) -> Outputs:
    """X -> X * tanh(softplus(X))."""
    return g.node("Mul", node.inputs[0], g.node("Tanh", g.node("Softplus", node.inputs[0])))


@rule("ReduceSumSquare", "ReduceL2")
def sum_of_squares(g: Rewriting, node: ir.Node) -> Outputs:
    """X -> the sum of X * X, and its root."""
    x = node.inputs[0]
    if not g.is_float(x):
        return None
    options = {name: attribute(node, name) for name in ("keepdims", "noop_with_empty_axes")}
    total = g.node("ReduceSum", g.node("Mul", x, x), given(node, 1), attributes=options)
    return total if node.op_type == "ReduceSumSquare" else g.node("Sqrt", total)


@rule("Attention")
def attention(g: Rewriting, node: ir.Node) -> Outputs:
    """Q[N, H, T, D], K[N, H, S, D], V[N, H, S, E], mask -> softmax(Q K^T * scale + mask) V.

    Heads may also lie in the last axis, [N, T, H * D].
    """
    if len(node.outputs) > 1 or any(given(node, k) is not None for k in range(4, len(node.inputs))):
        return Refusal("has a cache, or returns its scores")
    plain = ("is_causal", "softcap", "qk_matmul_output_mode", "softmax_precision")
    if any(attribute(node, name, 0) for name in plain):
        return Refusal("is causal, or has a cap or precision of its scores")
    q, k, v = (_by_head(g, node, place) for place in range(3))
    mask = given(node, 3)
    shapes = [g.shape(value) for value in (q, k, v)]
    if q is None or any(shape is None for shape in shapes) or shapes[0] is None or shapes[1] is None:
        return UNKNOWN_SIZES
    width = shapes[0][3]
    if width is None or shapes[0][1] is None or shapes[0][1] != shapes[1][1]:
        return Refusal("has fewer heads of keys than of queries, or a dynamic number")
    if mask is not None and not g.is_float(mask):
        return Refusal("has a mask of truth values")
    scale = attribute(node, "scale") or 1 / math.sqrt(width)
    scores = g.node("MatMul", q, g.node("Transpose", k, attributes={"perm": [0, 1, 3, 2]}))
    scores = g.node("Mul", scores, g.number(scale, q))
    scores = scores if mask is None else g.node("Add", scores, mask)
    result = g.node("MatMul", g.node("Softmax", scores, attributes={"axis": 3}), v)
    return _joined(g, node, result)


def _by_head(g: Rewriting, node: ir.Node, place: int) -> ir.Value | None:
    """An input of attention as [N, heads, T, D]."""
    value = node.inputs[place]
    sizes = g.sizes(value)
    if sizes is None or len(sizes[0]) == 4:
        return value
    heads = attribute(node, "q_num_heads" if place == 0 else "kv_num_heads")
    if len(sizes[0]) != 3 or not heads:
        return None
    n, t, c = sizes[0]
    split = size_vector(g, (n, t, (heads,) * len(n), tuple(number // heads for number in c)))
    if split is None:
        return None
    return g.node("Transpose", g.node("Reshape", value, split), attributes={"perm": [0, 2, 1, 3]})


def _joined(g: Rewriting, node: ir.Node, value: ir.Value) -> ir.Value | None:
    """[N, heads, T, D] as the node returns it."""
    if g.rank(node.inputs[0]) == 4:
        return value
    sizes = g.sizes(node.outputs[0])
    target = None if sizes is None else size_vector(g, sizes[0])
    if target is None:
        return None
    return g.node("Reshape", g.node("Transpose", value, attributes={"perm": [0, 2, 1, 3]}), target)
