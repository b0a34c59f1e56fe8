"""Figures for crowds of digits, as pure functions of tensors: how alike, how close, how varied."""

import torch
from torch import Tensor


def percent_equal(labels: Tensor, wanted: Tensor) -> float:
    """The share of ``labels`` that are the ``wanted`` ones, in percent."""
    return float((labels == wanted).float().mean() * 100)


def spread(total: int, count: int) -> Tensor:
    """``count`` whole numbers spread evenly over 0 to ``total`` - 1: a fair part of a set in no particular order."""
    return torch.arange(count) * total // count


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Frechet distance between two crowds of features, ``(N, D)`` and ``(M, D)``, taken as two Gaussians.

    ``|mean_a - mean_b|^2 + trace(cov_a + cov_b - 2 sqrt(cov_a cov_b))`` (arXiv 1706.08500). It depends on the network
    that gave the features and on the counts: compare it only with the floor of real digits at the same ones.

    Raises:
        ValueError: fewer than two examples on one side, or different widths.
    """
    a, b = _check_crowds(features_a, features_b, 2)
    covariance_a, covariance_b = torch.cov(a.T), torch.cov(b.T)
    root_trace = torch.linalg.eigvals(covariance_a @ covariance_b).real.clamp(min=0).sqrt().sum()
    variances = covariance_a.trace() + covariance_b.trace() - 2 * root_trace
    return float((a.mean(0) - b.mean(0)).square().sum() + variances)


def precision_recall(real: Tensor, drawn: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """Precision and recall of drawn features ``(M, D)`` against real ones ``(N, D)``, each from 0 to 1.

    Precision is the share of drawn ones that lie within reach of a real one, recall the share of real ones within reach
    of a drawn one; the reach of each is the distance to its third nearest neighbour of its own kind (arXiv 1904.06991).

    Raises:
        ValueError: no more than ``neighbours`` examples on one side, or different widths.
    """
    real, drawn = _check_crowds(real, drawn, neighbours + 1)

    def share_within_reach(crowd: Tensor, of: Tensor) -> float:
        reach = torch.cat([torch.cdist(part, of).kthvalue(neighbours + 1).values for part in of.split(1000)])
        return float(
            torch.cat([(torch.cdist(part, of) <= reach).any(dim=1) for part in crowd.split(1000)]).double().mean()
        )

    return share_within_reach(drawn, real), share_within_reach(real, drawn)


def nearest_distances(queries: Tensor, others: Tensor) -> Tensor:
    """The Euclidean distance from each of ``queries`` ``(N, D)`` to the nearest of ``others`` ``(M, D)``: ``(N,)``.

    Raises:
        ValueError: no others, or different widths.
    """
    if len(others) == 0 or queries.shape[1:] != others.shape[1:] or queries.ndim != 2:
        shapes = f"{tuple(queries.shape)} and {tuple(others.shape)}"
        raise ValueError(f"expected rows (N, D) and (M, D) with M of 1 or more, got {shapes}")
    return torch.cat([torch.cdist(part, others).amin(dim=1) for part in queries.split(250)])


def ssim(images_a: Tensor, images_b: Tensor) -> float:
    """Structural similarity of pairs of pictures ``(N, 1, H, W)`` in [0, 1], averaged: 1 for equal ones.

    Windows of 11 x 11 pixels under a Gaussian of 1.5 (Wang et al. 2004), as torchmetrics computes it.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure  # when first used

    return float(structural_similarity_index_measure(images_a, images_b, data_range=1.0))


def _check_crowds(a: Tensor, b: Tensor, at_least: int) -> tuple[Tensor, Tensor]:
    if min(len(a), len(b)) < at_least or a.shape[1:] != b.shape[1:]:
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"expected features (N, D) and (M, D) with N and M of {at_least} or more, got {shapes}")
    return a.cpu().double(), b.cpu().double()
