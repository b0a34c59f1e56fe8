"""The notebooks as committed, and their panels and solved exercises on the embedded sample.

nbmake runs the whole of them, as they are, on whatever data there is; but it does not see an error inside a widget.
"""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import PythonExporter

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, *tags):
    return [cell for cell in code_cells(notebook) if not set(tags).isdisjoint(cell.metadata.get("tags", ()))]


def shows(cell, kind):
    return any(kind in output.get("data", {}) for output in cell.outputs)


def errors_of(notebook):
    """Errors that a run left in cells, in Output widgets, or in words in a panel."""
    errors = [output.ename for cell in code_cells(notebook) for output in cell.outputs if output.output_type == "error"]
    for widget in notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {}).values():
        state = widget["state"]
        errors += [output["ename"] for output in state.get("outputs", ()) if output["output_type"] == "error"]
        if widget["model_name"] == "HTMLModel" and "diffae-error" in state.get("value", ""):
            errors.append(state["value"])
    return errors


def execute(notebook, folder):
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()


def solved(notebook):
    """The notebook with each exercise's answer replaced by its folded solution."""
    exercise = None
    for cell in notebook.cells:
        if "exercise" in cell.metadata.get("tags", ()):
            assert exercise is None, "an exercise without a solution"
            exercise = cell
        solution = re.search(r"<details><summary>Solution</summary>\s*```python\n(.*?)```", cell.source, re.DOTALL)
        if solution:
            exercise.source, exercise = solution[1], None
    assert exercise is None, "an exercise without a solution"
    return notebook


def test_panels_and_exercises_need_the_set_up_only_and_the_solutions_pass_on_the_sample(
    notebook, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("where a folder should be: nothing can be downloaded to here")
    monkeypatch.setenv("DIFFAE_DATA_DIR", str(tmp_path / "file"))
    notebook.cells = tagged(solved(notebook), "parameters", "setup", "panel", "exercise", "check")
    execute(notebook, tmp_path)
    assert errors_of(notebook) == []
    checks = tagged(notebook, "check")
    assert checks
    for cell in checks:
        assert "Right" in "".join(output.get("text", "") for output in cell.outputs), cell.source


def test_there_are_five_in_order_and_two_appendices():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "A1", "A2"]


def test_what_is_committed(path, notebook):
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert notebook.metadata.kernelspec.name == "python3" and "widgets" not in notebook.metadata
    assert path.stat().st_size < 1_000_000
    assert not re.search(r"/home/|/root/|/Users/|/work/|/tmp/|[A-Z]:\\\\", path.read_text(encoding="utf-8")), (
        "someone's machine"
    )
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
    places = [place for place, cell in enumerate(cells) if shows(cell, WIDGET_VIEW)]
    assert places
    for place in places:  # of panels
        assert any(shows(cell, "image/png") for cell in cells[max(0, place - 2) : place]), "no static picture before it"
        assert "panel" in cells[place].metadata.get("tags", ()), "the browser's test finds panels by this tag"


def test_the_constants_are_tagged_and_an_exported_script_can_run(notebook):
    (constants,) = tagged(notebook, "parameters")
    assert all(isinstance(line, ast.Assign) for line in ast.parse(constants.source).body)
    script = ast.parse(PythonExporter().from_notebook_node(notebook)[0])
    used = {node.id for node in ast.walk(script) if isinstance(node, ast.Name)}
    imports = [node for node in ast.walk(script) if isinstance(node, ast.Import | ast.ImportFrom)]
    imported = {alias.asname or alias.name for node in imports for alias in node.names}
    assert {"display", "get_ipython"} & used <= imported, "outside of Jupyter these are not there by themselves"


def test_source_shown_is_the_package_s_own(path, notebook):
    """Outputs of ``inspect.getsource`` are of the package as it is now."""
    scope = {}
    exec("import inspect\nimport diffae_core as core\nfrom IPython.display import Code", scope)
    for cell in [cell for cell in code_cells(notebook) if "getsource" in cell.source]:
        lines = ast.parse(cell.source).body
        exec(compile(ast.Module(lines[:-1], []), path.name, "exec"), scope)
        shown = eval(compile(ast.Expression(lines[-1].value), path.name, "eval"), scope)
        assert cell.outputs[0].data["text/plain"].rstrip() == shown.data.rstrip(), cell.source


BROKEN = (
    "import diffae_core as core\nfrom diffae_core.panels import NoisePanel\n"
    "panel = NoisePanel(core.load_sample('test'))\n"
    "panel.draw = None\npanel.controls['time'].value = 0.9",
    "import ipywidgets as w\ns = w.IntSlider()\nw.interactive_output(lambda x: 1 / x, {'x': s})",
)


def test_a_broken_handler_is_seen(tmp_path):
    """The trap itself: the run is green, the cells hold no error, and each widget does."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in BROKEN])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    execute(notebook, tmp_path)
    assert not any(output.output_type == "error" for cell in notebook.cells for output in cell.outputs)
    assert len(errors_of(notebook)) == len(BROKEN)
