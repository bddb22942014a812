"""Sizes of dynamic dimensions: what they are called, what they stand for, what they are set to.

A dynamic dimension is named by the file ("batch"), or else by its place: `x[1]` is axis 1 of input `x`.
Equal names are equal sizes. What a dimension stands for is guessed from its name, its place and the
dimensions beside it (`Kind`); whether a guess fits, only the model can tell, so sizes are proposed in an
order, and whoever asks takes the first that work:

- to *analyze* a graph, sizes that differ between two samples and that hardly anything in the model shares or
  is divided by: small primes, for images times 32 (`for_analysis`);
- to *run* a model, sizes that models accept, small ones first: they run fast (`for_running`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import onnx_ir as ir

from onnxcanon.arrays import Shape
from onnxcanon.errors import OnnxcanonError

SizeByDimension = dict[str, int]
Dims = tuple[int | str, ...]
"""A shape with the names of its dynamic dimensions."""

# What exporters write for a dimension they know nothing about: equal names do not mean equal sizes.
_ANONYMOUS = re.compile(r"\?|-1|none|unk|unknown|dynamic|dyn|", re.IGNORECASE)
_IMAGE = re.compile(r"height|width|image|^[hw]$", re.IGNORECASE)
_TIME = re.compile(r"seq|len|tokens|time|past|total|frames|^[lst]$", re.IGNORECASE)


class Kind(Enum):
    """What a dynamic dimension is likely to be."""

    BATCH = "batch"
    STATE = "batch of a recurrent state"
    IMAGE = "side of an image"
    CHANNEL = "channels of an image"
    TIME = "length of a sequence"
    PAST = "length of a cache"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class _Plan:
    """Sizes by kind for an analysis; several are dealt out to the dimensions of the kind in turn."""

    batch: int
    image: tuple[int, ...]
    other: tuple[int, ...]
    channel: int = 3


# The two samples differ in every size, and two dimensions of one kind differ in each sample: a size that
# turns up again in some shape then says where it came from.
_SAMPLES = (
    _Plan(2, (224, 352), (5, 11, 17, 23, 31, 41)),
    _Plan(3, (416, 544), (7, 13, 19, 29, 37, 43)),
)
# Lengths that some models insist on: whole windows of sound, multiples of a patch, nothing but 1.
_LENGTHS = ((64, 96), (512, 576), (256, 288), (16_000, 24_000), (1, 1))
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

# Most likely first; 7 and 100 are what fixed position tables and odd exports have wanted. The order decides
# on which inputs models are compared: a change of it changes the numbers of every verification.
_ACCEPTED: dict[Kind, tuple[int, ...]] = {
    Kind.BATCH: (2, 1),
    Kind.TIME: (16, 8, 1, 32, 512, 64, 128, 256, 7, 100, 576, 1024),
    Kind.PAST: (16, 8, 1, 4, 32),
    Kind.IMAGE: (64, 96, 128, 160, 224, 32, 256, 320, 48, 192, 512),
}
_TRIED_AS = {Kind.STATE: Kind.TIME, Kind.CHANNEL: Kind.IMAGE, Kind.OTHER: Kind.IMAGE}
MOST_TRIED = 160
"""How many assignments are proposed for a run."""


class DynamicDimensions:
    """The dynamic dimensions of a graph's inputs.

    Args:
        inputs: the dimensions of each input (see `dimensions`); None where not even the rank is known.

    Attributes:
        inputs: the same.
        kinds: what each dynamic dimension is likely to be, by its name, in the order of the inputs.
        terms: the names and sizes whose sum a dimension is: "past + seq", or a "total" beside a past.

    >>> images = DynamicDimensions({"x": ("batch", 3, "x[2]", "x[3]"), "y": ("batch",)})
    >>> [(name, kind.name) for name, kind in images.kinds.items()]
    [('batch', 'BATCH'), ('x[2]', 'IMAGE'), ('x[3]', 'IMAGE')]
    >>> next(images.for_analysis(0, {})), next(images.for_analysis(1, {"batch": 1}))
    ({'batch': 2, 'x[2]': 224, 'x[3]': 352}, {'batch': 1, 'x[2]': 416, 'x[3]': 544})
    >>> next(images.for_running({}))
    {'batch': 2, 'x[2]': 64, 'x[3]': 64}
    >>> DynamicDimensions({"ids": (1, "seq"), "mask": (1, "past + seq"), "k": (1, 4, "past", 8)}).terms
    {'past + seq': ('past', 'seq')}
    """

    def __init__(self, inputs: Mapping[str, Dims | None]) -> None:
        self.inputs = dict(inputs)
        self.kinds: dict[str, Kind] = {}
        self._leading: list[str] = []
        for name, dims in self.inputs.items():
            for axis, dim in enumerate(dims or ()):
                if isinstance(dim, str):
                    anonymous = dim == f"{name}[{axis}]"
                    self.kinds.setdefault(dim, _kind("" if anonymous else dim, axis, dims or ()))
                    if anonymous and axis == 0:
                        self._leading.append(dim)
        self.terms = {name: terms for name in self.kinds if (terms := self._terms(name))}

    @classmethod
    def of(cls, graph: ir.Graph) -> DynamicDimensions:
        """Those of a graph; initializers that are listed among its inputs have their own shape."""
        return cls({v.name or "": dimensions(v) for v in graph.inputs if v.const_value is None})

    def shape(self, name: str, sizes: Mapping[str, int]) -> Shape | None:
        """The shape of an input under these sizes."""
        dims = self.inputs[name]
        return None if dims is None else tuple(sizes[d] if isinstance(d, str) else d for d in dims)

    def fixed(self, given: Mapping[str, int | Sequence[int]], owner: str) -> SizeByDimension:
        """The sizes that the caller fixes, by dimension.

        Args:
            given: sizes of dimensions by name, or whole shapes of inputs by the input's name.
            owner: what messages call the model.

        Raises:
            OnnxcanonError: there is no such dimension or input, or a shape does not fit the input.

        >>> images = DynamicDimensions({"x": ("batch", 3, "x[2]", "x[3]")})
        >>> images.fixed({"x": (1, 3, 32, 48), "batch": 4}, "m.onnx")
        {'batch': 4, 'x[2]': 32, 'x[3]': 48}
        """
        sizes: SizeByDimension = {}
        for name, value in given.items():
            if name in self.kinds and isinstance(value, int):
                continue
            if name not in self.inputs:
                has = f"it has {', '.join(self.kinds)}" if self.kinds else "it has none"
                raise OnnxcanonError(f"{owner}: no dynamic dimension is called '{name}'; {has}")
            shape, dims = (value,) if isinstance(value, int) else tuple(value), self.inputs[name] or ()
            if len(shape) != len(dims) or any(
                dim != size for dim, size in zip(dims, shape, strict=True) if isinstance(dim, int)
            ):
                raise OnnxcanonError(f"{owner}: shape {list(shape)} does not fit input '{name}' {list(dims)}")
            sizes |= {dim: size for dim, size in zip(dims, shape, strict=True) if isinstance(dim, str)}
        return sizes | {name: n for name, n in given.items() if name in self.kinds and isinstance(n, int)}

    def varied(self, fixed: Mapping[str, int]) -> list[str]:
        """The dimensions that are to differ between the samples of an analysis."""
        return [name for name, kind in self.kinds.items() if name not in fixed and kind != Kind.CHANNEL]

    def for_analysis(self, sample: int, fixed: Mapping[str, int]) -> Iterator[SizeByDimension]:
        """Sizes of all dimensions for sample 0 or 1, the most telling first: primes, then what some models
        insist on, then all of it with a batch of one."""
        base = _SAMPLES[sample]
        plans = [
            base,
            replace(base, other=base.other[:1]),
            replace(base, other=(1, *base.other)),  # one step of a decoder
            *(replace(base, other=(pair[sample],)) for pair in _LENGTHS),
            *(replace(base, image=pair[sample]) for pair in _IMAGES),
            replace(base, channel=1),
        ]
        for plan in (*plans, *(replace(plan, batch=1) for plan in plans)):
            yield self._dealt(plan, fixed)

    def for_running(self, fixed: Mapping[str, int], most: int = MOST_TRIED) -> Iterator[SizeByDimension]:
        """Sizes of all dimensions, most likely first, each assignment once.

        At first all dimensions of one kind share a size; then each has its own: lines of text are wide, few
        maps are square. Unnamed leading dimensions are one batch throughout.
        """
        batch = [fixed[name] for name in self._leading if name in fixed]
        fixed = {**(dict.fromkeys(self._leading, batch[0]) if batch else {}), **fixed}
        sharing: dict[str, list[str]] = {}
        for name in self.kinds:
            if name not in fixed and name not in self.terms:
                sharing.setdefault("batch" if name in self._leading else name, []).append(name)
        kinds = [_TRIED_AS.get(kind, kind) for kind in (self.kinds[names[0]] for names in sharing.values())]
        seen: set[tuple[int, ...]] = set()
        for choice in itertools.chain(_together(kinds), _apart(kinds)):
            sizes = {name: n for names, n in zip(sharing.values(), choice, strict=True) for name in names}
            sizes = self._summed({name: {**sizes, **fixed}.get(name, 0) for name in self.kinds}, fixed)
            if (mark := tuple(sizes.values())) not in seen:
                seen.add(mark)
                yield sizes
                if len(seen) == most:
                    return

    def _dealt(self, plan: _Plan, fixed: Mapping[str, int]) -> SizeByDimension:
        images, others = itertools.cycle(plan.image), itertools.cycle(plan.other)
        sizes: SizeByDimension = {}
        for name, kind in self.kinds.items():
            if name in fixed:
                sizes[name] = fixed[name]
            elif kind in (Kind.BATCH, Kind.STATE):
                sizes[name] = plan.batch
            elif kind == Kind.CHANNEL:
                sizes[name] = plan.channel
            else:
                sizes[name] = next(images if kind == Kind.IMAGE else others)
        return self._summed(sizes, fixed)

    def _summed(self, sizes: SizeByDimension, fixed: Mapping[str, int]) -> SizeByDimension:
        """The sizes with those that are sums of others set to the sum."""
        for name, terms in self.terms.items():
            if name not in fixed:
                sizes[name] = sum(term if isinstance(term, int) else sizes[term] for term in terms)
        return sizes

    def _terms(self, name: str) -> Dims:
        parts = [part.strip() for part in name.split("+")]
        if len(parts) > 1:
            terms = tuple(int(part) if part.isdigit() else part for part in parts)
            return terms if all(isinstance(term, int) or term in self.kinds for term in terms) else ()
        if "total" not in name.lower():
            return ()
        plain = [key for key in self.kinds if "+" not in key and "total" not in key.lower()]
        past = [key for key in plain if self.kinds[key] == Kind.PAST][:1]
        now = [key for key in plain if self.kinds[key] in (Kind.TIME, Kind.OTHER)][:1]
        return (*past, *now) if past and now else ()


def _together(kinds: Sequence[Kind]) -> Iterator[Shape]:
    """A size for each of these, one for all of a kind."""
    # The batch varies fastest: where 2 fails, 1 is the next thing to try.
    slow_first = sorted((kind for kind in _ACCEPTED if kind in kinds), key=lambda kind: kind == Kind.BATCH)
    for sizes in itertools.product(*(_ACCEPTED[kind] for kind in slow_first)):
        by_kind = dict(zip(slow_first, sizes, strict=True))
        yield tuple(by_kind[kind] for kind in kinds)


def _apart(kinds: Iterable[Kind]) -> Iterator[Shape]:
    """A size for each of these."""
    return itertools.product(*(_ACCEPTED[kind][:6] for kind in kinds))


def dimension(dim: int | ir.SymbolicDim) -> int | str | None:
    """A declared dimension: a size, a name, or None for an anonymous one (also spelled -1, 0 or "?")."""
    if isinstance(dim, int):
        return dim if dim > 0 else None
    name = dim.value
    return None if name is None or _ANONYMOUS.fullmatch(name.strip()) else name


def dimensions(value: ir.Value) -> Dims | None:
    """The dimensions of an input, the anonymous ones named by their place; None without a declared shape."""
    if value.shape is None:
        return None
    dims = [dimension(dim) for dim in value.shape.dims]
    return tuple(dim or f"{value.name}[{axis}]" for axis, dim in enumerate(dims))


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


def _kind(name: str, axis: int, dims: Dims) -> Kind:
    """What a dimension is likely to be, by its name ("" if anonymous), axis and the dimensions beside it."""
    if _IMAGE.search(name):
        return Kind.IMAGE
    if _TIME.search(name):
        return Kind.PAST if "past" in name.lower() else Kind.TIME
    if axis == 0 or "batch" in name.lower():
        return Kind.BATCH
    rank = len(dims)
    if rank == 3 and axis == 1 and not name and all(isinstance(d, int) and d > 1 for d in (dims[0], dims[2])):
        return Kind.STATE  # [layers, batch, hidden]
    if rank not in (4, 5):
        return Kind.TIME
    open_end = not isinstance(dims[-1], int)
    if (dims[-1] in (1, 3, 4) and not isinstance(dims[1], int)) or (axis > 1 and open_end):
        return Kind.IMAGE  # the channels last, or first
    return Kind.CHANNEL if axis == 1 and open_end else Kind.OTHER
