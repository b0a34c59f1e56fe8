"""The drawing canvas: strokes of a pen in the browser -> a digit that looks like MNIST's."""

import anywidget
import numpy as np
import torch
import traitlets
from PIL import Image, ImageDraw
from torch import Tensor

from diffae_core.panels.controls import HERE

PEN, ERASER = 2.6 / 28, 4 / 28  # widths, as shares of the image
FINE = 8  # times as many pixels per side while drawing, so that edges come out soft
SMALLEST = 0.3  # of the canvas: a smaller drawing, such as a first dot, is not enlarged to the whole image


class Canvas(anywidget.AnyWidget):
    """A canvas for mouse, pen or finger, with pen, eraser, undo and clear; and a button for a picture file.

    Attributes:
        strokes: ``{"erase": bool, "points": [[x, y], ...]}`` each, in order, x and y from 0 to 1.
        file: ``{"name": ..., "url": a data URL}`` of the last picture; large ones are shrunk in the browser.
    """

    _esm = HERE / "canvas.js"
    strokes = traitlets.List().tag(sync=True)
    file = traitlets.Dict().tag(sync=True)


def digit_of_strokes(strokes: list[dict], size: int = 28) -> Tensor | None:
    """The digit that strokes show, ``(1, 1, size, size)`` in [0, 1]; None if nothing is left of them.

    As in MNIST: 20 of 28 pixels high or wide, the centre of mass in the middle, and always the same width of the pen.
    """
    pen = [stroke["points"] for stroke in strokes if not stroke["erase"]]
    if not pen:
        return None
    points = np.concatenate(pen)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (20 / 28 - PEN) / max(*(high - low), SMALLEST)
    picture = Image.new("L", (size * FINE, size * FINE))
    for stroke in strokes:
        places = ((np.array(stroke["points"]) - (low + high) / 2) * scale + 0.5) * size * FINE
        width = (ERASER * scale if stroke["erase"] else PEN) * size * FINE
        draw_stroke(ImageDraw.Draw(picture), places, width, fill=0 if stroke["erase"] else 255)
    ink = np.asarray(picture.resize((size, size), Image.Resampling.BOX), np.float32) / 255
    if ink.max() < 0.2:
        return None
    return torch.from_numpy(centred(ink))[None, None]


def draw_stroke(pen: ImageDraw.ImageDraw, places: np.ndarray, width: float, fill: int) -> None:
    """A line through the places ``(P, 2)`` with round ends and joints."""
    pen.line([tuple(place) for place in places], fill, round(width))
    for x, y in places:
        pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill)


def centred(ink: np.ndarray) -> np.ndarray:
    """Ink ``(H, W)`` moved by whole pixels, until its centre of mass is in the middle or it would touch the border."""
    for axis in (0, 1):
        share = ink.sum(axis=1 - axis) / ink.sum()
        used, size = share.nonzero()[0], len(share)
        shift = round(size / 2 - 0.5 - float(share @ np.arange(size)))
        ink = np.roll(ink, min(max(shift, -used[0]), size - 1 - used[-1]), axis)
    return ink
