"""A photographed or scanned digit, made to look like MNIST's."""

import logging

import numpy as np
import scipy  # its parts are loaded when first used
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from diffae_core.data.digits import Digits, check_digits
from diffae_core.data.pictures import fit_square, open_grey, resize, to_unit

log = logging.getLogger("diffae_core")

STROKE_WIDTH = 2.6  # pixels: the median stroke of MNIST's digits


def read_digit(file, like: Digits | None = None) -> Tensor:
    """One handwritten digit from a picture file, made to look like MNIST's: ``(1, 1, 28, 28)`` in [0, 1].

    A 28x28 grey picture on black is taken as it is. In any other, dark or light ink is separated from the paper around
    it, in even light or with shadows across. Specks are left out, thin strokes are widened to MNIST's width, and the
    digit is made 20 pixels high or wide with its centre of mass in the middle, as in MNIST. Where there is more than
    one digit, the largest is read, and a warning is logged.

    Args:
        file: a path, a file's bytes, an open file or a PIL image; PNG, JPEG, GIF, BMP or WebP, up to 80 megapixels.
        like: digits whose size and whose paper, black or white, the picture gets. A picture that already looks like
            them (:func:`has_look`) is only scaled, as :func:`load_digits` scales it.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: none of these.
        ValueError: not a picture, or nothing is drawn on it.
    """
    if like is not None:
        if not len(check_digits(like)):
            raise ValueError("expected digits to take the look from, got none: give some of the set")
        size = check_digits(like, like.pixels.shape[-1]).pixels.shape[-1]
        scaled = torch.from_numpy(fit_square(open_grey(file, 4 * size), size))[None, None]
        if has_look(scaled, like):
            return to_unit(scaled)
        return with_look(read_digit(file), like)
    grey = open_grey(file, 512)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if grey.shape == (28, 28) and np.median(border) == 0 and grey.max() >= 0.2:
        return torch.from_numpy(grey)[None, None]
    grey = np.array(resize(Image.fromarray(grey), max(1, min(4, 512 / max(grey.shape)))))
    ink = _ink(scipy.ndimage.gaussian_filter(grey, 1))  # the blur removes the grain of the paper
    if np.quantile(ink, 0.999) < 0.12:
        hint = "draw it with more contrast, or larger"
        raise ValueError(f"expected a digit drawn on a plain background, got an empty picture: {hint}")
    return _like_mnist(_main_strokes(ink > 0.4 * np.quantile(ink, 0.999)))


def has_look(pixels: Tensor, like: Digits) -> bool:
    """Whether paper, ink, place and extent of a picture, uint8 ``(1, 1, H, W)``, are in the range of some digits'."""
    features = _features(to_unit(pixels), like.paper)
    usual = _features(like.spaced(min(len(like), 1000)).images, like.paper)
    low, high = usual.amin(0), usual.amax(0)
    slack = 0.02 + 0.1 * (high - low)
    return bool(((features >= low - slack) & (features <= high + slack)).all())


def _features(images: Tensor, paper: float) -> Tensor:
    """The features of a look, ``(N, 7)``: paper at the border, most and mean ink, and where the ink is."""
    border = torch.cat([images[:, 0, 0], images[:, 0, -1], images[:, 0, :, 0], images[:, 0, :, -1]], dim=1)
    ink = (images[:, 0] - paper).abs()  # (N, H, W)
    columns = []
    for across in (ink.sum(1), ink.sum(2)):  # (N, W), (N, H)
        share = across / across.sum(1, keepdim=True).clamp(min=1e-6)
        places = torch.linspace(0, 1, share.shape[1], device=share.device)
        middle = share @ places
        columns += [middle, (share @ places.square() - middle.square()).clamp(min=0).sqrt()]
    return torch.stack([border.median(1).values, ink.amax((1, 2)), ink.mean((1, 2)), *columns], dim=1)


def with_look(images: Tensor, like: Digits) -> Tensor:
    """Digits that look like MNIST's, ``(N, 1, H, W)``, in the size of other digits, and dark on white if those are."""
    size = tuple(like.pixels.shape[2:])
    if tuple(images.shape[2:]) != size:
        images = F.interpolate(images, size, mode="bilinear", antialias=True).clamp(0, 1)
    return 1 - images if like.paper > 0.5 else images


def _ink(grey: np.ndarray) -> np.ndarray:
    """How much each pixel differs from the paper around it ``(H, W)``: 0 is paper, about 1 the strongest ink.

    The paper is the median over half the picture's height and width: strokes fill less of this window than paper does,
    and the median follows shadows.
    """
    small = resize(Image.fromarray(grey), 64 / max(grey.shape))
    window = [side // 2 + 1 for side in reversed(small.size)]
    paper = Image.fromarray(scipy.ndimage.median_filter(np.asarray(small), window, mode="nearest"))
    paper = np.asarray(paper.resize(grey.shape[::-1], Image.Resampling.BILINEAR))
    darker, lighter, level = np.maximum(paper - grey, 0), np.maximum(grey - paper, 0), float(np.median(paper))
    ink_is_dark = np.square(darker).sum() > np.square(lighter).sum()
    if not ink_is_dark and level < 0.3:
        return lighter / np.maximum(1 - paper, 0.1)
    return (darker if ink_is_dark else lighter) / np.clip(paper, max(level / 3, 0.1), max(level * 1.5, 0.1))


def _main_strokes(mask: np.ndarray) -> np.ndarray:
    """The strokes of one digit in a boolean ``(H, W)``, without specks, corners in shadow and other digits."""
    labels, _ = scipy.ndimage.label(mask, np.ones((3, 3)))
    areas, boxes = np.bincount(labels.ravel()), scipy.ndimage.find_objects(labels)
    at_border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    inside = [label for label in range(1, len(areas)) if label not in at_border]
    if not inside or max(areas[inside]) < 0.05 * max(areas[1:]):
        inside = list(range(1, len(areas)))  # the digit itself runs over the border
    main = max(inside, key=lambda label: areas[label])
    rows, columns = boxes[main - 1]
    strokes, others, height = [main], 0, rows.stop - rows.start
    for label in inside:
        down, across = boxes[label - 1]
        gap = max(across.start - columns.stop, columns.start - across.stop)
        if label != main and areas[label] >= 0.05 * areas[main]:
            if gap > height / 10 and down.stop - down.start > height / 2:
                others += 1  # as high as a digit, and beside this one
            elif gap < height / 2:
                strokes.append(label)
    if others:
        log.warning("Found %d digits in the picture and read the largest: cut the picture to one digit", others + 1)
    return np.isin(labels, strokes)


def _like_mnist(mask: np.ndarray) -> Tensor:
    """A boolean digit of any size as MNIST shows it, ``(1, 1, 28, 28)``."""
    mask = np.pad(mask[scipy.ndimage.find_objects(mask.astype(int))[0]], 1)
    pixel = max(mask.shape) / 20  # one of MNIST's pixels, in ours
    stroke_width = 4 * scipy.ndimage.distance_transform_edt(mask)[mask].mean()  # exact for a straight stroke
    if (thin := (STROKE_WIDTH * pixel - stroke_width) / 2) > 0:
        mask = scipy.ndimage.distance_transform_edt(~np.pad(mask, int(thin) + 1)) <= thin
        mask = mask[scipy.ndimage.find_objects(mask.astype(int))[0]]
    scale = 20 / max(mask.shape)
    size = tuple(max(1, round(side * scale)) for side in reversed(mask.shape))
    ink = np.array(Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX))
    middle = scipy.ndimage.center_of_mass(ink)
    top, left = (min(max(round(13.5 - place), 0), 28 - side) for place, side in zip(middle, ink.shape))
    digit = torch.zeros(1, 1, 28, 28, dtype=torch.float32, device="cpu")
    digit[0, 0, top : top + ink.shape[0], left : left + ink.shape[1]] = torch.from_numpy(ink)
    return digit
