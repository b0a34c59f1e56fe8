"""Digits: MNIST, the embedded sample of 5,000 where there is no network, or anyone's own arrays, folders and files."""

import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from diffae_core.base.devices import seeded
from diffae_core.base.validation import check_choice, check_count
from diffae_core.data import mnist
from diffae_core.data.pictures import as_images, fit_square, open_grey, to_tensor, to_unit

SPLITS = ("train", "validation", "test")
SAMPLE_FILE = Path(__file__).parent.parent / "samples" / "mnist_5k.npz"
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
HELD_OUT_SHARE = 1 / 12  # of MNIST's 60,000 training digits: 5,000 for validation
# How folders and arrays of one's own may be called.
PARTS = dict.fromkeys(("train", "training"), "train") | dict.fromkeys(("test", "testing"), "test")
PARTS |= dict.fromkeys(("val", "valid", "validation"), "validation")
IMAGES, LABELS = {"images", "image", "x"}, {"labels", "label", "y", "target", "targets"}


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
    def from_arrays(cls, images, labels=None, names: Iterable[str] | dict[int, str] | None = None) -> "Digits":
        """Digits from arrays or tensors.

        Args:
            images: whole numbers (0 to 255), floating-point numbers (0 to 1) or bool, ``(N, H, W)``, ``(N, 1, H, W)``
                or ``(N, H, W, 1)``; with three channels it is colour, which becomes luminance, 0.299 R + 0.587 G +
                0.114 B. Or a list of arrays, tensors or PIL images.
            labels: whole numbers from 0, or names, ``(N,)``; None for pictures without labels.
            names: the classes' names in the order of their numbers, or a dict from numbers to names; by default the
                labels themselves.

        Raises:
            TypeError: not arrays of numbers.
            ValueError: another shape, dtype or range, or another number of labels.
        """
        pixels = _as_pixels(images)
        names = [names[label] for label in sorted(names)] if isinstance(names, dict) else names
        if labels is None:
            return cls(pixels, torch.full((len(pixels),), -1), tuple(names or ()))
        labels, found = _as_labels(labels, None if names is None else list(map(str, names)))
        return cls(pixels, labels, tuple(found))

    @classmethod
    def from_folder(cls, path: str | Path, image_size: int = 28) -> "Digits":
        """Digits from picture files, one sub-folder for each class as in torchvision's ``ImageFolder``.

        A folder of pictures without sub-folders gives digits without labels; a lone folder of folders is opened.
        Pictures become grey; they are scaled to ``image_size`` with their proportions kept, and a picture that is not
        square is centred on the colour of its border. Ink stays dark or light, as it is; hidden files, and files that
        are no pictures by name, are left out.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: a class without pictures, or a damaged picture.
        """
        path = Path(path).expanduser()
        check_count(image_size, "image_size")
        if not path.is_dir():
            raise FileNotFoundError(f"expected a folder of pictures, got {path}: there is no such folder")
        while len(classes := _folders(path)) == 1 and _folders(classes[0]) and not _pictures(classes[0], "*"):
            path = classes[0]
        pixels, labels = [], []
        for label, folder in enumerate(classes or [path]):
            if not (files := _pictures(folder)):
                hint = "lay pictures into one sub-folder for each class, or all into one folder without sub-folders"
                raise ValueError(f"expected PNG, JPEG or other pictures in {folder}, got none: {hint}")
            pixels += [fit_square(open_grey(file, 4 * image_size), image_size) for file in files]
            labels += [label] * len(files)
        digits = cls.from_arrays(np.stack(pixels), labels if classes else None, [folder.name for folder in classes])
        return replace(digits, source="folder")

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> "Digits":
        """Digits from a torch data set of ``(image, label)`` pairs, or of images: PIL, ``(H, W)``, ``(C, H, W)``.

        A dict such as ``{"image": ..., "label": ...}`` counts as a pair of its values, in this order.

        The classes are named by ``dataset.classes``, of a ``Subset`` by those of the whole, where it has them.

        Raises:
            TypeError, ValueError: as in :meth:`from_arrays`, and pictures of several sizes.
        """
        indexed = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
        if isinstance(dataset, DataLoader) or not (indexed or hasattr(dataset, "__iter__")):
            raise TypeError(f"expected a torch data set, got {type(dataset).__name__}: of a loader give its .dataset")
        items = [dataset[index] for index in range(len(dataset))] if indexed else list(dataset)
        items = [tuple(item.values()) if isinstance(item, dict) else item for item in items]
        pairs = [tuple(item) if isinstance(item, tuple | list) else (item,) for item in items]
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

    A test or validation part of its own is kept; what is missing is held out at random, one in twelve. The training
    part is in random order. Classes are those that have an example.

    Args:
        path: one of

            - a folder of class folders, or of pictures (:meth:`Digits.from_folder`); or of such folders called
              ``train``, ``validation`` (or ``val``) and ``test``
            - a folder with the four IDX files of Fashion-MNIST and its kin (``train-images-idx3-ubyte`` etc., plain
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
        parts = _fitted(_npz_parts(path), image_size)
    elif files := next(filter(None, map(mnist.find, (path, path / "raw", *sorted(path.glob("*/raw"))))), {}):
        parts = _fitted({part: mnist.read(files, part) for part in ("train", "test")}, image_size)
    else:
        own = {PARTS[folder.name.lower()]: folder for folder in _folders(path) if folder.name.lower() in PARTS}
        own = own if "train" in own and len(own) > 1 else {"train": path}  # else "train" is the name of a class
        parts = {part: Digits.from_folder(folder, image_size) for part, folder in own.items()}
    return _complete(_same_classes(parts))


def load_mnist(split: str) -> Digits:
    """MNIST's "train" (54,000), "validation" (5,000) or "test" (10,000) digits, or the embedded sample's.

    Training and validation digits are MNIST's 60,000 training digits without the embedded sample's 1,000 test digits,
    in an order of their own. The files, plain or ``.gz``, are looked for in the folder named by ``DIFFAE_DATA_DIR``
    (else ``~/.cache/diffae_core``), in its ``raw`` and its ``MNIST/raw``, and are downloaded to there when missing.
    Where that fails, or brings nothing for 10 seconds, a warning is logged and the sample is given.

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
    excluded = torch.zeros(len(digits), dtype=torch.bool)
    excluded[_sample(is_test=True)[1]] = True
    return _hold_out(digits, excluded=excluded)[split == "validation"]


def load_sample(split: str) -> Digits:
    """The embedded sample, 5,000 of MNIST's training digits: 3,667 to train, 333 to validate, 100 a class to test.

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


def _hold_out(
    digits: Digits, count: int | None = None, seed: int = 0, excluded: Tensor | None = None
) -> tuple[Digits, Digits]:
    """The rest and ``count`` digits at random (one in twelve), with the ``excluded`` (a mask) in neither."""
    count = round(len(digits) * HELD_OUT_SHARE) if count is None else count
    order = torch.randperm(len(digits), generator=seeded(check_count(seed, "seed", at_least=0)))
    order = order if excluded is None else order[~excluded[order]]
    return digits.subset(order[count:]), digits.subset(order[:count])


def _complete(parts: dict[str, Digits], seed: int = 0) -> tuple[Digits, Digits, Digits]:
    """``(train, validation, test)``: what is not among ``parts`` is held out of "train", one in twelve."""
    train = parts["train"]
    if len(train) < 12:
        raise ValueError(f"expected 12 or more digits to split, got {len(train)}: add some, or divide with subset")
    count = round(len(train) * HELD_OUT_SHARE)
    for part in ("test", "validation"):
        if part not in parts:
            train, parts[part] = _hold_out(train, count, seed)
    if train is parts["train"]:  # nothing was held out of it: its order may still be that of the classes
        train, _ = _hold_out(train, 0, seed)
    return train, parts["validation"], parts["test"]


def _same_classes(parts: dict[str, Digits]) -> dict[str, Digits]:
    """The parts with the same classes in each: all that have an example in any."""
    if len({own.num_classes > 0 for own in parts.values() if len(own)}) > 1:
        got = {part: own.names for part, own in parts.items()}
        raise ValueError(f"expected labels for each part or for none, got {got}: label all, or give only train")
    named = {part: [own.names[label] for label in own.labels.tolist() if own.names] for part, own in parts.items()}
    names = sorted(set().union(*named.values()), key=lambda name: (name.isdecimal() and int(name), name))
    number = {name: label for label, name in enumerate(names)}
    labels = {part: torch.tensor([number[name] for name in found]) for part, found in named.items() if names}
    return {part: replace(own, labels=labels.get(part, own.labels), names=tuple(names)) for part, own in parts.items()}


def _fitted(parts: dict[str, Sequence], image_size: int) -> dict[str, Digits]:
    """The digits of each part from its images and labels, in one size."""
    digits = {part: Digits.from_arrays(images, labels) for part, (images, labels) in parts.items()}
    for part, own in digits.items():
        if tuple(own.pixels.shape[2:]) != (image_size, image_size):
            pixels = [fit_square(grey / 255, image_size) for grey in own.pixels[:, 0].numpy()]
            digits[part] = replace(own, pixels=torch.from_numpy(np.stack(pixels))[:, None])
    return digits


def _folders(path: Path) -> list[Path]:
    return sorted(own for own in path.iterdir() if own.is_dir() and not own.name.startswith((".", "__")))


def _pictures(folder: Path, pattern: str = "**/*") -> list[Path]:
    """Picture files in a folder and the folders in it, by their names; hidden ones are left out."""
    files = (file for file in folder.glob(pattern) if file.suffix.lower() in PICTURES)
    return sorted(file for file in files if not any(own.startswith(".") for own in file.relative_to(folder).parts))


def _npz_parts(path: Path) -> dict[str, list]:
    """The images and labels of each part in an .npz file; :func:`load_digits` has the keys."""
    parts: dict[str, list] = {}
    try:
        with zipfile.ZipFile(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for key in arrays.files:
                words = set(key.lower().split("_"))
                part = next((PARTS[word] for word in words if word in PARTS), "train")
                for place, kind in enumerate((IMAGES, LABELS)):
                    if words & kind and words <= kind | PARTS.keys():
                        parts.setdefault(part, [None, None])[place] = arrays[key]
            found = sorted(arrays.files)
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        wanted, hint = "a folder or an .npz file of arrays", "write it with numpy.savez(path, images=..., labels=...)"
        raise ValueError(f"expected {wanted}, got {path}: {error}; {hint}") from None
    if any(images is None for images, _ in parts.values()) or "train" not in parts:
        wanted = "images and labels, or x_train, y_train, x_test and y_test"
        raise ValueError(f"expected arrays named {wanted}, got {found} in {path}: rename them")
    return parts


def _as_pixels(images) -> Tensor:
    """What :meth:`Digits.from_arrays` takes for images as uint8 ``(N, 1, H, W)``."""
    pixels = to_tensor(images, "images as an array or a tensor").detach().cpu()
    shape = tuple(pixels.shape)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    if pixels.ndim == 4 and pixels.shape[1] not in (1, 3) and pixels.shape[3] in (1, 3):
        pixels = pixels.movedim(3, 1)
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or 0 in pixels.shape[2:]:
        hint = "give each picture its height and width, e.g. with images.reshape(-1, 28, 28)"
        if len(shape) == 4:
            hint = "keep one channel, or red, green and blue, e.g. images[..., :3] without transparency"
        raise ValueError(f"expected images (N, H, W), (N, 1, H, W) or (N, H, W, 1), got {shape}: {hint}")
    if pixels.dtype != torch.uint8:
        pixels = to_unit(pixels)
        low, high = map(float, pixels.aminmax()) if pixels.numel() else (0, 0)
        if low < 0 or high > 1:
            hint = "divide them by 255" if low >= 0 and high <= 255 else f"take (images - {low:g}) / {high - low:g}"
            raise ValueError(f"expected floating-point images from 0 to 1, got values from {low:g} to {high:g}: {hint}")
        pixels = pixels * 255
    if pixels.shape[1] == 3:
        pixels = (pixels * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    return pixels.round().to(torch.uint8).contiguous()


def _as_labels(labels, names: list[str] | None) -> tuple[Tensor, list[str]]:
    """What :meth:`Digits.from_arrays` takes for labels as int64 ``(N,)``, and the names of the classes."""
    listed = np.array(() if isinstance(labels, Tensor) else labels, dtype=object)
    if listed.ndim == 1 and len(listed) and all(isinstance(label, str) for label in listed):
        names = sorted(set(listed)) if names is None else names
        if unknown := sorted(set(listed) - set(names)):
            raise ValueError(f"expected labels from {names}, got {unknown[:5]}: name all classes, or none")
        labels = [names.index(label) for label in listed]
    wanted = "expected labels as whole numbers from 0, or as names, (N,), got"
    hint = "number the classes with numpy.unique(labels, return_inverse=True)[1]"
    numbers = to_tensor(labels, "labels as whole numbers from 0, or as names, (N,)").detach().cpu()
    if numbers.ndim == 2 and numbers.shape[1] == 1:
        numbers = numbers[:, 0]
    if numbers.ndim != 1:
        raise ValueError(f"{wanted} shape {tuple(numbers.shape)}: of one-hot labels take labels.argmax(1)")
    if numbers.is_floating_point() and bool((numbers % 1 == 0).all()):
        numbers = numbers.long()
    if numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool:
        raise ValueError(f"{wanted} {numbers.dtype}: {hint}")
    low, top = map(int, numbers.aminmax()) if len(numbers) else (0, -1)
    if low < 0 or top >= 10_000:
        raise ValueError(f"{wanted} {low} to {top}: {hint}")
    return numbers.long(), list(map(str, range(top + 1))) if names is None else names
