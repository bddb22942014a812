"""Activation matching: the exchange of units after which they correlate most, on data, with the reference's.

The objective is the sum of the correlations of units that stand in one place (Li et al. 2016; Ainsworth et
al. 2023, section 3.1, with correlations instead of inner products, so that no unit counts more for being
larger). It is taken of every value that is read: the units after their nonlinearity, a residual stream at
every place where it is read (`flow`). Positions, examples among them, are samples.

Statistics are written as parameters: the matrix of correlations in the reference's place, the unit matrix in
the model's, both with the labels of the value. Their inner product is the objective, moved as weights are,
so the search is that of weight matching, nested orbits included; and since no value meets two orbits, one
assignment per orbit ends it. Where signs are free, sizes of correlations are assigned and signs chosen
thereafter. The weights themselves are added, so small that they only decide where the data does not: between
units that are constant on it, and for orbits that no value shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.alignment.by_weights import by_weights
from onnxcanon.alignment.capture import Covariance, capture_values
from onnxcanon.alignment.flow import Flow, in_main_graph
from onnxcanon.alignment.frame import Frame
from onnxcanon.alignment.incidence import Rows, axis_groups
from onnxcanon.alignment.method import MethodResult, data_for
from onnxcanon.alignment.weight_matching import Matching
from onnxcanon.arrays import Floats, Ids
from onnxcanon.settings import Settings
from onnxcanon.solving.blocks import Blocks
from onnxcanon.solving.rescaling import unite_exponents
from onnxcanon.symmetry import Symmetry
from onnxcanon.tracing.abstract_value import Parameter, State

STILL = 1e-6
"""A unit that deviates by less than this part of its size is constant but for rounding."""

LITTLE = 1e-3
"""What all weights of a unit may add to its correlation, on average."""

NOTHING_SHOWN = "no intermediate value shows units that could be exchanged: they were matched by weights"


@dataclass(frozen=True, slots=True)
class ValueUnits:
    """Units that a value shows.

    Attributes:
        value: the name of the value.
        rows: the axes with the units; all others are samples.
        statistic: a parameter of shape [*units, units] with the labels of these axes.
        key: equal for values whose statistics are labelled alike.
    """

    value: str
    rows: Rows
    statistic: Parameter
    key: tuple[bytes, ...]

    def fits(self, array: NDArray[Any]) -> bool:
        """Whether the axes with the units are as long in the data as they were when the graph was traced."""
        return array.ndim == len(self.rows.shape) and all(
            array.shape[a] == self.rows.shape[a] for a in self.rows.axes
        )


def by_activations(frame: Frame, settings: Settings) -> MethodResult:
    """The element under which units correlate most with those of the reference, on data.

    Raises:
        OnnxcanonError: there is no data, or it does not fit.
        RuntimeUnavailableError: a model does not run.
    """
    data = data_for("activations", settings)
    values = _values_with_units(frame)
    if not values:
        return replace(by_weights(frame, settings), notes=(NOTHING_SHOWN,))
    covariances = {units.value: Covariance(units.rows.count) for units in values}
    batches = capture_values(frame.models, list(covariances), data, device=settings.device)
    for done, (ours, theirs) in enumerate(batches, 1):
        settings.progress(f"measuring activations, batch {done}")
        values = [units for units in values if units.fits(ours[units.value])]
        for units in values:
            covariances[units.value].add(*(units.rows.matrix(side[units.value]) for side in (ours, theirs)))
    summed: dict[tuple[bytes, ...], tuple[Parameter, Floats]] = {}
    for units in values:
        known, total = summed.get(units.key, (units.statistic, 0.0))
        summed[units.key] = known, total + covariances[units.value].correlation(STILL)
    statistics = list(summed.values())
    matching = _with_statistics(frame.matching(), statistics)

    def say(step: str) -> None:
        settings.progress(f"matching activations, {step}")

    matching.run(say)
    for statistic, total in statistics:
        matching.ours[statistic.name] = total.astype(np.float32).reshape(statistic.shape)
    hidden = {k for k, names in enumerate(matching.touched) if names <= frame.ours.classes.keys()}
    matching.from_signatures(set(range(len(matching.branches))) - hidden)
    matching.run(say)
    transform = matching.transform
    weights = {name: a for name, a in transform.actions.items() if name in frame.ours.classes}
    return MethodResult(replace(transform, actions=weights))


def _values_with_units(frame: Frame) -> list[ValueUnits]:
    """The values that show units, each of which one group of axes labels."""
    symmetry = frame.ours
    flow, blocks = Flow(symmetry), unite_exponents(symmetry.trace.constraints)
    numbers = np.random.default_rng(0).integers(1 << 62, size=symmetry.sign.count)
    flips = symmetry.sign.forms @ numbers  # equal for variables that change sign together
    values = dict.fromkeys(v for k in flow.order for v in flow.read(k))
    found = []
    for name in in_main_graph(symmetry, frame.reference.ir.graph, list(values)):
        units = _units_of_value(symmetry, blocks, flips, name)
        if units is not None:
            found.append(units)
    return found


def _units_of_value(symmetry: Symmetry, blocks: Blocks, flips: Ids, name: str) -> ValueUnits | None:
    """How a value shows units; None where units of different orbits label it, or signs act on samples."""
    value = symmetry.trace.values[name]
    ids = {
        a: _without_context(i, symmetry.solution.classes, a)
        for a, i in enumerate(value.ids)
        if not isinstance(i, State)
    }
    classes = {a: symmetry.solution.classes[i] for a, i in ids.items()}
    groups = [
        g for g in axis_groups(classes) if any(symmetry.moving[classes[a]].any() for a in g if a in ids)
    ]
    if len(groups) != 1:
        return None
    rows = Rows(name, groups[0], value.shape)
    statistic = Parameter(
        f"correlations of {name}", (*(value.shape[a] for a in rows.axes), rows.count), scalable=False
    )
    for axis, exponents in enumerate(value.exponents):
        if exponents is None:
            continue
        variables = _without_context(blocks.variables(exponents), flips, axis)
        if not flips[variables].any():
            continue
        if axis not in rows.axes or any(variables.shape[a] > 1 for a in rows.rest):
            return None
        statistic.exponents[rows.axes.index(axis)] = _for_statistic(rows, variables)
    for k, axis in enumerate(rows.axes):
        if axis in ids:
            statistic.ids[k] = _for_statistic(rows, ids[axis])
    meanings = [(symmetry.solution.classes, statistic.ids), (flips, statistic.exponents)]
    key = [b"" if a is None else meaning[a].tobytes() for meaning, arrays in meanings for a in arrays]
    return ValueUnits(name, rows, statistic, (repr(statistic.shape).encode(), *key))


def _without_context(labels: Ids, meaning: Ids, axis: int) -> Ids:
    """The labels of an axis without the context on which what they mean, `meaning[labels]`, does not
    depend."""
    for k in range(labels.ndim):
        if k != axis and labels.shape[k] > 1 and (meaning[labels] == meaning[labels.take([0], k)]).all():
            labels = labels.take([0], k)
    return labels


def _for_statistic(rows: Rows, labels: Ids) -> Ids:
    """Labels that depend on the axes of rows alone, for these axes and one of columns."""
    return labels.reshape([*(labels.shape[a] for a in rows.axes), 1])


def _with_statistics(matching: Matching, statistics: Sequence[tuple[Parameter, Floats]]) -> Matching:
    """A matching of statistics, and a little of the weights; where a unit's sign is free, the size of its
    correlation counts."""
    own = matching.symmetry
    parameters = {statistic.name: statistic for statistic, _ in statistics}
    exponents = {
        statistic.name: {a: d for a, d in enumerate(statistic.exponents) if d is not None}
        for statistic, _ in statistics
    }
    symmetry = Symmetry(
        own.model,
        replace(own.trace, parameters={**own.trace.parameters, **parameters}),
        replace(own.solution),
        own.scale,
        own.sign,
        exponents={**own.exponents, **exponents},
    )
    units = sum(len(total) for _, total in statistics)
    whole = sum(
        float(np.linalg.norm(a) * np.linalg.norm(matching.start[n])) for n, a in matching.ours.items()
    )
    factor = np.float32(np.sqrt(LITTLE * max(units, 1) / (whole or 1.0)))
    ours, theirs = ({n: a * factor for n, a in side.items()} for side in (matching.ours, matching.start))
    for statistic, total in statistics:
        size = np.abs(total) if exponents[statistic.name] else total
        ours[statistic.name] = size.astype(np.float32).reshape(statistic.shape)
        theirs[statistic.name] = np.eye(len(total), dtype=np.float32).reshape(statistic.shape)
    return Matching(symmetry, ours, theirs)
