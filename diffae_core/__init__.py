"""A minimal Diffusion Autoencoder with DDIM on MNIST: encode, add noise, denoise with the latent, change the latent.

The names here are what one builds with. Formulas and drawing helpers stay in their modules: ``core.schedule``,
``core.metrics``, ``core.evaluation``, ``core.plotting``. Names in capitals are the recipes of the shipped models.
"""

from diffae_core import evaluation, schedule, unet
from diffae_core.autoencoder import AUTOENCODER, SimpleAutoencoder, train_autoencoder
from diffae_core.base import Training, TrainingConfig, choose_device, labelled_png, seeded
from diffae_core.base import checkpoints as checkpoints
from diffae_core.base import model as model
from diffae_core.base import plotting as plotting
from diffae_core.data import Digits, as_images, load_digits, load_mnist, load_sample, read_digit
from diffae_core.ddim import ddim_invert, ddim_sample, ddim_steps, step_times
from diffae_core.demo import Demo
from diffae_core.diffusion import DIFFUSION, DiffusionModel, to_pixels, train_diffusion, train_jointly
from diffae_core.evaluation import CLASSIFIER, DigitClassifier, in_batches, quality, train_classifier
from diffae_core.evaluation import metrics as metrics
from diffae_core.export import export_onnx
from diffae_core.latents import class_directions, class_means, edit, lerp, principal_directions, slerp, turn
from diffae_core.prior import PRIOR, LatentPrior, train_latent_prior
from diffae_core.schedule import CosineSchedule
from diffae_core.uncertainty import HEAD, BayesianLastLayer, clue, decompose_entropy, train_last_layer
from diffae_core.unet import ConditionalUNet

__version__ = "0.3.0"

__all__ = ["AUTOENCODER", "SimpleAutoencoder", "train_autoencoder", "CosineSchedule", "ConditionalUNet", "schedule"]
__all__ += ["step_times", "ddim_steps", "ddim_sample", "ddim_invert", "to_pixels", "unet", "evaluation", "metrics"]
__all__ += ["DIFFUSION", "DiffusionModel", "train_diffusion", "train_jointly", "checkpoints", "model", "plotting"]
__all__ += ["class_means", "class_directions", "principal_directions", "edit", "lerp", "slerp", "turn"]
__all__ += ["PRIOR", "LatentPrior", "train_latent_prior", "HEAD", "BayesianLastLayer", "train_last_layer"]
__all__ += ["decompose_entropy", "clue", "Training", "TrainingConfig", "choose_device", "seeded", "labelled_png"]
__all__ += ["Digits", "load_digits", "load_mnist", "load_sample", "as_images", "read_digit", "Demo", "export_onnx"]
__all__ += ["CLASSIFIER", "DigitClassifier", "train_classifier", "quality", "in_batches"]
