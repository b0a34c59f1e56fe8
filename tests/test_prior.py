"""Priors over latents, on latents whose distribution is known."""

import pytest
import torch

import diffae_core as core


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def planted():
    """Two clusters in four dimensions, a third and two thirds of the latents."""
    latents = 0.3 * torch.randn(3000, 4, generator=seeded())
    latents[:1000] += torch.tensor([1.5, 0.0, 0.0, 0.0])
    latents[1000:] -= torch.tensor([0.0, 1.0, 0.0, 0.0])
    return latents


def shares_near(latents):
    return [
        (latents - torch.tensor(centre)).norm(dim=1).lt(1).float().mean().item()
        for centre in ((1.5, 0, 0, 0), (0, -1.0, 0, 0))
    ]


def test_a_latent_ddim_learns_two_clusters(planted):
    torch.manual_seed(0)
    prior = core.LatentPrior(latent_dim=4, width=64, depth=3, device="cpu")
    untrained = prior.sample_latents(500, seeded())
    for _ in core.train_latent_prior(
        prior, planted, core.TrainingConfig(epochs=30, batch_size=100, learning_rate=3e-3)
    ):
        pass
    first, second = shares_near(prior.sample_latents(2000, seeded()))
    assert first == pytest.approx(1 / 3, abs=0.06) and second == pytest.approx(2 / 3, abs=0.06)
    assert sum(shares_near(untrained)) < 0.6


@pytest.mark.parametrize("components", [1, 2])
def test_mixtures_have_the_latents_mean_and_covariance(planted, components):
    drawn = core.MixturePrior(planted, components).sample_latents(20_000, seeded())
    assert drawn.dtype == torch.float32
    torch.testing.assert_close(drawn.mean(0), planted.mean(0), atol=0.03, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(planted.T), atol=0.05, rtol=0)
    assert (sum(shares_near(drawn)) > 0.9) is (components == 2)


def test_same_seed_same_latents(planted):
    torch.manual_seed(0)
    for prior in (core.LatentPrior(4, 16, 2, device="cpu"), core.MixturePrior(planted, 2)):
        torch.nn.init.normal_(prior.head.weight) if isinstance(prior, core.LatentPrior) else None
        first, again, other = (prior.sample_latents(5, seeded(seed)) for seed in (1, 1, 2))
        assert first.shape == (5, 4) and torch.equal(first, again) and not torch.equal(first, other)


def test_saved_and_loaded(tmp_path):
    prior = core.LatentPrior(4, 16, 2, device="cpu")
    torch.nn.init.normal_(prior.head.weight)
    prior.save_checkpoint(tmp_path / "prior.pt")
    loaded = core.LatentPrior.from_pretrained(tmp_path / "prior.pt", device="cpu")
    assert torch.equal(loaded.sample_latents(3, seeded()), prior.sample_latents(3, seeded()))


def test_bad_arguments(planted):
    prior = core.LatentPrior(4, 16, 2, device="cpu")
    with pytest.raises(ValueError, match="n to be a whole number of 1 or more"):
        prior.sample_latents(0)
    with pytest.raises(ValueError, match="expected latents .*4"):
        core.train_latent_prior(prior, planted[:, :3].contiguous())
    with pytest.raises(ValueError, match="components to be a whole number"):
        core.MixturePrior(planted, 0)
    with pytest.raises(ValueError, match="width to be a whole number"):
        core.LatentPrior(width=0)
    with pytest.raises(ValueError, match="time_embedding_dim to be a multiple of 2"):
        core.LatentPrior(time_embedding_dim=7)


def test_the_shipped_prior_draws_digits_of_every_class():
    prior, model = core.LatentPrior.from_pretrained(device="cpu"), core.DiffusionModel.from_pretrained(device="cpu")
    judge = core.Judge.from_pretrained(device="cpu")
    _, labels = judge.read(model.generate(prior.sample_latents(300, seeded()), 5, generator=seeded()))
    counts = torch.bincount(labels, minlength=10)
    assert counts.min() >= 8 and counts.max() <= 75
