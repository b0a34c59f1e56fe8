"""Metrics of sample sets, from their features ``(N, D)``, and of pictures, from their ink.

Bare formulas: they check nothing. The metrics of features run on the CPU in float64.
"""

import torch
from torch import Tensor


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Frechet distance between two sets of features, ``(N, D)`` and ``(M, D)``, taken as two Gaussians.

    ``|mean_a - mean_b|^2 + trace(cov_a + cov_b - 2 sqrt(cov_a cov_b))`` (arXiv 1706.08500). It depends on the network
    that gave the features and on the counts, two or more: compare it only, for the same network and counts, with the
    reference, the distance of real training digits from the same test digits.
    """
    a, b = features_a.cpu().double(), features_b.cpu().double()  # in this order: MPS has no float64
    covariance_a, covariance_b = torch.cov(a.T), torch.cov(b.T)
    root_trace = torch.linalg.eigvals(covariance_a @ covariance_b).real.clamp(min=0).sqrt().sum()
    variances = covariance_a.trace() + covariance_b.trace() - 2 * root_trace
    return float((a.mean(0) - b.mean(0)).square().sum() + variances)


def precision_recall(real: Tensor, generated: Tensor, neighbours: int = 5) -> tuple[float, float]:
    """Improved precision and recall (arXiv 1904.06991) of generated features ``(M, D)`` against real ones ``(N, D)``.

    Precision is the share of generated features within reach of a real one, recall the share of real features within
    reach of a generated one, each from 0 to 1. The reach of a feature is the distance to its ``neighbours``-th nearest
    neighbour of its own kind.
    """
    real, generated = real.cpu().double(), generated.cpu().double()

    def share_within_reach(samples: Tensor, of: Tensor) -> float:
        reach = torch.cat([torch.cdist(part, of).kthvalue(neighbours + 1).values for part in of.split(1000)])
        within = [(torch.cdist(part, of) <= reach).any(dim=1) for part in samples.split(1000)]
        return float(torch.cat(within).double().mean())

    return share_within_reach(generated, real), share_within_reach(real, generated)


def nearest_distances(queries: Tensor, others: Tensor) -> Tensor:
    """The Euclidean distance from each of ``queries`` ``(N, D)`` to the nearest of ``others`` ``(M, D)``: ``(N,)``."""

    # In parts, which bounds the memory; in float64, in which equal rows come out at 1e-5 or less.
    def nearest(part: Tensor) -> Tensor:
        distances = [torch.cdist(part, some.cpu().double()).amin(dim=1) for some in others.split(1000)]
        return torch.stack(distances).amin(dim=0).float()

    return torch.cat([nearest(part.cpu().double()) for part in queries.split(1000)])


def faint_share(images: Tensor) -> float:
    """The share of pixels between 0.02 and 0.1, of images ``(N, 1, H, W)`` in [0, 1]: haze on the paper."""
    return float(((images > 0.02) & (images < 0.1)).float().mean())


def grey_per_ink(images: Tensor) -> float:
    """Pixels between 0.1 and 0.9 for each pixel above 0.5, of images ``(N, 1, H, W)`` in [0, 1]: soft edges."""
    grey = (images > 0.1) & (images < 0.9)
    return float(grey.sum() / (images > 0.5).sum())


def stroke_statistics(images: Tensor) -> dict[str, Tensor]:
    """Four measures of a digit's handwriting, each ``(N,)``, of images ``(N, 1, H, W)`` in [0, 1].

    - ink: the sum of all pixels.
    - thickness: ink over the sum of absolute differences between neighbouring pixels, which is the outline's length.
    - slant: the covariance of row and column over the variance of rows, weighted by ink. 0 is upright; below 0 the top
      leans to the right.
    - height: the standard deviation of rows, weighted by ink, in pixels.
    """
    pictures = images[:, 0]
    rows = torch.arange(pictures.shape[1], device=images.device)[:, None]
    columns = torch.arange(pictures.shape[2], device=images.device)[None]
    ink = pictures.sum(dim=(1, 2)).clamp(min=1e-6)

    def mean(values: Tensor) -> Tensor:  # weighted by ink, (N, 1, 1)
        return (pictures * values).sum(dim=(1, 2), keepdim=True) / ink[:, None, None]

    outline = pictures.diff(dim=1).abs().sum(dim=(1, 2)) + pictures.diff(dim=2).abs().sum(dim=(1, 2))
    down = rows - mean(rows)
    across = columns - mean(columns)
    variance = mean(down**2).flatten()
    return {
        "thickness": ink / outline.clamp(min=1e-6),
        "ink": ink,
        "slant": mean(down * across).flatten() / variance.clamp(min=1e-6),
        "height": variance.sqrt(),
    }


def strokes_kept(before: Tensor, after: Tensor, labels_before: Tensor, labels_after: Tensor) -> dict[str, float]:
    """How much of the handwriting is kept: for each of :func:`stroke_statistics`, its correlation before and after.

    From each digit's value we subtract the mean of its class, before and after, so that a 1 that is thinner than an 8
    only because it is a 1 counts as neither kept nor lost.

    Args:
        before, after: images ``(N, 1, H, W)`` in [0, 1]; row k of ``after`` was made from row k of ``before``.
        labels_before, labels_after: their classes, ``(N,)``.

    Returns:
        For each measure the correlation, from -1 to 1.
    """

    def within_class(values: Tensor, labels: Tensor) -> Tensor:
        means = torch.stack([values[labels == label].mean() for label in range(int(labels.max()) + 1)])
        return values - means[labels]

    measured = zip(stroke_statistics(before).items(), stroke_statistics(after).values())
    pairs = {
        name: torch.stack([within_class(old, labels_before), within_class(new, labels_after)])
        for (name, old), new in measured
    }
    return {name: float(torch.corrcoef(pair)[0, 1]) for name, pair in pairs.items()}
