"""Each notebook's panel in a real Chromium, in JupyterLab and in Notebook 7: by keyboard, by mouse, with a pen.

The copies hold the set-up cells and the panel's own (tagged so); test_notebooks runs the whole ones.
"""

import os
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
PANELS = [("lab", path.stem) for path in NOTEBOOKS]
PANELS += [("notebook", path.stem) for path in NOTEBOOKS if path.stem.startswith(("02", "05"))]
KEPT = {"setup", "parameters", "panel"}  # tags of the cells that a panel needs
SEVEN = ((0.3, 0.2), (0.7, 0.2), (0.45, 0.8))  # a stroke, in shares of the canvas
LIVE_STEPS = 180  # of the live training in notebook 04
SHORTCUTS = "xabmyrzdd"  # cut, insert above, below, merge or markdown, code, raw, undo, delete
SETTINGS = {
    "notebook-extension/tracker": '{"windowingMode": "none"}',  # all cells stay in the page
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
}
# What runs in the page: open a notebook in JupyterLab; run all its cells, or the last, without waiting; close it.
OPEN = "async path => { await jupyterapp.restored; await jupyterapp.commands.execute('docmanager:open', {path}); }"
RUN_ALL = """async () => {
    const notebook = jupyterapp.shell.currentWidget;
    await notebook.sessionContext.ready;
    await notebook.sessionContext.session.kernel.info;
    window.ran = false;
    jupyterapp.commands.execute("notebook:run-all-cells").then(() => { window.ran = true; });
    window.close_notebook = async () => { await notebook.sessionContext.shutdown(); notebook.dispose(); };
}"""
RUN_LAST = """() => {
    const notebook = jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = notebook.widgets.length - 1;
    jupyterapp.commands.execute("notebook:run-cell");
}"""
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
    """Copies of the notebooks, cut down to their panels; and 04 up to its live training."""
    folder = tmp_path_factory.mktemp("lab")
    for path in NOTEBOOKS:
        notebook = cut_down(path, lambda _, cell: KEPT & set(cell.metadata.get("tags", [])))
        nbformat.write(notebook, folder / path.name)
    (path,) = [path for path in NOTEBOOKS if path.stem.startswith("04")]
    tags = [cell.metadata.get("tags", []) for cell in nbformat.read(path, as_version=4).cells]
    (training,) = [place for place, names in enumerate(tags) if "training" in names]
    notebook = cut_down(path, lambda place, _: place <= training)
    nbformat.write(notebook, folder / "live.ipynb")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    """The address of a Jupyter server on the copies, for JupyterLab and Notebook 7 alike."""
    for name, text in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}"]
    command += ["--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True"]
    environment = os.environ | {
        f"JUPYTERLAB_{name.upper()}_DIR": str(folder / name) for name in ("settings", "workspaces")
    }
    # Chromium draws on the processor here. Two computing threads that wait for each other on a shared core slow down
    # tenfold and more; one does not.
    environment["OMP_NUM_THREADS"] = "1"
    with open(folder / "server.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120 * SECONDS // 1000):
            try:
                urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=1)
                break
            except OSError:
                assert process.poll() is None, (folder / "server.log").read_text(encoding="utf-8")
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def failures():
    """What scripts in the pages died of."""
    return []


@pytest.fixture(scope="module")
def pages(server, failures):
    """A page of JupyterLab, which takes longer to open than most panels, and one for Notebook 7."""
    if not CHROMIUM:
        reason = "no Chromium on this machine: install it, or name it in the variable CHROMIUM"
        if os.environ.get("DIFFAE_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        pages = {front: chromium.new_page(viewport={"width": 1366, "height": 768}) for front in ("lab", "notebook")}
        for page in pages.values():
            page.set_default_timeout(60 * SECONDS)
            page.on("pageerror", lambda error: failures.append(error.stack or str(error)))
        pages["lab"].goto(f"{server}/lab?token={TOKEN}")
        pages["lab"].wait_for_function("window.jupyterapp")
        yield pages
        chromium.close()


@pytest.fixture
def page(pages, server, failures, front, name):
    """The page of a front end in which all cells of a notebook are running.

    No script of the panels may fail in it: anywidget loads them from blobs.
    """
    page = pages[front]
    page.bring_to_front()
    if front == "notebook":
        page.goto(f"{server}/notebooks/{name}.ipynb?token={TOKEN}")
    else:
        page.evaluate(OPEN, f"{name}.ipynb")
    page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext")
    page.evaluate(RUN_ALL)
    yield page
    page.evaluate("close_notebook()")
    assert not [failure for failure in failures if "blob:" in failure]


def errors(page: Page) -> Locator:
    """What cells died of; JupyterLab shows it like other words on stderr."""
    outputs = page.locator("[data-mime-type='application/vnd.jupyter.stderr']")
    return outputs.filter(has_text="Traceback (most recent call last)")


def must_change(page: Page, picture: Locator, action) -> None:
    """Do the action and wait until the picture is another one; if it stays the same, the wait fails."""
    before = picture.get_attribute("src")
    action()
    page.wait_for_function("([image, before]) => image.src !== before", arg=[picture.element_handle(), before])


def press_shortcuts(page: Page, control: Locator) -> None:
    """Type letters that would change the notebook's cells: they stay with the control."""
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    for letter in SHORTCUTS:
        page.keyboard.press(letter)
    time.sleep(0.3)
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells
    assert control.evaluate("control => control === document.activeElement")


@pytest.mark.parametrize("front, name", PANELS)
def test_a_panel_by_keyboard_and_mouse(front, name, page):
    page.wait_for_function("window.ran", timeout=240 * SECONDS)
    assert errors(page).count() == 0
    panel = page.locator(".jp-Notebook .diffae-panel").first
    picture, track = panel.locator("img").first, panel.locator(".noUi-target:not([disabled])").first
    handle = track.locator(".noUi-handle")
    panel.scroll_into_view_if_needed()
    box = track.bounding_box()
    must_change(page, picture, lambda: track.click(position={"x": 0.8 * box["width"], "y": box["height"] / 2}))
    assert handle.evaluate("handle => handle === document.activeElement"), "a click on the track goes to its handle"
    must_change(page, picture, lambda: [page.keyboard.press("ArrowLeft") for _ in range(6)])
    press_shortcuts(page, handle)
    if panel.locator("select").count():
        drop_down = panel.locator("select").first
        drop_down.focus()
        must_change(page, picture, lambda: page.keyboard.press("ArrowDown"))
        press_shortcuts(page, drop_down)
    if folder := os.environ.get("DIFFAE_SCREENSHOTS"):
        time.sleep(1.5)
        page.screenshot(path=Path(folder) / f"{name}_{front}.png")
    if name.startswith("02"):
        must_change(page, picture, panel.locator(".widget-play button").first.click)
        shown = panel.element_handle()
        handle.focus()
        page.keyboard.press("Shift+Enter")
        page.wait_for_function("shown => !shown.isConnected", arg=shown)  # the cell ran again
    if name.startswith("05"):
        play_as_a_newcomer(page, panel, picture)
    assert errors(page).count() == 0 and page.locator(".diffae-error").count() == 0


def play_as_a_newcomer(page: Page, panel: Locator, picture: Locator) -> None:
    """Draw, choose a class, turn the handwriting, reset: by mouse, and then by keyboard alone."""
    assert panel.bounding_box()["height"] < 600, "the first view fits 768 pixels beside JupyterLab's own bars"
    digit, reset = panel.locator("select").first, panel.get_by_role("button", name="Reset")
    classes = panel.get_by_role("radio")
    is_drawn = "list => list.selectedOptions[0].text.startsWith('drawn')"
    draw_seven(page, panel.locator(".diffae-canvas canvas"))
    page.wait_for_function(is_drawn, arg=digit.element_handle())
    must_change(page, picture, panel.locator(".diffae-choices label").nth(1).click)
    assert classes.nth(1).is_checked()
    must_change(page, picture, lambda: page.keyboard.press("ArrowRight"))
    assert classes.nth(2).is_checked(), "arrow keys go from class to class"
    press_shortcuts(page, classes.nth(2))
    page.keyboard.press("Tab")
    must_change(page, picture, lambda: page.keyboard.press("ArrowLeft"))  # Tab leads to the handwriting
    panel.get_by_role("button", name="Another hand").focus()
    must_change(page, picture, lambda: page.keyboard.press("Enter"))
    reset.focus()
    page.keyboard.press("Enter")
    page.wait_for_function(is_drawn.replace("=> ", "=> !"), arg=digit.element_handle())
    more = panel.get_by_role("button", name="More")
    more.focus()
    page.keyboard.press("Enter")
    panel.get_by_text("diffusion time").wait_for()
    page.keyboard.press("Enter")
    panel.get_by_text("diffusion time").wait_for(state="hidden")


def draw_seven(page: Page, canvas: Locator) -> None:
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in SEVEN]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=8)
    page.mouse.up()


@pytest.mark.parametrize("front, name", [("lab", "live")])
def test_the_interrupt_button_stops_live_training_which_then_goes_on(page):
    page.locator(".jp-Notebook .jp-CodeCell").nth(-2).locator("img").nth(1).wait_for(timeout=240 * SECONDS)
    page.locator("[data-command='notebook:interrupt-kernel']").first.click()
    errors(page).wait_for()
    assert "KeyboardInterrupt" in errors(page).inner_text()
    page.wait_for_timeout(2 * SECONDS)  # a kernel drops what arrives right after an error
    page.evaluate(RUN_LAST)  # by command: pictures that still grow would move the cell from under a click
    page.get_by_text(f"{LIVE_STEPS} steps, ").wait_for(timeout=240 * SECONDS)
    assert not errors(page).all_inner_texts()
