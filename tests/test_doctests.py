"""The examples in docstrings run and print what they show."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WITH_EXAMPLES = [
    path for path in sorted((ROOT / "onnxcanon").rglob("*.py")) if ">>>" in path.read_text(encoding="utf-8")
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=module_name)
def test_examples_print_what_they_show(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")  # examples read models and write beside them
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(
        import_module(module_name(path)), optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert tried
    assert failed == 0
