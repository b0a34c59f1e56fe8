"""Digits of the reader's own in a panel: drawn on a canvas, from a picture file, or sampled by the prior."""

import base64
import functools

import ipywidgets as w
import torch
import torch.nn.functional as F
from torch import Tensor

from diffae_core.base.devices import seeded
from diffae_core.data.pictures import read_digit
from diffae_core.panels.base import INVERSION, Panel
from diffae_core.panels.canvas import Canvas, digit_of_strokes
from diffae_core.panels.controls import line, slider

ANY = -1  # class of a new digit


class OwnDigitsPanel(Panel):
    """A panel whose digits, ``images`` and ``latents``, are chosen by the control "digit" and can be added to.

    A subclass sets ``autoencoder``, ``model``, ``prior``, ``images``, ``latents`` and ``class_names``, the names of the
    prior's classes or none, before it calls ``super().__init__``.
    """

    def __init__(self, controls: dict[str, w.Widget], rows: list[list[str]]):
        self.drawn = None  # the index of the digit on the canvas
        self.new_generator = seeded(0)  # each new digit is another one
        self.own_noise = functools.lru_cache(maxsize=256)(self._own_noise)
        super().__init__(controls, rows)

    def pictures(self) -> list[w.Widget]:
        self.canvas = Canvas()
        self.canvas.observe(lambda change: self.attempt(self.take_strokes, change["new"]), "strokes")
        self.canvas.observe(lambda change: self.attempt(self.take_file, change["new"]), "file")
        return [line([self.canvas, w.VBox([self.image, self._new_digit_line(), self.pinned])])]

    def _new_digit_line(self) -> w.Widget:
        """A button for a digit from the prior, and the class that it should have."""
        options = [("any class", ANY), *((name, label) for label, name in enumerate(self.class_names))]
        self.wanted = w.Dropdown(options=options, disabled=len(options) == 1, layout={"width": "110px"})
        self.guidance = slider(
            w.FloatSlider, "guidance", 1.5, 0, 4, 0.1, "1: as trained; more: more typical of the class"
        )
        self.guidance.layout.width = "330px"
        button = self.button("New digit", "magic", "From the prior; another one each time", self.new_digit)
        button.disabled = self.prior is None
        return line([button, self.wanted, self.guidance])

    def _own_noise(self, digit: int) -> Tensor:
        """x_T of a digit: the noise from which its own latent leads back to it."""
        return self.model.invert(self.images[[digit]], self.latents[[digit]], **INVERSION)

    def add(self, image: Tensor, latent: Tensor, name: str) -> int:
        """Put a digit at the end of the list, and choose it; returns its index."""
        self.images, self.latents = torch.cat([self.images, image]), torch.cat([self.latents, latent])
        index = len(self.images) - 1
        with self.together():
            self.controls["digit"].options = (*self.controls["digit"].options, (f"{name} (index {index})", index))
            self.controls["digit"].value = index
        return index

    @torch.no_grad()
    def take_strokes(self, strokes: list[dict]) -> None:
        """Show the digit on the canvas; it keeps one place in the list while it is drawn."""
        image = digit_of_strokes(strokes, self.model.image_size)
        if image is None:
            return
        latent = self.autoencoder.encode(image).cpu()
        if self.drawn is None:
            self.drawn = self.add(image, latent, "drawn")
            return
        self.images[self.drawn], self.latents[self.drawn] = image[0], latent[0]
        self.render.cache_clear()
        self.own_noise.cache_clear()
        self.choose(digit=self.drawn)

    @torch.no_grad()
    def take_file(self, file: dict[str, str]) -> None:
        """Add a picture that came from the browser: its name, and a data URL."""
        try:
            image = read_digit(base64.b64decode(file["url"].partition(",")[2]))
        except ValueError as error:
            raise ValueError(f"{file['name']}: {error}") from None
        image = F.interpolate(image, self.images.shape[2:], mode="bilinear", antialias=True)
        self.add(image, self.autoencoder.encode(image).cpu(), file["name"])

    @torch.no_grad()
    def new_digit(self) -> None:
        """Add a digit that the prior samples."""
        label = None if self.wanted.value == ANY else self.wanted.value
        settings = {"guidance": self.guidance.value, "generator": self.new_generator}
        latent = self.prior.sample_latents(1, label, **settings)
        image = self.model.generate(latent, self.state["steps"], generator=self.new_generator)
        self.add(image.cpu(), latent.cpu(), "new" if label is None else f"new {self.wanted.label}")
