"""What a user would pick instead, with the methods of ``core.DiffusionModel``: one loop trains and measures all.

The package comes with ``pip install -e '.[bench]'``. Nothing here is part of the tutorial. All train on the same
latents with noise; only ours is told how much.
"""

import math

import diffusers
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import diffae_core as core

WIDTHS, BLOCK_DEPTH, LATENT_DIM, FEATURES = (32, 64, 128), 2, 256, 64
MEAN, STD = 0.1307, 0.3081  # of MNIST's training pixels


def unet2d(in_channels: int) -> diffusers.UNet2DModel:
    """diffusers' UNet2DModel of our widths and depth at 28x28, without attention."""
    blocks = {f"{way}_block_types": (f"{way.title()}Block2D",) * len(WIDTHS) for way in ("down", "up")}
    settings = {"layers_per_block": BLOCK_DEPTH, "block_out_channels": WIDTHS, "norm_num_groups": 8, **blocks}
    return diffusers.UNet2DModel(28, in_channels, 1, class_embed_type="identity", add_attention=False, **settings)


class WithMap(nn.Module):
    """diffusers' U-Net called like ours, with our latent map: this separates architecture from conditioning."""

    def __init__(self):
        super().__init__()
        self.latent_embedding = nn.Linear(LATENT_DIM, 4 * WIDTHS[0])
        to_map = nn.Unflatten(1, (FEATURES, 7, 7)), nn.PixelShuffle(4)  # (N, 4, 28, 28)
        self.latent_map = nn.Sequential(nn.Linear(LATENT_DIM, FEATURES * 49), *to_map)
        self.network = unet2d(1 + 4)

    def forward(self, x: Tensor, noise_rate: Tensor, latents: Tensor, latent_noise: Tensor) -> Tensor:
        joined = torch.cat([x, self.latent_map(latents)], dim=1)  # (N, 5, 28, 28)
        return self.network(joined, 1000 * noise_rate, class_labels=self.latent_embedding(latents)).sample


class Diffusers(core.DiffusionModel):
    """diffusers as it comes: its U-Net and its own DDIM scheduler, the latent as the class embedding.

    Its best settings for few steps: velocity, a schedule that ends in pure noise, and "trailing" steps.
    """

    def __init__(self):
        super().__init__(network=unet2d(1), device="cpu")
        self.latent_embedding = nn.Linear(LATENT_DIM, 4 * WIDTHS[0])
        best = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        self.scheduler = diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False, **best)

    def predict(self, noisy: Tensor, step: Tensor, latents: Tensor) -> Tensor:
        return self.network(noisy, step, class_labels=self.latent_embedding(latents)).sample

    def loss(self, images, latents, times, noise, latent_noise=None) -> Tensor:
        clean, step = 2 * images - 1, (times * len(self.scheduler.alphas_cumprod)).long()
        predicted = self.predict(self.scheduler.add_noise(clean, noise, step), step, latents)
        return (predicted - self.scheduler.get_velocity(clean, noise, step)).square().mean(dim=(1, 2, 3))

    @torch.no_grad()
    def generate(self, latents: Tensor, num_steps: int = 20, generator: torch.Generator | None = None) -> Tensor:
        x = torch.randn(len(latents), 1, 28, 28, generator=generator)
        self.scheduler.set_timesteps(num_steps)
        for step in self.scheduler.timesteps:
            x = self.scheduler.step(self.predict(x, step, latents), step, x).prev_sample
        return core.to_pixels(x)


class PlainBlock(nn.Module):
    """Batch norm without weights (Keras' constants), two 3x3 convolutions with a swish between, and the input added."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.skip = nn.Identity() if in_channels == channels else nn.Conv2d(in_channels, channels, 1)
        self.norm = nn.BatchNorm2d(in_channels, eps=1e-3, momentum=0.01, affine=False)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.conv2(F.silu(self.conv1(self.norm(x))))


class KerasNetwork(nn.Module):
    """The Keras DDIM example's U-Net, in our own words, at 28x28: (x, noise rate, latents) -> the noise.

    The squared noise rate, as 32 sines and cosines, is laid over the whole image and joined to it at the input, and
    nowhere else. The example has no latent: ours joins there, too, as 64 numbers through one linear layer.
    """

    def __init__(self):
        super().__init__()
        self.noise_embedding = core.unet.TimeEmbedding(32)
        self.latent_embedding = nn.Linear(LATENT_DIM, FEATURES)
        self.stem = nn.Conv2d(1, WIDTHS[0], 1)
        pairs, self.down, self.up = list(zip(WIDTHS, WIDTHS[1:])), nn.ModuleList(), nn.ModuleList()
        channels = WIDTHS[0] + 32 + FEATURES
        for finer, _ in pairs:
            self.down.append(nn.ModuleList([PlainBlock(channels, finer), PlainBlock(finer, finer)]))
            channels = finer
        self.middle = nn.Sequential(PlainBlock(channels, WIDTHS[-1]), PlainBlock(WIDTHS[-1], WIDTHS[-1]))
        for finer, coarser in reversed(pairs):
            self.up.append(nn.ModuleList([PlainBlock(coarser + finer, finer), PlainBlock(2 * finer, finer)]))
        self.head = nn.Conv2d(WIDTHS[0], 1, 1)
        for module in self.modules():  # as Keras begins
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor, noise_rate: Tensor, latents: Tensor) -> Tensor:
        joined = torch.cat([self.noise_embedding(noise_rate**2), self.latent_embedding(latents)], dim=1)
        h, skips = torch.cat([self.stem(x), joined[:, :, None, None].expand(-1, -1, 28, 28)], dim=1), []
        for blocks in self.down:
            for block in blocks:
                h = block(h)
                skips.append(h)
            h = F.avg_pool2d(h, 2)  # (N, 32, 14, 14), then (N, 64, 7, 7)
        h = self.middle(h)
        for blocks in self.up:
            h = F.interpolate(h, scale_factor=2, mode="bilinear")
            for block in blocks:
                h = block(torch.cat([h, skips.pop()], dim=1))
        return self.head(h)


class KerasSchedule(core.CosineSchedule):
    """Signal rates from 0.95 to 0.02, in equal steps of the angle."""

    def rates(self, diffusion_time: Tensor, ndim: int = 1) -> tuple[Tensor, Tensor]:
        first, last = (math.acos(rate) / (math.pi / 2) for rate in (0.95, 0.02))
        return super().rates(first + diffusion_time * (last - first), ndim)


class KerasRecipe(core.DiffusionModel):
    """The Keras DDIM example's recipe: standardised images, the noise predicted with mean absolute error."""

    def __init__(self):
        super().__init__(network=KerasNetwork(), device="cpu")
        self.schedule = KerasSchedule()

    def denoise(self, x: Tensor, times: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        rates = self.schedule.rates(times, ndim=4)
        return core.schedule.from_noise(x, self.network(x, rates[1].flatten(), latents), *rates)

    def loss(self, images, latents, times, noise, latent_noise=None) -> Tensor:
        noisy = core.schedule.noisy_image((images - MEAN) / STD, noise, *self.schedule.rates(times, ndim=4))
        return (self.denoise(noisy, times, latents)[1] - noise).abs().mean(dim=(1, 2, 3))

    @torch.no_grad()
    def generate(self, latents: Tensor, num_steps: int = 20, generator: torch.Generator | None = None) -> Tensor:
        x, times = torch.randn(len(latents), 1, 28, 28, generator=generator), core.step_times(num_steps)
        *_, (_, clean) = core.ddim_steps(self.denoise, x, times, latents, schedule=self.schedule)
        return (clean * STD + MEAN).clamp(0, 1)


KERAS = {"weight_decay": 1e-4, "ema_decay": 0.999, "gradient_clip": 1e9, "warmup": 0}
CONTENDERS = {  # name -> (how to build it, its settings of TrainingConfig)
    "ours": (lambda: core.DiffusionModel(device="cpu"), {}),
    "diffusers": (Diffusers, {}),
    "diffusers, our latent map": (lambda: core.DiffusionModel(network=WithMap(), device="cpu"), {}),
    "Keras recipe": (KerasRecipe, {"learning_rate_schedule": "constant", **KERAS}),
}


def start(name: str, digits: core.Digits, autoencoder, steps: int, **settings) -> core.Training:
    """A run of so many steps of one contender, in float32 and channels_last, with settings of TrainingConfig."""
    build, own = CONTENDERS[name]
    settings = {"batch_size": 64} | own | settings
    torch.manual_seed(settings.get("seed", 0))
    epochs = steps / max(1, len(digits) // settings["batch_size"])
    config = core.TrainingConfig(epochs=epochs, bfloat16=False, **settings)
    return core.train_diffusion(build().to(memory_format=torch.channels_last), digits, autoencoder, config)
