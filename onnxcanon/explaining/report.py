"""The analysis of a model as a person reads it: hidden dimensions, what they may do, what is fixed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import lgamma, log, prod
from typing import TYPE_CHECKING, Any, Literal

from onnxcanon.graph.traits import Trait, has
from onnxcanon.results import Result
from onnxcanon.text import (
    counted,
    short,
    some,
    table,
    told_chain,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from onnxcanon.explaining.dimensions import Found
    from onnxcanon.model import Model
    from onnxcanon.symmetry import Symmetry

Scale = Literal["positive", "sign", "none"]

SITES_SHOWN = 2
VALUES_KEPT = 8
BARRIERS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class DimensionUse:
    """An axis of a parameter where a dimension appears, and at how many of its positions; without an axis the
    parameter as a whole, which changes places with others of its shape."""

    initializer: str
    axis: int | None
    positions: int

    @property
    def place(self) -> str:
        """The axis as people write it behind the name."""
        return "" if self.axis is None else f"[{self.axis}]"


@dataclass(frozen=True, slots=True)
class Dimension:
    """A hidden dimension: positions that may change places, scale or sign without changing the function.

    Attributes:
        id: d0, d1, … in the order of the graph, a nested dimension after the one it is nested in.
        size: how many positions; they may be single units or whole blocks, as heads are.
        permute: whether they may change places.
        scale: positive where they may be rescaled, sign where they may only be flipped, else none.
        sign: whether they may be flipped.
        within: the id of the dimension this one is nested in, or None.
        copies: how often a nested dimension occurs, each on its own: once in every outer block.
        sites: where it appears.
        values: some of the activations that carry it.
    """

    id: str
    size: int
    permute: bool
    scale: Scale
    sign: bool
    within: str | None
    copies: int
    sites: tuple[DimensionUse, ...]
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FixedAxis:
    """An axis of a parameter whose positions may not change places, and why.

    Attributes:
        value: the parameter.
        axis: which of its axes.
        size: how many positions.
        reason: why they stay, in a sentence.
        chain: the nodes that lead from the axis to what holds it; the cause in words comes last.
    """

    value: str
    axis: int
    size: int
    reason: str
    chain: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Barrier:
    """A node that the analyzer does not see through: everything it touches is fixed."""

    node: str
    operator: str
    reason: str


@dataclass(frozen=True, slots=True)
class DataConstant:
    """A constant that is data by its use, not a weight, and what kind of data."""

    initializer: str
    kind: str


@dataclass(frozen=True, slots=True)
class Shared:
    """A parameter that several nodes read: what moves in it moves for all of them."""

    initializer: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Analysis(Result):
    """What may change in a model without changing its function. `print` shows a table.

    Attributes:
        model: what the model is called.
        parameters: number of weights.
        log10_orbit: log10 of the number of distinct permutations.
        log10_group_order: log10 of the order of the permutation group.
        scale_freedoms: number of independent scale factors.
        sign_freedoms: number of independent signs that are not the sign of a scale factor.
        dimensions: the hidden dimensions.
        fixed: the axes without permutation, with reasons.
        barriers: nodes that are not seen through.
        overridable: constants that are also graph inputs and so the caller's to set; they are fixed.
        data: constants that are not weights; they are fixed.
        shared: parameters that several nodes read.
        half: parameters in half precision, which move but are not rescaled.
        quantized: parameters stored as integers, which move but are not rescaled.
        dead: constants that no node reads which leads to an output.
        dead_positions: how many positions of an axis reach no output.
        defects: parts of the group that failed a check of ours and are held; each is a bug to report.
    """

    model: str
    parameters: int
    log10_orbit: float
    log10_group_order: float
    scale_freedoms: int
    sign_freedoms: int
    dimensions: tuple[Dimension, ...]
    fixed: tuple[FixedAxis, ...]
    barriers: tuple[Barrier, ...]
    overridable: tuple[str, ...]
    data: tuple[DataConstant, ...]
    shared: tuple[Shared, ...]
    half: tuple[str, ...]
    quantized: tuple[str, ...]
    dead: tuple[str, ...]
    dead_positions: tuple[DimensionUse, ...]
    defects: tuple[str, ...]

    @property
    def trivial(self) -> bool:
        """Whether nothing may change."""
        return not self.dimensions and not self.scale_freedoms and not self.sign_freedoms

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON values."""
        lists: dict[str, Any] = _plain(asdict(self))
        return lists

    def __str__(self) -> str:
        return self.to_text()

    def to_text(self, *, why: bool = False) -> str:
        """The table of dimensions and a summary; with `why` also each fixed axis and its reason."""
        blocks = [f"{self.model}: {self.parameters:,} parameters"]
        if self.dimensions:
            blocks.append(_dimension_table(self.dimensions))
        blocks.append(self._summary())
        if why:
            blocks.append(_fixed_table(self.fixed) if self.fixed else "no axis is fixed")
        blocks += [self._remarks(), self._details() if why else ""]
        return "\n\n".join(block for block in blocks if block)

    def why_trivial(self) -> str:
        """Why nothing may change, in a sentence."""
        if self.barriers and not self.overridable:
            first = self.barriers[0]
            return f"{first.node} ({first.operator}) is not seen through: {first.reason}"
        if self.overridable:
            return "its constants are graph inputs, which the caller may override"
        if not self.fixed:
            return "it has no parameters with an axis to permute or scale"
        reasons = [axis.reason for axis in self.fixed]
        return f"every axis is fixed, most often by this: {max(reasons, key=reasons.count)}"

    def _summary(self) -> str:
        if self.trivial:
            return f"nothing may change: {self.why_trivial()}"
        parts = [f"10^{self.log10_group_order:.1f} permutations"] if self.log10_group_order else []
        if self.scale_freedoms:
            parts.append(counted(self.scale_freedoms, "scale factor"))
        if self.sign_freedoms:
            parts.append(counted(self.sign_freedoms, "further sign" if self.scale_freedoms else "sign"))
        hidden = counted(len(self.dimensions), "hidden dimension")
        fixed = f"; {counted(len(self.fixed), 'axis', 'axes')} fixed" if self.fixed else ""
        return f"{hidden}: {', '.join(parts)} keep the function{fixed}"

    def _remarks(self) -> str:
        lines = _obstacles(self.barriers)
        if self.overridable:
            lines.append(
                f"the caller may override, so they stay as they are: {some(self.overridable)};"
                " --allow-overridable frees them"
            )
        if self.data:
            names = some([d.initializer for d in self.data])
            lines.append(f"data constants, fixed: {names}; --permute-constants frees them")
        if self.half:
            lines.append(f"half precision, permutes but is not rescaled: {some(self.half)}")
        if self.quantized:
            lines.append(f"quantized, permutes but is not rescaled: {some(self.quantized)}")
        if self.dead:
            lines.append(f"read by no node that leads to an output: {some(self.dead)}")
        lines += [f"defect, please report this model: {defect}" for defect in self.defects]
        return "\n".join(lines)

    def _details(self) -> str:
        lines = [f"read by {len(s.nodes)} nodes alike: {short(s.initializer)}" for s in self.shared]
        lines += [
            f"dead, for it reaches no output: {s.positions} of {short(s.initializer)}{s.place}"
            for s in self.dead_positions
        ]
        return "\n".join(lines)


def build(model: Model, symmetry: Symmetry) -> Analysis:
    """The report on a model whose symmetry is known."""
    from onnxcanon.explaining.counting import count_freedoms
    from onnxcanon.explaining.dead_positions import dead_positions
    from onnxcanon.explaining.dimensions import find_dimensions

    freedoms = count_freedoms(symmetry)
    found, moving = find_dimensions(symmetry, freedoms)
    names = {id(d): f"d{k}" for k, d in enumerate(found)}
    orders = _log10_order(found)
    dimensions = tuple(_dimension(d, names, symmetry.stacks) for d in found)
    moved = dict.fromkeys(site.initializer for d in dimensions if d.permute for site in d.sites)
    types = {name: model.tensor_info(name)[1] for name in moved}
    dead = dead_positions(symmetry)
    return Analysis(
        model=model.name,
        parameters=weights(model),
        log10_orbit=orders,
        log10_group_order=orders,
        scale_freedoms=freedoms.scale,
        sign_freedoms=freedoms.sign,
        dimensions=dimensions,
        fixed=_fixed(model, symmetry, moving),
        barriers=tuple(Barrier(b.node, b.operator, b.reason) for b in symmetry.trace.unsupported),
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
    from onnxcanon.explaining.reasons import Reasons

    reasons = Reasons(symmetry)
    fixed: list[FixedAxis] = []
    for name, parameter in symmetry.trace.parameters.items():
        members = symmetry.stacks.get(name, ())
        free = moving & ~symmetry.carried if members else moving
        for axis, size in enumerate(parameter.shape):
            classes = symmetry.classes[name].get(axis)
            if size > 1 and (classes is None or not free[classes].any()) and not (members and axis == 0):
                told = reasons.told(name, axis)
                places = [(m, axis - 1) for m in members] or [(name, axis)]
                fixed += [FixedAxis(n, a, size, told.text, told.chain) for n, a in places]
    kept = symmetry.trace.fixed_constants | {
        name: f"data: {kind}" for name, kind in symmetry.trace.data_constants.items()
    }
    for name, reason in kept.items():
        shape, _ = model.tensor_info(name)
        fixed += [
            FixedAxis(name, axis, size, reason, (reason,)) for axis, size in enumerate(shape) if size > 1
        ]
    return tuple(fixed)


def analyze(
    model: Model,
    *,
    sizes: Mapping[str, int] | None = None,
    permute_constants: bool = False,
    allow_overridable: bool = False,
) -> Analysis:
    """Find what may change in a model without changing its function.

    Args:
        model: the model; its weights are not read.
        sizes: sizes of dynamic dimensions by name, where the graph works only for some.
        permute_constants: whether constants that are data (masks, tables, frequencies) may move like weights.
        allow_overridable: whether constants that are graph inputs too, so the caller's, may.
    """
    from onnxcanon.symmetry import symmetry

    known = dict(sizes) if sizes else None
    options = {"permute_constants": permute_constants, "allow_overridable": allow_overridable}
    return build(model, symmetry(model, known, **options))


def _log10_order(found: Iterable[Found]) -> float:
    """log10 of how many permutations of parameters there are: orbits that touch none do not count."""
    return sum((d.copies * lgamma(d.size + 1) / log(10) for d in found if d.permute), 0.0)


def _dimension(found: Found, names: Mapping[int, str], stacks: Mapping[str, tuple[str, ...]]) -> Dimension:
    scale: Scale = "positive" if found.scale else "sign" if found.sign else "none"
    return Dimension(
        id=names[id(found)],
        size=found.size,
        permute=found.permute,
        scale=scale,
        sign=found.sign,
        within=names[id(found.outer)] if found.outer else None,
        copies=found.copies,
        sites=_sites(found.sites, stacks),
        values=tuple(found.values[:VALUES_KEPT]),
    )


def _sites(
    found: Mapping[tuple[str, int], int], stacks: Mapping[str, tuple[str, ...]]
) -> tuple[DimensionUse, ...]:
    """Where something appears; an axis of stacked parameters is one of each, their common one none."""
    out: list[DimensionUse] = []
    for (name, axis), n in found.items():
        if name not in stacks:
            out.append(DimensionUse(name, axis, n))
        elif axis == 0:
            out += [DimensionUse(member, None, 1) for member in stacks[name]]
        elif (name, 0) not in found:  # what moves with a branch needs no telling
            out += [DimensionUse(member, axis - 1, n) for member in stacks[name]]
    return tuple(out)


def weights(model: Model) -> int:
    """Entries of all constants that are numbers, no indices. A single number counts where a layer reads it:
    most are settings that an exporter wrote down as constants."""
    return sum(prod(model.tensor_info(name)[0]) for name in weight_names(model))


def weight_names(model: Model) -> list[str]:
    """The constants whose entries count as weights."""
    from onnxcanon.graph.element_types import INDEX_TYPES

    values = model.ir.graph.initializers
    found = []
    for name in model.tensor_names():
        shape, dtype = model.tensor_info(name)
        single = prod(shape) == 1 and not (
            shape and name in values and any(has(node, Trait.LAYER) for node, _ in values[name].uses())
        )
        if dtype not in INDEX_TYPES and not single:
            found.append(name)
    return found


def _shared(symmetry: Symmetry) -> tuple[Shared, ...]:
    """The labelled parameters that more than one node reads."""
    from onnxcanon.graph.nodes import node_name

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
    return tuple(Shared(n, tuple(r)) for n, r in readers.items() if n in labelled and len(r) > 1)


def _dead(symmetry: Symmetry) -> tuple[str, ...]:
    values = symmetry.trace.graph.initializers.values()
    return tuple(v.name or "" for v in values if not v.uses() and not v.is_graph_output())


# -- text -------------------------------------------------------------------------------------------


def _dimension_table(dimensions: Sequence[Dimension]) -> str:
    sizes = {d.id: d.size for d in dimensions}
    rows = [("id", "size", "may", "in", "appears at")]
    for d in dimensions:
        where = [f"{short(s.initializer)}{s.place}" for s in d.sites[:SITES_SHOWN]]
        if len(d.sites) > SITES_SHOWN:
            where.append(f"+{len(d.sites) - SITES_SHOWN} more")
        nested = "" if d.within is None else f"{d.within} ({sizes[d.within]} ×)"
        rows.append((d.id, str(d.size), _abilities(d), nested, ", ".join(where)))
    return table(rows, right={1})


def _abilities(dimension: Dimension) -> str:
    able = {"permute": dimension.permute, "scale": dimension.scale == "positive", "flip": dimension.sign}
    return " ".join(word for word, yes in able.items() if yes)


def _obstacles(barriers: Iterable[Barrier]) -> list[str]:
    """A line per node that is not seen through, or one for many that are alike."""
    alike: dict[tuple[str, str], list[str]] = {}
    for b in barriers:
        alike.setdefault((b.operator, b.reason), []).append(b.node)
    lines = []
    for (operator, reason), nodes in alike.items():
        if len(nodes) > BARRIERS_SHOWN:
            nodes = [f"{nodes[0]} and {len(nodes) - 1} more"]
        lines += [f"not seen through: {node} ({operator}): {reason}" for node in nodes]
    return lines


def _fixed_table(fixed: Iterable[FixedAxis]) -> str:
    rows = [("fixed axis", "size", "because")]
    rows += [(f"{short(f.value)}[{f.axis}]", str(f.size), told_chain(f.chain)) for f in fixed]
    return table(rows, right={1})


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
