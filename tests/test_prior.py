"""The latent prior, on latents whose distribution is known."""

import pytest
import torch

import diffae_core as core
from diffae_core.autoencoder import SimpleAutoencoder

MEAN, STD = 0.7, 0.5  # of the planted Gaussian of label 0; the mean of label k is k higher


class GaussianPrior(core.LatentPrior):
    """Its velocity is the best there is for latents N(MEAN + label, STD^2): what training would come to."""

    def forward(self, x, noise_rate, labels):
        mean = MEAN + (labels % self.num_classes)[:, None]  # without a label: that of label 0
        noise_rate = noise_rate[:, None]
        signal = (1 - noise_rate**2).clamp(min=0).sqrt()
        away = (x - signal * mean) / (signal**2 * STD**2 + noise_rate**2)
        clean, noise = mean + signal * STD**2 * away, noise_rate * away
        return core.schedule.velocity(clean, noise, signal, noise_rate)


@pytest.fixture(scope="module")
def gaussian():
    return GaussianPrior(latent_dim=2, width=4, depth=1, device="cpu")


def test_samples_have_the_gaussians_mean_and_deviation(gaussian):
    sampled = gaussian.sample_latents(10_000, 0, generator=core.seeded(0))
    assert sampled.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert sampled.std().item() == pytest.approx(STD, abs=0.02)  # 200 steps: 0.491


@pytest.mark.parametrize(("start", "time"), [(3.0, 0.2), (3.0, 0.5), (-1.0, 0.5), (0.7, 0.8)])
def test_refining_gives_the_posteriors_mean_and_variance(gaussian, start, time):
    """y = signal z + noise_rate e, then x_0 given y, for x_0 ~ N(MEAN, STD^2): both steps are Gaussian."""
    signal, noise_rate = (rate.item() for rate in core.CosineSchedule().rates(torch.tensor(time)))
    refined = gaussian.refine(torch.full((10_000, 2), start), time, num_steps=150, generator=core.seeded(0))
    variance_y = signal**2 * STD**2 + noise_rate**2
    gain = signal * STD**2 / variance_y
    posterior_variance = STD**2 * noise_rate**2 / variance_y
    assert refined.mean().item() == pytest.approx(MEAN + gain * signal * (start - MEAN), abs=0.02)
    assert refined.var().item() == pytest.approx(posterior_variance + gain**2 * noise_rate**2, rel=0.07)


def test_inversion_finds_the_noise_and_another_label_gives_another_digit_in_the_same_hand(gaussian):
    """Of a Gaussian per label the map is known: z_T = (z - mean) / std, so another label only exchanges the mean."""
    labels = torch.arange(10).repeat(20)
    z = MEAN + labels[:, None] + STD * torch.randn(200, 2, generator=core.seeded(0))
    z_T = gaussian.invert(z, labels, num_steps=400)
    torch.testing.assert_close(z_T, (z - MEAN - labels[:, None]) / STD, atol=0.01, rtol=0.01)
    torch.testing.assert_close(gaussian.generate(z_T, labels, num_steps=400), z, atol=1e-3, rtol=1e-3)
    other = labels.roll(1)
    wanted = z - labels[:, None] + other[:, None]
    torch.testing.assert_close(gaussian.generate(z_T, other, num_steps=400), wanted, atol=0.01, rtol=0.01)


def test_before_it_learns_anything_a_prior_is_the_gaussian_of_its_latents():
    mixing = torch.randn(6, 6, generator=core.seeded(0)) / 2
    latents = torch.randn(20_000, 6, generator=core.seeded(1)) @ mixing
    prior = core.LatentPrior(6, 8, 1, num_classes=0, device="cpu")
    torch.nn.init.zeros_(prior.head.bias)
    prior.fit_gaussian(latents)
    z_T = torch.randn(20_000, 6, generator=core.seeded(2))
    for eta in (0.0, 1.0):
        samples = prior.generate(z_T, num_steps=300, eta=eta, generator=core.seeded(3))
        torch.testing.assert_close(torch.cov(samples.T), torch.cov(latents.T), atol=0.06, rtol=0)
    x, noise_rate = torch.randn(6, generator=core.seeded(4)), torch.tensor([0.6])
    covariance = torch.cov(latents.T)  # E[v | x_t] by the formula for Gaussians, without principal components
    gain = 0.8 * 0.6 * (torch.eye(6) - covariance) @ torch.linalg.inv(0.64 * covariance + 0.36 * torch.eye(6))
    torch.testing.assert_close(prior(x[None], noise_rate, torch.tensor([0]))[0], gain @ x, atol=1e-4, rtol=1e-4)


def test_a_trained_prior_keeps_what_it_knows_when_its_gaussian_is_fitted_again(sample, autoencoder):
    prior = core.LatentPrior.from_pretrained(device="cpu")
    latents, labels = autoencoder.encode_dataset(sample.spaced(2000)).tensors
    inputs = torch.full((2000,), 0.5), torch.randn(latents.shape, generator=core.seeded(0)), labels
    before = prior.loss(latents, *inputs).mean()
    core.train_latent_prior(prior, sample.spaced(2000), autoencoder)
    assert prior.loss(latents, *inputs).mean() < 1.1 * before


def test_few_latents_do_not_make_others_impossible(sample, autoencoder):
    """The Gaussian of 20 latents is 0 wide along most directions, where others are."""
    prior = core.LatentPrior(width=32, depth=1, num_classes=0, device="cpu")
    latents = autoencoder.encode_dataset(sample.spaced(200)).tensors[0]
    config = core.TrainingConfig(epochs=10, batch_size=10, learning_rate=1e-3)
    for record in core.train_latent_prior(prior, sample.spaced(20), autoencoder, config):
        assert record.loss < 5
    assert prior.invert(latents).norm(dim=1).mean() < 40


def test_one_number_is_a_latent_too(sample):
    run = core.train_latent_prior(
        core.LatentPrior(1, 8, 1, device="cpu"), sample.spaced(20), core.SimpleAutoencoder(1, device="cpu")
    )
    assert next(iter(run)).loss < 10


def test_corrections_bring_the_round_trip_nearer(small_prior):
    z, labels = torch.randn(8, 16, generator=core.seeded(0)), torch.arange(8)

    def missed(corrections):
        z_T = small_prior.invert(z, labels, num_steps=40, corrections=corrections)
        return (small_prior.generate(z_T, labels, num_steps=40) - z).square().mean()

    assert missed(2) < missed(1) < missed(0)


def test_sampling_is_generating_from_random_noise_at_eta_1(small_prior):
    labels, generator = torch.arange(5), core.seeded(3)
    z_T = torch.randn(5, 16, generator=generator)
    generated = small_prior.generate(z_T, labels, num_steps=7, eta=1.0, generator=generator)
    assert torch.equal(generated, small_prior.sample_latents(5, labels, num_steps=7, generator=core.seeded(3)))


def test_without_a_label_it_is_hidden_and_guidance_0_hides_it_too(small_prior):
    z_T = torch.randn(5, 16)
    hidden = small_prior.generate(z_T, num_steps=3)
    torch.testing.assert_close(small_prior.generate(z_T, 3, guidance=0.0, num_steps=3), hidden, atol=1e-5, rtol=1e-4)
    assert (small_prior.generate(z_T, 3, num_steps=3) - hidden).abs().max() > 0.01
    without = core.LatentPrior(16, 8, 1, 4, num_classes=0, device="cpu")
    assert without.generate(without.invert(z_T, num_steps=3), num_steps=3).shape == (5, 16)


def test_the_prior_keeps_to_its_own_schedule(gaussian, monkeypatch):
    """A schedule that never leaves the clean end has nothing to remove."""
    monkeypatch.setattr(gaussian.schedule, "rates", lambda t, ndim=1: core.CosineSchedule().rates(0 * t, ndim))
    z = torch.randn(3, 2)
    for unchanged in (gaussian.generate(z, 1), gaussian.invert(z, 1), gaussian.refine(z, 0.5, labels=1)):
        torch.testing.assert_close(unchanged, z, atol=1e-5, rtol=1e-5)


def test_an_empty_batch_and_wrong_noise_or_labels(small_prior):
    for verb in (small_prior.generate, small_prior.invert):
        assert verb(torch.empty(0, 16), num_steps=2).shape == (0, 16)
        with pytest.raises(ValueError, match=r"expected latents \(N, 16\)"):
            verb(torch.randn(2, 8))
        with pytest.raises(ValueError, match="whole numbers from 0 to 9, got"):
            verb(torch.randn(2, 16), torch.tensor([3, 10]))
        with pytest.raises(ValueError, match=r"expected labels \(2,\)"):
            verb(torch.randn(2, 16), torch.tensor([3, 1, 2]))
    with pytest.raises(ValueError, match="corrections"):
        small_prior.invert(torch.randn(2, 16), corrections=-1)


def test_refining_at_time_0_changes_nothing_and_at_time_1_forgets_its_input(small_prior):
    one, other = torch.randn(2, 5, 16)
    labels = torch.arange(5)
    assert torch.equal(small_prior.refine(one, 0, labels=labels), one)
    settings = {"labels": labels, "num_steps": 5}
    found, forgotten = (small_prior.refine(z, 1.0, generator=core.seeded(1), **settings) for z in (one, other))
    torch.testing.assert_close(found, forgotten, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        found, small_prior.sample_latents(5, generator=core.seeded(1), **settings), atol=1e-4, rtol=1e-4
    )
    kept, other = (small_prior.refine(z, 0.3, generator=core.seeded(1), **settings) for z in (one, other))
    assert (kept - other).abs().max() > 0.1


@pytest.mark.parametrize("guidance", [0, 1, 1.5, 4])
def test_guidance_0_is_unconditional_1_conditional_and_more_goes_beyond(small_prior, guidance):
    labels, none = torch.tensor([3, 1, 9]), torch.full((3,), 10)

    def denoiser(x, times, _):
        signal, noise_rate = core.CosineSchedule().rates(times, 2)
        conditional, unconditional = (small_prior(x, noise_rate.flatten(), asked) for asked in (labels, none))
        v = (1 - guidance) * unconditional + guidance * conditional
        return core.schedule.from_velocity(x, v, signal, noise_rate)

    settings = {"guidance": guidance, "num_steps": 5, "eta": 0.0}
    found = small_prior.sample_latents(3, labels, generator=core.seeded(2), **settings)
    with torch.no_grad():
        x_T = torch.randn(3, 16, generator=core.seeded(2))
        torch.testing.assert_close(found, core.ddim_sample(denoiser, x_T, core.step_times(5)), atol=1e-4, rtol=1e-4)
    anything = small_prior.sample_latents(3, generator=core.seeded(2), **settings)
    assert torch.equal(found, anything) is (guidance == 0)


def test_one_label_for_all_is_a_label_for_each(small_prior):
    settings = {"num_steps": 3, "eta": 0.0}
    one, each = (
        small_prior.sample_latents(4, labels, generator=core.seeded(0), **settings)
        for labels in (7, torch.full((4,), 7))
    )
    assert torch.equal(one, each)
    z = torch.randn(4, 16)
    one, each = (small_prior.refine(z, labels=labels, generator=core.seeded(0), **settings) for labels in (7, [7] * 4))
    assert torch.equal(one, each)


def test_dropped_labels_reach_the_null_embedding(small_prior, small_autoencoder, sample, monkeypatch):
    digits = sample.spaced(2000)
    run, seen, plain_loss = core.train_latent_prior(small_prior, digits, small_autoencoder), [], small_prior.loss
    monkeypatch.setattr(small_prior, "loss", lambda *values: seen.append(values) or plain_loss(*values))
    run.batch_loss(torch.arange(2000), core.seeded(0)).backward()
    ((latents, times, noise, shown),) = seen
    hidden = shown == 10
    assert torch.equal(shown[~hidden], digits.labels[~hidden]) and 0.12 < hidden.float().mean() < 0.18
    assert torch.equal(latents, small_autoencoder.encode_dataset(digits).tensors[0])
    assert (small_prior.label_embedding.weight.grad.abs().sum(dim=1) > 0).all()
    alone = small_prior.label_embedding.weight.grad[10]
    small_prior.zero_grad()
    (plain_loss(latents, times, noise, shown)[hidden].sum() / 2000).backward()
    torch.testing.assert_close(small_prior.label_embedding.weight.grad[10], alone)
    assert not small_prior.label_embedding.weight.grad[:10].any()


class Planted(SimpleAutoencoder):
    """ "Encodes" into two clusters in four dimensions: digits below 5 near the one, the others near the other."""

    def encode_dataset(self, digits):
        z, high = 0.3 * torch.randn(len(digits), 4, generator=core.seeded(0)), digits.labels >= 5
        z[~high] += torch.tensor([1.5, 0, 0, 0])
        z[high] -= torch.tensor([0, 1.0, 0, 0])
        return torch.utils.data.TensorDataset(z, digits.labels)


def share_near_the_first(latents):
    first, second = ((latents - torch.tensor(centre)).norm(dim=1) < 1 for centre in ((1.5, 0, 0, 0), (0, -1.0, 0, 0)))
    assert (first | second).float().mean() > 0.8
    return first.float().mean().item()


def test_a_prior_learns_two_clusters_and_which_label_is_in_which(sample):
    digits = sample.subset((sample.labels < 5).float().cumsum(0).lt(1000) | (sample.labels >= 5))
    torch.manual_seed(0)
    prior = core.LatentPrior(latent_dim=4, width=64, depth=3, device="cpu")
    config = core.TrainingConfig(epochs=30, batch_size=100, learning_rate=3e-3)
    for _ in core.train_latent_prior(prior, digits, Planted(4, device="cpu"), config):
        pass
    settings = {"num_steps": 50, "generator": core.seeded(0)}
    expected = (digits.labels < 5).float().mean().item()
    hidden = prior.sample_latents(2000, 0, guidance=0.0, **settings)  # as the data are
    assert share_near_the_first(hidden) == pytest.approx(expected, abs=0.1)
    every_class_alike = prior.sample_latents(2000, **settings)  # five of the ten are in the first cluster
    assert share_near_the_first(every_class_alike) == pytest.approx(0.5, abs=0.1)
    assert share_near_the_first(prior.sample_latents(500, 2, **settings)) > 0.85
    assert share_near_the_first(prior.sample_latents(500, 7, **settings)) < 0.05
    far = torch.tensor([2.5, 0.7, 0.7, 0.7]).expand(500, 4)
    assert share_near_the_first(prior.refine(far, 0.7, labels=2, **settings)) > 0.85


def test_a_prior_without_labels(small_autoencoder, sample):
    prior = core.LatentPrior(16, 16, 2, num_classes=0, device="cpu")
    config = core.TrainingConfig(epochs=1, batch_size=100)
    losses = [record.loss for record in core.train_latent_prior(prior, sample.spaced(500), small_autoencoder, config)]
    assert len(losses) == 5 and prior.sample_latents(3, num_steps=2).shape == (3, 16)
    with pytest.raises(ValueError, match="no labels for a prior without classes"):
        prior.sample_latents(3, 1)


def test_the_seed_decides(small_prior):
    first, again, other = (small_prior.sample_latents(5, num_steps=3, generator=core.seeded(s)) for s in (1, 1, 2))
    assert first.shape == (5, 16) and torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        *(
            ({"labels": labels}, ValueError, "expected labels")
            for labels in (10, -1, 2.5, True, torch.arange(4), [1, 11, 2])
        ),
        ({"labels": "7"}, TypeError, r"expected labels as one whole number or as \(N,\), got '7'"),
        ({"guidance": -1}, ValueError, "guidance to be a number from 0"),
        ({"guidance": float("nan")}, ValueError, "guidance"),
        ({"num_steps": 0}, ValueError, "num_steps"),
        ({"eta": 2}, ValueError, "eta"),
        ({"generator": 0}, TypeError, r"torch\.Generator"),
        ({"generator": [1]}, TypeError, r"torch\.Generator"),
    ],
)
def test_bad_arguments(small_prior, bad, error, message):
    with pytest.raises(error, match=message):
        small_prior.sample_latents(3, **bad)
    with pytest.raises(error, match=message):
        small_prior.refine(torch.randn(3, 16), **bad)


def test_bad_times_counts_and_sizes(small_prior, small_autoencoder, sample):
    for time in (-0.1, 1.1, float("nan"), "late", torch.rand(3)):
        with pytest.raises(ValueError, match="expected diffusion_time to be a number from 0 to 1"):
            small_prior.refine(torch.randn(3, 16), time)
    with pytest.raises(ValueError, match="n to be a whole number of 1 or more"):
        small_prior.sample_latents(0)
    with pytest.raises(ValueError, match=r"expected latents \(N, 4\)"):
        core.train_latent_prior(core.LatentPrior(4, device="cpu"), sample.spaced(20), small_autoencoder)
    with pytest.raises(ValueError, match="whole numbers from 0 to 4"):
        core.train_latent_prior(core.LatentPrior(16, num_classes=5, device="cpu"), sample.spaced(20), small_autoencoder)
    for size, value in {"width": 0, "depth": 0, "time_embedding_dim": 7, "num_classes": -1}.items():
        with pytest.raises(ValueError, match=f"{size} to be a whole number"):
            core.LatentPrior(**{size: value})
