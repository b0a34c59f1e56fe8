"""Files that are whole or not there: written to a temporary name, renamed, and read without running any code."""

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

PRETRAINED = Path(__file__).parent / "pretrained"


@contextmanager
def write_whole(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to, and rename it to ``path`` when the block ends well.

    An error in the block (a full disk, Ctrl-C) removes the temporary file and leaves an earlier ``path`` as it was.

    Raises:
        OSError: the folder can't be made or written to; the message names ``path``.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise OSError(
            f"cannot write {path}: {error.strerror}; choose a folder that you may write to, e.g. with --output-dir"
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except OSError as error:
            cure = "look for a full disk or a removed folder; an earlier file is unchanged"
            raise OSError(f"could not write {path}: {error}; {cure}") from error
    finally:
        temporary.unlink(missing_ok=True)


def save(contents: dict, path: str | Path) -> None:
    """Save a dictionary of tensors, numbers and strings to ``path``, whole or not at all."""
    with write_whole(path) as temporary:
        try:
            torch.save(contents, temporary)
        except RuntimeError as error:  # how torch reports a full disk
            raise OSError(str(error)) from error


def load(path: str | Path, kind: str) -> dict:
    """Read what :func:`save` wrote, to the CPU, with ``weights_only=True``: nothing in the file can run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is no checkpoint, or is one of another ``kind``.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"expected a {kind} checkpoint at {path}, found no file: train one first, or check the path"
        )
    try:
        _check_zip(path)
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # torch raises many kinds here: truncated zip, forbidden pickle, wrong magic number
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"expected a {kind} checkpoint at {path}, got a file that cannot be read ({reason}): "
            "it is truncated, damaged or not a checkpoint; delete it and train again, or copy it anew"
        ) from error
    found = contents.get("kind") if isinstance(contents, dict) else None
    if found != kind:
        raise ValueError(
            f"expected a {kind} checkpoint at {path}, got {found or 'something else'}: give the right file"
        )
    return contents


def _check_zip(path: Path) -> None:
    """A checkpoint is a zip archive, not compressed: it unpacks to no more than its own size, and has checksums."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > path.stat().st_size:
            raise ValueError(f"it would unpack to {unpacked:,} bytes, more than it is itself")
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} is wrong")


def save_model(model: torch.nn.Module, path: str | Path) -> None:
    """Save a model's class, configuration and weights."""
    save({"kind": type(model).__name__, "config": model.config, "weights": model.state_dict()}, path)


def load_weights(model: torch.nn.Module, path: str | Path) -> None:
    """Load weights into ``model``; a ValueError where the file was saved from a model of other sizes."""
    contents = load(path, type(model).__name__)
    found = contents.get("config")
    if found != model.config:
        raise ValueError(
            f"expected {path} to hold a {type(model).__name__} with {model.config}, got one with {found}: "
            f"build the model with those sizes, or use {type(model).__name__}.from_pretrained({str(path)!r})"
        )
    check_state(model, contents.get("weights"), path)
    model.load_state_dict(contents["weights"])


def build_model(model_class: type, path: str | Path | None, device: str | torch.device | None) -> torch.nn.Module:
    """Build a ``model_class`` with the configuration and weights in ``path`` (None: the shipped ones), in eval mode.

    It is built without memory first (torch's "meta" device), and with it only if the weights in the file fit it.
    """
    path = PRETRAINED / model_class.shipped_weights if path is None else Path(path)
    contents = load(path, model_class.__name__)
    config, weights = contents.get("config"), contents.get("weights")
    try:
        _check_sizes(config, weights, path.stat().st_size)
        with torch.device("meta") as meta:
            outline = model_class(**config, device=meta)
    except (AttributeError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"expected a {model_class.__name__} checkpoint at {path}, got a wrong configuration: {error}"
        ) from error
    check_state(outline, weights, path)
    model = model_class(**config, device=device)
    model.load_state_dict(weights)
    return model.eval()


def _check_sizes(config: dict, weights: dict, file_size: int) -> None:
    """Refuse what could fill the memory: weights larger than the file, and sizes in the configuration above both the
    longest side of any weight and the count of weights.
    """
    if sum(weight.numel() * weight.element_size() for weight in weights.values()) > file_size:
        raise ValueError("its weights would take more memory than the file has bytes")
    largest = max([len(weights), *(side for weight in weights.values() for side in weight.shape)])
    for name, value in config.items():
        for number in value if isinstance(value, list | tuple) else (value,):
            if isinstance(number, int) and number > largest:
                raise ValueError(f"{name} of {value} does not go with its weights")


def check_state(module: torch.nn.Module, state: object, path: str | Path) -> None:
    """Refuse a state that is not the module's: other names, shapes or types, or a number that is not finite.

    Raises:
        ValueError: it is not; the message names ``path`` and the first difference.
    """
    wanted = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in module.state_dict().items()}
    message = f"expected the weights of a {type(module).__name__} in {path}, got others"
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise ValueError(f"{message}: {type(state).__name__} in place of named tensors")
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise ValueError(f"{message}: {name} is {found.get(name, 'missing')}, wanted {wanted.get(name, 'none')}")
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{message}: {name} holds NaN or infinity")
