"""How fast the panels answer: from a control's change to new PNG bytes, and to the full picture after a rest.

python benchmarks/panels.py        a minute on 2 cores; prints a table
"""

import argparse
import asyncio
import random
import time

import torch

import diffae_core as core
from diffae_core import widgets
from diffae_core.clue_panel import CluePanel
from diffae_core.playground import Playground


def make_panels() -> dict[str, widgets.Panel]:
    digits = core.load_sample("test").subset(core.spread(1000, 30))
    autoencoder, model = core.SimpleAutoencoder.from_pretrained(), core.DiffusionModel.from_pretrained()
    head = core.BayesianLastLayer(autoencoder.encoder, autoencoder.latent_dim)
    for _ in core.train_last_layer(head, autoencoder.encode_dataset(core.load_sample("train"))):
        pass
    return {
        "01 blend": widgets.BlendPanel(autoencoder, digits),
        "02 noise": widgets.NoisePanel(digits),
        "03 denoiser": widgets.DenoiserPanel(autoencoder, model, digits),
        "04 filmstrip": widgets.FilmstripPanel(autoencoder, model, digits),
        "A1 walk": widgets.WalkPanel(autoencoder, model, digits),
        "A2 CLUE": CluePanel(autoencoder, model, head, digits),
        "05 playground": Playground(autoencoder, model, digits, core.load_sample("train")),
    }


async def answers(panel: widgets.Panel, events: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each answer to a slider's change, and of each full picture, at the panel's default settings."""
    dice, quick, full = random.Random(0), [], []
    sliders = {name: control for name, control in panel.controls.items() if hasattr(control, "step")}
    sliders.pop("steps", None)  # the full picture is measured at the default number of steps
    for _ in range(events):
        control = sliders[dice.choice(list(sliders))]
        steps = round((control.max - control.min) / control.step)
        before, began = panel.image.value, time.perf_counter()
        control.value = control.min + dice.randrange(steps + 1) * control.step
        if panel.image.value != before:
            quick.append(1000 * (time.perf_counter() - began))
            began = time.perf_counter()
            panel.draw(False, **panel.state)
            full.append(1000 * (time.perf_counter() - began))
    return quick, full


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100, help="changes of each panel (%(default)s)")
    events = parser.parse_args().events
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {events} random changes of each panel\n")
    print("| panel | answer, median ms | answer, p95 ms | full picture, median ms | p95 ms |")
    print("|---|---|---|---|---|")
    for name, panel in make_panels().items():
        rows = [torch.tensor(row) for row in asyncio.run(answers(panel, events))]
        figures = " | ".join(f"{row.quantile(share):.0f}" for row in rows for share in (0.5, 0.95))
        print(f"| {name} | {figures} |")


if __name__ == "__main__":
    main()
