"""The experiments of benchmarks/faults.py with smaller counts, and what else may go wrong with files and folders."""

import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import faults
import pytest
import torch
from filelock import FileLock, Timeout
from test_script import LONG, finished, start

import diffae_core as core


def test_kills_lose_nothing(tmp_path):
    found = faults.kills(4, tmp_path)
    assert found["killed"] == 4 and found["could not be resumed"] == 0
    assert found["runs that came to their end"] >= 1
    assert found["of these with other weights than the uninterrupted run"] == 0


@pytest.mark.parametrize("kind", faults.DAMAGES)
def test_damaged_checkpoints_are_refused(kind, tmp_path):
    ((_, count, refused, equal, wrong),), grown = faults.damaged_checkpoints({kind: 6}, tmp_path)
    assert wrong == "0" and int(refused) + int(equal) == int(count)
    assert equal == "0" or kind == "bit flipped", "only a bit where nothing is stored may pass"
    assert grown < 200


def test_uploaded_pictures():
    rows = faults.uploads()
    assert len(rows) > 15 and [row for row in rows if row[2] != "yes"] == []


def test_damaged_mnist_is_refused(whole_mnist, tmp_path):
    assert faults.damaged_mnist(4, tmp_path) == {"refused": 4, "wrong": 0}


def test_a_storm_of_events_leaves_the_last_state_and_no_memory():
    rows = faults.storms(100)
    assert len(rows) == 7
    for name, _, grown, _, well in rows:
        assert well == "yes" and float(grown) < 20, name


def test_what_the_notebook_experiments_do_to_a_kernel(tmp_path):
    notebook, forgotten = faults.NOTEBOOKS[1], "print('x' in globals())"
    assert faults.run_cells(notebook, tmp_path, ["x = 1", faults.Restart, forgotten]) == ("", ["False\n"])
    assert faults.run_cells(notebook, tmp_path, [2])[0].startswith("NameError in cell 2")
    if sys.platform == "linux":
        assert faults.run_cells(notebook, tmp_path, [faults.LIMIT, "bytearray(3 * 2**30)"])[0].startswith("MemoryError")


def test_a_kernel_restarted_in_the_middle_and_sections_run_backwards():
    ((name, *outcomes),) = faults.notebook_runs([faults.NOTEBOOKS[1]])
    assert name == "02_schedule" and outcomes[0] == outcomes[2] == outcomes[3] == "runs"


def small_files():
    """For a child process: files may have 20 kB, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def test_a_full_disk_is_an_error_of_one_line_and_earlier_files_stay(tmp_path):
    finished(start(tmp_path, *LONG, "--epochs", "1"))
    before = {path: path.read_bytes() for path in (tmp_path / "output").rglob("*.pt")}
    (tmp_path / "output" / "diffusion_model.pt").unlink()
    process = start(tmp_path, *LONG, preexec_fn=small_files)
    _, error = finished(process, code=1)
    assert error.strip().splitlines()[-1].startswith("error: could not write ") and "Traceback" not in error
    kept = {path: path.read_bytes() for path in (tmp_path / "output").rglob("*") if path.suffix == ".pt"}
    assert kept == {path: content for path, content in before.items() if path.name != "diffusion_model.pt"}
    assert not list((tmp_path / "output").glob(".*-*")), "a temporary file was left"


def test_a_folder_removed_underway_is_made_again(tmp_path):
    process = start(tmp_path, *LONG)
    while not (tmp_path / "output" / "autoencoder_weights.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    shutil.rmtree(tmp_path / "output")
    finished(process)
    assert (tmp_path / "output" / "diffusion_model.pt").exists()


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    (tmp_path / "output").mkdir()
    lock = FileLock(tmp_path / "output" / ".lock")
    with lock:  # as another run holds it
        _, error = finished(start(tmp_path, *LONG), code=1)
    assert "another run writes to" in error and "Traceback" not in error
    assert [path.name for path in (tmp_path / "output").iterdir()] == [".lock"]
    first = start(tmp_path, *LONG, "--epochs", "40")
    while not (tmp_path / "output" / "autoencoder_weights.pt").exists() and first.poll() is None:
        time.sleep(0.01)
    with pytest.raises(Timeout):
        lock.acquire(timeout=0)  # the script holds it while it works
    finished(first)


@pytest.mark.skipif(not Path("/sys").is_dir(), reason="needs a folder that not even the superuser may write to")
def test_a_folder_that_may_only_be_read_is_refused(tmp_path):
    _, error = finished(start(tmp_path, *LONG, "--output-dir", "/sys/diffae"), code=1)
    assert error.startswith("error: ") and "/sys/diffae" in error and "Traceback" not in error


def test_a_training_that_was_interrupted_in_a_notebook_goes_on(sample):
    """The interrupt button raises KeyboardInterrupt in the middle of a step; running the cell again goes on."""
    digits, latents = sample.subset(slice(0, 64)), torch.randn(64, 16)
    torch.manual_seed(0)
    run = core.train_diffusion(core.DiffusionModel(**faults.SMALL), digits, latents, core.TrainingConfig(2, 16))
    whole, calls = run.batch_loss, 0

    def interrupted_once(*arguments):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return whole(*arguments)

    run.batch_loss, steps = interrupted_once, []
    with pytest.raises(KeyboardInterrupt):
        steps += [record.step for record in run]
    steps += [record.step for record in run]
    assert steps == [4, 5, 6, 7, 8] and run.step == len(run) == 8


PEEK = "import socket; socket.socket.connect = None; import diffae_core as core; core.DiffusionModel.from_pretrained()"


def test_nothing_but_the_mnist_download_uses_the_network():
    subprocess.run([sys.executable, "-c", PEEK], check=True)
    sources = [path.read_text() for path in Path(core.__file__).parent.glob("*.py")]
    assert sum("download=True" in source for source in sources) == 1
    assert not any(word in source for source in sources for word in ("urllib", "requests", "http.client", "torch.hub"))
    loads = [line for source in sources for line in source.splitlines() if "torch.load(" in line]
    assert loads and all("weights_only=True" in line for line in loads)
    assert not any(
        word in source for source in sources for word in ("import pickle", "allow_pickle=True", "eval(source")
    )
