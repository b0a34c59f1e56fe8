"""Notebook 04: DDIM sampling (arXiv 2010.02502) as a pure function over any denoiser, and the same walk backwards."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffae_core.checks import check_count, check_floats, check_number, check_time
from diffae_core.devices import random_normal
from diffae_core.schedule import CosineSchedule

# (x_t, diffusion times (N,), latents) -> (the predicted clean image x_0, the predicted noise)
Denoiser = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
# (step, x_t after that step, the x_0 predicted in it)
StepCallback = Callable[[int, Tensor, Tensor], None]

SPACINGS = ("uniform", "quadratic", "log-snr")
LOG_SNR_RANGE = 8.0  # "log-snr" spaces its inner times between this log signal-to-noise ratio and minus this


def step_times(num_steps: int, spacing: str = "uniform") -> list[float]:
    """The ``num_steps + 1`` diffusion times of a walk from 1 (noise) down to 0 (clean), both included.

    Args:
        num_steps: steps between them, 1 or more.
        spacing: "uniform", equal steps of time (and of the schedule's angle); "quadratic", ``(i / num_steps)^2``,
            small steps near the clean end (DDIM, arXiv 2010.02502, appendix D.2); "log-snr", equal steps of the log of
            ``signal_rate^2 / noise_rate^2``, small steps at both ends (as in DPM-Solver, arXiv 2206.00927). A walk that
            starts before time 1 takes all three as shares of its start.

    Raises:
        ValueError: another spacing, or a number of steps below 1.
    """
    check_count(num_steps, "num_steps")
    if spacing not in SPACINGS:
        raise ValueError(f"expected a spacing from {SPACINGS}, got {spacing!r}: choose one of these")
    fractions = [1 - step / num_steps for step in range(num_steps + 1)]
    if spacing == "quadratic":
        return [fraction**2 for fraction in fractions]
    if spacing == "log-snr":
        inner = [math.atan(math.exp(LOG_SNR_RANGE * (fraction - 0.5))) * 2 / math.pi for fraction in fractions[1:-1]]
        return [1.0, *inner, 0.0]
    return fractions


def ddim_sample(
    denoiser: Denoiser,
    x_t: Tensor,
    latents: Tensor | None,
    start: float | Tensor,
    num_steps: int = 20,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    callback: StepCallback | None = None,
    schedule: CosineSchedule = CosineSchedule(),
    spacing: str = "uniform",
    differentiable: bool = False,
) -> Tensor:
    """Walk from noisy images ``x_t`` at time ``start`` to clean ones at time 0, in ``num_steps`` steps.

    Each step guesses x_0 and the noise, and mixes the two again for the next, smaller time (DDIM, equation 12):

    ``x_next = signal_next * x_0 + sqrt(noise_next^2 - sigma^2) * noise + sigma * fresh_noise``

    with ``sigma = eta * sqrt(noise_next^2 / noise^2) * sqrt(1 - signal^2 / signal_next^2)`` (equation 16): eta 0 draws
    nothing, eta 1 takes as much fresh noise as DDPM. The guessed x_0 is not clipped: clipping it, and going on with a
    noise that no longer fits it, makes more steps worse.

    Args:
        denoiser: gives ``(x_0, noise)`` for ``(x_t, diffusion times (N,), latents)``.
        x_t: ``(N, C, H, W)``, in the denoiser's own scale.
        latents: ``(N, latent_dim)``, or what else the denoiser takes: handed to it as they are.
        start: the diffusion time of ``x_t``, a number or one for each image, ``(N,)``.
        num_steps: how many times the denoiser is asked.
        eta: 0 (deterministic) to 1 (DDPM-like).
        generator: where the fresh noise of eta > 0 comes from.
        callback: called after each step as ``callback(step, x_t, x_0)``, steps counted from 1.
        schedule: the signal and noise rates.
        spacing: how the steps divide the time (:func:`step_times`), each time being a share of ``start``.
        differentiable: keep what gradients need, in memory, for all steps.

    Returns:
        The clean images, in the denoiser's scale.

    Raises:
        TypeError, ValueError: not such tensors, times or settings; the denoiser's own errors are its own.
    """
    _check_images(x_t)
    start = check_time(start, len(x_t)).to(x_t)
    times, eta = step_times(num_steps, spacing), check_number(eta, "eta", 0, 1)
    with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
        for step, (now, following) in enumerate(zip(times, times[1:]), start=1):
            signal, noise_rate = schedule.rates(start * now)
            signal_next, noise_next = schedule.rates(start * following)
            clean, noise = denoiser(x_t, start * now, latents)
            x_t = signal_next * clean
            if eta > 0:
                shrunk = (1 - (signal / signal_next) ** 2).clamp(min=0).sqrt()
                sigma = eta * noise_next / noise_rate.clamp(min=1e-6) * shrunk
                x_t = x_t + sigma * random_normal(tuple(x_t.shape), x_t.device, generator).to(x_t)
                noise_next = (noise_next**2 - sigma**2).clamp(min=0).sqrt()
            x_t = x_t + noise_next * noise
            if callback is not None:
                callback(step, x_t, clean)
    return x_t


@torch.no_grad()
def ddim_invert(
    denoiser: Denoiser,
    x_0: Tensor,
    latents: Tensor | None,
    num_steps: int = 100,
    corrections: int = 0,
    schedule: CosineSchedule = CosineSchedule(),
    spacing: str = "uniform",
) -> Tensor:
    """The noise x_T from which :func:`ddim_sample`, at eta 0, comes to ``x_0``: its steps taken backwards.

    The plain backward step (Diffusion Autoencoders, arXiv 2111.15640, equation 8) asks the denoiser where it *is*:

    ``x_next = signal_next * x_0(x_t, t) + noise_next * noise(x_t, t)``

    but the forward step that it has to undo asked where it *came from*, at ``x_next``. So the plain one is off by a
    little, and less with more steps. Each correction asks at ``x_next`` how far the forward step would miss ``x_t``,
    and adds what is missing: a fixed-point iteration. It converges where steps are small against how fast the
    denoiser's answer changes, and its end is exact then: quickly with quadratic spacing, slowly with few uniform steps.

    Args:
        denoiser: gives ``(x_0, noise)`` for ``(x_t, diffusion times (N,), latents)``.
        x_0: clean images ``(N, C, H, W)``, in the denoiser's own scale.
        latents: ``(N, latent_dim)``, or what else the denoiser takes: handed to it as they are.
        num_steps: those of the forward walk; the denoiser is asked ``num_steps * (1 + corrections)`` times.
        corrections: of each step; 0 is the plain backward step. A walk of one step has none: it is a quarter turn,
            from whose end the step before it cannot be told.
        schedule, spacing: those of the forward walk.

    Returns:
        x_T, of the images' shape.

    Raises:
        TypeError, ValueError: not such tensors or settings; the denoiser's own errors are its own.
    """
    _check_images(x_0)
    times = step_times(num_steps, spacing)[::-1]
    corrections = check_count(corrections, "corrections", 0) * (num_steps > 1)
    x_t = x_0
    for now, following in zip(times, times[1:]):
        signal, noise_rate = schedule.rates(x_t.new_tensor([now]))
        signal_next, noise_next = schedule.rates(x_t.new_tensor([following]))
        time, time_next = (x_t.new_full((len(x_t),), time) for time in (now, following))
        clean, noise = denoiser(x_t, time, latents)
        x_next = signal_next * clean + noise_next * noise
        for _ in range(corrections):
            clean, noise = denoiser(x_next, time_next, latents)
            missing = x_t - (signal * clean + noise_rate * noise)
            x_next = x_next + missing / (signal * signal_next + noise_rate * noise_next)
        x_t = x_next
    return x_t


def _check_images(x: Tensor) -> None:
    wanted = "expected images (N, C, H, W), of finite floating-point numbers, got"
    if check_floats(x, wanted).ndim != 4:
        raise ValueError(f"{wanted} {tuple(x.shape)}: add the missing dimensions, for example with x[None, None]")
