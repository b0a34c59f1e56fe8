"""Notebook 05: the playground, a panel in which a digit's latent and its noise can be changed in every way there is."""

import functools
import html
import itertools
import json
from pathlib import Path

import ipywidgets as w
import torch
from IPython.display import Javascript
from torch import Tensor

from diffae_core.autoencoder import SimpleAutoencoder
from diffae_core.checkpoints import write_whole
from diffae_core.data import Digits, read_digit
from diffae_core.diffusion import DiffusionModel
from diffae_core.latents import class_directions, class_means, edit, principal_directions
from diffae_core.pictures import labelled_png
from diffae_core.prior import LatentPrior
from diffae_core.training import encode_all
from diffae_core.widgets import INVERSION, PREVIEW_STEPS, Panel, choice, digit_choice, seeded, slider


class Playground(Panel):
    """Notebook 05: noise a digit, change its latent, denoise it; save the picture, or copy the call that makes it.

    Args:
        autoencoder, model: trained ones.
        digits: the digits to choose from.
        reference: digits whose latents give the class means and the directions.
        prior: where new digits come from; None for the shipped one.
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
        self.autoencoder, self.model, self.folder = autoencoder, model, Path(folder)
        self.prior = LatentPrior.from_pretrained(device=model.device) if prior is None else prior
        self.images, self.latents = digits.images, encode_all(autoencoder, digits)
        reference_latents = encode_all(autoencoder, reference)
        self.means = class_means(reference_latents, reference.labels)
        self.classes = class_directions(reference_latents, reference.labels)
        self.principal = principal_directions(reference_latents, 5)
        self.own_noise = functools.lru_cache(maxsize=256)(self._own_noise)
        directions = ["random", *(f"principal {number}" for number in range(1, 6))]
        directions += [f"edit towards class {label}" for label in range(10)]
        directions += [f"towards the mean {label}" for label in range(10)]
        controls = {
            "digit": digit_choice("digit", digits, 0),
            "direction": choice("direction", directions, "random", "Where the latent is moved to"),
            "start": choice(
                "start from", ["the digit, noised", "its own noise (inverted)"], "the digit, noised", "What is denoised"
            ),
            "time": slider(
                w.FloatSlider, "diffusion time", 0.7, 0, 1, 0.05, "How far it is noised: 1 leaves nothing; inverted: 1"
            ),
            "strength": slider(
                w.FloatSlider, "strength", 0.5, -3, 3, 0.1, "Standard deviations; towards a mean: 1 is the way there"
            ),
            "steps": slider(w.IntSlider, "DDIM steps", 20, 1, 50, 1, "In the picture drawn once the sliders rest"),
            "seed": slider(w.IntSlider, "seed", 0, 0, 99, 1, "Which noise, which random direction, which new digit"),
        }
        super().__init__(controls, [["digit", "direction"], ["start", "time"], ["strength", "steps"], ["seed"], []])

    def extra_buttons(self) -> tuple[w.Widget, ...]:
        self.upload = w.FileUpload(accept="image/*", description="Your digit", tooltip="A picture of 28x28 or larger")
        self.save_button = w.Button(description="Save picture", icon="save", tooltip="As a PNG, beside the notebook")
        self.copy_button = w.Button(
            description="Copy as Python", icon="copy", tooltip="The call that makes this picture"
        )
        self.new_button = w.Button(description="New digit", icon="magic", tooltip="One that no one wrote, by the seed")
        self.clipboard = w.Output()
        self.new_button.on_click(self._on_new)
        self.upload.observe(self._on_upload, "value")
        self.save_button.on_click(self._on_save)
        self.copy_button.on_click(self._on_copy)
        return self.upload, self.new_button, self.save_button, self.copy_button, self.clipboard

    def direction(self, name: str, latent: Tensor, seed: int) -> Tensor:
        """The vector that one unit of strength adds to a latent ``(1, latent_dim)``."""
        if name == "random":
            return torch.randn(latent.shape, generator=seeded(seed))
        kind, number = name.split()[0], int(name.split()[-1])
        if kind == "edit":
            return edit(torch.zeros_like(latent), self.classes[[number]], 1.0)
        return self.principal[[number - 1]] if kind == "principal" else self.means[[number]] - latent

    def _own_noise(self, digit: int) -> Tensor:
        """x_T of a digit: the noise from which its own latent leads back to it."""
        return self.model.invert(self.images[[digit]], self.latents[[digit]], **INVERSION)

    def draw(
        self,
        preview: bool,
        digit: int,
        direction: str,
        start: str,
        time: float,
        strength: float,
        steps: int,
        seed: int,
    ):
        image, latent = self.images[[digit]], self.latents[[digit]]
        moved = latent + strength * self.direction(direction, latent, seed)
        steps = min(steps, PREVIEW_STEPS) if preview else steps
        if start == "the digit, noised":
            noisy, _ = self.model.add_noise(image, time, seeded(seed))
            denoised = self.model.denoise_with_latent(noisy, moved, time, steps).cpu()
        else:
            noisy = self.own_noise(digit)
            denoised = self.model.generate(moved, steps, x_T=noisy, spacing=INVERSION["spacing"]).cpu()
        pictures = torch.cat([image, (noisy.cpu() + 1) / 2, denoised, (denoised - image).abs()])
        return labelled_png({"": pictures}, ("original", "noisy", "denoised", "difference"), zoom=6)

    def python_call(self) -> str:
        """The lines of Python that draw the present state again, for a panel called ``playground``."""
        digit, direction, start, time, strength, steps, seed = self.state.values()
        lines = [f"image, latent = playground.images[[{digit}]], playground.latents[[{digit}]]"]
        lines += [f"moved = latent + {strength} * playground.direction({direction!r}, latent, {seed})"]
        if start == "the digit, noised":
            lines += [f"generator = torch.Generator().manual_seed({seed})"]
            lines += [f"noisy, _ = diffusion_model.add_noise(image, {time}, generator)"]
            lines += [f"denoised = diffusion_model.denoise_with_latent(noisy, moved, {time}, num_steps={steps})"]
        else:
            found = ", ".join(f"{name}={value!r}" for name, value in INVERSION.items())
            lines += [f"noisy = diffusion_model.invert(image, latent, {found})"]
            spacing = f"spacing={INVERSION['spacing']!r}"
            lines += [f"denoised = diffusion_model.generate(moved, num_steps={steps}, x_T=noisy, {spacing})"]
        return "\n".join(lines)

    def _add(self, image: Tensor, latent: Tensor, name: str) -> None:
        """Put a digit at the end of the list, and choose it."""
        self.images, self.latents = torch.cat([self.images, image]), torch.cat([self.latents, latent])
        place = len(self.images) - 1
        self.controls["digit"].options = (*self.controls["digit"].options, (f"{name} (number {place})", place))
        self.controls["digit"].value = place

    def _on_new(self, _: w.Button) -> None:
        try:
            generator = seeded(self.controls["seed"].value)
            latent = self.prior.sample_latents(1, generator)
            image = self.model.generate(latent, self.controls["steps"].value, generator=generator)
        except Exception as error:
            self._complain(error)
            return
        self._add(image.cpu(), latent.cpu(), "new")

    def _on_upload(self, change: dict) -> None:
        if not change["new"]:
            return
        try:
            image = read_digit(bytes(change["new"][0]["content"]))
            with torch.no_grad():
                latent = self.autoencoder.encode(image).cpu()
        except Exception as error:
            self._complain(error)
            return
        self._add(image, latent, "yours")
        self.upload.value = ()  # so that the same file can be given again

    def _on_save(self, _: w.Button) -> None:
        try:
            picture = self.render(preview=False, **self.state)
            names = (self.folder / f"playground_{number:03d}.png" for number in itertools.count(1))
            path = next(path for path in names if not path.exists())
            with write_whole(path) as temporary:
                temporary.write_bytes(picture)
            self.message.value = f"saved as {html.escape(str(path))}"
        except Exception as error:
            self._complain(error)

    def _on_copy(self, _: w.Button) -> None:
        code = self.python_call()
        self.clipboard.outputs = ()
        self.clipboard.append_display_data(Javascript(f"navigator.clipboard.writeText({json.dumps(code)})"))
        self.message.value = f"On the clipboard, where the browser allows it:<pre>{html.escape(code)}</pre>"
