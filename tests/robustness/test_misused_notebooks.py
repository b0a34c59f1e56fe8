"""Notebooks as people use them: restarted in the middle, sections backwards, cells twice, two at once, little memory.

The short edition shows that the experiment sees what goes wrong; the long one runs every notebook in these ways.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError

long = pytest.mark.long
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (2 * 2**30, 2 * 2**30))"  # Linux keeps to it


class Restart:
    """In place of a cell: the kernel is restarted, and forgets everything."""


def run_cells(path: Path, folder: Path, order: list) -> tuple[str, list[str]]:
    """Run cells of a notebook in one kernel, in ``folder``, in any order.

    Args:
        path: the notebook.
        folder: where the kernel starts.
        order: numbers of code cells, lines of code, and :class:`Restart`.

    Returns:
        What went wrong, empty if nothing; and what each of the lines of code printed.
    """
    notebook, printed = nbformat.read(path, as_version=4), []
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    notebook.cells = []
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    with client.setup_kernel():
        for what in order:
            if what is Restart:
                client.kc.stop_channels()
                run_sync(client.km.restart_kernel)(now=True)
                client.start_new_kernel_client()
                continue
            cell = nbformat.v4.new_code_cell(what if isinstance(what, str) else sources[what])
            notebook.cells.append(cell)
            try:
                client.execute_cell(cell, len(notebook.cells) - 1)
            except (CellControlSignal, DeadKernelError) as error:  # an error in a cell, a cell without end, a crash
                reason = getattr(error, "evalue", "") or str(error)
                return f"{getattr(error, 'ename', type(error).__name__)} in cell {what}: {reason}"[:200], printed
            if isinstance(what, str):
                printed += [output.text for output in cell.outputs if output.output_type == "stream"]
    return "", printed


def sections(path: Path) -> list[list[int]]:
    """The numbers of the code cells in each section of a notebook."""
    parts, number = [[]], 0
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            parts[-1].append(number)
            number += 1
        elif "\n## " in f"\n{cell.source}":
            parts.append([])
    return parts


def all_cells(path: Path) -> list[int]:
    return [number for part in sections(path) for number in part]


def test_the_experiment_sees_what_a_kernel_forgets_and_what_fails(tmp_path):
    order = ["x = 1", Restart, "print('x' in globals())", "print(1 / 0)", "print('never')"]
    error, printed = run_cells(NOTEBOOKS[1], tmp_path, order)
    assert error.startswith("ZeroDivisionError in cell print(1 / 0)") and printed == ["False\n"]


every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@long
@every_notebook
def test_half_of_it_then_restarted_then_all_then_its_sections_backwards(path):
    cells = all_cells(path)
    backwards = [number for part in reversed(sections(path)) for number in part]
    assert run_cells(path, path.parent, [*cells[: len(cells) // 2], Restart, *cells, *backwards])[0] == ""


@long
@every_notebook
def test_each_cell_twice_in_another_folder(path, tmp_path):
    assert run_cells(path, tmp_path, [number for number in all_cells(path) for _ in range(2)])[0] == ""


@long
@every_notebook
def test_in_two_gigabytes(path):
    assert run_cells(path, ROOT, [LIMIT, *all_cells(path)])[0] == ""
    assert run_cells(path, ROOT, [LIMIT, "bytearray(3 * 2**30)"])[0].startswith("MemoryError"), "the limit holds"


@long
@pytest.mark.skipif(not Path("/sys").is_dir(), reason="needs a folder that nobody can write to")
@pytest.mark.parametrize(
    "pair", [*zip(NOTEBOOKS[:4], reversed(NOTEBOOKS))], ids=lambda pair: f"{pair[0].stem} {pair[1].stem}"
)
def test_two_at_once_where_nothing_can_be_written(pair):
    with ThreadPoolExecutor(2) as pool:
        assert [*pool.map(lambda path: run_cells(path, Path("/sys"), all_cells(path))[0], pair)] == ["", ""]
