"""The controls of the panels: sliders, drop-down lists and switches with a label, a help text, and one width."""

from collections.abc import Iterable

import ipywidgets as w

from diffae_core.data.digits import Digits

LABEL = {"style": {"description_width": "106px"}}
WIDE, NARROW = (
    {"width": "460px"},
    {"width": "270px"},
)  # a slider, of which nearly 300 pixels slide; a list beside its help


def slider(kind: type, description: str, value: float, low: float, high: float, step: float, tooltip: str) -> w.Widget:
    """A labelled slider that speaks while it moves."""
    made = kind(
        value=value, min=low, max=high, step=step, description=description, tooltip=tooltip, layout=WIDE, **LABEL
    )
    if kind is w.FloatSlider:
        made.readout_format = ".2f"
    return made


def choice(description: str, options, value, tooltip: str) -> w.Dropdown:
    """A labelled drop-down list."""
    return w.Dropdown(options=options, value=value, description=description, tooltip=tooltip, layout=NARROW, **LABEL)


def switch(description: str, value: bool, tooltip: str) -> w.Checkbox:
    """A labelled box to tick."""
    return w.Checkbox(value=value, description=description, tooltip=tooltip, layout=NARROW, **LABEL)


def digit_choice(description: str, digits: Digits, value: int) -> w.Dropdown:
    """A list of the digits by label and index."""
    names = [digits.names[label] for label in digits.labels.tolist()] if digits.num_classes else [""] * len(digits)
    options = [(f"{name} (index {index})".strip(), index) for index, name in enumerate(names)]
    return choice(description, options, value, "by label and index")


def another_class(digits: Digits, index: int = 0) -> int:
    """The index of a digit of another class; the next one where there is none."""
    others = (digits.labels != digits.labels[index]).nonzero()
    return int(others[0]) if digits.num_classes and len(others) else min(index + 1, len(digits) - 1)


def field(control: w.Widget) -> w.Widget:
    """A control as it stands in a panel: with its help text beside it, where the browser would not show it."""
    if not isinstance(control, w.Dropdown | w.Checkbox):
        return control
    help_text = w.HTML(f"<span class='diffae-help'>{control.tooltip}</span>", layout={"width": "180px"})
    return w.HBox([control, help_text], layout=WIDE)


def line(children: Iterable[w.Widget]) -> w.HBox:
    """Widgets side by side, and below one another where there is no room."""
    return w.HBox(tuple(children), layout={"flex_flow": "row wrap"})


def player(control: w.FloatSlider) -> w.Play:
    """Buttons that move a slider from its one end to the other."""
    steps = round((control.max - control.min) / control.step)
    play = w.Play(min=0, max=steps, interval=150, tooltip=f"Play: {control.description}")

    def follow(_: dict | None = None) -> None:
        play.value = round((control.value - control.min) / control.step)

    follow()
    control.observe(follow, "value")
    play.observe(
        lambda change: setattr(control, "value", round(control.min + change["new"] * control.step, 6)), "value"
    )
    return play
