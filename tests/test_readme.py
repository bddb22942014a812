"""Every command of the README and of the documents beside it runs, and prints what is shown.

Each fenced `sh` or `python` block is run beside a copy of the repository's models, one after another in one
folder; a `text` block after it is its standard output. To write the outputs anew:

    ONNXCANON_UPDATE_README=1 pytest tests/test_readme.py

Commands that install are not run here but by `.ci/run`, in a fresh environment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BESIDE = [ROOT / f"{name}.md" for name in ("CONTRIBUTING", "CHANGELOG", "SECURITY")]
DOCUMENTS = [README, *BESIDE, *sorted((ROOT / "docs").rglob("*.md"))]
UPDATE = bool(os.environ.get("ONNXCANON_UPDATE_README"))

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VARYING = re.compile(r"\b\d\.\de[-+]\d\d\b|(?<=in )\d+(?= runs)")
"""Deviations and the number of runs that are quick, which differ between machines."""
DECIMAL = re.compile(r"\b\d+\.\d+\b")


@dataclass(frozen=True)
class Block:
    """A fenced block; `shown` is the `text` block that follows it, or None."""

    document: Path
    language: str
    text: str
    shown: str | None
    span: tuple[int, int]

    @property
    def installs(self) -> bool:
        return "pip install" in self.text


def blocks(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    out = []
    for match, after in zip(found, [*found[1:], None], strict=False):
        output = after is not None and after[1] == "text" and not text[match.end() : after.start()].strip()
        shown, span = (after[2], after.span(2)) if output and after else (None, (0, 0))
        out.append(Block(document, match[1], match[2], shown, span))
    return [block for block in out if block.language != "text"]


def agree(one: str, other: str) -> bool:
    """Whether two outputs are those of one command on two machines: decimals that are measured may differ a
    little, as rounding does; all else is equal but for the width of columns."""
    texts = [VARYING.sub("#", output) for output in (one, other)]
    words, shown = ([DECIMAL.sub("#", text).split() for text in texts], [DECIMAL.findall(t) for t in texts])
    if words[0] != words[1]:
        return False
    first, second = (np.array(numbers, float) for numbers in shown)
    return bool(np.allclose(first, second, rtol=0.01, atol=0.002))


RUN = [README, *(ROOT / "docs" / name for name in ("worked-example.md", "transform-format.md"))]
BLOCKS = [b for d in RUN for b in blocks(d) if not b.installs]


def settings(folder: Path) -> dict[str, str]:
    """The environment of a user who has set up and activated it, on a machine without a GPU."""
    programs = Path(sys.executable).parent
    if shutil.which("onnxcanon", path=str(programs)) is None:
        programs = folder / "bin"
        programs.mkdir()
        script = programs / "onnxcanon"
        script.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m onnxcanon "$@"\n')
        script.chmod(0o755)
    search = os.pathsep.join([str(programs), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": search, "CUDA_VISIBLE_DEVICES": ""}


def run(block: Block, folder: Path, environment: dict[str, str]) -> str:
    call = ["sh", "-e", "-c"] if block.language == "sh" else [sys.executable, "-c"]
    done = subprocess.run(
        [*call, block.text],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"{block.text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def show_anew(block: Block, output: str) -> None:
    text = block.document.read_text(encoding="utf-8")
    text = text[: block.span[0]] + output + text[block.span[1] :]
    block.document.write_text(text, encoding="utf-8")


@pytest.mark.skipif(os.name != "posix", reason="the commands are for a POSIX shell")
def test_documents_show_what_their_commands_print(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "models", tmp_path / "models")
    environment = settings(tmp_path)
    printed = [run(block, tmp_path, environment) for block in BLOCKS]
    pairs = [(b, new) for b, new in zip(BLOCKS, printed, strict=True) if not agree(new, b.shown or "")]
    if UPDATE:
        for block, new in reversed([pair for pair in pairs if pair[0].shown is not None]):
            show_anew(block, new)
    else:
        assert [(block.text, new) for block, new in pairs] == []


def test_outputs_of_two_machines_agree_and_others_do_not() -> None:
    shown = "loss 0.00157658  12 units\n 9.9999 in 4 runs\n"
    assert agree(shown, "loss 0.00157657  12 units\n10.0000 in 8 runs\n")
    for other in ("loss 0.0158  12 units\n 9.9999 in 4 runs", shown.replace("12", "13"), shown + "more"):
        assert not agree(shown, other)


def test_every_verb_has_an_example() -> None:
    from onnxcanon.cli.main import VERBS

    text = README.read_text(encoding="utf-8")
    assert [verb for verb in VERBS if f"**{verb}** " not in text] == []
    assert [verb for verb in VERBS if f"\nonnxcanon {verb} " not in text] == []


def test_set_up_commands_are_the_ones_that_ci_runs() -> None:
    lines = [b.text.strip() for b in blocks(README) if b.installs]
    assert len([x for x in lines if "canonicalize" in x]) == len([x for x in lines if "pytest" in x]) == 1
    assert all("\n" not in line for line in lines)
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "readme_command canonicalize" in script
    assert "readme_command pytest" in script


def test_dependencies_named_in_the_readme_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [line] = [b.text for b in blocks(README) if "--no-deps" in b.text]
    wanted = [d for d in project["dependencies"] if not d.startswith("onnxruntime")]
    assert re.findall(r"'([^']+)'", line) == wanted


def test_checks_named_for_contributors_are_those_of_ci() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace('"$venv/bin/', "").replace('"', "")
    checks = [b.text for b in blocks(ROOT / "CONTRIBUTING.md") if "ruff" in b.text and not b.installs]
    [block] = checks
    lines = [line for line in block.splitlines() if line.startswith(("ruff", "mypy"))]
    assert lines
    assert [line for line in lines if line not in script] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        place = (document.parent / path).resolve() if path else document
        assert place.exists(), f"{document.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", place.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, target
