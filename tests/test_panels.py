"""Each panel's picture as a pure function of its state, and its controls as a hand would use them."""

import asyncio
import base64
import gc
import io
import random
import subprocess
import sys
import weakref
from types import SimpleNamespace

import ipywidgets
import numpy as np
import pytest
import torch
from conftest import SMALL, all_random
from PIL import Image

import diffae_core as core
from diffae_core import panels as core_panels
from diffae_core.panels import base, canvas, clue
from diffae_core.panels.controls import Another
from diffae_core.panels.own_digits import UNKNOWN, fitting_classifier

NAMES = ["blend", "noise", "denoiser", "filmstrip", "interpolation", "clue", "playground"]


def small_models(latent_dim=16, image_size=28, classes=10):
    autoencoder = core.SimpleAutoencoder(latent_dim, image_size, device="cpu").eval()
    head = core.BayesianLastLayer(autoencoder.encoder, latent_dim, num_classes=max(classes, 2))
    torch.nn.init.normal_(head.mean)
    model = all_random(core.DiffusionModel(**SMALL | {"latent_dim": latent_dim, "image_size": image_size}))
    prior = all_random(core.LatentPrior(latent_dim, width=16, depth=1, num_classes=classes, device="cpu"))
    return SimpleNamespace(autoencoder=autoencoder, model=model, prior=prior, head=head)


def make_panel(name, m, digits, reference, folder):
    pair = m.autoencoder, m.model
    makers = {
        "blend": lambda: core_panels.BlendPanel(m.autoencoder, digits),
        "noise": lambda: core_panels.NoisePanel(digits),
        "denoiser": lambda: core_panels.DenoiserPanel(*pair, digits),
        "filmstrip": lambda: core_panels.FilmstripPanel(*pair, digits),
        "interpolation": lambda: core_panels.InterpolationPanel(*pair, digits, m.prior),
        "clue": lambda: core_panels.CluePanel(*pair, m.head, digits),
        "playground": lambda: core_panels.Playground(*pair, digits, reference, m.prior, folder),
    }
    return makers[name]()


@pytest.fixture(scope="module")
def panels(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clue, "PATH_STEPS", 10)
        patch.setattr(clue, "WEIGHTS", (0.005, 1.0))
        data = core.load_sample("test").spaced(12), core.load_sample("train").spaced(200)
        models, folder = small_models(), tmp_path_factory.mktemp("pictures")
        yield {name: make_panel(name, models, *data, folder) for name in NAMES}


@pytest.fixture
def playground(panels):
    yield panels["playground"]
    panels["playground"].reset()


def choices(control):
    """All values of a list; the ends of a slider; some seeds."""
    if isinstance(control, Another):
        return [0, 1, 2]
    if hasattr(control, "options"):
        return [option[1] if isinstance(option, tuple) else option for option in control.options]
    return [control.min, control.max]


def random_value(control, dice):
    if isinstance(control, ipywidgets.FloatSlider):
        return dice.uniform(control.min, control.max)
    if isinstance(control, ipywidgets.IntSlider):
        return dice.randint(control.min, min(control.max, 6))
    return dice.choice(choices(control))


def size(png):
    return Image.open(io.BytesIO(png)).size


def test_panels_without_their_packages_say_what_to_install():
    code = "import sys; sys.modules['anywidget'] = None; import diffae_core.panels"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 1
    assert process.stderr.endswith('expected the packages of the extra "lab": pip install "diffae-core[lab]"\n')


@pytest.mark.parametrize("name", NAMES)
def test_default_and_extremes(panels, name):
    panel = panels[name]
    assert panel.error is None and panel.image.value == panel.render(preview=False, **panel.state)
    assert repr(panel).endswith("run this notebook to use it")
    for control_name, control in panel.controls.items():
        assert control.description and len(control.tooltip) > 5
        for value in choices(control)[:: max(1, len(choices(control)) - 1)]:
            png = panel.render(**panel.state | {control_name: value})
            assert size(png) == size(panel.image.value), f"{control_name}: the picture jumps"
            assert len(np.unique(np.asarray(Image.open(io.BytesIO(png))))) > 2
    width, height = size(panel.image.value)
    assert width <= 900 and height <= 520


@pytest.mark.parametrize("name", NAMES)
def test_a_control_changes_the_picture_or_is_disabled(panels, name):
    panel, dice = panels[name], random.Random(1)
    before = panel.image.value
    for at_default in (True, *[False] * 6):
        panel.choose(**{} if at_default else {key: random_value(it, dice) for key, it in panel.controls.items()})
        state = panel.state
        assert panel.draw(False, **state) == panel.image.value, "the same state, the same bytes"
        for control_name, control in panel.controls.items():
            if at_default or control.disabled:
                others = [state | {control_name: value} for value in choices(control) if value != state[control_name]]
                unchanged = all(panel.draw(False, **other) == panel.image.value for other in others)
                assert unchanged == control.disabled, f"{control_name} in {state}: has an effect, or is disabled"
    panel.reset()
    assert panel.image.value == before and panel.state == panel.defaults


@pytest.mark.parametrize("name", NAMES[:-1])
def test_play_moves_its_slider_from_end_to_end(panels, name):
    panel = panels[name]
    widgets = [widget for row in panel.children for widget in getattr(row, "children", ())]
    (play,) = [widget for widget in widgets if isinstance(widget, ipywidgets.Play)]
    (played,) = [control for control in panel.controls.values() if play.tooltip == f"Play: {control.description}"]
    shown = panel.image.value
    play.value = play.min
    assert played.value == played.min and panel.image.value != shown
    play.value = play.max
    assert played.value == played.max
    played.value = played.min
    assert play.value == play.min, "the slider takes the player along"
    panel.reset()


def test_a_drag_previews_and_a_rest_draws_in_full(playground, monkeypatch):
    monkeypatch.setattr(base, "REST_SECONDS", 0.01)

    async def drag():
        for angle in (0.1, 0.2, 0.3):
            playground.controls["angle"].value = angle
            preview = playground.image.value
            assert preview == playground.render(preview=True, **playground.state)
        await asyncio.sleep(0.5)
        return preview

    preview = asyncio.run(drag())
    assert playground.image.value == playground.render(preview=False, **playground.state) != preview


def test_an_error_is_shown_in_words_and_goes_away(panels, monkeypatch):
    panel = panels["blend"]

    def broken(preview, **state):
        raise ValueError("out of <ink>")

    monkeypatch.setattr(panel, "draw", broken)
    panel.controls["share"].value = 0.123
    assert "ValueError: out of &lt;ink&gt;" in panel.message.value and isinstance(panel.error, ValueError)
    monkeypatch.undo()
    panel.reset()
    assert panel.message.value == "" and panel.error is None


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"label": 3, "angle": 0.8, "hand": 2, "seed": 4},
        {"label": 0, "start": "the digit, noised", "angle": 0.5, "steps": 3},
        {"start": "its inverted noise x_T", "direction": 3, "strength": 1.5, "refine": 0.6, "latent_noise": 1.0},
    ],
)
def test_the_python_call_makes_the_same_digit(playground, changes):
    playground.choose(**changes)
    names = {"playground": playground, "core": core}
    exec(playground.python_call(), names)
    shown = np.asarray(Image.open(io.BytesIO(playground.render(**playground.state))))
    tile = shown[22 + 7 : 22 + 7 * 29 : 7, 7 * 30 : 7 * 58 : 7]
    expected = 255 - (names["result"][0, 0] * 255).round().numpy()
    assert np.abs(tile - expected).max() <= 1
    playground.copy()
    assert "result = " in playground.message.value
    playground.choose(label=8 if playground.state["label"] == 9 else 9)
    assert playground.message.value == "", "it spoke of the state before"


def test_the_row_shows_the_digit_as_each_class_and_is_kept(playground, monkeypatch):
    label = playground.controls["label"]
    assert len(label.pictures) == 10 and playground.state["label"] != playground.state["own"] == 0
    shown = label.pictures
    monkeypatch.setattr(playground.prior, "generate", None)
    playground.choose(label=7)
    assert playground.error is None and label.pictures == shown, "what depends on the digit alone is kept"
    monkeypatch.undo()
    before = playground.hands.cache_info().misses
    playground.choose(angle=1.0)
    assert label.pictures != shown
    assert playground.hands.cache_info().misses == before + 2, "once for the preview, once for result and row together"
    calls, generate = [], playground.prior.generate
    monkeypatch.setattr(
        playground.prior, "generate", lambda *given, **named: calls.append(given) or generate(*given, **named)
    )
    playground.forget()
    playground.render(preview=True, **playground.state)
    assert len(calls) == 1, "a preview computes the chosen class alone"


def test_more_stays_as_it_was_left(panels):
    playground = panels["playground"]
    assert playground.folded.layout.display == "none"
    playground.more.value = True
    assert playground.folded.layout.display is None and core_panels.Playground.is_open
    playground.more.value = False


def test_a_corrected_class_changes_the_handwriting_and_is_kept(playground):
    before = playground.image.value
    playground.choose(own=4)
    assert playground.image.value != before
    playground.choose(digit=1)
    assert playground.state["own"] == playground.labels[1] != 4
    playground.choose(digit=0)
    assert playground.state["own"] == 4


def test_the_playground_saves_what_it_shows(playground):
    playground.save()
    playground.save()
    saved = sorted(playground.folder.glob("*.png"))
    assert [path.name for path in saved] == ["playground_001.png", "playground_002.png"]
    assert saved[0].read_bytes() == playground.image.value and "saved as" in playground.message.value
    kept = saved[1].read_bytes()
    saved[0].unlink()
    playground.controls["seed"].value = 7
    playground.save()
    assert saved[0].exists() and saved[1].read_bytes() == kept, "an earlier picture is never written over"


def test_an_uploaded_digit_bears_its_name_and_a_refused_one_says_its(playground):
    def upload(name, content):
        playground.canvas.file = {"name": name, "url": "data:image/png;base64," + base64.b64encode(content).decode()}

    paper = Image.new("RGB", (200, 300), "white")
    paper.paste("navy", (90, 60, 110, 240))
    upload("mine.png", core.plotting.png_bytes(paper))
    assert playground.error is None and playground.controls["digit"].label.startswith("mine.png (index")
    assert playground.images[-1].max() > 0.9
    upload("notes.txt", b"not a picture")
    assert "notes.txt: expected a picture" in playground.message.value


def stroke(*points, erase=False):
    return {"erase": erase, "points": [list(point) for point in points]}


def test_a_drawn_digit_follows_the_pen_and_keeps_its_place(playground):
    count = len(playground.images)
    playground.canvas.strokes = [stroke((0.3, 0.2), (0.7, 0.2))]
    shown, place = playground.image.value, playground.controls["digit"].value
    assert playground.error is None and playground.controls["digit"].label.startswith("drawn")
    playground.canvas.strokes = [stroke((0.3, 0.2), (0.7, 0.2), (0.5, 0.8))]
    assert playground.image.value != shown and playground.controls["digit"].value == place
    assert torch.allclose(playground.latents[[place]], playground.autoencoder.encode(playground.images[[place]]))
    playground.canvas.strokes = []
    assert len(playground.images) == count + 1 and playground.error is None


def test_strokes_become_a_digit_like_those_of_mnist():
    seven = [stroke((0.3, 0.25), (0.5, 0.22), (0.7, 0.25), (0.55, 0.5), (0.42, 0.8))]
    image = canvas.digit_of_strokes(seven)
    mnist = core.load_sample("test")
    sevens = mnist.images[mnist.labels == 7].mean(dim=(1, 2, 3))
    assert image.shape == (1, 1, 28, 28) and sevens.min() < image.mean() < sevens.max()
    rows, columns = (image[0, 0] > 0.3).nonzero().unbind(1)
    assert 19 <= rows.max() - rows.min() + 1 <= 21
    centre = (image[0, 0].sum(dim=1) @ torch.arange(28.0)) / image.sum()
    assert 12.5 < centre < 14.5 and canvas.digit_of_strokes(seven, 32).shape == (1, 1, 32, 32)
    small = [stroke(*((0.4 + 0.2 * x, 0.4 + 0.2 * y) for x, y in seven[0]["points"]))]
    assert canvas.digit_of_strokes(small).sum() < image.sum(), "a dot is not enlarged to the whole image"


def test_an_eraser_takes_ink_away():
    bar = stroke((0.5, 0.1), (0.5, 0.9))
    halved = canvas.digit_of_strokes([bar, stroke((0.5, 0.5), (0.5, 0.9), erase=True)])
    assert 0.3 < halved.sum() / canvas.digit_of_strokes([bar]).sum() < 0.7
    assert canvas.digit_of_strokes([bar, stroke((0.5, 0.1), (0.5, 0.9), erase=True)]) is None
    assert canvas.digit_of_strokes([]) is None
    assert canvas.digit_of_strokes([stroke((0.5, 0.5))]).max() > 0.5, "a dot is ink"


def test_new_digit_twice_gives_two_digits(playground):
    count = len(playground.images)
    playground.new_digit()
    assert playground.controls["digit"].label.startswith("new (index") and playground.state["own"] in range(10)
    playground.new_digit()
    assert len(playground.images) == count + 2 and not torch.equal(playground.images[-1], playground.images[-2])


def test_a_cell_that_is_run_again_frees_the_panels_it_made(monkeypatch):
    digits, widgets = core.load_sample("test").spaced(12), ipywidgets.widgets.widget._instances

    def make_two(cell, run):
        message = {"metadata": {"cellId": cell}, "header": {"msg_id": run}}
        monkeypatch.setattr(base, "get_ipython", lambda: SimpleNamespace(get_parent=lambda: message))
        return [weakref.ref(core_panels.NoisePanel(digits)) for _ in range(2)]

    other = make_two("another cell", "run 1")
    first = make_two("cell", "run 2")
    count = len(widgets)
    second = make_two("cell", "run 3")
    gc.collect()
    assert len(widgets) == count
    assert all(panel() is None for panel in first)
    assert all(panel().comm is not None for panel in [*second, *other])


def test_a_mismatched_autoencoder_is_refused(panels):
    m, other = small_models(), core.SimpleAutoencoder(16, device="cpu")
    digits = core.load_sample("test").spaced(12)
    m.model.latents_from = m.prior.latents_from = "another"
    for make in (core_panels.DenoiserPanel, core_panels.FilmstripPanel, core_panels.InterpolationPanel):
        with pytest.raises(ValueError, match="expected the autoencoder that this DiffusionModel"):
            make(other, m.model, digits)
    m.model.latents_from = ""
    with pytest.raises(ValueError, match="expected the autoencoder that this LatentPrior"):
        core_panels.Playground(other, m.model, digits, digits, m.prior)


@pytest.mark.parametrize("latent_dim, image_size, classes", [(2, 28, 3), (8, 32, 3), (8, 32, 0), (1, 28, 1)])
def test_other_latents_sizes_and_classes(latent_dim, image_size, classes, tmp_path, monkeypatch):
    monkeypatch.setattr(clue, "PATH_STEPS", 4)
    monkeypatch.setattr(clue, "WEIGHTS", (0.1,))
    pictures = torch.randint(0, 256, (30, image_size, image_size), dtype=torch.uint8)
    labels, names = (torch.arange(30) % classes, ["disc", "ring", "cross"][:classes]) if classes else (None, None)
    digits = core.Digits.from_arrays(pictures, labels, names)
    for name in NAMES:
        panel = make_panel(name, small_models(latent_dim, image_size, classes), digits, digits, tmp_path)
        assert panel.error is None, name
        for value in choices(list(panel.controls.values())[0])[:2]:
            assert panel.render(**panel.state | {next(iter(panel.controls)): value})
    offered = [label for label, _ in panel.controls["direction"].options]
    assert ("towards ring" in offered) == (classes > 1) == bool(panel.controls["label"].pictures)
    panel.canvas.strokes = [stroke((0.3, 0.2), (0.7, 0.8))]
    assert panel.images[-1].shape == (1, image_size, image_size)
    panel.new_digit()
    assert panel.error is None


def test_without_a_prior_there_are_no_classes_and_no_handwriting():
    m, digits = small_models(), core.load_sample("test").spaced(20)
    panel = core_panels.Playground(m.autoencoder, m.model, digits, core.load_sample("train").spaced(100))
    assert panel.error is None and panel.controls["label"].layout.display == "none"
    assert all(panel.controls[name].disabled for name in ("angle", "hand", "refine")) and panel.new.disabled
    panel.canvas.strokes = [stroke((0.3, 0.2), (0.7, 0.8))]
    panel.choose(strength=1.0, direction=3)
    assert panel.error is None and panel.state["own"] == UNKNOWN


def test_a_class_without_an_example_is_not_offered(tmp_path):
    m, digits = small_models(), core.load_sample("test").spaced(40)
    reference = digits.subset(digits.labels != 9)
    panel = make_panel("playground", m, digits, reference, tmp_path)
    assert panel.error is None and ["9", 9] not in panel.controls["label"].options
    panel.choose(digit=int((digits.labels == 9).nonzero()[0]))
    assert panel.error is None and panel.state["own"] == UNKNOWN


def test_drawn_and_uploaded_digits_are_dark_on_white_where_the_data_is(playground, tmp_path):
    digits = core.load_sample("test").spaced(20)
    on_white = core.Digits.from_arrays(255 - digits.pixels, digits.labels)
    panel = make_panel("playground", small_models(), on_white, on_white, tmp_path)
    panel.canvas.strokes = [stroke((0.3, 0.2), (0.7, 0.2), (0.5, 0.8))]
    paper = Image.new("L", (90, 90), "white")
    paper.paste(0, (40, 20, 50, 70))
    panel.canvas.file = {"name": "1", "url": "," + base64.b64encode(core.plotting.png_bytes(paper)).decode()}
    assert panel.error is None and (panel.images[-2:].mean(dim=(1, 2, 3)) > 0.7).all()


def test_the_shipped_classifier_is_asked_only_where_it_fits_the_data():
    digits = core.load_sample("test").spaced(50)
    assert fitting_classifier(None, digits) is not None
    unlike = core.Digits.from_arrays(digits.pixels, digits.labels.roll(1), digits.names)
    assert fitting_classifier(None, unlike) is None
    assert fitting_classifier(core.DigitClassifier(5, device="cpu").eval(), digits) is None


def test_it_opens_on_another_class_in_the_same_handwriting(autoencoder, model, classifier):
    test, train = core.load_sample("test").spaced(12), core.load_sample("train").spaced(300)
    panel = core_panels.Playground(autoencoder, model, test, train, core.LatentPrior.from_pretrained(device="cpu"))
    state = panel.state
    row = panel.row(state["digit"], state["own"], state["angle"], state["hand"], state["seed"])
    assert (classifier.classify(row)[1] == torch.arange(10)).sum() >= 9
    assert (row[state["own"]] - panel.images[0]).abs().mean() < 0.05, "its own class gives the digit itself"
    panel.canvas.strokes = [stroke((0.3, 0.25), (0.5, 0.22), (0.7, 0.25), (0.55, 0.5), (0.42, 0.8))]
    assert panel.state["own"] == 7 and panel.controls["own"].description == "classified as"
