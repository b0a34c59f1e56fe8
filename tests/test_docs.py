"""The tables in the documents are what was measured, and nothing else."""

import json

import pytest
import render
from measure import RESULTS

TABLES = render.load()
DOCUMENTS = render.documents()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(render.ROOT)))
def test_each_table_is_the_one_rendered_from_its_result(path):
    text = path.read_text(encoding="utf-8")
    assert render.render(text, TABLES) == text, "run: make render"
    assert text.count("<!-- table:") == text.count("<!-- end -->") == len(render.BLOCK.findall(text))


def test_every_result_is_shown_in_a_document_and_no_name_is_unknown():
    shown = {match["name"] for path in DOCUMENTS for match in render.BLOCK.finditer(path.read_text(encoding="utf-8"))}
    assert set(TABLES) <= shown
    assert len(TABLES) == sum(
        len(json.loads(path.read_text(encoding="utf-8"))["tables"]) for path in RESULTS.glob("*.json")
    )


def test_a_changed_number_changes_its_block_alone_and_other_weights_and_missing_results_are_said():
    result = {"command": "c", "machine": "m", "commit": "1", "weights": "none"}
    table = {"columns": ["case", "value"], "formats": ["", "{:.2f}"], "rows": [["a", 1.0]], "facts": {"digits": 1000}}
    text = "before\n<!-- table: one -->\nold\n<!-- end -->\nafter 1.00\n"
    first = render.render(text, {"one": (table, result)})
    assert "| a | 1.00 |" in first and "digits 1,000; `c`; m; commit 1" in first and "old" not in first
    second = render.render(first, {"one": (table | {"rows": [["a", 2.0]]}, result)})
    assert second == first.replace("| a | 1.00 |", "| a | 2.00 |")
    assert "other weights (0123456789ab)" in render.markdown(table, result | {"weights": "0123456789ab"})
    assert render.MISSING in render.render(text, {})


def test_cells_take_their_columns_format():
    assert render.cell([0.0371, 99.62], "{:.3f} ({:.1f})") == "0.037 (99.6)"
    assert (render.cell(None, "{:.1f}"), render.cell("as it is", "{:.1f}")) == ("", "as it is")
