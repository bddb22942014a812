"""Which size each dynamic dimension gets in a probe.

A symbol is a named dimension, or an anonymous one by its place. What it stands for is guessed from its name
and place: batch, image side, channel, or other (a sequence, say). Sizes are small primes (times 32 for
images, which strided networks want), so that they are unlikely to equal or divide a dimension of the model.
No guess fits every model, so there are several plans; the driver takes the first under which nothing
contradicts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxcanon.arrays import Shape

Sizes = dict[str, int]

# What exporters write for a dimension they know nothing about: equal names do not mean equal sizes.
_ANONYMOUS = re.compile(r"\?|-1|none|unk|unknown|dynamic|dyn|", re.IGNORECASE)
_IMAGE = re.compile(r"height|width|image|^[hw]$", re.IGNORECASE)
_LENGTH = re.compile(r"seq|len|tokens|time|past|total|frames|^[lst]$", re.IGNORECASE)
_SUM = re.compile(r"(\w+) ?\+ ?(\w+)")


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes by kind; several are dealt out to the symbols of the kind in turn."""

    batch: int
    image: tuple[int, ...]
    other: tuple[int, ...]
    channel: int = 3


def plans(probe: int) -> Iterator[Plan]:
    """The plans of probe 0 or 1, the most telling first."""
    base = (
        Plan(2, (224, 352), (5, 11, 17, 23, 31, 41)),
        Plan(3, (416, 544), (7, 13, 19, 29, 37, 43)),
    )[probe]
    variants = [
        base,
        replace(base, other=base.other[:1]),
        replace(base, other=(1, *base.other)),  # one step of a decoder
        *(
            replace(base, other=(pair[probe],))
            for pair in ((64, 96), (512, 576), (256, 288), (16_000, 24_000), (1, 1))
        ),
        *(replace(base, image=pair[probe]) for pair in _IMAGES),
        replace(base, channel=1),
    ]
    yield from variants
    yield from (replace(variant, batch=1) for variant in variants)


# For networks that want squares, a text line of fixed height, or exactly the size they were made for; the
# last for attention masks, which look like images.
_IMAGES = (
    ((224, 224), (288, 288)),
    ((48, 160), (48, 224)),
    ((32, 160), (32, 224)),
    ((640, 640), (640, 640)),
    ((256, 256), (256, 256)),
    ((32, 32), (32, 32)),
    ((28, 28), (28, 28)),
    ((5, 5), (7, 7)),
)


class Symbols:
    """The dynamic dimensions of a graph's inputs."""

    def __init__(self, graph: ir.Graph) -> None:
        self.kinds: dict[str, str] = {}
        self.inputs: list[tuple[ir.Value, tuple[int | str, ...] | None]] = []
        for value in graph.inputs:
            if value.const_value is None:
                self.inputs.append((value, self._read(value)))

    def _read(self, value: ir.Value) -> tuple[int | str, ...] | None:
        """The shape of an input: sizes and symbols."""
        if value.shape is None:
            return None
        names = [dimension(dim) for dim in value.shape.dims]
        dims: list[int | str] = []
        for axis, name in enumerate(names):
            if isinstance(name, int):
                dims.append(name)
                continue
            key = name or f"{value.name}[{axis}]"
            self.kinds.setdefault(key, kind(name or "", axis, names))
            dims.append(key)
        return tuple(dims)

    def choose(self, plan: Plan, given: Mapping[str, int]) -> Sizes:
        """A size for every symbol."""
        dealt = {"image": 0, "other": 0}
        sizes: Sizes = {}
        for key, what in self.kinds.items():
            if key in given:
                sizes[key] = given[key]
            elif what in dealt:
                pool = plan.image if what == "image" else plan.other
                sizes[key] = pool[dealt[what] % len(pool)]
                dealt[what] += 1
            else:
                sizes[key] = plan.batch if what == "batch" else plan.channel
        self._sums(sizes, given)
        return sizes

    def dynamic(self, given: Mapping[str, int]) -> list[str]:
        """The symbols that are to differ between the probes."""
        return [key for key, what in self.kinds.items() if key not in given and what != "channel"]

    def _sums(self, sizes: Sizes, given: Mapping[str, int]) -> None:
        """Lengths that are the sum of others: written so ("past + seq"), or named a total beside a past."""
        past = next((key for key in sizes if "past" in key.lower() and not _SUM.fullmatch(key)), None)
        plain = [
            key for key in sizes if self.kinds[key] == "other" and not re.search("past|total", key.lower())
        ]
        for key in sizes:
            if key in given:
                continue
            if match := _SUM.fullmatch(key):
                terms = [int(term) if term.isdigit() else sizes.get(term) for term in match.groups()]
                sizes[key] = (
                    sum(term for term in terms if term is not None) if None not in terms else sizes[key]
                )
            elif "total" in key.lower() and past and plain:
                sizes[key] = sizes[past] + sizes[plain[0]]


def dimension(dim: int | ir.SymbolicDim) -> int | str | None:
    """A declared dimension: a size, a name, or None for an anonymous one (also spelled -1, 0 or "?")."""
    if isinstance(dim, int):
        return dim if dim > 0 else None
    name = dim.value
    return None if name is None or _ANONYMOUS.fullmatch(name.strip()) else name


def kind(name: str, axis: int, dims: Sequence[int | str | None]) -> str:
    """What a dynamic dimension is likely to be, by its name, its axis and the dimensions beside it."""
    if _IMAGE.search(name):
        return "image"
    if _LENGTH.search(name):
        return "other"
    if axis == 0 or "batch" in name.lower():
        return "batch"
    rank = len(dims)
    if rank == 3 and axis == 1 and not name and all(isinstance(d, int) and d > 1 for d in (dims[0], dims[2])):
        return "batch"  # a recurrent state [layers, batch, hidden]
    if rank not in (4, 5):
        return "other"
    channels_last = isinstance(dims[-1], int) and dims[-1] in (1, 3, 4) and not isinstance(dims[1], int)
    if channels_last or (axis > 1 and not isinstance(dims[-1], int)):
        return "image"
    return "channel" if axis == 1 and not isinstance(dims[-1], int) else "other"


def declared(value: ir.Value, sizes: Mapping[str, int]) -> tuple[Shape | None, bool]:
    """The shape that the file declares for a value under these sizes, and whether it depends on them."""
    if value.shape is None:
        return None, False
    dims = []
    symbolic = False
    for dim in value.shape.dims:
        size = dimension(dim)
        if isinstance(size, str):
            symbolic = True
            size = sizes.get(size)
        if size is None:
            return None, symbolic
        dims.append(size)
    return tuple(dims), symbolic
