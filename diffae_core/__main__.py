"""``python -m diffae_core [FOLDER]``: the demo's pictures, with the shipped weights."""

import argparse
from pathlib import Path

import diffae_core as core
from diffae_core.base.runs import locked

if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m diffae_core", description="Write the demo's pictures.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("diffae_demo"), help="(%(default)s)")
    folder = parser.parse_args().folder.expanduser()
    models = (kind.from_pretrained() for kind in (core.SimpleAutoencoder, core.DiffusionModel, core.LatentPrior))
    with locked(folder):
        print(*core.Demo(*models, core.load_mnist("test")).save(folder), sep="\n")
