"""Each notebook in a real JupyterLab in a real Chromium: run it, move a slider by keyboard, see the picture change."""

import json
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
from playwright.sync_api import sync_playwright

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
TOKEN = "only-for-this-test"
COUNT = "print(len(losses), 'of', run.step, 'steps went by')"
RUNNING = "[...document.querySelectorAll('.jp-InputArea-prompt')].some(prompt => prompt.textContent.includes('*'))"
SETTINGS = {
    "notebook-extension/tracker": '{"windowingMode": "none"}',  # all cells stay in the page
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Copies of the notebooks."""
    folder = tmp_path_factory.mktemp("lab")
    for path in NOTEBOOKS:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def lab(folder):
    """The address of a JupyterLab on the copies."""
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
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=1)
                break
            except OSError:
                assert server.poll() is None, (folder / "server.log").read_text()
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)


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


def wait_for_kernel(lab):
    """Until the page's kernel answers, JupyterLab takes "Run All Cells" for an order to empty them."""
    for _ in range(240):
        try:
            kernels = json.load(urllib.request.urlopen(f"{lab}/api/kernels?token={TOKEN}", timeout=5))
        except OSError:  # the server stumbles over a kernel that is just starting or going (HTTP 500)
            kernels = []
        if any(kernel["connections"] and kernel["execution_state"] == "idle" for kernel in kernels):
            return time.sleep(1)  # the page hears of it a moment later
        time.sleep(0.25)
    pytest.fail("no kernel was ready within a minute")


def open_and_run_all(page, lab, name):
    page.goto(f"{lab}/lab/workspaces/{name}/tree/{name}.ipynb?token={TOKEN}")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000, state="attached")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=60_000, state="attached")
    wait_for_kernel(lab)
    choose(page, "Run All Cells")


def errors(page):
    """What cells died of; JupyterLab shows it like other words on stderr."""
    outputs = page.locator("[data-mime-type='application/vnd.jupyter.stderr']")
    return outputs.filter(has_text="Traceback (most recent call last)")


def choose(page, item):
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name=item, exact=True).click()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_run_all_and_move_a_slider_by_keyboard(path, lab, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page_errors = []
    page.on("pageerror", lambda error: page_errors.append(str(error)))
    open_and_run_all(page, lab, path.stem)
    handle = page.locator(".jp-Notebook .widget-vbox .noUi-handle").first
    handle.wait_for(timeout=240_000)
    page.wait_for_function(f"!({RUNNING})", timeout=240_000)

    picture = page.locator(".jp-Notebook img.widget-image").first
    before = picture.get_attribute("src")
    handle.scroll_into_view_if_needed()
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "([image, before]) => image.src !== before", arg=[picture.element_handle(), before], timeout=30_000
    )
    if folder := os.environ.get("DIFFAE_SCREENSHOTS"):
        time.sleep(1.5)
        page.screenshot(path=Path(folder) / f"{path.stem}_panel.png")
    panel = page.locator(".jp-Notebook .widget-vbox").first.bounding_box()
    assert panel["width"] <= 1200 and panel["height"] <= 700
    assert errors(page).count() == 0
    assert page.locator("b[style*='b00020']").count() == 0
    assert page_errors == []
    page.close()


def test_the_interrupt_button_stops_live_training_which_then_goes_on(lab, folder, browser):
    """Notebook 04 up to its live training, shortened, with a cell behind it that counts the steps."""
    notebook = nbformat.read(folder / "04_ddim_training.ipynb", as_version=4)
    places = [place for place, cell in enumerate(notebook.cells) if cell.source.startswith("for record in run:")]
    notebook.cells = [*notebook.cells[: places[0] + 1], nbformat.v4.new_code_cell(COUNT)]
    knobs = notebook.cells[3]
    assert "LIVE_STEPS = 320" in knobs.source
    knobs.source = knobs.source.replace("LIVE_STEPS = 320", "LIVE_STEPS = 120")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    nbformat.write(notebook, folder / "interrupted.ipynb")
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    open_and_run_all(page, lab, "interrupted")
    page.locator(".jp-Notebook .jp-OutputArea img").nth(1).wait_for(timeout=240_000)  # the first samples
    page.locator("[data-command='notebook:interrupt-kernel']").first.click()
    errors(page).wait_for(timeout=60_000)
    assert "KeyboardInterrupt" in errors(page).inner_text()
    page.locator(".jp-Notebook .jp-CodeCell").nth(-2).locator(".jp-InputArea-editor").click()
    choose(page, "Run Selected Cell and All Below")
    page.get_by_text("120 of 120 steps went by").wait_for(timeout=240_000)
    assert errors(page).count() == 0
    page.close()
