"""A minimal Diffusion Autoencoder with DDIM on MNIST: encode, add noise, denoise with the latent, change the latent."""

from diffae_core.autoencoder import SimpleAutoencoder
from diffae_core.checkpoints import write_whole
from diffae_core.data import Digits, as_images, load_mnist, load_sample, read_digit, split_training
from diffae_core.ddim import ddim_invert, ddim_sample, step_times
from diffae_core.devices import choose_device, has_fast_bfloat16, random_normal
from diffae_core.diffusion import DiffusionModel, LatentDecoder
from diffae_core.evaluation import (
    Judge,
    in_batches,
    loss_by_time,
    quality,
    quality_table,
    train_judge,
)
from diffae_core.latents import (
    blend,
    class_directions,
    class_means,
    edit,
    interpolate,
    lerp,
    principal_directions,
    slerp,
)
from diffae_core.measures import frechet_distance, nearest_distances, percent_equal, precision_recall, spread, ssim
from diffae_core.pictures import labelled_png, png_bytes, rows_figure, save_figure, save_png, tile
from diffae_core.prior import LatentPrior, MixturePrior, train_latent_prior
from diffae_core.processes import any_process, is_first_process, join_processes
from diffae_core.schedule import CosineSchedule, from_clean, from_noise, from_velocity, noisy_image, velocity
from diffae_core.training import (
    Record,
    Training,
    TrainingConfig,
    encode_all,
    normalise_latents,
    train_autoencoder,
    train_diffusion,
)
from diffae_core.uncertainty import BayesianLastLayer, Entropies, clue, decompose_entropy, train_last_layer
from diffae_core.unet import ConditionalUNet, ResidualBlock, TimeEmbedding

__version__ = "0.1.0"

__all__ = [
    "BayesianLastLayer",
    "ConditionalUNet",
    "CosineSchedule",
    "DiffusionModel",
    "Digits",
    "Entropies",
    "Judge",
    "LatentDecoder",
    "LatentPrior",
    "MixturePrior",
    "Record",
    "ResidualBlock",
    "SimpleAutoencoder",
    "TimeEmbedding",
    "Training",
    "TrainingConfig",
    "any_process",
    "as_images",
    "blend",
    "choose_device",
    "class_directions",
    "class_means",
    "clue",
    "ddim_invert",
    "ddim_sample",
    "decompose_entropy",
    "edit",
    "encode_all",
    "frechet_distance",
    "from_clean",
    "from_noise",
    "from_velocity",
    "has_fast_bfloat16",
    "in_batches",
    "interpolate",
    "is_first_process",
    "join_processes",
    "labelled_png",
    "lerp",
    "load_mnist",
    "load_sample",
    "loss_by_time",
    "nearest_distances",
    "noisy_image",
    "normalise_latents",
    "percent_equal",
    "png_bytes",
    "precision_recall",
    "principal_directions",
    "quality",
    "quality_table",
    "random_normal",
    "read_digit",
    "rows_figure",
    "save_figure",
    "save_png",
    "slerp",
    "split_training",
    "spread",
    "ssim",
    "step_times",
    "tile",
    "train_autoencoder",
    "train_diffusion",
    "train_judge",
    "train_last_layer",
    "train_latent_prior",
    "velocity",
    "write_whole",
]
