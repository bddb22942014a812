"""Branches: equal pieces of the graph that may change places with their parameters.

The experts of a mixture that are nodes of their own, a ResNeXt block spelled as 32 convolutions, two towers
that meet in a sum: exchanging the parameters of two such branches keeps the function, though every single
parameter only moves as a whole. They are found as automorphisms of the graph:

1. Every node gets a hash of all that leads to it and one of all that follows. Parameters count by shape and
   type, other constants by value. The inputs of commutative operators are unordered, chains of one
   associative operator are one node, and so are the slots of Concat and Split along an axis with labels, and
   the index of a Gather or Slice there: which position a branch reads is then a matter of labels.
2. Nodes that share both hashes are isomorphic. Isomorphic nodes that are connected form branches; branches of
the same hashes
   are matched node by node and compared once more.
3. Constraints of matched nodes become one over all branches, tied to one unit per branch, and matched
   parameters are stacked: a new axis 0 carries these units, and is context of all other axes. To everything
   that follows, a mixture of separate experts looks like one whose weights are stacked.

Branches inside branches, and branches that share a parameter of which each reads a part, are left alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import count

import onnx_ir as ir

from onnxcanon.graph.operators import is_standard
from onnxcanon.graph.traits import Trait, has
from onnxcanon.tracing.abstract_value import AbstractValue, State
from onnxcanon.tracing.constraints import Slot

Digest = bytes
Leaf = Callable[[ir.Value], Digest]
Image = dict[ir.Value, ir.Value]


@dataclass(eq=False, slots=True)
class TracedNode:
    """One node as the trace saw it. `number` is that of its slots in the constraints; `unordered_inputs` and
    `unordered_outputs` say that the slots are interchangeable, `position_inputs` names inputs that choose
    positions of an axis with labels."""

    number: int
    node: ir.Node
    unordered_inputs: bool = False
    unordered_outputs: bool = False
    position_inputs: frozenset[int] = frozenset()
    inputs: list[ir.Value | None] = field(default_factory=list)
    forward: Digest = b""
    both: Digest = b""

    @property
    def outputs(self) -> Sequence[ir.Value]:
        """The values it computes."""
        return self.node.outputs


@dataclass(frozen=True, slots=True)
class Branches:
    """Interchangeable branches. `slots` maps each slot of the constraints within them to a number that
    matched slots share, and to its branch; `parameters` lists matched parameters, one per branch."""

    count: int
    slots: dict[Slot, tuple[int, int]]
    parameters: list[tuple[ir.Value, ...]]


def traced_node(
    number: int,
    node: ir.Node,
    inputs: Sequence[AbstractValue | None],
    outputs: Sequence[AbstractValue | None],
) -> TracedNode:
    """A traced node, with what its labels leave open."""
    domain = is_standard(node)
    out = TracedNode(number, node, inputs=list(node.inputs))
    source = inputs[0] if inputs else None
    result = outputs[0] if outputs else None
    if not domain or source is None or result is None:
        return out
    if has(node, Trait.COMMUTATIVE):
        out.unordered_inputs = True
    elif node.op_type == "Concat":
        out.unordered_inputs = _labelled(result, _axis(node, result.rank, 1))
    elif node.op_type == "Split":
        axis = _axis(node, source.rank, 0)
        alike = len({v.shape for v in outputs if v is not None}) == 1
        out.unordered_outputs = alike and _labelled(source, axis)
    elif node.op_type == "Gather" and _labelled(source, _axis(node, source.rank, 0)):
        out.position_inputs = frozenset({1})
    elif node.op_type == "Slice" and len(node.inputs) > 1:
        cut = [k for k, (n, m) in enumerate(zip(source.shape, result.shape, strict=True)) if n != m]
        if cut and all(_labelled(source, k) for k in cut):
            out.position_inputs = frozenset({1, 2})
    return out


def _axis(node: ir.Node, rank: int, default: int) -> int:
    attribute = node.attributes.get("axis")
    axis = default if attribute is None else int(attribute.value)
    return axis + rank if axis < 0 else axis


def _labelled(value: AbstractValue, axis: int) -> bool:
    return axis < value.rank and not isinstance(value.ids[axis], State)


def find_branches(
    nodes: Sequence[TracedNode], leaf: Leaf, is_parameter: Callable[[ir.Value], bool]
) -> list[Branches]:
    """The groups of interchangeable branches of a traced graph.

    Args:
        nodes: the traced nodes, in topological order.
        leaf: a digest of a value that no node computes, equal for values that may stand for each other.
        is_parameter: whether a value is a parameter.
    """
    return _BranchSearch(nodes, leaf, is_parameter).run()


def digest(*parts: object) -> Digest:
    """One digest of several parts."""
    return blake2b(repr(parts).encode(), digest_size=16).digest()


class _BranchSearch:
    def __init__(
        self, nodes: Sequence[TracedNode], leaf: Leaf, is_parameter: Callable[[ir.Value], bool]
    ) -> None:
        self.leaf, self.is_parameter = leaf, is_parameter
        self.forward: dict[ir.Value, Digest] = {}
        self.nodes = self._chains_as_one(nodes)
        self.producer = {v: s for s in self.nodes for v in s.outputs}
        self.readers: dict[ir.Value, list[tuple[TracedNode, int]]] = defaultdict(list)
        for s in self.nodes:
            for slot, v in enumerate(s.inputs):
                if v is not None:
                    self.readers[v].append((s, slot))

    def run(self) -> list[Branches]:
        self._hash_forward()
        counts = Counter(s.forward for s in self.nodes)
        if all(n == 1 for n in counts.values()):
            return []
        self._hash_backward()
        self.copies = Counter(s.both for s in self.nodes)
        groups = defaultdict(list)
        for part in self._components():
            if len({s.both for s in part}) == len(part):
                groups[digest(*sorted(s.both for s in part))].append(part)
        out = []
        for parts in groups.values():
            images = [image for part in parts if (image := self._match(parts[0], part)) is not None]
            group = self._group(parts[0], images) if len(images) > 1 else None
            if group is not None and group.parameters:
                out.append(group)
        return out

    # -- the nodes ----------------------------------------------------------------------------------

    @staticmethod
    def _chains_as_one(nodes: Sequence[TracedNode]) -> list[TracedNode]:
        """The nodes, chains of one associative operator as one node that reads all their terms."""
        out: dict[ir.Value, TracedNode] = {}
        gone: set[int] = set()
        for s in nodes:
            if has(s.node, Trait.ASSOCIATIVE) and s.unordered_inputs:
                terms: list[ir.Value | None] = []
                for v in s.inputs:
                    alone = v is not None and len(v.uses()) == 1 and not v.is_graph_output()
                    before = out.get(v) if v is not None and alone else None
                    if before is not None and before.node.op_type == s.node.op_type:
                        terms.extend(before.inputs)
                        gone.add(before.number)
                    else:
                        terms.append(v)
                s.inputs = terms
                out[s.outputs[0]] = s
        return [s for s in nodes if s.number not in gone]

    # -- hashes -------------------------------------------------------------------------------------

    def _of(self, value: ir.Value | None) -> Digest:
        if value is None:
            return b""
        if value not in self.forward:
            self.forward[value] = self.leaf(value)
        return self.forward[value]

    def _hash_forward(self) -> None:
        for s in self.nodes:
            inputs = [b"" if k in s.position_inputs else self._of(v) for k, v in enumerate(s.inputs)]
            s.forward = digest(_operator(s.node), *(sorted(inputs) if s.unordered_inputs else inputs))
            for slot, v in enumerate(s.outputs):
                self.forward[v] = digest(s.forward, 0 if s.unordered_outputs else slot)

    def _hash_backward(self) -> None:
        after: dict[TracedNode, Digest] = {}
        for s in reversed(self.nodes):
            outputs = []
            for slot, v in enumerate(s.outputs):
                reads = sorted(
                    digest(r.forward, after[r], 0 if r.unordered_inputs else at) for r, at in self.readers[v]
                )
                end = f"output {v.name}" if v.is_graph_output() else ""
                outputs.append(digest(0 if s.unordered_outputs else slot, end, *reads))
            after[s] = digest(*(sorted(outputs) if s.unordered_outputs else outputs))
            s.both = digest(s.forward, after[s])

    # -- branches -----------------------------------------------------------------------------------

    def _components(self) -> list[list[TracedNode]]:
        """Connected nodes that are isomorphic to others, each component in the order of the graph."""
        copies = [s for s in self.nodes if self.copies[s.both] > 1]
        root = {s: s for s in copies}

        def find(s: TracedNode) -> TracedNode:
            while root[s] is not s:
                root[s] = root[root[s]]
                s = root[s]
            return s

        for s in copies:
            for v in s.inputs:
                before = None if v is None else self.producer.get(v)
                if before in root and before is not None:
                    root[find(s)] = find(before)
        for v, reads in self.readers.items():
            if v not in self.producer and self.is_parameter(v):
                users = [s for s, _ in reads]
                if all(s in root for s in users) and len({s.both for s in users}) == len(users):
                    for s in users[1:]:
                        root[find(s)] = find(users[0])
        parts: dict[TracedNode, list[TracedNode]] = defaultdict(list)
        for s in copies:
            parts[find(s)].append(s)
        return list(parts.values())

    def _match(self, first: list[TracedNode], other: list[TracedNode]) -> Image | None:
        """Which value of `other` stands for which of `first`; None where they are not alike after all."""
        counterpart = {s.both: s for s in other}
        image: Image = {}
        for s in first:
            t = counterpart.get(s.both)
            if t is None or _operator(s.node) != _operator(t.node) or len(s.inputs) != len(t.inputs):
                return None
            image.update(zip(s.outputs, t.outputs, strict=True))
        inside = {v for s in first for v in s.outputs}
        if not all(self._inputs_match(s, counterpart[s.both], image, inside) for s in first):
            return None
        return image if len(set(image.values())) == len(image) else None

    def _inputs_match(self, s: TracedNode, t: TracedNode, image: Image, inside: set[ir.Value]) -> bool:
        """Pair the inputs of two matched nodes; outer values that stand for each other enter the image."""
        pairs = list(zip(s.inputs, t.inputs, strict=True))
        if s.unordered_inputs:
            pairs = self._paired(s, t, image)
        for slot, (v, w) in enumerate(pairs):
            if v in inside or v in image:
                if v is None or image[v] is not w:
                    return False
            elif v is not w and slot not in s.position_inputs:
                if v is None or w is None or self._of(v) != self._of(w):
                    return False
                if self.is_parameter(v) or v in self.producer:
                    if not self._exchangeable(v, w):
                        return False
                    image[v] = w  # else both are constants of one value
        return True

    def _paired(
        self, s: TracedNode, t: TracedNode, image: Image
    ) -> list[tuple[ir.Value | None, ir.Value | None]]:
        """Unordered inputs in pairs: matched ones, those that both read, then the rest by their hashes."""
        right = list(t.inputs)
        pairs: list[tuple[ir.Value | None, ir.Value | None]] = []
        rest = []
        for v in s.inputs:
            w = v if v is None else image.get(v, v)
            if w in right:
                right.remove(w)
                pairs.append((v, w))
            else:
                rest.append(v)
        return pairs + list(zip(sorted(rest, key=self._of), sorted(right, key=self._of), strict=True))

    def _exchangeable(self, v: ir.Value, w: ir.Value) -> bool:
        """Whether two values from outside stand for each other: parameters, or slots of one unordered Split,
        that no other node reads than matched ones."""
        source = self.producer.get(v)
        if source is not self.producer.get(w) or (source is not None and not source.unordered_outputs):
            return False
        return all(map(self._read_by_copies, (v, w)))

    def _read_by_copies(self, value: ir.Value) -> bool:
        """Whether all that reads a value is isomorphic to other nodes, but not to each other."""
        readers = [s for s, _ in self.readers[value]]
        alone = len({s.both for s in readers}) == len(readers)
        return alone and not value.is_graph_output() and all(self.copies[s.both] > 1 for s in readers)

    def _group(self, first: list[TracedNode], images: list[Image]) -> Branches | None:
        """The matched branches, `first` among them; None where they share what each needs of its own."""
        keys = Counter(frozenset(image) for image in images[1:]).most_common(1)[0][0]
        images = [{v: v for v in keys}, *(image for image in images[1:] if frozenset(image) == keys)]
        if any(len({image[v] for image in images}) < len(images) for v in keys):
            return None
        slots: dict[Slot, tuple[int, int]] = {}
        numbers = count()
        for s in first:
            matched = [self.producer[image[s.outputs[0]]] for image in images]
            for slot in range(-1, max(len(s.inputs), len(s.outputs))):
                number = next(numbers)
                for k, (t, image) in enumerate(zip(matched, images, strict=True)):
                    slots[t.number, self._slot(s, t, slot, image)] = number, k
        for s, is_input, v in self._edges(first, keys):
            number, values = next(numbers), s.inputs if is_input else s.outputs
            for k, image in enumerate(images):
                slots[s.number, list(values).index(image[v])] = number, k
        produced = {v for s in first for v in s.outputs}
        own = [v for v in images[0] if v not in produced and v not in self.producer]
        return Branches(len(images), slots, [tuple(image[v] for image in images) for v in own])

    @staticmethod
    def _slot(s: TracedNode, t: TracedNode, slot: int, image: Image) -> int:
        """The slot of a matched node for a slot of a node; only Concat's may be in another order."""
        if slot < 0 or slot >= len(s.inputs) or not (s.unordered_inputs and s.node.op_type == "Concat"):
            return slot
        v = s.inputs[slot]
        w = v if v is None else image.get(v, v)
        return t.inputs.index(w) if w in t.inputs else slot

    def _edges(
        self, first: list[TracedNode], keys: Iterable[ir.Value]
    ) -> Iterator[tuple[TracedNode, bool, ir.Value]]:
        """Unordered slots of nodes outside that a branch fills or reads: (node, whether an input, value)."""
        inside = set(first)
        for v in keys:
            for reader, _ in self.readers[v]:
                if reader not in inside and reader.unordered_inputs and reader.node.op_type == "Concat":
                    yield reader, True, v
            source = self.producer.get(v)
            if source is not None and source not in inside:
                yield source, False, v


def _operator(node: ir.Node) -> str:
    """The operator with its attributes."""
    attributes = [f"{name}={_attribute(a)}" for name, a in sorted(node.attributes.items())]
    return f"{node.domain}::{node.op_type}::{node.overload}({', '.join(attributes)})"


def _attribute(attribute: ir.Attr) -> str:
    if attribute.type == ir.AttributeType.TENSOR:
        return repr((attribute.value.dtype, tuple(attribute.value.shape), attribute.value.tobytes()))
    if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        return f"graph {id(attribute.value)}"
    return repr(attribute.value)
