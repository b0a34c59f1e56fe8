"""Many events at once in a panel, as of a slider dragged about: the last state is shown, and no memory is lost."""

import asyncio
import random
import time

import psutil
import pytest

import diffae_core as core

PANELS = [
    "BlendPanel",
    "NoisePanel",
    "DenoiserPanel",
    "FilmstripPanel",
    "InterpolationPanel",
    "CluePanel",
    "Playground",
]


@pytest.fixture
def make(small_autoencoder, small_model, small_prior, sample, held_out, tmp_path):
    panels, digits = pytest.importorskip("diffae_core.panels"), held_out.spaced(12)

    def make(name):
        own = {
            "NoisePanel": lambda: [digits],
            "BlendPanel": lambda: [small_autoencoder, digits],
            "CluePanel": lambda: [small_autoencoder, small_model, trained_head(), digits],
            "Playground": lambda: [small_autoencoder, small_model, digits, sample.spaced(200)],
        }
        arguments = own.get(name, lambda: [small_autoencoder, small_model, digits])()
        more = {"prior": small_prior, "folder": tmp_path} if name in ("InterpolationPanel", "Playground") else {}
        return getattr(panels, name)(*arguments, **more)

    def trained_head():
        head = core.BayesianLastLayer(small_autoencoder.encoder, 16)
        features, config = small_autoencoder.encode_dataset(digits), core.TrainingConfig(20, 4, 1e-2)
        for _ in core.train_last_layer(head, features, config):
            pass
        return head

    return make


def resident_mb():
    return psutil.Process().memory_info().rss / 2**20


def change(control, dice):
    if control.disabled:
        return
    if hasattr(control, "options"):
        control.index = dice.randrange(len(control.options))
    elif hasattr(control, "min"):
        low, high = control.min, min(control.max, 20) if isinstance(control.min, int) else control.max
        control.value = dice.randint(low, high) if isinstance(low, int) else dice.uniform(low, high)
    elif isinstance(control.value, bool):
        control.value = not control.value


@pytest.mark.parametrize("events", [40, pytest.param(2000, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", PANELS)
def test_a_panel(name, events, make):
    from diffae_core.panels.base import REST_SECONDS

    panel, dice = make(name), random.Random(0)

    async def storm():
        warm = 0.0
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
    print(f"{name}: {events} events, {grown:.1f} MB grown after a quarter of them, rests in {rest:.2f} s")
