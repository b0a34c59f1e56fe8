"""Files that are either complete or absent: written to a temporary name, renamed, and read without running any code."""

import errno
import os
import re
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

try:
    import fcntl
except ImportError:  # Windows removes no file that a process has open, so it needs no lock
    fcntl = None  # type: ignore[assignment]

MARK = ".diffae-"  # in the name of each temporary file
NOT_ON_DISK = {errno.ENOSPC, errno.EIO, errno.EDQUOT}  # what fsync may find; otherwise it is not supported


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to, and rename it to ``path`` when the block ends well.

    An error in the block (a full disk, Ctrl-C) removes the temporary file and leaves an earlier ``path`` as it was. A
    link is followed; permissions are those of the earlier file, or what the user's umask leaves.

    Raises:
        OSError: the folder can't be made or written to; the message names ``path``.
    """
    path = Path(path).expanduser()
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.stem[:50]}{MARK}{secrets.token_hex(4)}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    except OSError as error:
        hint = "choose a folder that you may write to"
        raise OSError(f"cannot write {path}: {error.strerror or error}; {hint}") from error
    try:
        with os.fdopen(handle, "rb+") as file:
            with suppress(OSError):  # a file system without locks
                _lock(file.fileno())
            yield temporary
            _flush(temporary)
            with suppress(OSError):  # there is no earlier file, or its permissions cannot be copied
                shutil.copymode(target, temporary)
            if fcntl is None:
                file.close()
            os.replace(temporary, target)
    except OSError as error:
        hint = "look for a full disk or a removed folder; an earlier file is unchanged"
        raise OSError(f"could not write {path}: {error}; {hint}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _lock(handle: int) -> None:
    """Lock an open file until it is closed, or its process killed; an OSError where another process has locked it."""
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _flush(path: Path) -> None:
    """Wait until a file is on the disk, where the file system can say so."""
    with path.open("rb+") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno in NOT_ON_DISK:
                raise


def remove_left_overs(folder: Path) -> None:
    """Remove the half-written files of killed processes: those marked as ours that no living process has locked."""
    for path in folder.glob(f".*{MARK}{'[0-9a-f]' * 8}*"):
        with suppress(OSError):
            with path.open("rb+") as file:
                _lock(file.fileno())
            path.unlink()


def save(contents: dict, path: str | Path) -> None:
    """Save a dictionary of tensors, numbers and strings to ``path``, atomically."""
    with atomic_write(path) as temporary:
        try:
            torch.save(_plain(contents), temporary)
        except RuntimeError as error:  # how torch reports a full disk
            raise OSError(str(error)) from error


def _plain(contents):
    """The contents with Python's numbers in place of NumPy's, which :func:`load` would refuse."""
    if isinstance(contents, np.generic | np.ndarray):
        return contents.tolist()
    if type(contents) is dict:
        return {_plain(key): _plain(value) for key, value in contents.items()}
    if type(contents) in (list, tuple):
        return type(contents)(map(_plain, contents))
    return contents


def load(path: str | Path, kind: str) -> dict:
    """Read what :func:`save` wrote, to the CPU, with ``weights_only=True``: nothing in the file can run.

    The file is a zip archive that is not compressed: it must not unpack to more than its size, and its checksums must
    be right.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is no checkpoint, or is one of another ``kind``.
    """
    path = Path(path).expanduser()
    wanted = f"expected a {kind} checkpoint at {path}, got"
    if not path.is_file():
        raise FileNotFoundError(f"{wanted} no file: train one first, or check the path")
    hint = "it is truncated, damaged or no checkpoint; copy it again, or use another file"
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
                raise ValueError("it would unpack to more bytes than it has")
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"the checksum of {damaged} is wrong")
        hint = "save it again with weights, numbers and text alone; nothing else is read, as it could run code"
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # torch raises many kinds here: truncated zip, forbidden pickle, wrong magic number
        raise ValueError(f"{wanted} a file that cannot be read ({_reason(error)}): {hint}") from error
    saved_kind = contents.get("kind") if isinstance(contents, dict) else None
    if saved_kind != kind:
        raise ValueError(f"{wanted} {saved_kind or 'something else'}: give the right file")
    return contents


def _reason(error: Exception) -> str:
    """What an error says, in one line without torch's colours and its advice to read the file without protection."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() or [type(error).__name__]
    forbidden = re.search(r"(?:GLOBAL|Unsupported class) ([\w.]+)", " ".join(lines))
    return f"it holds {forbidden[1]}" if forbidden else lines[0].partition(" This file can still")[0]


def check_state(module: nn.Module, state: object, where: str | Path) -> None:
    """Refuse a state that is not the module's: other names, shapes or types, or a number that is not finite.

    Raises:
        ValueError: it is not; the message names ``where`` it is from, or goes to, and the first difference.
    """
    message = f"expected the finite weights of a {type(module).__name__} for {where}, got"
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{message} a {type(state).__name__} in place of named tensors")
    wanted = _forms(module.state_dict())
    forms = _forms(state)
    for name in [*wanted, *forms]:
        if wanted.get(name) != forms.get(name):
            raise ValueError(f"{message} {name} {forms.get(name, 'missing')}, wanted {wanted.get(name, 'none')}")
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{message} {name} with NaN or infinity")


def _forms(state: dict[str, Tensor]) -> dict[str, tuple]:
    """The shape and type of each tensor."""
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}


def check_sizes(config: dict, weights: dict, file_size: int) -> None:
    """Refuse a model that could fill the memory, before it is built.

    Its weights are larger than the file, or a size in its configuration is above both the longest side of any weight
    and the number of weights. (The image size is exempt: no weight has to be as large as an image.)
    """
    if sum(weight.numel() * weight.element_size() for weight in weights.values()) > file_size:
        raise ValueError("its weights would take more memory than the file has bytes")
    largest = max([len(weights), *(side for weight in weights.values() for side in weight.shape)])
    for name, value in config.items():
        for number in value if isinstance(value, list | tuple) else (value,):
            if isinstance(number, int) and number > largest and name != "image_size":
                raise ValueError(f"{name} of {value} does not go with its weights")
