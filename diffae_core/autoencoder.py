"""Notebook 01: an autoencoder that describes a digit by 256 numbers, its latent, and decodes the latent."""

from typing import Literal, overload

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from diffae_core.base.devices import choose_device, random_normal, random_uniform
from diffae_core.base.model import Model, fingerprint, in_eval_mode
from diffae_core.base.training import Training, TrainingConfig
from diffae_core.base.validation import check_count, check_images, check_latents, check_number
from diffae_core.data.arrays import as_batch
from diffae_core.data.digits import Digits, check_digits
from diffae_core.data.pictures import to_unit

AUTOENCODER = TrainingConfig(epochs=5)  # the recipe of the shipped autoencoder


class SimpleAutoencoder(Model):
    """A convolutional autoencoder: image ``(N, 1, 28, 28)`` in [0, 1] <-> latent ``(N, latent_dim)``.

    ``encode`` and ``decode`` are differentiable and, in eval mode, deterministic. ``autoencoder.encoder`` is a plain
    ``nn.Module`` that other code can take as a frozen backbone. Methods raise a TypeError or ValueError for a wrong
    shape, dtype or value, and say what was wanted; image values outside [0, 1] only cause a warning, once.

    The Diffusion Autoencoders paper (arXiv 2111.15640) trains encoder and diffusion decoder jointly; here the
    autoencoder is trained first, on its own, and then frozen.

    Args:
        latent_dim: how many numbers describe a digit.
        image_size: height and width of the images; a multiple of 4.
        device: where the model lives; None chooses CUDA, MPS or the CPU.
    """

    pretrained_file = "autoencoder_weights.pt"

    def __init__(self, latent_dim: int = 256, image_size: int = 28, device: str | torch.device | None = None):
        super().__init__()
        self.latent_dim = check_count(latent_dim, "latent_dim")
        self.image_size = check_count(image_size, "image_size", at_least=8, multiple_of=4)
        self.config = {"latent_dim": self.latent_dim, "image_size": self.image_size}
        side = self.image_size // 4
        self.encoder = nn.Sequential(  # (N, 1, 28, 28)
            nn.Conv2d(1, 32, 4, stride=2, padding=1),  # (N, 32, 14, 14)
            nn.GroupNorm(4, 32),
            nn.SiLU(),
            nn.Conv2d(32, 32, 4, stride=2, padding=1),  # (N, 32, 7, 7)
            nn.GroupNorm(4, 32),
            nn.SiLU(),
            nn.Flatten(),  # (N, 1568)
            nn.Linear(32 * side * side, latent_dim),  # (N, latent_dim)
        )
        self.decoder = nn.Sequential(  # (N, latent_dim)
            nn.Linear(latent_dim, 32 * side * side),  # (N, 1568)
            nn.Unflatten(1, (32, side, side)),  # (N, 32, 7, 7)
            nn.GroupNorm(4, 32),
            nn.SiLU(),
            nn.ConvTranspose2d(32, 32, 4, stride=2, padding=1),  # (N, 32, 14, 14)
            nn.GroupNorm(4, 32),
            nn.SiLU(),
            nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1),  # (N, 1, 28, 28)
            nn.Sigmoid(),
        )
        nn.init.constant_(self.decoder[-2].bias, -2.0)  # start from nearly empty paper: most of a picture is empty
        self.to(choose_device(device))

    def encode(self, images: Tensor) -> Tensor:
        """Images ``(N, 1, 28, 28)`` in [0, 1] -> latents ``(N, latent_dim)``.

        A trained model's latents have mean 0 and standard deviation 1 in each dimension over the training digits.
        """
        return self.encoder(check_images(images, self.image_size).to(self.device)).float()

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``(N, latent_dim)`` -> images ``(N, 1, 28, 28)`` in [0, 1]: the average of the digits that fit."""
        return self.decoder(check_latents(latents, self.latent_dim).to(self.device)).float()

    def forward(self, images: Tensor) -> Tensor:
        """Encode and decode: images in, their reconstructions out, both ``(N, 1, 28, 28)`` in [0, 1]."""
        return self.decode(self.encode(images))

    @overload
    def encode_dataset(
        self, dataset: Dataset, batch_size: int = 500, as_numpy: Literal[False] = False
    ) -> TensorDataset: ...
    @overload
    def encode_dataset(
        self, dataset: Dataset, batch_size: int = 500, *, as_numpy: Literal[True]
    ) -> tuple[np.ndarray, np.ndarray]: ...
    @torch.no_grad()
    def encode_dataset(
        self, dataset: Dataset, batch_size: int = 500, as_numpy: bool = False
    ) -> TensorDataset | tuple[np.ndarray, np.ndarray]:
        """The latents and labels of a whole data set, for the diffusion model, other classifiers, probes and maps.

        Args:
            dataset: ``Digits``, or pairs ``(image, label)`` such as torchvision's ``MNIST``: images ``(1, 28, 28)``
                in [0, 1], or PIL images.
            batch_size: how many images are encoded at a time.
            as_numpy: return a pair of arrays, for scikit-learn and UMAP, instead of a ``TensorDataset``.

        Returns:
            Latents float32 ``(N, latent_dim)`` and labels int64 ``(N,)``, on the CPU, in the data set's order:
            ``latents, labels = autoencoder.encode_dataset(digits).tensors``.

        Raises:
            TypeError, ValueError: anything but such pairs, images that ``encode`` refuses, or a ``batch_size`` below 1.
        """
        latents = [torch.empty(0, self.latent_dim, device="cpu")]
        labels = [torch.empty(0, dtype=torch.int64, device="cpu")]
        with in_eval_mode(self):
            for batch_images, batch_labels in _batches(dataset, check_count(batch_size, "batch_size")):
                latents.append(self.encode(batch_images).cpu())
                labels.append(batch_labels.cpu())
        z, y = torch.cat(latents), torch.cat(labels)
        return (z.numpy(), y.numpy()) if as_numpy else TensorDataset(z, y)

    @torch.no_grad()
    def normalise_latents(self, digits: Digits) -> None:
        """Fold ``(z - mean) / std`` over ``digits`` into the encoder's last layer, as training assumed.

        Raises:
            ValueError: fewer than two digits, which have no standard deviation.
        """
        check_count(len(digits), "the number of digits to normalise the latents over", at_least=2)
        latents = self.encode_dataset(digits).tensors[0].to(self.device)
        mean = latents.mean(dim=0)
        std = latents.std(dim=0).clamp(min=1e-5**0.5)  # batch normalisation adds 1e-5 to the variance
        last = self.encoder[-1]
        last.weight.div_(std[:, None])
        last.bias.sub_(mean).div_(std)


def _batches(dataset: Dataset, batch_size: int):
    """Pairs of images ``(B, 1, H, W)`` in [0, 1] and labels int64 ``(B,)``."""
    if isinstance(dataset, Digits):
        for pixels, labels in zip(dataset.pixels.split(batch_size), dataset.labels.split(batch_size)):
            yield to_unit(pixels), labels
        return
    if isinstance(dataset, DataLoader):
        raise TypeError("expected a torch data set, got a DataLoader: give its .dataset")
    with torch.device("cpu"):  # and with our own generator: otherwise the DataLoader would draw from the global one
        batches = iter(DataLoader(dataset, batch_size, collate_fn=as_batch, generator=torch.Generator()))
    yield from batches


def train_autoencoder(
    model: SimpleAutoencoder,
    digits: Digits,
    config: TrainingConfig = AUTOENCODER,
    latent_noise: float = 1.0,
    mixed_share: float = 0.25,
) -> Training:
    """A run that teaches the autoencoder to reconstruct digits from mixed and noisy latents, by mean squared error.

    The latents are kept at mean 0 and standard deviation 1 over each batch (batch normalisation without parameters,
    arXiv 1502.03167), so that the size of the noise has a meaning; at the end, this normalisation is folded into the
    encoder (:meth:`SimpleAutoencoder.normalise_latents`). It is not folded into the run's ``ema_model``, whose encoder
    and decoder fit each other only in a copy after ``normalise_latents``. The decoder learns to show the average of the
    digits that could have given a latent, because the average has the lowest squared error.

    Args:
        model: the autoencoder to train.
        digits: the training digits.
        config: how to train.
        latent_noise: standard deviation of the noise on the latents, 0 or more.
        mixed_share: share of the latents that are moved towards another digit's (:func:`mix_latents`), 0 to 1.

    Raises:
        TypeError, ValueError: anything but digits of the model's size, a number out of range, or batches of one digit.
    """
    check_number(latent_noise, "latent_noise", 0, 100)
    check_number(mixed_share, "mixed_share", 0, 1)
    check_normalised_batches(digits, config)
    pixels = check_digits(digits, model.image_size).pixels.to(model.device)

    def batch_loss(index: Tensor, generator: torch.Generator) -> Tensor:
        images = to_unit(pixels[index.to(pixels.device)])
        latents = batch_normalised(model.encoder(images))
        noise = random_normal(latents.shape, latents.device, generator)
        noisy = mix_latents(latents, mixed_share, generator) + latent_noise * noise
        return F.mse_loss(model.decoder(noisy).float(), images)

    data = f"{fingerprint(digits.pixels)}, latent_noise {latent_noise:.15g}, mixed_share {mixed_share:.15g}"
    return Training(model, batch_loss, len(digits), config, data, finish=lambda: model.normalise_latents(digits))


def mix_latents(latents: Tensor, mixed_share: float, generator: torch.Generator) -> Tensor:
    """Move a share of a batch's latents, each towards the one before it, by up to half of the way (uniform).

    So training shows what lies between digits: half-way between a and b, the target is a as often as b.
    """
    way = 0.5 * random_uniform(len(latents), latents.device, generator)
    is_mixed = random_uniform(len(latents), latents.device, generator) < mixed_share
    return torch.lerp(latents, latents.roll(1, dims=0), (way * is_mixed)[:, None].to(latents))


def check_normalised_batches(digits: Digits, config: TrainingConfig) -> None:
    """Refuse batches of a single digit, because one latent has no standard deviation."""
    check_digits(digits)
    check_count(min(len(digits), config.batch_size), "the digits of a batch, whose latents are normalised,", at_least=2)


def batch_normalised(latents: Tensor) -> Tensor:
    """Latents with mean 0 and standard deviation 1 over the batch in each dimension."""
    return F.batch_norm(latents, None, None, training=True)
