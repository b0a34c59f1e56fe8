"""What test_kills.py runs in child processes, in a module of its own: without pytest it is imported quickly."""

import sys
from pathlib import Path

import torch

import diffae_core as core
import train_ddim_mnist as script


def train(folder: Path) -> None:
    """Train a small model in 60 steps, saved after each, or go on with it."""
    torch.manual_seed(0)
    autoencoder = core.SimpleAutoencoder(16, device="cpu")
    model = core.DiffusionModel(widths=(8, 16), block_depth=1, latent_dim=16, device="cpu")
    digits, state = core.load_sample("train").subset(slice(0, 64)), folder / "model_training.pt"
    run = core.train_diffusion(model, digits, autoencoder, core.TrainingConfig(epochs=15, batch_size=16))
    if state.exists():
        run.resume(state)
    for _ in run:
        run.save(state)
    model.save_checkpoint(folder / "model.pt")
    state.unlink()


def run_script(folder: Path, *arguments: str) -> None:
    """The script, which saves every 20 steps instead of 200; what it says goes to a file."""
    sys.stdout = sys.stderr = (folder / "messages.txt").open("w")
    script.SAVE_EVERY_STEPS = 20
    script.main(["--output-dir", str(folder / "output"), *arguments])
