"""Notebook 01: a straight line from one digit's latent to another's, and what the decoder makes of the points on it."""

import ipywidgets as w
import torch

from diffae_core.autoencoder import SimpleAutoencoder
from diffae_core.base.plotting import labelled_png
from diffae_core.data.digits import Digits
from diffae_core.latents import lerp
from diffae_core.panels.base import Panel
from diffae_core.panels.controls import another_class, digit_choice, slider, zoom_for


class BlendPanel(Panel):
    """Notebook 01: interpolate between the latents of two digits, and decode."""

    def __init__(self, autoencoder: SimpleAutoencoder, digits: Digits):
        self.autoencoder, self.images = autoencoder, digits.images
        self.latents = autoencoder.encode_dataset(digits).tensors[0]
        controls = {
            "first": digit_choice("first digit", digits, 0),
            "second": digit_choice("second digit", digits, another_class(digits)),
            "share": slider(w.FloatSlider, "second's share", 0.5, 0, 1, 0.02, "0: the first digit; 1: the second"),
        }
        super().__init__(controls, [["first", "second"], ["share"]], played="share")

    @torch.no_grad()
    def draw(self, preview: bool, first: int, second: int, share: float) -> bytes:
        images, (a, b) = self.images[[first, second]], self.latents[[first, second]].split(1)
        decoded = self.autoencoder.decode(torch.cat([a, lerp(a, b, share), b])).cpu()
        pixels = lerp(*images.split(1), share)
        tiles = torch.cat([images[:1], decoded[:2], pixels, decoded[2:], images[1:]])
        headings = ("first", "decoded", "between", "mean of pixels", "decoded", "second")
        return labelled_png({"": tiles}, headings, zoom=zoom_for(tiles))
