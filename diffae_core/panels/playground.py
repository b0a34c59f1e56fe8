"""Notebook 05: the playground, where a digit gets another label, another handwriting and other noise."""

import functools
import html
import itertools
from collections.abc import Iterable
from pathlib import Path

import ipywidgets as w
import torch
from PIL import Image
from torch import Tensor

from diffae_core.autoencoder import SimpleAutoencoder
from diffae_core.base.checkpoints import atomic_write
from diffae_core.base.devices import seeded
from diffae_core.base.plotting import labelled_picture, png_bytes, stack
from diffae_core.data.digits import Digits, check_digits
from diffae_core.demo import GUIDANCE
from diffae_core.diffusion import NUM_STEPS, DiffusionModel, to_pixels
from diffae_core.evaluation.classifier import DigitClassifier
from diffae_core.latents import class_directions, edit, turn
from diffae_core.panels.base import PREVIEW_STEPS, PRIOR_PREVIEW
from diffae_core.panels.controls import Another, PictureChoice, choice, digit_choice, line, slider, zoom_for
from diffae_core.panels.own_digits import UNKNOWN, OwnDigitsPanel, fitting_classifier, known
from diffae_core.prior import LatentPrior

RANDOM, NOISED, INVERTED = "random noise x_T", "the digit, noised", "its inverted noise x_T"
FAR = 1.5  # radians: at pi / 2 nothing of the handwriting is left
MORE = [["start", "time"], ["steps", "latent_noise"], ["direction", "strength"], ["refine"]]


class Playground(OwnDigitsPanel):
    """Notebook 05: a digit from the list or drawn; its class, its handwriting and its noise, each changed on its own.

    Args:
        autoencoder, model: trained.
        digits: the digits to choose from.
        reference: digits whose classes are offered, and whose latents give the direction to each.
        prior: gives the handwritings; without it there are none, and no classes to choose.
        folder: where the save button writes.
        classifier: classifies drawn digits, if it fits the data; None for the shipped one.
    """

    previews = True
    cached = ("render", "x_T", "z_T", "hands", "row")
    is_open = False  # the button More, as the reader left it in the last playground

    def __init__(
        self,
        autoencoder: SimpleAutoencoder,
        model: DiffusionModel,
        digits: Digits,
        reference: Digits,
        prior: LatentPrior | None = None,
        folder: str | Path = ".",
        classifier: DigitClassifier | None = None,
    ):
        for trained in [model, prior] if prior else [model]:
            trained.check_latents_from(autoencoder)
        check_digits(digits, model.image_size)
        self.reference = check_digits(reference, model.image_size)
        self.autoencoder, self.model, self.prior, self.folder = autoencoder, model, prior, Path(folder)
        self.targets = reference.labels.unique().tolist() if reference.num_classes > 1 else []
        self.classes = self.targets if prior and prior.num_classes == reference.num_classes else []
        self.classifier = fitting_classifier(classifier, reference) if self.classes else None
        super().__init__(digits, self._controls(digits))

    def _controls(self, digits: Digits) -> dict[str, w.Widget]:
        names, own = self.reference.names, int(digits.labels[0])
        classes, own = (self.classes, own) if own in self.classes else ([UNKNOWN, *self.classes], UNKNOWN)
        target = classes[(classes.index(own) + (len(classes) + 1) // 2) % len(classes)]
        options = [(names[label], label) for label in self.classes]
        directions = [("at random", UNKNOWN), *((f"towards {names[label]}", label) for label in self.targets)]
        latent_noise = [("not given", UNKNOWN), *((f"{std:g}", std) for std in (0.0, 0.5, 1.0, 1.5, 2.0))]
        fslider = functools.partial(slider, w.FloatSlider)
        return {
            "digit": digit_choice("digit", digits, 0),
            "own": choice("label", [("unknown", UNKNOWN), *options], own, "the handwriting depends on it: correct it"),
            "label": PictureChoice(
                description="The digit as each class, in the same handwriting. Choose one:",
                tooltip="Which class the result has",
                options=options,
                value=target,
            ),
            "angle": fslider("handwriting", 0.0, 0, FAR, 0.05, "0: as the digit's; 1.5: another hand"),
            "hand": Another("Another hand", "Which handwriting the slider leads to"),
            "seed": Another("Another x_T", "Other noise for the diffusion model to start from"),
            "start": choice("start from", [RANDOM, NOISED, INVERTED], RANDOM, "what is denoised"),
            "time": fslider("diffusion time", 0.8, 0.05, 1, 0.05, "1 leaves nothing of the digit but its latent"),
            "steps": slider(w.IntSlider, "DDIM steps", NUM_STEPS, 1, 50, 1, "Once the sliders rest"),
            "latent_noise": choice("latent_noise", latent_noise, UNKNOWN, "0: the latent literally; 2: only roughly"),
            "direction": choice("move the latent", directions, UNKNOWN, "at random, or as the paper edits"),
            "strength": fslider("strength", 0.0, -3, 3, 0.1, "How far, in standard deviations"),
            "refine": fslider("refine", 0.0, 0, 1, 0.05, "How much of the moved latent the prior regenerates"),
        }  # fmt: skip

    def contents(self, rows: Iterable[list[str]], played: str | None) -> list[w.Widget]:
        digit, own, label, angle, hand, seed, *_ = self.controls.values()
        self.more = w.ToggleButton(Playground.is_open, description="More", icon="sliders", tooltip="All other controls")
        self.more.observe(self._fold, "value")
        save = self.button("Save picture", "save", "As a PNG, beside the notebook", self.save)
        copy = self.button("Copy as Python", "copy", "The calls that make this picture", self.copy)
        self.folded = w.VBox([*super().contents(MORE, None)[: len(MORE)], line([save, copy])])
        self._fold()
        label.layout.display = own.layout.display = None if self.classes else "none"
        return [
            line([self.canvas, self.image]),
            line([digit, self.new, own]),
            label,
            line([angle, hand, seed, self.reset_button, self.more]),
            self.folded,
        ]

    def _fold(self, _: dict | None = None) -> None:
        Playground.is_open = self.more.value
        self.folded.layout.display = None if self.more.value else "none"

    def show(self, preview: bool = False) -> None:
        super().show(preview)
        if self.classes and not preview:
            self.attempt(lambda: self.controls["label"].show(self.row(**self._of_row(**self.state))))

    @staticmethod
    def _of_row(digit, own, angle, hand, seed, **_) -> dict:
        return {"digit": digit, "own": own, "angle": angle, "hand": hand, "seed": seed}

    def idle(self, angle, start, direction, strength, refine, **_) -> set[str]:
        without_effect = {
            "angle": self.prior is None,
            "hand": angle == 0,
            "seed": start == INVERTED and refine == 0 and (strength == 0 or direction != UNKNOWN),
            "time": start != NOISED,
            "direction": strength == 0,
            "refine": self.prior is None,
        }
        return {name for name, idle in without_effect.items() if idle}

    def x_T(self, digit: int) -> Tensor:
        """The inverted noise of a digit: with its own latent it leads back to the digit."""
        return self.model.invert(self.images[[digit]], self.latents[[digit]]).cpu()

    def z_T(self, digit: int, own: int, preview: bool = False) -> Tensor:
        """The handwriting of a digit, whose class is ``own``."""
        exact = digit != self.drawn  # a digit that is being drawn changes anyway
        settings = PRIOR_PREVIEW | {"corrections": int(exact)} if preview else {}
        return self.prior.invert(self.latents[[digit]], known(own), **settings)

    def hands(
        self, digit: int, own: int, angle: float, hand: int, labels: tuple[int, ...], preview: bool = False
    ) -> Tensor:
        """The digit's latent as each of these classes, its handwriting turned, ``(len(labels), latent_dim)``."""
        settings = PRIOR_PREVIEW if preview else {}
        z_T = self.z_T(digit, own, preview)
        z_T = turn(z_T, angle, seeded(hand)) if angle else z_T
        latents = {own: self.latents[[digit]]}
        if angle and own in labels:
            latents[own] = self.prior.generate(z_T, known(own), **settings).cpu()
        if others := [label for label in labels if label != own]:
            z_T = z_T.expand(len(others), -1)
            shown = self.prior.generate(z_T, torch.tensor(others), guidance=GUIDANCE, **settings)
            latents |= dict(zip(others, shown.cpu().split(1)))
        return torch.cat([latents[label] for label in labels])

    def row(self, digit: int, own: int, angle: float, hand: int, seed: int) -> Tensor:
        """The digit as each class, ``(C, 1, H, W)``, from the same x_T."""
        x_T = torch.randn(1, *self.images.shape[1:], generator=seeded(seed))
        latents = self.hands(digit, own, angle, hand, tuple(self.classes), False)  # as draw asks for them: kept
        return self.model.generate(latents, PREVIEW_STEPS, x_T=x_T).cpu()

    @functools.cached_property
    def directions(self) -> Tensor:
        """The direction towards each class, ``(C, latent_dim)``."""
        return class_directions(*self.autoencoder.encode_dataset(self.reference).tensors)

    def direction(self, label: int, seed: int) -> Tensor:
        """The direction towards a class, or a random one, ``(latent_dim,)``."""
        if label == UNKNOWN:
            return torch.randn(self.model.latent_dim, generator=seeded(seed))
        return self.directions[label]

    def latent(self, digit, own, label, angle, hand, direction, strength, refine, seed, preview=False, **_) -> Tensor:
        """The changed latent of a state, ``(1, latent_dim)``."""
        latent = self.latents[[digit]]
        if self.prior:
            labels = (label,) if preview or not self.classes else tuple(self.classes)
            latent = self.hands(digit, own, angle, hand, labels, preview)[[labels.index(label)]]
        if strength:
            latent = edit(latent, self.direction(direction, seed), strength)
        if refine and self.prior:
            settings = PRIOR_PREVIEW if preview else {}
            latent = self.prior.refine(latent, refine, labels=known(label), generator=seeded(seed), **settings)
        return latent

    def draw(self, preview: bool, **state) -> bytes:
        image, seed, time = self.images[[state["digit"]]], state["seed"], 1.0
        noisy = torch.randn(image.shape, generator=seeded(seed))
        if state["start"] == NOISED:
            time = state["time"]
            noisy = self.model.add_noise(image, time, seeded(seed))[0].cpu()
        elif state["start"] == INVERTED:
            noisy = self.x_T(state["digit"])
        steps = min(state["steps"], PREVIEW_STEPS) if preview else state["steps"]
        settings = {"num_steps": steps, "latent_noise": known(state["latent_noise"])}
        latent = self.latent(preview=preview, **state)
        result = self.model.denoise_with_latent(noisy, latent, time, **settings).cpu()
        change = result - image
        large = labelled_picture({"": torch.cat([image, result])}, ("original", "result"), zoom_for(image, 196), gap=1)
        changes = torch.cat([change.clamp(min=0), (-change).clamp(min=0)])
        small = labelled_picture({"": changes}, ("added", "removed"), zoom_for(image, 84))
        begin = labelled_picture({"": to_pixels(noisy)}, ("from noise",), zoom_for(image, 84))
        return png_bytes(beside(large, stack(small, begin)))

    def python_call(self) -> str:
        """The lines of Python that make the current digit again, for a panel called ``playground``."""
        state = self.state
        digit, own, label, seed = state["digit"], known(state["own"]), known(state["label"]), state["seed"]
        lines = [f"image, latent = playground.images[[{digit}]], playground.latents[[{digit}]]"]
        decode = "playground.model.generate(latent, "
        if state["start"] == NOISED:
            lines += [f"noisy, _ = playground.model.add_noise(image, {state['time']}, core.seeded({seed}))"]
            decode = f"playground.model.denoise_with_latent(noisy, latent, {state['time']}, "
        elif state["start"] == INVERTED:
            lines += ["x_T = playground.model.invert(image, latent)"]
        if self.prior and (state["angle"] or label != own):
            lines += [f"z_T = playground.prior.invert(latent, {own})"]
            if state["angle"]:
                lines += [f"z_T = core.turn(z_T, {state['angle']}, core.seeded({state['hand']}))"]
            guidance = "" if label in (own, None) else f", guidance={GUIDANCE}"
            lines += [f"latent = playground.prior.generate(z_T, {label}{guidance})"]
        if state["strength"]:
            direction = f"playground.direction({state['direction']}, {seed})"
            lines += [f"latent = core.edit(latent, {direction}, {state['strength']})"]
        if state["refine"] and self.prior:
            settings = f"labels={label}, generator=core.seeded({seed})"
            lines += [f"latent = playground.prior.refine(latent, {state['refine']}, {settings})"]
        noise = {RANDOM: f", generator=core.seeded({seed})", NOISED: "", INVERTED: ", x_T=x_T"}[state["start"]]
        latent_noise = "" if state["latent_noise"] == UNKNOWN else f", latent_noise={state['latent_noise']}"
        return "\n".join([*lines, f"result = {decode}num_steps={state['steps']}{noise}{latent_noise})"])

    def save(self) -> None:
        """Write the picture as a PNG with a new name."""
        path = new_path(self.folder, "playground_{}.png")
        with atomic_write(path) as temporary:
            temporary.write_bytes(self.render(preview=False, **self.state))
        self.message.value = f"saved as {html.escape(str(path))}"

    def copy(self) -> None:
        """Put the Python of the current state on the clipboard, and show it."""
        code = self.python_call()
        self.browser.send({"copy": code})
        self.message.value = f"On the clipboard, where the browser allows it:<pre>{html.escape(code)}</pre>"


def new_path(folder: Path, name: str) -> Path:
    """The first free path; ``{}`` in the name becomes a number from 1 on."""
    paths = (folder / name.format(f"{number:03d}") for number in itertools.count(1))
    return next(path for path in paths if not path.exists())


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    """One picture to the left of another, on white, with a little room between them."""
    picture = Image.new(left.mode, (left.width + 12 + right.width, max(left.height, right.height)), "white")
    picture.paste(left, (0, 0))
    picture.paste(right, (left.width + 12, 0))
    return picture
