"""The analysis as a text that can be held against an architecture: one line per thing, repetitions folded.

Names that differ only in numbers are listed once, the numbers that differ as #: `blocks.#.fc1.weight[0] ×12`.
Neighbouring dimensions (with those nested in them) that look alike in this sense are listed once as well, and
nested ones are sorted, so that those that are alike stand alike.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from onnxcanon.text import short

if TYPE_CHECKING:
    from onnxcanon.explaining.analysis import Analysis, Dimension

WIDTH = 110
SITES_SHOWN = 32
FIXED_SHOWN = 6
GLUE = "\0"
"""A space at which no line is broken."""
NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class _Subtree:
    """A dimension with those nested in it; `looks` is equal for branches that are listed as one."""

    dimension: Dimension
    inner: tuple[_Subtree, ...]
    looks: tuple[Any, ...]


def outline(analysis: Analysis) -> str:
    """The outline of an analysis, without anything that varies from machine to machine."""
    lines = [PurePath(analysis.model).name]
    lines.append(
        f"{analysis.parameters:,} parameters; 10^{analysis.log10_orbit:.1f} permutations,"
        f" {analysis.scale_freedoms:,} scale factors, {analysis.sign_freedoms:,} further signs"
    )
    if analysis.trivial:
        lines += ["", f"nothing may change: {analysis.why_trivial()}"]
    elif analysis.dimensions:
        lines += ["", *_dimensions(_branches(analysis.dimensions, None), "")]
    sections = {
        "not seen through": _by_group((f"{b.operator}: {b.reason}", b.node) for b in analysis.unsupported),
        "fixed": _by_group((f.chain[-1], f"{f.value}[{f.axis}]") for f in analysis.fixed),
        "the caller may override": _names(analysis.overridable),
        "data constants": _by_group((d.kind, d.initializer) for d in analysis.data),
        "read by several nodes": _by_group((f"{len(s.nodes)} nodes", s.initializer) for s in analysis.shared),
        "half precision, not rescaled": _names(analysis.half),
        "quantized, not rescaled": _names(analysis.quantized),
        "read by no node": _names(analysis.dead),
        "dead": _by_group(
            (f"{d.positions} positions", f"{d.initializer}{d.place}") for d in analysis.dead_positions
        ),
        "defects": list(analysis.defects),
    }
    for title, body in sections.items():
        if body:
            lines += ["", title, *("  " + line for line in body)]
    return "\n".join(line.rstrip() for line in lines).strip() + "\n"


# -- dimensions -------------------------------------------------------------------------------------


def _branches(dimensions: Sequence[Dimension], within: str | None) -> list[_Subtree]:
    out = []
    for d in dimensions:
        if d.within == within:
            inner = tuple(sorted(_branches(dimensions, d.id), key=lambda b: b.looks))
            sites = tuple(sorted((_skeleton(s.initializer), s.place, s.positions) for s in d.sites))
            looks = (d.size, _may(d), sites, tuple(b.looks for b in inner))
            out.append(_Subtree(d, inner, looks))
    return out


def _dimensions(branches: Sequence[_Subtree], indent: str) -> list[str]:
    """The lines of neighbouring branches, repetitions folded."""
    lines: list[str] = []
    at = 0
    while at < len(branches):
        period, times = _repetition(branches, at)
        if times > 1:
            lines.append(f"{indent}{times} times:")
        deeper = indent + "  " if times > 1 else indent
        for k in range(period):
            alike = branches[at + k : at + period * times : period]
            lines += _dimension_lines(alike, deeper)
        at += period * times
    return lines


def _repetition(branches: Sequence[_Subtree], at: int) -> tuple[int, int]:
    """The run of equal blocks that covers most from here on: how long the block, how often."""
    looks = [b.looks for b in branches[at:]]
    best = (1, 1)
    for period in range(1, len(looks) // 2 + 1):
        times = 1
        while looks[period * times : period * (times + 1)] == looks[:period]:
            times += 1
        if times > 1 and period * times > best[0] * best[1]:
            best = (period, times)
    return best


def _dimension_lines(alike: Sequence[_Subtree], indent: str) -> list[str]:
    """One dimension for all its likes, then what is nested in it."""
    first = alike[0].dimension
    names: dict[tuple[str, str, int], list[str]] = {}
    for branch in alike:
        for site in branch.dimension.sites:
            key = (_skeleton(site.initializer), site.place, site.positions)
            names.setdefault(key, []).append(site.initializer)
    sites = []
    for (_, place, positions), initializers in names.items():
        entries = "" if positions == first.size or not place else f":{positions}"
        sites.append(
            f"{short(_common(initializers))}{place}{entries}{_times(len(initializers) // len(alike))}"
        )
    lines = [f"{indent}{first.size} {_may(first)}", *_wrapped(sites, SITES_SHOWN, indent + "    ")]
    for k in range(len(alike[0].inner)):
        lines += _dimension_lines([branch.inner[k] for branch in alike], indent + "  ")
    return lines


def _may(d: Dimension) -> str:
    words = {"permute": d.permute, "scale": d.scale == "positive", "flip": d.sign}
    return " ".join(word for word, yes in words.items() if yes)


# -- names ------------------------------------------------------------------------------------------


def _skeleton(name: str) -> str:
    """A name without its numbers."""
    return NUMBER.sub("#", name)


def _common(names: Sequence[str]) -> str:
    """Texts of one skeleton as one: # for the numbers that differ."""
    numbers = [NUMBER.findall(name) for name in names]
    same = iter([column[0] if len(set(column)) == 1 else "#" for column in zip(*numbers, strict=True)])
    return NUMBER.sub(lambda _: next(same), names[0])


def _times(count: int) -> str:
    return f" ×{count}" if count > 1 else ""


def _names(names: Iterable[str]) -> list[str]:
    """Names folded by their skeletons, wrapped."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_skeleton(name), []).append(name)
    folded = [short(_common(group)) + _times(len(group)) for group in groups.values()]
    return _wrapped(folded, FIXED_SHOWN, "")


def _by_group(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """A line per heading with the number of its members, and these folded below it."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for heading, member in pairs:
        groups.setdefault(_skeleton(heading), []).append((heading, member))
    lines = []
    for group in groups.values():
        lines.append(f"{len(group)} × {_common([heading for heading, _ in group])}")
        lines += ["    " + line for line in _names(member for _, member in group)]
    return lines


def _wrapped(words: Sequence[str], limit: int, indent: str) -> list[str]:
    shown = [*words[:limit], *([f"+{len(words) - limit} more"] if len(words) > limit else [])]
    lines = textwrap.wrap(
        ", ".join(word.replace(" ", GLUE) for word in shown),
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(GLUE, " ") for line in lines]
