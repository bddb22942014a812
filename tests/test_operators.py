"""The tables of what is known of operators: one entry for each key, the newest not too new; their page."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import onnx_ir as ir
import pytest

from onnxcanon.graph.operators import BOTH, CONTRIB, STANDARD, Table, domain_of
from onnxcanon.normalform.engine import Rules
from onnxcanon.normalform.rules import RULES


def test_a_second_entry_is_refused() -> None:
    table: Table[str] = Table("shapes")
    table.enter("first", "Split", domain=BOTH)
    with pytest.raises(ValueError, match=r"two entries for com.microsoft::Split of version 1 .* shapes"):
        table.enter("second", "Split", domain=CONTRIB)


def test_the_newest_entry_that_is_not_too_new_is_found() -> None:
    table: Table[str] = Table("shapes")
    table.enter("new", "Split", since=13)
    table.enter("old", "Split", since=2)
    found = {version: table.find(STANDARD, "Split", version) for version in (1, 2, 12, 13, 99)}
    assert found == {1: None, 2: "old", 12: "old", 13: "new", 99: "new"}
    table.enter("first", "Split")
    assert table.find(STANDARD, "Split", 0) == "first"  # the domain is not imported
    assert table.find(CONTRIB, "Split", 13) is None


def test_both_names_of_the_standard_are_one() -> None:
    table: Table[str] = Table("shapes")
    table.enter("entry", "Relu")
    node = ir.node("Relu", [ir.Value(name="x")], domain="ai.onnx")
    assert (table.of(node, 14), domain_of(node)) == ("entry", STANDARD)


def test_patterns_are_tried_in_the_order_of_their_families_whichever_comes_first() -> None:
    def rule(family: str, name: str):  # type: ignore[no-untyped-def]  # stands for a function of another file
        def function(g: object, node: object) -> None: ...

        function.__module__, function.__name__ = f"rules.{family}", name
        return function

    rules = Rules("normal forms", ("early", "late"))
    for family, name in (("late", "a"), ("early", "c"), ("late", "b"), ("early", "b")):
        rules("Add")(rule(family, name))
    rules()(rule("late", "z"))
    node = ir.node("Add", [ir.Value(name="x"), ir.Value(name="y")])
    order = [(f.__module__[6:], f.__name__) for f in rules.of(node, 14)]
    assert order == [("late", "z"), ("early", "c"), ("early", "b"), ("late", "a"), ("late", "b")]
    with pytest.raises(ValueError, match="two entries"):
        rules("Add")(rule("late", "a"))
    with pytest.raises(ValueError, match="no place"):
        rules("Add")(rule("other", "a"))


def test_slices_are_spelled_out_before_packed_products_are_taken_apart() -> None:
    """The order that normal forms were first made in; another one makes others."""
    node = ir.node("Slice", [ir.Value(name="x")])
    names = [rule.__name__ for rule in RULES.of(node, 21)]
    order = ["explicit", "before_movement", "part_of_product", "part_of_parameters", "rearranged_fill"]
    assert names[-5:] == order


def test_the_page_of_operators_says_what_the_tables_say() -> None:
    """`ONNXCANON_UPDATE_OPERATORS=1 pytest tests/test_operators.py` writes it anew."""
    root = Path(__file__).parents[1]
    written, page = root / "docs" / "operators.md", runpy.run_path(str(root / "tools" / "operators_page.py"))
    text = page["page"]()
    if "ONNXCANON_UPDATE_OPERATORS" in os.environ:
        written.write_text(text, encoding="utf-8")
    assert written.read_text(encoding="utf-8") == text
