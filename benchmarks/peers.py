"""What a user would pick instead, with the doors of ``core.DiffusionModel``, so that one loop trains and measures all.

The packages come with ``pip install -e '.[bench]'``. Nothing here is part of the tutorial.
"""

import diffusers
import torch
import torch.nn.functional as F
from denoising_diffusion_pytorch import GaussianDiffusion, Unet
from torch import Tensor, nn

import diffae_core as core

WIDTHS, BLOCK_DEPTH, LATENT_DIM = (32, 64, 128), 2, 256


class Diffusers(nn.Module):
    """``diffusers``: a UNet2DModel of our widths and depth at 28x28, with its own DDIM scheduler.

    The latent comes in as the class embedding, through one linear layer to the 128 numbers that it must have. Its best
    settings for few steps: velocity, a schedule that ends in pure noise, and "trailing" steps.
    """

    def __init__(self):
        super().__init__()
        self.latent_dim = LATENT_DIM
        self.config = {}
        self.network = diffusers.UNet2DModel(
            sample_size=28,
            in_channels=1,
            out_channels=1,
            layers_per_block=BLOCK_DEPTH,
            block_out_channels=WIDTHS,
            down_block_types=("DownBlock2D",) * len(WIDTHS),
            up_block_types=("UpBlock2D",) * len(WIDTHS),
            norm_num_groups=8,
            class_embed_type="identity",
            add_attention=False,
        )
        self.latent_embedding = nn.Linear(LATENT_DIM, 4 * WIDTHS[0])
        self.scheduler = diffusers.DDIMScheduler(
            beta_schedule="squaredcos_cap_v2",
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            timestep_spacing="trailing",
            clip_sample=False,
        )

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def predict(self, noisy: Tensor, step: Tensor, latents: Tensor) -> Tensor:
        return self.network(noisy, step, class_labels=self.latent_embedding(latents)).sample.float()

    def loss(self, images: Tensor, latents: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        clean, step = 2 * images - 1, (times * len(self.scheduler.alphas_cumprod)).long()
        predicted = self.predict(self.scheduler.add_noise(clean, noise, step), step, latents)
        return (predicted - self.scheduler.get_velocity(clean, noise, step)).square().mean(dim=(1, 2, 3))

    @torch.no_grad()
    def generate(self, latents: Tensor, num_steps: int = 20, generator: torch.Generator | None = None) -> Tensor:
        x = torch.randn(len(latents), 1, 28, 28, generator=generator)
        self.scheduler.set_timesteps(num_steps)
        for step in self.scheduler.timesteps:
            x = self.scheduler.step(self.predict(x, step, latents), step, x).prev_sample
        return ((x + 1) / 2).clamp(0, 1)


class PlainBlock(nn.Module):
    """Batch norm without weights, two 3x3 convolutions with a swish between, and the input added."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.skip = nn.Identity() if in_channels == channels else nn.Conv2d(in_channels, channels, 1)
        self.norm = nn.BatchNorm2d(in_channels, affine=False)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.conv2(F.silu(self.conv1(self.norm(x))))


class KerasRecipe(core.DiffusionModel):
    """After the Keras DDIM example, in our own words, at 28x28, with a latent.

    It differs from the example in this: images are in [-1, 1], not standardised; the noise rate is embedded, not its
    square; batch norms have torch's defaults.

    The noise level, as 32 sines and cosines, and the latent, as 32 numbers through one linear layer, are laid over the
    whole image and joined to it at the input, and nowhere else. Skips are concatenated. It predicts the noise, with
    mean absolute error, between signal rates of 0.95 and 0.02.
    """

    def __init__(self):
        super().__init__(device="cpu")
        del self.network
        noise_dim, width = 32, WIDTHS[0]
        self.noise_embedding = core.TimeEmbedding(noise_dim)
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

    def rates(self, times: Tensor) -> tuple[Tensor, Tensor]:
        low, high = torch.tensor([0.95, 0.02]).acos()
        angle = (low + times * (high - low))[:, None, None, None]
        return angle.cos(), angle.sin()

    def network_noise(self, noisy: Tensor, noise_rate: Tensor, latents: Tensor) -> Tensor:
        joined = torch.cat([self.noise_embedding(noise_rate.flatten()), self.latent_embedding(latents)], dim=1)
        h = torch.cat([self.stem(noisy), joined[:, :, None, None].expand(-1, -1, 28, 28)], dim=1)
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

    def loss(self, images: Tensor, latents: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        signal, noise_rate = self.rates(times)
        noisy = signal * (2 * images - 1) + noise_rate * noise
        return (self.network_noise(noisy, noise_rate, latents) - noise).abs().mean(dim=(1, 2, 3))

    def _denoise(self, x_t: Tensor, times: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        signal, noise_rate = self.rates(times)
        noise = self.network_noise(x_t, noise_rate, latents)
        return (x_t - noise_rate * noise) / signal, noise

    @torch.no_grad()
    def generate(self, latents: Tensor, num_steps: int = 20, generator: torch.Generator | None = None) -> Tensor:
        x, count = torch.randn(len(latents), 1, 28, 28, generator=generator), len(latents)
        for step in range(num_steps, 0, -1):
            clean, noise = self._denoise(x, torch.full((count,), step / num_steps), latents)
            signal, noise_rate = self.rates(torch.full((count,), (step - 1) / num_steps))
            x = signal * clean + noise_rate * noise
        return ((clean + 1) / 2).clamp(0, 1)


class DenoisingDiffusionPytorch(nn.Module):
    """``denoising-diffusion-pytorch``: its U-Net of our widths at 28x28 with its own DDIM. It takes no latent."""

    def __init__(self):
        super().__init__()
        self.latent_dim = LATENT_DIM
        self.config = {}
        network = Unet(dim=WIDTHS[0], dim_mults=tuple(width // WIDTHS[0] for width in WIDTHS), channels=1)
        self.diffusion = GaussianDiffusion(network, image_size=28, objective="pred_v", sampling_timesteps=20)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def loss(self, images: Tensor, latents: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        return self.diffusion(images)[None]

    @torch.no_grad()
    def generate(self, latents: Tensor, num_steps: int = 20, generator: torch.Generator | None = None) -> Tensor:
        self.diffusion.sampling_timesteps = num_steps
        return self.diffusion.ddim_sample((len(latents), 1, 28, 28))
