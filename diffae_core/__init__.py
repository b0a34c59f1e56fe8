"""A minimal Diffusion Autoencoder with DDIM on MNIST: encode, add noise, denoise with the latent, change the latent.

The names here are what one builds with. Formulas and drawing helpers stay in their modules: ``core.schedule``,
``core.metrics``, ``core.evaluation``, ``core.plotting``.
"""

from diffae_core import evaluation, schedule, unet  # noqa: F401
from diffae_core.autoencoder import SimpleAutoencoder, train_autoencoder
from diffae_core.base import Training, TrainingConfig, choose_device, labelled_png, seeded
from diffae_core.base import checkpoints as checkpoints
from diffae_core.base import model as model
from diffae_core.base import plotting as plotting
from diffae_core.data import Digits, as_images, load_digits, load_mnist, load_sample, read_digit
from diffae_core.ddim import ddim_invert, ddim_sample, ddim_steps, step_times
from diffae_core.demo import Demo
from diffae_core.diffusion import DiffusionModel, to_pixels, train_diffusion, train_jointly
from diffae_core.evaluation import DigitClassifier, in_batches, quality, train_classifier
from diffae_core.evaluation import metrics as metrics
from diffae_core.export import export_onnx
from diffae_core.latents import class_directions, class_means, edit, lerp, principal_directions, slerp, turn
from diffae_core.prior import LatentPrior, train_latent_prior
from diffae_core.schedule import CosineSchedule
from diffae_core.uncertainty import BayesianLastLayer, clue, decompose_entropy, train_last_layer
from diffae_core.unet import ConditionalUNet

__version__ = "0.2.0"

__all__ = [
    "BayesianLastLayer",
    "ConditionalUNet",
    "CosineSchedule",
    "Demo",
    "DiffusionModel",
    "DigitClassifier",
    "Digits",
    "LatentPrior",
    "SimpleAutoencoder",
    "Training",
    "TrainingConfig",
    "as_images",
    "choose_device",
    "class_directions",
    "class_means",
    "clue",
    "ddim_invert",
    "ddim_sample",
    "ddim_steps",
    "decompose_entropy",
    "edit",
    "export_onnx",
    "in_batches",
    "labelled_png",
    "lerp",
    "load_digits",
    "load_mnist",
    "load_sample",
    "principal_directions",
    "quality",
    "read_digit",
    "seeded",
    "slerp",
    "step_times",
    "to_pixels",
    "train_autoencoder",
    "train_classifier",
    "train_diffusion",
    "train_jointly",
    "train_last_layer",
    "train_latent_prior",
    "turn",
]
