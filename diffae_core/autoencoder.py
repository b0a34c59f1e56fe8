"""Notebook 01: an autoencoder that writes a digit as 256 numbers, the latent, and draws it again from them."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from diffae_core import checkpoints
from diffae_core.checks import check_alike, check_count, check_images, check_latents
from diffae_core.devices import choose_device


class SimpleAutoencoder(nn.Module):
    """A convolutional autoencoder: image ``(N, 1, 28, 28)`` in [0, 1] <-> latent ``(N, latent_dim)``.

    ``encode`` and ``decode`` are differentiable and, in eval mode, deterministic. ``autoencoder.encoder`` is a plain
    ``nn.Module`` that other code can take as a frozen backbone.

    The Diffusion Autoencoders paper (arXiv 2111.15640) trains encoder and diffusion decoder jointly; here the
    autoencoder is trained first, on its own, and then frozen.

    Args:
        latent_dim: how many numbers describe a digit.
        device: where to live; None chooses CUDA, MPS or the CPU.
    """

    shipped_weights = "autoencoder_weights.pt"

    def __init__(self, latent_dim: int = 256, device: str | torch.device | None = None):
        super().__init__()
        self.latent_dim = check_count(latent_dim, "latent_dim")
        self.config = {"latent_dim": latent_dim}
        self.encoder = nn.Sequential(  # (N, 1, 28, 28)
            nn.Conv2d(1, 32, 4, stride=2, padding=1),  # (N, 32, 14, 14)
            nn.GroupNorm(4, 32),
            nn.SiLU(),
            nn.Conv2d(32, 32, 4, stride=2, padding=1),  # (N, 32, 7, 7)
            nn.GroupNorm(4, 32),
            nn.SiLU(),
            nn.Flatten(),  # (N, 1568)
            nn.Linear(32 * 7 * 7, latent_dim),  # (N, latent_dim)
        )
        self.decoder = nn.Sequential(  # (N, latent_dim)
            nn.Linear(latent_dim, 32 * 7 * 7),  # (N, 1568)
            nn.Unflatten(1, (32, 7, 7)),  # (N, 32, 7, 7)
            nn.GroupNorm(4, 32),
            nn.SiLU(),
            nn.ConvTranspose2d(32, 32, 4, stride=2, padding=1),  # (N, 32, 14, 14)
            nn.GroupNorm(4, 32),
            nn.SiLU(),
            nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1),  # (N, 1, 28, 28)
            nn.Sigmoid(),
        )
        nn.init.constant_(self.decoder[-2].bias, -2.0)  # start from nearly empty paper: most of a digit is
        self.to(choose_device(device))

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def encode(self, images: Tensor) -> Tensor:
        """Images ``(N, 1, 28, 28)`` in [0, 1] -> latents ``(N, latent_dim)``.

        A trained model's latents have mean 0 and standard deviation 1 in each dimension over the training digits.

        Raises:
            TypeError, ValueError: not such images; values outside [0, 1] only warn, once.
        """
        return self.encoder(check_images(images).to(self.device))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``(N, latent_dim)`` -> images ``(N, 1, 28, 28)`` in [0, 1].

        Raises:
            TypeError, ValueError: not such latents.
        """
        return self.decoder(check_latents(latents, self.latent_dim).to(self.device))

    @torch.no_grad()
    def encode_dataset(
        self, dataset: Dataset, batch_size: int = 500, device: str | torch.device | None = None, as_numpy: bool = False
    ) -> TensorDataset | tuple[np.ndarray, np.ndarray]:
        """The latents and labels of a whole dataset, for other people's heads, probes and maps.

        Args:
            dataset: pairs ``(image (1, 28, 28) in [0, 1], label)``, such as ``Digits`` or torchvision's ``MNIST``.
            batch_size: images at a time.
            device: where to compute, if not where the autoencoder lives; it is there again afterwards.
            as_numpy: give a pair of arrays, for scikit-learn and UMAP, in place of a ``TensorDataset``.

        Returns:
            Features float32 ``(N, latent_dim)`` and labels int64 ``(N,)``, on the CPU, in the dataset's order.

        Raises:
            TypeError, ValueError: no such pairs, images that ``encode`` would refuse, or a ``batch_size`` below 1.
        """
        check_count(batch_size, "batch_size")
        home, was_training = self.device, self.training
        self.to(choose_device(device) if device is not None else home).eval()
        loader = DataLoader(dataset, batch_size, generator=torch.Generator())  # not the caller's
        try:
            batches = [(self.encode(images).cpu(), labels) for images, labels in map(check_pairs, loader)]
        finally:
            self.to(home).train(was_training)
        features = torch.cat([torch.empty(0, self.latent_dim), *(latents for latents, _ in batches)])
        labels = torch.cat([torch.empty(0, dtype=torch.int64), *(labels for _, labels in batches)])
        return (features.numpy(), labels.numpy()) if as_numpy else TensorDataset(features, labels)

    def forward(self, images: Tensor) -> Tensor:
        """Encode and decode: images in, their reconstructions out, both ``(N, 1, 28, 28)`` in [0, 1]."""
        return self.decode(self.encode(images))

    @torch.no_grad()
    def normalise_latents(self, mean: Tensor, std: Tensor) -> None:
        """Give the latents mean 0 and standard deviation 1, without changing what the autoencoder draws.

        ``encode`` becomes (z - mean) / std, folded into the encoder's last layer, and the decoder's first layer takes
        it back.

        Args:
            mean, std: ``(latent_dim,)``, measured on the training digits' latents.

        Raises:
            TypeError, ValueError: not such tensors, or a standard deviation that is not above 0.
        """
        last = self.encoder[-1]
        mean, std = check_normalisation(mean, std, self.latent_dim, self.device)
        last.weight.div_(std[:, None])
        last.bias.sub_(mean).div_(std)
        take_back(self.decoder[0], mean, std)

    def save_checkpoint(self, path: str | Path) -> None:
        """Write configuration and weights to ``path``, whole or not at all."""
        checkpoints.save_model(self, path)

    def load_checkpoint(self, path: str | Path) -> None:
        """Load weights saved from an autoencoder of the same sizes.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, of another model, or of other sizes.
        """
        checkpoints.load_weights(self, path)

    @classmethod
    def from_pretrained(
        cls, path: str | Path | None = None, device: str | torch.device | None = None
    ) -> "SimpleAutoencoder":
        """The shipped autoencoder, or the one saved at ``path``, with its sizes read from the file, in eval mode."""
        return checkpoints.build_model(cls, path, device)


def check_pairs(batch: object) -> tuple[Tensor, Tensor]:
    """A batch from a ``DataLoader``, if it is one of images and whole-number labels."""
    pair = batch if isinstance(batch, tuple | list) and len(batch) == 2 else (batch, None)
    if not isinstance(pair[1], Tensor) or pair[1].dtype != torch.int64:
        got = pair[1].dtype if isinstance(pair[1], Tensor) else type(pair[1]).__name__
        raise TypeError(f"expected pairs of an image and a whole number, its label, got labels {got}: see Digits")
    return pair[0], pair[1]


def check_normalisation(mean: Tensor, std: Tensor, latent_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Both on ``device``, if they are the mean and the standard deviation of latents."""
    check_alike(mean, std)
    wanted = f"expected a mean and a standard deviation ({latent_dim},), float32, each deviation above 0, got"
    if mean.shape != (latent_dim,) or mean.dtype != torch.float32 or std.dtype != torch.float32:
        raise ValueError(f"{wanted} {tuple(mean.shape)}, {mean.dtype} and {std.dtype}: take them of these latents")
    if not bool((std > 0).all()):
        raise ValueError(f"{wanted} {std.min():g}: hold it above 0 with std.clamp(min=1e-6)")
    return mean.to(device), std.to(device)


@torch.no_grad()
def take_back(layer: nn.Linear, mean: Tensor, std: Tensor) -> None:
    """Let a linear layer that read latents z read (z - mean) / std instead, and give what it gave."""
    layer.bias.add_(layer.weight @ mean)
    layer.weight.mul_(std)
