"""What several tests share: small real data, small models, the shipped ones, and the script as a process of its own.

Nothing here, and no test, needs a network.
"""

import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
import torch

import diffae_core as core

ROOT = Path(__file__).parent.parent
# They need signals and limits on resources, which Windows lacks.
collect_ignore_glob = ["robustness/*"] if sys.platform == "win32" else []
SMALL = {"widths": (8, 16), "block_depth": 1, "latent_dim": 16, "device": "cpu"}
SMALL_RUN = ["--device", "cpu", "--train-digits", "640", "--widths", "8", "16", "--block-depth", "1"]
SMALL_RUN += ["--latent-dim", "16", "--autoencoder-epochs", "1", "--quality-digits", "0", "--num-steps", "2"]
NO_PRIOR = [*SMALL_RUN, "--prior-epochs", "0"]


def pytest_configure() -> None:
    """Without a folder of MNIST everything, the processes that tests start too, takes the embedded sample."""
    os.environ.setdefault("DIFFAE_DATA_DIR", str(Path(__file__) / "no folder can be made in a file"))
    hypothesis.settings.register_profile("patient", deadline=None)  # a busy machine is no error
    hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session")
def sample() -> core.Digits:
    return core.load_sample("train")


@pytest.fixture(scope="session")
def held_out() -> core.Digits:
    return core.load_sample("test")


@pytest.fixture
def whole_mnist() -> core.Digits:
    """MNIST's training digits, for the tests that need the whole set."""
    if not (Path(os.environ["DIFFAE_DATA_DIR"]) / "MNIST").is_dir():
        pytest.skip("the whole of MNIST is not on this machine: set DIFFAE_DATA_DIR to check the sample against it")
    return core.load_mnist("train")


def all_random(model: torch.nn.Module, std: float = 0.1) -> torch.nn.Module:
    """The model with every weight random: the last layers of a new one are zero, so that little else would matter."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model.eval()


@pytest.fixture
def small_model() -> core.DiffusionModel:
    return all_random(core.DiffusionModel(**SMALL))


@pytest.fixture
def small_autoencoder() -> core.SimpleAutoencoder:
    torch.manual_seed(0)
    return core.SimpleAutoencoder(latent_dim=16, device="cpu").eval()


@pytest.fixture
def small_prior() -> core.LatentPrior:
    return all_random(core.LatentPrior(latent_dim=16, width=16, depth=2, time_embedding_dim=8, device="cpu"), std=0.3)


@pytest.fixture(scope="session")
def autoencoder() -> core.SimpleAutoencoder:
    """The shipped one; tests leave it as it is."""
    return core.SimpleAutoencoder.from_pretrained(device="cpu")


@pytest.fixture(scope="session")
def model() -> core.DiffusionModel:
    """The shipped one; tests leave it as it is."""
    return core.DiffusionModel.from_pretrained(device="cpu")


@pytest.fixture(scope="session")
def classifier() -> core.DigitClassifier:
    """The shipped one; tests leave it as it is."""
    return core.DigitClassifier.from_pretrained(device="cpu")


def start(folder: Path, *arguments: str | Path, **options) -> subprocess.Popen:
    """Start the script in a folder that is not the repository's; it finds MNIST, or takes the sample."""
    (folder / "elsewhere").mkdir(exist_ok=True)
    command = [sys.executable, ROOT / "train_ddim_mnist.py", "--output-dir", folder / "output", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder / "elsewhere", **pipes, **options)


def finished(process: subprocess.Popen, code: int = 0) -> tuple[str, str]:
    """Wait for the script's end, with this exit status; what it wrote to stdout and stderr."""
    out, error = process.communicate(timeout=900)  # a busy machine is no error
    assert process.returncode == code, error
    return out, error


def saved_weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["weights"]


def all_equal(weights: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    return weights.keys() == others.keys() and all(torch.equal(weights[name], others[name]) for name in weights)
