"""Notebook 02: digits at one diffusion time, and where that time lies on the schedule's curves."""

from collections.abc import Callable

import ipywidgets as w
import numpy as np
import torch
from PIL import Image, ImageDraw

from diffae_core.base.devices import seeded
from diffae_core.base.plotting import labelled_picture, png_bytes, stack
from diffae_core.data.digits import Digits
from diffae_core.diffusion import to_pixels
from diffae_core.panels.base import Panel
from diffae_core.panels.controls import Another, slider
from diffae_core.schedule import CosineSchedule, noisy_image

COLOURS = ("#1f77b4", "#ff7f0e")  # of the signal rate and the noise rate


class NoisePanel(Panel):
    """Notebook 02: a row of digits at one diffusion time, above the schedule's curves."""

    def __init__(self, digits: Digits):
        self.images = digits.subset(slice(0, 8)).images
        self.curves, self.to_picture = draw_curves()
        controls = {
            "time": slider(w.FloatSlider, "diffusion time", 0.7, 0, 1, 0.01, "0: the clean digit; 1: pure noise"),
            "seed": Another("Another noise", "Add another noise"),
        }
        super().__init__(controls, [["time", "seed"]], played="time")

    def idle(self, time: float, seed: int) -> set[str]:
        return {"seed"} if time == 0 else set()

    def draw(self, preview: bool, time: float, seed: int) -> bytes:
        rates = CosineSchedule().rates(torch.tensor([time]), ndim=4)
        noise = torch.randn(self.images.shape, generator=seeded(seed))
        noisy = to_pixels(noisy_image(2 * self.images - 1, noise, *rates))
        picture = stack(labelled_picture({"": noisy}), self.curves)
        pen, top = ImageDraw.Draw(picture), picture.height - self.curves.height
        for rate, colour in zip(rates, COLOURS):
            x, y = self.to_picture(time, rate.item())
            pen.ellipse((x - 6, top + y - 6, x + 6, top + y + 6), fill=colour, outline="black")
        return png_bytes(picture)


def draw_curves() -> tuple[Image.Image, Callable[[float, float], list[float]]]:
    """The schedule's curves, by Matplotlib, and a function from (time, rate) to a pixel of that picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 2.6), dpi=100, layout="constrained")
    axes, times = figure.subplots(), torch.linspace(0, 1, 101)
    for rates, label, colour in zip(CosineSchedule().rates(times), ("signal rate", "noise rate"), COLOURS):
        axes.plot(times, rates, label=label, color=colour)
    axes.set(xlabel="diffusion time t", ylabel="rate", xlim=(0, 1), ylim=(0, 1.05))
    axes.legend(loc="center left")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    to_display = axes.transData.frozen()
    return picture, lambda t, rate: (to_display.transform((t, rate)) * (1, -1) + (0, picture.height)).tolist()
