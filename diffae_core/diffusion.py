"""Notebook 04: DiffusionModel, the U-Net, the schedule and the sampler behind a few verbs."""

from pathlib import Path

import torch
from torch import Tensor, nn

from diffae_core import checkpoints
from diffae_core.autoencoder import check_normalisation, take_back
from diffae_core.checks import check_images, check_latents, check_time
from diffae_core.ddim import StepCallback, ddim_invert, ddim_sample
from diffae_core.devices import choose_device, random_normal
from diffae_core.schedule import CosineSchedule, from_velocity, noisy_image, velocity
from diffae_core.unet import ConditionalUNet


class DiffusionModel(nn.Module):
    """A DDIM conditioned on a latent: noise and latent -> the digit that the latent describes.

    Images are in [0, 1] at every door; inside, and in what ``add_noise`` gives, they are in [-1, 1] plus noise. A
    freshly built model draws noise: train it, or load weights with ``from_pretrained``.

    Args:
        time_embedding_dim: sines and cosines that describe the noise level; even.
        feature_embedding_dim: what the latent becomes inside the U-Net (:class:`ConditionalUNet`); a multiple of 4.
        widths: channels at each resolution of the U-Net, finest first.
        block_depth: residual blocks at each resolution, going down and again coming up.
        latent_dim: numbers in a latent.
        image_size: height and width of the images; a multiple of 4.
        device: where to live; None chooses CUDA, MPS or the CPU.
    """

    shipped_weights = "diffusion_model.pt"

    def __init__(
        self,
        time_embedding_dim: int = 32,
        feature_embedding_dim: int = 64,
        widths: tuple[int, ...] = (32, 64, 128),
        block_depth: int = 2,
        latent_dim: int = 256,
        image_size: int = 28,
        device: str | torch.device | None = None,
    ):
        super().__init__()
        self.config = {
            "time_embedding_dim": time_embedding_dim,
            "feature_embedding_dim": feature_embedding_dim,
            "widths": tuple(widths),
            "block_depth": block_depth,
            "latent_dim": latent_dim,
            "image_size": image_size,
        }
        self.latent_dim, self.image_size = latent_dim, image_size
        self.network = ConditionalUNet(**self.config)
        self.schedule = CosineSchedule()
        self.to(choose_device(device))

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @torch.no_grad()
    def add_noise(
        self, images: Tensor, diffusion_time: float | Tensor = 0.7, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Drown images in noise: ``noisy = signal_rate * (2 * images - 1) + noise_rate * noise``.

        Args:
            images: ``(N, 1, 28, 28)`` in [0, 1].
            diffusion_time: in [0, 1], 0 leaves the image clean and 1 leaves only noise; a number or ``(N,)``.
            generator: where the noise comes from.

        Returns:
            ``(noisy, noise)``, each of the images' shape. ``noisy`` is in the diffusion's own scale: the picture in
            [-1, 1], plus noise, so its values go beyond that.

        Raises:
            TypeError, ValueError: not such images or times; values outside [0, 1] only warn, once.
        """
        images = check_images(images, self.image_size).to(self.device)
        times = check_time(diffusion_time, len(images), self.device)
        noise = random_normal(tuple(images.shape), self.device, generator)
        return noisy_image(2 * images - 1, noise, *self.schedule.rates(times)), noise

    @torch.no_grad()
    def denoise_with_latent(
        self,
        noisy: Tensor,
        latents: Tensor,
        diffusion_time: float | Tensor = 0.7,
        num_steps: int = 20,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
        spacing: str = "uniform",
    ) -> Tensor:
        """Take the noise out of what ``add_noise`` gave, led by the latents.

        Args:
            noisy: ``(N, 1, 28, 28)`` from ``add_noise``.
            latents: ``(N, latent_dim)`` from the autoencoder's ``encode``, or changed as you like.
            diffusion_time: the time that ``add_noise`` was given.
            num_steps: DDIM steps from there to 0.
            eta: 0 for the one picture that DDIM settles on, up to 1 for a fresh draw each time, as in DDPM.
            generator: where the fresh noise of eta > 0 comes from.
            spacing: "uniform", "quadratic" or "log-snr": how the steps divide the time (:func:`step_times`).

        Returns:
            Images ``(N, 1, 28, 28)`` in [0, 1].

        Raises:
            TypeError, ValueError: a wrong shape, dtype or value; the message says what was wanted.
        """
        noisy = check_images(noisy, self.image_size, scaled=False).to(self.device)
        times = check_time(diffusion_time, len(noisy), self.device)
        return self._sample(noisy, latents, times, num_steps, eta, generator, None, spacing)

    @torch.no_grad()
    def generate(
        self,
        latents: Tensor,
        num_steps: int = 20,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
        callback: StepCallback | None = None,
        x_T: Tensor | None = None,
        spacing: str = "uniform",
    ) -> Tensor:
        """Draw the digits that ``latents`` describe, from pure noise x_T.

        Args:
            latents: ``(N, latent_dim)``.
            num_steps, eta: as in ``denoise_with_latent``.
            generator: where x_T, and the fresh noise of eta > 0, come from.
            callback: called after each step as ``callback(step, x_t, x_0)``, both in [-1, 1] plus noise.
            x_T: the noise to begin with, ``(N, 1, 28, 28)``, such as ``invert`` gives; None draws it.
            spacing: "uniform", "quadratic" or "log-snr": how the steps divide the time (:func:`step_times`).

        Returns:
            Images ``(N, 1, 28, 28)`` in [0, 1].

        Raises:
            TypeError, ValueError: a wrong shape, dtype or value; the message says what was wanted.
        """
        check_latents(latents, self.latent_dim)
        if x_T is None:
            x_T = random_normal((len(latents), 1, self.image_size, self.image_size), self.device, generator)
        x_T = check_images(x_T, self.image_size, scaled=False).to(self.device)
        times = torch.ones(len(x_T), device=self.device)
        return self._sample(x_T, latents, times, num_steps, eta, generator, callback, spacing)

    @torch.no_grad()
    def invert(
        self, images: Tensor, latents: Tensor, num_steps: int = 100, corrections: int = 0, spacing: str = "uniform"
    ) -> Tensor:
        """The stochastic code x_T of images: the noise from which ``generate`` draws them again (:func:`ddim_invert`).

        ``generate(latents, num_steps, x_T=x_T, spacing=spacing)`` gives the images back: the better the more steps, and
        far better with quadratic spacing and a few ``corrections``.

        Args:
            images: ``(N, 1, 28, 28)`` in [0, 1].
            latents: ``(N, latent_dim)``, theirs; with other latents, x_T takes up what these do not say.
            num_steps, spacing: those of the ``generate`` to come.
            corrections: times that each step is improved; each costs as much as the step itself.

        Returns:
            x_T ``(N, 1, 28, 28)``. For images like the training digits its standard deviation comes to 1, that of true
            noise, with many steps or corrections; with few, it is too smooth.

        Raises:
            TypeError, ValueError: a wrong shape, dtype or value; the message says what was wanted.
        """
        images = check_images(images, self.image_size).to(self.device)
        latents = check_latents(latents, self.latent_dim, len(images)).to(self.device)
        return ddim_invert(self._denoise, 2 * images - 1, latents, num_steps, corrections, self.schedule, spacing)

    def denoise_once(self, noisy: Tensor, diffusion_time: float | Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """One call of the U-Net: ``(x_0, noise)`` as it guesses them, in the diffusion's scale; differentiable.

        The U-Net predicts the velocity ``v`` (arXiv 2202.00512); ``x_0 = signal_rate * x_t - noise_rate * v`` and
        ``noise = noise_rate * x_t + signal_rate * v``.

        Args:
            noisy: x_t, ``(N, 1, 28, 28)``.
            diffusion_time: in [0, 1], a number or ``(N,)``.
            latents: ``(N, latent_dim)``.

        Raises:
            TypeError, ValueError: a wrong shape, dtype or value; the message says what was wanted.
        """
        noisy = check_images(noisy, self.image_size, scaled=False).to(self.device)
        latents = check_latents(latents, self.latent_dim, len(noisy)).to(self.device)
        return self._denoise(noisy, check_time(diffusion_time, len(noisy), self.device), latents)

    def loss(self, images: Tensor, latents: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """How far the U-Net's velocity is from the true one: mean squared error of each image, ``(N,)``.

        For training, which calls it at every step: only the times are checked.

        Args:
            images: ``(N, 1, 28, 28)`` in [0, 1].
            latents: ``(N, latent_dim)``.
            times: ``(N,)`` in [0, 1].
            noise: standard normal, of the images' shape.
        """
        clean, rates = 2 * images - 1, self.schedule.rates(times)
        predicted = self.network(noisy_image(clean, noise, *rates), rates[1].flatten(), latents)
        return (predicted.float() - velocity(clean, noise, *rates)).square().mean(dim=(1, 2, 3))

    def normalise_latents(self, mean: Tensor, std: Tensor) -> None:
        """Read latents that :meth:`SimpleAutoencoder.normalise_latents` has shifted and scaled, and draw the same.

        Args:
            mean, std: ``(latent_dim,)``, as given there.

        Raises:
            TypeError, ValueError: not such tensors, or a standard deviation that is not above 0.
        """
        mean, std = check_normalisation(mean, std, self.latent_dim, self.device)
        for layer in (self.network.feature_embedding, self.network.latent_map[0]):
            take_back(layer, mean, std)

    def _denoise(self, x_t: Tensor, times: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        rates = self.schedule.rates(times)
        return from_velocity(x_t, self.network(x_t, rates[1].flatten(), latents), *rates)

    def _sample(
        self, x_t, latents, times, num_steps, eta, generator, callback, spacing, differentiable=False
    ) -> Tensor:
        latents = check_latents(latents, self.latent_dim, len(x_t)).to(self.device)
        walk = (num_steps, eta, generator, callback, self.schedule, spacing, differentiable)
        clean = ddim_sample(self._denoise, x_t, latents, times, *walk)
        return ((clean + 1) / 2).clamp(0, 1)

    def save_checkpoint(self, path: str | Path) -> None:
        """Write configuration and weights to ``path``, whole or not at all."""
        checkpoints.save_model(self, path)

    def load_checkpoint(self, path: str | Path) -> None:
        """Load weights saved from a model of the same sizes.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, of another model, or of other sizes.
        """
        checkpoints.load_weights(self, path)

    @classmethod
    def from_pretrained(
        cls, path: str | Path | None = None, device: str | torch.device | None = None
    ) -> "DiffusionModel":
        """The shipped model, or the one saved at ``path``, with its sizes read from the file, in eval mode."""
        return checkpoints.build_model(cls, path, device)


class LatentDecoder(nn.Module):
    """Latents -> images through the diffusion model, always from the same noise: what differs is due to z alone.

    Args:
        diffusion_model: trained.
        num_steps, spacing: of DDIM, at eta 0.
        x_T: the noise, ``(1, 1, 28, 28)`` for all latents alike, or one for each; None draws one from seed 0.
        differentiable: keep what the gradient with respect to z needs: memory for all steps.
    """

    def __init__(
        self,
        diffusion_model: DiffusionModel,
        num_steps: int = 20,
        x_T: Tensor | None = None,
        spacing: str = "uniform",
        differentiable: bool = False,
    ):
        super().__init__()
        self.diffusion_model, self.num_steps, self.spacing = diffusion_model, num_steps, spacing
        self.differentiable = differentiable
        size = diffusion_model.image_size
        if x_T is None:
            x_T = random_normal((1, 1, size, size), diffusion_model.device, torch.Generator().manual_seed(0))
        x_T = check_images(x_T, size, scaled=False).detach().clone()
        self.register_buffer("x_T", x_T.to(diffusion_model.device), persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """Latents ``(N, latent_dim)`` -> images ``(N, 1, 28, 28)`` in [0, 1]."""
        count = len(check_latents(z, self.diffusion_model.latent_dim))
        x_T = self.x_T.to(self.diffusion_model.device)  # which may have moved
        x_T = x_T.expand(count, -1, -1, -1) if len(x_T) == 1 else x_T
        times = torch.ones(len(x_T), device=x_T.device)
        walk = (self.num_steps, 0.0, None, None, self.spacing, self.differentiable)
        return self.diffusion_model._sample(x_T, z, times, *walk)
