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


@pytest.fixture(scope="module")
def shipped():
    return tuple(
        kind.from_pretrained(device="cpu") for kind in (core.SimpleAutoencoder, core.DiffusionModel, core.Judge)
    )


@pytest.fixture(scope="module")
def held_out():
    return core.load_sample("test").subset(core.spread(1000, 200))


def test_shipped_weights_draw_the_digits_their_latents_describe(shipped, held_out):
    """Looser than the README's figures, which are measured on 10,000 digits; here there are 200."""
    figures = core.quality(*shipped, held_out, core.load_sample("train"), frechet_steps=())
    assert figures["real digits read right by the judge, %"] >= 98
    assert figures["label agreement at 20 steps, %"] >= 97
    assert figures["mean squared error at 20 steps"] <= 0.0055
    assert figures["Frechet distance at 20 steps, share of the floor"] <= 0.6
    assert figures["shuffled latents: agreement with the place's own label, %"] <= 20
    assert figures["shuffled latents: agreement with the latent's label, %"] >= 97
    table = core.quality_table(figures, 200)
    assert table.count("\n") == len(figures) + 2 and "nan" not in table


def test_shipped_latents_are_normalised(shipped):
    training, _ = core.split_training(core.load_sample("train"))
    latents = core.encode_all(shipped[0], training)
    assert latents.mean(0).abs().max() < 0.15
    assert (latents.std(0) - 1).abs().max() < 0.15


def test_more_steps_are_not_worse_unless_clipped_with_the_old_noise(shipped, held_out):
    """The fault of many small tutorials: clip x_0, then go on with a noise that no longer fits it."""
    autoencoder, model, judge = shipped
    latents = core.in_batches(autoencoder.encode, held_out.images)
    x_T = torch.randn(len(held_out), 1, 28, 28, generator=torch.Generator().manual_seed(0))
    real_features, _ = judge.read(held_out.images)

    def clipped(x_t, times, codes):
        clean, noise = model.denoise_once(x_t, times, codes)
        return clean.clamp(-1, 1), noise

    def distance(denoiser, steps):
        drawn = core.ddim_sample(denoiser, x_T, latents, torch.ones(len(x_T)), steps)
        return core.frechet_distance(judge.read(((drawn + 1) / 2).clamp(0, 1))[0], real_features)

    plain = distance(model.denoise_once, 50)
    assert plain <= 1.25 * distance(model.denoise_once, 10)
    assert distance(clipped, 50) > 2 * plain
