"""Notebook 05: ways to move in the space of latents, and between two pictures of noise."""

import torch
from torch import Tensor

from diffae_core.checks import (
    check_alike,
    check_count,
    check_floats,
    check_labels,
    check_latents,
    check_number,
)


def class_means(latents: Tensor, labels: Tensor) -> Tensor:
    """The mean latent of each digit class: ``(N, latent_dim)`` and labels ``(N,)`` of 0 to 9 -> ``(10, latent_dim)``.

    Raises:
        TypeError, ValueError: not such latents or labels, counts that do not match, or a class without an example.
    """
    labels = check_labels(labels, len(check_latents(latents))).to(latents.device)
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
    most = min(len(check_latents(latents)) - 1, latents.shape[1])
    if check_count(count, "count") > most:
        raise ValueError(f"expected count of {most} or less for latents {tuple(latents.shape)}, got {count}")
    _, singular_values, directions = torch.linalg.svd(latents - latents.mean(dim=0), full_matrices=False)
    return directions[:count] * singular_values[:count, None] / (len(latents) - 1) ** 0.5


def class_directions(latents: Tensor, labels: Tensor) -> Tensor:
    """For each digit class the direction in which a linear classifier is surest of it, one unit long.

    scikit-learn's logistic regression on the latents as they are, which have mean 0 and standard deviation 1: the
    classifier of the Diffusion Autoencoders paper (arXiv 2111.15640), one weight vector a class.

    Args:
        latents: ``(N, latent_dim)``.
        labels: ``(N,)`` of 0 to 9, each with an example.

    Returns:
        ``(10, latent_dim)``: walk along row k with :func:`edit`.

    Raises:
        TypeError, ValueError: not such latents or labels, counts that do not match, or a class without an example.
    """
    from sklearn.linear_model import LogisticRegression  # when first used: importing the package stays quick

    class_means(latents, labels)  # its checks are the ones wanted here
    # Held so tight that it keeps to the directions in which digits do vary: looser, it would lean on the weak ones.
    probe = LogisticRegression(C=0.4 / len(latents), max_iter=300)
    probe.fit(latents.detach().cpu().numpy(), labels.cpu().numpy())
    return torch.nn.functional.normalize(torch.from_numpy(probe.coef_).float(), dim=1)


def edit(latents: Tensor, direction: Tensor, strength: float) -> Tensor:
    """Move latents along a direction: ``latents + strength * sqrt(latent_dim) * direction / |direction|``.

    The direction's own length does not count: at strength s the way is as long as that of ``s * torch.randn_like``,
    which moves every number by s standard deviations.

    Args:
        latents: ``(N, latent_dim)``.
        direction: ``(latent_dim,)``, or one for each latent, ``(N, latent_dim)``.
        strength: in standard deviations; below 0 to go the other way.

    Raises:
        TypeError, ValueError: not such latents or directions, a direction without length, an infinite strength.
    """
    count, latent_dim = check_latents(latents).shape
    check_floats(direction, f"expected a direction ({latent_dim},), of finite floating-point numbers, got")
    if direction.shape not in ((latent_dim,), (1, latent_dim), (count, latent_dim)):
        wanted = f"a direction ({latent_dim},) or ({count}, {latent_dim})"
        raise ValueError(f"expected {wanted} for latents {tuple(latents.shape)}, got {tuple(direction.shape)}")
    lengths = direction.norm(dim=-1, keepdim=True)
    if not bool((lengths > 0).all()):
        raise ValueError("expected directions with a length, got one of zeros: look where it is from")
    check_number(strength, "strength", -1e6, 1e6)
    return latents + (strength * latent_dim**0.5 * direction / lengths).to(latents)


def blend(
    a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], share: float, move: str = "both"
) -> tuple[Tensor, Tensor]:
    """The codes that lie at ``share`` of the way from ``a`` (0) to ``b`` (1): a line in z, an arc in x_T.

    Args:
        a, b: ``(z, x_T)`` of each: ``(N, latent_dim)`` from ``encode``, ``(N, 1, 28, 28)`` from ``invert``.
        share: of the way.
        move: "both"; "latent" or "noise" to move only that, and leave the other as in ``a``.

    Raises:
        TypeError, ValueError: another ``move``, not such codes, or codes of different shapes.
    """
    if move not in ("both", "latent", "noise"):
        raise ValueError(f'expected move to be "both", "latent" or "noise", got {move!r}: choose one of these')
    for code in (a, b):
        if not isinstance(code, tuple | list) or len(code) != 2:
            raise TypeError(f"expected a code (z, x_T), got {type(code).__name__}: z from encode and x_T from invert")
    z, x_T = lerp(a[0], b[0], share), slerp(a[1], b[1], share)  # both, whatever moves: they check what they are given
    if z.ndim != 2 or x_T.ndim != 4 or len(z) != len(x_T):
        wanted = "expected codes (z, x_T) of (N, latent_dim) and (N, 1, 28, 28)"
        raise ValueError(f"{wanted}, got {tuple(z.shape)} and {tuple(x_T.shape)}: z from encode and x_T from invert")
    return z if move != "noise" else a[0], x_T if move != "latent" else a[1]


def interpolate(
    a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], steps: int, move: str = "both"
) -> tuple[Tensor, Tensor]:
    """Codes on the way from one digit's to another's, evenly spread: :func:`blend` at each.

    Args:
        a, b: ``(z, x_T)`` of each digit, ``(1, latent_dim)`` and ``(1, 1, 28, 28)``.
        steps: how many, both ends included; 2 or more.
        move: "both", "latent" or "noise".

    Returns:
        ``(z, x_T)`` of ``(steps, latent_dim)`` and ``(steps, 1, 28, 28)``: hand them to ``generate``.

    Raises:
        TypeError, ValueError: another ``move``, fewer than two steps, or not the codes of one digit each.
    """
    shares = torch.linspace(0, 1, check_count(steps, "steps", 2)).tolist()
    z, x_T = zip(*(blend(a, b, share, move) for share in shares))
    if len(z[0]) != 1:
        raise ValueError(f"expected the codes of one digit each, got {len(z[0])}: keep the batch with z[[number]]")
    return torch.cat(z), torch.cat(x_T)


def lerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The straight line from ``a`` (share 0) to ``b`` (share 1): ``(1 - share) a + share b``. Right for latents.

    Raises:
        TypeError, ValueError: not two tensors of one shape, or an infinite share.
    """
    check_alike(a, b)
    check_number(share, "share", -1e6, 1e6)
    return (1 - share) * a + share * b.to(a.device)


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The arc from ``a`` (share 0) to ``b`` (share 1): right for noise, which keeps its length and so its variance.

    ``sin((1 - share) angle) / sin(angle) a + sin(share angle) / sin(angle) b`` with the angle between a and b, of each
    row of ``(N, ...)`` (DDIM, arXiv 2010.02502, appendix D.5). Where the two are parallel it is the straight line.

    Raises:
        TypeError, ValueError: not two tensors ``(N, ...)`` of one shape, or an infinite share.
    """
    check_alike(a, b, least_ndim=2)
    check_number(share, "share", -1e6, 1e6)
    b = b.to(a.device)
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(flat_a, flat_b, dim=1).clamp(-1, 1)
    angle = cosine.acos().reshape(-1, *[1] * (a.ndim - 1))
    arc = (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / angle.sin().clamp(min=1e-6)
    return torch.where(angle.sin() < 1e-4, lerp(a, b, share), arc)
