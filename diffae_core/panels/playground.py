"""Notebook 05: the playground, where a digit's latent and its noise can be changed in every way there is."""

import functools
import html
from pathlib import Path

import ipywidgets as w
import torch
from torch import Tensor

from diffae_core.autoencoder import SimpleAutoencoder
from diffae_core.base.checkpoints import atomic_write
from diffae_core.base.devices import seeded
from diffae_core.base.plotting import labelled_picture, png_bytes, stack
from diffae_core.data.digits import Digits
from diffae_core.diffusion import DiffusionModel, to_pixels
from diffae_core.panels.base import INVERSION, PREVIEW_STEPS, fitting_prior, new_path, zoom_for
from diffae_core.panels.controls import choice, digit_choice, slider, switch
from diffae_core.panels.directions import Directions
from diffae_core.panels.own_digits import OwnDigitsPanel
from diffae_core.prior import LatentPrior

NOISED, INVERTED = "the digit, noised", "its inverted noise"
VARIATIONS = 5


class Playground(OwnDigitsPanel):
    """Notebook 05: noise a digit, change its latent, denoise it; draw a digit; save the picture, or copy its code.

    Args:
        autoencoder, model: trained ones.
        digits: the digits to choose from.
        reference: digits whose latents give the class means and the directions.
        prior: it refines edits and makes new digits; None for the shipped one, where it belongs to the autoencoder.
        folder: where the save button writes.
    """

    previews = True

    def __init__(
        self,
        autoencoder: SimpleAutoencoder,
        model: DiffusionModel,
        digits: Digits,
        reference: Digits,
        prior: LatentPrior | None = None,
        folder: str | Path = ".",
    ):
        model.check_latents_from(autoencoder)
        self.autoencoder, self.model, self.folder = autoencoder, model, Path(folder)
        self.prior = fitting_prior(prior, autoencoder)
        self.images, self.latents = digits.images, autoencoder.encode_dataset(digits).tensors[0]
        self.directions = Directions(autoencoder, reference)
        self.direction, names = self.directions.vector, self.directions.class_names
        self.class_names = names if self.prior and self.prior.num_classes == len(names) else []
        super().__init__(
            self._controls(digits),
            [["digit", "direction"], ["start", "strength"], ["time", "seed"], ["refine", "refine_time"],
             ["tell", "latent_noise"], ["steps", "direction_seed"]],
        )  # fmt: skip

    def _controls(self, digits: Digits) -> dict[str, w.Widget]:
        classes = len(self.directions.class_names)
        target = f"edit {(int(digits.labels[0]) + classes // 2) % classes}" if classes else "random"
        fslider, islider = functools.partial(slider, w.FloatSlider), functools.partial(slider, w.IntSlider)
        return {
            "digit": digit_choice("digit", digits, 0),
            "direction": choice("direction", self.directions.options(), target, "where the latent is moved"),
            "strength": fslider("strength", 1.5, -3, 3, 0.1, "In standard deviations; to a mean: 1 is all the way"),
            "direction_seed": islider("direction seed", 0, 0, 99, 1, "Which random direction"),
            "start": choice("start from", [NOISED, INVERTED], NOISED, "what is denoised"),
            "time": fslider("diffusion time", 0.8, 0, 1, 0.05, "How far the digit is noised: 1 leaves nothing of it"),
            "seed": islider("noise seed", 0, 0, 99, 1, "Which noise is added, and begins the variations"),
            "refine": switch("refine", bool(self.prior), "the moved latent, by the prior; an edit with its label"),
            "refine_time": fslider("refine time", 0.6, 0, 1, 0.05, "0 changes nothing, 1 forgets the latent"),
            "tell": switch("tell latent noise", False, "else the network estimates it by itself"),
            "latent_noise": fslider("latent noise", 1.0, 0, 2, 0.1, "0: take the latent literally; 2: only roughly"),
            "steps": islider("DDIM steps", 20, 1, 50, 1, "In the picture drawn once the sliders rest"),
        }

    def extra_buttons(self) -> list[w.Widget]:
        return [
            self.button("Save picture", "save", "As a PNG, beside the notebook", self.save),
            self.button("Copy as Python", "copy", "The calls that make this picture", self.copy),
        ]

    def idle(self, direction: str, start: str, refine: bool, tell: bool, strength: float, **state) -> set[str]:
        without_effect = {
            "time": start == INVERTED,
            "direction_seed": direction != "random" or strength == 0,
            "refine": self.prior is None,
            "refine_time": not refine,
            "latent_noise": not tell,
        }
        return {name for name, idle in without_effect.items() if idle}

    def label(self, direction: str) -> int | None:
        """The class that a direction leads to, if the prior knows classes."""
        return self.directions.label(direction) if self.class_names else None

    def moved(
        self, digit, direction, strength, direction_seed, seed, refine, refine_time, preview=False, **_
    ) -> Tensor:
        """The changed latent of a state, ``(1, latent_dim)``."""
        latent = self.latents[[digit]]
        moved = latent + strength * self.direction(direction, latent, direction_seed)
        if not refine:
            return moved
        settings = {"labels": self.label(direction), "num_steps": 10 if preview else 50, "generator": seeded(seed)}
        return self.prior.refine(moved, refine_time, **settings).cpu()

    def draw(self, preview: bool, **state) -> bytes:
        digit, seed, steps = state["digit"], state["seed"], state["steps"]
        image, moved = self.images[[digit]], self.moved(preview=preview, **state)
        if state["start"] == NOISED:
            time, spacing = state["time"], "uniform"
            noisy = self.model.add_noise(image, time, seeded(seed))[0].cpu()
        else:
            time, spacing, noisy = 1.0, INVERSION["spacing"], self.own_noise(digit).cpu()
        x_T = torch.randn(VARIATIONS, *image.shape[1:], generator=seeded(seed + 1000))
        images = self.model.denoise_with_latent(
            torch.cat([noisy, x_T]),
            moved.expand(1 + VARIATIONS, -1),
            torch.tensor([time, *[1.0] * VARIATIONS]),
            min(steps, PREVIEW_STEPS) if preview else steps,
            spacing=spacing,
            latent_noise=state["latent_noise"] if state["tell"] else None,
        ).cpu()  # fmt: skip
        denoised, variations = images[:1], images[1:]
        change = denoised - image
        tiles = torch.cat([image, to_pixels(noisy), denoised, change.clamp(min=0), (-change).clamp(min=0)])
        headings = ("original", "noisy", "denoised", "added", "removed")
        above = labelled_picture({"": tiles}, headings, zoom_for(tiles))
        others = tuple(f"variation {number}" for number in range(1, VARIATIONS + 1))
        return png_bytes(stack(above, labelled_picture({"": variations}, others, zoom_for(tiles))))

    def python_call(self) -> str:
        """The lines of Python that make the present digit again, for a panel called ``playground``."""
        state = self.state
        digit, seed, direction = state["digit"], state["seed"], state["direction"]
        told = f", latent_noise={state['latent_noise']}" if state["tell"] else ""
        lines = [
            f"image, latent = playground.images[[{digit}]], playground.latents[[{digit}]]",
            f"direction = playground.direction({direction!r}, latent, {state['direction_seed']})",
            f"moved = latent + {state['strength']} * direction",
        ]
        if state["refine"]:
            wanted = f"labels={self.label(direction)}, generator=core.seeded({seed})"
            lines += [f"moved = playground.prior.refine(moved, {state['refine_time']}, {wanted})"]
        if state["start"] == NOISED:
            lines += [f"noisy, _ = diffusion_model.add_noise(image, {state['time']}, core.seeded({seed}))"]
            settings = f"{state['time']}, num_steps={state['steps']}{told}"
            lines += [f"denoised = diffusion_model.denoise_with_latent(noisy, moved, {settings})"]
        else:
            inversion = ", ".join(f"{name}={value!r}" for name, value in INVERSION.items())
            lines += [f"x_T = diffusion_model.invert(image, latent, {inversion})"]
            settings = f"num_steps={state['steps']}, x_T=x_T, spacing={INVERSION['spacing']!r}{told}"
            lines += [f"denoised = diffusion_model.generate(moved, {settings})"]
        return "\n".join(lines)

    def save(self) -> None:
        """Write the picture as a PNG that is not there yet."""
        path = new_path(self.folder, "playground_{}.png")
        with atomic_write(path) as temporary:
            temporary.write_bytes(self.render(preview=False, **self.state))
        self.message.value = f"saved as {html.escape(str(path))}"

    def copy(self) -> None:
        """Put the Python of the present state on the clipboard, and show it."""
        code = self.python_call()
        self.browser.send({"copy": code})
        self.message.value = f"On the clipboard, where the browser allows it:<pre>{html.escape(code)}</pre>"
