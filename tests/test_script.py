"""The script as a person runs it: from nothing, killed and resumed, and with the shipped weights."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
SMALL = ["--device", "cpu", "--train-digits", "640", "--widths", "8", "16", "--block-depth", "1", "--latent-dim", "16"]
SMALL += ["--autoencoder-epochs", "1", "--quality-digits", "0", "--num-steps", "2"]


def start(folder, *arguments, launcher=(), **options):
    """Start the script in a folder that is not the repository's; it finds MNIST, or takes the sample."""
    (folder / "elsewhere").mkdir(exist_ok=True)
    command = [sys.executable, *launcher, ROOT / "train_ddim_mnist.py", "--output-dir", folder / "output", *arguments]
    return subprocess.Popen(
        command, cwd=folder / "elsewhere", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.fixture
def script(tmp_path):
    return lambda *arguments: start(tmp_path, *arguments)


def finished(process, code=0):
    out, error = process.communicate(timeout=200)
    assert process.returncode == code, error
    return out, error


def weights(folder):
    return torch.load(folder / "output" / "diffusion_model.pt", weights_only=True)["weights"]


def test_from_nothing_then_again_from_what_was_written(script, tmp_path):
    prior = ["--train-prior", "--prior-epochs", "1"]
    out, _ = finished(script(*SMALL, *prior, "--epochs", "5"))
    made = {path.relative_to(tmp_path / "output").as_posix() for path in (tmp_path / "output").rglob("*.*")} - {".lock"}
    assert made == {
        "autoencoder_weights.pt",
        "diffusion_model.pt",
        "latent_prior.pt",
        "samples/epoch_005.png",
        "conditioned_samples.png",
        "diffusion_autoencoder_demo.png",
        "from_nothing.png",
    }
    assert all(name in out for name in made)
    before = weights(tmp_path)
    _, error = finished(script(*SMALL, *prior, "--epochs", "5"))
    assert "step/s" not in error  # loaded, not trained
    assert all(torch.equal(weight, before[name]) for name, weight in weights(tmp_path).items())


LONG = [*SMALL, "--train-digits", "96", "--batch-size", "16", "--epochs", "80"]  # 480 steps: saved at 200 and 400


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    finished(start(folder, *LONG))
    return weights(folder)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_killed_and_resumed_gives_the_same_weights(script, tmp_path, uninterrupted, stop):
    state = tmp_path / "output" / "diffusion_training.pt"
    process = script(*LONG)
    while not state.exists() and process.poll() is None:
        time.sleep(0.005)
    assert process.poll() is None, "it ended before it could be stopped"
    os.kill(process.pid, stop)
    out, error = process.communicate(timeout=60)
    assert process.returncode != 0 and not (tmp_path / "output" / "diffusion_model.pt").exists()
    assert stop == signal.SIGKILL or "--resume goes on from there" in error

    (tmp_path / "output" / ".diffusion_training-x7_k2abc.pt").write_bytes(b"half a checkpoint")  # killed while saving
    _, error = finished(script(*LONG), code=1)
    assert "add --resume to go on with it, or delete it" in error
    for name in (".diffusion_model-x7_k2abc.pt", ".conditioned_samples-x7_k2abc.png"):
        (tmp_path / "output" / name).write_bytes(b"half a file")
    finished(script(*LONG, "--resume"))
    assert all(torch.equal(weight, uninterrupted[name]) for name, weight in weights(tmp_path).items())
    assert not state.exists() and not list((tmp_path / "output").glob(".*-*"))


def test_shipped_weights(script, tmp_path):
    out, _ = finished(script("--pretrained", "--quality-digits", "100"))
    assert "label agreement at 20 steps" in (tmp_path / "output" / "quality.md").read_text()
    assert "label agreement at 20 steps" in out and "diffusion_autoencoder_demo.png" in out
    assert not list((tmp_path / "output").glob("*.pt"))


def test_errors_are_one_line(script, tmp_path):
    (tmp_path / "output").write_text("a file where the folder should be")
    _, error = finished(script("--pretrained"), code=1)
    assert error.strip().splitlines()[-1].startswith("error: ") and "Traceback" not in error


def test_unknown_device_is_one_line(script):
    _, error = finished(script("--device", "abacus"), code=1)
    assert error.startswith("error: expected a device from") and error.count("\n") == 1


def test_two_processes_make_the_weights_of_one(tmp_path):
    """Each takes half of every batch. Sums in another order round differently, and training enlarges that."""
    folders = [tmp_path / "one", tmp_path / "two"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for folder, started_by in zip(folders, ((), launcher)):
        folder.mkdir()
        out, _ = finished(start(folder, *SMALL, "--epochs", "3", launcher=started_by))
        assert out.count("Files written") == 1
    one, two = map(weights, folders)
    moved = torch.cat([(one[name] - two[name]).flatten().abs() for name in one])
    assert (moved > 1e-4).float().mean() < 0.005  # AdamW makes steps of full length out of gradients that are rounding
    assert moved.max() < 0.05


def test_processes_that_cannot_share_a_batch_say_so(tmp_path):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [*SMALL, "--epochs", "1", "--batch-size", "15"]
    _, error = finished(start(tmp_path, *arguments, launcher=launcher), code=1)
    assert "expected batches that 2 processes can share evenly, got batches of 15" in error
