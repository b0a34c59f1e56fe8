"""MNIST: the whole set by torchvision, or the embedded sample of 5,000 digits where there is no network."""

import functools
import hashlib
import io
import logging
import os
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from diffae_core.checks import check_tensor

log = logging.getLogger("diffae_core")

SAMPLE_FILE = Path(__file__).parent / "samples" / "mnist_5k.npz"
VALIDATION_SHARE = 1 / 12  # 5,000 of the 60,000 training digits
MAX_UPLOAD_PIXELS = 16_000_000
STALL_SECONDS = 10.0  # a download that brings nothing new for this long is given up
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@dataclass(frozen=True, eq=False)
class Digits(Dataset):
    """Digits kept in memory as bytes: a torch Dataset of ``(image, label)`` pairs.

    Attributes:
        pixels: uint8 ``(N, 1, 28, 28)``, 0 is the background, 255 the ink.
        labels: int64 ``(N,)``, 0 to 9.
        source: "mnist" for the whole set, "sample" for the embedded one.
        mnist_index: int64 ``(N,)``, the place of each digit in MNIST's own file.
    """

    pixels: Tensor
    labels: Tensor
    source: str
    mnist_index: Tensor

    def __post_init__(self) -> None:
        wanted = "expected pixels uint8 (N, 1, H, W), labels int64 (N,) and mnist_index int64 (N,), got"
        for tensor in (self.pixels, self.labels, self.mnist_index):
            check_tensor(tensor, wanted)
        dtypes = [tensor.dtype for tensor in (self.pixels, self.labels, self.mnist_index)]
        if dtypes != [torch.uint8, torch.int64, torch.int64]:
            raise ValueError(f"{wanted} {dtypes}: pixels are bytes from 0 (paper) to 255 (ink)")
        shapes = [tuple(tensor.shape) for tensor in (self.pixels, self.labels, self.mnist_index)]
        if self.pixels.ndim != 4 or shapes != [(count := len(self.pixels), 1, *shapes[0][2:]), (count,), (count,)]:
            cure = "give one label and one place for each digit, and keep the dimension of one with subset([number])"
            raise ValueError(f"{wanted} {shapes}: {cure}")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return as_images(self.pixels[index])[0], int(self.labels[index])

    @property
    def images(self) -> Tensor:
        """All images as float32 ``(N, 1, 28, 28)`` in [0, 1]."""
        return as_images(self.pixels)

    def subset(self, index: Tensor | slice) -> "Digits":
        """The digits at ``index``: a slice, a boolean mask, or whole numbers."""
        return Digits(self.pixels[index], self.labels[index], self.source, self.mnist_index[index])


def check_digits(digits: Digits) -> Digits:
    """Return ``digits`` if they are :class:`Digits`; a TypeError otherwise."""
    if not isinstance(digits, Digits):
        cure = "take what load_mnist or load_sample gives"
        raise TypeError(f"expected Digits, got {type(digits).__name__}: {cure}")
    return digits


def load_mnist(split: str) -> Digits:
    """MNIST's ``"train"`` (60,000 digits) or ``"test"`` (10,000) split, or the embedded sample's (4,000 and 1,000).

    The files are looked for in the folder named by ``DIFFAE_DATA_DIR``, else in ``~/.cache/diffae_core``, and are
    downloaded to there when missing. Where that fails, or brings nothing for 10 seconds, a warning is logged and the
    sample is given. For training, pass what this returns through :func:`split_training`.

    Raises:
        ValueError: an unknown split, or a damaged file (its name and the cure are in the message).
    """
    if split not in ("train", "test"):
        raise ValueError(f'expected split "train" or "test", got {split!r}')
    folder = _mnist_folder()
    if folder is None:
        return load_sample(split)
    for name in MNIST_MD5:
        if name.startswith("train" if split == "train" else "t10k"):
            _check_md5(folder / "MNIST" / "raw" / name)
    from torchvision.datasets import MNIST  # when first used: it takes as long to import as torch itself

    mnist = MNIST(folder, train=split == "train")
    return Digits(mnist.data[:, None], mnist.targets, "mnist", torch.arange(len(mnist)))


def load_sample(split: str) -> Digits:
    """The embedded sample: 5,000 digits of MNIST's training set, 400 a class for "train", 100 a class for "test".

    Its test digits are left out of every training on the whole set too (:func:`split_training`).
    """
    if split not in ("train", "test"):
        raise ValueError(f'expected split "train" or "test", got {split!r}')
    with np.load(SAMPLE_FILE, allow_pickle=False) as sample:
        chosen = sample["is_test"] == (split == "test")
        pixels, labels, index = (sample[key][chosen] for key in ("images", "labels", "mnist_index"))
    pixels, labels, index = torch.from_numpy(pixels)[:, None], torch.from_numpy(labels), torch.from_numpy(index)
    return Digits(pixels, labels.long(), "sample", index.long())


def split_training(train: Digits, seed: int = 0) -> tuple[Digits, Digits]:
    """Split the training digits into ``(training, validation)``, with the sample's 1,000 test digits in neither.

    One in twelve digits becomes validation: 5,000 of the whole set, the same for the same ``seed``.

    Raises:
        TypeError: no Digits.
    """
    check_digits(train)
    held_out = torch.isin(train.mnist_index, load_sample("test").mnist_index)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    order = order[~held_out[order]]
    count = round(len(train) * VALIDATION_SHARE)
    return train.subset(order[count:]), train.subset(order[:count])


def as_images(pictures: Tensor | np.ndarray | Image.Image) -> Tensor:
    """Convert pictures to the form that the models take: float32 ``(N, 1, H, W)`` in [0, 1].

    Takes a PIL image, or a tensor or array of ``(H, W)``, ``(N, H, W)`` or ``(N, 1, H, W)``; whole numbers are read
    as 0 to 255 and floating-point ones as they are.

    Raises:
        TypeError: no picture at all.
        ValueError: another shape or kind of number, NaN or infinity.
    """
    if isinstance(pictures, Image.Image):
        pictures = np.array(pictures.convert("L"))
    try:
        pictures = torch.as_tensor(pictures)
    except (TypeError, ValueError, RuntimeError):
        wanted = "expected pictures as a PIL image, a tensor or an array"
        raise TypeError(f"{wanted}, got {type(pictures).__name__}: read a file with read_digit") from None
    if pictures.ndim == 2:
        pictures = pictures[None]
    if pictures.ndim == 3 and pictures.shape[2] > 4:  # else the last dimension is colour
        pictures = pictures[:, None]
    if pictures.ndim != 4 or pictures.shape[1] != 1:
        raise ValueError(f"expected grey pictures (H, W), (N, H, W) or (N, 1, H, W), got {tuple(pictures.shape)}")
    if pictures.dtype == torch.uint8:
        return pictures.float() / 255
    if not pictures.is_floating_point():
        raise ValueError(f"expected uint8 (0 to 255) or floating-point pictures (0 to 1), got {pictures.dtype}")
    if not bool(pictures.isfinite().all()):
        raise ValueError("expected floating-point pictures (0 to 1), got NaN or infinity: look where it is from")
    return pictures.float()


def read_digit(file: str | Path | bytes) -> Tensor:
    """One handwritten digit from a picture file, made to look like MNIST's: ``(1, 1, 28, 28)`` in [0, 1].

    A 28x28 grey picture on black is taken as it is. Of any other, the border tells the colour of the paper; what
    differs from it is the ink, drawn 20 pixels high or wide with its centre of mass in the middle, as in MNIST.

    Args:
        file: a path, or the bytes of a PNG, JPEG, GIF, BMP or WebP file of up to 16 megapixels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no such picture, or nothing is drawn on it.
    """
    try:
        picture = Image.open(io.BytesIO(file) if isinstance(file, bytes) else file)
        if picture.width * picture.height > MAX_UPLOAD_PIXELS:
            size = f"{picture.width} x {picture.height}"
            raise ValueError(f"expected a picture of up to 16 megapixels, got {size}: make it smaller")
        grey = _grey(ImageOps.exif_transpose(picture))
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"expected a picture (PNG, JPEG, GIF, BMP or WebP), got {error}") from None
    paper = float(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))
    ink = np.clip((grey - paper) / (1 - paper) if paper < 0.5 else (paper - grey) / paper, 0, 1)
    if ink.max() < 0.2:
        raise ValueError("expected a digit drawn on a plain background, got an empty picture: draw it darker")
    if grey.shape == (28, 28) and paper == 0:
        return torch.from_numpy(grey)[None, None]
    ink[ink < ink.max() / 3] = 0  # shadows and the grain of the paper
    rows, columns = np.nonzero(ink)
    ink = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = 20 / max(ink.shape)
    size = tuple(max(1, round(side * scale)) for side in ink.shape)
    ink = F.interpolate(torch.from_numpy(ink)[None, None], size, mode="bilinear", antialias=True)[0, 0]
    weight = ink / ink.sum()
    middle = [round(float((weight.sum(1 - side) * torch.arange(size[side])).sum())) for side in (0, 1)]
    top, left = (min(max(14 - middle[side], 0), 28 - size[side]) for side in (0, 1))
    digit = torch.zeros(1, 1, 28, 28)
    digit[0, 0, top : top + size[0], left : left + size[1]] = (ink / ink.max()).clamp(0, 1)
    return digit


def _grey(picture: Image.Image) -> np.ndarray:
    """A picture of any mode as float32 ``(H, W)`` in [0, 1]; what is transparent becomes white paper."""
    if picture.mode.startswith(("I", "F")):  # 16 bits or more to a pixel: scale what there is
        values = np.asarray(picture, np.float32)
        return (values - values.min()) / max(float(np.ptp(values)), 1e-6)
    picture = picture.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.array(flat.convert("L"), np.float32) / 255


@functools.cache
def _mnist_folder() -> Path | None:
    """The folder with MNIST in it, downloading if needed; None where it can't be had. Settled once per process."""
    folder = Path(os.environ.get("DIFFAE_DATA_DIR") or Path.home() / ".cache" / "diffae_core").expanduser().resolve()
    if all((folder / "MNIST" / "raw" / name).exists() for name in MNIST_MD5):
        return folder
    try:
        _download(folder)
    except (OSError, RuntimeError) as error:
        log.warning("MNIST could not be downloaded (%s): using the embedded sample of 5,000 digits instead", error)
        return None
    return folder


def _download(folder: Path) -> None:
    """Download MNIST to ``folder``; an OSError or RuntimeError where it fails or brings nothing for 10 seconds.

    torchvision downloads without a timeout, so it works in a thread that can be left behind, in a temporary folder.
    """
    from torchvision.datasets import MNIST  # when first used

    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix="download-", dir=folder))
    failure: list[Exception] = []

    def work() -> None:
        try:
            MNIST(temporary, download=True)
        except Exception as error:
            failure.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        size, last_change = 0, time.monotonic()
        while worker.is_alive():
            worker.join(0.1)
            new_size = sum(path.stat().st_size for path in temporary.rglob("*") if path.is_file())
            if new_size != size:
                size, last_change = new_size, time.monotonic()
            elif time.monotonic() - last_change > STALL_SECONDS:
                raise TimeoutError(f"no progress for {STALL_SECONDS:g} seconds")
        if failure:
            raise RuntimeError((str(failure[0]).strip() or repr(failure[0])).splitlines()[-1])
        raw = folder / "MNIST" / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        for name in MNIST_MD5:
            os.replace(temporary / "MNIST" / "raw" / name, raw / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_md5(path: Path) -> None:
    found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    if found != MNIST_MD5[path.name]:
        raise ValueError(
            f"expected the MNIST file {path} with md5 {MNIST_MD5[path.name]}, got {found} ({path.stat().st_size:,} "
            "bytes): it is truncated or damaged; delete it and start again, and it is downloaded anew"
        )
