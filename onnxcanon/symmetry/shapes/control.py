"""Shapes of operators with subgraphs: these are not walked, only asked what they declare."""

from __future__ import annotations

import onnx_ir as ir

from onnxcanon.symmetry.shapes.known import Op, Shape, Shapes, norm_axis, rule


def _declared(graph: ir.Graph) -> list[Shape | None]:
    """The static shapes that a subgraph declares for its outputs; None where it has none."""
    shapes: list[Shape | None] = []
    for value in graph.outputs:
        dims = () if value.shape is None else value.shape.dims
        sizes = tuple(dim for dim in dims if isinstance(dim, int) and dim >= 0)
        shapes.append(None if value.shape is None or len(sizes) != len(dims) else sizes)
    return shapes


@rule("If")
def if_(op: Op) -> Shapes:
    """condition[] -> what both branches agree on."""
    branches = _declared(op.attr("then_branch")), _declared(op.attr("else_branch"))
    return [then if then == other else None for then, other in zip(*branches, strict=True)]


@rule("Loop")
def loop(op: Op) -> Shapes:
    """trip count[], condition[], state[*S]... -> state[*T]..., stacked outputs (of unknown length)."""
    states = len(op.node.inputs) - 2
    # A state that the body does not change in shape starts with it; without a single run it stays as it was.
    pairs = zip(op.inputs[2:], _declared(op.attr("body"))[1 : 1 + states], strict=True)
    return [shape if known is not None and known.shape == shape else None for known, shape in pairs]


@rule("Scan")
def scan(op: Op) -> Shapes:
    """state[*S]..., sequence[T, ...]... -> state[*S]..., stacked[T, *declared by the body]..."""
    count = op.attr("num_scan_inputs")
    states = len(op.inputs) - count
    if op.version < 9:  # the sequence lengths come first, and every tensor has a batch axis
        return [op.shape(i) for i in range(1, states)]
    first = op.shape(states)
    axis = norm_axis((op.attr("scan_input_axes") or (0,))[0], len(first))
    shapes: list[Shape | None] = [op.shape(i) for i in range(states)]
    items = _declared(op.attr("body"))[states:]
    for item, place in zip(items, op.attr("scan_output_axes") or (0,) * len(items), strict=True):
        at = None if item is None else norm_axis(place, len(item) + 1)
        shapes.append(None if item is None or at is None else (*item[:at], first[axis], *item[at:]))
    return shapes
