"""Appendix A2: a panel that leads an uncertain digit, step by step, to one that the classifier is sure of."""

import ipywidgets as w
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diffae_core.autoencoder import SimpleAutoencoder
from diffae_core.data import Digits
from diffae_core.diffusion import DiffusionModel, LatentDecoder
from diffae_core.pictures import labelled_picture, png_bytes, stack
from diffae_core.training import encode_all
from diffae_core.uncertainty import BayesianLastLayer, clue, decompose_entropy
from diffae_core.widgets import PREVIEW_STEPS, WIDE, Panel, digit_choice, seeded, slider

WEIGHTS = (0.005, 0.03, 0.1, 0.3, 0.7, 1.0, 1.5)  # of the distance
PATH_STEPS = 200  # of CLUE


class CluePanel(Panel):
    """Appendix A2: an uncertain digit, how dear its distance is, and how far along CLUE's path to go.

    All paths are walked once, when the panel is made; a slider only looks them up and draws.

    Args:
        autoencoder, model, head: trained.
        digits: uncertain ones, to choose from.
    """

    previews = True

    def __init__(self, autoencoder: SimpleAutoencoder, model: DiffusionModel, head: BayesianLastLayer, digits: Digits):
        self.autoencoder, self.head, self.images = autoencoder, head, digits.images
        self.draw_quickly, self.draw_fully = LatentDecoder(model, PREVIEW_STEPS), LatentDecoder(model, 20)
        z0 = encode_all(autoencoder, digits)
        self.paths = {}  # weight -> (PATH_STEPS + 1, N, latent_dim)
        for weight in WEIGHTS:
            _, history = clue(z0, head, distance_weight=weight, steps=PATH_STEPS, num_samples=50)
            self.paths[weight] = history["latents"]
        controls = {
            "digit": digit_choice("uncertain digit", digits, 0),
            "weight": w.SelectionSlider(
                options=WEIGHTS,
                value=0.005,
                description="distance weight",
                tooltip="How dear it is to move away",
                **WIDE,
            ),
            "share": slider(w.FloatSlider, "share of the path", 1.0, 0, 1, 0.05, "0 is the digit, 1 where CLUE ends"),
        }
        super().__init__(controls, [["digit", "weight"], ["share"]])

    @torch.no_grad()
    def draw(self, preview: bool, digit: int, weight: float, share: float) -> bytes:
        pair = self.paths[weight][[0, round(share * PATH_STEPS)], digit]  # before and now, (2, latent_dim)
        probabilities = self.head.sample_predict_z(pair, 100, seeded(0))
        before, now = decompose_entropy(probabilities).total.tolist()  # of the latents
        rows = {}
        ddim = self.draw_quickly if preview else self.draw_fully
        for name, decoder in (("own decoder", self.autoencoder.decode), ("DDIM", ddim)):
            copy, changed = decoder(pair).cpu().split(1)
            strokes = [3 * (changed - copy).clamp(min=0), 3 * (copy - changed).clamp(min=0)]
            of_picture = decompose_entropy(self.head.sample_predict(changed, 100, seeded(0))).total.item()
            label = f"{name}: picture {of_picture:.2f} nats"
            rows[label] = torch.cat([self.images[[digit]], copy, changed, *strokes])
        headings = ("digit", f"latent: {before:.2f} nats", f"now: {now:.2f} nats", "added x 3", "removed x 3")
        strip = labelled_picture(rows, headings, zoom=4)
        return png_bytes(stack(strip, probability_bars(probabilities.mean(dim=0).cpu(), strip.width, 110)))


def probability_bars(probabilities: Tensor, width: int, height: int) -> Image.Image:
    """Class probabilities ``(2, 10)`` as bars: before in grey, now in black, the class below."""
    picture, font = Image.new("L", (width, height), 255), ImageFont.load_default(size=14)
    pen, slot, bottom = ImageDraw.Draw(picture), width / 10, height - 20
    for label, pair in enumerate(probabilities.T.tolist()):
        middle = (label + 0.5) * slot
        for left, share, grey in ((middle - 16, pair[0], 170), (middle, pair[1], 0)):
            pen.rectangle((left, bottom - share * (bottom - 6), left + 14, bottom), fill=grey)
        pen.text((middle, height - 10), str(label), fill=0, font=font, anchor="mm")
    return picture
