"""The reader's own digits in a panel: drawn on a canvas, from a picture file, or sampled by the prior."""

import base64

import ipywidgets as w
import torch
from torch import Tensor

from diffae_core.base.devices import seeded
from diffae_core.data.digits import Digits
from diffae_core.data.photos import read_digit, with_look
from diffae_core.demo import GUIDANCE
from diffae_core.evaluation.classifier import DigitClassifier
from diffae_core.panels.base import Panel
from diffae_core.panels.canvas import Canvas, digit_of_strokes

UNKNOWN = -1  # the class of a digit whose class is not known
FITS = 90  # percent of the data's own digits that a classifier must classify correctly to be used on others


class OwnDigitsPanel(Panel):
    """A panel in which the control "digit" chooses a digit, and to which digits can be added.

    The control "own" holds the digit's class: the data's label, or what the classifier says, until it is corrected.
    A subclass sets ``autoencoder``, ``model``, ``prior``, ``classifier`` and ``classes``, the labels that the prior
    knows, before it calls ``super().__init__``.
    """

    def __init__(self, digits: Digits, controls: dict[str, w.Widget]):
        self.digits, self.images = digits, digits.images
        self.latents = self.autoencoder.encode_dataset(digits).tensors[0]
        self.labels = [label if label in self.classes else UNKNOWN for label in digits.labels.tolist()]
        self.drawn = None  # the index of the digit on the canvas
        self.new_generator = seeded(0)  # each new digit is a different one
        self.canvas = Canvas()
        self.canvas.observe(lambda change: self.attempt(self.take_strokes, change["new"]), "strokes")
        self.canvas.observe(lambda change: self.attempt(self.take_file, change["new"]), "file")
        self.new = self.button(
            "New digit", "magic", "A digit of a random class, generated from scratch", self.new_digit
        )
        self.new.disabled = self.prior is None
        controls["digit"].observe(self._show_class, "value")
        controls["own"].observe(self._keep_class, "value")
        super().__init__(controls)

    def _show_class(self, _: dict | None = None) -> None:
        digit, own = self.controls["digit"].value, self.controls["own"]
        own.description = "label" if digit < len(self.digits) else "classified as"
        own.value = self.labels[digit]

    def _keep_class(self, change: dict) -> None:
        self.labels[self.controls["digit"].value] = change["new"]

    @torch.no_grad()
    def add(self, image: Tensor, name: str, label: int | None = None) -> int:
        """Put a digit at the end of the list, and choose it; returns its index."""
        index = len(self.images)
        self.images = torch.cat([self.images, image])
        self.latents = torch.cat([self.latents, self.autoencoder.encode(image).cpu()])
        self.labels.append(self.classify(image) if label is None else label)
        with self.together():
            self.controls["digit"].options = (*self.controls["digit"].options, (f"{name} (index {index})", index))
            self.controls["digit"].value = index
        return index

    def classify(self, image: Tensor) -> int:
        """The class of an image, by the classifier."""
        return UNKNOWN if self.classifier is None else int(self.classifier.classify(image)[1])

    @torch.no_grad()
    def take_strokes(self, strokes: list[dict]) -> None:
        """Show the digit on the canvas; it keeps one place in the list while it is drawn."""
        image = digit_of_strokes(strokes, self.model.image_size)
        if image is None:
            return
        image = with_look(image, self.digits)
        if self.drawn is None:
            self.drawn = self.add(image, "drawn")
            return
        self.images[self.drawn], self.latents[self.drawn] = image[0], self.autoencoder.encode(image)[0].cpu()
        self.labels[self.drawn] = self.classify(image)
        self.forget()
        with self.together():
            self.controls["digit"].value = self.drawn
            self._show_class()

    def take_file(self, file: dict[str, str]) -> None:
        """Add a picture that came from the browser: its name, and a data URL."""
        try:
            image = read_digit(base64.b64decode(file["url"].partition(",")[2]), self.digits)
        except ValueError as error:
            raise ValueError(f"{file['name']}: {error}") from None
        self.add(image, file["name"])

    @torch.no_grad()
    def new_digit(self) -> None:
        """Add a digit that the prior samples, of a random class."""
        index = int(torch.randint(max(len(self.classes), 1), (1,), generator=self.new_generator))
        label = self.classes[index] if self.classes else UNKNOWN
        latent = self.prior.sample_latents(1, known(label), guidance=GUIDANCE, generator=self.new_generator)
        image = self.model.generate(latent, generator=self.new_generator)
        self.add(image.cpu(), "new", label)


def known(label: int) -> int | None:
    """The label as the prior takes it."""
    return None if label == UNKNOWN else label


def fitting_classifier(classifier: DigitClassifier | None, reference: Digits) -> DigitClassifier | None:
    """The classifier (for None the shipped one), if it classifies the reference digits well; else None."""
    classifier = classifier or DigitClassifier.from_pretrained()
    if (reference.num_classes, reference.pixels.shape[-1]) != (classifier.num_classes, classifier.image_size):
        return None
    some = reference.spaced(min(len(reference), 200))
    return classifier if classifier.accuracy(some.images, some.labels) >= FITS else None
