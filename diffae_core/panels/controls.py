"""The controls of the panels: sliders, lists, pictures to choose from, with a label and a help text."""

import base64
from collections.abc import Iterable
from pathlib import Path

import anywidget
import ipywidgets as w
import traitlets
from torch import Tensor

from diffae_core.base.plotting import labelled_png
from diffae_core.data.digits import Digits

HERE = Path(__file__).parent
LABEL = {"style": {"description_width": "106px"}}
WIDE = {"width": "460px"}  # a slider with a track of nearly 300 pixels
NARROW = {"width": "270px"}  # a list beside its help


class Another(w.Button):
    """A button for another random choice. Its value is a seed, which each click raises by one."""

    value = traitlets.Int(0)

    def __init__(self, description: str, tooltip: str):
        super().__init__(description=description, icon="random", tooltip=tooltip)
        self.on_click(lambda _: self.set_trait("value", self.value + 1))


class PictureChoice(anywidget.AnyWidget):
    """A row of pictures of which one is chosen, by mouse or by keyboard.

    Attributes:
        options: the name and the value of each picture.
        value: the value of the chosen picture.
        pictures: data URLs, in the order of the options.
    """

    _esm = HERE / "choices.js"
    description = traitlets.Unicode().tag(sync=True)
    tooltip = traitlets.Unicode()
    options = traitlets.List().tag(sync=True)
    pictures = traitlets.List().tag(sync=True)
    value = traitlets.Int().tag(sync=True)
    disabled = traitlets.Bool(False).tag(sync=True)

    def show(self, images: Tensor) -> None:
        """Show images ``(N, 1, H, W)``, one for each option."""
        pngs = [labelled_png({"": image[None]}, zoom=zoom_for(image, 84), gap=0) for image in images]
        self.pictures = ["data:image/png;base64," + base64.b64encode(png).decode() for png in pngs]


def zoom_for(images: Tensor, pixels: int = 112) -> int:
    """How much to enlarge images ``(..., H, W)`` for tiles of about ``pixels`` screen pixels."""
    return max(1, round(pixels / images.shape[-1]))


def slider(kind: type, description: str, value: float, low: float, high: float, step: float, tooltip: str) -> w.Widget:
    """A labelled slider that reports its value while it moves."""
    numbers = {"value": value, "min": low, "max": high, "step": step}
    control = kind(**numbers, description=description, tooltip=tooltip, layout=WIDE, **LABEL)
    if kind is w.FloatSlider:
        control.readout_format = ".2f"
    return control


def choice(description: str, options, value, tooltip: str) -> w.Dropdown:
    """A labelled drop-down list."""
    return w.Dropdown(options=options, value=value, description=description, tooltip=tooltip, layout=NARROW, **LABEL)


def digit_choice(description: str, digits: Digits, value: int) -> w.Dropdown:
    """A list of the digits by label and index."""
    names = [digits.names[label] for label in digits.labels.tolist()] if digits.num_classes else [""] * len(digits)
    options = [(f"{name} (index {index})".strip(), index) for index, name in enumerate(names)]
    return choice(description, options, value, "by label and index")


def another_class(digits: Digits, index: int = 0) -> int:
    """The index of a digit of another class; of the next digit if there is none."""
    others = (digits.labels != digits.labels[index]).nonzero()
    return int(others[0]) if digits.num_classes and len(others) else min(index + 1, len(digits) - 1)


def field(control: w.Widget) -> w.Widget:
    """A control as it stands in a panel: a drop-down list with its help text, which a browser would not show."""
    if not isinstance(control, w.Dropdown):
        return control
    help_text = w.HTML(f"<span class='diffae-help'>{control.tooltip}</span>", layout={"width": "180px"})
    return w.HBox([control, help_text], layout=WIDE)


def line(children: Iterable[w.Widget]) -> w.HBox:
    """Widgets side by side, or below one another where there is no room."""
    return w.HBox(tuple(children), layout={"flex_flow": "row wrap"})


def player(control: w.FloatSlider) -> w.Play:
    """Buttons that move a slider from one end to the other."""
    steps = round((control.max - control.min) / control.step)
    play = w.Play(min=0, max=steps, interval=150, tooltip=f"Play: {control.description}")

    def follow(_: dict | None = None) -> None:
        play.value = round((control.value - control.min) / control.step)

    def lead(change: dict) -> None:
        control.value = round(control.min + change["new"] * control.step, 6)

    follow()
    control.observe(follow, "value")
    play.observe(lead, "value")
    return play
