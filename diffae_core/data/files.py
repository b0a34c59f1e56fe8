"""Your own pictures from a folder or a file: folders of pictures, .npz files, the IDX files of other sets."""

import logging
import lzma
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from diffae_core.base.validation import check_count
from diffae_core.data import mnist
from diffae_core.data.digits import Digits, completed
from diffae_core.data.folders import (
    FILLERS,
    PARTS,
    class_order,
    innermost,
    part_folders,
    part_of,
    sub_folders,
    words_in,
)
from diffae_core.data.pictures import fit_square

log = logging.getLogger("diffae_core")

DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)  # what else reading an archive may raise
IMAGES = {"images", "image", "x"}  # the names that arrays may have
LABELS = {"labels", "label", "y", "target", "targets"}


def load_digits(path: str | Path, image_size: int = 28) -> tuple[Digits, Digits, Digits]:
    """Your own pictures as ``(train, validation, test)``, ``image_size`` pixels high and wide.

    A test or validation part that is there is kept; a missing part is held out at random, one picture in twelve. The
    training part is in random order. Classes are those that have an example.

    Args:
        path: one of

            - a folder of class folders, or of pictures (:meth:`Digits.from_folder`); or of such folders called
              ``train``, ``validation`` (or ``val``, ``dev``) and ``test``, or ``seg_train`` and ``seg_test``
            - a folder with the four IDX files of Fashion-MNIST and the like (``train-images-idx3-ubyte`` etc., plain
              or ``.gz``, with a prefix such as ``emnist-letters-`` or none), or with these in ``raw`` or ``NAME/raw``
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
    elif files := _idx_files(path):
        parts = _fitted({part: mnist.read(files, part) for part in ("train", "test")}, image_size)
    else:
        parts = _folder_parts(innermost(path), image_size)
    return completed(_with_same_classes(parts))


def _folder_parts(path: Path, image_size: int) -> dict[str, Digits]:
    folders = part_folders(path) or {"train": path}
    if len(folders) > 1 and (others := set(sub_folders(path)) - set(folders.values())):
        left_out = ", ".join(sorted(folder.name for folder in others))
        log.warning("Left out the folders %s beside %s", left_out, " and ".join(map(str, folders.values())))
    return {part: Digits.from_folder(folder, image_size) for part, folder in folders.items()}


def _idx_files(path: Path) -> dict[str, Path]:
    """The four IDX files of the one set that lies in a folder, in its ``raw`` or in a folder in it; or none."""
    places = [path]
    for folder in sub_folders(path):
        places += [folder, folder / "raw"]
    sets = {place / f"{prefix}*": files for place in places for prefix, files in mnist.find_sets(place).items()}
    if len(sets) > 1:
        got = ", ".join(map(str, [*sets][:4]))
        raise ValueError(f"expected the IDX files of one set in {path}, got {got}: give each set a folder of its own")
    return next(iter(sets.values()), {})


def _npz_parts(path: Path) -> dict[str, list]:
    """The images and labels of each part in an .npz file; :func:`load_digits` lists the keys."""
    arrays: dict[tuple[str, int], tuple[str, np.ndarray]] = {}
    left_out = []
    try:
        with zipfile.ZipFile(path), path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for key in archive.files:
                if (place := _place(key)) is None:
                    left_out.append(key)
                elif place in arrays:
                    raise ValueError(f"both {arrays[place][0]} and {key} name the same array of the {place[0]} part")
                else:
                    arrays[place] = key, archive[key]
            keys = sorted(archive.files)
    except (ValueError, TypeError, RuntimeError, OSError, EOFError, MemoryError, *DAMAGE) as error:
        wanted, hint = "a folder or an .npz file of arrays", "write it with numpy.savez(path, images=..., labels=...)"
        raise ValueError(f"expected {wanted}, got {path}: {error}; {hint}") from None
    parts: dict[str, list] = {part: [None, None] for part, _ in arrays}
    for (part, kind), (_, array) in arrays.items():
        parts[part][kind] = array
    if empty := [part for part, (images, _) in parts.items() if images is not None and not len(images)]:
        raise ValueError(f"expected pictures in each part, got none in {' and '.join(empty)} of {path}: leave it out")
    if any(images is None for images, _ in parts.values()) or "train" not in parts:
        wanted = "images and labels, or x_train, y_train, x_test and y_test"
        raise ValueError(f"expected arrays named {wanted}, got {', '.join(keys[:8])} in {path}: rename them")
    if left_out:
        log.warning("Left out %s in %s: their names are not those of images or labels", ", ".join(left_out), path)
    return parts


def _place(key: str) -> tuple[str, int] | None:
    """The part that an array belongs to, and 0 for images or 1 for labels; None where its name does not say."""
    words = set(words_in(key))
    spellings = set().union(*PARTS.values())
    part = part_of([*words]) if words & spellings else "train"
    for kind, names in enumerate((IMAGES, LABELS)):
        if part and words & names and words <= names | spellings | (FILLERS - IMAGES):
            return part, kind
    return None


def _fitted(parts: dict[str, Sequence], image_size: int) -> dict[str, Digits]:
    """The digits of each part from its images and labels, in one size."""
    return {part: _resized(Digits.from_arrays(images, labels), image_size) for part, (images, labels) in parts.items()}


def _resized(digits: Digits, image_size: int) -> Digits:
    if tuple(digits.pixels.shape[2:]) == (image_size, image_size) or not len(digits):
        return digits
    pixels = [fit_square(grey / 255, image_size) for grey in digits.pixels[:, 0].numpy()]
    return replace(digits, pixels=torch.from_numpy(np.stack(pixels))[:, None])


def _with_same_classes(parts: dict[str, Digits]) -> dict[str, Digits]:
    """The parts with the same classes in each: all classes that have an example in any part."""
    filled = [digits for digits in parts.values() if len(digits)]
    if len({digits.num_classes > 0 for digits in filled}) > 1:
        got = {part: digits.names for part, digits in parts.items()}
        raise ValueError(f"expected labels for each part or for none, got {got}: label all, or give only train")
    names: set[str] = set()
    for digits in filled:
        names |= {digits.names[label] for label in digits.labels.unique().tolist() if digits.names}
    ordered = sorted(names, key=class_order)
    return {part: _renumbered(digits, ordered) for part, digits in parts.items()}


def _renumbered(digits: Digits, names: list[str]) -> Digits:
    """The digits with their classes numbered as in ``names``."""
    if not names:
        return digits
    numbers = [names.index(name) if name in names else -1 for name in digits.names]
    numbers = torch.tensor(numbers, dtype=torch.int64, device="cpu")
    return replace(digits, labels=numbers[digits.labels], names=tuple(names))
