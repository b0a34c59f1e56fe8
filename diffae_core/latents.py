"""Notebook 05: ways to move in the space of latents, and between two pictures of noise."""

import torch
from torch import Tensor

from diffae_core.base.validation import check_count, check_labels, check_latents


def class_means(latents: Tensor, labels: Tensor) -> Tensor:
    """The mean latent of each class: ``(N, latent_dim)`` and labels ``(N,)`` of 0 to C - 1 -> ``(C, latent_dim)``.

    Raises:
        TypeError, ValueError: not such latents or labels, counts that do not match, or a class without an example.
    """
    labels = _check_classes(latents, labels)
    return torch.stack([latents[labels == label].mean(dim=0) for label in range(int(labels.max()) + 1)])


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
    most = min(len(check_latents(latents)) - 1, latents.shape[1])
    if check_count(count, "count") > most:
        raise ValueError(f"expected count of {most} or less for latents {tuple(latents.shape)}, got {count}")
    _, singular_values, directions = torch.linalg.svd(latents - latents.mean(dim=0), full_matrices=False)
    return directions[:count] * singular_values[:count, None] / (len(latents) - 1) ** 0.5


def class_directions(latents: Tensor, labels: Tensor) -> Tensor:
    """For each class the direction in which a linear classifier's certainty of it rises fastest, one unit long.

    scikit-learn's logistic regression on the latents as they are, which have mean 0 and standard deviation 1: the
    classifier of the Diffusion Autoencoders paper (arXiv 2111.15640), one weight vector a class.

    Args:
        latents: ``(N, latent_dim)``.
        labels: ``(N,)`` of 0 to C - 1, each with an example, C of 2 or more.

    Returns:
        ``(C, latent_dim)``: move along row k with :func:`edit`.

    Raises:
        TypeError, ValueError: not such latents or labels, counts that do not match, or a class without an example.
    """
    from sklearn.linear_model import LogisticRegression  # when first used: importing the package stays quick

    labels = _check_classes(latents, labels)
    check_count(int(labels.max()) + 1, "the number of classes", at_least=2)
    # Regularised so strongly that it keeps to the directions in which digits do vary.
    probe = LogisticRegression(C=0.4 / len(latents), max_iter=300)
    probe.fit(latents.detach().cpu().numpy(), labels.cpu().numpy())
    weights = torch.from_numpy(probe.coef_).float()
    weights = torch.cat([-weights, weights]) if len(weights) == 1 else weights  # of two classes it gives one row
    return torch.nn.functional.normalize(weights, dim=1)


def edit(latents: Tensor, direction: Tensor, strength: float) -> Tensor:
    """Move latents along a direction: ``latents + strength * sqrt(latent_dim) * direction / |direction|``.

    The direction's own length does not count: at strength s the way is as long as that of ``s * torch.randn_like``,
    which moves every number by s standard deviations.

    Args:
        latents: ``(N, latent_dim)``.
        direction: ``(latent_dim,)``, or one for each latent, ``(N, latent_dim)``; not of length 0.
        strength: in standard deviations; below 0 to go the other way.
    """
    unit = direction / direction.norm(dim=-1, keepdim=True)
    return latents + (strength * latents.shape[-1] ** 0.5 * unit).to(latents)


def lerp(a: Tensor, b: Tensor, share: float | Tensor) -> Tensor:
    """The straight line from ``a`` (share 0) to ``b`` (share 1): ``(1 - share) a + share b``. Right for latents.

    A share ``(S, 1)`` between latents ``(1, latent_dim)`` gives S points on the line, ``(S, latent_dim)``.
    """
    return (1 - share) * a + share * b


def slerp(a: Tensor, b: Tensor, share: float | Tensor) -> Tensor:
    """The arc from ``a`` (share 0) to ``b`` (share 1): right for noise, which keeps its length and so its variance.

    ``sin((1 - share) angle) / sin(angle) a + sin(share angle) / sin(angle) b`` with the angle between a and b, of each
    row of ``(N, ...)`` (DDIM, arXiv 2010.02502, appendix D.5). Where the two are parallel it is the straight line. A
    share ``(S, 1, 1, 1)`` between noises ``(1, 1, 28, 28)`` gives S points on the arc.
    """
    cosine = torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1), dim=1).clamp(-1, 1)
    angle = cosine.acos().reshape(-1, *[1] * (a.ndim - 1))
    arc = (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / angle.sin().clamp(min=1e-6)
    return torch.where(angle.sin() < 1e-4, lerp(a, b, share), arc)


def _check_classes(latents: Tensor, labels: Tensor) -> Tensor:
    """The labels on the latents' device, if each class from 0 to the largest has an example."""
    check_latents(latents)
    whole = isinstance(labels, Tensor) and labels.numel() and not (labels.is_floating_point() or labels.is_complex())
    classes = int(labels.max()) + 1 if whole else 10
    labels = check_labels(labels, len(latents), classes).to(latents.device)
    if missing := sorted(set(range(classes)) - set(labels.tolist())):
        raise ValueError(f"expected examples of all classes up to {classes - 1}, got none of {missing}: take more")
    return labels
