"""Appendix A1: between two digits, in the latent, in the noise, or in both."""

import functools
import html
from pathlib import Path

import ipywidgets as w
import torch
from torch import Tensor

from diffae_core.autoencoder import SimpleAutoencoder
from diffae_core.base.devices import seeded
from diffae_core.base.plotting import enlarge, labelled_png, tile
from diffae_core.data.digits import Digits
from diffae_core.demo import save_gif
from diffae_core.diffusion import DiffusionModel, to_pixels
from diffae_core.latents import lerp, slerp
from diffae_core.panels.base import INVERSION, PREVIEW_STEPS, Panel, fitting_prior, new_path, zoom_for
from diffae_core.panels.controls import another_class, choice, digit_choice, slider, switch
from diffae_core.prior import LatentPrior

GIF_FRAMES = 25


class InterpolationPanel(Panel):
    """Appendix A1: interpolate between two digits' latents, their inverted noises x_T, or both.

    Args:
        autoencoder, model: trained ones.
        digits: the digits to choose from.
        prior: it refines latents between digits; None for the shipped one, where it belongs to the autoencoder.
        folder: where the GIF is saved.
    """

    previews = True

    def __init__(
        self,
        autoencoder: SimpleAutoencoder,
        model: DiffusionModel,
        digits: Digits,
        prior: LatentPrior | None = None,
        folder: str | Path = ".",
    ):
        model.check_latents_from(autoencoder)
        self.autoencoder, self.model, self.images, self.folder = autoencoder, model, digits.images, Path(folder)
        self.prior = fitting_prior(prior, autoencoder)
        self.latents = autoencoder.encode_dataset(digits).tensors[0]
        self.own_noise = functools.lru_cache(maxsize=256)(self._own_noise)
        controls = {
            "first": digit_choice("first digit", digits, 0),
            "second": digit_choice("second digit", digits, another_class(digits)),
            "move": choice("what moves", ["both", "latent", "noise"], "both", "the rest stays as in the first digit"),
            "share": slider(w.FloatSlider, "second's share", 0.5, 0, 1, 0.02, "0: the first digit; 1: the second"),
            "roughly": slider(w.FloatSlider, "latent noise", 1.0, 0, 2, 0.1, "Half-way. 0: literally; 2: only roughly"),
            "refine": switch("refine", False, "bring the latent back to those that digits have (prior)"),
        }
        rows = [["first", "second"], ["share", "move"], ["roughly", "refine"]]
        super().__init__(controls, rows, played="share")

    def extra_buttons(self) -> list[w.Widget]:
        return [self.button("Save as GIF", "film", "From the first digit to the second and back", self.save_gif)]

    def idle(self, move: str, share: float, **state) -> set[str]:
        idle = {"roughly", "refine"} if move == "noise" or share in (0, 1) else set()
        return idle | (set() if self.prior else {"refine"})

    def _own_noise(self, digit: int) -> Tensor:
        """x_T of a digit: the noise from which its own latent, taken literally, gives it back."""
        return self.model.invert(self.images[[digit]], self.latents[[digit]], latent_noise=0.0, **INVERSION).cpu()

    def latent(self, first: int, second: int, move: str, share: float, refine: bool, **_) -> Tensor:
        """The latent at a share of the way, ``(1, latent_dim)``."""
        z = lerp(self.latents[[first]], self.latents[[second]], 0.0 if move == "noise" else share)
        if refine and move != "noise":
            z = self.prior.refine(z, 0.5 * middleness(share), generator=seeded(0)).cpu()
        return z

    def noise(self, first: int, second: int, move: str, share: float, **_) -> Tensor:
        """The noise x_T at a share of the way, ``(1, 1, 28, 28)``."""
        return slerp(self.own_noise(first), self.own_noise(second), 0.0 if move == "latent" else share)

    def between(self, num_steps: int = INVERSION["num_steps"], **state) -> tuple[Tensor, Tensor, Tensor]:
        """Latent, noise x_T and image ``(1, 1, 28, 28)`` of a state."""
        z, x_T = self.latent(**state), self.noise(**state)
        told = 0.0 if state["move"] == "noise" else state["roughly"] * middleness(state["share"])
        image = self.model.generate(z, num_steps, spacing=INVERSION["spacing"], x_T=x_T, latent_noise=told)
        return z, x_T, image.cpu()

    @torch.no_grad()
    def draw(self, preview: bool, **state) -> bytes:
        z, x_T, image = self.between(PREVIEW_STEPS if preview else INVERSION["num_steps"], **state)
        first, second = self.images[[state["first"], state["second"]]].split(1)
        tiles = torch.cat([first, to_pixels(x_T), image, self.autoencoder.decode(z).cpu(), second])
        headings = ("first", "noise x_T", "between (DDIM)", "average (decoder)", "second")
        return labelled_png({"": tiles}, headings, zoom=zoom_for(tiles, 140))

    def save_gif(self) -> None:
        """Write the interpolation with the present settings, there and back."""
        shares = torch.linspace(0, 1, GIF_FRAMES).tolist()
        images = [self.between(**self.state | {"share": share})[2] for share in shares]
        frames = [enlarge(tile(image), zoom_for(image, 224)) for image in images]
        path = save_gif([*frames, *reversed(frames)], new_path(self.folder, "interpolation_{}.gif"))
        self.message.value = f"saved as {html.escape(str(path))}"


def middleness(share: float) -> float:
    """0 at both digits, 1 half-way: how far from any digit a latent between two is."""
    return 1 - abs(2 * share - 1)
