"""Appendix A2: an uncertain digit is changed, step by step, to one that the classifier is certain of."""

import ipywidgets as w
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from diffae_core.autoencoder import SimpleAutoencoder
from diffae_core.base.devices import seeded
from diffae_core.base.plotting import font, labelled_picture, png_bytes, stack
from diffae_core.data.digits import Digits
from diffae_core.diffusion import DiffusionModel
from diffae_core.panels.base import PREVIEW_STEPS, Panel
from diffae_core.panels.controls import LABEL, WIDE, digit_choice, slider, zoom_for
from diffae_core.uncertainty import BayesianLastLayer, clue, decompose_entropy

WEIGHTS = (0.005, 0.03, 0.1, 0.3, 0.7, 1.0, 1.5)  # of the distance
PATH_STEPS = 200  # of CLUE
BEFORE, NOW = 170, 0  # greys of the bars


class CluePanel(Panel):
    """Appendix A2: an uncertain digit, the weight of the distance, and how far along CLUE's path to go.

    All paths are computed once, when the panel is made; a slider only looks them up and decodes.

    Args:
        autoencoder, model, head: trained.
        digits: uncertain digits to choose from.
    """

    previews = True

    def __init__(self, autoencoder: SimpleAutoencoder, model: DiffusionModel, head: BayesianLastLayer, digits: Digits):
        model.check_latents_from(autoencoder)
        self.autoencoder, self.head, self.images = autoencoder, head, digits.images
        self.model = model
        fits = digits.num_classes == head.num_classes
        self.names = list(digits.names) if fits else [str(label) for label in range(head.num_classes)]
        self.paths = self._paths(autoencoder.encode_dataset(digits).tensors[0])
        controls = {
            "digit": digit_choice("uncertain digit", digits, 0),
            "weight": w.SelectionSlider(
                options=[(f"{weight:g}", weight) for weight in WEIGHTS],
                value=WEIGHTS[0],
                description="distance weight",
                tooltip="Nats of entropy that one unit of distance must save",
                layout=WIDE,
                **LABEL,
            ),
            "share": slider(w.FloatSlider, "share of path", 1.0, 0, 1, 0.05, "0: the digit; 1: where CLUE ends"),
        }
        super().__init__(controls, [["digit", "weight"], ["share"]], played="share")

    def _paths(self, z0: Tensor) -> dict[float, Tensor]:
        """For each weight the latents at each step of CLUE, ``(PATH_STEPS + 1, N, latent_dim)``."""
        starts, weights = z0.repeat(len(WEIGHTS), 1), torch.tensor(WEIGHTS).repeat_interleave(len(z0))
        settings = {
            "num_steps": PATH_STEPS,
            "keep_path": True,
            "predict": lambda z: self.head.sample_predict_z(z, 50, seeded(0)),
        }
        _, history = clue(starts, distance_weight=weights, **settings)
        return dict(zip(WEIGHTS, history["latents"].cpu().split(len(z0), dim=1)))

    def idle(self, share: float, **state) -> set[str]:
        return {"weight"} if share == 0 else set()

    @torch.no_grad()
    def draw(self, preview: bool, digit: int, weight: float, share: float) -> bytes:
        pair = self.paths[weight][[0, round(share * PATH_STEPS)], digit]  # before and now, (2, latent_dim)
        probabilities = self.head(pair)
        before, now = decompose_entropy(probabilities).total.tolist()  # of the latents
        distance = (pair[1] - pair[0]).norm().item()
        ddim = self.model.generate(pair, *[PREVIEW_STEPS] * preview, generator=seeded(0))
        decoded = {"decoder": self.autoencoder.decode(pair), "DDIM": ddim}
        rows = {name: self._row(digit, images.cpu()) for name, images in decoded.items()}
        headings = ("digit", f"before: {before:.2f} nats", f"now: {now:.2f} nats", "added x 3", "removed x 3")
        strip = labelled_picture(rows, headings, zoom_for(self.images, 140))
        bars = probability_bars(probabilities.mean(dim=0).cpu(), self.names, f"distance {distance:.2f}", strip.width)
        return png_bytes(stack(strip, bars))

    def _row(self, digit: int, images: Tensor) -> Tensor:
        """The digit, what its latent decodes to before and now, and the strokes added and removed."""
        change = 3 * (images[1:] - images[:1])
        return torch.cat([self.images[[digit]], images, change.clamp(min=0), (-change).clamp(min=0)])


def probability_bars(probabilities: Tensor, names: list[str], note: str, width: int, height: int = 140) -> Image.Image:
    """Class probabilities ``(2, C)`` as bars, before in grey and now in black, with an axis and a legend."""
    picture = Image.new("L", (width, height), 255)
    pen_font = font(13)
    pen, left, top, bottom = ImageDraw.Draw(picture), 60, 24, height - 20
    slot = (width - left) / len(names)
    for tick in (0, 0.5, 1):
        y = bottom - tick * (bottom - top)
        pen.line((left, y, width, y), fill=220)
        pen.text((left - 6, y), f"{tick:g}", fill=0, font=pen_font, anchor="rm")
    for label, values in enumerate(probabilities.T.tolist()):
        middle, half = left + (label + 0.5) * slot, min(15, slot / 2 - 2)
        for start, value, grey in ((middle - half, values[0], BEFORE), (middle, values[1], NOW)):
            pen.rectangle((start, bottom - value * (bottom - top), start + half - 1, bottom), fill=grey)
        pen.text((middle, height - 9), names[label], fill=0, font=pen_font, anchor="mm")
    legend = (("probability of each class:", None), ("before", BEFORE), ("now", NOW), (note, None))
    x = left
    for text, grey in legend:
        if grey is not None:
            pen.rectangle((x, 5, x + 12, 17), fill=grey)
            x += 17
        pen.text((x, 11), text, fill=0, font=pen_font, anchor="lm")
        x += pen_font.getlength(text) + 18
    return picture
