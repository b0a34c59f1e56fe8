"""Shared fixtures: small real data and small models. Nothing here, and no test, needs a network."""

import os
from pathlib import Path

import pytest
import torch

import diffae_core as core

SMALL = {"widths": (8, 16), "block_depth": 1, "latent_dim": 16, "device": "cpu"}


def pytest_configure() -> None:
    """Without a folder of MNIST everything, the processes that tests start too, takes the embedded sample."""
    os.environ.setdefault("DIFFAE_DATA_DIR", str(Path(__file__) / "no folder can be made in a file"))


@pytest.fixture(scope="session")
def sample() -> core.Digits:
    return core.load_sample("train")


@pytest.fixture
def whole_mnist() -> core.Digits:
    """MNIST's whole training set, for the tests that check the sample against it."""
    if not (Path(os.environ["DIFFAE_DATA_DIR"]) / "MNIST").is_dir():
        pytest.skip("the whole of MNIST is not on this machine: set DIFFAE_DATA_DIR to check the sample against it")
    return core.load_mnist("train")


@pytest.fixture
def small_model() -> core.DiffusionModel:
    """A small model whose every layer matters: a new one's last layers are zero."""
    torch.manual_seed(0)
    model = core.DiffusionModel(**SMALL)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture
def small_autoencoder() -> core.SimpleAutoencoder:
    torch.manual_seed(0)
    return core.SimpleAutoencoder(latent_dim=16, device="cpu").eval()
