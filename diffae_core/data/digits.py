"""Digits: MNIST, the embedded sample of 5,000 for use offline, or your own arrays, folders and files."""

import logging
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from diffae_core.base.devices import seeded
from diffae_core.base.validation import check_choice, check_count
from diffae_core.data import folders, mnist
from diffae_core.data.arrays import as_index, as_labels, as_pixels, as_tuple
from diffae_core.data.pictures import BLACK, fit_square, open_grey, to_tensor, to_unit

SPLITS = ("train", "validation", "test")
log = logging.getLogger("diffae_core")

SAMPLE_FILE = Path(__file__).parent.parent / "samples" / "mnist_5k.npz"
HELD_OUT_SHARE = 1 / 12  # of MNIST's 60,000 training digits: 5,000 for validation


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
        count = len(self.pixels)
        got = " and ".join(f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in tensors)
        if (self.pixels.dtype, self.labels.dtype) != (torch.uint8, torch.int64):
            raise ValueError(f"{wanted} {got}: use Digits.from_arrays(images, labels)")
        if self.pixels.ndim != 4 or self.pixels.shape[1] != 1 or tuple(self.labels.shape) != (count,):
            raise ValueError(f"{wanted} {got}: give one label for each picture; keep one digit as subset([index])")
        low, high = (0, len(self.names) - 1) if self.names else (-1, -1)
        if count and not low <= int(self.labels.min()) <= int(self.labels.max()) <= high:
            got = f"labels from {int(self.labels.min())} to {int(self.labels.max())}, and {len(self.names)} names"
            raise ValueError(f"expected labels from {low} to {high}, one name for each class, got {got}")
        object.__setattr__(self, "names", tuple(map(folders.one_line, self.names)))  # they are written into pictures

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        try:
            index = operator.index(index)
        except TypeError:
            got = f"expected the index of one digit, got {type(index).__name__}"
            raise TypeError(f"{got}: for several take subset(index), e.g. subset(slice(0, 5))") from None
        return self.pixels[index].float() / 255, int(self.labels[index])

    @property
    def num_classes(self) -> int:
        """How many classes there are; 0 without labels."""
        return len(self.names)

    @property
    def images(self) -> Tensor:
        """All images as float32 ``(N, 1, H, W)`` in [0, 1]."""
        return to_unit(self.pixels)

    @property
    def paper(self) -> float:
        """The median brightness of the pictures' borders: 0 in MNIST, about 1 where ink is dark on white paper."""
        some = self.spaced(min(len(self), 1000)).pixels[:, 0] if len(self) else torch.zeros(1, 1, 1)
        border = torch.cat([some[:, 0], some[:, -1], some[:, :, 0], some[:, :, -1]], dim=1)
        return float(border.float().median()) / 255

    def subset(self, index: Tensor | Sequence[int] | slice) -> "Digits":
        """The digits at ``index``: a slice, a boolean mask, or indices."""
        if not isinstance(index, slice):
            index = as_index(index, len(self))
        return replace(self, pixels=self.pixels[index], labels=self.labels[index])

    def spaced(self, count: int) -> "Digits":
        """``count`` digits, evenly spaced over all of them."""
        if check_count(count, "count") > len(self):
            raise ValueError(f"expected count of {len(self)} or less, as many as there are digits, got {count}")
        return self.subset(torch.arange(count, device="cpu") * len(self) // count)

    def split(self, seed: int = 0) -> "tuple[Digits, Digits, Digits]":
        """``(train, validation, test)``: 10/12, 1/12 and 1/12 of the digits, at random, the same for the same seed."""
        return completed({"train": self}, seed)

    @classmethod
    def from_arrays(cls, images, labels=None, names: Iterable[str] | dict[int, str] | None = None) -> "Digits":
        """Digits from arrays or tensors.

        Args:
            images: whole numbers (0 to 255), floating-point numbers (0 to 1) or bool, ``(N, H, W)``, ``(N, 1, H, W)``
                or ``(N, H, W, 1)``; three channels are colour, which becomes luminance, 0.299 R + 0.587 G +
                0.114 B. Or a list of arrays, tensors or PIL images.
            labels: whole numbers from 0, or names, ``(N,)``; None for pictures without labels.
            names: the classes' names in the order of their numbers; by default the labels themselves. Or a dict from
                labels to names, whose classes are numbered from 0 in the order of its keys.

        Raises:
            TypeError: not arrays of numbers.
            ValueError: another shape, dtype or range, or another number of labels.
        """
        pixels = as_pixels(images)
        if labels is None:
            names = names.values() if isinstance(names, dict) else names
            return cls(pixels, torch.full((len(pixels),), -1, device="cpu"), tuple(names or ()))
        names = names if names is None or isinstance(names, dict) else list(map(str, names))
        numbers, class_names = as_labels(labels, names)
        return cls(pixels, numbers, tuple(class_names))

    @classmethod
    def from_folder(cls, path: str | Path, image_size: int = 28) -> "Digits":
        """Digits from picture files, one sub-folder for each class as in torchvision's ``ImageFolder``.

        A folder of pictures without sub-folders gives digits without labels; a lone folder of folders is opened.
        Classes named by numbers are sorted by these. Pictures become grey; they are scaled to ``image_size`` with their
        proportions kept, and a picture that is not square is centred on the colour of its border. Ink stays dark or
        light, as it is. Hidden files are left out; so, with a warning, are files without a picture's extension.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: a class without pictures, a damaged picture, pictures that are all black, or parts of a set.
        """
        path = Path(path).expanduser()
        check_count(image_size, "image_size")
        if not path.is_dir():
            raise FileNotFoundError(f"expected a folder of pictures, got {path}: there is no such folder")
        path = folders.innermost(path)
        if parts := folders.part_folders(path):
            got = " and ".join(folder.name for folder in parts.values())
            raise ValueError(
                f"expected the folders of classes in {path}, got {got}: use load_digits, or give one of them"
            )
        files = folders.pictures_by_class(path)
        pixels = [fit_square(open_grey(file, 4 * image_size), image_size) for group in files.values() for file in group]
        labels = [label for label, group in enumerate(files.values()) for _ in group]
        if (brightest := max(int(grey.max()) for grey in pixels)) <= BLACK:
            got = f"none with a pixel above {brightest} of 255"
            hint = "for masks, and for pictures with few levels of grey, scale the values to 0 to 255"
            raise ValueError(f"expected pictures that are not black in {path}, got {got}: {hint}")
        names = [name for name in files if name]
        digits = cls.from_arrays(np.stack(pixels), labels if names else None, names)
        return replace(digits, source="folder")

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> "Digits":
        """Digits from a torch data set of ``(image, label)`` pairs, or of images: PIL, ``(H, W)``, ``(C, H, W)``.

        A dict such as ``{"image": ..., "label": ...}`` counts as a pair of its values, in this order. The classes are
        named by ``dataset.classes`` if it exists; for a ``Subset``, by the classes of the whole data set.

        Raises:
            TypeError, ValueError: as in :meth:`from_arrays`, and pictures of several sizes.
        """
        indexed = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
        if isinstance(dataset, DataLoader) or not (indexed or hasattr(dataset, "__iter__")):
            raise TypeError(f"expected a torch data set, got {type(dataset).__name__}: for a loader give its .dataset")
        items = [dataset[index] for index in range(len(dataset))] if indexed else list(dataset)
        pairs = [as_tuple(item) for item in items]
        if not pairs or any(len(pair) != len(pairs[0]) or len(pair) not in (1, 2) for pair in pairs):
            raise ValueError(f"expected (image, label) pairs, or images, got {len(pairs)} items of another kind")
        images = [to_tensor(image, "images as arrays, tensors or PIL images") for image, *_ in pairs]
        if len(shapes := {tuple(image.shape) for image in images}) > 1:
            hint = "give the data set a transform, e.g. torchvision.transforms.v2.Resize((28, 28))"
            raise ValueError(f"expected pictures of one size, got {sorted(shapes)[:5]}: {hint}")
        labels = [label for _, label in pairs] if len(pairs[0]) == 2 else None
        while hasattr(dataset, "dataset") and not hasattr(dataset, "classes"):
            dataset = dataset.dataset
        names = getattr(dataset, "classes", getattr(dataset, "names", None)) if labels is not None else None
        return replace(cls.from_arrays(images, labels, names), source="dataset")


def check_digits(digits: Digits, image_size: int | None = None) -> Digits:
    """Return ``digits`` if they are :class:`Digits`, ``image_size`` pixels high and wide if that is given."""
    if not isinstance(digits, Digits):
        hint = "use load_mnist, load_digits or Digits.from_arrays"
        raise TypeError(f"expected Digits, got {type(digits).__name__}: {hint}")
    size = tuple(digits.pixels.shape[2:])
    if image_size is not None and size != (image_size, image_size):
        hint = f"load them with load_digits(path, {image_size})"
        if size[0] == size[1] and size[0] % 4 == 0:
            hint += f", or make the model with image_size={size[0]}"
        raise ValueError(f"expected digits of {image_size} x {image_size} pixels, got {size[0]} x {size[1]}: {hint}")
    return digits


def load_mnist(split: str) -> Digits:
    """MNIST's "train" (54,000), "validation" (5,000) or "test" (10,000) digits, or the embedded sample's.

    Training and validation digits are MNIST's 60,000 training digits without the embedded sample's 1,000 test digits,
    in an order of their own. The files, plain or ``.gz``, are looked for in the folder named by ``DIFFAE_DATA_DIR``
    (else ``~/.cache/diffae_core``), in its ``raw`` and its ``MNIST/raw``, and are downloaded to the latter if
    missing. If the download fails, or stalls for 10 seconds, a warning is logged and the sample is returned.

    Raises:
        ValueError: an unknown split, a damaged file, or the files of another set (with a hint).
    """
    check_choice(split, "split", SPLITS)
    if not (files := mnist.find_or_download()):
        return load_sample(split)
    images, labels = mnist.read(files, split, check=True)
    digits = Digits(images[:, None], labels.long(), source="mnist")
    if split == "test":
        return digits
    excluded = torch.zeros(len(digits), dtype=torch.bool, device="cpu")
    excluded[_sample(is_test=True)[1]] = True
    return _hold_out(digits, excluded=excluded)[split == "validation"]


def load_sample(split: str) -> Digits:
    """The embedded sample, 5,000 of MNIST's training digits: 3,667 to train, 333 to validate, 100 per class to test.

    Its test digits are in no split of the whole set.
    """
    digits, _ = _sample(is_test=check_choice(split, "split", SPLITS) == "test")
    return digits if split == "test" else _hold_out(digits)[split == "validation"]


def _sample(is_test: bool) -> tuple[Digits, Tensor]:
    """The sample's training or test digits, and their indices in MNIST's own training file."""
    with np.load(SAMPLE_FILE, allow_pickle=False) as sample:
        chosen = sample["is_test"] == is_test
        pixels, labels, index = (torch.from_numpy(sample[key][chosen]) for key in ("images", "labels", "mnist_index"))
    return Digits(pixels[:, None], labels.long(), source="sample"), index.long()


def completed(parts: dict[str, Digits], seed: int = 0) -> tuple[Digits, Digits, Digits]:
    """``(train, validation, test)``: a part that is not in ``parts`` is held out of "train", one digit in twelve.

    The training digits are in random order, because those of a folder come class by class.
    """
    train = parts["train"]
    if len(train) < 12:
        raise ValueError(f"expected 12 or more digits to split, got {len(train)}: add some, or divide with subset")
    count = round(len(train) * HELD_OUT_SHARE)
    held_out = {}
    for part in ("test", "validation"):
        if part not in parts:
            train, held_out[part] = _hold_out(train, count, seed)
    if not held_out:
        train = train.subset(_random_order(train, seed))
    if missing := sorted(set(range(train.num_classes)) - set(train.labels.tolist())):
        names = ", ".join(train.names[label] for label in missing[:5])
        log.warning("No training picture is of class %s: no model can learn it", names)
    parts = parts | held_out
    return train, parts["validation"], parts["test"]


def _hold_out(
    digits: Digits, count: int | None = None, seed: int = 0, excluded: Tensor | None = None
) -> tuple[Digits, Digits]:
    """The rest, and ``count`` random digits (by default one in twelve); the ``excluded``, a mask, are in neither."""
    count = round(len(digits) * HELD_OUT_SHARE) if count is None else count
    order = _random_order(digits, seed)
    if excluded is not None:
        order = order[~excluded[order]]
    return digits.subset(order[count:]), digits.subset(order[:count])


def _random_order(digits: Digits, seed: int) -> Tensor:
    return torch.randperm(len(digits), generator=seeded(check_count(seed, "seed", at_least=0)), device="cpu")
