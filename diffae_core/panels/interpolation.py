"""Appendix A1: between two digits, on the straight line of their latents or on the arc of their handwritings."""

import ipywidgets as w
import torch
from torch import Tensor

from diffae_core.autoencoder import SimpleAutoencoder
from diffae_core.base.plotting import labelled_picture, png_bytes, stack
from diffae_core.data.digits import Digits, check_digits
from diffae_core.diffusion import NUM_STEPS, DiffusionModel
from diffae_core.latents import lerp, slerp
from diffae_core.panels.base import PREVIEW_STEPS, PRIOR_PREVIEW, Panel
from diffae_core.panels.controls import another_class, choice, digit_choice, slider, zoom_for
from diffae_core.prior import LatentPrior

LINE, ARC = "straight line of latents", "arc of handwritings"
SHOWN = 9  # frames in the strip


class InterpolationPanel(Panel):
    """Appendix A1: interpolate between two digits.

    On the straight line, the two latents are mixed. On the arc, the two handwritings z_T are, and the label changes
    half-way. The noise x_T moves along an arc from one digit's to the other's, so both ends are the digits themselves.

    Args:
        autoencoder, model: trained.
        digits: the digits to choose from.
        prior: gives the handwritings; None leaves out the arc.
    """

    previews = True
    cached = ("render", "x_T", "z_T", "strip")

    def __init__(
        self,
        autoencoder: SimpleAutoencoder,
        model: DiffusionModel,
        digits: Digits,
        prior: LatentPrior | None = None,
    ):
        model.check_latents_from(autoencoder)
        check_digits(digits, model.image_size)
        self.model, self.images = model, digits.images
        self.prior = prior
        if prior is not None:
            prior.check_latents_from(autoencoder)
        self.latents, labels = autoencoder.encode_dataset(digits).tensors
        self.labels = labels if self.prior and 0 < digits.num_classes == self.prior.num_classes else None
        ways = [LINE, ARC] if self.prior else [LINE]
        controls = {
            "first": digit_choice("first digit", digits, 0),
            "second": digit_choice("second digit", digits, another_class(digits)),
            "way": choice("way", ways, ways[-1], "what is mixed: all of the latent, or the handwriting"),
            "share": slider(w.FloatSlider, "second's share", 0.5, 0, 1, 0.02, "0: the first digit; 1: the second"),
        }
        super().__init__(controls, [["first", "second"], ["way", "share"]], played="share")

    def idle(self, **_) -> set[str]:
        return set() if self.prior else {"way"}

    def x_T(self, digit: int) -> Tensor:
        """The noise from which a digit's own latent leads back to the digit."""
        return self.model.invert(self.images[[digit]], self.latents[[digit]]).cpu()

    def z_T(self, digit: int) -> Tensor:
        """The handwriting of a digit."""
        return self.prior.invert(self.latents[[digit]], None if self.labels is None else self.labels[[digit]]).cpu()

    def latent(self, first: int, second: int, way: str, shares: Tensor, preview: bool = False) -> Tensor:
        """The latents at shares ``(S, 1)`` of the way, ``(S, latent_dim)``."""
        if way == LINE:
            return lerp(*self.latents[[first, second]].split(1), shares)
        z_T = slerp(self.z_T(first), self.z_T(second), shares)
        labels = None if self.labels is None else self.labels[[first, second]][(shares[:, 0] >= 0.5).long()]
        return self.prior.generate(z_T, labels, **PRIOR_PREVIEW if preview else {})

    def between(self, first: int, second: int, way: str, shares: Tensor, preview: bool = False) -> Tensor:
        """The images at shares ``(S,)`` of the way, ``(S, 1, H, W)``."""
        x_T = slerp(self.x_T(first), self.x_T(second), shares[:, None, None, None])
        latents = self.latent(first, second, way, shares[:, None], preview)
        return self.model.generate(latents, PREVIEW_STEPS if preview else NUM_STEPS, x_T=x_T).cpu()

    def strip(self, first: int, second: int, way: str, preview: bool) -> Tensor:
        """The images that the strip shows."""
        return self.between(first, second, way, torch.linspace(0, 1, SHOWN), preview)

    def draw(self, preview: bool, first: int, second: int, way: str, share: float) -> bytes:
        image = self.between(first, second, way, torch.tensor([share]), preview)
        tiles = torch.cat([self.images[[first]], image, self.images[[second]]])
        large = labelled_picture(
            {"": tiles}, ("first", f"{share:.0%} of the way", "second"), zoom_for(tiles, 196), gap=1
        )
        headings = tuple(f"{share:.0%}" for share in torch.linspace(0, 1, SHOWN).tolist())
        strip = labelled_picture({"": self.strip(first, second, way, preview)}, headings, zoom_for(tiles, 84))
        return png_bytes(stack(large, strip))
