"""What every notebook builds on: models that save themselves, the training loop, devices, checks and pictures."""

from diffae_core.base.devices import choose_device, seeded
from diffae_core.base.model import Model
from diffae_core.base.plotting import labelled_png
from diffae_core.base.training import Training, TrainingConfig

__all__ = ["Model", "Training", "TrainingConfig", "choose_device", "labelled_png", "seeded"]
