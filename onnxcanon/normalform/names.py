"""Free names, in the main graph and in nested ones."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import onnx_ir as ir

_NUMBERED = re.compile(r"~\d+$")


class Names:
    """The names that are taken."""

    def __init__(self, taken: Iterable[str | None] = ()) -> None:
        self._taken = set(taken)
        self._last: Counter[str] = Counter()

    @classmethod
    def of(cls, graph: ir.Graph) -> Names:
        """The names of all values, nested ones included."""
        names: list[str | None] = []
        for part in (graph, *graph.subgraphs()):
            names += [value.name for value in (*part.inputs, *part.initializers.values())]
            names += [value.name for node in part for value in node.outputs]
        return cls(names)

    def free(self, name: str) -> str:
        """This name or, if it is taken, one like it; it is taken from then on."""
        base = free = _NUMBERED.sub("", name)
        while free in self._taken:
            self._last[base] += 1
            free = f"{base}~{self._last[base] + 1}"
        self._taken.add(free)
        return free
