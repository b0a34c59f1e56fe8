"""Notebook 05: ways to move in the space of latents, and between two pictures of noise."""

import torch
from torch import Tensor

from diffae_core.checks import check_count


def class_means(latents: Tensor, labels: Tensor) -> Tensor:
    """The mean latent of each digit class: ``(N, latent_dim)`` and labels ``(N,)`` of 0 to 9 -> ``(10, latent_dim)``.

    Raises:
        ValueError: a class without an example, or counts that do not match.
    """
    if len(latents) != len(labels):
        raise ValueError(f"expected one label for each latent, got {len(latents)} latents and {len(labels)} labels")
    missing = sorted(set(range(10)) - set(labels.tolist()))
    if missing:
        raise ValueError(f"expected examples of all ten classes, got none of {missing}: take more digits")
    return torch.stack([latents[labels == label].mean(dim=0) for label in range(10)])


def principal_directions(latents: Tensor, count: int = 10) -> Tensor:
    """The directions in which latents vary most, each as long as their standard deviation along it.

    Args:
        latents: ``(N, latent_dim)``, N above ``count``.
        count: how many, the strongest first; at most ``latent_dim``.

    Returns:
        ``(count, latent_dim)``: adding row k moves a latent by one standard deviation along principal direction k.

    Raises:
        ValueError: more directions asked for than there are.
    """
    most = min(len(latents) - 1, latents.shape[1])
    if check_count(count, "count") > most:
        raise ValueError(f"expected count of {most} or less for latents {tuple(latents.shape)}, got {count}")
    _, singular_values, directions = torch.linalg.svd(latents - latents.mean(dim=0), full_matrices=False)
    return directions[:count] * singular_values[:count, None] / (len(latents) - 1) ** 0.5


def lerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The straight line from ``a`` (share 0) to ``b`` (share 1): ``(1 - share) a + share b``. Right for latents."""
    return (1 - share) * a + share * b


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The arc from ``a`` (share 0) to ``b`` (share 1): right for noise, which keeps its length and so its variance.

    ``sin((1 - share) angle) / sin(angle) a + sin(share angle) / sin(angle) b`` with the angle between a and b, of each
    row of ``(N, ...)`` (DDIM, arXiv 2010.02502, appendix D.5). Where the two are parallel it is the straight line.
    """
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(flat_a, flat_b, dim=1).clamp(-1, 1)
    angle = cosine.acos().reshape(-1, *[1] * (a.ndim - 1))
    arc = (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / angle.sin().clamp(min=1e-6)
    return torch.where(angle.sin() < 1e-4, lerp(a, b, share), arc)
