"""What all panels share: controls above one picture, and a pure function from the controls' values to the picture."""

import asyncio
import contextlib
import functools
import html
from collections.abc import Callable, Iterable
from typing import ClassVar

import anywidget
import ipywidgets as w
from IPython import get_ipython

from diffae_core.panels.controls import HERE, field, line, player

PREVIEW_STEPS = 3  # DDIM steps while a slider moves
PRIOR_PREVIEW = {"num_steps": 8}  # and steps of the prior
REST_SECONDS = 0.4  # a slider that has rested this long gets its full number of steps


class Browser(anywidget.AnyWidget):
    """What ipywidgets lacks: keys that stay in the panel, colours that follow the theme, the clipboard."""

    _esm, _css = HERE / "panel.js", HERE / "panel.css"


class Panel(w.VBox):
    """Controls above one picture. A subclass makes the controls, and its :meth:`draw` makes the picture for them.

    A change is answered at once, with few DDIM steps if the panel ``previews``; when the controls have rested for a
    moment, the picture is drawn in full. An error is shown in words below the picture, and kept in ``error``. When a
    notebook's cell is run again, the panels that it made before are freed.

    Args:
        controls: the widgets whose values are the panel's state, by name.
        rows: which controls stand side by side.
        played: the slider that gets a play button, by name.
    """

    previews = False
    cached = ("render",)  # methods that keep their last results
    of_cells: ClassVar[dict[str, tuple[str, list["Panel"]]]] = {}  # a cell -> its last run, and the panels made in it

    def __init__(self, controls: dict[str, w.Widget], rows: Iterable[list[str]] = (), played: str | None = None):
        self.controls, self.error, self._pending, self._held = controls, None, None, False
        self.browser, self.message = Browser(), w.HTML()
        self.image = w.Image(format="png")
        self.reset_button = self.button("Reset", "undo", "All controls back to their first values", self.reset)
        for name in self.cached:
            setattr(self, name, functools.lru_cache(maxsize=256)(getattr(self, name)))
        self.defaults = self.state
        super().__init__([self.browser, *self.contents(rows, played), self.message])
        self.add_class("diffae-panel")
        for control in controls.values():
            control.observe(self._on_change, "value")
        self._replace_former()
        self.show()

    def _replace_former(self) -> None:
        """Free the panels that an earlier run of this cell made."""
        message = getattr(get_ipython(), "get_parent", dict)()  # an empty one outside of Jupyter
        cell, run = message.get("metadata", {}).get("cellId"), message.get("header", {}).get("msg_id")
        if cell is None:
            return
        former_run, panels = self.of_cells.get(cell, (run, []))
        if former_run != run:
            for panel in panels:
                panel.forget()
                close_all(panel)
            panels = []
        self.of_cells[cell] = run, [*panels, self]

    def __repr__(self) -> str:
        return f"{type(self).__name__}: run this notebook to use it"

    def contents(self, rows: Iterable[list[str]], played: str | None) -> list[w.Widget]:
        """What stands in the panel, from top to bottom."""
        fields = [line(field(self.controls[name]) for name in row) for row in rows]
        play = [] if played is None else [player(self.controls[played])]
        buttons = line([*play, self.reset_button])
        return [*fields, buttons, self.image]

    def draw(self, preview: bool, **state) -> bytes:
        """The PNG for a state: the same bytes each time. ``preview`` asks for a quick one."""
        raise NotImplementedError

    def idle(self, **state) -> set[str]:
        """The names of the controls that have no effect in a state."""
        return set()

    def render(self, preview: bool = False, **state) -> bytes:
        """The PNG for a state, given as keyword arguments named like the controls; it is kept for the next time."""
        return self.draw(preview, **state)

    def forget(self) -> None:
        """Drop all kept results, because what they were computed from has changed."""
        for name in self.cached:
            getattr(self, name).cache_clear()

    @property
    def state(self) -> dict:
        """The value of each control; a slider's without the rounding error of its steps."""
        values = {name: control.value for name, control in self.controls.items()}
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in values.items()}

    def show(self, preview: bool = False) -> None:
        """Draw the state as it is now; an error is shown in words."""
        try:
            idle = self.idle(**self.state)
            for name, control in self.controls.items():
                control.disabled = name in idle
            self.image.value = self.render(preview=preview and self.previews, **self.state)
        except Exception as error:
            self.complain(error)
        else:
            if self.error is not None:
                self.error, self.message.value = None, ""

    @contextlib.contextmanager
    def together(self):
        """Change several controls in the block, and draw once."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self._on_change()

    def choose(self, **values) -> None:
        """Set the controls named, and draw once."""
        with self.together():
            for name, value in values.items():
                self.controls[name].value = value

    def reset(self) -> None:
        """Put all controls back, and draw once, in full."""
        self.choose(**self.defaults)
        self.show()

    def button(self, description: str, icon: str, tooltip: str, action: Callable[[], None]) -> w.Button:
        """A button; an error in its action is shown in words."""
        button = w.Button(description=description, icon=icon, tooltip=tooltip)
        button.on_click(lambda _: self.attempt(action))
        return button

    def attempt(self, action: Callable[..., None], *values) -> None:
        """Call ``action``; an error is shown in words."""
        try:
            action(*values)
        except Exception as error:
            self.complain(error)

    def complain(self, error: Exception) -> None:
        """Show an error in words, until the state changes."""
        self.error = error
        self.message.value = f"<b class='diffae-error'>{html.escape(f'{type(error).__name__}: {error}')}</b>"

    def _on_change(self, _: dict | None = None) -> None:
        if self._held:
            return
        self.message.value = ""  # it was about the state before
        self.show(preview=True)
        if self._pending is not None:
            self._pending.cancel()
        try:
            self._pending = asyncio.get_running_loop().call_later(REST_SECONDS, self.show)
        except RuntimeError:  # outside of Jupyter there is no event loop, so draw now
            self.show()


def close_all(widget: w.Widget) -> None:
    """Close a widget and those that it holds: children, layouts, styles."""
    for value in widget.trait_values().values():
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, w.Widget):
                close_all(part)
    widget.close()
