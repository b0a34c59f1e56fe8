"""Appendix A1: digits from nothing. A prior draws a latent, the diffusion model the digit that it describes."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffae_core import checkpoints
from diffae_core.checks import check_count, check_latents
from diffae_core.ddim import ddim_sample
from diffae_core.devices import choose_device, random_normal
from diffae_core.schedule import CosineSchedule, from_velocity, noisy_image, velocity
from diffae_core.training import Training, TrainingConfig, fingerprint
from diffae_core.unet import TimeEmbedding


class LatentPrior(nn.Module):
    """A DDIM whose pictures are latents: noise ``(N, latent_dim)`` -> latents that digits might have.

    The Diffusion Autoencoders paper (arXiv 2111.15640) calls it the latent DDIM. The network is a stack of
    linear layers; each sees its noisy input again beside what the layer before it made, and is scaled by the time.

    Args:
        latent_dim: numbers in a latent.
        width: numbers that each layer makes.
        depth: how many such layers.
        time_embedding_dim: sines and cosines that describe the noise level; even.
        device: where to live; None chooses CUDA, MPS or the CPU.
    """

    shipped_weights = "latent_prior.pt"

    def __init__(
        self,
        latent_dim: int = 256,
        width: int = 512,
        depth: int = 4,
        time_embedding_dim: int = 32,
        device: str | torch.device | None = None,
    ):
        super().__init__()
        self.config = {
            "latent_dim": latent_dim,
            "width": width,
            "depth": depth,
            "time_embedding_dim": time_embedding_dim,
        }
        for name, size in self.config.items():
            check_count(size, name)
        if time_embedding_dim % 2:
            raise ValueError(f"expected time_embedding_dim to be a multiple of 2, got {time_embedding_dim}")
        self.latent_dim, self.schedule = latent_dim, CosineSchedule()
        self.time_embedding = TimeEmbedding(time_embedding_dim)
        inputs = [latent_dim, *[width + latent_dim] * (depth - 1)]
        self.layers = nn.ModuleList(nn.Linear(size, width) for size in inputs)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in inputs)
        self.scales = nn.ModuleList(nn.Linear(time_embedding_dim, width) for _ in inputs)
        self.head = nn.Linear(width + latent_dim, latent_dim)
        nn.init.zeros_(self.head.weight)
        self.to(choose_device(device))

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def forward(self, x: Tensor, noise_level: Tensor) -> Tensor:
        """Noisy latents ``(N, latent_dim)`` and their noise rates ``(N,)`` -> the velocity, of x's shape."""
        time, h = self.time_embedding(noise_level), x[:, :0]  # nothing beside x in the first layer
        for layer, norm, scale in zip(self.layers, self.norms, self.scales):
            h = F.silu(norm(layer(torch.cat([h, x], dim=1))) * (1 + scale(time)))  # (N, width)
        return self.head(torch.cat([h, x], dim=1))

    def loss(self, latents: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error of the velocity, ``(N,)``: as :meth:`DiffusionModel.loss`, on latents.

        Args:
            latents: ``(N, latent_dim)``.
            times: ``(N,)`` in [0, 1].
            noise: standard normal, of the latents' shape.
        """
        signal, noise_rate = (rate.flatten(1) for rate in self.schedule.rates(times))  # (N, 1) each
        predicted = self(noisy_image(latents, noise, signal, noise_rate), noise_rate[:, 0])
        return (predicted.float() - velocity(latents, noise, signal, noise_rate)).square().mean(dim=1)

    @torch.no_grad()
    def sample_latents(
        self, n: int, generator: torch.Generator | None = None, num_steps: int = 200, eta: float = 1.0
    ) -> Tensor:
        """Draw ``n`` latents, ``(n, latent_dim)``: hand them to :meth:`DiffusionModel.generate`.

        Args:
            n: how many.
            generator: where the noise comes from.
            num_steps: DDIM steps; each is cheap here.
            eta: 0 to 1. The fresh noise of eta 1 lets later steps mend what earlier ones spoilt: on validation digits
                that gave a lower Frechet distance than eta 0.

        Raises:
            ValueError: a count below 1, or eta outside [0, 1].
        """
        check_count(n, "n")

        def denoiser(x_t: Tensor, times: Tensor, _: None) -> tuple[Tensor, Tensor]:
            rates = self.schedule.rates(times)
            v = self(x_t.flatten(1), rates[1].flatten())
            return from_velocity(x_t, v.reshape(x_t.shape), *rates)

        x_T = random_normal((n, self.latent_dim, 1, 1), self.device, generator)  # to the sampler: one pixel each
        return ddim_sample(denoiser, x_T, None, 1.0, num_steps, eta, generator, schedule=self.schedule).flatten(1)

    def save_checkpoint(self, path: str | Path) -> None:
        """Write configuration and weights to ``path``, whole or not at all."""
        checkpoints.save_model(self, path)

    @classmethod
    def from_pretrained(cls, path: str | Path | None = None, device: str | torch.device | None = None) -> "LatentPrior":
        """The shipped prior, or the one saved at ``path``, with its sizes read from the file, in eval mode."""
        return checkpoints.build_model(cls, path, device)


def train_latent_prior(
    prior: LatentPrior,
    latents: Tensor,
    config: TrainingConfig = TrainingConfig(epochs=120, batch_size=256, learning_rate=2e-3, ema_decay=0.999),
) -> Training:
    """A run that teaches the prior which latents digits have.

    Args:
        prior: the prior to train.
        latents: ``(N, latent_dim)`` of the training digits, from :func:`encode_all`.
        config: how to train.
    """
    latents = check_latents(latents, prior.latent_dim).detach().to(prior.device)

    def batch_loss(index: Tensor, generator: torch.Generator) -> Tensor:
        batch = latents[index.to(latents.device)]
        noise = random_normal(tuple(batch.shape), batch.device, generator)
        times = torch.rand(len(batch), generator=generator).to(batch.device)
        return prior.loss(batch, times, noise).mean()

    return Training(prior, batch_loss, len(latents), config, fingerprint(latents))


class MixturePrior:
    """A Gaussian, or a mixture of Gaussians (scikit-learn's), over latents: what a latent DDIM has to beat.

    A mixture gets 20 rounds of expectation-maximisation; scikit-learn warns where more would still change it.

    Args:
        latents: ``(N, latent_dim)`` of the training digits.
        components: 1 for a single Gaussian; more for a mixture.
        seed: of the fit.

    Raises:
        TypeError, ValueError: not such latents, fewer than two or than ``components``, or no whole number of these.
    """

    def __init__(self, latents: Tensor, components: int = 1, seed: int = 0):
        from sklearn.mixture import GaussianMixture  # when first used: importing the package stays quick

        count, components = len(check_latents(latents)), check_count(components, "components")
        if count < max(2, components):
            raise ValueError(f"expected {max(2, components)} or more latents for {components} components, got {count}")
        self.mixture = GaussianMixture(components, max_iter=20, reg_covar=1e-4, random_state=seed)
        # In float64: covariances of 256 numbers that move together are too fine for float32.
        self.mixture.fit(latents.detach().cpu().double().numpy())

    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` latents, ``(n, latent_dim)`` float32 on the CPU, in random order."""
        device = "cpu" if generator is None else generator.device
        self.mixture.random_state = int(torch.randint(2**31, (1,), generator=generator, device=device))
        drawn, _ = self.mixture.sample(check_count(n, "n"))
        return torch.from_numpy(drawn).float()[torch.randperm(n, generator=generator, device=device).cpu()]
