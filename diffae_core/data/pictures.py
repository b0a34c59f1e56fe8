"""Pictures from outside (arrays, PIL images, files), converted to what the models take."""

import io
import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

log = logging.getLogger("diffae_core")

MAX_PIXELS = 80_000_000  # more is taken for a decompression bomb
BLACK = 16  # of 255: no picture is as dark as this
DARK = 64  # and few are darker than this


def as_images(pictures) -> Tensor:
    """Convert pictures to the form that the models take: float32 ``(N, 1, H, W)`` in [0, 1].

    Takes a PIL image of any mode (see :func:`grey_levels`), a grey tensor or array ``(H, W)``, ``(N, H, W)``,
    ``(N, 1, H, W)`` or ``(N, H, W, 1)``, and lists of these: whole numbers are read as 0 to 255, bool as black and
    white, and floating-point numbers as they are. A warning is logged for pictures that would be rather dark.

    Raises:
        TypeError: not a picture.
        ValueError: another shape or range, colour, NaN or infinity; whole numbers up to 16, which would be black.
    """
    is_list = isinstance(pictures, list | tuple)
    pictures = to_tensor(pictures, "pictures as a PIL image, a tensor or an array (for a file use read_digit)")
    shape = tuple(pictures.shape)
    wanted = f"expected grey pictures (H, W), (N, H, W) or (N, 1, H, W), got {shape}"
    if len(shape) == 3 and (shape[0] in (3, 4) or shape[2] <= 4) and not is_list:
        hint = "make one colour picture grey with .mean, or give several grey ones as pictures[:, None]"
        raise ValueError(f"{wanted}, which may be one picture in colour: {hint}")
    if len(shape) == 4 and shape[1] > 1 == shape[3]:
        pictures = pictures.movedim(3, 1)
    if len(shape) == 2:
        pictures = pictures[None]
    if len(shape) in (2, 3):
        pictures = pictures[:, None]
    if pictures.ndim != 4 or pictures.shape[1] != 1 or 0 in pictures.shape[2:]:
        raise ValueError(f"{wanted}: make colour grey, and add missing dimensions, e.g. with pictures[:, None]")
    check_levels(pictures, tolerance=0.5)
    return to_unit(pictures)


def to_tensor(values, wanted: str) -> Tensor:
    """An array, a tensor, a PIL image or a list of these as one tensor: bool, uint8, int64 or floating-point.

    Raises:
        TypeError: not ``wanted``, not numbers, or in a list of several sizes.
    """
    got = type(values).__name__
    if isinstance(values, Image.Image):
        values = grey_levels(values)
    try:
        if isinstance(values, list | tuple):
            values = [grey_levels(value) if isinstance(value, Image.Image) else value for value in values]
            values = torch.stack(values) if values and isinstance(values[0], Tensor) else values
        if isinstance(values, Tensor):
            return values.long() if values.dtype in (torch.uint16, torch.uint32, torch.uint64) else values.to_dense()
        is_array = isinstance(values, list | range) or hasattr(values, "__array__")
        array = np.array(values if is_array else None, order="C")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"expected {wanted}, got {got} that is no array: {str(error).splitlines()[0]}") from None
    types = {"b": np.bool_, "u": np.int64, "i": np.int64, "f": np.float32}
    if (kind := array.dtype.kind) not in types:
        raise TypeError(f"expected {wanted}, got {got} that holds no numbers")
    return torch.from_numpy(array if array.dtype == np.uint8 else array.astype(types[kind]))


def check_levels(pixels: Tensor, tolerance: float) -> None:
    """Refuse levels of grey in a range that cannot be what they are read as, and warn of dark ones.

    Whole numbers are read as 0 to 255, floating-point numbers as 0 to 1, which they may exceed by ``tolerance``.

    Raises:
        ValueError: another range, whole numbers up to 16 (a mask, few levels of grey), NaN, infinity or complex.
    """
    if pixels.dtype == torch.bool or not pixels.numel():
        return
    wanted = f"expected whole numbers (0 to 255) or floating-point pictures (0 to 1), got {pixels.dtype} with"
    if pixels.is_complex() or not bool(pixels.isfinite().all()):
        raise ValueError(f"{wanted} NaN, infinity or complex numbers: check where they come from")
    low, high = (limit.item() for limit in pixels.aminmax())
    white, slack = (1, tolerance) if pixels.is_floating_point() else (255, 0)
    wanted = f"{wanted} values from {low:g} to {high:g}"
    if low < -slack:
        raise ValueError(f"{wanted}: take (pictures - {low:g}) / {high - low:g}")
    if high > white + slack:
        raise ValueError(f"{wanted}: divide them by {high:g}, or by the largest value that is possible")
    if white == 255 and high == 1:
        raise ValueError(f"{wanted}, which would be black: give a mask as bool, e.g. pictures > 0")
    if white == 255 and 0 < high <= BLACK:
        hint = f"divide them by {high:g}, or by the largest value that is possible"
        raise ValueError(f"{wanted}, which would be nearly black: {hint}")
    warn_if_dark(high / white)


def warn_if_dark(brightest: float) -> None:
    """Log a warning where the brightest pixel, in [0, 1], is dark; all black is taken as intended."""
    if 0 < brightest < DARK / 255:
        text = "The brightest pixel is at %.1f%% of white: if the pictures have a smaller range, divide by its maximum"
        log.warning(text, 100 * brightest)


def to_unit(pixels: Tensor) -> Tensor:
    """Levels of grey as float32 in [0, 1]: bool, whole numbers from 0 to 255, or floating-point numbers as they are."""
    if pixels.is_floating_point() or pixels.dtype == torch.bool:
        return pixels.float()
    return pixels.float() / 255


def grey_levels(picture: Image.Image) -> np.ndarray:
    """A PIL image of any mode as float32 ``(H, W)`` in [0, 1], 0 black and 1 white.

    Colour becomes luminance, 0.299 R + 0.587 G + 0.114 B. 16 bits are 0 to 65535; modes I and F carry no range of
    their own, so we take the least of 1 (F only), 255 and 65535 that holds all values. LAB gives its lightness. Behind
    transparency we put what shows the visible part: black or white behind one plain colour, else its median level.

    Raises:
        ValueError: a picture in mode I or F with negative values, NaN or more than 65535.
    """
    if picture.mode.startswith(("I", "F")):
        levels = np.asarray(picture).astype(np.float32)
        low, high = (float(levels.min()), float(levels.max())) if levels.size else (0.0, 0.0)
        if not (low >= 0 and high <= 65535):
            got = f"values from {low:g} to {high:g} in mode {picture.mode}"
            raise ValueError(f"expected a picture with values from 0 to 65535, got {got}: scale them to 0 to 255")
        return levels / _white(picture.mode, high)
    if picture.mode in ("La", "RGBa"):  # premultiplied; Pillow converts it only this way
        picture = picture.convert(picture.mode.upper())
    if picture.mode == "LAB":
        return np.array(picture.getchannel("L"), np.float32) / 255
    if picture.mode == "HSV":
        picture = picture.convert("RGB")
    if not picture.has_transparency_data:
        return np.array(picture.convert("L"), np.float32) / 255
    picture = picture.convert("RGBA")
    levels = np.array(picture.convert("RGB").convert("L"), np.float32) / 255
    alpha = np.array(picture.getchannel("A"), np.float32) / 255
    visible = levels[alpha > 0.5]
    if not visible.size:
        return np.ones_like(levels)
    plain = np.ptp(visible) < 0.5
    behind = float(visible.mean() < 0.5) if plain and alpha.min() < 0.5 else float(np.median(visible))
    return levels * alpha + behind * (1 - alpha)


def _white(mode: str, high: float) -> int:
    """The value of white in a picture of 16 bits, or in mode I or F, whose range is guessed from its largest value."""
    if mode.startswith("I;16") or high > 255:
        return 65535
    if mode == "I" or high > 1:
        return 255
    return 1


def open_grey(file, longest: int) -> np.ndarray:
    """A picture, turned upright, as float32 ``(H, W)`` in [0, 1], shrunk until no side is over ``longest``.

    Args:
        file: a path, a file's bytes, an open file, or a PIL image.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: none of these.
        ValueError: not a picture, or one of more than 80 megapixels.
    """
    name = str(file) if isinstance(file, str | Path) else f"the {type(file).__name__}"
    try:
        with _open(file) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                size = f"{picture.width} x {picture.height} pixels"
                raise ValueError(f"{size}, more than {MAX_PIXELS // 10**6} megapixels: shrink it")
            grey = Image.fromarray(grey_levels(ImageOps.exif_transpose(_shrunk(picture, longest))))
    except FileNotFoundError:
        hint = "download it first" if "://" in name else "check the path"
        raise FileNotFoundError(f"expected a picture at {name}, got no file: {hint}") from None
    except (OSError, SyntaxError, EOFError, ValueError, Image.DecompressionBombError, Warning) as error:
        reason = "no picture" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"expected a picture (PNG, JPEG, GIF, BMP or WebP), got {name}: {reason}") from None
    return np.array(resize(grey, min(1, longest / max(grey.size))))


def _open(file) -> Image.Image:
    if isinstance(file, Image.Image):
        return file.copy()
    if isinstance(file, str | Path):
        return Image.open(Path(file).expanduser())
    if isinstance(file, bytes | bytearray | memoryview):
        return Image.open(io.BytesIO(file))
    if not hasattr(file, "read"):
        hint = "convert an array with Image.fromarray, or give it to as_images"
        raise TypeError(f"expected a picture's path, bytes, open file or PIL image, got {type(file).__name__}: {hint}")
    return Image.open(file)


def _shrunk(picture: Image.Image, longest: int) -> Image.Image:
    """Shrink to about ``longest`` high or wide before pixels become floating-point numbers, of four bytes each."""
    factor = max(picture.size) // longest
    if factor < 2:
        return picture
    if picture.mode.startswith("I;16"):  # Pillow cannot scale 16 bits
        rows, columns = picture.height // factor, picture.width // factor
        blocks = np.asarray(picture)[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor)
        small = Image.fromarray(blocks.mean((1, 3)).round().astype(np.uint16))
        small.info = picture.info  # among it, how the picture is to be turned
        return small
    picture.draft("RGB", (longest, longest))  # a JPEG is decoded at a smaller size, but not below this one
    if picture.has_transparency_data and picture.mode != "RGBA":
        picture = picture.convert("RGBA")
    elif picture.mode in ("1", "P"):
        picture = picture.convert("L")
    picture.thumbnail((longest, longest), Image.Resampling.BILINEAR, reducing_gap=2)
    return picture


def fit_square(grey: np.ndarray, size: int) -> np.ndarray:
    """A picture ``(H, W)`` in [0, 1] as uint8 ``(size, size)``: scaled, and centred on its border's colour."""
    if grey.shape != (size, size):
        border = float(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))
        picture = Image.fromarray(grey.astype(np.float32))
        grey = np.asarray(ImageOps.pad(picture, (size, size), Image.Resampling.BILINEAR, border))
    return (grey * 255).round().clip(0, 255).astype(np.uint8)


def resize(picture: Image.Image, scale: float) -> Image.Image:
    """The picture with its sides times ``scale``, at least one pixel each."""
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    return picture if size == picture.size else picture.resize(size, Image.Resampling.BILINEAR)
