"""The page that runs the models in the browser (docs/play): its arithmetic in Node, and the page itself in Chromium."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, sync_playwright

import diffae_core as core
from diffae_core.panels.canvas import digit_of_strokes

ROOT = Path(__file__).parent.parent
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
SECONDS = 1000 * int(os.environ.get("DIFFAE_BROWSER_PATIENCE", "1"))  # raise it on a busy machine
THREE = ((0.3, 0.25), (0.5, 0.15), (0.66, 0.28), (0.46, 0.47), (0.68, 0.64), (0.52, 0.86), (0.28, 0.76))
READY = "document.documentElement.dataset.state === 'ready'"
# A canvas of dark ink on light paper as 784 numbers, ink 1
INK = """canvas => Array.from(canvas.getContext("2d").getImageData(0, 0, 28, 28).data)
    .filter((_, i) => i % 4 === 0).map(value => 1 - value / 255)"""


def need(program: str | None, name: str) -> None:
    """Skip the test where a program is missing; fail where it must be there."""
    if program:
        return
    reason = f"no {name} on this machine"
    pytest.fail(reason) if os.environ.get("DIFFAE_REQUIRE_BROWSER") else pytest.skip(reason)


def velocity_denoiser(x: torch.Tensor, times: torch.Tensor, _: None) -> tuple[torch.Tensor, torch.Tensor]:
    """The denoiser of tests/play/sampler.test.mjs."""
    return core.schedule.from_velocity(x, torch.sin(2 * x) + times[:, None], *core.CosineSchedule().rates(times, 2))


def numbers_from_the_package() -> dict:
    x_T, other = (torch.randn(1, 6, generator=core.seeded(seed)) for seed in (1, 3))
    uniform, quadratic = core.step_times(5), core.step_times(5, "quadratic")
    signal_rates, noise_rates = core.CosineSchedule().rates(uniform)
    generator = core.seeded(2)
    fresh_noise = [torch.randn(1, 6, generator=generator) for _ in range(5)]
    steps = [{"x_t": x_t, "x_0": x_0} for x_t, x_0 in core.ddim_steps(velocity_denoiser, x_T, quadratic)]

    def sampled(eta: float) -> torch.Tensor:
        return core.ddim_sample(velocity_denoiser, x_T, uniform, eta=eta, generator=core.seeded(2))

    def inverted(corrections: int) -> torch.Tensor:
        return core.ddim_invert(velocity_denoiser, x_T, quadratic, corrections=corrections)

    return {
        "x_T": x_T,
        "other": other,
        "uniform": uniform,
        "quadratic": quadratic,
        "signal_rates": signal_rates,
        "noise_rates": noise_rates,
        "fresh_noise": fresh_noise,
        "steps": steps,
        "with_eta": [(eta, sampled(eta)) for eta in (0.5, 1.0)],
        "inverted": [(corrections, inverted(corrections)) for corrections in (0, 1, 3)],
        "lerp": core.lerp(x_T, other, 0.3),
        "slerp": core.slerp(x_T, other, 0.3),
        "turn": core.turn(x_T, 0.7, core.seeded(3)),
    }


def test_the_arithmetic_in_node_is_the_packages(tmp_path):
    need(node := shutil.which("node"), "Node.js")
    expected = tmp_path / "expected.json"
    expected.write_text(json.dumps(numbers_from_the_package(), default=lambda tensor: tensor.flatten().tolist()))
    files = sorted((ROOT / "tests" / "play").glob("*.test.mjs"))
    command = [node, "--test", *files]
    finished = subprocess.run(command, env=os.environ | {"EXPECTED": str(expected)}, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of the page, built from the shipped weights and served as `make play` does it."""
    need(shutil.which("npm"), "npm")
    command = [sys.executable, ROOT / "docs" / "play" / "build.py", tmp_path_factory.mktemp("site"), "--serve"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        output = ""
        while not (found := re.search(r"Open (http://127.0.0.1:\d+/docs/play/)", output)):
            line = process.stdout.readline()
            assert line, output
            output += line
        assert float(re.search(r"([\d.]+) MB as served with gzip", output)[1]) < 15
        yield found[1]
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def chromium():
    need(CHROMIUM, "Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, address):
    """Opens the page with some state, and waits until it is ready; in the end, nothing may have gone wrong in it.

    A file beside the page, in its place, is enough for a test of single functions.
    """
    problems, requests, contexts = [], [], []

    def open_page(path: str = "", **settings) -> Page:
        contexts.append(chromium.new_context(**{"viewport": {"width": 1366, "height": 768}} | settings))
        page = contexts[-1].new_page()
        page.set_default_timeout(60 * SECONDS)
        page.on("pageerror", lambda error: problems.append(error.stack or str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: requests.append(request.url))
        page.route("**/favicon.ico", lambda route: route.fulfill(status=204))  # a file alone names no icon
        page.goto(address + path)
        if not path.endswith(".json"):
            page.wait_for_function(READY)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not problems
    assert not [url for url in requests if not url.startswith((address, "data:"))]


def pictures(page: Page, selector: str) -> torch.Tensor:
    """What canvases show, (N, 1, 28, 28) in [0, 1]."""
    images = [canvas.evaluate(INK) for canvas in page.query_selector_all(selector)]
    return torch.tensor(images).reshape(-1, 1, 28, 28)


def ten(page: Page) -> torch.Tensor:
    return pictures(page, "canvas[data-class]")


def draw(page: Page, points: tuple[tuple[float, float], ...]) -> None:
    box = page.locator("canvas[data-role=draw]").bounding_box()
    corners = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner, steps=4)
    page.mouse.up()


def changes(page: Page, selector: str, action) -> bool:
    """Whether pictures are others soon after the action: what needs no network is drawn without the page being busy."""
    before = pictures(page, selector)
    action()
    for _ in range(50):
        page.wait_for_function(READY)
        after = pictures(page, selector)
        if before.shape != after.shape or not torch.equal(before, after):
            return True
        page.wait_for_timeout(100)
    return False


def test_a_drawn_three_becomes_all_ten_and_its_link_shows_the_same(open_page):
    page = open_page()
    classifier = core.DigitClassifier.from_pretrained(device="cpu")
    draw(page, THREE)
    page.wait_for_function(READY)
    drawn = ten(page)
    assert page.locator("#label").input_value() == "3"
    assert (classifier.classify(drawn)[1] == torch.arange(10)).sum() >= 9
    assert changes(page, "[data-role=digit]", page.locator("canvas[data-class='7']").click)
    assert torch.equal(ten(page), drawn), "in the hand of the three they are what they were"
    assert torch.equal(pictures(page, "[data-role=digit]"), drawn[[7]])
    again = open_page(page.evaluate("location.hash"))
    assert (ten(again) - drawn).abs().max() <= 1 / 255
    assert torch.equal(pictures(again, "[data-role=digit]"), ten(again)[[7]])


def test_strokes_become_the_digit_that_the_panels_make_of_them(open_page):
    strokes = [{"erase": False, "points": THREE}, {"erase": True, "points": ((0.4, 0.1), (0.5, 0.2))}]
    script = "async strokes => Array.from((await import('./digits.js')).digit_of_strokes(strokes))"
    page = open_page("sizes.json")
    for some in (strokes, strokes[:1], [{"erase": False, "points": ((0.5, 0.5),)}]):
        image = torch.tensor(page.evaluate(script, some)).reshape(1, 1, 28, 28)
        assert (image - digit_of_strokes(some)).abs().mean() < 0.01, some


# Some of the page's own functions, on given numbers
RUN = """async ({images, x_T, z_T}) => {
    const { load_models, to_pixels } = await import("./models.js");
    const models = await load_models();
    const numbers = Object.fromEntries(Object.entries({images, x_T, z_T}).map(([k, v]) => [k, Float32Array.from(v)]));
    const latents = await models.encode(numbers.images);
    let decoded;
    for await (const { x_t } of models.decode(latents, numbers.x_T, 5)) decoded = to_pixels(x_t);
    const found = await models.handwriting(latents.slice(0, 256), 0);
    const other = await models.latents(numbers.z_T, [5, 8], [1, 1.5]);
    const { label } = await models.classify(numbers.images.slice(0, 784));
    return [latents, decoded, found, other, [label]].map((values) => Array.from(values));
}"""


def test_the_networks_give_what_they_give_in_torch(open_page, autoencoder):
    model, prior = (kind.from_pretrained(device="cpu") for kind in (core.DiffusionModel, core.LatentPrior))
    images = core.as_images(core.load_sample("test").pixels[:1000:200])  # one of each second class
    x_T, z_T = torch.randn(1, 1, 28, 28, generator=core.seeded(0)), torch.randn(2, 256, generator=core.seeded(1))
    numbers = {"images": images, "x_T": x_T, "z_T": z_T}
    script_input = {name: tensor.flatten().tolist() for name, tensor in numbers.items()}
    latents, decoded, found, other, label = map(torch.tensor, open_page("sizes.json").evaluate(RUN, script_input))
    with torch.no_grad():
        z = autoencoder.encode(images)
    assert (latents.reshape(-1, 256) - z).abs().max() < 0.01
    generated = model.generate(z, 5, spacing="quadratic", x_T=x_T.expand(5, -1, -1, -1))
    assert (decoded.reshape(-1, 1, 28, 28) - generated).abs().max() < 2 / 255
    assert (found - prior.invert(z[:1], 0)[0]).abs().max() < 0.05
    followed = [prior.generate(z_T[[0]], 5), prior.generate(z_T[[1]], 8, guidance=1.5)]
    assert (other.reshape(2, 256) - torch.cat(followed)).abs().max() < 0.05
    assert label == 0


def test_every_control_by_keyboard(open_page):
    page = open_page(reduced_motion="reduce")
    page.evaluate("random = Math.random; Math.random = () => 0.4")  # the new digit is always the same, a 4
    all_ten, steps, between = "canvas[data-class]", "[data-film=steps] canvas", "[data-film=between] canvas"
    controls = {  # what has the focus, the key, what it changes
        "#samples input:checked": ("ArrowRight", all_ten),
        "#samples button": ("Enter", all_ten),
        "#label": ("ArrowUp", all_ten),
        "#ten button:nth-child(2)": ("Space", "[data-role=digit]"),
        "#angle": ("PageUp", all_ten),
        "#another-hand": ("Enter", all_ten),
        "[data-film=steps] input": ("ArrowLeft", steps),
        "#steps": ("ArrowRight", steps),
        "#eta": ("PageUp", steps),
        "#another-noise": ("Enter", steps),
        "[data-film=between] input": ("ArrowLeft", between),
        "#ways input:checked": ("ArrowDown", between),
        "#others input:checked": ("ArrowRight", between),
    }
    for selector, (key, changed) in controls.items():
        tab_to(page, selector)
        assert changes(page, changed, lambda key=key: page.keyboard.press(key)), selector
        if selector == "#samples button":
            page.evaluate("Math.random = random")
    tab_to(page, "canvas[data-role=draw]")
    page.keyboard.press("Space")
    for _ in range(10):
        page.keyboard.press("ArrowDown")
    assert changes(page, all_ten, lambda: page.keyboard.press("Space"))
    assert page.locator("#label").input_value() == "1"
    tab_to(page, "[data-film=steps] .play")
    page.keyboard.press("Enter")
    assert page.locator("[data-film=steps] .play").text_content() == "Pause"
    page.wait_for_function("document.querySelector('[data-film=steps] .play').textContent === 'Play'")
    last = page.locator("[data-film=steps] input").get_attribute("max")
    assert page.locator("[data-film=steps] input").input_value() == last
    tab_to(page, "#save")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "all_ten.png"


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until an element has the focus, once around the page at most."""
    page.evaluate("document.activeElement.blur()")
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"Tab does not come to {selector}")


# Controls and pictures that run out of the page or into each other, and words that do not fit
CLASHES = """() => {
    const name = (node) => `${node.tagName} ${node.id || node.ariaLabel || node.textContent}`.slice(0, 60);
    const nodes = document.querySelectorAll("button, select, input, canvas, h1, h2, figcaption, output, legend, p");
    const shown = [...nodes].filter((node) => node.offsetParent && node.id !== "hint");
    const box = new Map(shown.map((node) => [node, node.getBoundingClientRect()]));
    const wide = shown.filter((node) => box.get(node).left < 0 || box.get(node).right > innerWidth
        || (node.tagName !== "INPUT" && node.scrollWidth > node.clientWidth + 1 && node.clientWidth));
    const pairs = shown.flatMap((a, i) => shown.slice(i + 1).map((b) => [a, b])).filter(([a, b]) => {
        const [p, q] = [box.get(a), box.get(b)];
        const choice = a.parentElement === b.parentElement && a.closest(".choices label");
        return !choice && !a.contains(b) && !b.contains(a)
            && Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1
            && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 1;
    });
    return [...wide.map(name), ...pairs.map((pair) => pair.map(name).join(" on "))];
}"""


def test_nothing_is_cut_off_or_overlaps_on_a_phone_and_on_a_desk_in_either_theme(open_page):
    page = open_page("#as=7&angle=1.2&steps=20")
    for width, height in ((360, 780), (800, 600), (1366, 768)):
        page.set_viewport_size({"width": width, "height": height})
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            assert page.evaluate(CLASHES) == [], (width, theme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert ten(page).mean() < 0.5, "dark ink on light paper"
            if folder := os.environ.get("DIFFAE_SCREENSHOTS"):
                page.screenshot(path=Path(folder) / f"play_{width}_{theme}.png", full_page=True)


def test_the_newest_wish_wins(open_page):
    page = open_page("#digit=t0")
    first = ten(page)
    page.evaluate("for (const i of [3, 9, 12, 0]) document.querySelectorAll('#samples input')[i].click()")
    page.wait_for_function(READY)
    assert torch.equal(ten(page), first)


def test_what_was_drawn_comes_back_and_a_second_finger_draws_nothing(open_page):
    page = open_page(has_touch=True)
    canvas, example = page.locator("canvas[data-role=draw]"), ten(page)
    count = (
        "canvas => canvas.getContext('2d').getImageData(0, 0, 392, 392).data.filter((a, i) => i % 4 === 3 && a).length"
    )
    page.get_by_role("button", name="Eraser").click()
    draw(page, THREE)
    assert canvas.evaluate(count) == 0, "nothing to rub out"
    page.get_by_role("button", name="Eraser").click()
    draw(page, THREE)
    page.wait_for_function(READY)
    ink, drawn = canvas.evaluate(count), ten(page)
    assert not torch.equal(drawn, example)
    for action in ("Clear", "New digit"):
        page.get_by_role("button", name=action).click()
        page.wait_for_function(READY)
        assert canvas.evaluate(count) == 0
        page.get_by_role("button", name="Undo").click()
        page.wait_for_function(READY)
        assert canvas.evaluate(count) == ink and torch.equal(ten(page), drawn), action
    second = {"pointerId": 7, "button": 0, "clientX": 5, "clientY": 5, "bubbles": True}
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + 10)
    page.mouse.down()
    before = canvas.evaluate(count)
    for kind in ("pointerdown", "pointermove", "pointerup"):
        canvas.dispatch_event(kind, second)
    assert canvas.evaluate(count) == before
    page.mouse.up()
    page.evaluate("location.hash = 'digit=t0'")
    page.wait_for_function(READY)
    assert canvas.evaluate(count) == 0, "a link to another digit empties the canvas"


def test_a_film_plays_from_the_noise_and_takes_fewer_steps_while_it_plays(open_page):
    page = open_page()
    film = page.locator("[data-film=steps]")
    slider, button = film.locator("input"), film.locator(".play")
    page.evaluate("""() => {
        window.places = [];
        const caption = document.querySelector("[data-film=steps] .caption");
        const note = () => places.push(caption.textContent.split(",")[0]);
        new MutationObserver(note).observe(caption, { childList: true });
    }""")
    button.click()
    page.wait_for_function("document.querySelector('[data-film=steps] .play').textContent === 'Play'")
    assert page.evaluate("places") == [f"step {step} of 5" for step in range(6)]
    button.click()
    page.locator("#steps").fill("1")
    page.wait_for_function("document.querySelector('[data-film=steps] .play').textContent === 'Play'")
    page.wait_for_function(READY)
    assert slider.get_attribute("max") == "1"


def test_networks_that_do_not_load_are_said_to_have_failed_and_stay_so(chromium, address):
    page = chromium.new_page()
    page.route("**/unet.onnx", lambda route: route.abort())
    page.goto(address)
    page.get_by_text("The networks could not be loaded").wait_for(timeout=60 * SECONDS)
    page.locator("#another-hand").click()
    assert page.evaluate("document.documentElement.dataset.state") == "failed"
    page.close()


def test_a_browser_without_webassembly_is_told_so(chromium, address):
    page = chromium.new_page()
    page.add_init_script("delete window.WebAssembly")
    page.goto(address)
    page.get_by_text("This page needs WebAssembly").wait_for()
    assert page.evaluate("document.documentElement.dataset.state") == "failed"
    page.close()
