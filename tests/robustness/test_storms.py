"""Many events at once in a panel, as of a slider dragged about: the last state is shown, and no memory is lost."""

import asyncio
import random
import time

import pytest
from common import report, resident_mb

import diffae_core as core


@pytest.fixture
def make(small_autoencoder, small_model, small_prior, sample, held_out, tmp_path):
    panels, digits = pytest.importorskip("diffae_core.panels"), held_out.spaced(12)
    models, own = (small_autoencoder, small_model), {"prior": small_prior, "folder": tmp_path}

    def head():
        head = core.BayesianLastLayer(small_autoencoder.encoder, 16)
        features = small_autoencoder.encode_dataset(digits)
        list(core.train_last_layer(head, features, core.TrainingConfig(20, 4, 1e-2)))
        return head

    return {
        "BlendPanel": lambda: panels.BlendPanel(small_autoencoder, digits),
        "NoisePanel": lambda: panels.NoisePanel(digits),
        "DenoiserPanel": lambda: panels.DenoiserPanel(*models, digits),
        "FilmstripPanel": lambda: panels.FilmstripPanel(*models, digits),
        "InterpolationPanel": lambda: panels.InterpolationPanel(*models, digits, **own),
        "CluePanel": lambda: panels.CluePanel(*models, head(), digits),
        "Playground": lambda: panels.Playground(*models, digits, sample.spaced(200), **own),
    }


def change(control, dice):
    """Set a control to a random value that it can have; numbers of steps to 20 or less, which is quicker."""
    if control.disabled:
        return
    if hasattr(control, "options"):
        control.index = dice.randrange(len(control.options))
    elif isinstance(control.value, bool):
        control.value = not control.value
    elif hasattr(control, "min") and isinstance(control.min, int):
        control.value = dice.randint(control.min, min(control.max, 20))
    elif hasattr(control, "min"):
        control.value = dice.uniform(control.min, control.max)


PANELS = ["Blend", "Noise", "Denoiser", "Filmstrip", "Interpolation", "Clue"]


@pytest.mark.parametrize("events", [40, pytest.param(500, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", [*(f"{name}Panel" for name in PANELS), "Playground"])
def test_a_panel(name, events, make):
    from diffae_core.panels.base import REST_SECONDS

    panel, dice = make[name](), random.Random(0)

    async def storm():
        for number in range(events):
            change(dice.choice(list(panel.controls.values())), dice)
            if number % 20 == 19:
                await asyncio.sleep(0)
            if number == events // 4:
                warm = resident_mb()
        grown, began = resident_mb() - warm, time.perf_counter()
        await asyncio.sleep(REST_SECONDS + 0.01)  # the full picture is drawn within this
        return grown, time.perf_counter() - began

    grown, rest = asyncio.run(storm())
    assert panel.error is None and panel.image.value == panel.render(preview=False, **panel.state)
    assert grown < 20
    outcome = f"the last state is shown {rest:.1f} s after them; {max(grown, 0):.1f} MB grown after a quarter of them"
    report("storms of events", name, events, outcome)
