"""Figures for crowds of digits, as pure functions of tensors: how alike, how close, how varied."""

import torch
from torch import Tensor

from diffae_core.checks import check_count, check_images, check_labels, check_tensor


def percent_equal(labels: Tensor, wanted: Tensor) -> float:
    """The share of ``labels`` ``(N,)`` that are the ``wanted`` ones ``(N,)``, in percent.

    Raises:
        TypeError, ValueError: not labels of 0 to 9, none of them, or different counts.
    """
    check_tensor(wanted, "expected labels (N,), whole numbers from 0 to 9, got")
    count = check_count(wanted.numel(), "the number of labels")
    check_labels(wanted, count)
    check_labels(labels, count)
    return float((labels.cpu() == wanted.cpu()).float().mean() * 100)


def spread(total: int, count: int) -> Tensor:
    """``count`` whole numbers spread evenly over 0 to ``total`` - 1: a fair part of a set in no particular order.

    Raises:
        ValueError: not whole numbers, or a ``count`` above ``total``.
    """
    if check_count(count, "count") > check_count(total, "total"):
        raise ValueError(f"expected count of {total} or less, got {count}")
    return torch.arange(count) * total // count


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Frechet distance between two crowds of features, ``(N, D)`` and ``(M, D)``, taken as two Gaussians.

    ``|mean_a - mean_b|^2 + trace(cov_a + cov_b - 2 sqrt(cov_a cov_b))`` (arXiv 1706.08500). It depends on the network
    that gave the features and on the counts: compare it only with the floor of real digits at the same ones.

    Raises:
        ValueError: fewer than two examples on one side, or different widths.
    """
    a, b = (features.double() for features in _check_crowds(features_a, features_b, 2))
    covariance_a, covariance_b = torch.cov(a.T), torch.cov(b.T)
    root_trace = torch.linalg.eigvals(covariance_a @ covariance_b).real.clamp(min=0).sqrt().sum()
    variances = covariance_a.trace() + covariance_b.trace() - 2 * root_trace
    return float((a.mean(0) - b.mean(0)).square().sum() + variances)


def precision_recall(real: Tensor, drawn: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """Precision and recall of drawn features ``(M, D)`` against real ones ``(N, D)``, each from 0 to 1.

    Precision is the share of drawn ones that lie within reach of a real one, recall the share of real ones within reach
    of a drawn one; the reach of each is the distance to its nearest neighbour but so many, of its own kind (arXiv
    1904.06991).

    Raises:
        TypeError, ValueError: not features, no more than ``neighbours`` of them, or different widths.
    """
    least = check_count(neighbours, "neighbours") + 1
    real, drawn = (features.double() for features in _check_crowds(real, drawn, least))

    def share_within_reach(crowd: Tensor, of: Tensor) -> float:
        reach = torch.cat([torch.cdist(part, of).kthvalue(neighbours + 1).values for part in of.split(1000)])
        within = [(torch.cdist(part, of) <= reach).any(dim=1) for part in crowd.split(1000)]
        return float(torch.cat(within).double().mean())

    return share_within_reach(drawn, real), share_within_reach(real, drawn)


def nearest_distances(queries: Tensor, others: Tensor) -> Tensor:
    """The Euclidean distance from each of ``queries`` ``(N, D)`` to the nearest of ``others`` ``(M, D)``: ``(N,)``.

    Raises:
        TypeError, ValueError: not such rows, none of them, or different widths.
    """
    queries, others = _check_crowds(queries, others, 1)

    def nearest(part: Tensor) -> Tensor:  # in float64: equal rows come out at 0
        distances = [torch.cdist(part, some.double()).amin(dim=1) for some in others.split(1000)]
        return torch.stack(distances).amin(dim=0).float()

    return torch.cat([nearest(part.double()) for part in queries.split(1000)])


def ssim(images_a: Tensor, images_b: Tensor) -> float:
    """Structural similarity of pairs of pictures ``(N, 1, H, W)`` in [0, 1], averaged: 1 for equal ones.

    Windows of 11 x 11 pixels under a Gaussian of 1.5 (Wang et al. 2004), as torchmetrics computes it.

    Raises:
        TypeError, ValueError: not such pictures, not of equal shapes, or smaller than 11 x 11.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure  # when first used

    for images in (images_a, images_b):
        check_tensor(images, "expected pictures (N, 1, H, W) as a tensor, got")
        check_images(images, images_a.shape[-1] if images_a.ndim else 0)
    if images_a.shape != images_b.shape or len(images_a) == 0 or images_a.shape[-1] < 11:
        shapes = f"{tuple(images_a.shape)} and {tuple(images_b.shape)}"
        raise ValueError(f"expected pairs of pictures (N, 1, H, W), one or more, of 11 x 11 or larger, got {shapes}")
    a, b = images_a.detach().cpu(), images_b.detach().cpu()
    return float(structural_similarity_index_measure(a, b, data_range=1.0))


def _check_crowds(a: Tensor, b: Tensor, at_least: int) -> tuple[Tensor, Tensor]:
    """Both on the CPU, if they are crowds of features of one width."""
    for features in (a, b):
        check_tensor(features, "expected features (N, D) as a tensor, got")
        if features.ndim != 2 or features.is_complex() or not bool(torch.isfinite(features).all()):
            wrong = "a value that is NaN or infinite, or complex" if features.ndim == 2 else tuple(features.shape)
            raise ValueError(f"expected features (N, D), finite, got {wrong}: flatten pictures with images.flatten(1)")
    if min(len(a), len(b)) < at_least or a.shape[1] != b.shape[1]:
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"expected features (N, D) and (M, D) with N and M of {at_least} or more, got {shapes}")
    return a.detach().cpu(), b.detach().cpu()
