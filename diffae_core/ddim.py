"""Notebook 04: DDIM sampling (arXiv 2010.02502) over a grid of times, for data of any rank, and its inversion.

Bare formulas on tensors: they check nothing. Gradients flow through them, unless the caller uses no_grad.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from diffae_core.base.devices import random_normal
from diffae_core.base.validation import check_choice, check_count
from diffae_core.schedule import CosineSchedule

# (x_t, diffusion times (N,), latents) -> (the predicted clean x_0, the predicted noise)
Denoiser = Callable[[Tensor, Tensor, Any], tuple[Tensor, Tensor]]


def step_times(num_steps: int, spacing: str = "uniform", start: float | Tensor = 1.0) -> Tensor:
    """A decreasing grid of diffusion times, from ``start`` down to 0 (clean), both included.

    Args:
        num_steps: the number of steps S, 1 or more.
        spacing: "uniform" for equal steps of time (and of the schedule's angle), "quadratic" for ``(i / S)^2``, with
            small steps near the clean end (DDIM, arXiv 2010.02502, appendix D.2).
        start: where the grid begins: a number, or one for each image, ``(N,)``.

    Returns:
        ``(S + 1,)``, or ``(S + 1, N)`` where ``start`` is ``(N,)``.

    Raises:
        ValueError: any other spacing, or a number of steps below 1.
    """
    check_count(num_steps, "num_steps")
    check_choice(spacing, "spacing", ("uniform", "quadratic"))
    power = 2 if spacing == "quadratic" else 1
    grid = torch.tensor([(1 - step / num_steps) ** power for step in range(num_steps + 1)])
    if isinstance(start, Tensor) and start.ndim:
        return grid.to(start.device)[:, None] * start
    return grid * float(start)


def ddim_steps(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    latents: Tensor | None = None,
    *,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    schedule: CosineSchedule = CosineSchedule(),
) -> Iterator[tuple[Tensor, Tensor]]:
    """Denoise ``x``, one yield per step: ``(x_t after the step, the x_0 predicted from the x_t before the step)``.

    Each step predicts x_0 and the noise, and mixes the two again for the next, smaller time (DDIM, equation 12):

    ``x_next = signal_next * x_0 + sqrt(noise_next^2 - sigma^2) * noise + sigma * fresh_noise``

    with ``sigma = eta * (noise_next / noise) * sqrt(1 - signal^2 / signal_next^2)`` (equation 16): with eta 0 nothing
    is random, with eta 1 there is as much fresh noise as in DDPM. The predicted x_0 is not clipped: the noise would no
    longer fit a clipped x_0, and the result would be worse with more steps.

    Args:
        denoiser: gives ``(x_0, noise)`` for ``(x_t, diffusion times (N,), latents)``.
        x: ``(N, ...)`` of any rank, in the denoiser's own scale, at the first of ``times``.
        times: a decreasing grid, ``(S + 1,)``, or one for each of the N, ``(S + 1, N)`` (:func:`step_times`).
        latents: ``(N, latent_dim)``, or whatever else the denoiser takes; passed to it unchanged.
        eta: 0 (deterministic) to 1 (DDPM-like).
        generator: where the fresh noise of eta > 0 comes from.
        schedule: the signal and noise rates.
    """
    for now, following in zip(times.to(x), times[1:].to(x)):
        signal, noise_rate = schedule.rates(now, x.ndim)
        signal_next, noise_next = schedule.rates(following, x.ndim)
        clean, noise = denoiser(x, now.expand(len(x)), latents)
        x = signal_next * clean
        if eta > 0:
            shrunk = (1 - (signal / signal_next) ** 2).clamp(min=0).sqrt()
            sigma = eta * noise_next / noise_rate.clamp(min=1e-6) * shrunk
            x = x + sigma * random_normal(x.shape, x.device, generator).to(x)
            noise_next = (noise_next**2 - sigma**2).clamp(min=0).sqrt()
        x = x + noise_next * noise
        yield x, clean


def ddim_sample(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    latents: Tensor | None = None,
    *,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    schedule: CosineSchedule = CosineSchedule(),
) -> Tensor:
    """The last x of :func:`ddim_steps`, with the same arguments: clean, in the denoiser's own scale."""
    for x_t, _ in ddim_steps(denoiser, x, times, latents, eta=eta, generator=generator, schedule=schedule):
        x = x_t
    return x


def ddim_invert(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    latents: Tensor | None = None,
    *,
    corrections: int = 0,
    schedule: CosineSchedule = CosineSchedule(),
) -> Tensor:
    """The noise x_T from which :func:`ddim_sample` on the same grid, at eta 0, leads to the clean ``x``.

    The plain inversion step (Diffusion Autoencoders, arXiv 2111.15640, equation 8) evaluates the denoiser at ``x_t``:

    ``x_next = signal_next * x_0(x_t, t) + noise_next * noise(x_t, t)``

    but the sampling step that it has to undo evaluates the denoiser at ``x_next``. So the plain step has a small error,
    which shrinks with more steps. Each fixed-point iteration evaluates the denoiser at ``x_next``, computes by how much
    the sampling step would miss ``x_t``, and adds the difference. Where the denoiser's answer changes little within a
    step, the iterations converge to the exact inverse: quickly with quadratic spacing, slowly with few uniform steps.

    Args:
        denoiser, times, latents, schedule: those of the later :func:`ddim_sample`.
        x: clean, ``(N, ...)``, in the denoiser's own scale.
        corrections: fixed-point iterations for each step; the network is evaluated ``S * (1 + corrections)`` times. A
            grid of one step has none: from t = 1 it is a quarter turn, whose end does not determine its beginning.

    Returns:
        x_T, of x's shape.
    """
    corrections = corrections if len(times) > 2 else 0
    upwards = times.flip(0).to(x)
    for now, following in zip(upwards, upwards[1:]):
        signal, noise_rate = schedule.rates(now, x.ndim)
        signal_next, noise_next = schedule.rates(following, x.ndim)
        clean, noise = denoiser(x, now.expand(len(x)), latents)
        x_next = signal_next * clean + noise_next * noise
        for _ in range(corrections):
            clean, noise = denoiser(x_next, following.expand(len(x)), latents)
            missing = x - (signal * clean + noise_rate * noise)
            x_next = x_next + missing / (signal * signal_next + noise_rate * noise_next)
        x = x_next
    return x
