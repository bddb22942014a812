"""Write `docs/operators.md`, what the tables know of each operator: `python tools/operators_page.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx

from onnxcanon.graph.operators import CLASSICAL, CONTRIB, STANDARD, Table
from onnxcanon.graph.traits import ROWS, Row, Trait
from onnxcanon.merging.repair_sites import REPAIR_RULES
from onnxcanon.normalform.rules import RULES as PATTERNS
from onnxcanon.normalform.rules import UPGRADES
from onnxcanon.shapes import (
    samples,  # noqa: F401 - imported for the rules that it registers
    values,
)
from onnxcanon.shapes.control import CONTROL
from onnxcanon.shapes.fold import FOLDS
from onnxcanon.tracing.rules import SYMMETRIES as SYMMETRIES
from onnxcanon.verifying.smooth.rules import SMOOTH_RULES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "operators.md"
SCHEMAS_UNTIL = 22
"""The newest operator set whose operators are all listed; of newer ones, those that a table knows."""

DOMAINS = {STANDARD: "ai.onnx", CLASSICAL: CLASSICAL, CONTRIB: CONTRIB}
NONE = "–"
PARITY = {
    Trait.LINEAR: "linear",
    Trait.HOMOGENEOUS | Trait.EVEN: "homogeneous, even",
    Trait.HOMOGENEOUS: "homogeneous",
    Trait.ODD: "odd",
    Trait.EVEN: "even",
}
OF_FUNCTIONS = Trait.HOMOGENEOUS | Trait.ODD | Trait.EVEN

HEAD = """# Operators

What is known of each operator. `python tools/operators_page.py` makes this page from the tables; a test
compares the two. A name in a cell is the file that has the rule; a dash says that there is none.

- **shapes** (`onnxcanon/shapes/`): the sizes of its outputs. Without a rule they are what the file declares.
- **values** (`onnxcanon/shapes/fold.py`): what it computes from small constants.
- **symmetry** (`onnxcanon/tracing/rules/`): what may move. Without a rule, nothing that it touches.
- **scale and sign**: of what class it is as a function of each entry; others say so in their symmetry rule.
- **rewrite patterns** (`onnxcanon/normalform/rules/`): how it is rewritten for
  comparing. Without a rule it stays.
- **without rounding** (`onnxcanon/verifying/smooth/`): the form in which models that round are compared,
  asked of operators that round. Without it such a model is compared only as it runs, which is less exact.
- **repair** (`onnxcanon/merging/repair_sites.py`): whether a merge can repair the statistics of its
  channels, asked of layers.
- **traits** (`onnxcanon/graph/traits.py`): what else holds of it.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for domain, title in DOMAINS.items():
        names = _names(domain)
        parts += [f"## {title}", _gaps(domain, names), _rows(domain, names)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _names(domain: str) -> list[str]:
    tables: list[Iterable[tuple[str, str]]] = [
        values.SHAPES, values.VALUES, CONTROL, FOLDS, SYMMETRIES, ROWS, REPAIR_RULES, PATTERNS.table,
        UPGRADES.table,
    ]  # fmt: skip
    found = {name for table in tables for of, name in table if of == domain and name}
    if domain != CONTRIB:
        schemas = onnx.defs.get_all_schemas_with_history()
        found |= {s.name for s in schemas if s.domain == domain and s.since_version <= SCHEMAS_UNTIL}
    return sorted(found)


def _files(
    table: Table[Any], domain: str, name: str, function: Callable[[Any], Any] = lambda entry: entry
) -> str:
    """The files whose functions a table has for an operator."""
    entries = [entry for key, entry in table.entries.items() if key[:2] == (domain, name)]
    return ", ".join(dict.fromkeys(function(entry).__module__.rpartition(".")[2] for entry in entries))


def _cells(domain: str, name: str) -> dict[str, str]:
    row = next((r for key, r in ROWS.entries.items() if key[:2] == (domain, name)), Row())
    symmetry = _files(SYMMETRIES, domain, name)
    patterns = [_files(rules.table, domain, name, lambda entry: entry[1]) for rules in (UPGRADES, PATTERNS)]
    parity = next((word for traits, word in PARITY.items() if traits in row.traits), "")
    shapes = [_files(table, domain, name) for table in (values.SHAPES, values.VALUES, CONTROL)]
    smooth = "yes" if (domain, name) in SMOOTH_RULES.table else NONE
    others = (trait.name or "" for trait in row.traits & ~OF_FUNCTIONS)
    return {
        "shapes": ", ".join(filter(None, shapes)) or NONE,
        "values": "yes" if (domain, name) in FOLDS or (domain, name) in values.VALUES else "",
        "symmetry": symmetry or NONE,
        "scale and sign": parity
        or ("by its rule" if symmetry and Trait.POINTWISE not in row.traits else NONE),
        "rewrite patterns": ", ".join(filter(None, patterns)) or NONE,
        "without rounding": smooth if Trait.ROUNDING in row.traits else "",
        "repair": ("yes" if (domain, name) in REPAIR_RULES else NONE) if Trait.LAYER in row.traits else "",
        "traits": ", ".join(word.lower().replace("_", " ") for word in others),
    }


def _gaps(domain: str, names: list[str]) -> str:
    """Which operators lack what every operator should have."""
    lines = []
    for column in ("shapes", "symmetry", "without rounding"):
        lacking = [f"`{name}`" for name in names if _cells(domain, name)[column] == NONE]
        if lacking:
            lines.append(f"- No rule for {column}: {', '.join(lacking)}.")
    return "\n".join(lines) or "Every operator has rules for shapes and symmetry."


def _rows(domain: str, names: list[str]) -> str:
    cells: Mapping[str, dict[str, str]] = {name: _cells(domain, name) for name in names}
    columns = list(next(iter(cells.values())))
    lines = [f"| operator | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(row.values())} |" for name, row in cells.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
