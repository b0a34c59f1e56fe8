"""Digits: MNIST, the embedded sample of 5,000 where there is no network, or anyone's own arrays, folders and files."""

import gzip
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from diffae_core.images import as_images, fit_square, grey_levels, open_grey
from diffae_core.validation import check_choice, check_count

log = logging.getLogger("diffae_core")

SPLITS = ("train", "validation", "test")
SAMPLE_FILE = Path(__file__).parent / "samples" / "mnist_5k.npz"
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
HELD_OUT_SHARE = 1 / 12  # of MNIST's 60,000 training digits: 5,000 for validation
STALL_SECONDS = 10.0  # a download that brings nothing new for this long is given up
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
_given_up: set[str] = set()  # folders to which MNIST could not be downloaded: that is tried once per process


@dataclass(frozen=True, eq=False)
class Digits(Dataset):
    """Labelled grey pictures, kept in memory as bytes: a torch Dataset of ``(image, label)`` pairs.

    Attributes:
        pixels: uint8 ``(N, 1, H, W)``. In MNIST 0 is the background and 255 the ink.
        labels: int64 ``(N,)``, from 0; all -1 where there are none.
        names: the name of each class; empty where there are no labels.
        source: "mnist", "sample", "arrays", "folder" or "dataset".
    """

    pixels: Tensor
    labels: Tensor
    names: tuple[str, ...] = tuple("0123456789")
    source: str = "arrays"

    def __post_init__(self) -> None:
        wanted = "expected pixels uint8 (N, 1, H, W) and labels int64 (N,), got"
        tensors = (self.pixels, self.labels)
        if not all(isinstance(tensor, Tensor) for tensor in tensors):
            got = " and ".join(type(tensor).__name__ for tensor in tensors)
            raise TypeError(f"{wanted} {got}: use Digits.from_arrays(images, labels)")
        count, got = len(self.pixels), " and ".join(f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in tensors)
        if (self.pixels.dtype, self.labels.dtype) != (torch.uint8, torch.int64):
            raise ValueError(f"{wanted} {got}: use Digits.from_arrays(images, labels)")
        if self.pixels.ndim != 4 or self.pixels.shape[1] != 1 or tuple(self.labels.shape) != (count,):
            raise ValueError(f"{wanted} {got}: give one label for each picture; keep one digit as subset([index])")
        low, high = (0, len(self.names) - 1) if self.names else (-1, -1)
        if count and not low <= int(self.labels.min()) <= int(self.labels.max()) <= high:
            got = f"labels from {int(self.labels.min())} to {int(self.labels.max())}, and {len(self.names)} names"
            raise ValueError(f"expected labels from {low} to {high}, one name for each class, got {got}")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.pixels[index].float() / 255, int(self.labels[index])

    @property
    def num_classes(self) -> int:
        """How many classes there are; 0 without labels."""
        return len(self.names)

    @property
    def images(self) -> Tensor:
        """All images as float32 ``(N, 1, H, W)`` in [0, 1]."""
        return as_images(self.pixels)

    def subset(self, index: Tensor | Sequence[int] | slice) -> "Digits":
        """The digits at ``index``: a slice, a boolean mask, or indices."""
        return replace(self, pixels=self.pixels[index], labels=self.labels[index])

    def spaced(self, count: int) -> "Digits":
        """``count`` digits, evenly spaced over all of them."""
        if check_count(count, "count") > len(self):
            raise ValueError(f"expected count of {len(self)} or less, as many as there are digits, got {count}")
        return self.subset(torch.arange(count) * len(self) // count)

    def split(self, seed: int = 0) -> "tuple[Digits, Digits, Digits]":
        """``(train, validation, test)``: 10/12, 1/12 and 1/12 of the digits, at random, the same for the same seed."""
        return _complete({"train": self}, seed)

    @classmethod
    def from_arrays(cls, images, labels=None, names: Iterable[str] | None = None) -> "Digits":
        """Digits from arrays or tensors.

        Args:
            images: uint8 (0 to 255) or floating-point (0 to 1), ``(N, H, W)``, ``(N, 1, H, W)`` or ``(N, H, W, 1)``;
                with three channels it is colour, which becomes luminance, 0.299 R + 0.587 G + 0.114 B.
            labels: whole numbers from 0, ``(N,)``; None for pictures without labels.
            names: the classes' names; "0", "1", ... by default.

        Raises:
            TypeError: not arrays of numbers.
            ValueError: another shape, dtype or range, or another number of labels.
        """
        pixels, labels = _as_pixels(images), None if labels is None else _as_labels(labels)
        if labels is None:
            return cls(pixels, torch.full((len(pixels),), -1), tuple(names or ()))
        top = int(labels.max()) + 1 if len(labels) else 0
        return cls(pixels, labels, tuple(map(str, range(top) if names is None else names)))

    @classmethod
    def from_folder(cls, path: str | Path, image_size: int = 28) -> "Digits":
        """Digits from picture files, one sub-folder for each class as in torchvision's ``ImageFolder``.

        A folder of pictures without sub-folders gives digits without labels. Pictures become grey; they are scaled to
        ``image_size`` with their proportions kept, and a picture that is not square is centred on the colour of its
        border. Ink stays dark or light, as it is; hidden files, and files that are no pictures by name, are left out.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: a folder without pictures, or a damaged picture.
        """
        path = Path(path).expanduser()
        check_count(image_size, "image_size")
        if not path.is_dir():
            raise FileNotFoundError(f"expected a folder of pictures, got {path}: there is no such folder")
        classes = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
        pixels, labels = [], []
        for label, folder in enumerate(classes or [path]):
            files = sorted(file for file in folder.glob("[!.]*") if file.suffix.lower() in PICTURES)
            if not files:
                hint = "lay pictures into one sub-folder for each class, or all into one folder without sub-folders"
                raise ValueError(f"expected PNG, JPEG or other pictures in {folder}, got none: {hint}")
            pixels += [fit_square(open_grey(file, 4 * image_size), image_size) for file in files]
            labels += [label] * len(files)
        digits = cls.from_arrays(np.stack(pixels), labels if classes else None, [folder.name for folder in classes])
        return replace(digits, source="folder")

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> "Digits":
        """Digits from a torch data set of ``(image, label)`` pairs, or of images: PIL, ``(H, W)``, ``(C, H, W)``.

        The classes are named by ``dataset.classes``, where it has them.

        Raises:
            TypeError, ValueError: as in :meth:`from_arrays`, and pictures of several sizes.
        """
        items = [dataset[index] for index in range(len(dataset))] if hasattr(dataset, "__len__") else list(dataset)
        pairs = [tuple(item) if isinstance(item, tuple | list) else (item,) for item in items]
        if not pairs or any(len(pair) != len(pairs[0]) or len(pair) not in (1, 2) for pair in pairs):
            raise ValueError(f"expected (image, label) pairs, or images, got {len(pairs)} items of another kind")
        images = [grey_levels(image) if isinstance(image, Image.Image) else np.asarray(image) for image, *_ in pairs]
        if len(shapes := {image.shape for image in images}) > 1:
            hint = "give the data set a transform, e.g. torchvision.transforms.v2.Resize((28, 28))"
            raise ValueError(f"expected pictures of one size, got {sorted(shapes)[:5]}: {hint}")
        labels = np.array([label for _, label in pairs]) if len(pairs[0]) == 2 else None
        names = getattr(dataset, "classes", None) if labels is not None else None
        return replace(cls.from_arrays(np.stack(images), labels, names), source="dataset")


def check_digits(digits: Digits, image_size: int | None = None) -> Digits:
    """Return ``digits`` if they are :class:`Digits`, of ``image_size`` pixels high and wide if that is given."""
    if not isinstance(digits, Digits):
        hint = "use load_mnist, load_digits or Digits.from_arrays"
        raise TypeError(f"expected Digits, got {type(digits).__name__}: {hint}")
    size = tuple(digits.pixels.shape[2:])
    if image_size is not None and size != (image_size, image_size):
        hint = f"load them with load_digits(path, {image_size}), or make the model with image_size={size[0]}"
        raise ValueError(f"expected digits of {image_size} x {image_size} pixels, got {size[0]} x {size[1]}: {hint}")
    return digits


def load_digits(path: str | Path, image_size: int = 28) -> tuple[Digits, Digits, Digits]:
    """Anyone's own pictures as ``(train, validation, test)``, ``image_size`` pixels high and wide.

    A test or validation part of its own is kept; what is missing is held out at random, one in twelve.

    Args:
        path: one of

            - a folder with one sub-folder of pictures for each class (:meth:`Digits.from_folder`), or with such folders
              for each part, named train, validation and test
            - a folder with the four IDX files of a set such as Fashion-MNIST (``train-images-idx3-ubyte`` etc., plain
              or ``.gz``), or with these in ``raw`` or ``NAME/raw``
            - an ``.npz`` file with ``images`` and ``labels``, or ``x_train``, ``y_train``, ``x_test``, ``y_test``, or
              the same as ``train_images``, ``train_labels``, ``val_images``, ...; labels may be missing
        image_size: other sizes are scaled to it, as in :meth:`Digits.from_folder`.

    Raises:
        FileNotFoundError: there is nothing at this path.
        ValueError: none of these, or fewer than 12 pictures.
    """
    path = Path(path).expanduser()
    check_count(image_size, "image_size")
    if not path.exists():
        raise FileNotFoundError(f"expected a folder or an .npz file, got {path}: there is no such path")
    if path.is_file():
        return _complete(_from_arrays(_npz_parts(path), image_size))
    for folder in (path, path / "raw", *sorted(path.glob("*/raw"))):
        if files := _idx_files(folder):
            pairs = {part: _pair(files, part) for part in ("train", "test")}
            parts = {part: [_parse_idx(file, _content(file)) for file in pair] for part, pair in pairs.items()}
            return _complete(_from_arrays(parts, image_size))
    own = {part: path / part for part in SPLITS if (path / part).is_dir()}
    own = own if "train" in own and len(own) > 1 else {"train": path}  # else "train" is the name of a class
    return _complete({part: Digits.from_folder(folder, image_size) for part, folder in own.items()})


def load_mnist(split: str) -> Digits:
    """MNIST's "train" (54,000), "validation" (5,000) or "test" (10,000) digits, or the embedded sample's.

    Training and validation digits are MNIST's 60,000 training digits without the embedded sample's 1,000 test digits,
    in an order of their own. The files, plain or ``.gz``, are looked for in the folder named by ``DIFFAE_DATA_DIR``
    (else ``~/.cache/diffae_core``) and in its ``MNIST/raw``, and are downloaded to there when missing. Where that
    fails, or brings nothing for 10 seconds, a warning is logged and the sample is given.

    Raises:
        ValueError: an unknown split, a damaged file, or the files of another set (with a hint).
    """
    check_choice(split, "split", SPLITS)
    if not (files := _mnist_files()):
        return load_sample(split)
    images, labels = (_checked_idx(files, path) for path in _pair(files, split))
    digits = Digits(images[:, None], labels.long(), source="mnist")
    if split == "test":
        return digits
    excluded = torch.zeros(len(digits), dtype=torch.bool)
    excluded[_sample(is_test=True)[1]] = True
    return _hold_out(digits, round(len(digits) * HELD_OUT_SHARE), excluded=excluded)[split == "validation"]


def load_sample(split: str) -> Digits:
    """The embedded sample, 5,000 of MNIST's training digits: 3,667 to train, 333 to validate, 100 a class to test.

    Its test digits are in no split of the whole set.
    """
    digits, _ = _sample(is_test=check_choice(split, "split", SPLITS) == "test")
    if split == "test":
        return digits
    return _hold_out(digits, round(len(digits) * HELD_OUT_SHARE))[split == "validation"]


def _sample(is_test: bool) -> tuple[Digits, Tensor]:
    """The sample's training or test digits, and their indices in MNIST's own training file."""
    with np.load(SAMPLE_FILE, allow_pickle=False) as sample:
        chosen = sample["is_test"] == is_test
        pixels, labels, index = (torch.from_numpy(sample[key][chosen]) for key in ("images", "labels", "mnist_index"))
    return Digits(pixels[:, None], labels.long(), source="sample"), index.long()


def _hold_out(digits: Digits, count: int, seed: int = 0, excluded: Tensor | None = None) -> tuple[Digits, Digits]:
    """The rest and ``count`` digits at random, with the ``excluded`` (a mask) in neither."""
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed))
    order = order if excluded is None else order[~excluded[order]]
    return digits.subset(order[count:]), digits.subset(order[:count])


def _complete(parts: dict[str, Digits], seed: int = 0) -> tuple[Digits, Digits, Digits]:
    """``(train, validation, test)``: what is not among ``parts`` is held out of "train", one in twelve."""
    train = parts["train"]
    if any(digits.names != train.names for digits in parts.values()):
        got = {part: digits.names for part, digits in parts.items()}
        raise ValueError(f"expected the same classes in each part, got {got}: give all parts the same, or only train")
    if len(train) < 12:
        raise ValueError(f"expected 12 or more digits to split, got {len(train)}: add some, or divide with subset")
    count = round(len(train) * HELD_OUT_SHARE)
    for part in ("test", "validation"):
        if part not in parts:
            train, parts[part] = _hold_out(train, count, seed)
    return train, parts["validation"], parts["test"]


def _from_arrays(parts: dict[str, tuple], image_size: int) -> dict[str, Digits]:
    """The digits of each part from its images and labels, in one size and with the same classes in all."""
    digits = {part: Digits.from_arrays(images, labels) for part, (images, labels) in parts.items()}
    names = max((own.names for own in digits.values()), key=len)  # a part may lack the last class
    for part, own in digits.items():
        pixels = own.pixels
        if tuple(pixels.shape[2:]) != (image_size, image_size):
            pixels = np.stack([fit_square(grey / 255, image_size) for grey in pixels[:, 0].numpy()])
            pixels = torch.from_numpy(pixels)[:, None]
        digits[part] = replace(own, pixels=pixels, names=names if own.names else ())
    return digits


def _npz_parts(path: Path) -> dict[str, tuple]:
    """The images and labels of each part in an .npz file; :func:`load_digits` has the keys."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"expected a folder or an .npz file of arrays of numbers, got {path}: {error}") from None
    keys = {"train": [("images", "labels"), ("x_train", "y_train"), ("train_images", "train_labels")]}
    keys |= {"validation": [("x_val", "y_val"), ("val_images", "val_labels")]}
    keys |= {"test": [("x_test", "y_test"), ("test_images", "test_labels")]}
    parts = {part: (arrays[x], arrays.get(y)) for part, pairs in keys.items() for x, y in pairs if x in arrays}
    if "train" not in parts:
        wanted = "images and labels, or x_train, y_train, x_test and y_test"
        raise ValueError(f"expected arrays named {wanted}, got {sorted(arrays)} in {path}: rename them")
    return parts


def _as_pixels(images) -> Tensor:
    """What :meth:`Digits.from_arrays` takes for images as uint8 ``(N, 1, H, W)``."""
    try:
        pixels = images.detach().cpu() if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
    except (TypeError, ValueError):
        raise TypeError(f"expected images as an array or a tensor, got {type(images).__name__} of no numbers") from None
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    if pixels.ndim == 4 and pixels.shape[1] not in (1, 3) and pixels.shape[3] in (1, 3):
        pixels = pixels.movedim(3, 1)
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or 0 in pixels.shape[2:]:
        hint = "give each picture its height and width, e.g. with images.reshape(-1, 28, 28)"
        raise ValueError(f"expected images (N, H, W), (N, 1, H, W) or (N, H, W, 1), got {tuple(images.shape)}: {hint}")
    if pixels.dtype != torch.uint8:
        wanted, hint = "expected uint8 (0 to 255) or floating-point (0 to 1) images, got", "divide by the largest value"
        if not pixels.is_floating_point():
            raise ValueError(f"{wanted} {pixels.dtype}: convert with .astype('uint8'), or {hint}")
        if pixels.numel() and not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN is neither
            raise ValueError(f"{wanted} values from {float(pixels.min()):g} to {float(pixels.max()):g}: {hint}")
        pixels = pixels.float() * 255
    if pixels.shape[1] == 3:
        pixels = (pixels * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    return pixels.round().to(torch.uint8).contiguous()


def _as_labels(labels) -> Tensor:
    """What :meth:`Digits.from_arrays` takes for labels as int64 ``(N,)``."""
    wanted = "expected labels as whole numbers from 0, (N,), got"
    hint = "number the classes with numpy.unique(labels, return_inverse=True)[1]"
    try:
        numbers = labels.detach().cpu() if isinstance(labels, Tensor) else torch.from_numpy(np.array(labels))
    except (TypeError, ValueError):
        raise TypeError(f"{wanted} {np.array(labels).dtype}: {hint}") from None
    if numbers.ndim == 2 and numbers.shape[1] == 1:
        numbers = numbers[:, 0]
    if numbers.ndim != 1:
        raise ValueError(f"{wanted} shape {tuple(numbers.shape)}: of one-hot labels take labels.argmax(1)")
    if len(numbers) and (numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool):
        raise ValueError(f"{wanted} {numbers.dtype}: convert with .astype(int)")
    if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < 10_000:
        raise ValueError(f"{wanted} {int(numbers.min())} to {int(numbers.max())}: {hint}")
    return numbers.long()


def _idx_files(folder: Path) -> dict[str, Path]:
    """The four IDX files in a folder by their official names, plain before ``.gz``; empty unless there are all four."""
    found = {}
    for name in MNIST_MD5:
        for spelling in (name, name.replace("-idx", ".idx"), f"{name}.gz"):  # the second is Kaggle's
            if name not in found and (folder / spelling).is_file():
                found[name] = folder / spelling
    return found if len(found) == len(MNIST_MD5) else {}


def _pair(files: dict[str, Path], split: str) -> tuple[Path, Path]:
    """The files of images and of labels that a split is in."""
    start = "t10k" if split == "test" else "train"
    return files[f"{start}-images-idx3-ubyte"], files[f"{start}-labels-idx1-ubyte"]


def _content(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"expected a .gz file, got {path}: {error}; it is damaged, delete it") from None


def _parse_idx(path: Path, content: bytes) -> Tensor:
    """The uint8 array in an IDX file: two zeros, 8 for bytes, the number of dimensions, their sizes, the bytes."""
    start = 4 + 4 * (content[3] if len(content) > 3 else 0)
    shape = np.frombuffer(content[4:start], ">i4") if len(content) >= start else np.zeros(1)
    if content[:3] != b"\0\0\x08" or len(content) != start + np.prod(shape, dtype=np.int64):
        raise ValueError(f"expected an IDX file of bytes, got {path} ({len(content):,} bytes): it is damaged")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())


def _checked_idx(files: dict[str, Path], path: Path) -> Tensor:
    """The array in one of MNIST's ``files``; an error that tells a damaged file from one of another set."""
    content, md5 = _content(path), {path: name for name, path in files.items()}
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found == MNIST_MD5[md5[path]]:
        return _parse_idx(path, content)
    wanted = f"expected the MNIST file {path} with md5 {MNIST_MD5[md5[path]]}, got {found} ({len(content):,} bytes)"
    if _is_other_set(files):
        hint = "load them with load_digits(folder), or in the script with --data; keep them out of DIFFAE_DATA_DIR"
        raise ValueError(f"{wanted}: these are the files of another set such as Fashion-MNIST; {hint}")
    raise ValueError(f"{wanted}: it is truncated or damaged; delete it and start again, and it is downloaded anew")


def _is_other_set(files: dict[str, Path]) -> bool:
    """Whether all four are sound IDX files, and none of them is MNIST's."""
    try:
        for name, path in files.items():
            content = _content(path)
            _parse_idx(path, content)
            if hashlib.md5(content, usedforsecurity=False).hexdigest() == MNIST_MD5[name]:
                return False
    except (ValueError, OSError):
        return False
    return True


def _mnist_files() -> dict[str, Path]:
    """MNIST's four files, downloaded if needed; empty where they can't be had, with a warning the first time."""
    name = os.environ.get("DIFFAE_DATA_DIR") or "~/.cache/diffae_core"
    try:
        folder = Path(name).expanduser().resolve()
        files = _idx_files(folder / "MNIST" / "raw") or _idx_files(folder)
        if not files and name not in _given_up:
            _download(folder)
            files = _idx_files(folder / "MNIST" / "raw")
        for path in files.values():
            path.open("rb").close()  # may another user's files be read?
        return files
    except (OSError, RuntimeError) as error:
        if name not in _given_up:
            text = "MNIST could not be read or downloaded (%s): using the embedded sample of 5,000 digits instead"
            log.warning(text, error)
        _given_up.add(name)
    return {}


def _download(folder: Path) -> None:
    """Download MNIST to ``folder``; an OSError or RuntimeError where it fails or brings nothing for 10 seconds.

    torchvision downloads without a timeout, so it works in a thread that can be left behind, in a temporary folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    from torchvision.datasets import MNIST  # when first used: it takes as long to import as torch itself

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
