"""The analysis of a model: hidden dimensions, what they may do, what is fixed and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from onnxcanon.results import Result
from onnxcanon.tracing.interpreter import UnsupportedNode

Scale = Literal["positive", "sign", "none"]


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
class DataConstant:
    """A constant that is data by its use, not a weight, and what kind of data."""

    initializer: str
    kind: str


@dataclass(frozen=True, slots=True)
class SharedParameter:
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
        scale_freedoms: number of independent scale factors.
        sign_freedoms: number of independent signs that are not the sign of a scale factor.
        dimensions: the hidden dimensions.
        fixed: the axes without permutation, with reasons.
        unsupported: nodes that are not seen through; what they touch is fixed.
        overridable: constants that are also graph inputs and so the caller's to set; they are fixed.
        data: constants that are not weights; they are fixed.
        shared: parameters that several nodes read.
        half: parameters in half precision, which move but are not rescaled.
        quantized: parameters stored as integers, which move but are not rescaled.
        dead: constants that no node reads which leads to an output.
        dead_positions: how many positions of an axis reach no output.
        defects: parts of the group that failed a check of ours and stay fixed; each is a bug to report.
    """

    model: str
    parameters: int
    log10_orbit: float
    scale_freedoms: int
    sign_freedoms: int
    dimensions: tuple[Dimension, ...]
    fixed: tuple[FixedAxis, ...]
    unsupported: tuple[UnsupportedNode, ...]
    overridable: tuple[str, ...]
    data: tuple[DataConstant, ...]
    shared: tuple[SharedParameter, ...]
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
        document: dict[str, Any] = _plain(asdict(self))
        return document

    def __str__(self) -> str:
        return self.to_text()

    def to_text(self, *, why: bool = False) -> str:
        """The table of dimensions and a summary; with `why` also each fixed axis and its reason."""
        from onnxcanon.explaining.analysis_text import analysis_text

        return analysis_text(self, why=why)

    def why_trivial(self) -> str:
        """Why nothing may change, in a sentence."""
        if self.unsupported and not self.overridable:
            first = self.unsupported[0]
            return f"{first.node} ({first.operator}) is not seen through: {first.reason}"
        if self.overridable:
            return "its constants are graph inputs, which the caller may override"
        if not self.fixed:
            return "it has no parameters with an axis to permute or scale"
        reasons = [axis.reason for axis in self.fixed]
        return f"every axis is fixed, most often by this: {max(reasons, key=reasons.count)}"


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
