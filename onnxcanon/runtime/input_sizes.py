"""Concrete sizes for dynamic dimensions: a guess from names and places, then a search until the model runs.

Exporters say little about what a dynamic dimension accepts (one height only, multiples of 32, "the past plus
now"), so nothing but running the model can tell. Dimensions of one name share one size; unnamed leading ones
share the batch.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnxcanon.arrays import Shape
from onnxcanon.errors import RuntimeUnavailableError

Sizes = dict[str, int]

# Placeholders that exporters write where they know no name; equal ones need not be equal sizes.
_NAMELESS = frozenset({"", "?", "None", "none", "unk", "-1", "dynamic"})
_BATCH = re.compile(r"batch|^(n|b|bs)$", re.IGNORECASE)
_TIME = re.compile(r"seq|time|length|frame|step|token", re.IGNORECASE)
_PLACE = re.compile(r"height|width|^(h|w)$", re.IGNORECASE)

# Most likely first. Small sizes run fast; 7 and 100 are what fixed position tables and odd exports have
# wanted.
_CANDIDATES: dict[str, tuple[int, ...]] = {
    "batch": (2, 1),
    "time": (16, 8, 1, 32, 512, 64, 128, 256, 7, 100, 576, 1024),
    "past": (16, 8, 1, 4, 32),
    "place": (64, 96, 128, 160, 224, 32, 256, 320, 48, 192, 512),
}


@dataclass(frozen=True, slots=True)
class Dynamic:
    """The shape of one input: sizes, and keys of dynamic dimensions; equal keys are equal sizes."""

    name: str
    dims: tuple[int | str, ...]

    def resolve(self, sizes: Mapping[str, int]) -> Shape:
        """The shape under `sizes`."""
        return tuple(dim if isinstance(dim, int) else sizes[dim] for dim in self.dims)


def dynamic_shape(name: str, dims: Sequence[int | str | None]) -> Dynamic:
    """Gives every dynamic dimension of input `name` a key: its name, the shared batch, or one of its own."""

    def key(axis: int, dim: int | str | None) -> int | str:
        if isinstance(dim, int):
            return dim
        if dim is not None and dim not in _NAMELESS:
            return dim
        return "batch" if axis == 0 else f"{name}:{axis}"

    return Dynamic(name, tuple(key(axis, dim) for axis, dim in enumerate(dims)))


def override(shapes: Sequence[Dynamic], given: Mapping[str, int | Sequence[int]] | None) -> list[Dynamic]:
    """Applies what the caller fixed: sizes of named dimensions, or whole shapes of inputs.

    Raises:
        RuntimeUnavailableError: a name that is neither, or a shape that does not fit the input.
    """
    given = dict(given or {})
    dims = {dim for shape in shapes for dim in shape.dims if isinstance(dim, str)}
    unknown = sorted(set(given) - dims - {shape.name for shape in shapes})
    if unknown:
        raise RuntimeUnavailableError(
            f"no input or dynamic dimension is named {', '.join(map(repr, unknown))}"
        )
    fixed: Sizes = {}
    for shape in shapes:
        whole = given.get(shape.name)
        if whole is None or isinstance(whole, int):
            continue
        fits = len(whole) == len(shape.dims) and all(
            isinstance(dim, str) or dim == size for dim, size in zip(shape.dims, whole, strict=True)
        )
        if not fits:
            raise RuntimeUnavailableError(
                f"shape {list(whole)} does not fit input {shape.name!r} {shape.dims}"
            )
        # The dimensions of one input settle those of the same name elsewhere.
        fixed.update({dim: size for dim, size in zip(shape.dims, whole, strict=True) if isinstance(dim, str)})
    fixed.update({name: size for name, size in given.items() if isinstance(size, int) and name in dims})
    return [
        Dynamic(s.name, tuple(fixed.get(d, d) if isinstance(d, str) else d for d in s.dims)) for s in shapes
    ]


def candidate_sizes(shapes: Sequence[Dynamic], limit: int = 160) -> Iterator[Sizes]:
    """Assignments of all dynamic dimensions, most likely first: at most `limit`, each once."""
    roles = _roles(shapes)
    free = [key for key in roles if _total(key, roles) is None]
    seen: set[tuple[int, ...]] = set()
    for choice in itertools.chain(_together(free, roles), _apart(free, roles)):
        sizes = dict(choice)
        for key in roles:
            sizes.setdefault(key, sum(sizes.get(part, 0) for part in _total(key, roles) or ()))
        mark = tuple(sizes[key] for key in roles)
        if mark in seen:
            continue
        seen.add(mark)
        yield sizes
        if len(seen) == limit:
            return


def _together(free: list[str], roles: Mapping[str, str]) -> Iterator[Sizes]:
    """Assignments in which dimensions of one role share one size."""
    used = [role for role in _CANDIDATES if role in {roles[key] for key in free}]
    # The batch varies fastest: where 2 fails, 1 is the next thing to try.
    slow_first = sorted(used, key=lambda role: role == "batch")
    for sizes in itertools.product(*(_CANDIDATES[role] for role in slow_first)):
        by_role = dict(zip(slow_first, sizes, strict=True))
        yield {key: by_role[roles[key]] for key in free}


def _apart(free: list[str], roles: Mapping[str, str]) -> Iterator[Sizes]:
    """Assignments in which every dimension has its own size: lines of text are wide, few maps are square."""
    lists = [_CANDIDATES[roles[key]][:6] for key in free]
    for sizes in itertools.product(*lists):
        yield dict(zip(free, sizes, strict=True))


def _roles(shapes: Sequence[Dynamic]) -> dict[str, str]:
    """What each dynamic dimension seems to be: batch, time, past or place."""
    roles: dict[str, str] = {}
    for shape in shapes:
        for axis, dim in enumerate(shape.dims):
            if isinstance(dim, str):
                roles.setdefault(dim, _role(dim, axis, len(shape.dims)))
    return roles


def _role(key: str, axis: int, rank: int) -> str:
    if not key.endswith(f":{axis}"):  # a name of its own, which may tell
        if "past" in key.lower():
            return "past"
        if _BATCH.search(key):
            return "batch"
        if _PLACE.search(key):
            return "place"
        if _TIME.search(key):
            return "time"
    if axis == 0:
        return "batch"
    return "place" if rank >= 4 else "time"


def _total(key: str, roles: Mapping[str, str]) -> tuple[str, ...] | None:
    """The dimensions whose sum `key` is: "total_length" of past and present, or "a + b" in so many words."""
    parts = tuple(part.strip() for part in key.split("+"))
    if len(parts) > 1 and all(part in roles for part in parts):
        return parts
    if "total" in key.lower():
        past = [other for other in roles if roles[other] == "past" and "+" not in other and other != key]
        now = [other for other in roles if roles[other] == "time" and "total" not in other.lower()]
        if past and now:
            return past[0], now[0]
    return None
