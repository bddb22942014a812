"""Annealing of all models at once: exchanges of single units, judged by the loss of the average of all.

Among maps that bring the models equally near to their mean the loss of the average differs, the more so the
more models there are. So it goes on as annealing of a pair does (`alignment.by_annealing`, Entezari et al.
2022), with an exchange in any model but the first. An average that will be rescaled is judged as it will be:
the graph sets mean and deviation of every layer's channels to the targets, on the examples that it is given,

    z' = (z - μ) σ* / σ + μ*

which is what `repair.rescale` folds into the weights. The targets follow the units: they are inputs of the
graph, averaged anew whenever units change places, as the bias of their layer is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxcanon.alignment.annealing_state import CompanionTensor, MovingModel
from onnxcanon.alignment.by_annealing import anneal
from onnxcanon.alignment.frame import Frame
from onnxcanon.alignment.method import data_for
from onnxcanon.merging import repair_sites as places
from onnxcanon.merging.channel_statistics import ChannelStatistics, measure_channels
from onnxcanon.merging.repair import CONSTANT_CHANNEL
from onnxcanon.merging.repair_sites import RepairSite
from onnxcanon.model import Model
from onnxcanon.settings import Settings
from onnxcanon.symmetry import Symmetry
from onnxcanon.transform import Transform

BROADCASTS = 8
"""The operator set from which on elementwise operators broadcast."""


def anneal_jointly(
    models: Sequence[Model],
    shares: Sequence[float],
    settings: Settings,
    *,
    rescaled: bool = False,
) -> list[Transform]:
    """The exchanges after which the average has the lowest loss that was seen; none in the first model.

    Args:
        models: models that share the graph of the first, in its basis.
        shares: what each contributes; they add up to 1.
        settings: the data, sizes, seed and device.
        rescaled: whether the loss is that of the average after its layers were rescaled.

    Raises:
        OnnxcanonError: there is no data, or it does not fit.
        RuntimeUnavailableError: a model does not run.
    """
    data_for("annealing", settings)
    moving = [k for k in range(1, len(models)) if shares[k]]
    stay = [Transform({}, model.name) for model in models]
    if not moving:
        return stay
    frames = [Frame.of(models[0], models[k], settings.sizes) for k in moving]
    moving_models = [
        MovingModel(frame, frame.matching(), Transform({}, models[0].name), shares[k])
        for frame, k in zip(frames, moving, strict=True)
    ]
    repair = None
    if rescaled and models[0].opset() >= BROADCASTS:
        settings.progress("measuring the models")
        repair = GraphRescaling.of([models[k] for k in (0, *moving)], frames[0].ours, settings)
    for frame, k, found in zip(frames, moving, anneal(moving_models, settings, repair), strict=True):
        stay[k] = frame.element(found.element)
    return stay


@dataclass(frozen=True, slots=True)
class RescaledLayer:
    """A value that is rescaled: its site, its rank, and the mean and deviation that it is to have."""

    site: RepairSite
    rank: int
    mean: CompanionTensor
    deviation: CompanionTensor


@dataclass(frozen=True, slots=True)
class GraphRescaling:
    """The rescaling of an average within its graph."""

    layers: Sequence[RescaledLayer]

    @classmethod
    def of(cls, models: Sequence[Model], symmetry: Symmetry, settings: Settings) -> GraphRescaling:
        """That of the layers whose shapes are known, to what the models have on the data."""
        known = [s for s in places.repair_sites(models[0]).sites if s.value in symmetry.trace.values]
        axes = {site.value: site.axis for site in known}
        each = [measure_channels(model, axes, settings) for model in models] if axes else []
        ranks = {name: len(symmetry.trace.values[name].shape) for name in axes}
        return cls([_layer(site, ranks[site.value], models[0], each) for site in known])

    @property
    def companions(self) -> Sequence[CompanionTensor]:
        """The means and deviations, which move as the biases do."""
        return [companion for layer in self.layers for companion in (layer.mean, layer.deviation)]

    def insert_into(self, proto: onnx.ModelProto) -> None:
        """Rescale the layers where a graph computes them."""
        layers = {layer.site.value: layer for layer in self.layers}
        nodes = list(proto.graph.node)
        del proto.graph.node[:]
        for node in nodes:
            after = []
            for place, name in enumerate(node.output):
                if name in layers:
                    node.output[place] = f"{name}/raw"
                    after += _nodes(layers[name], proto)
            proto.graph.node.extend([node, *after])


def _layer(
    site: RepairSite, rank: int, reference: Model, each: Sequence[Mapping[str, ChannelStatistics]]
) -> RescaledLayer:
    """A site with the targets; these have the type of its bias and broadcast against its value."""
    kind = reference.tensor_info(site.bias.name)[1].numpy()
    shape = (-1, *[1] * (rank - 1 - site.axis % rank))
    found = [moments[site.value] for moments in each]
    means = [moments.mean.astype(kind).reshape(shape) for moments in found]
    deviations = [moments.deviation.astype(kind).reshape(shape) for moments in found]
    return RescaledLayer(
        site,
        rank,
        CompanionTensor(f"{site.value}/mean", site.bias.name, means),
        CompanionTensor(f"{site.value}/deviation", site.bias.name, deviations),
    )


def _nodes(layer: RescaledLayer, proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """What makes the rescaled value of the raw one."""
    value, kind = layer.site.value, layer.mean.each[0].dtype
    axes = [a for a in range(layer.rank) if a != layer.site.axis % layer.rank]
    version = max(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    constants = {"still": np.array(CONSTANT_CHANNEL, kind), "tiny": np.array(np.finfo(kind).tiny, kind)}
    if version >= 18:
        constants["axes"] = np.array(axes, np.int64)
    named = {key: f"{value}/{key}" for key in constants}
    proto.graph.initializer.extend(
        numpy_helper.from_array(array, named[key]) for key, array in constants.items()
    )

    def node(operator: str, inputs: Sequence[str], output: str) -> onnx.NodeProto:
        return helper.make_node(operator, inputs, [output])

    def mean(source: str, output: str) -> onnx.NodeProto:
        if version >= 18:
            return node("ReduceMean", [source, named["axes"]], output)
        return helper.make_node("ReduceMean", [source], [output], axes=axes)

    at, off, square, variance, floor, size, factor, spread = (
        f"{value}/{part}" for part in ("at", "off", "square", "variance", "floor", "size", "factor", "spread")
    )
    return [
        mean(f"{value}/raw", at),
        node("Sub", [f"{value}/raw", at], off),
        node("Mul", [off, off], square),
        mean(square, variance),
        node("Mul", [at, named["still"]], floor),
        node("Mul", [floor, floor], f"{floor} squared"),
        node("Sum", [variance, f"{floor} squared", named["tiny"]], f"{size} squared"),
        node("Sqrt", [f"{size} squared"], size),
        node("Div", [layer.deviation.name, size], factor),
        node("Mul", [off, factor], spread),
        node("Add", [spread, layer.mean.name], value),
    ]
