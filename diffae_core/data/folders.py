"""Folders of picture files, by the names of what is in them: classes, parts, pictures."""

import logging
import math
import os
import re
from pathlib import Path

log = logging.getLogger("diffae_core")

PICTURES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff")
PICTURES += (".pgm", ".ppm", ".pbm", ".pnm", ".tga", ".jp2")
# What computers put beside people's files: thumbnails, archives' metadata, recycle bins.
SYSTEM_FOLDERS = {"@eadir", "@recycle", "#recycle", "$recycle.bin", "lost+found", "system volume information"}
PARTS = {
    "train": {"train", "training"},
    "validation": {"val", "valid", "validation", "dev", "development", "eval", "evaluation"},
    "test": {"test", "testing"},
}
FILLERS = {"set", "data", "image", "images", "picture", "pictures"}  # words that say nothing in a folder's name


def class_order(name: object) -> tuple:
    """The key to sort classes by: numbers by their value, then other names alphabetically."""
    text = str(name)
    return int(text) if text.isdecimal() else math.inf, text


def one_line(name: str) -> str:
    """A name without line breaks, and with a ? for each byte of a folder's name that cannot be decoded."""
    return " ".join(str(name).encode("utf-8", "replace").decode().split())


def words_in(name: str) -> list[str]:
    """``trainImages``, ``train_images`` and ``train-images`` as ``["train", "images"]``."""
    return [word.lower() for word in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z0-9])", name) if word]


def part_of(words: list[str]) -> str | None:
    """The part that words name; None where they name none, or more than one."""
    parts = [part for part, spellings in PARTS.items() if spellings & set(words)]
    return parts[0] if len(parts) == 1 else None


def sub_folders(path: Path) -> list[Path]:
    """The folders in a folder, links to folders included, in the order of classes."""
    folders = [entry for entry in path.iterdir() if entry.is_dir() and not _is_hidden(entry.name)]
    return sorted(folders, key=lambda folder: class_order(folder.name))


def innermost(path: Path) -> Path:
    """The folder itself or, as long as it holds nothing but a folder of folders, that inner folder."""
    while len(folders := sub_folders(path)) == 1 and sub_folders(folders[0]) and not has_pictures(folders[0]):
        path = folders[0]
    return path


def part_folders(path: Path) -> dict[str, Path]:
    """The folders of a set's parts, such as ``seg_train`` and ``seg_test``; none without "train" and another part.

    Raises:
        ValueError: two folders for one part.
    """
    sets: dict[tuple[str, ...], dict[str, Path]] = {}
    for folder in sub_folders(path):
        words = words_in(folder.name)
        if part := part_of(words):
            others = tuple(word for word in words if word not in PARTS[part] | FILLERS)
            parts = sets.setdefault(others, {})
            if part in parts:
                got = f"{parts[part].name} and {folder.name}"
                raise ValueError(f"expected one folder of {part} pictures in {path}, got {got}: rename one of them")
            parts[part] = folder
    complete = [others for others, parts in sets.items() if "train" in parts and len(parts) > 1]
    return sets[min(complete, key=len)] if complete else {}


def has_pictures(path: Path) -> bool:
    """Whether a folder itself holds pictures."""
    return any(is_picture(entry.name) for entry in path.iterdir())


def is_picture(name: str) -> bool:
    """Whether a file of this name is a picture that can be read."""
    return Path(name).suffix.lower() in PICTURES and not _is_hidden(name)


def pictures_by_class(path: Path) -> dict[str, list[Path]]:
    """The pictures of each class by the name of its folder; a folder without folders is class "".

    Raises:
        ValueError: a class has none, or has a training and a test part.
    """
    classes = sub_folders(path)
    beside = path.iterdir() if classes else ()
    left_out = [entry for entry in beside if not entry.exists() or (entry.is_file() and is_picture(entry.name))]
    files: dict[str, list[Path]] = {}
    for folder in classes or [path]:
        if part_folders(folder):
            hint = f"put the classes into the parts, as in train/{folder.name}, or merge the parts"
            raise ValueError(f"expected pictures of one class in {folder}, got parts of a set: {hint}")
        pictures, others = files_in(folder)
        if not pictures:
            hint = "put the pictures into one sub-folder for each class, or all into one folder without sub-folders"
            raise ValueError(f"expected PNG, JPEG or other pictures in {folder}, got none: {hint}")
        files[folder.name if classes else ""] = pictures
        left_out += others
    if left_out:
        text = (
            "Left out %d file(s), such as %s: only PNG, JPEG, TIFF and the like are read, from the folders of classes"
        )
        log.warning(text, len(left_out), left_out[0])
    return files


def files_in(path: Path) -> tuple[list[Path], list[Path]]:
    """The pictures in a folder, in the folders in it and in those that they link to; and the other files there.

    Raises:
        OSError: one of the folders cannot be read.
    """
    pictures, others, visited = [], [], set()
    for folder, inner, names in os.walk(path, onerror=_fail, followlinks=True):
        is_new = os.path.realpath(folder) not in visited  # a link may lead back
        visited.add(os.path.realpath(folder))
        inner[:] = [name for name in inner if is_new and not _is_hidden(name)]
        for name in names:
            path = Path(folder, name)
            if is_new and not _is_hidden(name):
                is_file = path.is_file() or path.is_symlink()  # a dead link is named when it is read
                (pictures if is_picture(name) and is_file else others).append(path)
    return sorted(pictures), sorted(others)


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__")) or name.lower() in SYSTEM_FOLDERS


def _fail(error: OSError) -> None:
    raise error
