"""Notebook 03: a small U-Net that sees a noisy image, its noise rate and a latent, and predicts the velocity."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffae_core.base.validation import check_count

UNKNOWN = -1.0  # stands for a latent_noise that is not given


class TimeEmbedding(nn.Module):
    """Noise rate ``(N,)`` in [0, 1] -> ``(N, dim)`` sines and cosines of it, from slow waves to fast ones."""

    angular_speeds: Tensor

    def __init__(self, dim: int):
        super().__init__()
        frequencies = torch.linspace(math.log(1.0), math.log(1000.0), dim // 2, device="cpu").exp()
        angular_speeds = (2 * math.pi * frequencies).to(torch.empty(0).device)  # the default device
        self.register_buffer("angular_speeds", angular_speeds, persistent=False)

    def forward(self, noise_rate: Tensor) -> Tensor:
        angles = noise_rate[:, None] * self.angular_speeds  # (N, dim / 2)
        return torch.cat([angles.sin(), angles.cos()], dim=1)  # (N, dim)


class ResidualBlock(nn.Module):
    """A 3x3 and a 1x1 convolution; between them, time and latent scale and shift each channel (FiLM, 1709.07871)."""

    def __init__(self, channels: int, condition_dim: int):
        super().__init__()
        self.norm1 = group_norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = group_norm(channels, affine=False)
        self.scale_and_shift = nn.Linear(condition_dim, 2 * channels)
        self.conv2 = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.conv2.weight)  # a new block passes its input on unchanged
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.scale_and_shift(condition)[:, :, None, None].chunk(2, dim=1)  # (N, C, 1, 1) each
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.norm2(h) * (1 + scale) + shift
        return x + self.conv2(F.silu(h))


def check_widths(widths: tuple[int, ...]) -> tuple[int, ...]:
    """The channels at each resolution, as a tuple; a ValueError for anything but one or more whole numbers from 1."""
    if not hasattr(widths, "__len__"):
        raise ValueError(f"expected widths, one number for each resolution, got {widths!r}: give e.g. (32, 64, 128)")
    check_count(len(widths), "the number of widths")
    return tuple(check_count(width, "each of widths") for width in widths)


class ConditionalUNet(nn.Module):
    """Noisy image, noise rate and latent -> the predicted velocity, of the image's shape.

    The image is rearranged by space-to-depth first: ``(1, 28, 28)`` becomes ``(4, 14, 14)``, a quarter of the work for
    the same image. The latent enters twice: as a map beside that image, which says *where* the ink goes, and together
    with the noise rate in every block, as scale and shift. Skip connections are added, not concatenated, so that the
    way up is as wide as the way down.

    Args:
        time_embedding_dim: how many sines and cosines describe the noise rate; even.
        feature_embedding_dim: how many numbers the latent becomes for each 4x4 patch of the image, and for the blocks;
            a multiple of 4.
        widths: channels at each resolution, finest first.
        block_depth: residual blocks at each resolution, on the way down and again on the way up.
        latent_dim: numbers in a latent.
        image_size: height and width of the image; a multiple of 4.

    Raises:
        ValueError: a size that is not such a whole number.
    """

    def __init__(
        self,
        time_embedding_dim: int = 32,
        feature_embedding_dim: int = 64,
        widths: tuple[int, ...] = (32, 64, 128),
        block_depth: int = 2,
        latent_dim: int = 256,
        image_size: int = 28,
    ):
        super().__init__()
        check_count(time_embedding_dim, "time_embedding_dim", multiple_of=2)
        check_count(feature_embedding_dim, "feature_embedding_dim", multiple_of=4)
        widths = check_widths(widths)
        check_count(block_depth, "block_depth")
        check_count(latent_dim, "latent_dim")
        # GroupNorm needs more than one pixel at the coarsest level
        check_count(image_size, "image_size", at_least=2 ** len(widths) + 1, multiple_of=4)
        condition_dim, pairs = widths[-1], list(zip(widths, widths[1:]))  # pairs: (finer, coarser)

        self.time_embedding = TimeEmbedding(time_embedding_dim)
        self.feature_embedding = nn.Linear(latent_dim, feature_embedding_dim)
        self.condition = nn.Sequential(
            nn.Linear(time_embedding_dim + feature_embedding_dim + 2, condition_dim),  # 2: the latent's noise
            nn.SiLU(),
            nn.Linear(condition_dim, condition_dim),
            nn.SiLU(),
        )
        self.latent_map = nn.Sequential(
            nn.Linear(latent_dim, feature_embedding_dim * (image_size // 4) ** 2),
            nn.Unflatten(1, (feature_embedding_dim, image_size // 4, image_size // 4)),  # (N, 64, 7, 7)
            nn.PixelShuffle(2),  # (N, 16, 14, 14)
        )

        def blocks(width: int) -> nn.ModuleList:
            return nn.ModuleList(ResidualBlock(width, condition_dim) for _ in range(block_depth))

        self.stem = nn.Conv2d(4 + feature_embedding_dim // 4, widths[0], 3, padding=1)
        self.down = nn.ModuleList(blocks(finer) for finer, _ in pairs)
        self.shrink = nn.ModuleList(nn.Conv2d(finer, coarser, 3, stride=2, padding=1) for finer, coarser in pairs)
        self.middle = blocks(widths[-1])
        self.grow = nn.ModuleList(nn.Conv2d(coarser, finer, 1) for finer, coarser in reversed(pairs))
        self.up = nn.ModuleList(blocks(finer) for finer, _ in reversed(pairs))
        self.head = nn.Sequential(group_norm(widths[0]), nn.SiLU(), nn.Conv2d(widths[0], 4, 3, padding=1))
        nn.init.zeros_(self.head[-1].weight)
        self.to(memory_format=torch.channels_last)

    def read(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """What depends on the latents alone, to be computed once for many steps: their map and their embedding."""
        return self.latent_map(latents), self.feature_embedding(latents)  # (N, 16, 14, 14), (N, 64)

    def forward(
        self, x: Tensor, noise_rate: Tensor, latents: Tensor | tuple[Tensor, Tensor], latent_noise: Tensor
    ) -> Tensor:
        """The velocity, of x's shape.

        Args:
            x: x_t, ``(N, 1, H, W)``.
            noise_rate: of x_t, ``(N,)``.
            latents: ``(N, latent_dim)``, or what :meth:`read` returned for them.
            latent_noise: standard deviation of the noise in the latents, ``(N,)``; UNKNOWN (-1) where not given.
        """
        if len(x) == 0:  # pixel_unshuffle takes no empty batch
            return x
        known = (latent_noise >= 0).float()
        told = torch.stack([latent_noise * known, known], dim=1)  # (N, 2)
        latent_map, embedding = latents if isinstance(latents, tuple) else self.read(latents)
        condition = self.condition(torch.cat([self.time_embedding(noise_rate), embedding, told], dim=1))  # (N, 128)
        h = self.stem(torch.cat([F.pixel_unshuffle(x, 2), latent_map], dim=1))  # (N, 32, 14, 14)
        skips = []
        for blocks, shrink in zip(self.down, self.shrink):
            for block in blocks:
                h = block(h, condition)
                skips.append(h)
            h = shrink(h)  # (N, 64, 7, 7), then (N, 128, 4, 4)
        for block in self.middle:
            h = block(h, condition)
        for grow, blocks in zip(self.grow, self.up):
            h = F.interpolate(grow(h), size=skips[-1].shape[2:])  # (N, 64, 7, 7), then (N, 32, 14, 14)
            for block in blocks:
                h = block(h + skips.pop(), condition)
        return F.pixel_shuffle(self.head(h), 2)  # (N, 1, 28, 28)


def group_norm(channels: int, affine: bool = True) -> nn.GroupNorm:
    """GroupNorm with 8 groups, or 4, 2 or 1 where 8 do not divide the channels."""
    return nn.GroupNorm(math.gcd(channels, 8), channels, affine=affine)
