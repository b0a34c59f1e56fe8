"""Notebook 04: from noise to a digit, step by step."""

import ipywidgets as w
import torch
from PIL import Image
from torch import Tensor

from diffae_core.autoencoder import SimpleAutoencoder
from diffae_core.base.devices import seeded
from diffae_core.base.plotting import labelled_picture, png_bytes, stack
from diffae_core.data.digits import Digits
from diffae_core.diffusion import DiffusionModel, to_pixels
from diffae_core.panels.base import Panel
from diffae_core.panels.controls import Another, digit_choice, slider, zoom_for

SHOWN = 8  # steps in the strip
MOST_PREVIEWED = 10  # steps while a slider moves


class FilmstripPanel(Panel):
    """Notebook 04: x_t and the predicted x_0 at the steps of DDIM, and one of these steps enlarged."""

    previews = True
    cached = ("render", "strip")

    def __init__(self, autoencoder: SimpleAutoencoder, model: DiffusionModel, digits: Digits):
        model.check_latents_from(autoencoder)
        self.model, self.latents = model, autoencoder.encode_dataset(digits).tensors[0]
        controls = {
            "digit": digit_choice("latent of digit", digits, 0),
            "share": slider(w.FloatSlider, "share of steps", 0.3, 0, 1, 0.02, "Which step is shown enlarged"),
            "steps": slider(w.IntSlider, "DDIM steps", 10, 1, 50, 1, "How often the U-Net is evaluated"),
            "eta": slider(w.FloatSlider, "eta", 0.0, 0, 1, 0.05, "0: no fresh noise (DDIM); 1: as much as DDPM"),
            "seed": Another("Another x_T", "Start from another noise"),
        }
        super().__init__(controls, [["digit", "share"], ["steps", "eta"], ["seed"]], played="share")

    def strip(self, digit: int, steps: int, eta: float, seed: int) -> tuple[Tensor, Tensor]:
        """x_t and the predicted x_0 after each step, both ``(steps, 1, 28, 28)`` in [0, 1]."""
        seen, generator = [], seeded(seed)

        def keep(step: int, x_t: Tensor, clean: Tensor) -> None:
            seen.append(torch.stack([x_t, clean]))

        self.model.generate(self.latents[[digit]], steps, eta=eta, generator=generator, callback=keep)
        return to_pixels(torch.cat(seen, dim=1)).cpu().unbind()

    def draw(self, preview: bool, digit: int, share: float, steps: int, eta: float, seed: int) -> bytes:
        steps = min(steps, MOST_PREVIEWED) if preview else steps
        noisy, clean = self.strip(digit, steps, eta, seed)
        shown = sorted({round(place * (steps - 1) / (SHOWN - 1)) for place in range(SHOWN)})
        headings, zoom = tuple(f"step {step + 1}" for step in shown), zoom_for(clean, 84)
        strip = labelled_picture({"x_t": noisy[shown], "predicted x_0": clean[shown]}, headings, zoom)
        now = round(share * (steps - 1))
        pair = torch.stack([noisy[now], clean[now]])
        large = labelled_picture({f"step {now + 1} of {steps}": pair}, ("x_t", "predicted x_0"), zoom_for(clean, 140))
        full_width = strip.width + (SHOWN - len(shown)) * zoom * (clean.shape[-1] + 2)
        return png_bytes(on_page(stack(strip, large), full_width))


def on_page(picture: Image.Image, width: int) -> Image.Image:
    """A picture on white paper of a fixed width, so that nothing jumps when fewer tiles are shown."""
    page = Image.new(picture.mode, (max(width, picture.width), picture.height), "white")
    page.paste(picture)
    return page
