"""Notebook 05: ways to move in the space of latents, and between two pictures of noise."""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from diffae_core.base.devices import random_normal
from diffae_core.base.validation import check_count, check_generator, check_labels, check_latents


def class_means(latents: Tensor, labels: Tensor) -> Tensor:
    """The mean latent of each class: ``(N, latent_dim)`` and labels ``(N,)`` of 0 to C - 1 -> ``(C, latent_dim)``.

    Raises:
        TypeError, ValueError: unsuitable latents or labels, counts that do not match, or a class without an example.
    """
    labels = _check_labels(latents, labels)
    check_count(len(latents), "the number of latents")
    missing = (labels.bincount() == 0).nonzero().flatten().tolist()
    if missing:
        found = f"{missing[:5]}{' and others' if len(missing) > 5 else ''}"
        raise ValueError(f"expected an example of each class, got none of {found}: renumber the labels without gaps")
    return torch.stack([latents[labels == label].mean(dim=0) for label in range(int(labels.max()) + 1)])


def principal_directions(latents: Tensor, count: int = 10) -> Tensor:
    """The directions in which latents vary most, each as long as the latents' standard deviation along it.

    Args:
        latents: ``(N, latent_dim)``, N above ``count``.
        count: how many, the strongest first; at most ``latent_dim``.

    Returns:
        ``(count, latent_dim)``: adding row k moves a latent by one standard deviation along principal direction k.

    Raises:
        ValueError: ``count`` is larger than the number of directions.
    """
    most = min(check_count(len(check_latents(latents)), "the number of latents", at_least=2) - 1, latents.shape[1])
    if check_count(count, "count") > most:
        raise ValueError(f"expected count of {most} or less for latents {tuple(latents.shape)}, got {count}")
    _, singular_values, directions = torch.linalg.svd(latents - latents.mean(dim=0), full_matrices=False)
    return directions[:count] * singular_values[:count, None] / (len(latents) - 1) ** 0.5


def class_directions(latents: Tensor, labels: Tensor) -> Tensor:
    """For each class, the unit vector along which a linear classifier's logit for that class rises fastest.

    The classifier is that of the Diffusion Autoencoders paper (arXiv 2111.15640), a logistic regression on latents with
    mean 0 and standard deviation 1 (so scikit-learn gets them as they are). It has one weight vector per class.

    Args:
        latents: ``(N, latent_dim)``.
        labels: ``(N,)`` of 0 to C - 1; two or more classes must have an example.

    Returns:
        ``(C, latent_dim)``: move along row k with :func:`edit`. A class without an example has a row of zeros, along
        which nothing moves.

    Raises:
        TypeError, ValueError: unsuitable latents or labels, counts that do not match, or fewer than two classes.
    """
    from sklearn.linear_model import LogisticRegression  # imported here so that importing the package stays quick

    labels = _check_labels(latents, labels)
    classes = labels.unique().cpu()
    check_count(len(classes), "the number of classes with an example", at_least=2)
    # Regularised so strongly that it keeps to the directions in which digits vary.
    probe = LogisticRegression(C=0.4 / len(latents), max_iter=300)
    probe.fit(latents.detach().cpu().numpy(), labels.cpu().numpy())
    weights = torch.from_numpy(probe.coef_).float()
    weights = torch.cat([-weights, weights]) if len(weights) == 1 else weights  # one row for two classes
    directions = weights.new_zeros(int(classes[-1]) + 1, latents.shape[1])
    directions[classes] = normalize(weights, dim=1)
    return directions


def edit(latents: Tensor, direction: Tensor, strength: float) -> Tensor:
    """Move latents along a direction: ``latents + strength * sqrt(latent_dim) * direction / |direction|``.

    The direction's own length does not matter: at strength s, the move is as long as adding ``s * torch.randn_like``,
    which moves every number by s standard deviations.

    Args:
        latents: ``(N, latent_dim)``.
        direction: ``(latent_dim,)``, or one for each latent, ``(N, latent_dim)``; zeros move nothing.
        strength: in standard deviations; below 0 to go the other way.
    """
    unit = normalize(direction, dim=-1)
    move = strength * latents.shape[-1] ** 0.5 * unit
    return latents + move.to(latents if latents.is_floating_point() else latents.device)


def lerp(a: Tensor, b: Tensor, share: float | Tensor) -> Tensor:
    """The straight line from ``a`` (share 0) to ``b`` (share 1): ``(1 - share) a + share b``. Right for latents.

    A share ``(S, 1)`` between latents ``(1, latent_dim)`` gives S points on the line, ``(S, latent_dim)``.
    """
    return (1 - share) * a + share * b


def slerp(a: Tensor, b: Tensor, share: float | Tensor) -> Tensor:
    """The arc from ``a`` (share 0) to ``b`` (share 1): right for noise, which keeps its length and so its variance.

    ``sin((1 - share) angle) / sin(angle) a + sin(share angle) / sin(angle) b`` with the angle between a and b, for each
    row of ``(N, ...)`` (DDIM, arXiv 2010.02502, appendix D.5). Where a and b are parallel, it is the straight line. A
    share ``(S, 1, 1, 1)`` between noises ``(1, 1, 28, 28)`` gives S points on the arc.

    Raises:
        ValueError: ``a`` or ``b`` has no batch dimension.
    """
    _check_batch(a, b)
    cosine = torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1), dim=1).clamp(-1, 1)
    angle = cosine.acos().reshape(-1, *[1] * (a.ndim - 1))
    arc = (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / angle.sin().clamp(min=1e-6)
    return torch.where(angle.sin() < 1e-4, lerp(a, b, share), arc)


def turn(z_T: Tensor, angle: float, generator: torch.Generator | None = None) -> Tensor:
    """Another handwriting: ``cos(angle) z_T + sin(angle) noise``, with noise perpendicular to z_T and equally long.

    The length stays the same. The angle sets how far the handwriting changes: 0 changes nothing, pi / 2 forgets it.

    Args:
        z_T: ``(N, latent_dim)``, from :meth:`LatentPrior.invert`.
        angle: in radians.
        generator: where the noise comes from; the same noise gives an arc of handwritings as the angle grows.

    Raises:
        ValueError: z_T has no batch dimension, or the noise is z_T itself, because both were made with one seed.
    """
    _check_batch(z_T)
    noise = random_normal(z_T.shape, z_T.device, check_generator(generator)).to(z_T)
    unit = normalize(z_T, dim=-1)
    across = noise - (noise * unit).sum(dim=-1, keepdim=True) * unit
    rounding = max(1e-5, 10 * torch.finfo(z_T.dtype).eps)
    if bool((across.norm(dim=-1) < rounding * noise.norm(dim=-1)).any()):
        hint = "use another seed, and z_T of two numbers or more"
        raise ValueError(f"expected noise in a direction other than z_T's, got parallel noise: {hint}")
    return math.cos(angle) * z_T + math.sin(angle) * z_T.norm(dim=-1, keepdim=True) * normalize(across, dim=-1)


def _check_batch(*tensors: Tensor) -> None:
    for tensor in tensors:
        if tensor.ndim < 2:
            raise ValueError(f"expected rows (N, ...), one for each digit, got {tuple(tensor.shape)}: add [None]")


def _check_labels(latents: Tensor, labels: Tensor) -> Tensor:
    """The labels on the latents' device, after a check that each latent has one, a whole number from 0."""
    return check_labels(labels, len(check_latents(latents)), classes=None).to(latents.device)
