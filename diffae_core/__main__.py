"""``python -m diffae_core [FOLDER]``: the demo's pictures, with the shipped weights."""

import sys
from pathlib import Path

import diffae_core as core

if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "diffae_demo").expanduser()
    models = (kind.from_pretrained() for kind in (core.SimpleAutoencoder, core.DiffusionModel, core.LatentPrior))
    print(*core.Demo(*models, core.load_mnist("test")).save(folder), sep="\n")
