"""What a user would pick instead, with the methods of ``core.DiffusionModel``: one loop trains and measures all.

The package comes with ``pip install -e '.[bench]'``. Nothing here is part of the tutorial. Each is trained on the same
latents with noise as ours; none is told how much.
"""

import diffusers
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import diffae_core as core

WIDTHS, BLOCK_DEPTH, LATENT_DIM = (32, 64, 128), 2, 256
MEAN, STD = 0.1307, 0.3081  # of MNIST's training pixels


def unet2d(in_channels: int) -> diffusers.UNet2DModel:
    """diffusers' UNet2DModel of our widths and depth at 28x28, without attention."""
    return diffusers.UNet2DModel(
        sample_size=28,
        in_channels=in_channels,
        out_channels=1,
        layers_per_block=BLOCK_DEPTH,
        block_out_channels=WIDTHS,
        down_block_types=("DownBlock2D",) * len(WIDTHS),
        up_block_types=("UpBlock2D",) * len(WIDTHS),
        norm_num_groups=8,
        class_embed_type="identity",
        add_attention=False,
    )


class WithMap(nn.Module):
    """diffusers' U-Net called like ours, with our latent map: architecture and conditioning told apart."""

    def __init__(self):
        super().__init__()
        self.latent_embedding = nn.Linear(LATENT_DIM, 4 * WIDTHS[0])
        self.latent_map = nn.Sequential(nn.Linear(LATENT_DIM, 64 * 49), nn.Unflatten(1, (64, 7, 7)), nn.PixelShuffle(4))
        self.network = unet2d(1 + 4)

    def forward(self, x: Tensor, noise_rate: Tensor, latents: Tensor, latent_noise: Tensor) -> Tensor:
        joined = torch.cat([x, self.latent_map(latents)], dim=1)  # (N, 5, 28, 28)
        return self.network(joined, 1000 * noise_rate, class_labels=self.latent_embedding(latents)).sample


def diffusers_with_map() -> core.DiffusionModel:
    """Our schedule, loss and sampler around diffusers' U-Net."""
    return core.DiffusionModel(network=WithMap(), device="cpu")


class Diffusers(core.DiffusionModel):
    """diffusers as it comes: its U-Net and its own DDIM scheduler, the latent as the class embedding.

    Its best settings for few steps: velocity, a schedule that ends in pure noise, and "trailing" steps.
    """

    def __init__(self):
        super().__init__(network=unet2d(1), device="cpu")
        self.latent_embedding = nn.Linear(LATENT_DIM, 4 * WIDTHS[0])
        self.scheduler = diffusers.DDIMScheduler(
            beta_schedule="squaredcos_cap_v2",
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            clip_sample=False,
        )

    def predict(self, noisy: Tensor, step: Tensor, latents: Tensor) -> Tensor:
        return self.network(noisy, step, class_labels=self.latent_embedding(latents)).sample.float()

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

    The squared noise rate, as 32 sines and cosines, and the latent, as 32 numbers through one linear layer, are laid
    over the whole image and joined to it at the input, and nowhere else. Skips are concatenated.
    """

    def __init__(self):
        super().__init__()
        noise_dim, width = 32, WIDTHS[0]
        self.noise_embedding = core.unet.TimeEmbedding(noise_dim)
        self.latent_embedding = nn.Linear(LATENT_DIM, noise_dim)
        self.stem = nn.Conv2d(1, width, 1)
        channels, self.down, skips = width + 2 * noise_dim, nn.ModuleList(), []
        for width in WIDTHS[:-1]:
            for _ in range(BLOCK_DEPTH):
                self.down.append(PlainBlock(channels, width))
                channels = width
                skips.append(width)
        self.middle = nn.Sequential(PlainBlock(channels, WIDTHS[-1]), PlainBlock(WIDTHS[-1], WIDTHS[-1]))
        channels, self.up = WIDTHS[-1], nn.ModuleList()
        for width in reversed(WIDTHS[:-1]):
            for _ in range(BLOCK_DEPTH):
                self.up.append(PlainBlock(channels + skips.pop(), width))
                channels = width
        self.head = nn.Conv2d(channels, 1, 1)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor, noise_rate: Tensor, latents: Tensor) -> Tensor:
        joined = torch.cat([self.noise_embedding(noise_rate**2), self.latent_embedding(latents)], dim=1)
        h = torch.cat([self.stem(x), joined[:, :, None, None].expand(-1, -1, 28, 28)], dim=1)
        skips = []
        for number, block in enumerate(self.down):
            h = block(h)
            skips.append(h)
            if number % BLOCK_DEPTH == BLOCK_DEPTH - 1:
                h = F.avg_pool2d(h, 2)
        h = self.middle(h)
        for number, block in enumerate(self.up):
            if number % BLOCK_DEPTH == 0:
                h = F.interpolate(h, scale_factor=2, mode="bilinear")
            h = block(torch.cat([h, skips.pop()], dim=1))
        return self.head(h).float()


class KerasRecipe(core.DiffusionModel):
    """The Keras DDIM example's recipe: standardised images, the noise predicted with mean absolute error.

    Its signal rates go from 0.95 to 0.02.
    """

    def __init__(self):
        super().__init__(network=KerasNetwork(), device="cpu")

    def rates(self, times: Tensor) -> tuple[Tensor, Tensor]:
        low, high = torch.tensor([0.95, 0.02]).acos()
        angle = (low + times * (high - low))[:, None, None, None]
        return angle.cos(), angle.sin()

    def loss(self, images, latents, times, noise, latent_noise=None) -> Tensor:
        rates = self.rates(times)
        noisy = core.schedule.noisy_image((images - MEAN) / STD, noise, *rates)
        return (self.network(noisy, rates[1].flatten(), latents) - noise).abs().mean(dim=(1, 2, 3))

    @torch.no_grad()
    def generate(self, latents: Tensor, num_steps: int = 20, generator: torch.Generator | None = None) -> Tensor:
        x, count = torch.randn(len(latents), 1, 28, 28, generator=generator), len(latents)
        for step in range(num_steps, 0, -1):
            rates, following = (self.rates(torch.full((count,), one / num_steps)) for one in (step, step - 1))
            clean, noise = core.schedule.from_noise(x, self.network(x, rates[1].flatten(), latents), *rates)
            x = core.schedule.noisy_image(clean, noise, *following)
        return (clean * STD + MEAN).clamp(0, 1)


# name -> (how to build it, the learning rates that are tried, its other settings)
KERAS = {
    "weight_decay": 1e-4,
    "ema_decay": 0.999,
    "gradient_clip": 1e9,
    "learning_rate_schedule": "constant",
    "warmup": 0,
}
CONTENDERS = {
    "ours": (lambda: core.DiffusionModel(device="cpu"), (core.TrainingConfig.learning_rate,), {}),
    "diffusers": (Diffusers, (5e-4, 1e-3, 2e-3), {}),
    "diffusers, our latent map": (diffusers_with_map, (5e-4, 1e-3, 2e-3), {}),
    "Keras recipe": (KerasRecipe, (5e-4, 1e-3, 2e-3), KERAS),
}
LAYOUTS = [
    (bfloat16, layout) for bfloat16 in (False, True) for layout in (torch.contiguous_format, torch.channels_last)
]


def start(name: str, digits: core.Digits, autoencoder, epochs: float, setting: tuple, **settings) -> core.Training:
    """A run of one contender in a setting, (bfloat16, memory layout), with settings of TrainingConfig."""
    build, _, own = CONTENDERS[name]
    bfloat16, layout = setting
    torch.manual_seed(settings.get("seed", 0))
    model = build().to(memory_format=layout)
    config = core.TrainingConfig(epochs=epochs, bfloat16=bfloat16, **own | settings)
    return core.train_diffusion(model, digits, autoencoder, config)


def setting_name(setting: tuple) -> str:
    return ("bfloat16" if setting[0] else "float32") + (", channels_last" if setting[1] == torch.channels_last else "")
