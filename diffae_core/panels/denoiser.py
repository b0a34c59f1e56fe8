"""Notebook 03: one evaluation of the U-Net."""

import ipywidgets as w
import torch

from diffae_core.autoencoder import SimpleAutoencoder
from diffae_core.base.devices import seeded
from diffae_core.base.plotting import labelled_png
from diffae_core.data.digits import Digits
from diffae_core.diffusion import DiffusionModel, to_pixels
from diffae_core.panels.base import Panel
from diffae_core.panels.controls import Another, another_class, choice, digit_choice, slider, zoom_for

OWN, OTHER, NONE = "its own", "another digit's", "none (all zeros)"


class DenoiserPanel(Panel):
    """Notebook 03: a noisy digit, and what the U-Net makes of it with its own latent, another digit's, or none."""

    def __init__(self, autoencoder: SimpleAutoencoder, model: DiffusionModel, digits: Digits):
        model.check_latents_from(autoencoder)
        self.model, self.images = model, digits.images
        self.latents = autoencoder.encode_dataset(digits).tensors[0]
        controls = {
            "digit": digit_choice("digit", digits, 0),
            "time": slider(w.FloatSlider, "diffusion time", 0.9, 0, 1, 0.02, "0: the clean digit; 1: pure noise"),
            "latent": choice("latent", [OWN, OTHER, NONE], OTHER, "what the U-Net is told"),
            "other": digit_choice("other digit", digits, another_class(digits)),
            "seed": Another("Another noise", "Add another noise"),
        }
        super().__init__(controls, [["digit", "time"], ["latent", "seed"], ["other"]], played="time")

    def idle(self, latent: str, **state) -> set[str]:
        return set() if latent == OTHER else {"other"}

    @torch.no_grad()
    def draw(self, preview: bool, digit: int, time: float, latent: str, other: int, seed: int) -> bytes:
        image = self.images[[digit]]
        noisy, noise = self.model.add_noise(image, time, seeded(seed))
        z = self.latents[[other if latent == OTHER else digit]] * (latent != NONE)
        clean, predicted_noise = self.model.denoise_once(noisy, time, z)
        # noise has a standard deviation of 1, a clean image goes from -1 to 1: show noise at half its contrast
        tiles = torch.cat([2 * image.to(noisy.device) - 1, noisy, noise / 2, predicted_noise / 2, clean])
        headings = ("clean digit", "noisy input", "true noise", "predicted noise", "predicted digit")
        return labelled_png({"": to_pixels(tiles)}, headings, zoom=zoom_for(tiles))
