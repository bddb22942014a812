"""What each option of a verb may be: read by the verbs, the command line and the documentation.

Imports nothing that takes time, so that `--help` may read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from a least one on, which an open range leaves out."""

    least: float
    open: bool = False


@dataclass(frozen=True, slots=True)
class Pattern:
    """Texts that match a regular expression; `words` says which these are."""

    expression: str
    words: str


Natural = Annotated[int, Range(0)]
Positive = Annotated[int, Range(1)]
TwoOrMore = Annotated[int, Range(2)]
NonNegative = Annotated[float, Range(0)]
AboveOne = Annotated[float, Range(1, open=True)]
Device = Annotated[str, Pattern(r"auto|cpu|cuda(:\d+)?", "auto, cpu, cuda, cuda:N")]
"""Where models run."""

Method = Literal["weights", "activations", "cosine", "functional", "annealing"]
"""How units are matched."""

AlignedScale = Literal["nearest", "norms"]
"""Which scales an aligned model gets: those of the smallest distance, or the norms of the reference."""

PathAligner = Literal[Method, "none"]
"""How a model is aligned to another before the path between them is followed."""

Aligner = Literal[Method, "canonical", "none"]
"""How models are aligned before they are averaged."""

Target = Literal["reference", "mean", "universe"]
"""What models are aligned to before they are averaged."""

Repair = Literal["none", "rescale", "reset-bn"]
"""How the statistics that averaging shrinks are set anew."""

PathKind = Literal["linear", "geodesic"]
"""The way from one model to another."""

Order = Literal["norm", "lexicographic", "nodesort", "none"]
"""How units that may change places are ordered in a canonical form."""

Scale = Literal["pow2", "balanced", "unit", "none"]
"""Which scales and signs a canonical form has."""

Level = Literal["canonical", "content", "structure", "file"]
"""What a fingerprint looks through."""

Change = Literal["permute", "scale", "sign"]
"""What a random equal model may differ by."""

METHODS: tuple[Method, ...] = get_args(Method)
ALIGNED_SCALES: tuple[AlignedScale, ...] = get_args(AlignedScale)
PATH_ALIGNERS: tuple[PathAligner, ...] = get_args(PathAligner)
ALIGNERS: tuple[Aligner, ...] = get_args(Aligner)
TARGETS: tuple[Target, ...] = get_args(Target)
REPAIRS: tuple[Repair, ...] = get_args(Repair)
PATH_KINDS: tuple[PathKind, ...] = get_args(PathKind)
ORDERS: tuple[Order, ...] = get_args(Order)
SCALES: tuple[Scale, ...] = get_args(Scale)
LEVELS: tuple[Level, ...] = get_args(Level)
CHANGES: tuple[Change, ...] = get_args(Change)
