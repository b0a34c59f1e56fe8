"""Shared fixtures: small real data and small models. Nothing here, and no test, needs a network."""

import os
from pathlib import Path

import pytest
import torch

import diffae_core as core
from diffae_core import data

SMALL = {"widths": (8, 16), "block_depth": 1, "latent_dim": 16, "device": "cpu"}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """A test that would download gets the embedded sample instead."""

    def refuse(folder: Path) -> None:
        raise OSError("tests do not download")

    monkeypatch.setattr(data, "_download", refuse)


@pytest.fixture(scope="session")
def sample() -> core.Digits:
    return core.load_sample("train")


@pytest.fixture
def whole_mnist() -> core.Digits:
    """MNIST's whole training set, for the tests that check the sample against it."""
    folder = os.environ.get("DIFFAE_DATA_DIR")
    if not folder or not (Path(folder) / "MNIST").is_dir():
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
