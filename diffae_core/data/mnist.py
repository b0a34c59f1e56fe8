"""The four IDX files of MNIST, or of a set in its format: found, read, checked, downloaded."""

import gzip
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger("diffae_core")

STALL_SECONDS = 10.0  # a download that brings nothing new for this long is given up
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
_given_up: set[str] = set()  # folders to which MNIST could not be downloaded: that is tried once per process


def find(folder: Path) -> dict[str, Path]:
    """Those of the four IDX files that are in a folder, by their official names; plain before ``.gz``."""
    spellings = ("{}.gz".format, lambda name: name.replace("-idx", ".idx"), str)  # the second is Kaggle's
    return {name: folder / spell(name) for spell in spellings for name in MD5 if (folder / spell(name)).is_file()}


def read(files: dict[str, Path], split: str, check: bool = False) -> list[Tensor]:
    """Images and labels, uint8, of "train" or "test"; ``check`` that they are MNIST's.

    Raises:
        ValueError: a file is missing or damaged, or it is to be MNIST's and is another set's.
    """
    if missing := sorted(MD5.keys() - files.keys()):
        folder = next(iter(files.values())).parent
        raise ValueError(f"expected four IDX files in {folder}, got {len(files)}: add {', '.join(missing)}")
    start, arrays = "t10k" if split == "test" else "train", []
    for name in (f"{start}-images-idx3-ubyte", f"{start}-labels-idx1-ubyte"):
        content = _content(files[name])
        if check and (found := _md5(content)) != MD5[name]:
            hint = "it is truncated or damaged; delete it and start again, and it is downloaded anew"
            if _is_other_set(files):
                hint = "these are the files of another set such as Fashion-MNIST; load them with load_digits(folder), "
                hint += "or in the script with --data; keep them out of DIFFAE_DATA_DIR"
            raise ValueError(f"expected the MNIST file {files[name]} with md5 {MD5[name]}, got {found}: {hint}")
        arrays.append(_parse(content, files[name]))
    return arrays


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    try:
        return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"expected a .gz file, got {path}: {error}; it is damaged, delete it") from None


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _parse(content: bytes, path: Path) -> Tensor:
    """The uint8 array in an IDX file: two zeros, 8 for bytes, the number of dimensions, their sizes, the bytes."""
    start = 4 + 4 * (content[3] if len(content) > 3 else 0)
    shape = np.frombuffer(content[4:start], ">i4") if len(content) >= start else np.zeros(1)
    if content[:3] != b"\0\0\x08" or len(content) != start + np.prod(shape, dtype=np.int64):
        raise ValueError(f"expected an IDX file of bytes, got {path} ({len(content):,} bytes): it is damaged")
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
        places = folder / "MNIST" / "raw", folder / "raw", folder
        if name not in _given_up and all(len(find(place)) < 4 for place in places):
            _download(folder)
        files = next((files for files in map(find, places) if len(files) == 4), {})
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
    failure: list[Exception] = [TimeoutError(f"no progress for {STALL_SECONDS:g} seconds")]

    def work() -> None:
        try:
            MNIST(temporary, download=True)
            failure.clear()
        except Exception as error:
            failure[:] = [error]

    worker, size = threading.Thread(target=work, daemon=True), -1
    worker.start()
    try:
        while worker.is_alive() and size != (size := _size(temporary)):
            worker.join(STALL_SECONDS)
        if failure:
            raise RuntimeError((str(failure[0]).strip() or repr(failure[0])).splitlines()[-1])
        raw = folder / "MNIST" / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        for name in MD5:
            os.replace(temporary / "MNIST" / "raw" / name, raw / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
