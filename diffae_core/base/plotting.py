"""Tensors -> one tiled picture, a labelled picture, PNG bytes."""

import functools
import importlib.util
import io
import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diffae_core.base.checkpoints import atomic_write
from diffae_core.base.validation import check_count, check_tensor

log = logging.getLogger("diffae_core")


def tile(images: Tensor, columns: int | None = None, gap: int = 2) -> np.ndarray:
    """Lay ``(N, 1, H, W)`` images in [0, 1] side by side: uint8 ``(rows * (H + gap) + gap, ...)``, ink black on white.

    Args:
        images: N at least 1.
        columns: images in a row; None puts all in one.
        gap: pixels of light grey between them.

    Raises:
        TypeError, ValueError: not such images, NaN or infinity, or no such whole numbers.
    """
    check_tensor(images, "expected images (N, 1, H, W) as a tensor, got")
    if images.ndim != 4 or images.shape[0] < 1 or images.shape[1] != 1:
        raise ValueError(f"expected one or more images (N, 1, H, W), got {tuple(images.shape)}: see as_images")
    count, _, height, width = images.shape
    columns = count if columns is None else check_count(columns, "columns")
    gap = check_count(gap, "gap", at_least=0)
    rows = -(-count // columns)  # rounded up
    sheet = np.full((gap + rows * (height + gap), gap + columns * (width + gap)), 220, np.uint8)
    levels = 255 - (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()[:, 0]
    for index, picture in enumerate(levels):
        row, column = divmod(index, columns)
        top = gap + row * (height + gap)
        left = gap + column * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def enlarge(sheet: np.ndarray, zoom: int) -> Image.Image:
    """A uint8 ``(H, W)`` picture with each pixel ``zoom`` times as large."""
    zoom = check_count(zoom, "zoom")
    picture = Image.fromarray(sheet)
    return picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)


def stack(upper: Image.Image, lower: Image.Image) -> Image.Image:
    """One picture above another, on white, in the mode of the lower picture."""
    picture = Image.new(lower.mode, (max(upper.width, lower.width), upper.height + lower.height), "white")
    picture.paste(upper, (0, 0))
    picture.paste(lower, (0, upper.height))
    return picture


def labelled_picture(
    rows: dict[str, Tensor], columns: tuple[str, ...] = (), zoom: int = 3, gap: int = 2
) -> Image.Image:
    """Rows of digits, a label left of each row and, if given, a heading above each column.

    It takes a few milliseconds, where Matplotlib takes a hundred, so the panels and the script use it.

    Args:
        rows: ``{label: (N, 1, H, W) in [0, 1]}``, ink black on white.
        columns: headings, at most one for each digit of a row.
        zoom: screen pixels for each pixel of a digit.
        gap: pixels of light grey between digits.

    Raises:
        TypeError, ValueError: no rows, not such images, or no such whole numbers.
    """
    _check_rows(rows)
    pen_font = font(14)
    for label in (*rows, *columns):
        _warn_of_missing_letters(label)
    left = max((round(pen_font.getlength(label)) + 16 for label in rows if label), default=0)
    top = 22 if columns else 0
    sheets = [enlarge(tile(images, gap=gap), zoom) for images in rows.values()]
    width = left + max(sheet.width for sheet in sheets)
    height = top + sum(sheet.height for sheet in sheets)
    picture = Image.new("L", (width, height), 255)
    pen = ImageDraw.Draw(picture)
    for row, (label, sheet) in enumerate(zip(rows, sheets)):
        row_top = top + row * sheet.height
        picture.paste(sheet, (left, row_top))
        pen.text((left - 8, row_top + sheet.height // 2), label, fill=0, font=pen_font, anchor="rm")
    step = (next(iter(rows.values())).shape[-1] + gap) * zoom
    for column, heading in enumerate(columns):
        middle = left + step * column + (step + gap * zoom) // 2
        pen.text((middle, top // 2), heading, fill=0, font=pen_font, anchor="mm")
    return picture


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with Matplotlib and has the letters of most alphabets."""
    matplotlib = importlib.util.find_spec("matplotlib")  # located, not imported: an import takes a while
    assert matplotlib is not None and matplotlib.origin is not None
    path = Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(path, size)


@functools.cache
def _warn_of_missing_letters(text: str) -> None:
    """Warn, once for each text, of its letters that the font shows as empty boxes."""
    box = bytes(font(14).getmask("\U0010ffff"))
    missing = sorted({letter for letter in text if bytes(font(14).getmask(letter)) == box})
    if missing:
        log.warning("the font for pictures has no %s: empty boxes stand for them; rename %r", " ".join(missing), text)


def png_bytes(picture: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def labelled_png(rows: dict[str, Tensor], columns: tuple[str, ...] = (), zoom: int = 3, gap: int = 2) -> bytes:
    """The picture of :func:`labelled_picture` as the bytes of a PNG file."""
    return png_bytes(labelled_picture(rows, columns, zoom, gap))


def save_png(picture: Tensor | Image.Image, path: str | Path, columns: int | None = None, zoom: int = 3) -> None:
    """Write ``(N, 1, H, W)`` images in [0, 1] as one tiled PNG, or a picture as it is, completely or not at all."""
    picture = picture if isinstance(picture, Image.Image) else enlarge(tile(picture, columns), zoom)
    with atomic_write(path) as temporary:
        temporary.write_bytes(png_bytes(picture))


def _check_rows(rows: dict[str, Tensor]) -> None:
    """Refuse anything but a dictionary of rows; :func:`tile` checks the images in it."""
    if not isinstance(rows, dict) or not rows or not all(isinstance(label, str) for label in rows):
        got = f"a {type(rows).__name__} of {len(rows)}" if hasattr(rows, "__len__") else type(rows).__name__
        raise TypeError(f"expected one or more rows as {{'label': images (N, 1, H, W)}}, got {got}")
