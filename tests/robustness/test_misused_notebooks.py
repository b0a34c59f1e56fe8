"""Notebooks as people use them: restarted in the middle, sections backwards, cells twice; and little memory.

The short edition shows that the experiment sees what goes wrong; the long one misuses each notebook in one way.
"""

from pathlib import Path

import nbformat
import pytest
from common import report
from conftest import ROOT
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (2 * 2**30, 2 * 2**30))"  # Linux keeps to it
RESTART = "in place of a cell: the kernel is restarted, and forgets everything"


def run_cells(folder: Path, cells: list[str]) -> tuple[str, list[str]]:
    """Run cells in one kernel that starts in ``folder``: what went wrong, empty if nothing; and what was printed."""
    notebook, printed = nbformat.v4.new_notebook(), []
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}})
    with client.setup_kernel():
        for source in cells:
            if source == RESTART:
                client.kc.stop_channels()
                run_sync(client.km.restart_kernel)(now=True)
                client.start_new_kernel_client()
                continue
            notebook.cells.append(cell := nbformat.v4.new_code_cell(source))
            try:
                client.execute_cell(cell, len(notebook.cells) - 1)
            except (CellControlSignal, DeadKernelError) as error:  # an error in a cell, a cell without end, a crash
                return f"{getattr(error, 'ename', type(error).__name__)} in {source!r}: {error}"[:500], printed
            printed += [output.text for output in cell.outputs if output.output_type == "stream"]
    return "", printed


def sections(path: Path) -> list[list[str]]:
    """The code cells of each section of a notebook."""
    parts = [[]]
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            parts[-1].append(cell.source)
        elif "\n## " in f"\n{cell.source}":
            parts.append([])
    return parts


def test_the_experiment_sees_what_a_kernel_forgets_and_what_fails(tmp_path):
    cells = ["x = 1", RESTART, LIMIT, "print('x' in globals())", "bytearray(3 * 2**30)", "print('never')"]
    error, printed = run_cells(tmp_path, cells)
    assert error.startswith("MemoryError in 'bytearray") and printed == ["False\n"]


def half_then_restarted(parts):
    cells = sum(parts, [])
    return [LIMIT, *cells[: len(cells) // 2], RESTART, LIMIT, *cells]


def cells_twice(parts):
    return [LIMIT, *(cell for part in parts for cell in part for _ in range(2))]


def sections_backwards(parts):
    return [LIMIT, *sum(parts + parts[::-1], [])]


WAYS = {
    half_then_restarted: "half of it, restarted, all of it",
    cells_twice: "each cell twice",
    sections_backwards: "all of it, then its sections backwards",
}


@pytest.mark.long
@pytest.mark.skipif(not Path("/sys").is_dir(), reason="needs a folder that nobody can write to")
@pytest.mark.parametrize("number", range(len(NOTEBOOKS)), ids=lambda number: NOTEBOOKS[number].stem)
def test_misused_in_two_gigabytes_where_nothing_can_be_written(number):
    path, way = NOTEBOOKS[number], [*WAYS][number % len(WAYS)]
    assert run_cells(Path("/sys"), way(sections(path)))[0] == ""
    report("notebooks", f"{path.stem}: {WAYS[way]}", 1, "runs")
