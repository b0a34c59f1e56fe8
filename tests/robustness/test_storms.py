"""Many events at once in a panel, as of a slider dragged about: the last state is shown, and no memory is lost."""

import asyncio
import random
import time

import pytest
from common import report, resident_mb

test_panels = pytest.importorskip("test_panels")


def change(control, dice):
    """Set a control to a random value that it can have."""
    if not control.disabled:
        control.value = test_panels.random_value(control, dice)


@pytest.mark.parametrize("events", [40, pytest.param(500, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", test_panels.NAMES)
def test_a_panel(name, events, sample, held_out, tmp_path, monkeypatch):
    monkeypatch.setattr(test_panels.clue, "PATH_STEPS", 20)
    data = held_out.spaced(12), sample.spaced(200)
    panel, dice = test_panels.make_panel(name, test_panels.small_models(), *data, tmp_path), random.Random(0)

    async def storm(events):
        for number in range(events):
            change(dice.choice(list(panel.controls.values())), dice)
            if number % 20 == 19:
                await asyncio.sleep(0)
            if number == events // 4:
                warm = resident_mb()
        grown, began = resident_mb() - warm, time.perf_counter()
        await asyncio.sleep(test_panels.base.REST_SECONDS + 0.01)  # the full picture is drawn within this
        return grown, time.perf_counter() - began

    asyncio.run(storm(40))  # the first time, libraries are loaded
    grown, rest = asyncio.run(storm(events))
    assert panel.error is None and panel.image.value == panel.render(preview=False, **panel.state)
    assert grown < 20
    outcome = f"the last state is shown {rest:.1f} s after them; {max(grown, 0):.1f} MB grown after a quarter of them"
    report("storms of events", name, events, outcome)
