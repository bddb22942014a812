"""Repair: the statistics that averaging has shrunk, set anew on data.

Units of two networks that match correlate by ρ < 1, so their average has the standard deviation
√((1 + ρ)/2) of either, and this compounds from layer to layer.

- *rescale* is REPAIR (Jordan et al. 2023): per channel of each layer, mean and standard deviation of the
  average are set to the weighted means of those of the models it was made of, z -> (z - μ) σ*/σ + μ*, folded
  into the weights (`repair_sites`). The paper stops before the output layer. Its variance is lost like any
  other's and its means drift by class, so it is repaired as well.
- *reset-bn* measures the running mean and variance of every BatchNormalization anew.

Both go through the layers in the order of the graph, each measured with those before it repaired. Both leave
a single model as rescale finds it; reset-bn changes one whose data is not what it was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from onnxcanon.errors import OnnxcanonError
from onnxcanon.merging import repair_sites as places
from onnxcanon.merging.channel_statistics import ChannelStatistics, measure_channels
from onnxcanon.merging.repair_sites import FoldableParameter, RepairSite
from onnxcanon.model import Model
from onnxcanon.settings import Settings
from onnxcanon.text import some

NONE, RESCALE, RESET = "none", "rescale", "reset-bn"

CONSTANT_CHANNEL = 1e-6
"""A channel that deviates by less than this part of its size is constant but for rounding: only shifted."""


@dataclass(frozen=True, slots=True)
class RepairResult:
    """A repaired model.

    Attributes:
        model: the model.
        layers: how many layers were repaired.
        left: those that could not be, by name, with the reason.
    """

    model: Model
    layers: int
    left: Mapping[str, str]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left, in words: a line for each reason."""
        reasons: dict[str, list[str]] = {}
        for name, reason in self.left.items():
            reasons.setdefault(reason, []).append(name)
        return tuple(f"not repaired: {some(names)}: {reason}" for reason, names in reasons.items())


def reset_bn(model: Model, settings: Settings) -> RepairResult:
    """Set mean and variance of every BatchNormalization to those of the data: the population variance over
    examples and positions.

    Raises:
        OnnxcanonError: the model has none that can be reset, or the data does not fit.
    """
    found = places.norm_statistics(model)
    if not found.norms:
        why = f" that can be reset ({next(iter(found.left.values()))})" if found.left else ""
        raise OnnxcanonError(f"{model.name}: it has no BatchNormalization{why}; use --repair rescale")
    for k, norm in enumerate(found.norms, 1):
        settings.progress(f"measuring BatchNormalization {k} of {len(found.norms)}")
        moments = measure_channels(model, {norm.value: 1}, settings)[norm.value]
        new = {norm.mean: np.asarray(moments.mean), norm.variance: moments.variance}
        model = model.with_tensors({n: a.astype(model.tensor(n).dtype) for n, a in new.items()})
    return RepairResult(model, len(found.norms), found.left)


def rescale(
    model: Model,
    endpoints: Sequence[Model],
    shares: Sequence[float],
    settings: Settings,
) -> RepairResult:
    """Give the channels of an average the means and deviations of the models it was made of.

    Args:
        model: the average.
        endpoints: the models, in the basis of the average, with its graph.
        shares: what each contributes; they add up to 1.
        settings: the data, inputs by name, and how the models run.

    Raises:
        OnnxcanonError: no layer can be repaired, or the data does not fit.
    """
    return Rescaler(endpoints, settings)(model, shares)


class Rescaler:
    """`rescale` for any average of the same models, which are measured once.

    Raises:
        OnnxcanonError: no layer can be repaired, or the data does not fit.
    """

    def __init__(self, endpoints: Sequence[Model], settings: Settings) -> None:
        self.places = places.repair_sites(endpoints[0])
        if not self.places.sites:
            why = f": {next(iter(self.places.left.values()))}" if self.places.left else ""
            raise OnnxcanonError(f"{endpoints[0].name}: it has no layer that can be rescaled{why}")
        self.settings = settings
        values = {site.value: site.axis for site in self.places.sites}
        self.measured = []
        for k, endpoint in enumerate(endpoints, 1):
            settings.progress(f"measuring model {k} of {len(endpoints)}")
            self.measured.append(measure_channels(endpoint, values, settings))

    def __call__(self, model: Model, shares: Sequence[float]) -> RepairResult:
        """The average with these shares, repaired."""
        sites = self.places.sites
        for k, site in enumerate(sites, 1):
            self.settings.progress(f"rescaling layer {k} of {len(sites)}")
            each = [moments[site.value] for moments in self.measured]
            mean = np.sum([w * m.mean for w, m in zip(shares, each, strict=True)], 0)
            deviation = np.sum([w * m.deviation for w, m in zip(shares, each, strict=True)], 0)
            here = measure_channels(model, {site.value: site.axis}, self.settings)[site.value]
            model = _moved(model, site, here, mean, deviation)
        return RepairResult(model, len(sites), self.places.left)


def _moved(
    model: Model,
    site: RepairSite,
    now: ChannelStatistics,
    mean: NDArray[np.float64],
    deviation: NDArray[np.float64],
) -> Model:
    """The model with the channels of a site brought to the given means and deviations [channels]."""
    size = np.abs(now.mean) + now.deviation
    still = now.deviation <= CONSTANT_CHANNEL * size
    factor = np.where(still, 1.0, deviation / np.where(still, 1.0, now.deviation))
    shift = mean - factor * now.mean
    return model.with_tensors(
        {
            site.weight.name: partial(_folded, model, site.weight, factor, np.zeros_like(shift)),
            site.bias.name: partial(_folded, model, site.bias, factor, shift),
        }
    )


def _folded(
    model: Model, fold: FoldableParameter, factor: NDArray[np.float64], shift: NDArray[np.float64]
) -> NDArray[np.generic]:
    """A constant times a factor plus a shift, per channel."""
    array = model.tensor(fold.name)
    wide = array.astype(np.float64) * fold.spread(factor, array.shape)
    return (wide + fold.spread(shift / fold.unit, array.shape)).astype(array.dtype)
