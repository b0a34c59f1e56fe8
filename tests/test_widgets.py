"""Each panel's picture as a pure function of its state, and its controls as a hand would use them."""

import asyncio
import datetime
import io
import random

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image

import diffae_core as core
from diffae_core import widgets
from diffae_core.clue_panel import CluePanel
from diffae_core.playground import Playground


@pytest.fixture(scope="module")
def panels(tmp_path_factory):
    digits = core.load_sample("test").subset(core.spread(1000, 12))
    autoencoder, model = (
        core.SimpleAutoencoder.from_pretrained(device="cpu"),
        core.DiffusionModel.from_pretrained(device="cpu"),
    )
    folder = tmp_path_factory.mktemp("pictures")
    return {
        "blend": widgets.BlendPanel(autoencoder, digits),
        "noise": widgets.NoisePanel(digits),
        "denoiser": widgets.DenoiserPanel(autoencoder, model, digits),
        "filmstrip": widgets.FilmstripPanel(autoencoder, model, digits),
        "walk": widgets.WalkPanel(autoencoder, model, digits),
        "clue": CluePanel(autoencoder, model, doubtful_head(autoencoder, digits), digits),
        "playground": Playground(autoencoder, model, digits, core.load_sample("train"), folder=folder),
    }


def doubtful_head(autoencoder, digits):
    head = core.BayesianLastLayer(autoencoder.encoder, autoencoder.latent_dim)
    for _ in core.train_last_layer(head, autoencoder.encode_dataset(digits), core.TrainingConfig(20, 4, 1e-2)):
        pass
    return head


NAMES = ["blend", "noise", "denoiser", "filmstrip", "walk", "clue", "playground"]
LISTS = ipywidgets.Dropdown | ipywidgets.SelectionSlider


def choices(control):
    """The ends of a slider, or the first and last of a list."""
    if isinstance(control, LISTS):
        values = [option[1] if isinstance(option, tuple) else option for option in control.options]
        return values[0], values[-1]
    return control.min, control.max


def random_state(panel, dice):
    state = {}
    for name, control in panel.controls.items():
        low, high = choices(control)
        if isinstance(control, ipywidgets.FloatSlider):
            state[name] = dice.uniform(low, high)
        elif isinstance(control, ipywidgets.IntSlider):
            state[name] = dice.randint(low, min(high, 12))
        else:
            state[name] = dice.choice(
                [option[1] if isinstance(option, tuple) else option for option in control.options]
            )
    return state


@pytest.mark.parametrize("name", NAMES)
def test_default_and_extremes(panels, name):
    panel = panels[name]
    assert panel.error is None and panel.image.value == panel.render(preview=False, **panel.state)
    sizes = {Image.open(io.BytesIO(panel.image.value)).size}
    for control_name, control in panel.controls.items():
        for value in choices(control):
            picture = Image.open(io.BytesIO(panel.render(**panel.state | {control_name: value})))
            sizes.add(picture.size)
            assert len(np.unique(np.asarray(picture))) > 2
    assert max(width for width, _ in sizes) <= 1180 and max(height for _, height in sizes) <= 460


@pytest.mark.parametrize("name", NAMES)
def test_fifty_random_states_give_the_same_bytes_twice(panels, name):
    panel, dice = panels[name], random.Random(0)
    for _ in range(50):
        state = random_state(panel, dice)
        assert panel.draw(False, **state) == panel.draw(False, **state)


@pytest.mark.parametrize("name", NAMES)
def test_every_control_changes_the_picture_and_reset_takes_it_back(panels, name):
    panel = panels[name]
    before = panel.image.value
    for control_name, control in panel.controls.items():
        if (name, control_name) == ("denoiser", "other"):
            panel.controls["latent"].value = "another digit's"
        shown = panel.image.value
        control.value = next(value for value in choices(control) if value != control.value)
        assert panel.image.value != shown, control_name
        panel.reset()
        assert panel.image.value == before and panel.state == panel._defaults


@pytest.mark.parametrize("name", NAMES)
def test_controls_are_labelled_and_described(panels, name):
    panel = panels[name]
    for control in panel.controls.values():
        assert control.description and len(control.tooltip) > 10
    assert panel.reset_button.tooltip
    assert repr(panel).endswith("run this notebook to use it")


def test_a_drag_previews_and_a_rest_draws_in_full(panels, monkeypatch):
    monkeypatch.setattr(widgets, "REST_SECONDS", 0.01)
    panel = panels["playground"]

    async def drag():
        for strength in (0.1, 0.2, 0.3):
            panel.controls["strength"].value = strength
            preview = panel.image.value
            assert preview == panel.render(preview=True, **panel.state)
        await asyncio.sleep(0.5)
        return preview

    preview = asyncio.run(drag())
    assert panel.image.value == panel.render(preview=False, **panel.state) != preview
    panel.reset()


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


@pytest.mark.parametrize("start", ["the digit, noised", "its own noise (inverted)"])
def test_the_playgrounds_python_call_draws_the_same_picture(panels, start):
    playground = panels["playground"]
    playground.controls["start"].value = start
    playground.controls["direction"].value = "towards the mean 9"
    playground.controls["strength"].value = 1.2
    names = {"playground": playground, "diffusion_model": playground.model, "torch": torch}
    exec(playground.python_call(), names)
    digit = playground.state["digit"]
    pictures = torch.cat([playground.images[[digit]], names["denoised"]])
    pictures = torch.cat([pictures[:1], (names["noisy"] + 1) / 2, pictures[1:], (pictures[1:] - pictures[:1]).abs()])
    headings = ("original", "noisy", "denoised", "difference")
    assert core.labelled_png({"": pictures}, headings, zoom=6) == playground.render(**playground.state)
    playground.copy_button.click()
    assert "clipboard" in playground.clipboard.outputs[0]["data"]["application/javascript"]
    playground.reset()


def test_the_playground_saves_what_it_shows(panels):
    playground = panels["playground"]
    playground.save_button.click()
    playground.save_button.click()
    saved = sorted(playground.folder.glob("*.png"))
    assert [path.name for path in saved] == ["playground_001.png", "playground_002.png"]
    assert saved[0].read_bytes() == playground.image.value and "saved as" in playground.message.value
    kept = saved[1].read_bytes()
    saved[0].unlink()
    playground.controls["seed"].value = 7
    playground.save_button.click()
    assert saved[0].exists() and saved[1].read_bytes() == kept, "an earlier picture is never written over"
    playground.reset()


def uploaded(content):
    now = datetime.datetime.now(datetime.timezone.utc)
    file = {"name": "mine.png", "type": "image/png", "size": len(content), "content": memoryview(content)}
    return (file | {"last_modified": now},)


def test_an_uploaded_digit_is_chosen_and_drawn(panels):
    playground = panels["playground"]
    paper = Image.new("RGB", (200, 300), "white")
    paper.paste("navy", (90, 60, 110, 240))
    buffer = io.BytesIO()
    paper.save(buffer, "PNG")
    playground.upload.value = uploaded(buffer.getvalue())
    assert playground.error is None
    assert playground.controls["digit"].label.startswith("yours")
    assert playground.images[-1].max() == 1
    playground.upload.value = uploaded(b"not a picture")
    assert "expected a picture" in playground.message.value
    playground.reset()


def test_its_own_noise_gives_the_digit_back(panels):
    playground = panels["playground"]
    latent = playground.latents[[3]]
    drawn = playground.model.generate(latent, 20, x_T=playground.own_noise(3), spacing="quadratic")
    assert (drawn - playground.images[[3]]).square().mean() < 1e-5


def test_an_edit_makes_more_of_a_class(panels):
    playground, judge = panels["playground"], core.Judge.from_pretrained(device="cpu")
    latent = playground.latents[[0]]
    moved = latent + 1.2 * playground.direction("edit towards class 8", latent, 0)
    drawn = playground.model.generate(moved, 10, x_T=playground.own_noise(0), spacing="quadratic")
    assert judge.read(drawn)[1].item() == 8 != judge.read(playground.images[[0]])[1].item()


def test_a_new_digit_is_drawn_by_the_seed_and_chosen(panels):
    playground, count = panels["playground"], len(panels["playground"].images)
    playground.new_button.click()
    playground.new_button.click()
    assert playground.controls["digit"].label == f"new (number {count + 1})" and playground.error is None
    assert torch.equal(playground.images[-1], playground.images[-2]) and len(playground.images) == count + 2
    playground.controls["seed"].value = 1
    playground.new_button.click()
    assert not torch.equal(playground.images[-1], playground.images[-2])
    playground.reset()
