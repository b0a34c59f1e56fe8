"""The interactive panels of the notebooks: controls, one picture, and a pure function from the one to the other."""

import asyncio
import functools
import html
from collections.abc import Callable

import ipywidgets as w
import numpy as np
import torch
from PIL import Image, ImageDraw

from diffae_core.autoencoder import SimpleAutoencoder
from diffae_core.data import Digits
from diffae_core.diffusion import DiffusionModel
from diffae_core.latents import blend, lerp
from diffae_core.pictures import labelled_picture, labelled_png, png_bytes, stack
from diffae_core.schedule import CosineSchedule, noisy_image
from diffae_core.training import encode_all

PREVIEW_STEPS = 4  # DDIM steps while a slider moves
INVERSION = {"num_steps": 20, "corrections": 1, "spacing": "quadratic"}  # how a digit's own noise is found
WIDE = {"style": {"description_width": "130px"}, "layout": {"width": "380px"}}
REST_SECONDS = 0.4  # a slider that has rested this long gets its full number of steps


class Panel(w.VBox):
    """Controls above one picture. A subclass makes the controls and says, in :meth:`draw`, what picture they mean.

    A change is answered at once, by a panel that ``previews`` with few DDIM steps; when the controls have rested for a
    moment, the picture is drawn in full. What goes wrong is said in words below the picture, and kept in ``error``.

    Args:
        controls: the widgets whose values are the panel's state, by name.
        rows: which controls stand side by side; the buttons join the last row.
    """

    previews = False

    def __init__(self, controls: dict[str, w.Widget], rows: list[list[str]]):
        self.controls, self.error, self._pending = controls, None, None
        self.image = w.Image(format="png", layout=w.Layout(max_width="100%", align_self="flex-start"))
        self.message = w.HTML()
        self.reset_button = w.Button(description="Reset", tooltip="All controls back to where they began", icon="undo")
        self.reset_button.on_click(lambda _: self.reset())
        self.render = functools.lru_cache(maxsize=256)(self._render)
        lines = [w.HBox([controls[name] for name in row], layout=w.Layout(flex_flow="row wrap")) for row in rows]
        lines[-1].children += (self.reset_button, *self.extra_buttons())
        super().__init__([*lines, self.image, self.message])
        self._defaults = self.state
        for control in controls.values():
            control.observe(self._on_change, "value")
        self.show()

    def __repr__(self) -> str:
        return f"{type(self).__name__}: run this notebook to use it"

    def extra_buttons(self) -> tuple[w.Widget, ...]:
        """Buttons beside Reset."""
        return ()

    def draw(self, preview: bool, **state) -> bytes:
        """The PNG for a state: the same bytes each time. ``preview`` asks for a quick one."""
        raise NotImplementedError

    def _render(self, preview: bool = False, **state) -> bytes:
        """The PNG for a state, given as keyword arguments named like the controls; kept for when it comes again."""
        return self.draw(preview, **state)

    @property
    def state(self) -> dict:
        """The value of each control."""
        return {name: control.value for name, control in self.controls.items()}

    def show(self, preview: bool = False) -> None:
        """Draw the state as it is now; an error is shown in words."""
        try:
            self.image.value = self.render(preview=preview and self.previews, **self.state)
            if self.error is not None:
                self.error, self.message.value = None, ""
        except Exception as error:
            self._complain(error)

    def reset(self) -> None:
        """Put all controls back, and draw once."""
        for control in self.controls.values():
            control.unobserve(self._on_change, "value")
        for name, control in self.controls.items():
            control.value = self._defaults[name]
        for control in self.controls.values():
            control.observe(self._on_change, "value")
        self.show()

    def _on_change(self, _: dict) -> None:
        self.show(preview=True)
        if self._pending is not None:
            self._pending.cancel()
        try:
            self._pending = asyncio.get_running_loop().call_later(REST_SECONDS, self.show)
        except RuntimeError:  # no event loop, so nothing will come later: outside of Jupyter
            self.show()

    def _complain(self, error: Exception) -> None:
        self.error = error
        text = html.escape(f"{type(error).__name__}: {error}")
        self.message.value = f"<b style='color:#b00020'>{text}</b>"


def slider(kind: type, description: str, value: float, low: float, high: float, step: float, tooltip: str) -> w.Widget:
    """A labelled slider that speaks while it moves."""
    return kind(value=value, min=low, max=high, step=step, description=description, tooltip=tooltip, **WIDE)


def choice(description: str, options, value, tooltip: str) -> w.Dropdown:
    """A labelled drop-down list."""
    return w.Dropdown(options=options, value=value, description=description, tooltip=tooltip, **WIDE)


def digit_choice(description: str, digits: Digits, value: int) -> w.Dropdown:
    """A list of the digits by label and place."""
    options = [(f"{label} (number {place})", place) for place, label in enumerate(digits.labels.tolist())]
    return choice(description, options, value, "Which of the digits, by its label and its place in the set")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class BlendPanel(Panel):
    """Notebook 01: walk in a straight line from one digit's latent to another's, and decode what lies between."""

    def __init__(self, autoencoder: SimpleAutoencoder, digits: Digits):
        self.autoencoder, self.digits = autoencoder, digits
        self.latents = encode_all(autoencoder, digits)
        controls = {
            "first": digit_choice("first digit", digits, 0),
            "second": digit_choice("second digit", digits, 1),
            "share": slider(
                w.FloatSlider, "share of the second", 0.5, 0, 1, 0.02, "0 is the first digit, 1 the second"
            ),
        }
        super().__init__(controls, [["first", "second"], ["share"]])

    @torch.no_grad()
    def draw(self, preview: bool, first: int, second: int, share: float) -> bytes:
        a, b = self.latents[[first]], self.latents[[second]]
        pixels = lerp(self.digits.subset([first]).images, self.digits.subset([second]).images, share)
        decoded = self.autoencoder.decode(torch.cat([a, lerp(a, b, share), b])).cpu()
        pictures = torch.cat([self.digits.subset([first, second]).images, decoded, pixels])[[0, 2, 3, 5, 4, 1]]
        headings = ("first", "its copy", "between", "pixel mean", "its copy", "second")
        return labelled_png({"": pictures}, headings, zoom=4)


class NoisePanel(Panel):
    """Notebook 02: a row of digits at one diffusion time, and where that time lies on the schedule's curves."""

    def __init__(self, digits: Digits):
        self.images = digits.images[:8]
        self.curves, self.to_pixels = self._draw_curves()
        controls = {
            "time": slider(w.FloatSlider, "diffusion time", 0.3, 0, 1, 0.01, "0 is the clean digit, 1 is pure noise"),
            "seed": slider(w.IntSlider, "noise seed", 0, 0, 99, 1, "Which noise is drawn"),
        }
        super().__init__(controls, [["time", "seed"]])

    @staticmethod
    def _draw_curves() -> tuple[Image.Image, Callable]:
        """The curves, drawn once by Matplotlib, and a function from (time, rate) to a place on that picture."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.2, 2.6), dpi=100, layout="constrained")
        axes = figure.subplots()
        times = torch.linspace(0, 1, 101)
        for rate, label in zip(CosineSchedule().rates(times), ("signal rate", "noise rate")):
            axes.plot(times, rate.flatten(), label=label)
        axes.set(xlabel="diffusion time t", ylabel="rate", xlim=(0, 1), ylim=(0, 1.05))
        axes.legend(loc="center left")
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        to_display = axes.transData.frozen()
        return picture, lambda t, rate: (to_display.transform((t, rate)) * (1, -1) + (0, picture.height)).tolist()

    def draw(self, preview: bool, time: float, seed: int) -> bytes:
        signal, noise_rate = CosineSchedule().rates(torch.tensor([time]))
        noise = torch.randn(self.images.shape, generator=seeded(seed))
        noisy = noisy_image(2 * self.images - 1, noise, signal, noise_rate)
        picture = stack(labelled_picture({"": (noisy + 1) / 2}), self.curves)
        pen, top = ImageDraw.Draw(picture), picture.height - self.curves.height
        for rate, colour in ((signal.item(), "#1f77b4"), (noise_rate.item(), "#ff7f0e")):
            x, y = self.to_pixels(time, rate)
            pen.ellipse((x - 6, top + y - 6, x + 6, top + y + 6), fill=colour, outline="black")
        return png_bytes(picture)


class DenoiserPanel(Panel):
    """Notebook 03: one call of the U-Net, with the right latent, another digit's, or none."""

    def __init__(self, autoencoder: SimpleAutoencoder, model: DiffusionModel, digits: Digits):
        self.model, self.digits, self.latents = model, digits, encode_all(autoencoder, digits)
        controls = {
            "digit": digit_choice("digit", digits, 0),
            "time": slider(w.FloatSlider, "diffusion time", 0.7, 0, 1, 0.02, "0 is the clean digit, 1 is pure noise"),
            "latent": choice("latent", ["its own", "another digit's", "none (all zeros)"], "its own", "What leads it"),
            "other": digit_choice("other digit", digits, 1),
            "seed": slider(w.IntSlider, "noise seed", 0, 0, 99, 1, "Which noise is drawn"),
        }
        super().__init__(controls, [["digit", "time"], ["latent", "other"], ["seed"]])

    @torch.no_grad()
    def draw(self, preview: bool, digit: int, time: float, latent: str, other: int, seed: int) -> bytes:
        image = self.digits.subset([digit]).images
        noisy, noise = self.model.add_noise(image, time, seeded(seed))
        code = self.latents[[digit if latent == "its own" else other]] * (0 if latent.startswith("none") else 1)
        clean, predicted_noise = self.model.denoise_once(noisy, time, code)
        pictures = [image, (noisy.cpu() + 1) / 2, (noise.cpu() + 2) / 4, (predicted_noise.cpu() + 2) / 4]
        pictures += [(clean.cpu() + 1) / 2]
        headings = ("clean digit", "noisy input", "true noise", "predicted noise", "predicted digit")
        return labelled_png({"": torch.cat(pictures)}, headings, zoom=5)


class FilmstripPanel(Panel):
    """Notebook 04: the way from noise to a digit, as DDIM walks it."""

    previews = True

    def __init__(self, autoencoder: SimpleAutoencoder, model: DiffusionModel, digits: Digits):
        self.model, self.latents = model, encode_all(autoencoder, digits)
        controls = {
            "digit": digit_choice("latent of digit", digits, 0),
            "steps": slider(w.IntSlider, "DDIM steps", 10, 1, 50, 1, "How often the U-Net is asked"),
            "eta": slider(w.FloatSlider, "eta", 0.0, 0, 1, 0.05, "0 draws no fresh noise (DDIM), 1 as much as DDPM"),
            "seed": slider(w.IntSlider, "noise seed", 0, 0, 99, 1, "Which noise it begins with"),
        }
        super().__init__(controls, [["digit", "steps"], ["eta", "seed"]])

    def draw(self, preview: bool, digit: int, steps: int, eta: float, seed: int) -> bytes:
        steps = min(steps, 2 * PREVIEW_STEPS) if preview else steps
        seen = []
        self.model.generate(
            self.latents[[digit]],
            steps,
            eta,
            seeded(seed),
            callback=lambda step, x_t, clean: seen.append((step, x_t.cpu(), clean.cpu())),
        )
        shown = sorted({round(place * (steps - 1) / 9) for place in range(10)})
        noisy, clean = (torch.cat([(seen[place][part] + 1) / 2 for place in shown]) for part in (1, 2))
        headings = tuple(f"step {seen[place][0]}" for place in shown)
        return labelled_png({"x_t": noisy, "predicted x_0": clean}, headings)


class WalkPanel(Panel):
    """Appendix A1: between two digits, moving the latent, the noise that belongs to each, or both."""

    previews = True

    def __init__(self, autoencoder: SimpleAutoencoder, model: DiffusionModel, digits: Digits):
        self.autoencoder, self.model, self.images = autoencoder, model, digits.images
        self.latents = encode_all(autoencoder, digits)
        self.noises = model.invert(self.images, self.latents, **INVERSION).cpu()
        controls = {
            "first": digit_choice("first digit", digits, 0),
            "second": digit_choice("second digit", digits, 1),
            "move": choice("what moves", ["both", "latent", "noise"], "both", "The rest stays as in the first digit"),
            "share": slider(
                w.FloatSlider, "share of the second", 0.5, 0, 1, 0.02, "0 is the first digit, 1 the second"
            ),
        }
        super().__init__(controls, [["first", "second"], ["move", "share"]])

    @torch.no_grad()
    def draw(self, preview: bool, first: int, second: int, move: str, share: float) -> bytes:
        a, b = ((self.latents[[place]], self.noises[[place]]) for place in (first, second))
        z, x_T = blend(a, b, share, move)
        steps = PREVIEW_STEPS if preview else INVERSION["num_steps"]
        between = self.model.generate(z, steps, x_T=x_T, spacing=INVERSION["spacing"]).cpu()
        pictures = [
            self.images[[first]],
            (x_T + 1) / 2,
            between,
            self.autoencoder.decode(z).cpu(),
            self.images[[second]],
        ]
        headings = ("first", "noise x_T", "between", "own decoder", "second")
        return labelled_png({"": torch.cat(pictures)}, headings, zoom=5)
