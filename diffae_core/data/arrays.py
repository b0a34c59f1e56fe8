"""Arrays, tensors and lists converted to what :class:`Digits` keeps: pixels as bytes, labels as whole numbers."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diffae_core.base.validation import holds_whole_numbers
from diffae_core.data.folders import class_order
from diffae_core.data.pictures import as_images, check_levels, to_tensor, to_unit

LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue


def as_pixels(images) -> Tensor:
    """The images that :meth:`Digits.from_arrays` takes, as uint8 ``(N, 1, H, W)``."""
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
    check_levels(pixels, tolerance=1e-4)  # rounding errors are accepted
    if pixels.dtype != torch.uint8:
        pixels = to_unit(pixels) * 255
    if pixels.shape[1] == 3:
        pixels = (pixels * torch.tensor(LUMINANCE, device="cpu").view(3, 1, 1)).sum(1, keepdim=True)
    return pixels.round().clamp(0, 255).to(torch.uint8).contiguous()


def as_labels(labels, names: Sequence | dict | None = None) -> tuple[Tensor, list[str]]:
    """The labels that :meth:`Digits.from_arrays` takes, as int64 ``(N,)``, and the names of the classes."""
    if isinstance(names, dict):
        return _labels_by_key(labels, names)
    if _are_names(labels):
        numbers = _numbers_of_names(labels, sorted(set(labels), key=class_order) if names is None else names)
        names = sorted(set(labels), key=class_order) if names is None else names
        return numbers, list(map(str, names))
    numbers = _whole_numbers(labels)
    if names is None:
        names = range(int(numbers.max()) + 1 if len(numbers) else 0)
    return numbers, list(map(str, names))


def as_batch(items: list) -> tuple[Tensor, Tensor]:
    """Pairs of a picture of any kind and its label as images float32 ``(B, 1, H, W)`` and labels int64 ``(B,)``.

    With this ``collate_fn`` a DataLoader reads data sets such as torchvision's, even without a transform.

    Raises:
        TypeError, ValueError: other items, labels that are no whole numbers, or pictures that are refused by
            :func:`as_images`.
    """
    wanted = "pairs of an image and a whole number, its label"
    pairs = [as_tuple(item) for item in items]
    if any(len(pair) != 2 for pair in pairs):
        raise TypeError(f"expected {wanted}, got {type(items[0]).__name__}: see Digits.from_dataset")
    labels = to_tensor([label for _, label in pairs], wanted)
    if not holds_whole_numbers(labels) or labels.numel() != len(pairs):
        raise TypeError(f"expected {wanted}, got labels {labels.dtype} {tuple(labels.shape)}: see Digits.from_dataset")
    return as_images([image for image, _ in pairs]), labels.long().flatten()


def as_tuple(item) -> tuple:
    """An item of a data set, which may be a dictionary or a lone picture, as a tuple."""
    if isinstance(item, dict):
        return tuple(item.values())
    return tuple(item) if isinstance(item, tuple | list) else (item,)


def as_index(index, count: int) -> Tensor:
    """Indices of ``count`` digits, or a mask, as a tensor ``(M,)``.

    Raises:
        TypeError: neither.
        IndexError: an index that no digit has, or a mask of another length.
    """
    wanted = f"expected the indices of some of {count} digits, a slice or a mask, got"
    try:
        indices = index.cpu() if isinstance(index, Tensor) else torch.from_numpy(np.array(list(index)))
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{wanted} {type(index).__name__}: for one digit give a list, e.g. [3]") from None
    if not indices.numel():
        return torch.zeros(0, dtype=torch.int64, device="cpu")
    if indices.ndim != 1 or indices.is_floating_point() or indices.is_complex():
        raise TypeError(f"{wanted} {indices.dtype} {tuple(indices.shape)}: give a list of whole numbers")
    if indices.dtype == torch.bool:
        if len(indices) != count:
            raise IndexError(f"{wanted} a mask of {len(indices)}: give one boolean for each digit")
        return indices
    low, high = map(int, indices.aminmax())
    if low < -count or high >= count:
        raise IndexError(f"{wanted} {low if low < -count else high}: the last one is {count - 1}")
    return indices.long()


def _are_names(labels) -> bool:
    listed = np.array(() if isinstance(labels, Tensor) else labels, dtype=object)
    return listed.ndim == 1 and len(listed) > 0 and all(isinstance(label, str) for label in listed)


def _numbers_of_names(labels, names: Sequence) -> Tensor:
    number = {name: index for index, name in enumerate(map(str, names))}
    if unknown := sorted(set(labels) - number.keys()):
        raise ValueError(f"expected labels from {list(names)}, got {unknown[:5]}: name all classes, or none")
    return torch.tensor([number[label] for label in labels], dtype=torch.int64, device="cpu")


def _labels_by_key(labels, names: dict) -> tuple[Tensor, list[str]]:
    """Labels that are keys of ``names``, as indices into the sorted keys; and the names in this order."""
    keys = sorted(names, key=class_order)
    if not _are_names(labels):
        labels = list(map(str, _whole_numbers(labels).tolist()))
    return _numbers_of_names(labels, keys), [str(names[key]) for key in keys]


def _whole_numbers(labels) -> Tensor:
    wanted = "expected labels as whole numbers from 0, or as names, (N,), got"
    hint = "number the classes with numpy.unique(labels, return_inverse=True)[1]"
    numbers = to_tensor(labels, "labels as whole numbers from 0, or as names, (N,)").detach().cpu()
    if numbers.ndim == 2 and numbers.shape[1] == 1:
        numbers = numbers[:, 0]
    if numbers.ndim != 1:
        hint = "give one class for each picture, not several findings or scores"
        if numbers.ndim == 2 and bool(((numbers == 0) | (numbers == 1)).all() and (numbers.sum(1) == 1).all()):
            hint = "for one-hot labels take labels.argmax(1)"
        raise ValueError(f"{wanted} shape {tuple(numbers.shape)}: {hint}")
    if numbers.is_floating_point() and bool((numbers % 1 == 0).all()):
        numbers = numbers.long()
    if not holds_whole_numbers(numbers):
        raise ValueError(f"{wanted} {numbers.dtype}: {hint}")
    low, high = map(int, numbers.aminmax()) if len(numbers) else (0, 0)
    if low < 0 or high >= 10_000:
        raise ValueError(f"{wanted} {low} to {high}: {hint}")
    return numbers.long()
