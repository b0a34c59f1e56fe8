"""How fast the panels answer: from a control's change to new PNG bytes, and to the full picture after a rest.

python benchmarks/panels.py        a minute on 2 cores; prints a table
"""

import argparse
import asyncio
import random
import time
from collections.abc import Callable

import torch

import diffae_core as core
from diffae_core import panels


def make_panels() -> dict[str, panels.Panel]:
    digits, reference = core.load_sample("test").spaced(30), core.load_sample("train")
    kinds = core.SimpleAutoencoder, core.DiffusionModel, core.LatentPrior
    autoencoder, model, prior = (kind.from_pretrained() for kind in kinds)
    head = core.BayesianLastLayer(autoencoder.encoder, autoencoder.latent_dim)
    for _ in core.train_last_layer(head, autoencoder.encode_dataset(reference)):
        pass
    return {
        "01 blend": panels.BlendPanel(autoencoder, digits),
        "02 noise": panels.NoisePanel(digits),
        "03 denoiser": panels.DenoiserPanel(autoencoder, model, digits),
        "04 filmstrip": panels.FilmstripPanel(autoencoder, model, digits),
        "05 playground": panels.Playground(autoencoder, model, digits, reference, prior),
        "A1 interpolation": panels.InterpolationPanel(autoencoder, model, digits, prior),
        "A2 CLUE": panels.CluePanel(autoencoder, model, head, digits.spaced(12)),
    }


def slide(panel: panels.Panel, share: float) -> None:
    """Move one of the sliders that have an effect to a random place; the number of steps stays at its default."""
    controls = (control for name, control in panel.controls.items() if name != "steps" and not control.disabled)
    control = random.choice([control for control in controls if hasattr(control, "step")])
    control.value = control.min + random.randint(0, round((control.max - control.min) / control.step)) * control.step


def draw_seven(playground: panels.Playground, share: float) -> None:
    """The pen's next point."""
    strokes = playground.canvas.strokes or [{"erase": False, "points": []}]
    point = [0.3 + 0.8 * share, 0.25] if share < 0.5 else [0.95 - 0.5 * share, 1.1 * share - 0.3]
    playground.canvas.strokes = [{"erase": False, "points": [*strokes[0]["points"], point]}]


async def answers(panel: panels.Panel, change: Callable, events: int) -> str:
    """Milliseconds to the answer to a change and to the full picture after it, the median and the 95th percentile."""
    quick, full = [], []
    for event in range(events):
        before, began = panel.image.value, time.perf_counter()
        change(panel, event / events)
        if panel.image.value != before:
            quick.append(1000 * (time.perf_counter() - began))
            began = time.perf_counter()
            panel.show()
            full.append(1000 * (time.perf_counter() - began))
    return " | ".join(f"{torch.tensor(row).quantile(share):.0f}" for row in (quick, full) for share in (0.5, 0.95))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100, help="changes of each panel (%(default)s)")
    events, made = parser.parse_args().events, make_panels()
    random.seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {events} random changes of each panel\n")
    print("| panel | answer, median ms | answer, p95 ms | full picture, median ms | p95 ms |\n|---|---|---|---|---|")
    for name, panel in made.items():
        print(f"| {name} | {asyncio.run(answers(panel, slide, events))} |", flush=True)
    print(f"| 05 playground, drawing | {asyncio.run(answers(made['05 playground'], draw_seven, events))} |")


if __name__ == "__main__":
    main()
