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


def bar(width: int, lean: float = 0.0, top: int = 4, bottom: int = 24) -> torch.Tensor:
    """An upright bar, ``(1, 1, 28, 28)``, whose columns move by ``lean`` pixels for each row down."""
    image = torch.zeros(1, 1, 28, 28)
    for row in range(top, bottom):
        left = round(12 + lean * (row - (top + bottom - 1) / 2))
        image[0, 0, row, left : left + width] = 1
    return image


def test_stroke_statistics_of_bars():
    images = torch.cat([bar(2), bar(4), bar(2, lean=-0.5), bar(2, top=9, bottom=19), 0.5 * bar(2)])
    statistics = core.metrics.stroke_statistics(images)
    assert statistics["ink"].tolist() == [40, 80, 40, 20, 20]
    outline = 2 * 20 + 2 * 2
    assert statistics["thickness"][0].item() == pytest.approx(40 / outline)
    assert statistics["thickness"][1].item() == pytest.approx(80 / (outline + 4))  # twice as wide: nearly doubled
    assert statistics["slant"].tolist() == pytest.approx([0, 0, -0.5, 0, 0], abs=0.02)
    assert statistics["height"].tolist() == pytest.approx([33.25**0.5] * 3 + [8.25**0.5, 33.25**0.5])


def test_strokes_kept_are_correlations_within_the_classes():
    widths, labels = [2, 3, 4, 5] * 2, torch.tensor([0] * 4 + [1] * 4)
    before = torch.cat([bar(width) for width in widths])
    kept = core.metrics.strokes_kept(before, before.flip(2), labels, labels)
    assert kept["ink"] == pytest.approx(1) and kept["thickness"] == pytest.approx(1)
    opposite = torch.cat([bar(7 - width, top=4 + 4 * label) for width, label in zip(widths, labels.tolist())])
    kept = core.metrics.strokes_kept(before, opposite, labels, labels)
    assert kept["thickness"] < -0.9  # within a class thin became thick


def test_haze_and_soft_edges_are_counted():
    images = torch.zeros(1, 1, 10, 10)
    images.view(-1)[:20] = torch.tensor([0.05] * 5 + [0.3] * 6 + [0.8] * 3 + [1.0] * 6)
    assert core.metrics.faint_share(images) == pytest.approx(0.05)
    assert core.metrics.grey_per_ink(images) == pytest.approx(9 / 9)
