"""The rule table: one plain function per operator, found by domain and name.

A rule reads the labelled inputs it handles with `op.x(i)`; every labelled input it did not read is pinned by
the driver. It returns the labelled outputs (one, or a list; None for an output it leaves fixed), or `None`
to say that it has no rule for this form of the operator, which then is a local barrier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcanon.graph.nodes import NodeView
from onnxcanon.graph.operators import STANDARD, Table
from onnxcanon.tracing.abstract_value import AbstractValue, ValueSequence
from onnxcanon.tracing.constraints import Reason
from onnxcanon.tracing.context import Context

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxcanon.shapes import Shapes

Outputs = AbstractValue | Sequence[AbstractValue | None] | None
Rule = Callable[[Context, "SymmetryNode"], Outputs]
Body = Callable[["ir.Graph", Sequence[AbstractValue | None]], list[AbstractValue | None]]
"""Traces a subgraph, given its labelled inputs."""

SYMMETRIES: Table[Rule] = Table("symmetries")
OPEN: Table[Rule] = Table("rules that read no labels")
"""Operators whose rules read no labels: splits of axes that nothing read yet (`DeferredSplit`) pass them as
they are."""


def register(
    *names: str, domain: str | Sequence[str] = STANDARD, since: int = 1, leaves_splits: bool = False
) -> Callable[[Rule], Rule]:
    """Enter a rule for operators of one or several domains, `OPEN` ones if it leaves splits as they are."""

    def enter(rule: Rule) -> Rule:
        SYMMETRIES.enter(rule, *names, domain=domain, since=since)
        if leaves_splits:
            OPEN.enter(rule, *names, domain=domain, since=since)
        return rule

    return enter


class Unsupported(Exception):
    """Raised inside a rule: this form of the operator has no rule, for the reason given."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SymmetryNode(NodeView):
    """What a rule sees of one node: labelled inputs, static data, shapes in both samples, attributes, and
    what its subgraphs make of inputs that it labels."""

    def __init__(
        self,
        node: ir.Node,
        inputs: Sequence[AbstractValue | None],
        shapes: Shapes,
        version: int,
        body: Body | None = None,
    ) -> None:
        super().__init__(node, version)
        self.inputs = inputs
        self.claimed: set[int] = set()
        self._shapes = shapes
        self._body = body

    def used(self, i: int) -> bool:
        """Whether output i exists and something reads it, the caller included."""
        outputs = self.node.outputs
        return i < len(outputs) and (bool(outputs[i].uses()) or outputs[i].is_graph_output())

    def x(self, i: int) -> AbstractValue:
        """AbstractValue input i, which the rule thereby handles."""
        value = self.inputs[i] if i < len(self.inputs) else None
        if value is None:
            raise Unsupported(Reason.UNKNOWN_SHAPE)
        if isinstance(value, ValueSequence):
            raise Unsupported("a sequence where a tensor was expected")
        self.claimed.add(i)
        return value

    def bundle(self, i: int) -> list[AbstractValue]:
        """The tensors of sequence input i, which the rule thereby handles."""
        value = self.inputs[i] if i < len(self.inputs) else None
        if not isinstance(value, ValueSequence):
            raise Unsupported("a sequence of unknown content")
        self.claimed.add(i)
        return value.members

    def optional(self, i: int) -> AbstractValue | None:
        """AbstractValue input i if it is given."""
        return self.x(i) if self.has(i) else None

    def xs(self) -> list[AbstractValue]:
        """All labelled inputs."""
        return [self.x(i) for i in range(len(self.node.inputs)) if self.has(i)]

    def data(self, i: int) -> np.ndarray[Any, Any] | None:
        """The value of input i where it is known and the same in both samples."""
        value = self.node.inputs[i] if self.has(i) else None
        return None if value is None else self._shapes.data(value)

    def data_pair(self, i: int) -> tuple[np.ndarray[Any, Any] | None, np.ndarray[Any, Any] | None]:
        """The value of input i in each sample, where known."""
        value = self.node.inputs[i] if self.has(i) else None
        return (None, None) if value is None else self._shapes.data_pair(value)

    def float_pair(self, i: int) -> tuple[np.ndarray[Any, Any] | None, np.ndarray[Any, Any] | None]:
        """As `data_pair`, of small float constants too; only for inputs that the rule leaves to be pinned."""
        value = self.node.inputs[i] if self.has(i) else None
        return (None, None) if value is None else self._shapes.float_pair(value)

    def in_shapes(self, i: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shape of input i in both samples; they differ where it is dynamic."""
        value = self.node.inputs[i] if self.has(i) else None
        a, b = (None, None) if value is None else self._shapes.contrast(value)
        if a is None or b is None:
            raise Unsupported(Reason.UNKNOWN_SHAPE)
        return a, b

    def out_shapes(self, i: int = 0) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shape of output i in both samples; they differ where it is dynamic."""
        a, b = self._shapes.contrast(self.node.outputs[i])
        if a is None or b is None:
            raise Unsupported("the output has no known shape")
        return a, b

    def shape_of(self, value: ir.Value) -> tuple[int, ...] | None:
        """Shape of any value in the first sample, where it is known under both."""
        a, b = self._shapes.shapes(value)
        return None if b is None else a

    def condition(self) -> bool | None:
        """Which branch an `If` takes, where that is known."""
        return self._shapes.condition(self.node)

    def graph(self, name: str) -> ir.Graph:
        """A subgraph."""
        attribute = self.node.attributes.get(name)
        if attribute is None:
            raise Unsupported(f"it has no graph '{name}'")
        return attribute.as_graph()

    def body(self, name: str, inputs: Sequence[AbstractValue | None]) -> list[AbstractValue | None]:
        """The labelled outputs of a subgraph, given its labelled inputs."""
        if self._body is None:
            raise Unsupported("its graphs are not traced")
        return self._body(self.graph(name), inputs)

    def axes(self, i: int, rank: int) -> list[int] | None:
        """Axes from attribute `axes` or static input i; None where not given; Barrier where dynamic."""
        given = self.attr("axes")
        if given is None and self.has(i):
            static = self.data(i)
            if static is None:
                raise Unsupported("its axes are computed at run time")
            given = static.ravel().tolist()
        if given is None:
            return None
        return [int(a) + rank if a < 0 else int(a) for a in given]
