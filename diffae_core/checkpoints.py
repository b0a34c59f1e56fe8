"""Files that are whole or not there: written to a temporary name, renamed, and read without running any code."""

import os
import tempfile
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
            raise OSError(f"could not write {path}: {error}; free some space; an earlier file is unchanged") from error
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
    _load_state(model, contents.get("weights"), path)


def build_model(model_class: type, path: str | Path | None, device: str | torch.device | None) -> torch.nn.Module:
    """Build a ``model_class`` with the configuration and weights in ``path`` (None: the shipped ones), in eval mode."""
    path = PRETRAINED / model_class.shipped_weights if path is None else Path(path)
    contents = load(path, model_class.__name__)
    try:
        model = model_class(**contents["config"], device=device)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"expected a {model_class.__name__} checkpoint at {path}, got a wrong configuration: {error}"
        ) from error
    _load_state(model, contents.get("weights"), path)
    return model.eval()


def _load_state(model: torch.nn.Module, weights: object, path: str | Path) -> None:
    try:
        finite = all(bool(torch.isfinite(weight).all()) for weight in weights.values())
        if not finite:
            raise ValueError("a weight is NaN or infinite")
        model.load_state_dict(weights)
    except (AttributeError, TypeError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"expected the weights of a {type(model).__name__} in {path}, got others: {reason}") from error
