"""Metrics of sample sets as pure functions of their features, ``(N, D)``: how alike, how close, how varied.

Bare formulas: they check nothing, and run on the CPU in float64.
"""

import torch
from torch import Tensor


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Frechet distance between two sets of features, ``(N, D)`` and ``(M, D)``, taken as two Gaussians.

    ``|mean_a - mean_b|^2 + trace(cov_a + cov_b - 2 sqrt(cov_a cov_b))`` (arXiv 1706.08500). It depends on the network
    that gave the features and on the counts, two or more: compare it only with the reference, the distance of real
    training digits from the same test digits, at the same ones.
    """
    a, b = features_a.cpu().double(), features_b.cpu().double()  # in this order: MPS has no float64
    covariance_a, covariance_b = torch.cov(a.T), torch.cov(b.T)
    root_trace = torch.linalg.eigvals(covariance_a @ covariance_b).real.clamp(min=0).sqrt().sum()
    variances = covariance_a.trace() + covariance_b.trace() - 2 * root_trace
    return float((a.mean(0) - b.mean(0)).square().sum() + variances)


def precision_recall(real: Tensor, generated: Tensor, neighbours: int = 5) -> tuple[float, float]:
    """Improved precision and recall (arXiv 1904.06991) of generated features ``(M, D)`` against real ones ``(N, D)``.

    Precision is the share of generated ones that lie within reach of a real one, recall the share of real ones within
    reach of a generated one, each from 0 to 1. The reach of each is the distance to its ``neighbours``-th nearest
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

    def nearest(part: Tensor) -> Tensor:  # in parts, which bounds the memory; in float64: equal rows come out at 0
        distances = [torch.cdist(part, some.cpu().double()).amin(dim=1) for some in others.split(1000)]
        return torch.stack(distances).amin(dim=0).float()

    return torch.cat([nearest(part.cpu().double()) for part in queries.split(1000)])
