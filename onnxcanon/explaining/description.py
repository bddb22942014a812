"""From the symmetry of a model to its analysis: what was found, told in terms of the model's parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import lgamma, log

import numpy as np
from numpy.typing import NDArray

from onnxcanon.explaining.analysis import (
    Analysis,
    DataConstant,
    Dimension,
    DimensionUse,
    FixedAxis,
    Scale,
    SharedParameter,
)
from onnxcanon.explaining.counting import count_rescalings
from onnxcanon.explaining.dead_positions import dead_positions
from onnxcanon.explaining.dimensions import DimensionDraft, find_dimensions
from onnxcanon.explaining.explainer import Explainer
from onnxcanon.graph.nodes import node_name
from onnxcanon.model import Model
from onnxcanon.symmetry import Symmetry
from onnxcanon.weights import weight_count

VALUES_LISTED = 8
"""So many of the activations that carry a dimension are named."""


def describe(model: Model, symmetry: Symmetry) -> Analysis:
    """The analysis of a model whose symmetry is known."""
    counts = count_rescalings(symmetry)
    drafts, moving = find_dimensions(symmetry, counts)
    names = {id(draft): f"d{k}" for k, draft in enumerate(drafts)}
    dimensions = tuple(_dimension(draft, names, symmetry.stacks) for draft in drafts)
    moved = dict.fromkeys(site.initializer for d in dimensions if d.permute for site in d.sites)
    types = {name: model.tensor_info(name)[1] for name in moved}
    dead = dead_positions(symmetry)
    return Analysis(
        model=model.name,
        parameters=weight_count(model),
        log10_orbit=_log10_order(drafts),
        scale_freedoms=counts.scales,
        sign_freedoms=counts.signs,
        dimensions=dimensions,
        fixed=_fixed(model, symmetry, moving),
        unsupported=tuple(symmetry.trace.unsupported),
        overridable=tuple(symmetry.trace.fixed_constants),
        data=tuple(DataConstant(name, kind) for name, kind in symmetry.trace.data_constants.items()),
        shared=_shared(symmetry),
        half=tuple(name for name, t in types.items() if t.is_floating_point() and t.bitwidth <= 16),
        quantized=tuple(name for name, t in types.items() if not t.is_floating_point()),
        dead=_dead(symmetry),
        dead_positions=_sites(dead, symmetry.stacks),
        defects=tuple(symmetry.solution.failures),
    )


def _fixed(model: Model, symmetry: Symmetry, moving: NDArray[np.bool_]) -> tuple[FixedAxis, ...]:
    """The axes of which no position moves; `moving` bool [classes]."""
    explainer = Explainer(symmetry)
    fixed: list[FixedAxis] = []
    for name, parameter in symmetry.trace.parameters.items():
        members = symmetry.stacks.get(name, ())
        free = moving & ~symmetry.branch_bound if members else moving
        for axis, size in enumerate(parameter.shape):
            classes = symmetry.classes[name].get(axis)
            if size > 1 and (classes is None or not free[classes].any()) and not (members and axis == 0):
                why = explainer.explain(name, axis)
                places = [(m, axis - 1) for m in members] or [(name, axis)]
                fixed += [FixedAxis(n, a, size, why.text, why.chain) for n, a in places]
    data = {name: f"data: {kind}" for name, kind in symmetry.trace.data_constants.items()}
    for name, reason in (symmetry.trace.fixed_constants | data).items():
        shape, _ = model.tensor_info(name)
        fixed += [
            FixedAxis(name, axis, size, reason, (reason,)) for axis, size in enumerate(shape) if size > 1
        ]
    return tuple(fixed)


def _log10_order(drafts: Iterable[DimensionDraft]) -> float:
    """log10 of how many permutations of parameters there are: orbits that touch none do not count."""
    return sum((d.copies * lgamma(d.size + 1) / log(10) for d in drafts if d.permute), 0.0)


def _dimension(
    draft: DimensionDraft, names: Mapping[int, str], stacks: Mapping[str, tuple[str, ...]]
) -> Dimension:
    scale: Scale = "positive" if draft.scale else "sign" if draft.sign else "none"
    return Dimension(
        id=names[id(draft)],
        size=draft.size,
        permute=draft.permute,
        scale=scale,
        sign=draft.sign,
        within=names[id(draft.outer)] if draft.outer else None,
        copies=draft.copies,
        sites=_sites(draft.sites, stacks),
        values=tuple(draft.values[:VALUES_LISTED]),
    )


def _sites(
    positions: Mapping[tuple[str, int], int], stacks: Mapping[str, tuple[str, ...]]
) -> tuple[DimensionUse, ...]:
    """Where something appears; an axis of stacked parameters is one of each, their common one none."""
    out: list[DimensionUse] = []
    for (name, axis), n in positions.items():
        if name not in stacks:
            out.append(DimensionUse(name, axis, n))
        elif axis == 0:
            out += [DimensionUse(member, None, 1) for member in stacks[name]]
        elif (name, 0) not in positions:  # what moves with a branch needs no telling
            out += [DimensionUse(member, axis - 1, n) for member in stacks[name]]
    return tuple(out)


def _shared(symmetry: Symmetry) -> tuple[SharedParameter, ...]:
    """The labelled parameters that more than one node reads."""
    names = symmetry.trace.names
    readers: dict[str, dict[str, None]] = {}
    for node in symmetry.trace.nodes:
        for value in node.inputs:
            if value is not None and value in names:
                readers.setdefault(names[value], {})[node_name(node)] = None
    labelled = {
        member
        for name, parameter in symmetry.trace.parameters.items()
        if any(ids is not None for ids in parameter.ids)
        for member in symmetry.stacks.get(name, (name,))
    }
    return tuple(SharedParameter(n, tuple(r)) for n, r in readers.items() if n in labelled and len(r) > 1)


def _dead(symmetry: Symmetry) -> tuple[str, ...]:
    values = symmetry.trace.graph.initializers.values()
    return tuple(v.name or "" for v in values if not v.uses() and not v.is_graph_output())
