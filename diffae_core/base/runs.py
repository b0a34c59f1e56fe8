"""What a training in a terminal needs: a folder of its own, the settings of earlier runs, Ctrl-C, and progress."""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from diffae_core.base.checkpoints import atomic_write
from diffae_core.base.training import Record, Training

log = logging.getLogger("diffae_core")
LINE_EVERY_SECONDS = 10  # where the output is not a terminal
LOSS_EVERY_STEPS = 20  # reading a loss waits for the GPU


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder if there is none, and keep other runs from writing to it until the block, or the process, ends.

    Raises:
        ValueError: there is a file, or a link that leads nowhere, in its place.
        OSError: it cannot be made or written to, or another run writes to it.
    """
    if not folder.is_dir() and os.path.lexists(folder):
        raise ValueError(f"expected the output folder {folder}, got a file or a dead link: choose another")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OSError(f"another run writes to {folder}: wait for it, or choose another folder") from None
    except PermissionError as error:
        raise OSError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    except (OSError, NotImplementedError) as error:
        log.warning("%s cannot be locked (%s): start no second run that writes to it", folder, error)
    try:
        yield
    finally:
        lock.release()


def check_settings(path: Path, settings: dict[str, object], has_models: bool) -> None:
    """Record in a JSON file how the models beside it are trained; refuse settings other than those recorded earlier.

    Models without such a file are taken as they are: nothing says how they were trained.

    Raises:
        ValueError: a setting differs, or the file is damaged.
    """
    if has_models and not path.exists():
        return
    earlier = _read(path) if has_models else {}
    differences = [
        f"{name} {value}, not {settings[name]}"
        for name, value in earlier.items()
        if name in settings and settings[name] != value
    ]
    if differences:
        hint = "use the same settings, or another folder"
        raise ValueError(f"the models in {path.parent} were trained with {'; '.join(differences)}: {hint}")
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(earlier | settings, indent=1), "utf-8")


def _read(path: Path) -> dict[str, object]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        hint = "move it away, if the models beside it were trained with your settings"
        raise ValueError(f"expected the settings of the models at {path}, got another file ({error}): {hint}") from None


@contextmanager
def first_interrupt() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that a step can end; a second Ctrl-C stops at once.

    Only the main thread gets signals: in any other thread the event is never set.
    """
    interrupted = threading.Event()
    handler = signal.getsignal(signal.SIGINT)

    def on_interrupt(*_) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, handler)

    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:
        signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield interrupted
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)


def with_progress(run: Training, name: str) -> Iterator[Record]:
    """The records of a training, with a progress bar in a terminal; elsewhere, a line is logged now and then."""
    is_terminal = sys.stderr.isatty()
    bar = tqdm(run, name, initial=run.step, unit="step", disable=not is_terminal)
    line_at = time.monotonic() + LINE_EVERY_SECONDS
    for record in bar:
        if is_terminal and record.step % LOSS_EVERY_STEPS == 0:
            bar.set_postfix(epoch=f"{record.epoch:.2f}", loss=f"{record.loss:.4f}", refresh=False)
        if not is_terminal and (time.monotonic() > line_at or record.step == len(run)):
            log.info("%s: step %d of %d, loss %.4f", name, record.step, len(run), record.loss)
            line_at = time.monotonic() + LINE_EVERY_SECONDS
        yield record
