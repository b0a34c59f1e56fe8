"""Notebook 02: how much signal and noise there is at each diffusion time, and three views of one noisy image.

Bare formulas on tensors: they check nothing, and what is NaN stays NaN.
"""

import math

import torch
from torch import Tensor


class CosineSchedule:
    """The cosine schedule: a quarter turn from all signal (t = 0) to all noise (t = 1).

    ``signal_rate = cos(pi t / 2) = sqrt(alpha_bar)`` and ``noise_rate = sin(pi t / 2) = sqrt(1 - alpha_bar)``, so that
    ``signal_rate^2 + noise_rate^2 = 1`` and a noisy image keeps variance 1 if the clean one has it. In the notation of
    DDPM (arXiv 2006.11239, equation 4): ``x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise``.
    """

    def rates(self, diffusion_time: Tensor, ndim: int = 1) -> tuple[Tensor, Tensor]:
        """``(signal_rate, noise_rate)`` at times ``(N,)`` in [0, 1].

        Each is ``(N,)``; or ``(N, 1, ..., 1)`` of ``ndim`` dimensions: 4 to multiply images, 2 to multiply latents.
        """
        angle = diffusion_time.reshape(-1, *[1] * (ndim - 1)) * (math.pi / 2)
        return torch.cos(angle), torch.sin(angle)


def noisy_image(clean: Tensor, noise: Tensor, signal_rate: Tensor, noise_rate: Tensor) -> Tensor:
    """x_t = signal_rate * x_0 + noise_rate * noise (DDPM, arXiv 2006.11239, equation 4)."""
    return signal_rate * clean + noise_rate * noise


def velocity(clean: Tensor, noise: Tensor, signal_rate: Tensor, noise_rate: Tensor) -> Tensor:
    """v = signal_rate * noise - noise_rate * x_0: where x_t moves as the angle grows (arXiv 2202.00512)."""
    return signal_rate * noise - noise_rate * clean


def from_velocity(x_t: Tensor, v: Tensor, signal_rate: Tensor, noise_rate: Tensor) -> tuple[Tensor, Tensor]:
    """``(x_0, noise)`` from x_t and v, turned back by the angle pi t / 2. Exact at every t, 0 and 1 included."""
    return signal_rate * x_t - noise_rate * v, noise_rate * x_t + signal_rate * v


def from_noise(x_t: Tensor, noise: Tensor, signal_rate: Tensor, noise_rate: Tensor) -> tuple[Tensor, Tensor]:
    """``(x_0, noise)`` from x_t and the noise: x_0 = (x_t - noise_rate * noise) / signal_rate.

    At t = 1 there is no signal left to divide by; the rate is held at 0.001 or more, and x_0 is a guess there.
    """
    return (x_t - noise_rate * noise) / signal_rate.clamp(min=1e-3), noise


def from_clean(x_t: Tensor, clean: Tensor, signal_rate: Tensor, noise_rate: Tensor) -> tuple[Tensor, Tensor]:
    """``(x_0, noise)`` from x_t and x_0: noise = (x_t - signal_rate * x_0) / noise_rate.

    At t = 0 there is no noise to divide by; the rate is held at 0.001 or more, and the noise is a guess there.
    """
    return clean, (x_t - signal_rate * clean) / noise_rate.clamp(min=1e-3)
