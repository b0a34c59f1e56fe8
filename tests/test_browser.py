"""Each notebook's panel in a real Chromium, in JupyterLab and in Notebook 7: by keyboard, by mouse, with a pen.

The copies hold the set-up cells and the panel's own (tagged so); test_notebooks and nbmake run the whole ones.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Locator, Page, sync_playwright

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
TOKEN = "only-for-this-test"
ADDRESSES = {"lab": "lab/workspaces/{name}/tree/{name}.ipynb", "notebook": "notebooks/{name}.ipynb"}
PANELS = [("lab", path.stem) for path in NOTEBOOKS]
PANELS += [("notebook", path.stem) for path in NOTEBOOKS if path.stem.startswith(("02", "05"))]
RUNNING = "[...document.querySelectorAll('.jp-InputArea-prompt')].some(prompt => prompt.textContent.includes('*'))"
KEPT = {"setup", "parameters", "panel"}  # tags of the cells that a panel needs
SHORTCUTS = "xabmyrzdd"  # cut, insert above, below, merge or markdown, code, raw, undo, delete
SETTINGS = {
    "notebook-extension/tracker": '{"windowingMode": "none"}',  # all cells stay in the page
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
}
SECONDS = 1000 * int(os.environ.get("DIFFAE_BROWSER_PATIENCE", "1"))  # raise it on a busy machine


def cut_down(path: Path, keep) -> nbformat.NotebookNode:
    """The notebook with only the code cells that ``keep(place, cell)`` wants, without their outputs."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for place, cell in enumerate(notebook.cells) if cell.cell_type == "code" and keep(place, cell)]
    for cell in cells:
        cell.outputs, cell.execution_count = [], None
    notebook.cells = cells
    return notebook


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Copies of the notebooks, cut down to their panels."""
    folder = tmp_path_factory.mktemp("lab")
    for path in NOTEBOOKS:
        notebook = cut_down(path, lambda _, cell: KEPT & set(cell.metadata.get("tags", [])))
        nbformat.write(notebook, folder / path.name)
    return folder


@pytest.fixture(scope="module")
def server(folder):
    """The address of a Jupyter server on the copies, for JupyterLab and Notebook 7 alike."""
    for name, text in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}"]
    environment = os.environ | {
        f"JUPYTERLAB_{name.upper()}_DIR": str(folder / name) for name in ("settings", "workspaces")
    }
    # Chromium draws on the processor here. Two computing threads that wait for each other on a shared core slow down
    # tenfold and more; one does not.
    environment["OMP_NUM_THREADS"] = "1"
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120 * SECONDS // 1000):
            try:
                urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=1)
                break
            except OSError:
                assert process.poll() is None, (folder / "server.log").read_text()
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        reason = "no Chromium on this machine: install it, or name it in the variable CHROMIUM"
        if os.environ.get("DIFFAE_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    """A page in which no script of the panels fails: anywidget loads them from blobs."""
    page, failures = browser.new_page(viewport={"width": 1366, "height": 768}), []
    page.set_default_timeout(60 * SECONDS)
    page.on("pageerror", lambda error: failures.append(error.stack or str(error)))
    yield page
    page.close()
    assert not [failure for failure in failures if "blob:" in failure]


def wait_for_kernel(server: str) -> None:
    """Until the page's kernel answers, JupyterLab takes "Run All Cells" for an order to empty them."""
    for _ in range(240 * SECONDS // 1000):
        try:
            kernels = json.load(urllib.request.urlopen(f"{server}/api/kernels?token={TOKEN}", timeout=5))
        except OSError:  # the server stumbles over a kernel that is just starting or going (HTTP 500)
            kernels = []
        if any(kernel["connections"] and kernel["execution_state"] == "idle" for kernel in kernels):
            return time.sleep(1)  # the page hears of it a moment later
        time.sleep(0.25)
    pytest.fail("no kernel was ready within a minute")


def open_and_run_all(page: Page, server: str, front: str, name: str) -> None:
    page.goto(f"{server}/{ADDRESSES[front].format(name=name)}?token={TOKEN}")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", state="attached")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", state="attached")
    wait_for_kernel(server)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def errors(page: Page) -> Locator:
    """What cells died of; JupyterLab shows it like other words on stderr."""
    outputs = page.locator("[data-mime-type='application/vnd.jupyter.stderr']")
    return outputs.filter(has_text="Traceback (most recent call last)")


def changes(page: Page, picture: Locator, action) -> bool:
    """Whether the picture becomes another one after the action."""
    before = picture.get_attribute("src")
    action()
    page.wait_for_function("([image, before]) => image.src !== before", arg=[picture.element_handle(), before])
    return True


def press_shortcuts(page: Page, control: Locator) -> None:
    """Type letters that would change the notebook's cells: they stay with the control."""
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    for letter in SHORTCUTS:
        page.keyboard.press(letter)
    time.sleep(0.3)
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells
    assert control.evaluate("control => control === document.activeElement")


@pytest.mark.parametrize("front, name", PANELS)
def test_a_panel_by_keyboard_and_mouse(front, name, server, page):
    open_and_run_all(page, server, front, name)
    panel = page.locator(".jp-Notebook .diffae-panel").first
    panel.or_(errors(page)).first.wait_for(timeout=240 * SECONDS)
    assert errors(page).count() == 0
    page.wait_for_function(f"!({RUNNING})", timeout=240 * SECONDS)
    picture, track = panel.locator("img").first, panel.locator(".noUi-target:not([disabled])").first
    handle = track.locator(".noUi-handle")
    panel.scroll_into_view_if_needed()
    box = track.bounding_box()
    assert changes(page, picture, lambda: track.click(position={"x": 0.8 * box["width"], "y": box["height"] / 2}))
    assert handle.evaluate("handle => handle === document.activeElement"), "a click on the track goes to its handle"
    assert changes(page, picture, lambda: [page.keyboard.press("ArrowLeft") for _ in range(6)])
    press_shortcuts(page, handle)
    if panel.locator("select").count():
        drop_down = panel.locator("select").first
        drop_down.focus()
        assert changes(page, picture, lambda: page.keyboard.press("ArrowDown"))
        press_shortcuts(page, drop_down)
    if folder := os.environ.get("DIFFAE_SCREENSHOTS"):
        time.sleep(1.5)
        page.screenshot(path=Path(folder) / f"{name}_{front}.png")
    if name.startswith("02"):
        assert changes(page, picture, panel.locator(".widget-play button").first.click)
        shown = panel.element_handle()
        handle.focus()
        page.keyboard.press("Shift+Enter")
        page.wait_for_function("shown => !shown.isConnected", arg=shown)  # the cell ran again
    if name.startswith("05"):
        assert changes(page, picture, lambda: draw_seven(page, panel.locator(".diffae-canvas canvas")))
        assert "drawn" in panel.locator("select").first.evaluate("list => list.selectedOptions[0].text")
    assert errors(page).count() == 0 and page.locator(".diffae-error").count() == 0


def draw_seven(page: Page, canvas: Locator) -> None:
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    points = [
        (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in ((0.3, 0.2), (0.7, 0.2), (0.45, 0.8))
    ]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=8)
    page.mouse.up()


def test_the_interrupt_button_stops_live_training_which_then_goes_on(server, folder, page):
    """Notebook 04 up to its live training, shortened."""
    (path,) = [path for path in NOTEBOOKS if path.stem.startswith("04")]
    tags = [cell.metadata.get("tags", []) for cell in nbformat.read(path, as_version=4).cells]
    (training,) = [place for place, names in enumerate(tags) if "training" in names]
    notebook = cut_down(path, lambda place, _: place <= training)
    for cell in notebook.cells:
        cell.source = re.sub(r"^LIVE_STEPS = \d+", "LIVE_STEPS = 120", cell.source)
    nbformat.write(notebook, folder / "interrupted.ipynb")
    open_and_run_all(page, server, "lab", "interrupted")
    page.locator(".jp-Notebook .jp-CodeCell").nth(-2).locator("img").nth(1).wait_for(timeout=240 * SECONDS)
    page.locator("[data-command='notebook:interrupt-kernel']").first.click()
    errors(page).wait_for()
    assert "KeyboardInterrupt" in errors(page).inner_text()
    page.locator(".jp-Notebook .jp-CodeCell").last.locator(".jp-InputArea-editor").click()
    page.keyboard.press("Control+Enter")
    page.get_by_text("120 steps, ").wait_for(timeout=240 * SECONDS)
    assert errors(page).count() == 0
