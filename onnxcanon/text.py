"""How names, numbers and tables are put into words."""

from __future__ import annotations

from collections.abc import Sequence

NAME_WIDTH = 44
CHAIN_ENDS = 2


def short(name: str) -> str:
    """A name of bearable length: its end says more than its middle."""
    if len(name) <= NAME_WIDTH:
        return name
    return f"{name[:12]}…{name[13 - NAME_WIDTH :]}"


def some(names: Sequence[str]) -> str:
    """The first few of many names."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(short, names[:3])) + more


def plural(n: int, word: str, words: str | None = None) -> str:
    """A number of things in words: 1 model, 2 models."""
    return f"{n:,} {word if n == 1 else words or word + 's'}"


def chain_text(chain: Sequence[str]) -> str:
    """The nodes on the way, long ones shortened in the middle, and the cause."""
    *nodes, cause = chain
    if len(nodes) > CHAIN_ENDS * 2:
        nodes = [*nodes[:CHAIN_ENDS], "…", *nodes[-CHAIN_ENDS:]]
    return " -> ".join([*map(short, nodes), cause])


def table(rows: Sequence[Sequence[str]], right: set[int]) -> str:
    """Rows as aligned columns, two spaces apart; empty columns are left out."""
    keep = [k for k in range(len(rows[0])) if any(row[k] for row in rows[1:])]
    widths = {k: max(len(row[k]) for row in rows) for k in keep}
    lines = []
    for row in rows:
        cells = [row[k].rjust(widths[k]) if k in right else row[k].ljust(widths[k]) for k in keep]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
