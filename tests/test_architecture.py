"""The floors of docs/architecture.md hold: no module imports one on a floor above its own."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "onnxcanon"


def floors() -> dict[str, int]:
    """The floor of each module or package directly in onnxcanon."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = re.search(r"## Floors.*?```text\n(.*?)```", text, re.DOTALL)
    assert block
    return {name: n for n, line in enumerate(block[1].splitlines()) for name in line.split()}


def imports(path: Path) -> set[str]:
    """The modules directly in onnxcanon that a file imports, inside functions too; not for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    skipped = {inner for block in typing for inner in ast.walk(block)}
    out: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        out |= {name.split(".")[1] for name in names if name.startswith("onnxcanon.")}
    return out


def test_every_module_has_a_floor() -> None:
    found = {p.stem for p in PACKAGE.glob("*.py")} | {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert found - {"__init__", "__main__"} == floors().keys()


def test_no_module_imports_from_a_floor_above() -> None:
    floor = floors()
    for path in PACKAGE.rglob("*.py"):
        here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if here in floor:
            above = {name for name in imports(path) if floor.get(name, -1) > floor[here]}
            assert not above, f"{path.relative_to(ROOT)} imports {', '.join(sorted(above))}"


def test_files_named_in_the_documents_exist() -> None:
    """Paths in backticks, in the package or the repository; decisions may name what is gone."""
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for name in re.findall(r"`([\w./]+/(?:\w+\.(?:py|md|json))?)`", document.read_text(encoding="utf-8")):
            places = (PACKAGE / name, ROOT / name)
            assert any(place.exists() for place in places), f"{document.name} names {name}"


@pytest.mark.parametrize("room", ["normalform", "runtime.evaluation", "verifying"])
def test_normal_form_and_runtime_do_not_load_the_analyzer(room: str) -> None:
    code = f"import sys, onnxcanon.{room}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    analyzer = tuple(f"onnxcanon.{name}" for name in ("tracing", "solving", "symmetry"))
    assert not [name for name in done.stdout.split() if name.startswith(analyzer)]
