"""The four IDX files of MNIST, or of a set in its format: found, read, checked, downloaded."""

import gzip
import hashlib
import http.client
import logging
import os
import re
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffae_core.base.checkpoints import atomic_write

log = logging.getLogger("diffae_core")

MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")
STALL_SECONDS = 10.0  # a download that stalls for this long is given up
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
_given_up: set[str] = set()  # folders to which MNIST could not be downloaded: each is tried once per process


# Kaggle writes ".idx", EMNIST has a prefix and calls the second part "test".
FILE_NAME = re.compile(r"(.*?)(train|t10k|test)-(images|labels)[-.](idx[13])-ubyte(\.gz)?")


def find(folder: Path) -> dict[str, Path]:
    """Those of the four IDX files that are in a folder, by their official names; plain files before ``.gz``."""
    return find_sets(folder).get("", {})


def find_sets(folder: Path) -> dict[str, dict[str, Path]]:
    """The IDX files of each set in a folder, by the set's prefix, such as ``emnist-letters-``, and official names."""
    sets: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("*-ubyte*")):
        if (match := FILE_NAME.fullmatch(path.name)) and path.is_file():
            prefix, part, kind, dimensions, _ = match.groups()
            name = f"{'train' if part == 'train' else 't10k'}-{kind}-{dimensions}-ubyte"
            sets.setdefault(prefix, {}).setdefault(name, path)
    return sets


def read(files: dict[str, Path], split: str, check: bool = False) -> list[Tensor]:
    """Images and labels, uint8, of "train" or "test"; ``check`` that they are MNIST's.

    Raises:
        ValueError: a file is missing or damaged, or it is to be MNIST's and is another set's.
    """
    if missing := sorted(MD5.keys() - files.keys()):
        folder = next(iter(files.values())).parent
        raise ValueError(f"expected four IDX files in {folder}, got {len(files)}: add {', '.join(missing)}")
    start = "t10k" if split == "test" else "train"
    arrays = []
    for name in (f"{start}-images-idx3-ubyte", f"{start}-labels-idx1-ubyte"):
        content = _content(files[name])
        if check and (md5 := _md5(content)) != MD5[name]:
            hint = "it is truncated or damaged; move it away and start again, and it is downloaded again"
            if _is_other_set(files):
                hint = "these are the files of another set such as Fashion-MNIST; load them with load_digits(folder), "
                hint += "or in the script with --data; keep them out of DIFFAE_DATA_DIR"
            raise ValueError(f"expected the MNIST file {files[name]} with md5 {MD5[name]}, got {md5}: {hint}")
        arrays.append(_parse(content, files[name]))
    return arrays


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    try:
        return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"expected a .gz file, got {path}: {error}; it is damaged, copy it again") from None


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _parse(content: bytes, path: Path) -> Tensor:
    """The uint8 array in an IDX file: two zeros, 8 for bytes, the number of dimensions, their sizes, the bytes."""
    start = 4 + 4 * (content[3] if len(content) > 3 else 0)
    shape = np.frombuffer(content[4:start], ">i4") if len(content) >= start else np.zeros(1)
    if content[:3] != b"\0\0\x08" or (shape < 0).any() or len(content) != start + np.prod(shape, dtype=np.int64):
        raise ValueError(
            f"expected an IDX file of bytes, got {path} ({len(content):,} bytes): it is damaged, copy it again"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())


def _is_other_set(files: dict[str, Path]) -> bool:
    """Whether all four are sound IDX files, and none of them is MNIST's."""
    try:
        for name, path in files.items():
            _parse(content := _content(path), path)
            if _md5(content) == MD5[name]:
                return False
    except (ValueError, OSError):
        return False
    return True


def find_or_download() -> dict[str, Path]:
    """MNIST's four files, downloaded if needed; empty where they can't be had, with a warning the first time."""
    name = os.environ.get("DIFFAE_DATA_DIR") or "~/.cache/diffae_core"
    try:
        folder = Path(name).expanduser().resolve()
        files = _find_whole(folder)
        if not files and name not in _given_up:
            _download(folder / "MNIST" / "raw")
            files = _find_whole(folder)
        for path in files.values():
            path.open("rb").close()  # an OSError if it may not be read
        return files
    except (OSError, RuntimeError) as error:
        if name not in _given_up:
            text = "MNIST could not be read or downloaded (%s): using the embedded sample of 5,000 digits instead"
            log.warning(text, error)
        _given_up.add(name)
    return {}


def _find_whole(folder: Path) -> dict[str, Path]:
    """The four files from the first place that has all of them; none if no place has."""
    for place in (folder / "MNIST" / "raw", folder / "raw", folder):
        files = find(place)
        if len(files) == len(MD5):
            return files
    return {}


def _download(folder: Path) -> None:
    """Download those of MNIST's files that are not in ``folder``; an OSError where it fails or stalls."""
    folder.mkdir(parents=True, exist_ok=True)  # fails, if it must, before anything is downloaded
    present = find(folder)
    for name, md5 in MD5.items():
        if name not in present:
            content = _fetch(name)
            if _md5(content) != md5:
                raise OSError(f"{name} came damaged")
            with atomic_write(folder / name) as temporary:
                temporary.write_bytes(content)


def _fetch(name: str) -> bytes:
    """The content of one of MNIST's files, from the first mirror that has it."""
    failure: Exception = OSError("there is no mirror")
    for mirror in MIRRORS:
        try:
            with urllib.request.urlopen(f"{mirror}{name}.gz", timeout=STALL_SECONDS) as response:
                return gzip.decompress(response.read())
        except (OSError, EOFError, ValueError, zlib.error, http.client.HTTPException) as error:
            failure = error
    raise OSError(str(failure) or type(failure).__name__)
