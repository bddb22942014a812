"""An analysis as a text: the table of dimensions, a summary, remarks, and why axes are fixed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from onnxcanon.text import chain_text, plural, short, some, table

if TYPE_CHECKING:
    from onnxcanon.explaining.analysis import Analysis, Dimension, FixedAxis
    from onnxcanon.tracing.interpreter import UnsupportedNode

SITES_SHOWN = 2
NODES_SHOWN = 3


def analysis_text(analysis: Analysis, *, why: bool = False) -> str:
    """The table of dimensions and a summary; with `why` also each fixed axis and its reason."""
    blocks = [f"{analysis.model}: {analysis.parameters:,} parameters"]
    if analysis.dimensions:
        blocks.append(_dimension_table(analysis.dimensions))
    blocks.append(_summary(analysis))
    if why:
        blocks.append(_fixed_table(analysis.fixed) if analysis.fixed else "no axis is fixed")
    blocks += [_remarks(analysis), _details(analysis) if why else ""]
    return "\n\n".join(block for block in blocks if block)


def _summary(analysis: Analysis) -> str:
    if analysis.trivial:
        return f"nothing may change: {analysis.why_trivial()}"
    parts = [f"10^{analysis.log10_orbit:.1f} permutations"] if analysis.log10_orbit else []
    if analysis.scale_freedoms:
        parts.append(plural(analysis.scale_freedoms, "scale factor"))
    if analysis.sign_freedoms:
        parts.append(plural(analysis.sign_freedoms, "further sign" if analysis.scale_freedoms else "sign"))
    hidden = plural(len(analysis.dimensions), "hidden dimension")
    fixed = f"; {plural(len(analysis.fixed), 'axis', 'axes')} fixed" if analysis.fixed else ""
    return f"{hidden}: {', '.join(parts)} keep the function{fixed}"


def _remarks(analysis: Analysis) -> str:
    lines = _unsupported_lines(analysis.unsupported)
    if analysis.overridable:
        lines.append(
            f"the caller may override, so they stay as they are: {some(analysis.overridable)};"
            " --allow-overridable frees them"
        )
    if analysis.data:
        names = some([d.initializer for d in analysis.data])
        lines.append(f"data constants, fixed: {names}; --permute-constants frees them")
    if analysis.half:
        lines.append(f"half precision, permutes but is not rescaled: {some(analysis.half)}")
    if analysis.quantized:
        lines.append(f"quantized, permutes but is not rescaled: {some(analysis.quantized)}")
    if analysis.dead:
        lines.append(f"read by no node that leads to an output: {some(analysis.dead)}")
    lines += [f"defect, please report this model: {defect}" for defect in analysis.defects]
    return "\n".join(lines)


def _details(analysis: Analysis) -> str:
    lines = [f"read by {len(s.nodes)} nodes alike: {short(s.initializer)}" for s in analysis.shared]
    lines += [
        f"dead, for it reaches no output: {s.positions} of {short(s.initializer)}{s.place}"
        for s in analysis.dead_positions
    ]
    return "\n".join(lines)


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


def _unsupported_lines(unsupported: Iterable[UnsupportedNode]) -> list[str]:
    """A line per node that is not seen through, or one for many that are alike."""
    alike: dict[tuple[str, str], list[str]] = {}
    for node in unsupported:
        alike.setdefault((node.operator, node.reason), []).append(node.node)
    lines = []
    for (operator, reason), nodes in alike.items():
        if len(nodes) > NODES_SHOWN:
            nodes = [f"{nodes[0]} and {len(nodes) - 1} more"]
        lines += [f"not seen through: {node} ({operator}): {reason}" for node in nodes]
    return lines


def _fixed_table(fixed: Iterable[FixedAxis]) -> str:
    rows = [("fixed axis", "size", "because")]
    rows += [(f"{short(f.value)}[{f.axis}]", str(f.size), chain_text(f.chain)) for f in fixed]
    return table(rows, right={1})
