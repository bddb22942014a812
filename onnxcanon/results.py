"""How results show themselves where nobody printed them: a short repr, and a table in notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import fields
from html import escape
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
