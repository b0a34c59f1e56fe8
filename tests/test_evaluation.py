import pytest
import torch

import diffae_core as core


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


def test_the_model_uses_its_latents_at_every_time(shipped, held_out):
    autoencoder, model, _ = shipped
    latents, times = core.encode_all(autoencoder, held_out), torch.tensor([0.1, 0.5, 0.9])

    def losses(codes):
        return core.loss_by_time(model, held_out.images, codes, times, torch.Generator().manual_seed(0))

    own = losses(latents)
    assert own.shape == (3,) and not own.requires_grad and torch.equal(own, losses(latents))
    assert (losses(latents.roll(1, dims=0)) > 5 * own).all() and (losses(torch.zeros_like(latents)) > 3 * own).all()
