import pytest
import torch
from scipy.linalg import sqrtm

import diffae_core as core


def test_frechet_distance_agrees_with_scipy():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(500, 6, generator=generator, dtype=torch.float64)
    b = 0.5 * torch.randn(400, 6, generator=generator, dtype=torch.float64) + 1
    root = torch.from_numpy(sqrtm((torch.cov(a.T) @ torch.cov(b.T)).numpy()).real)
    wanted = (a.mean(0) - b.mean(0)).square().sum() + (torch.cov(a.T) + torch.cov(b.T) - 2 * root).trace()
    assert core.frechet_distance(a, b) == pytest.approx(wanted.item(), rel=1e-6)


def test_frechet_distance_of_known_gaussians():
    a = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0))
    assert core.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert core.frechet_distance(a, a + 3) == pytest.approx(4 * 9, rel=1e-4)
    spread = torch.cov(a.T).double().trace().item()
    centred = a - a.mean(0)
    assert core.frechet_distance(centred, 2 * centred) == pytest.approx(spread, rel=1e-4)


@pytest.mark.parametrize("shapes", [((1, 4), (9, 4)), ((9, 4), (9, 5))])
def test_frechet_distance_needs_crowds_of_one_width(shapes):
    with pytest.raises(ValueError, match="expected features"):
        core.frechet_distance(*(torch.randn(shape) for shape in shapes))


def test_spread_is_even():
    assert core.spread(1000, 10).tolist() == list(range(0, 1000, 100))
    assert core.spread(7, 7).tolist() == list(range(7))


def test_precision_and_recall_of_known_crowds():
    generator = torch.Generator().manual_seed(0)
    real, alike = torch.randn(2, 1000, 4, generator=generator)
    assert min(core.precision_recall(real, alike)) > 0.9
    assert core.precision_recall(real, real + 100) == (0, 0)
    narrow = torch.zeros(1000, 4) + 0.01 * torch.randn(1000, 4, generator=generator)
    precision, recall = core.precision_recall(real, narrow)
    assert precision > 0.95 and recall < 0.05, "all in one place: each is real enough, but most of the real are missed"
    with pytest.raises(ValueError, match="N and M of 4 or more"):
        core.precision_recall(real[:3], alike)


def test_nearest_distances_are_those_of_a_plain_search():
    a, b = torch.randn(340, 5, generator=torch.Generator().manual_seed(0)).split((300, 40))
    wanted = (a[:, None] - b).norm(dim=2).amin(dim=1)
    torch.testing.assert_close(core.nearest_distances(a, b), wanted, atol=1e-4, rtol=1e-4)
    assert core.nearest_distances(a, a).max() < 1e-6
    with pytest.raises(ValueError, match="M of 1 or more"):
        core.nearest_distances(a, b[:0])


@pytest.mark.parametrize("measure", [core.frechet_distance, core.precision_recall, core.nearest_distances])
def test_what_is_no_crowd_is_refused(measure):
    crowd = torch.randn(9, 4)
    with pytest.raises(TypeError, match="as a tensor, got list"):
        measure(crowd, [[0.0] * 4] * 9)
    with pytest.raises(ValueError, match=r"got \(9, 1, 2, 2\): flatten pictures"):
        measure(crowd, crowd.reshape(9, 1, 2, 2))
    with pytest.raises(ValueError, match="NaN or infinite"):
        measure(crowd, crowd / 0)


def test_ssim_is_one_for_equal_pictures_and_falls_with_noise(sample):
    images = sample.images[:20]
    assert core.ssim(images, images) == pytest.approx(1)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    scores = [core.ssim((images + strength * noise).clamp(0, 1), images) for strength in (0.05, 0.2, 0.5)]
    assert 1 > scores[0] > scores[1] > scores[2]


def test_ssim_refuses_what_is_no_pair(sample):
    images = sample.images[:4]
    with pytest.raises(ValueError, match="expected pairs of pictures"):
        core.ssim(images, images[:3])
    with pytest.raises(ValueError, match="got uint8"):
        core.ssim(images, sample.pixels[:4])
