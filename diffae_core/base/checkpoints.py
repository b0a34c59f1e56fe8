"""Files that are complete or not there: written to a temporary name, renamed, and read without running any code."""

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to, and rename it to ``path`` when the block ends well.

    An error in the block (a full disk, Ctrl-C) removes the temporary file and leaves an earlier ``path`` as it was.

    Raises:
        OSError: the folder can't be made or written to; the message names ``path``.
    """
    path = Path(path).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}; choose a folder that you may write to") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        hint = "look for a full disk or a removed folder; an earlier file is unchanged"
        raise OSError(f"could not write {path}: {error}; {hint}") from error
    finally:
        temporary.unlink(missing_ok=True)


def save(contents: dict, path: str | Path) -> None:
    """Save a dictionary of tensors, numbers and strings to ``path``, atomically."""
    with atomic_write(path) as temporary:
        try:
            torch.save(contents, temporary)
        except RuntimeError as error:  # how torch reports a full disk
            raise OSError(str(error)) from error


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
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
                raise ValueError("it would unpack to more bytes than it has")
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"the checksum of {damaged} is wrong")
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # torch raises many kinds here: truncated zip, forbidden pickle, wrong magic number
        reason = (str(error) or type(error).__name__).splitlines()[0]
        hint = "it is truncated, damaged or not a checkpoint; delete it and train again, or copy it anew"
        raise ValueError(f"{wanted} a file that cannot be read ({reason}): {hint}") from error
    found = contents.get("kind") if isinstance(contents, dict) else None
    if found != kind:
        raise ValueError(f"{wanted} {found or 'something else'}: give the right file")
    return contents


def check_state(module: nn.Module, state: object, where: str | Path) -> None:
    """Refuse a state that is not the module's: other names, shapes or types, or a number that is not finite.

    Raises:
        ValueError: it is not; the message names ``where`` it is from, or goes to, and the first difference.
    """
    message = f"expected the finite weights of a {type(module).__name__} for {where}, got"
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{message} a {type(state).__name__} in place of named tensors")
    wanted, found = (
        {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
        for tensors in (module.state_dict(), state)
    )
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise ValueError(f"{message} {name} {found.get(name, 'missing')}, wanted {wanted.get(name, 'none')}")
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{message} {name} with NaN or infinity")


def check_sizes(config: dict, weights: dict, file_size: int) -> None:
    """Refuse what could fill the memory before it is built: weights larger than the file, and sizes in the
    configuration above both the longest side of any weight and the count of weights.
    """
    if sum(weight.numel() * weight.element_size() for weight in weights.values()) > file_size:
        raise ValueError("its weights would take more memory than the file has bytes")
    largest = max([len(weights), *(side for weight in weights.values() for side in weight.shape)])
    for name, value in config.items():
        for number in value if isinstance(value, list | tuple) else (value,):
            if isinstance(number, int) and number > largest:
                raise ValueError(f"{name} of {value} does not go with its weights")
