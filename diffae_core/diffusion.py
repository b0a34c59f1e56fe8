"""Notebook 04: DiffusionModel, whose methods combine the U-Net, the schedule and the sampler, and its training."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffae_core.autoencoder import SimpleAutoencoder, batch_normalised, check_normalised_batches, mix_latents
from diffae_core.base.devices import choose_device, random_normal, random_uniform
from diffae_core.base.model import Model, encoder_fingerprint, fingerprint
from diffae_core.base.training import Training, TrainingConfig
from diffae_core.base.validation import (
    check_count,
    check_generator,
    check_images,
    check_latents,
    check_number,
    check_times,
    check_values,
)
from diffae_core.data.digits import Digits, check_digits
from diffae_core.data.pictures import to_unit
from diffae_core.ddim import Denoiser, ddim_invert, ddim_steps, step_times
from diffae_core.schedule import CosineSchedule, from_velocity, noisy_image, velocity
from diffae_core.unet import UNKNOWN, ConditionalUNet, check_widths

DIFFUSION = TrainingConfig(epochs=30)  # the recipe of the shipped diffusion model
# The defaults for decoding and inverting digits; docs/recipe.md shows what more steps bring.
NUM_STEPS = 5
SPACING = "quadratic"
CORRECTIONS = 4


class DiffusionModel(Model):
    """A DDIM conditioned on a latent: noise and latent -> the digit that the latent describes.

    Images are in [0, 1] at every entry point; inside, and in what ``add_noise`` gives, they are in [-1, 1] plus noise.
    A freshly built model generates noise: train it, or load weights with ``from_pretrained``.

    The methods share these arguments:

    - ``latents``: ``(N, latent_dim)`` from the autoencoder's ``encode``, or changed as you like.
    - ``num_steps``: DDIM steps S from the start to the clean image.
    - ``eta``: 0 for the one image that DDIM settles on, up to 1 for another sample each time, as in DDPM.
    - ``spacing``: "quadratic" or "uniform": how the steps divide the time (:func:`step_times`).
    - ``generator``: where x_T, and the fresh noise of eta > 0, come from.
    - ``latent_noise``: how much noise the latents are taken to hold, in standard deviations; a number or ``(N,)``.
      None: the network estimates it by itself; 0: it takes them literally; up to 2: only roughly.

    All methods raise a TypeError or ValueError for a wrong shape, dtype or value, and say what was wanted. Image values
    outside [0, 1] only cause a warning, once.

    Args:
        time_embedding_dim: how many sines and cosines describe the noise rate; even.
        feature_embedding_dim: size of the latent inside the U-Net (:class:`ConditionalUNet`); a multiple of 4.
        widths: channels at each resolution of the U-Net, finest first.
        block_depth: residual blocks at each resolution, on the way down and again on the way up.
        latent_dim: numbers in a latent.
        image_size: height and width of the images; a multiple of 4.
        device: where the model lives; None chooses CUDA, MPS or the CPU.
        network: replaces the U-Net, and is called in the same way; from_pretrained cannot load such a model.
    """

    pretrained_file = "diffusion_model.pt"

    def __init__(
        self,
        time_embedding_dim: int = 32,
        feature_embedding_dim: int = 64,
        widths: tuple[int, ...] = (32, 64, 128),
        block_depth: int = 2,
        latent_dim: int = 256,
        image_size: int = 28,
        device: str | torch.device | None = None,
        network: nn.Module | None = None,
    ):
        super().__init__()
        self.latent_dim = check_count(latent_dim, "latent_dim")
        self.image_size = check_count(image_size, "image_size", multiple_of=4)
        self.config = {
            "time_embedding_dim": check_count(time_embedding_dim, "time_embedding_dim", multiple_of=2),
            "feature_embedding_dim": check_count(feature_embedding_dim, "feature_embedding_dim", multiple_of=4),
            "widths": check_widths(widths),
            "block_depth": check_count(block_depth, "block_depth"),
            "latent_dim": self.latent_dim,
            "image_size": self.image_size,
        }
        self.network = ConditionalUNet(**self.config) if network is None else network
        self.schedule = CosineSchedule()
        self.to(choose_device(device))

    @torch.no_grad()
    def add_noise(
        self, images: Tensor, diffusion_time: float | Tensor = 0.7, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add noise to images: ``noisy = signal_rate * (2 * images - 1) + noise_rate * noise``.

        Args:
            images: ``(N, 1, 28, 28)`` in [0, 1].
            diffusion_time: in [0, 1]: 0 leaves the image clean and 1 leaves only noise; a number or ``(N,)``.
            generator: where the noise comes from.

        Returns:
            ``(noisy, noise)``, each of the images' shape. ``noisy`` is in the diffusion's own scale: the image in
            [-1, 1], plus noise, so its values exceed that range (:func:`to_pixels` maps it back for a plot).
        """
        images = check_images(images, self.image_size).to(self.device)
        times = check_times(diffusion_time, len(images), self.device)
        noise = random_normal(images.shape, self.device, check_generator(generator))
        return noisy_image(2 * images - 1, noise, *self.schedule.rates(times, ndim=4)), noise

    @torch.no_grad()
    def denoise_with_latent(
        self,
        noisy: Tensor,
        latents: Tensor,
        diffusion_time: float | Tensor = 0.7,
        num_steps: int = NUM_STEPS,
        *,
        eta: float = 0.0,
        spacing: str = SPACING,
        generator: torch.Generator | None = None,
        latent_noise: float | Tensor | None = None,
    ) -> Tensor:
        """Remove the noise that ``add_noise`` added, conditioned on the latents.

        Args:
            noisy: ``(N, 1, 28, 28)`` from ``add_noise``.
            diffusion_time: the time that was passed to ``add_noise``.
            latents, num_steps, eta, spacing, generator, latent_noise: see the class.

        Returns:
            Images ``(N, 1, 28, 28)`` in [0, 1].
        """
        noisy = check_images(noisy, self.image_size, noisy=True).to(self.device)
        start = check_times(diffusion_time, len(noisy), self.device)
        times = step_times(num_steps, spacing, start)
        return self._sample(noisy, times, latents, eta, generator, latent_noise)

    def generate(
        self,
        latents: Tensor,
        num_steps: int = NUM_STEPS,
        *,
        eta: float = 0.0,
        spacing: str = SPACING,
        generator: torch.Generator | None = None,
        x_T: Tensor | None = None,
        latent_noise: float | Tensor | None = None,
        callback: Callable[[int, Tensor, Tensor], None] | None = None,
    ) -> Tensor:
        """Generate the digits that ``latents`` describe, from pure noise x_T.

        Gradients flow to latents with ``requires_grad``, which takes memory for all steps. ``torch.autograd.grad``
        computes only these gradients; ``backward()`` also fills those of the model's weights.

        Args:
            x_T: the noise to start from, ``(N, 1, 28, 28)``, such as ``invert`` returns, or ``(1, 1, 28, 28)``, the
                same noise for all latents; None samples it.
            callback: called after each step as ``callback(step, x_t, x_0)``, both in [-1, 1] plus noise.
            latents, num_steps, eta, spacing, generator, latent_noise: see the class.

        Returns:
            Images ``(N, 1, 28, 28)`` in [0, 1].
        """
        count = len(check_latents(latents, self.latent_dim))
        if x_T is None:
            shape = (count, 1, self.image_size, self.image_size)
            x_T = random_normal(shape, self.device, check_generator(generator))
        x_T = check_images(x_T, self.image_size, noisy=True).to(self.device)
        x_T = x_T.expand(count, -1, -1, -1) if len(x_T) == 1 else x_T
        with torch.set_grad_enabled(torch.is_grad_enabled() and latents.requires_grad):
            return self._sample(x_T, step_times(num_steps, spacing), latents, eta, generator, latent_noise, callback)

    @torch.no_grad()
    def invert(
        self,
        images: Tensor,
        latents: Tensor,
        num_steps: int = NUM_STEPS,
        *,
        corrections: int = CORRECTIONS,
        spacing: str = SPACING,
        latent_noise: float | Tensor | None = None,
    ) -> Tensor:
        """The noise x_T from which ``generate`` gives these images again: DDIM inversion (:func:`ddim_invert`).

        ``generate(latents, num_steps, x_T=x_T, spacing=spacing)`` gives the images back: better with more steps, and
        far better with quadratic spacing and a few ``corrections``.

        Args:
            images: ``(N, 1, 28, 28)`` in [0, 1].
            latents: ``(N, latent_dim)``, those of the images; if they are others, x_T takes up what they do not say.
            num_steps, spacing, latent_noise: those of the later ``generate``; see the class.
            corrections: fixed-point iterations for each step; each costs as much as the step itself.

        Returns:
            x_T ``(N, 1, 28, 28)``. It is not quite true noise: its standard deviation depends on steps and corrections,
            and is far below 1 with few of both.
        """
        images = check_images(images, self.image_size).to(self.device)
        check_count(corrections, "corrections", at_least=0)
        denoiser = self._denoiser(latents, len(images), latent_noise)
        times = step_times(num_steps, spacing)
        return ddim_invert(denoiser, 2 * images - 1, times, corrections=corrections, schedule=self.schedule)

    def denoise_once(
        self,
        noisy: Tensor,
        diffusion_time: float | Tensor,
        latents: Tensor,
        latent_noise: float | Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Evaluate the U-Net once: the predicted ``(x_0, noise)``, in the diffusion's scale; differentiable.

        The U-Net predicts the velocity ``v`` (arXiv 2202.00512); ``x_0 = signal_rate * x_t - noise_rate * v`` and
        ``noise = noise_rate * x_t + signal_rate * v``. The arguments are in the order in which :func:`ddim_steps` calls
        a denoiser.

        Args:
            noisy: x_t, ``(N, 1, 28, 28)``.
            diffusion_time: in [0, 1], a number or ``(N,)``.
            latents, latent_noise: see the class.
        """
        noisy = check_images(noisy, self.image_size, noisy=True).to(self.device)
        times = check_times(diffusion_time, len(noisy), self.device)
        return self._denoiser(latents, len(noisy), latent_noise)(noisy, times, None)

    def loss(
        self, images: Tensor, latents: Tensor, times: Tensor, noise: Tensor, latent_noise: Tensor | None = None
    ) -> Tensor:
        """How far the U-Net's velocity is from the true one: mean squared error of each image, ``(N,)``.

        For training, which calls it at every step: nothing is checked.

        Args:
            images: ``(N, 1, 28, 28)`` in [0, 1].
            latents: ``(N, latent_dim)``.
            times: ``(N,)`` in [0, 1].
            noise: standard normal, of the images' shape.
            latent_noise: the amount ``s`` that the U-Net is told, ``(N,)``; -1: unknown. None: unknown for all.
        """
        clean = 2 * images - 1
        rates = self.schedule.rates(times, ndim=4)
        if latent_noise is None:
            latent_noise = torch.full_like(times, UNKNOWN)
        predicted = self.network(noisy_image(clean, noise, *rates), rates[1].flatten(), latents, latent_noise)
        return (predicted.float() - velocity(clean, noise, *rates)).square().mean(dim=(1, 2, 3))

    def _denoiser(self, latents: Tensor, count: int, latent_noise: float | Tensor | None) -> Denoiser:
        """A denoiser for the sampler; what depends on the latents alone is computed here, once for all steps."""
        latents = check_latents(latents, self.latent_dim, count).to(self.device)
        if latent_noise is None:
            latent_noise = torch.full((count,), UNKNOWN, device=self.device)
        else:
            latent_noise = check_values(latent_noise, count, self.device, "latent_noise of 0 or more", 0, 100)
        condition = self.network.read(latents) if isinstance(self.network, ConditionalUNet) else latents

        def denoiser(x_t: Tensor, times: Tensor, _: None) -> tuple[Tensor, Tensor]:
            rates = self.schedule.rates(times, ndim=4)
            v = self.network(x_t, rates[1].flatten(), condition, latent_noise)
            return from_velocity(x_t, v, *rates)

        return denoiser

    def _sample(self, x, times, latents, eta, generator, latent_noise, callback=None) -> Tensor:
        denoiser = self._denoiser(latents, len(x), latent_noise)
        eta = check_number(eta, "eta", 0, 1)
        generator = check_generator(generator)
        steps = ddim_steps(denoiser, x, times, eta=eta, generator=generator, schedule=self.schedule)
        for step, (x_t, x_0) in enumerate(steps, start=1):
            if callback is not None:
                callback(step, x_t, x_0)
        return to_pixels(x_t)


def to_pixels(x: Tensor) -> Tensor:
    """Map the diffusion's scale, [-1, 1] and noise beyond it, to images in [0, 1]."""
    return ((x + 1) / 2).clamp(0, 1)


def noisy_latent_loss(
    model: DiffusionModel,
    images: Tensor,
    latents: Tensor,
    max_latent_noise: float,
    mixed_share: float,
    generator: torch.Generator,
) -> Tensor:
    """A batch's mean loss at random times, on mixed and noisy latents (conditioning augmentation, arXiv 2106.15282).

    A share of the latents is mixed with another digit's (:func:`mix_latents`). Then noise is added to each latent, with
    a standard deviation ``s`` of its own, uniform in [0, max_latent_noise]. Half of the time the model is told ``s``,
    half of the time it has to find out by itself.
    """
    device = images.device
    count = len(images)
    noise = random_normal(images.shape, device, generator)
    times = random_uniform(count, device, generator)
    s = max_latent_noise * random_uniform(count, device, generator)
    added = s[:, None] * random_normal(latents.shape, device, generator)
    is_told = random_uniform(count, device, generator) < 0.5
    latents = mix_latents(latents, mixed_share, generator) + added
    return model.loss(images, latents, times, noise, torch.where(is_told, s, UNKNOWN)).mean()


def train_diffusion(
    model: DiffusionModel,
    digits: Digits,
    autoencoder: SimpleAutoencoder,
    config: TrainingConfig = DIFFUSION,
    max_latent_noise: float = 2.0,
    mixed_share: float = 0.25,
) -> Training:
    """A run that teaches the diffusion model to remove noise from digits, given the frozen autoencoder's latents.

    The loss is :func:`noisy_latent_loss`.

    Args:
        model: the model to train.
        digits: the training digits.
        autoencoder: trained; it encodes the digits once.
        config: how to train.
        max_latent_noise: the most noise on a latent, in standard deviations; 0 trains on latents without noise.
        mixed_share: share of the latents that are moved towards another digit's (:func:`mix_latents`), 0 to 1.

    Raises:
        TypeError, ValueError: anything but digits of the model's size, unsuitable latents, or a number out of range.
    """
    check_number(max_latent_noise, "max_latent_noise", 0, 100)
    check_number(mixed_share, "mixed_share", 0, 1)
    pixels = check_digits(digits, model.image_size).pixels.to(model.device)
    latents = autoencoder.encode_dataset(digits).tensors[0]
    latents = check_latents(latents, model.latent_dim).to(model.device)
    latents_from = encoder_fingerprint(autoencoder)
    data = f"{fingerprint(digits.pixels)}, encoder {latents_from}, max_latent_noise {max_latent_noise:.15g}"
    data = f"{data}, mixed_share {mixed_share:.15g}"

    def batch_loss(index: Tensor, generator: torch.Generator) -> Tensor:
        index = index.to(pixels.device)
        images = to_unit(pixels[index])
        return noisy_latent_loss(model, images, latents[index], max_latent_noise, mixed_share, generator)

    def finish() -> None:
        model.latents_from = latents_from

    run = Training(model, batch_loss, len(digits), config, data, finish)
    run.model.latents_from = run.ema_model.latents_from = ""  # mixed until the run has ended
    return run


def train_jointly(
    model: DiffusionModel,
    digits: Digits,
    autoencoder: SimpleAutoencoder,
    config: TrainingConfig = DIFFUSION,
    max_latent_noise: float = 2.0,
    mixed_share: float = 0.25,
) -> Training:
    """A run that trains the autoencoder's encoder and the diffusion model together, by the diffusion's loss alone.

    This is what the Diffusion Autoencoders paper does (arXiv 2111.15640, equation 6). The latents are kept at mean 0
    and standard deviation 1 as in :func:`train_autoencoder`; the autoencoder's decoder learns nothing.

    Args:
        model, digits, config, max_latent_noise, mixed_share: as in :func:`train_diffusion`.
        autoencoder: its encoder is trained too, in place.

    Raises:
        TypeError, ValueError: anything but digits of the model's size, unsuitable latents, or a number out of range.
    """
    check_number(max_latent_noise, "max_latent_noise", 0, 100)
    check_number(mixed_share, "mixed_share", 0, 1)
    pixels = check_digits(digits, model.image_size).pixels.to(model.device)
    check_normalised_batches(digits, config)
    trained = EncoderAndDiffusion(autoencoder, model)

    def batch_loss(index: Tensor, generator: torch.Generator) -> Tensor:
        images = to_unit(pixels[index.to(pixels.device)])
        latents = batch_normalised(trained.encoder(images))
        return noisy_latent_loss(model, images, latents, max_latent_noise, mixed_share, generator)

    def finish() -> None:
        autoencoder.normalise_latents(digits)
        model.latents_from = encoder_fingerprint(autoencoder)

    data = f"{fingerprint(digits.pixels)}, max_latent_noise {max_latent_noise:.15g}, mixed_share {mixed_share:.15g}"
    run = Training(trained, batch_loss, len(digits), config, data, finish)
    model.latents_from = run.ema_model.diffusion.latents_from = ""  # mixed until the run has ended
    return run


class EncoderAndDiffusion(nn.Module):
    """An autoencoder's encoder and a diffusion model, put together to be trained as one, in place."""

    def __init__(self, autoencoder: SimpleAutoencoder, diffusion: DiffusionModel):
        super().__init__()
        for name in ("latent_dim", "image_size", "device"):
            pair = getattr(autoencoder, name), getattr(diffusion, name)
            if pair[0] != pair[1]:
                raise ValueError(f"expected an autoencoder and a model of the same {name}, got {pair[0]} and {pair[1]}")
        self.config = {"autoencoder": autoencoder.config, "diffusion": diffusion.config}
        self.encoder, self.diffusion, self.device = autoencoder.encoder, diffusion, diffusion.device
