import pytest
import torch
from scipy.linalg import sqrtm

import diffae_core as core


def test_frechet_distance_is_that_of_scipy():
    a = torch.randn(500, 6, generator=core.seeded(0), dtype=torch.float64)
    b = 0.5 * torch.randn(400, 6, generator=core.seeded(1), dtype=torch.float64) + 1
    root = torch.from_numpy(sqrtm((torch.cov(a.T) @ torch.cov(b.T)).numpy()).real)
    wanted = (a.mean(0) - b.mean(0)).square().sum() + (torch.cov(a.T) + torch.cov(b.T) - 2 * root).trace()
    assert core.metrics.frechet_distance(a, b) == pytest.approx(wanted.item(), rel=1e-6)


def test_frechet_distance_of_known_gaussians():
    a = torch.randn(1000, 4, generator=core.seeded(0))
    assert core.metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert core.metrics.frechet_distance(a, a + 3) == pytest.approx(4 * 9, rel=1e-4)
    centred = a - a.mean(0)
    assert core.metrics.frechet_distance(centred, 2 * centred) == pytest.approx(torch.cov(a.T).trace().item(), rel=1e-4)


def test_precision_and_recall_of_known_sample_sets():
    real, alike = torch.randn(2, 1000, 4, generator=core.seeded(0))
    assert min(core.metrics.precision_recall(real, alike)) > 0.9
    assert core.metrics.precision_recall(real, real + 100) == (0, 0)
    narrow = 0.01 * torch.randn(1000, 4, generator=core.seeded(1))
    precision, recall = core.metrics.precision_recall(real, narrow)
    assert precision > 0.95 and recall < 0.05, "all in one place: each is real enough, but most of the real are missed"


def test_nearest_distances_are_those_of_a_plain_search():
    a, b = torch.randn(340, 5, generator=core.seeded(0)).split((300, 40))
    wanted = (a[:, None] - b).norm(dim=2).amin(dim=1)
    torch.testing.assert_close(core.metrics.nearest_distances(a, b), wanted, atol=1e-4, rtol=1e-4)
    assert core.metrics.nearest_distances(a, a).max() < 1e-6
