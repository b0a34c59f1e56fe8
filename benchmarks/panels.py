"""How fast the panels answer: from a control's change to new PNG bytes, and to the full picture after a rest.

python benchmarks/panels.py        a minute on 2 cores; prints a table
"""

import argparse
import asyncio
import random
import time

import torch

import diffae_core as core
from diffae_core import panels


def make_panels() -> dict[str, panels.Panel]:
    digits, reference = core.load_sample("test").spaced(30), core.load_sample("train")
    autoencoder, model = core.SimpleAutoencoder.from_pretrained(), core.DiffusionModel.from_pretrained()
    head = core.BayesianLastLayer(autoencoder.encoder, autoencoder.latent_dim)
    for _ in core.train_last_layer(head, autoencoder.encode_dataset(reference)):
        pass
    return {
        "01 blend": panels.BlendPanel(autoencoder, digits),
        "02 noise": panels.NoisePanel(digits),
        "03 denoiser": panels.DenoiserPanel(autoencoder, model, digits),
        "04 filmstrip": panels.FilmstripPanel(autoencoder, model, digits),
        "05 playground": panels.Playground(autoencoder, model, digits, reference),
        "A1 interpolation": panels.InterpolationPanel(autoencoder, model, digits),
        "A2 CLUE": panels.CluePanel(autoencoder, model, head, digits.spaced(12)),
    }


def sliders(panel: panels.Panel) -> list:
    """The sliders that have an effect; the number of steps stays at its default."""
    controls = {name: control for name, control in panel.controls.items() if name != "steps"}
    return [control for control in controls.values() if hasattr(control, "step") and not control.disabled]


async def answers(panel: panels.Panel, events: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each answer to a slider's change, and of each full picture, at the panel's default settings."""
    dice, quick, full = random.Random(0), [], []
    for _ in range(events):
        control = dice.choice(sliders(panel))
        steps = round((control.max - control.min) / control.step)
        before, began = panel.image.value, time.perf_counter()
        control.value = control.min + dice.randrange(steps + 1) * control.step
        if panel.image.value != before:
            quick.append(1000 * (time.perf_counter() - began))
            began = time.perf_counter()
            panel.draw(False, **panel.state)
            full.append(1000 * (time.perf_counter() - began))
    return quick, full


async def drawing(playground: panels.Playground, events: int) -> list[float]:
    """Milliseconds of each answer to a pen that draws a seven, point by point."""
    times, points = [], []
    for event in range(events):
        share = event / events
        points.append([0.3 + 0.8 * share, 0.25] if share < 0.5 else [0.95 - 0.5 * share, 1.1 * share - 0.3])
        began = time.perf_counter()
        playground.canvas.strokes = [{"erase": False, "points": list(points)}]
        times.append(1000 * (time.perf_counter() - began))
    return times


def cells(*rows: list[float]) -> str:
    return " | ".join(f"{torch.tensor(row).quantile(share):.0f}" for row in rows for share in (0.5, 0.95))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100, help="changes of each panel (%(default)s)")
    events = parser.parse_args().events
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {events} random changes of each panel\n")
    print("| panel | answer, median ms | answer, p95 ms | full picture, median ms | p95 ms |")
    print("|---|---|---|---|---|")
    made = make_panels()
    for name, panel in made.items():
        print(f"| {name} | {cells(*asyncio.run(answers(panel, events)))} |")
    print(f"| 05 playground, drawing | {cells(asyncio.run(drawing(made['05 playground'], events)))} | | |")


if __name__ == "__main__":
    main()
