"""Notebook 04: DDIM sampling (arXiv 2010.02502) as a pure function over any denoiser."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffae_core.devices import random_normal
from diffae_core.schedule import CosineSchedule

# (x_t, diffusion times (N,), latents) -> (the predicted clean image x_0, the predicted noise)
Denoiser = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
# (step, x_t after that step, the x_0 predicted in it)
StepCallback = Callable[[int, Tensor, Tensor], None]


@torch.no_grad()
def ddim_sample(
    denoiser: Denoiser,
    x_t: Tensor,
    latents: Tensor,
    start: Tensor,
    num_steps: int = 20,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    callback: StepCallback | None = None,
    schedule: CosineSchedule = CosineSchedule(),
) -> Tensor:
    """Walk from noisy images ``x_t`` at time ``start`` to clean ones at time 0, in ``num_steps`` equal steps of time.

    Each step guesses x_0 and the noise, and mixes the two again for the next, smaller time (DDIM, equation 12):

    ``x_next = signal_next * x_0 + sqrt(noise_next^2 - sigma^2) * noise + sigma * fresh_noise``

    with ``sigma = eta * sqrt(noise_next^2 / noise^2) * sqrt(1 - signal^2 / signal_next^2)`` (equation 16): eta 0 draws
    nothing, eta 1 takes as much fresh noise as DDPM. The guessed x_0 is not clipped: clipping it, and going on with a
    noise that no longer fits it, makes more steps worse.

    Args:
        denoiser: gives ``(x_0, noise)`` for ``(x_t, diffusion times (N,), latents)``.
        x_t: ``(N, C, H, W)``, in the denoiser's own scale.
        latents: ``(N, latent_dim)``, handed to the denoiser as they are.
        start: ``(N,)``, the diffusion time of each image in ``x_t``.
        num_steps: how many times the denoiser is asked.
        eta: 0 (deterministic) to 1 (DDPM-like).
        generator: where the fresh noise of eta > 0 comes from.
        callback: called after each step as ``callback(step, x_t, x_0)``, steps counted from 1.
        schedule: the signal and noise rates.

    Returns:
        The clean images, in the denoiser's scale.
    """
    fractions = torch.linspace(1, 0, num_steps + 1).tolist()
    for step, (now, following) in enumerate(zip(fractions, fractions[1:]), start=1):
        signal, noise_rate = schedule.rates(start * now)
        signal_next, noise_next = schedule.rates(start * following)
        clean, noise = denoiser(x_t, start * now, latents)
        x_t = signal_next * clean
        if eta > 0:
            sigma = (
                eta * noise_next / noise_rate.clamp(min=1e-6) * (1 - (signal / signal_next) ** 2).clamp(min=0).sqrt()
            )
            x_t = x_t + sigma * random_normal(tuple(x_t.shape), x_t.device, generator)
            noise_next = (noise_next**2 - sigma**2).clamp(min=0).sqrt()
        x_t = x_t + noise_next * noise
        if callback is not None:
            callback(step, x_t, clean)
    return x_t
