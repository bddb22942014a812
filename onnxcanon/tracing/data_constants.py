"""Constants that are data, not weights: recognized by their use in the graph, never by their values.

A constant is data if every use of it, behind operators that only rearrange or convert, is one of these:

1. *Table.* It has two or more axes longer than 1 and multiplies or divides a computed value elementwise:
   cosines and sines of rotary embeddings, windows, anchors. Learned factors of this kind are left
   weights: what multiplies the result of a normalization (a gain) or is followed by the sum with another
   such constant (an affine map); what multiplies other constants, or a value that is then contracted or
   summed (a weight in the making, a mixture of kernels). Rows picked at run time are data only in the
   form x·a + rearranged(x)·b of rotary embeddings, for else an embedding that meets a mask would be one.
   Factors along one axis (gains, slopes, layer scales) are always weights, and so are terms that are
   added (position embeddings).
2. *Mask.* Its only axes longer than 1 are the last two, of equal size, it is added, multiplied or chosen
   by Where, and what comes out reaches a Softmax through elementwise operators. A bias per head is a
   weight.
3. *Frequencies.* A vector that, multiplied at most with positions, which are computed from integers
   alone, reaches nothing but Sin and Cos. An added constant (the bias of a layer with sine activation)
   makes it a weight.
4. *Cache.* It stands where an operator expects the cosines or sines of rotary embeddings.

Where this is in doubt the constant is a weight. Both are sound: data stays as it is, which loses what
freedom it may have had. Thresholds of comparisons and tables chosen by Where elsewhere are weights for
that reason (trees and mask tokens learn theirs). A filter bank that is applied by MatMul or Conv cannot
be distinguished from a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import onnx_ir as ir

from onnxcanon.graph.operators import is_standard
from onnxcanon.graph.traits import Trait, has, row

TABLE = "a table that multiplies elementwise"
MASK = "a mask before Softmax"
FREQUENCIES = "frequencies of Sin and Cos"
CACHE = "cosines or sines of rotary embeddings"

REARRANGEMENT = Trait.AXES | Trait.SELECTION | Trait.REPETITION | Trait.CAST
"""What brings the entries of its first input to other places or types."""
DEPTH = 24
"""How many operators in a row a search follows; farther off, the answer is that of doubt."""
REACH = 256
"""How many values a search looks at."""

Use = tuple[ir.Node, int, bool]  # node, input, whether positions were picked at run time on the way


def data_kind(value: ir.Value, shape: Sequence[int]) -> str | None:
    """What kind of data a float constant of a shape is; None for a weight."""
    if _escapes(value, DEPTH):
        return None
    uses = list(_uses(value, DEPTH, picked=False))
    kinds = {_kind(node, slot, picked, shape) for node, slot, picked in uses}
    if uses and None not in kinds:
        return min(kind for kind in kinds if kind is not None)
    long = [n for n in shape if n > 1]
    return FREQUENCIES if len(long) == 1 and uses and _turns(value, DEPTH) else None


def _kind(node: ir.Node, slot: int, picked: bool, shape: Sequence[int]) -> str | None:
    if slot in row(node).tables:
        return CACHE
    if not is_standard(node):
        return None
    combines = node.op_type in ("Add", "Div", "Mul", "Sub") or (node.op_type == "Where" and slot > 0)
    if combines and _is_mask(shape) and not picked and _reaches_softmax(node):
        return MASK
    if node.op_type in ("Div", "Mul") and sum(n > 1 for n in shape) >= 2:
        other = node.inputs[1 - slot]
        if other is not None and (_rotates(node, other) or (not picked and _is_table(node, other))):
            return TABLE
    return None


def _is_mask(shape: Sequence[int]) -> bool:
    return len(shape) >= 2 and 1 < shape[-1] == shape[-2] and all(n == 1 for n in shape[:-2])


def _is_table(node: ir.Node, other: ir.Value) -> bool:
    """Whether a product of a constant with another operand does not look like a learned one."""
    if _is_constant(other) or _is_normalized(other):
        return False
    for user, slot, _ in _uses(node.outputs[0], DEPTH, picked=False):
        if has(user, Trait.SUMMING):
            return False
        if user.op_type in ("Add", "Sub", "Sum"):
            terms = [v for k, v in enumerate(user.inputs) if v is not None and k != slot]
            if any(_is_constant(v) and not _is_single(v) for v in terms):
                return False
    return True


def _rotates(node: ir.Node, other: ir.Value) -> bool:
    """Whether the product is a term of x·a + rearranged(x)·b with constant tables a and b."""
    root = _root(other, DEPTH)
    for user, slot, _ in _uses(node.outputs[0], DEPTH, picked=False):
        if root is None or user.op_type not in ("Add", "Sub"):
            continue
        term = user.inputs[1 - slot]
        product = None if term is None else _source(term).producer()
        if product is None or product is node or product.op_type != "Mul":
            continue
        factors = [v for v in product.inputs if v is not None]
        for table, moved in (factors, factors[::-1]):
            if _is_stored(_source(table)) and _root(moved, DEPTH) is root:
                return True
    return False


# -- forward ----------------------------------------------------------------------------------------


def _uses(value: ir.Value, depth: int, *, picked: bool) -> Iterator[Use]:
    """The uses of a value behind rearrangements and products with single numbers."""
    for node, slot in value.uses():
        through = _rearranges(node) and slot == 0
        if node.op_type in ("Div", "Mul") and (slot == 0 or node.op_type == "Mul"):
            other = node.inputs[1 - slot]
            through = other is not None and _is_stored(other) and _is_single(other)
        if not through or not is_standard(node) or depth == 0:
            yield node, slot, picked
            continue
        index = node.inputs[1] if node.op_type == "Gather" else None
        chosen = picked or (index is not None and not _is_constant(index))
        for output in node.outputs:
            yield from _uses(output, depth - 1, picked=chosen)


def _escapes(value: ir.Value, depth: int) -> bool:
    """Whether a value, or a rearrangement of it, is an output of a graph: it may be read elsewhere."""
    moved = [
        output
        for node, slot in value.uses()
        if _rearranges(node) and slot == 0 and depth > 0
        for output in node.outputs
    ]
    return value.is_graph_output() or any(_escapes(output, depth - 1) for output in moved)


def _reaches_softmax(node: ir.Node) -> bool:
    """Whether some result of a node reaches a Softmax through elementwise operators."""
    queue, seen = list(node.outputs), set(node.outputs)
    while queue and len(seen) < REACH:
        for user, _ in queue.pop().uses():
            if has(user, Trait.SOFTMAX):
                return True
            if has(user, Trait.MASKING) or _rearranges(user):
                fresh = [v for v in user.outputs if v not in seen]
                queue += fresh
                seen.update(fresh)
    return False


def _turns(value: ir.Value, depth: int) -> bool:
    """Whether a value reaches nothing but Sin and Cos, multiplied at most with positions."""
    users = [(user, slot) for user, slot, _ in _uses(value, DEPTH, picked=False)]
    for user, slot in users:
        if user.op_type in ("Cos", "Sin"):
            continue
        terms = [v for k, v in enumerate(user.inputs) if v is not None and k != slot]
        if depth == 0 or not (
            user.op_type == "Concat"
            or (user.op_type in ("Einsum", "MatMul", "Mul") and all(_counts(v) for v in terms))
        ):
            return False
        if not _turns(user.outputs[0], depth - 1):
            return False
    return bool(users)


# -- backward ---------------------------------------------------------------------------------------


def _source(value: ir.Value) -> ir.Value:
    """What a value is a rearrangement of."""
    producer = value.producer()
    while producer is not None and _rearranges(producer) and producer.inputs[0] is not None:
        value = producer.inputs[0]
        producer = value.producer()
    return value


def _root(value: ir.Value, depth: int) -> ir.Value | None:
    """What a value is a rearrangement of, or a concatenation of rearrangements; None where its parts
    differ."""
    value = _source(value)
    producer = value.producer()
    if producer is None or producer.op_type != "Concat" or depth == 0:
        return value
    roots = [None if v is None else _root(v, depth - 1) for v in producer.inputs]
    return roots[0] if all(root is roots[0] for root in roots) else value


def _is_normalized(value: ir.Value) -> bool:
    """Whether a value is the result of a normalization, whole or spelled out, or the factor of one."""
    producer = _source(value).producer()
    if producer is None:
        return False
    if has(producer, Trait.NORMALIZATION) or _is_root(value, 4):
        return True
    factors = [v for v in producer.inputs if v is not None]
    return producer.op_type in ("Div", "Mul") and any(_is_root(v, 4) for v in factors)


def _is_root(value: ir.Value, depth: int) -> bool:
    """Whether a value is a root of something, or what was made of one."""
    producer = _source(value).producer()
    if producer is None:
        return False
    if has(producer, Trait.ROOT):
        return True
    through = producer.op_type in ("Add", "Clip", "Max", "Reciprocal") or (
        producer.op_type == "Div" and producer.inputs[0] is not None and _is_constant(producer.inputs[0])
    )
    inputs = [v for v in producer.inputs if v is not None]
    return through and depth > 0 and any(_is_root(v, depth - 1) for v in inputs)


def _counts(value: ir.Value) -> bool:
    """Whether a value is computed from integers and constants alone."""

    def inputs(node: ir.Node) -> Sequence[ir.Value | None] | None:
        if has(node, Trait.COUNT):
            return ()
        if _rearranges(node):
            return node.inputs[:1]
        return node.inputs if has(node, Trait.INDEX_ARITHMETIC) else None

    return _made_of(value, lambda v: v.dtype is not None and v.dtype.is_integer(), inputs)


def _is_constant(value: ir.Value) -> bool:
    """Whether a value is computed from constants alone."""
    return _made_of(value, lambda v: False, lambda node: node.inputs)


def _made_of(
    value: ir.Value,
    known: Callable[[ir.Value], bool],
    inputs: Callable[[ir.Node], Sequence[ir.Value | None] | None],
) -> bool:
    """Whether a value comes from stored and known ones alone, through nodes for which `inputs` lists what
    counts."""
    queue, seen = [value], {value}
    while queue:
        value = queue.pop()
        if _is_stored(value) or known(value):
            continue
        producer = value.producer()
        needed = None if producer is None else inputs(producer)
        if needed is None or len(seen) > REACH:
            return False
        fresh = [v for v in needed if v is not None and v not in seen]
        queue += fresh
        seen.update(fresh)
    return True


def _is_stored(value: ir.Value) -> bool:
    producer = value.producer()
    return value.is_initializer() or (producer is not None and producer.op_type == "Constant")


def _is_single(value: ir.Value) -> bool:
    """Whether a stored constant is one number."""
    tensor = value.const_value
    if tensor is None:
        producer = value.producer()
        attribute = producer.attributes.get("value") if producer is not None else None
        if attribute is None:
            return producer is not None and bool({"value_float", "value_int"} & producer.attributes.keys())
        tensor = attribute.as_tensor()
    return tensor.size == 1


def _rearranges(node: ir.Node) -> bool:
    """Whether the first input comes out rearranged, converted or negated."""
    return has(node, REARRANGEMENT) or node.op_type == "Neg"
