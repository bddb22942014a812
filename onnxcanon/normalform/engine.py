"""The rewriting engine: what rules see of a graph, how they write to it, and in which order they are tried.

A rule is a plain function for one rewrite pattern. It takes a node and returns the values that take the
place of its outputs, None where the pattern does not match, or a `Refusal` where it does and something else
stands in the way. Dead nodes, common subexpressions, names and
the nodes that it makes are not its concern: the engine tries all rules until none applies.

    @rule("Identity")
    def identity(g: Rewriting, node: ir.Node) -> Outputs:
        \"\"\"X -> X.\"\"\"
        return node.inputs[0]

Shapes come from `onnxcanon.shapes`: a size is a tuple with one number for each sample assignment of the
dynamic dimensions; a size is static if these numbers agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcanon.arrays import Array
from onnxcanon.graph.element_types import FLOATS
from onnxcanon.graph.operators import (
    ANY,
    FIRST,
    STANDARD,
    Table,
    domain_of,
)
from onnxcanon.graph.traversal import remove, subgraphs
from onnxcanon.normalform.dead_nodes import is_read
from onnxcanon.normalform.names import Names
from onnxcanon.normalform.type_inference import result_types
from onnxcanon.shapes import Shapes

TARGET = 21
"""The operator set of normal forms: the first from which on only types were added to what rules know."""

MOST_REWRITES = 64
"""Rewrites for each node of the graph, on average, after which a normal form is given up."""

Size = tuple[int, ...]
ShapeSizes = tuple[Size, ...]

_SMALL = 16  # elements up to which constants of equal content are one constant


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a rule leaves a node as it is though its pattern matches; false, as None is.

    Attributes:
        reason: a sentence without its subject, the node.
        pattern: the rule, as "family.name".
        node: the name of the node.
    """

    reason: str
    pattern: str = ""
    node: str = ""

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return f"{self.pattern}: '{self.node}' {self.reason}"


UNKNOWN_SIZES = Refusal("has sizes that are not known")
SHARED_VALUE = Refusal("reads a value that others read too")
SHARED_WEIGHT = Refusal("reads a weight that others read too")
NO_FLOATS = Refusal("does not compute in floats")
NOT_COMPUTED = Refusal("needs a constant that is too large to compute, or not finite")

Outputs = ir.Value | Sequence[ir.Value | None] | Refusal | None
Rule = Callable[["Rewriting", ir.Node], Outputs]


class NonTermination(Exception):
    """The rules do not come to an end."""


def pattern_of(rule: Rule) -> str:
    """What the pattern of a rule is called: its family, which is its file, and its name."""
    return f"{rule.__module__.rpartition('.')[2]}.{rule.__name__}"


class Rules:
    """Rules by operator, several for one operator: one for each pattern.

    They are tried in the order of their families, and in a family in that of its file. Those for no
    operator are tried on every node of the standard, and first.
    """

    def __init__(self, subject: str, families: Sequence[str]) -> None:
        self.table: Table[tuple[int, Rule]] = Table(subject)
        self._rank = {family: rank for rank, family in enumerate(families)}

    def __call__(
        self, *names: str, domain: str | Sequence[str] = STANDARD, since: int = FIRST
    ) -> Callable[[Rule], Rule]:
        """Enter a rule for operators; its pattern is called by its family (the file) and its own name."""

        def enter(function: Rule) -> Rule:
            family = function.__module__.rpartition(".")[2]
            if family not in self._rank:
                raise ValueError(f"the family '{family}' has no place in the order of {self.table.subject}")
            entry, pattern = (self._rank[family], function), pattern_of(function)
            self.table.enter(entry, *(names or (ANY,)), domain=domain, since=since, pattern=pattern)
            return function

        return enter

    def of(self, node: ir.Node, version: int) -> list[Rule]:
        """The rules to try on a node that is written in a version of its operator set."""
        # Stable: in a family the order is that of the file, whichever family was imported first.
        return [
            rule
            for name in (ANY, node.op_type)
            for _, rule in sorted(self.table.patterns(domain_of(node), name, version), key=itemgetter(0))
        ]


class Rewriting:
    """A graph being rewritten.

    Attributes:
        graph: the main graph.
        shapes: what is known of shapes and small values.
        sources: the tensors of the original model that a constant was computed from.
        final: values in their final form, for rules that would else match their own results again.
        budget: bytes that constants may still be computed to.
        target: the version of the standard's operators that new nodes are of.
        retyped: values in place of others of another element type, which only smooth models have.
        refusals: rules that refused in the last pass, with the node and the reason.
    """

    def __init__(
        self,
        graph: ir.Graph,
        shapes: Shapes,
        sources: Mapping[ir.Value, tuple[str, ...]],
        version: int,
        target: int = TARGET,
    ) -> None:
        self.graph = graph
        self.shapes = shapes
        self.sources = dict(sources)
        self.final: set[ir.Value] = set()
        self.budget = _budget(sources)
        self.target = target
        self.retyped: set[ir.Value | None] = set()
        self.refusals: list[tuple[Rule, ir.Node, str]] = []
        self._version = version
        # While a rule runs: the node it was given, before which its new nodes stand, and these nodes, which
        # are removed again if it refuses. Held here so that rules need not pass them to every `node(...)`.
        self._current: ir.Node | None = None
        self._new_nodes: list[ir.Node] = []
        self._names = Names.of(graph)
        self._interned: dict[tuple[object, ...], ir.Value] = {}
        self._left = MOST_REWRITES * (100 + sum(1 for _ in graph.all_nodes()))

    # -- what is known ------------------------------------------------------------------------------

    def version(self, node: ir.Node) -> int:
        """The operator set that a node is written in."""
        return node.version or self._version

    def is_constant(self, value: ir.Value | None) -> bool:
        """Whether a value is a tensor of the model, or computed from such."""
        return value is not None and value.const_value is not None and value.producer() is None

    def array(self, value: ir.Value | None) -> Array | None:
        """The value of a constant; memory-mapped where it is one of the file's."""
        if value is None or value.const_value is None or not self.is_constant(value):
            return None
        return np.asarray(value.const_value.numpy())

    def scalar(self, value: ir.Value | None) -> float | None:
        """The value of a constant number of any rank."""
        if value is None or value.const_value is None or value.const_value.size != 1:
            return None
        if value.const_value.dtype == ir.DataType.STRING:
            return None
        array = self.array(value)
        return None if array is None else float(array.item())

    def ints(self, value: ir.Value | None) -> list[int] | None:
        """The value of a constant list of integers."""
        if value is None or value.dtype not in (ir.DataType.INT64, ir.DataType.INT32):
            return None
        array = self.array(value)
        return None if array is None else [int(number) for number in array.ravel()]

    def sizes(self, *values: ir.Value | None) -> tuple[ShapeSizes, ...] | None:
        """The shapes of values, in samples that know all of them; None if one of the first two does not."""
        rows = [self.shapes.in_all_samples(value) for value in values if value is not None]
        if len(rows) < len(values) or not rows:
            return None
        complete = [k for k in range(len(rows[0])) if all(row[k].shape is not None for row in rows)]
        if complete[:2] != [0, 1]:
            return None
        sizes = []
        for row in rows:
            shapes = [row[k].shape or () for k in complete]
            if len({len(shape) for shape in shapes}) != 1:
                return None
            sizes.append(tuple(zip(*shapes, strict=True)))
        return tuple(sizes)

    def shape(self, value: ir.Value | None) -> tuple[int | None, ...] | None:
        """The shape of a value, with None for dynamic sizes."""
        sizes = self.sizes(value)
        return None if sizes is None else tuple(static(size) for size in sizes[0])

    def rank(self, value: ir.Value | None) -> int | None:
        """How many axes a value has."""
        shape = self.shape(value)
        return None if shape is None else len(shape)

    def is_float(self, value: ir.Value | None) -> bool:
        """Whether a value is of floating type."""
        return value is not None and value.dtype in FLOATS

    def sole_use(self, value: ir.Value) -> bool:
        """Whether one node alone reads a value."""
        return len(value.uses()) == 1 and not value.is_graph_output()

    def is_own(self, value: ir.Value | None) -> bool:
        """Whether a constant may be merged into another: one node reads it, or it is one number repeated.

        A parameter that several nodes share stays one; exporters also share what is equal by chance, such as
        zeros and ones.
        """
        array = self.array(value)
        if value is None or array is None:
            return False
        return len(value.uses()) == 1 or not array.size or bool((array == array.flat[0]).all())

    # -- writing ------------------------------------------------------------------------------------

    def node(
        self, op_type: str, *inputs: ir.Value | None, attributes: Mapping[str, Any] | None = None
    ) -> ir.Value:
        """A new node of the standard with one output, before the one being rewritten."""
        return self.nodes(op_type, *inputs, attributes=attributes, outputs=1)[0]

    def nodes(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        attributes: Mapping[str, Any] | None = None,
        outputs: int,
    ) -> Sequence[ir.Value]:
        """A new node of the standard."""
        assert self._current is not None and self._current.graph is not None
        present = {name: value for name, value in (attributes or {}).items() if value is not None}
        node = ir.node(op_type, inputs, present, num_outputs=outputs, version=self.target)
        for value, dtype in zip(node.outputs, result_types(node, self.target), strict=True):
            value.name = self._names.free(op_type.lower())
            if dtype is not None:
                value.dtype = dtype
        self._current.graph.insert_before(self._current, node)
        self.shapes.visit(node)
        self._new_nodes.append(node)
        return node.outputs

    def renewed(
        self,
        node: ir.Node,
        attributes: Mapping[str, Any] | None = None,
        inputs: Sequence[ir.Value | None] | None = None,
    ) -> Sequence[ir.Value]:
        """The node again, with other inputs or some attributes changed (None: left out)."""
        merged: dict[str, Any] = {**node.attributes, **(attributes or {})}
        sources = node.inputs if inputs is None else inputs
        return self.nodes(node.op_type, *sources, attributes=merged, outputs=len(node.outputs))

    def inlined(self, node: ir.Node, body: ir.Graph, results: Sequence[ir.Value]) -> Sequence[ir.Value]:
        """Move the nodes of a body before the node that holds it; returns what stands for its results."""
        assert node.graph is not None
        inner = list(body)
        for value in (value for inside in inner for value in inside.outputs):
            value.name = self._names.free(value.name or "inner")  # both branches may use one name
        body.outputs.clear()
        body.remove(inner)
        node.graph.insert_before(node, inner)
        self._new_nodes += inner
        return results

    def constant(self, array: Array, *sources: ir.Value | None) -> ir.Value:
        """A constant computed from others. Views are kept as views: no weight is copied for its order."""
        tensor = ir.Tensor(np.asarray(array))
        origin = tuple(
            dict.fromkeys(name for value in sources if value for name in self.sources.get(value, ()))
        )
        mark: tuple[object, ...] = ()
        if tensor.size <= _SMALL and array.dtype.kind in "iubf":
            mark = (tensor.dtype, array.shape, array.tobytes(), origin)
            if mark in self._interned:
                return self._registered(self._interned[mark])
        value = ir.Value(name=self._names.free(origin[0] if origin else "constant"), const_value=tensor)
        value.dtype, value.shape = tensor.dtype, ir.Shape(array.shape)
        self.graph.register_initializer(value)
        self.sources[value] = origin
        if mark:
            self._interned[mark] = value
        return value

    def _registered(self, value: ir.Value) -> ir.Value:
        """A constant made before, which may have been removed from the graph since."""
        if value.name not in self.graph.initializers:
            self.graph.register_initializer(value)
        return value

    def number(self, value: float, like: ir.Value) -> ir.Value:
        """A number in the type of another value."""
        assert like.dtype is not None
        return self.constant(np.asarray(value, like.dtype.numpy()))

    def integers(self, values: Iterable[int]) -> ir.Value:
        """A list of integers."""
        return self.constant(np.array(list(values), np.int64))

    # -- rewriting ----------------------------------------------------------------------------------

    def apply(self, rules: Rules, *, nested: bool = True) -> bool:
        """Try rules on all nodes, and on those they make, once; returns whether any applied.

        Args:
            rules: the rules.
            nested: whether the graphs inside nodes are rewritten too.

        Raises:
            NonTermination: If they make new nodes without end.
        """
        self.refusals.clear()
        return self._sweep(self.graph, rules, nested)

    def _sweep(self, graph: ir.Graph, rules: Rules, nested: bool) -> bool:
        changed = False
        for node in list(graph):
            stack = [node]
            while stack:
                current = stack.pop()
                if current.graph is None or not is_read(current):
                    continue
                for body in subgraphs(current) if nested else ():
                    changed |= self._sweep(body, rules, nested)
                new_nodes = self._rewrite(current, rules)
                changed |= new_nodes is not None
                stack += reversed(new_nodes or [])
        return changed

    def _rewrite(self, node: ir.Node, rules: Rules) -> list[ir.Node] | None:
        """Replace a node by what the first rule that applies makes of it; returns the new nodes."""
        for rule in rules.of(node, self.version(node)):
            self._current, self._new_nodes = node, []
            result = rule(self, node)
            if isinstance(result, Refusal):
                self.refusals.append((rule, node, result.reason))
            elif result is not None:
                self._left -= 1
                if self._left < 0:
                    raise NonTermination(f"'{node.name}' ({node.op_type})")
                self._replace(node, [result] if isinstance(result, ir.Value) else list(result))
                return self._new_nodes
            for unused in reversed(self._new_nodes):
                assert unused.graph is not None
                unused.graph.remove(unused, safe=True)
        return None

    def _replace(self, node: ir.Node, results: list[ir.Value | None]) -> None:
        for old, new in zip(node.outputs, results, strict=False):
            if new is None:
                continue
            if new.type is None:
                new.type = old.type
            if old.is_graph_output():
                new = self._presentable(old, new)
            if new.shape is None:
                new.shape = old.shape
            if new.dtype != old.dtype:
                self.retyped.add(new)
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        remove(node)

    def _presentable(self, old: ir.Value, new: ir.Value) -> ir.Value:
        """What may be a graph's output: the result of a node of that graph that is no output yet."""
        producer, here = new.producer(), self._current
        assert here is not None
        if producer is not None and producer.graph is here.graph and not new.is_graph_output():
            return new
        return self.node("Identity", new)


def static(size: Size) -> int | None:
    """A size that is the same in all samples."""
    return size[0] if all(number == size[0] for number in size) else None


def _budget(sources: Mapping[ir.Value, tuple[str, ...]]) -> int:
    """A few times what the model holds, so that no small file makes us allocate much."""
    total = sum(value.const_value.nbytes for value in sources if value.const_value is not None)
    return 4 * total + (1 << 26)
