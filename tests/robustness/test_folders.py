"""Disks that are full, folders that vanish or may not be written to, a second run in the same folder."""

import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
from conftest import NO_PRIOR, finished, start
from filelock import FileLock

import diffae_core as core
import train_ddim_mnist as script

SHORT = [*NO_PRIOR, "--train-digits", "96", "--epochs", "1"]


@pytest.fixture
def main(tmp_path, monkeypatch):
    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(core, "load_mnist", lambda split: core.load_sample("test" if split == "test" else "train"))
    yield lambda *arguments: script.main(["--output-dir", str(tmp_path / "output"), *SHORT, *arguments])
    signal.signal(signal.SIGINT, handler)


def small_files():
    """For a child process: files may have 20 kB, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def test_a_full_disk_is_an_error_of_one_line_and_earlier_files_stay(tmp_path, main):
    main()
    (tmp_path / "output" / "diffusion_model.pt").unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "output").rglob("*.*")}
    sample = os.environ | {"DIFFAE_DATA_DIR": __file__}
    _, error = finished(start(tmp_path, *SHORT, preexec_fn=small_files, env=sample), code=1)
    assert error.splitlines()[-1].startswith("error: could not write ") and "Traceback" not in error
    assert {path: path.read_bytes() for path in (tmp_path / "output").rglob("*.*")} == before, (
        "a file changed, or was left"
    )


def test_a_folder_removed_underway_is_made_again(tmp_path, main, monkeypatch):
    train = core.train_diffusion
    monkeypatch.setattr(core, "train_diffusion", lambda *given: shutil.rmtree(tmp_path / "output") or train(*given))
    main()
    assert (tmp_path / "output" / "diffusion_model.pt").exists()


def test_a_second_run_in_the_same_folder_is_refused(tmp_path, main):
    (tmp_path / "output").mkdir()
    with FileLock(tmp_path / "output" / ".lock"), pytest.raises(OSError, match="another run writes to .*wait for it"):
        main()
    assert [path.name for path in (tmp_path / "output").iterdir()] == [".lock"]


@pytest.mark.skipif(not Path("/sys").is_dir(), reason="needs a folder that not even the superuser may write to")
def test_a_folder_that_may_only_be_read_is_refused(main):
    with pytest.raises(OSError, match="/sys/diffae"):
        main("--output-dir", "/sys/diffae")
