"""Where statistics can be repaired: values whose channels have weights and a bias of their own.

    z = W x + b        becomes  g z + h  by  W -> diag(g) W,  b -> g b + h
    z = γ n(x) + β     becomes  g z + h  by  γ -> g γ,        β -> g β + h     (BatchNormalization)

A layer is repaired after what follows it linearly: after its added bias, after its BatchNormalization. It may
read its weight through Transpose. What another node reads as well is not changed. Outputs of the graph are
layers like others: their channels need no alignment to mean the same in all models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxcanon.arrays import Floats
from onnxcanon.graph.element_types import AVERAGED
from onnxcanon.graph.nodes import attribute, given, node_name
from onnxcanon.graph.operators import Table, domain_of, is_standard
from onnxcanon.graph.traversal import live, subgraphs
from onnxcanon.model import Model

Rule = Callable[["_SiteFinder", ir.Node], "RepairSite | NormStatistics | None"]
"""What a node offers to repair: None if it is no layer, or one that another node stands for."""

REPAIR_RULES: Table[Rule] = Table("repairs")
STATISTICS_RULES: Table[Rule] = Table("statistics that can be measured anew")


class Unrepairable(Exception):
    """Why a layer is left as it is."""


@dataclass(frozen=True, slots=True)
class FoldableParameter:
    """How a number per channel meets a constant: along `axis`, of which there are `groups` (those of a
    transposed convolution, whose axis 0 goes through all groups in turn). The constant enters the value
    multiplied by `unit`."""

    name: str
    axis: int
    groups: int = 1
    unit: float = 1.0

    def spread(self, channels: Floats, shape: tuple[int, ...]) -> Floats:
        """Numbers [channels] so that they broadcast against the constant of the given shape."""
        if self.groups == 1:
            return channels.reshape([-1 if k == self.axis else 1 for k in range(len(shape))])
        rows = np.repeat(channels.reshape(self.groups, -1), shape[0] // self.groups, 0)
        return rows.reshape(*rows.shape, *[1] * (len(shape) - 2))


@dataclass(frozen=True, slots=True)
class RepairSite:
    """A value of the main graph that can be scaled and shifted channel by channel.

    Attributes:
        value: its name.
        axis: the axis of its channels.
        weight: what a factor goes into.
        bias: what a factor and a shift go into.
    """

    value: str
    axis: int
    weight: FoldableParameter
    bias: FoldableParameter


@dataclass(frozen=True, slots=True)
class NormStatistics:
    """A BatchNormalization in inference mode: the names of what it normalizes and of its own statistics."""

    value: str
    mean: str
    variance: str


@dataclass(slots=True)
class RepairSites:
    """What can be repaired, in the order in which the graph runs, and what cannot, with the reason."""

    sites: list[RepairSite] = field(default_factory=list)
    norms: list[NormStatistics] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


def norm_statistics(model: Model) -> RepairSites:
    """The BatchNormalizations of a model whose statistics can be measured anew."""
    return _found(model, STATISTICS_RULES)


def repair_sites(model: Model) -> RepairSites:
    """The layers of a model that can be repaired."""
    return _found(model, REPAIR_RULES)


def _found(model: Model, rules: Table[Rule]) -> RepairSites:
    graph, found = _SiteFinder(model), RepairSites()
    for node in live(model.ir.graph):
        for inner in (node, *(n for body in subgraphs(node) for n in body.all_nodes())):
            rule = rules.of(inner, inner.version or model.opset(domain_of(inner)))
            try:
                place = rule(graph, inner) if rule is not None else None
                if place is not None and inner is not node:
                    raise Unrepairable("it lies in a body of the graph")
            except Unrepairable as reason:
                found.left[node_name(inner)] = str(reason)
                continue
            if isinstance(place, RepairSite):
                found.sites.append(place)
            elif place is not None:
                found.norms.append(place)
        if node.op_identifier() in model.ir.functions:
            found.left[node_name(node)] = "it calls a function of the model"
    return found


class _SiteFinder:
    """What is known of the main graph of a model: constants, who reads them, attributes."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.uses = Counter(self._reads())

    def _reads(self) -> Iterator[str]:
        """Every constant as often as it is read, in bodies and functions too."""
        graphs: list[ir.Graph | ir.Function] = [self.model.ir.graph, *self.model.ir.functions.values()]
        for graph in graphs:
            for value in (v for node in graph.all_nodes() for v in node.inputs if v is not None):
                yield from filter(None, [self.model.key(value)])
        yield from filter(None, map(self.model.key, self.model.ir.graph.outputs))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a constant."""
        return self.model.tensor_info(name)[0]

    def own(self, value: ir.Value | None, what: str) -> str | None:
        """The name of a constant of numbers that one node reads; None if it is no constant.

        Raises:
            Unrepairable: others read it too, or it has no fractions.
        """
        name = None if value is None else self.model.key(value)
        if name is None:
            return None
        if self.uses[name] > 1:
            raise Unrepairable(f"its {what} '{name}' is shared by {self.uses[name]} nodes")
        if self.model.tensor_info(name)[1] not in AVERAGED:
            raise Unrepairable(f"its {what} '{name}' is {self.model.tensor_info(name)[1].name}")
        return name

    def weight(self, value: ir.Value | None, axis: int) -> FoldableParameter | None:
        """The constant that a layer reads as its weight, by Transpose or directly, with the axis that becomes
        `axis` of what the layer reads."""
        while value is not None and self.model.key(value) is None:
            node = value.producer()
            if node is None or node.op_type not in ("Transpose", "Identity") or len(value.uses()) > 1:
                return None
            value = node.inputs[0]
            if node.op_type == "Transpose":
                name = None if value is None else self.model.key(value)
                rank = len(self.shape(name)) if name is not None else 2
                axis = [*attribute(node, "perm", range(rank)[::-1])][axis]
        name = self.own(value, "weight")
        return None if name is None else FoldableParameter(name, axis)

    @STATISTICS_RULES.register("BatchNormalization")
    def norm(self, node: ir.Node) -> NormStatistics:
        """A BatchNormalization whose statistics are constants of its own."""
        if not self.infers(node):
            raise Unrepairable("it is in training mode, or normalizes each position by itself")
        mean, variance = self.own(node.inputs[3], "mean"), self.own(node.inputs[4], "variance")
        if mean is None or variance is None:
            raise Unrepairable("its statistics are computed")
        return NormStatistics(_name(node.inputs[0]), mean, variance)

    def infers(self, node: ir.Node) -> bool:
        """Whether a BatchNormalization uses running statistics, one per channel; all versions."""
        version = node.version or self.model.opset()
        if version < 7 and not attribute(node, "is_test", 0):
            return False
        return bool(attribute(node, "spatial", 1)) and not attribute(node, "training_mode", 0)

    def normalized(self, value: ir.Value) -> bool:
        """Whether all that becomes of a value is its batch normalization, which is repaired instead."""
        reader = sole_reader(value)
        return reader is not None and is_standard(reader, "BatchNormalization") and reader.inputs[0] is value

    def layer(
        self, node: ir.Node, weight: FoldableParameter, bias: FoldableParameter | None, rank: int, axis: int
    ) -> RepairSite | None:
        """A linear layer whose channels lie on `axis` of its `rank` axes, with what follows it."""
        value = node.outputs[0]
        if bias is None and (added := self.added(value, self.channels(weight), rank, axis)) is not None:
            bias, value = added
        if self.normalized(value):
            return None
        if bias is None:
            raise Unrepairable("it has no bias")
        return RepairSite(_name(value), axis, weight, bias)

    def channels(self, weight: FoldableParameter) -> int:
        """How many channels a weight makes."""
        return self.shape(weight.name)[weight.axis] * weight.groups

    def added(
        self, value: ir.Value, channels: int, rank: int, axis: int
    ) -> tuple[FoldableParameter, ir.Value] | None:
        """The constant per channel that is added to a value, and the sum."""
        reader = sole_reader(value)
        if reader is None or not is_standard(reader, "Add") or "broadcast" in reader.attributes:
            return None
        other = next((v for v in reader.inputs if v is not value), None)
        if other is None or self.model.key(other) is None:
            return None
        name = self.own(other, "bias")
        assert name is not None
        shape = self.shape(name)
        place = axis % rank - rank + len(shape)
        if place < 0 or shape[place] != channels or np.prod(shape) != channels:
            return None
        return FoldableParameter(name, place), reader.outputs[0]


@REPAIR_RULES.register("Conv")
def convolution(graph: _SiteFinder, node: ir.Node) -> RepairSite | None:
    """X[N, C, *S], W[M, C/g, *K], B[M] -> Y[N, M, *S]."""
    return _convolution(graph, node, axis=0)


@REPAIR_RULES.register("ConvTranspose")
def transposed_convolution(graph: _SiteFinder, node: ir.Node) -> RepairSite | None:
    """X[N, C, *S], W[C, M/g, *K], B[M] -> Y[N, M, *S]."""
    return _convolution(graph, node, axis=1, groups=attribute(node, "group", 1))


def _convolution(graph: _SiteFinder, node: ir.Node, axis: int, groups: int = 1) -> RepairSite | None:
    weight = graph.weight(node.inputs[1], axis)
    if weight is None:
        raise Unrepairable("its weight is computed")
    if groups > 1 and weight.axis != axis:
        raise Unrepairable("its weight is computed")
    bias = graph.own(given(node, 2), "bias")
    if given(node, 2) is not None and bias is None:
        raise Unrepairable("its bias is computed")
    rank = len(graph.shape(weight.name))
    fold = FoldableParameter(bias, 0) if bias is not None else None
    return graph.layer(node, FoldableParameter(weight.name, weight.axis, groups), fold, rank, 1)


@REPAIR_RULES.register("Gemm")
def gemm(graph: _SiteFinder, node: ir.Node) -> RepairSite | None:
    """A[M, K], B[K, N], C[N] -> α A B + β C, [M, N]."""
    weight = graph.weight(node.inputs[1], 0 if attribute(node, "transB", 0) else 1)
    if weight is None:
        raise Unrepairable("its weight is computed")
    bias, channels = graph.own(given(node, 2), "bias"), graph.channels(weight)
    beta = float(attribute(node, "beta", 1.0))
    fold = None
    if given(node, 2) is not None:
        shape = graph.shape(bias) if bias is not None else ()
        if bias is None or beta == 0 or not shape or not shape[-1] == np.prod(shape) == channels:
            raise Unrepairable("its bias is not one number per channel")
        fold = FoldableParameter(bias, len(shape) - 1, unit=beta)
    return graph.layer(node, weight, fold, 2, 1)


@REPAIR_RULES.register("MatMul")
def matmul(graph: _SiteFinder, node: ir.Node) -> RepairSite | None:
    """X[…, K] @ W[K, N] -> […, N]; what multiplies two computed values is no layer."""
    x, w = node.inputs
    if x is not None and graph.model.key(x) is not None:
        raise Unrepairable("its weight stands on the left")
    weight = graph.weight(w, 1)
    if weight is None:
        return None
    if len(graph.shape(weight.name)) != 2:
        raise Unrepairable("its weight is no matrix")
    return graph.layer(node, weight, None, 2, -1)


@REPAIR_RULES.register("BatchNormalization")
def batch_normalization(graph: _SiteFinder, node: ir.Node) -> RepairSite | None:
    """X[N, C, *S], scale[C], bias[C], mean[C], variance[C] -> Y[N, C, *S]."""
    if not graph.infers(node):
        raise Unrepairable("it is in training mode, or normalizes each position by itself")
    scale, bias = graph.own(node.inputs[1], "scale"), graph.own(node.inputs[2], "bias")
    if scale is None or bias is None:
        raise Unrepairable("its scale or bias is computed")
    return RepairSite(_name(node.outputs[0]), 1, FoldableParameter(scale, 0), FoldableParameter(bias, 0))


def sole_reader(value: ir.Value) -> ir.Node | None:
    """The node that alone reads a value; None if the value is an output, or there are more or none."""
    readers = [node for node, _ in value.uses()]
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None


def _name(value: ir.Value | None) -> str:
    assert value is not None
    assert value.name is not None
    return value.name
