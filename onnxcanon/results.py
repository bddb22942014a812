"""How results show themselves where nobody printed them: a short repr, and a table in notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import fields
from html import escape
from math import isfinite
from typing import Any

from onnxcanon.text import short

SHOWN = 4
"""So many plain values of a sequence are shown, of longer ones the number."""

Plain = bool | int | float | str | None


class Brief:
    """A dataclass (made with `repr=False`) whose repr says of large fields only how large they are."""

    __slots__ = ()

    def __repr__(self) -> str:
        words = (f"{f.name}={_brief(getattr(self, f.name))}" for f in fields(self) if f.repr)  # type: ignore[arg-type]  # what derives from it is a dataclass
        return f"{type(self).__name__}({', '.join(words)})"


class Result(Brief):
    """What a verb returns: `print` shows it in columns, and so does a notebook."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def curves_html(x: Sequence[float], curves: Mapping[str, Sequence[float]]) -> str:
    """Curves over x as one drawing for a notebook, without any library: the first solid, others dashed."""
    width, height = 360, 160
    levels = [level for curve in curves.values() for level in curve if isfinite(level)]
    least, span = min(levels, default=0.0), (max(levels, default=1.0) - min(levels, default=0.0)) or 1.0
    parts = []
    for k, (name, curve) in enumerate(curves.items()):
        points = " ".join(
            f"{(a - x[0]) / ((x[-1] - x[0]) or 1) * width:.1f},{height - (level - least) / span * height:.1f}"
            for a, level in zip(x, curve, strict=True)
            if isfinite(level)
        )
        dashes = f'stroke-dasharray="{4 * k}"'
        parts.append(f'<polyline points="{points}" fill="none" stroke="currentColor" {dashes}/>')
        parts.append(
            f'<text x="4" y="{14 + 14 * k}" fill="currentColor">{"-" * (k + 1)} {escape(name)}</text>'
        )
    box = f'viewBox="-8 -8 {width + 16} {height + 16}" width="{width}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-size="12">{"".join(parts)}</svg>'


def _brief(value: Any) -> str:
    if isinstance(value, str):
        return repr(short(value))
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Plain):
        return repr(value)
    if isinstance(value, Mapping | Sequence | Set):
        if not isinstance(value, tuple | list) or len(value) > SHOWN:
            return f"<{len(value)} items>"
        if all(isinstance(item, Plain) for item in value):
            return f"({', '.join(map(_brief, value))})"
        return f"<{len(value)} items>"
    name = getattr(value, "name", None)
    return f"<{type(value).__name__} {short(name)}>" if isinstance(name, str) else f"<{type(value).__name__}>"
