"""The sketch: a few kilobytes that are nearly the same for nearly the same models, whatever their size.

A fingerprint cannot see through a rescaling by other factors than powers of two, which rounds, nor through
further training. A sketch can: it holds sizes that no permutation, scale or sign changes, to be held against
those of many other models without reading any weights again. Per parameter, in the order of use and with
every unit scaled to norm 1 (`unit`, Pittorino et al. 2022):

- of the magnitudes of its entries: root mean square, median, a high quantile, the largest;
- unless it is a vector, of the root mean squares of its slices along each of the first two axes: the
  smallest, the median, the largest. They are zeros where positions move differently in different contexts,
  so that no slice stays together.

Extremes differ most between trainings from other seeds, where quantiles of many entries hardly do. Models of
many parameters have rows of several consecutive parameters of one kind, their sizes averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxcanon.arrays import Ids
from onnxcanon.canonical.choose_scales import choose_scale
from onnxcanon.canonical.digest import constant_uses
from onnxcanon.canonical.fingerprint import fingerprint
from onnxcanon.errors import OnnxcanonError
from onnxcanon.graph.element_types import INDEX_TYPES
from onnxcanon.model import Model
from onnxcanon.results import Brief
from onnxcanon.settings import DEFAULTS, Settings
from onnxcanon.symmetry import Symmetry, symmetry

SKETCH_FORMAT = "onnxcanon-sketch-1"

MOST_ROWS = 64
"""The most rows a sketch has: half for vectors, half for all others."""

DIGITS = 6
"""Significant digits of a size: about as many as the rounding of a rescaled model leaves alone."""

FLOOR = 1e-3
"""Sizes below this share of their row's largest are next to nothing, and so is a difference between two."""

ENTRY_QUANTILES = (0.5, 0.9, 1.0)
SLICE_QUANTILES = (0.0, 0.5, 1.0)
SLICED_AXES = 2

Magnitudes = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SketchRow:
    """One parameter, or several: the number of entries and their sizes."""

    entries: int
    sizes: tuple[float, ...]

    @property
    def kind(self) -> tuple[int, int]:
        """What rows of two sketches have in common if they are to be compared."""
        return self.entries, len(self.sizes)

    def distance(self, other: SketchRow) -> float:
        """The root mean square of the relative differences of the sizes, in [0, 1]."""
        ours, theirs = np.array(self.sizes), np.array(other.sizes)
        larger = np.maximum(ours, theirs)
        level = np.maximum(larger, FLOOR * larger.max(initial=0.0))
        apart = np.divide(np.abs(ours - theirs), level, out=np.zeros_like(level), where=level > 0)
        present = max(int((larger > 0).sum()), 1)
        return sqrt(float((apart**2).sum()) / present)


@dataclass(frozen=True, slots=True, repr=False)
class Sketch(Brief):
    """Sizes that identify a model up to permutations, scales, signs and small changes.

    Attributes:
        structure: the digest of its graph alone.
        rows: its parameters in the order of use.
    """

    structure: str
    rows: tuple[SketchRow, ...]

    def distance(self, other: Sketch) -> float:
        """How unlike two models are, in [0, 1].

        About 0 for equivalent models; less than a hundredth for a few changed weights; some hundredths
        for a copy trained further; a tenth and more for trainings from different seeds. It is 1
        where parameters of one have no counterparts in the other. Graphs are not compared: see `structure`.
        """
        if [row.kind for row in self.rows] != [row.kind for row in other.rows]:
            return 1.0
        if not self.rows:
            return float(self.structure != other.structure)
        squares = [ours.distance(theirs) ** 2 for ours, theirs in zip(self.rows, other.rows, strict=True)]
        return sqrt(sum(squares) / len(squares))

    def to_json(self) -> dict[str, Any]:
        """The sketch as JSON values; a row is its number of entries, then its sizes."""
        rows = [[row.entries, *row.sizes] for row in self.rows]
        return {"format": SKETCH_FORMAT, "structure": self.structure, "rows": rows}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Sketch:
        """The sketch that `to_json` wrote.

        Raises:
            OnnxcanonError: it is not such a document.
        """
        if (version := document.get("format")) != SKETCH_FORMAT:
            raise OnnxcanonError(f"not a sketch: its format is {version!r}, not {SKETCH_FORMAT!r}")
        try:
            rows = tuple(SketchRow(int(n), tuple(map(float, sizes))) for n, *sizes in document["rows"])
            return cls(str(document["structure"]), rows)
        except (KeyError, TypeError, ValueError) as error:
            raise OnnxcanonError(f"not a sketch: {type(error).__name__}: {error}") from error


def sketch(model: Model, settings: Settings = DEFAULTS) -> Sketch:
    """The sketch of a model.

    Args:
        model: any loaded model; its weights are read parameter by parameter.
        settings: the sizes of dynamic dimensions.
    """
    group = symmetry(model, settings.sizes)
    rows = [_row(group.classes.get(name, {}), array) for name, array in _unit(model, group)]
    return Sketch(fingerprint(model, "structure")[0], tuple(_merged(rows)))


def _unit(model: Model, group: Symmetry) -> Iterator[tuple[str, Magnitudes]]:
    """The magnitudes of every parameter that holds numbers, scaled so that units have norm 1."""
    exponents, _ = choose_scale(model, group, "unit")
    scaled = group.action(None, exponents).actions
    for name in _names(model, group):
        shape, dtype = model.tensor_info(group.stacks.get(name, (name,))[0])
        if dtype in INDEX_TYPES or prod(shape) < 2:
            continue
        with np.errstate(over="ignore"):
            array = group.read(model, name).astype(np.float32)
            for factor in scaled[name].factor.values() if name in scaled else ():
                array *= factor.astype(np.float32)
        np.abs(array, out=array)
        np.nan_to_num(array, copy=False, posinf=0.0)
        yield name, array


def _names(model: Model, group: Symmetry) -> list[str]:
    """The parameters and stacks of the group, then constants that it knows nothing of, as they are read."""
    analyzed = {member for name in group.classes for member in group.stacks.get(name, (name,))}
    read = dict.fromkeys(name for use in constant_uses(model) for name in use.constants if name)
    return [*group.classes, *(name for name in read if name not in analyzed)]


def _row(classes: Mapping[int, Ids], array: Magnitudes) -> SketchRow:
    """The sizes of one parameter, whose entries lose their order."""
    shape, squares = array.shape, np.square(array)
    sizes = [sqrt(squares.mean(dtype=np.float64))]
    for axis in range(SLICED_AXES if len(shape) > 1 else 0):
        if axis in classes and classes[axis].size != shape[axis]:
            sizes += [0.0] * len(SLICE_QUANTILES)  # its positions move differently in different contexts
            continue
        rest = tuple(k for k in range(len(shape)) if k != axis)
        sizes += _quantiles(np.sqrt(squares.mean(rest, dtype=np.float64)), SLICE_QUANTILES)
    del squares
    return SketchRow(array.size, (*sizes, *_quantiles(array.reshape(-1), ENTRY_QUANTILES)))


def _quantiles(values: NDArray[Any], shares: Sequence[float]) -> list[float]:
    """Order statistics of values, which lose their order; no order of summation can change them."""
    places = [round(share * (values.size - 1)) for share in shares]
    values.partition(places)
    return [float(x) for x in values[places]]


def _merged(rows: Sequence[SketchRow]) -> Iterator[SketchRow]:
    """At most `MOST_ROWS` rows, those of vectors last."""
    for length in sorted({len(row.sizes) for row in rows}, reverse=True):
        kind = [row for row in rows if len(row.sizes) == length]
        for chunk in np.array_split(np.arange(len(kind)), min(len(kind), MOST_ROWS // 2)):
            members = [kind[k] for k in chunk]
            mean = np.mean([row.sizes for row in members], 0)
            sizes = tuple(float(f"{size:.{DIGITS}g}") for size in mean)
            yield SketchRow(sum(row.entries for row in members), sizes)
