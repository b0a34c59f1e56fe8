"""The notebooks as committed, and as run on the embedded sample with every exercise solved.

nbmake runs them too, as they are, on whatever data there is; but it does not see an error inside a widget.
"""

import ast
import re
import statistics
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shows(cell, kind):
    return any(kind in output.get("data", {}) for output in cell.outputs)


def test_there_are_five_in_order_and_two_appendices():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "A1", "A2"]


@every_notebook
def test_what_is_committed(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert notebook.metadata.kernelspec.name == "python3" and "widgets" not in notebook.metadata
    assert path.stat().st_size < 1_000_000
    assert sum(shows(cell, "image/png") for cell in cells) >= 4, "pictures, for those who read without running"
    text = path.read_text()
    assert not re.search(r"/home/|/root/|/Users/|/work/|/tmp/|[A-Z]:\\\\", text), "a path of someone's machine"
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)


@every_notebook
def test_cells_are_short_and_the_text_is_long_enough(path):
    notebook = nbformat.read(path, as_version=4)
    lines = [len(cell.source.splitlines()) for cell in code_cells(notebook)]
    assert statistics.median(lines) <= 8 and max(lines) <= 20
    words = sum(len(cell.source.split()) for cell in notebook.cells if cell.cell_type == "markdown")
    assert 1000 <= words <= 2500


@every_notebook
def test_a_static_picture_stands_before_each_panel(path):
    cells = code_cells(nbformat.read(path, as_version=4))
    places = [place for place, cell in enumerate(cells) if shows(cell, WIDGET_VIEW)]
    assert places
    for place in places:
        assert any(shows(cell, "image/png") for cell in cells[max(0, place - 2) : place])


@every_notebook
def test_asserts_check_what_the_text_claims(path):
    sources = [cell.source for cell in code_cells(nbformat.read(path, as_version=4))]
    asserts = sum(isinstance(node, ast.Assert) for source in sources for node in ast.walk(ast.parse(source)))
    assert asserts >= 6


def errors_of(notebook):
    """Errors that a run left in cells, in Output widgets, or in words in a panel."""
    errors = [output.ename for cell in code_cells(notebook) for output in cell.outputs if output.output_type == "error"]
    for widget in notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {}).values():
        state = widget["state"]
        errors += [output["ename"] for output in state.get("outputs", ()) if output["output_type"] == "error"]
        if widget["model_name"] == "HTMLModel" and "#b00020" in state.get("value", ""):
            errors.append(state["value"])
    return errors


def execute(notebook, folder):
    NotebookClient(
        notebook, timeout=240, resources={"metadata": {"path": str(folder)}}, store_widget_state=True
    ).execute()
    return notebook


def solved(notebook):
    """The notebook with each exercise's answer replaced by its folded solution."""
    exercise = None
    for cell in notebook.cells:
        if "exercise" in cell.metadata.get("tags", ()):
            exercise = cell
        solution = re.search(r"<details><summary>Solution</summary>\s*```python\n(.*?)```", cell.source, re.DOTALL)
        if solution:
            exercise.source, exercise = solution[1], None
    assert exercise is None, "an exercise without a solution"
    return notebook


@every_notebook
def test_runs_on_the_embedded_sample_with_all_exercises_solved(path, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("where a folder should be: nothing can be downloaded to here")
    monkeypatch.setenv("DIFFAE_DATA_DIR", str(tmp_path / "file"))
    notebook = execute(solved(nbformat.read(path, as_version=4)), tmp_path)
    assert errors_of(notebook) == []
    for kept, run in zip(code_cells(nbformat.read(path, as_version=4)), code_cells(notebook)):
        if "getsource" in kept.source:  # of the package as it is now
            assert kept.outputs[0].data["text/plain"] == run.outputs[0].data["text/plain"], kept.source
    checks = [cell for cell in notebook.cells if "check" in cell.metadata.get("tags", ())]
    assert len(checks) >= 2
    for cell in checks:
        assert cell.outputs[0].text.startswith("Right"), cell.source


BROKEN = {
    "a panel": "from diffae_core import *\nfrom diffae_core import widgets\n"
    "panel = widgets.NoisePanel(load_sample('test'))\n"
    "panel.draw = None\npanel.controls['time'].value = 0.9",
    "interactive_output": "import ipywidgets as w\ns = w.IntSlider()\nw.interactive_output(lambda x: 1 / x, {'x': s})",
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_handler_is_seen(what, tmp_path):
    """The trap itself: the run is green, the cells hold no error, and the widget does."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(BROKEN[what])])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    execute(notebook, tmp_path)
    assert not any(output.output_type == "error" for output in notebook.cells[0].outputs)
    assert errors_of(notebook)
