"""DiffusionModel and its training: what its methods promise, and what they say to wrong input."""

import math
import warnings

import pytest
import torch
from conftest import SMALL

import diffae_core as core
from diffae_core.autoencoder import mix_latents
from diffae_core.base import validation
from diffae_core.unet import UNKNOWN


def test_lines_of_the_earlier_script_still_run(monkeypatch):
    monkeypatch.setattr(validation, "_warned_about_range", False)
    autoencoder = core.SimpleAutoencoder(device="cpu")
    diffusion_model = core.DiffusionModel(widths=(8, 16), device="cpu")
    image = torch.randn(1, 1, 28, 28)
    with pytest.warns(UserWarning, match=r"outside \[0, 1\]"):
        latent = autoencoder.encode(image)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        noisy_image, _ = diffusion_model.add_noise(image, diffusion_time=0.7)
    perturbed_latent = latent + torch.randn_like(latent) * 0.5
    images = diffusion_model.denoise_with_latent(noisy_image, perturbed_latent, diffusion_time=0.7)
    assert images.shape == (1, 1, 28, 28) and images.min() >= 0 and images.max() <= 1


def test_add_noise_is_the_equation_and_takes_a_time_for_each(small_model):
    images, times = torch.rand(3, 1, 28, 28), torch.tensor([0.0, 0.5, 1.0])
    noisy, noise = small_model.add_noise(images, times, core.seeded(0))
    torch.testing.assert_close(noisy[0], 2 * images[0] - 1)
    half = math.sqrt(0.5)
    torch.testing.assert_close(noisy[1], half * (2 * images[1] - 1) + half * noise[1])
    torch.testing.assert_close(noisy[2], noise[2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_seed_decides(small_model, eta):
    latents = torch.randn(3, 16)
    first, again, other = (small_model.generate(latents, 4, eta=eta, generator=core.seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_generate_is_the_sampler_on_the_models_denoiser(small_model):
    """The same x_T gives the same digit, by every way there is."""
    latents, x_T, seen = torch.randn(3, 16), torch.randn(3, 1, 28, 28), []
    generated = small_model.generate(latents, 4, x_T=x_T, callback=lambda *values: seen.append(values))
    assert torch.equal(generated, small_model.generate(latents, 4, x_T=x_T))
    assert torch.equal(generated, small_model.denoise_with_latent(x_T, latents, 1.0, 4))
    assert not torch.equal(generated, small_model.generate(latents, 4, x_T=x_T, spacing="uniform"))
    with torch.no_grad():
        steps = list(core.ddim_steps(small_model.denoise_once, x_T, core.step_times(4, "quadratic"), latents))
    assert torch.equal(core.to_pixels(steps[-1][0]), generated)
    assert [step for step, _, _ in seen] == [1, 2, 3, 4]
    assert all(torch.equal(a, b) for shown, step in zip(seen, steps) for a, b in zip(shown[1:], step))


def test_latent_noise_is_a_number_or_one_for_each_or_not_told(small_model):
    latents, x_T = torch.randn(3, 16), torch.randn(3, 1, 28, 28)
    together = small_model.generate(latents, 3, x_T=x_T, latent_noise=torch.tensor([0.0, 1.0, 2.0]))
    for row, noise in enumerate((0, 1.0, 2)):
        alone = small_model.generate(latents[[row]], 3, x_T=x_T[[row]], latent_noise=noise)
        torch.testing.assert_close(together[[row]], alone, atol=1e-5, rtol=1e-4)
    untold = small_model.generate(latents, 3, x_T=x_T)
    assert torch.equal(untold, small_model.generate(latents, 3, x_T=x_T, latent_noise=None))
    assert (untold - together)[0].abs().max() > 1e-4, "0 means: take the latent literally"
    told = {"latent_noise": torch.tensor([0.0, 1.0, 2.0])}
    assert torch.equal(small_model.denoise_with_latent(x_T, latents, 1.0, 3, **told), together)
    assert not torch.equal(small_model.invert(untold, latents, 3, **told), small_model.invert(untold, latents, 3))


def test_a_thousand_at_once_are_as_one_by_one(small_model):
    latents, x_T = torch.randn(1000, 16), torch.randn(1000, 1, 28, 28)
    generated, alone = small_model.generate(latents, 1, x_T=x_T), small_model.generate(latents[[7]], 1, x_T=x_T[[7]])
    torch.testing.assert_close(generated[[7]], alone, atol=1e-4, rtol=1e-4)


def test_denoising_from_time_zero_gives_the_picture_back(small_model):
    images = torch.rand(2, 1, 28, 28)
    noisy, _ = small_model.add_noise(images, 0.0)
    torch.testing.assert_close(small_model.denoise_with_latent(noisy, torch.randn(2, 16), 0.0, 3), images)


def test_no_images_give_no_images(small_model):
    noisy, _ = small_model.add_noise(torch.zeros(0, 1, 28, 28))
    latents = torch.zeros(0, 16)
    for images in (small_model.denoise_with_latent(noisy, latents), small_model.generate(latents)):
        assert images.shape == (0, 1, 28, 28)


def test_results_can_enter_the_callers_autograd_and_one_denoising_has_a_gradient(small_model):
    weight = torch.ones(1, requires_grad=True)
    (small_model.generate(torch.randn(1, 16), 2) * weight).sum().backward()
    assert weight.grad is not None
    latents = torch.randn(2, 16, requires_grad=True)
    clean, _ = small_model.denoise_once(torch.randn(2, 1, 28, 28), 0.5, latents)
    clean.sum().backward()
    assert latents.grad.abs().sum() > 0


def test_another_network_takes_the_u_nets_place():
    class Still(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.zero = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x, noise_rate, latents, latent_noise):
            return self.zero * x

    model, x_T = core.DiffusionModel(**SMALL, network=Still()), torch.randn(2, 1, 28, 28)
    # where nothing moves, the predicted x_0 is the shadow of x_t: cos(45 degrees) of it at the time 0.5
    found = model.denoise_with_latent(x_T, torch.zeros(2, 16), 0.5, 1)
    torch.testing.assert_close(found, core.to_pixels(math.sqrt(0.5) * x_T), atol=1e-5, rtol=1e-5)


def test_inverted_digits_are_generated_again_nearly_exactly(autoencoder, model, held_out):
    digits = held_out.spaced(10)
    latents = autoencoder.encode_dataset(digits).tensors[0]
    error = {}
    for steps, corrections, spacing in ((20, 0, "uniform"), (20, 2, "quadratic"), (60, 0, "uniform")):
        x_T = model.invert(digits.images, latents, steps, corrections=corrections, spacing=spacing)
        generated = model.generate(latents, steps, x_T=x_T, spacing=spacing)
        error[steps, corrections] = (generated - digits.images).square().mean().item()
    random = (model.generate(latents, 20, generator=core.seeded(0)) - digits.images).square().mean().item()
    assert error[20, 2] < 1e-6 < error[60, 0] < error[20, 0] < random
    assert not x_T.requires_grad
    x_T = model.invert(digits.images, latents, 1, corrections=5)  # a quarter turn in one step: nothing to correct by
    assert (model.generate(latents, 1, x_T=x_T) - digits.images).square().mean() < 0.05


def test_more_steps_are_not_worse_unless_clipped_with_the_old_noise(autoencoder, model, classifier, held_out):
    """The fault of many small tutorials: clip x_0, then go on with a noise that no longer fits it."""
    digits = held_out.spaced(60)
    latents = autoencoder.encode_dataset(digits).tensors[0]
    x_T = torch.randn(60, 1, 28, 28, generator=core.seeded(0))
    real_features, _ = classifier.classify(digits.images)

    def clipped(x_t, times, codes):
        clean, noise = model.denoise_once(x_t, times, codes)
        return clean.clamp(-1, 1), noise

    @torch.no_grad()
    def distance(denoiser, steps):
        generated = core.to_pixels(core.ddim_sample(denoiser, x_T, core.step_times(steps), latents))
        return core.metrics.frechet_distance(classifier.classify(generated)[0], real_features)

    plain = distance(model.denoise_once, 120)
    assert plain <= 1.25 * distance(model.denoise_once, 10)
    assert distance(clipped, 120) > 1.5 * plain


def test_one_noise_serves_all_latents(small_model):
    z, x_T = torch.randn(4, 16), torch.randn(1, 1, 28, 28)
    images = small_model.generate(z, 4, x_T=x_T)
    assert torch.equal(images, small_model.generate(z, 4, x_T=x_T.expand(4, -1, -1, -1)))
    with pytest.raises(ValueError, match=r"expected latents \(2, 16\)"):
        small_model.generate(z, 4, x_T=torch.randn(2, 1, 28, 28))


def test_generating_has_a_gradient_where_the_latents_ask_for_one(small_model):
    z, x_T = torch.randn(3, 16, requires_grad=True), torch.randn(1, 1, 28, 28)
    (gradient,) = torch.autograd.grad(small_model.generate(z, 3, x_T=x_T).sum(), z)
    assert gradient.isfinite().all() and (gradient.abs().sum(dim=1) > 0).all()
    assert not small_model.generate(z.detach(), 3, x_T=x_T).requires_grad
    with torch.no_grad():
        assert not small_model.generate(z, 3, x_T=x_T).requires_grad


def loss_inputs(seed, count, most_noise):
    """What a step of train_diffusion samples, in its order: noise, times, s, the latents' noise, and who is told s."""
    generator = core.seeded(seed)
    noise, times = torch.randn(count, 1, 28, 28, generator=generator), torch.rand(count, generator=generator)
    s = most_noise * torch.rand(count, generator=generator)
    latent_noise = s[:, None] * torch.randn(count, 16, generator=generator)
    told = torch.where(torch.rand(count, generator=generator) < 0.5, s, UNKNOWN)
    return times, noise, latent_noise, told


@pytest.mark.parametrize("most_noise", [0.0, 2.0])
def test_the_loss_of_noisy_latents(small_autoencoder, small_model, sample, most_noise):
    """With latent noise 0 it is the plain loss, told 0 or told nothing, bit for bit."""
    digits = sample.subset(slice(0, 200))
    run = core.train_diffusion(small_model, digits, small_autoencoder, max_latent_noise=most_noise, mixed_share=0.0)
    times, noise, latent_noise, told = loss_inputs(3, 200, most_noise)
    latents = small_autoencoder.encode_dataset(digits).tensors[0] + latent_noise
    expected = small_model.loss(digits.images, latents, times, noise, told).mean()
    assert torch.equal(run.batch_loss(torch.arange(200), core.seeded(3)), expected)
    assert 70 < (told == UNKNOWN).sum() < 130
    if most_noise == 0:
        assert not latent_noise.any() and set(told.tolist()) == {0.0, UNKNOWN}


def test_a_mixed_latent_lies_up_to_half_way_to_the_next():
    latents = torch.randn(1000, 8, generator=core.seeded(0))
    assert torch.equal(mix_latents(latents, 0.0, core.seeded(1)), latents)
    following = latents.roll(1, dims=0)
    way = ((mix_latents(latents, 0.25, core.seeded(1)) - latents) / (following - latents)).mean(dim=1)
    mixed = way[way.abs() > 1e-6]
    assert 200 < len(mixed) < 300 and mixed.min() > 0 and 0.45 < mixed.max() < 0.501
    assert abs(mixed.mean() - 0.25) < 0.03


def test_nothing_told_is_the_loss_of_unknown_noise(small_model):
    values = torch.rand(3, 1, 28, 28), torch.randn(3, 16), torch.linspace(0.2, 0.9, 3), torch.randn(3, 1, 28, 28)
    assert torch.equal(small_model.loss(*values), small_model.loss(*values, torch.full((3,), UNKNOWN)))
    assert not torch.equal(small_model.loss(*values), small_model.loss(*values, torch.zeros(3)))
    clean, rates = 2 * values[0] - 1, core.CosineSchedule().rates(values[2], ndim=4)
    x_0, _ = small_model.denoise_once(core.schedule.noisy_image(clean, values[3], *rates), values[2], values[1])
    error = ((x_0 - clean) / rates[1]).square().mean(dim=(1, 2, 3))  # the velocity's error is that of x_0 / noise_rate
    torch.testing.assert_close(small_model.loss(*values), error, atol=1e-4, rtol=1e-3)


def test_joint_training_teaches_the_encoder_too(sample):
    """The noise's loss alone reaches the encoder, and the model that learns along is better than a frozen one's."""
    digits = sample.subset(slice(0, 16))
    config, losses = core.TrainingConfig(epochs=300, batch_size=16, learning_rate=5e-3), {}
    for train in (core.train_diffusion, core.train_jointly):
        torch.manual_seed(0)
        model, autoencoder = core.DiffusionModel(**SMALL), core.SimpleAutoencoder(16, device="cpu")
        if train is core.train_diffusion:
            torch.nn.init.zeros_(autoencoder.encoder[-1].weight)  # frozen, its latents say nothing
        before = autoencoder.encoder[0].weight.clone()
        losses[train] = sum([record.loss for record in train(model, digits, autoencoder, config, 0.0)][-20:])
        assert torch.equal(before, autoencoder.encoder[0].weight) is (train is core.train_diffusion)
        model.check_latents_from(autoencoder)
    assert losses[core.train_jointly] < 0.95 * losses[core.train_diffusion]
    latents = autoencoder.encode_dataset(digits).tensors[0]
    torch.testing.assert_close(latents.std(0), torch.ones(16), atol=1e-3, rtol=0)


def test_a_tiny_model_overfits_16_digits(sample):
    """The recipe, in its order: the digits come back from pure noise and their latents."""
    digits = sample.spaced(16)
    torch.manual_seed(0)
    autoencoder, model = core.SimpleAutoencoder(16, device="cpu"), core.DiffusionModel(**SMALL)
    for _ in core.train_autoencoder(autoencoder, digits, core.TrainingConfig(200, 16, 1e-2, ema_decay=0.9), 0.1):
        pass
    for _ in core.train_diffusion(model, digits, autoencoder, core.TrainingConfig(500, 16, 1e-2, ema_decay=0.9), 0.1):
        pass
    latents = autoencoder.encode_dataset(digits).tensors[0]
    generated = model.generate(latents, 20, generator=core.seeded(0))
    error = (generated - digits.images).square().mean()
    wrong = (generated - digits.images.roll(1, 0)).square().mean()
    assert error < 0.015 and error < wrong / 5


IMAGES = torch.rand(2, 1, 28, 28)
BAD_IMAGES = [
    (IMAGES[0, 0], ValueError, r"got \(28, 28\): add the batch and channel dimensions with image\[None, None\]"),
    (IMAGES[:, 0], ValueError, r"got \(2, 28, 28\): add the missing dimension"),
    (IMAGES.expand(2, 3, 28, 28), ValueError, r"got \(2, 3, 28, 28\): make them grey"),
    (torch.rand(2, 1, 32, 32), ValueError, r"got \(2, 1, 32, 32\): .*28 pixels high and wide"),
    (IMAGES[None], ValueError, "four dimensions"),
    ((IMAGES * 255).byte(), ValueError, "got uint8: convert with"),
    (IMAGES.double(), ValueError, "got float64: convert with"),
    (IMAGES / 0 * 0, ValueError, "NaN or infinity"),
    (IMAGES.numpy(), TypeError, "got ndarray"),
]


@pytest.mark.parametrize(("images", "error", "message"), BAD_IMAGES)
def test_bad_images(small_autoencoder, small_model, images, error, message):
    latents = torch.randn(2, 16)
    for entry in (
        small_autoencoder.encode,
        small_model.add_noise,
        lambda images: small_model.invert(images, latents),
        lambda noisy: small_model.denoise_with_latent(noisy, latents),
        lambda noisy: small_model.denoise_once(noisy, 0.5, latents),
        lambda noisy: small_model.generate(latents, x_T=noisy),
    ):
        with pytest.raises(error, match=message):
            entry(images)


BAD_LATENTS = [
    (torch.randn(2, 17), ValueError, r"expected latents .*16\).*got \(2, 17\)"),
    (torch.randn(16), ValueError, r"got \(16,\)"),
    (torch.randn(2, 16).half(), ValueError, "got float16"),
    (torch.full((2, 16), math.nan), ValueError, "NaN"),
    ([[0.0] * 16] * 2, TypeError, "got list"),
]


@pytest.mark.parametrize(("latents", "error", "message"), BAD_LATENTS)
def test_bad_latents(small_autoencoder, small_model, small_prior, latents, error, message):
    for entry in (
        small_autoencoder.decode,
        small_model.generate,
        small_prior.refine,
        lambda codes: small_model.denoise_with_latent(IMAGES, codes),
        lambda codes: small_model.denoise_once(IMAGES, 0.5, codes),
        lambda codes: small_model.invert(IMAGES, codes),
    ):
        with pytest.raises(error, match=message):
            entry(latents)


@pytest.mark.parametrize("time", [-0.1, 1.1, math.nan, torch.tensor([0.5, 2.0]), torch.rand(3), "late", None])
def test_bad_times(small_model, time):
    for entry in (
        lambda: small_model.add_noise(IMAGES, time),
        lambda: small_model.denoise_with_latent(IMAGES, torch.randn(2, 16), time),
        lambda: small_model.denoise_once(IMAGES, time, torch.randn(2, 16)),
    ):
        with pytest.raises(ValueError, match=r"expected diffusion_time in \[0, 1\]"):
            entry()


@pytest.mark.parametrize(
    ("name", "values", "error", "message"),
    [
        ("num_steps", [0, -1, 2.5, True, "20", None], ValueError, "num_steps to be a whole number of 1 or more"),
        ("eta", [-0.1, 1.5, math.nan, "1", None], ValueError, "eta to be a number from 0 to 1"),
        ("spacing", ["cubic", None], ValueError, "spacing to be one of"),
        ("latent_noise", [-1.0, math.nan, "rough", torch.rand(3)], ValueError, "latent_noise of 0 or more"),
        ("generator", [0, [1], "seed"], TypeError, r"torch\.Generator .*make one from a seed with diffae_core\.seeded"),
        ("corrections", [-1, 0.5, None], ValueError, "corrections to be a whole number of 0 or more"),
    ],
)
def test_bad_settings(small_model, name, values, error, message):
    latents = torch.randn(2, 16)
    entries = {
        "generate": lambda **bad: small_model.generate(latents, **bad),
        "denoise": lambda **bad: small_model.denoise_with_latent(IMAGES, latents, **bad),
        "invert": lambda **bad: small_model.invert(IMAGES, latents, **bad),
    }
    known = {"num_steps": entries, "spacing": entries, "latent_noise": entries, "corrections": ("invert",)}
    for entry in known.get(name, ("generate", "denoise")):
        for value in values:
            with pytest.raises(error, match=message):
                entries[entry](**{name: value})


def test_counts_that_do_not_match_are_refused(small_model):
    latents = torch.randn(2, 16)
    with pytest.raises(ValueError, match=r"expected latents \(2, 16\).*got \(1, 16\): give one latent for each"):
        small_model.denoise_with_latent(IMAGES, latents[:1])
    with pytest.raises(ValueError, match=r"expected latents \(2, 16\)"):
        small_model.invert(IMAGES, latents[:1])
    with pytest.raises(ValueError, match=r"expected latents \(3, 16\)"):
        small_model.generate(latents, x_T=torch.randn(3, 1, 28, 28))


def test_models_of_other_sizes_are_not_trained_together(small_model, sample):
    other = core.SimpleAutoencoder(8, device="cpu")
    with pytest.raises(ValueError, match=r"expected latents \(N, 16\).*got \(16, 8\)"):
        core.train_diffusion(small_model, sample.spaced(16), other)
    with pytest.raises(ValueError, match="the same latent_dim, got 8 and 16"):
        core.train_jointly(small_model, sample.spaced(16), other)
    with pytest.raises(ValueError, match="expected max_latent_noise to be a number"):
        core.train_diffusion(
            small_model, sample.spaced(16), core.SimpleAutoencoder(16, device="cpu"), max_latent_noise=-1
        )
