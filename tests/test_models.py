"""SimpleAutoencoder and DiffusionModel: their doors, their promises, and every bad input."""

import math
import warnings

import pytest
import torch

import diffae_core as core
from diffae_core import checks


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_lines_of_the_earlier_script_still_run(monkeypatch):
    monkeypatch.setattr(checks, "_warned_about_range", False)
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


@pytest.mark.parametrize("count", [0, 1, 5])
def test_shapes_and_ranges_of_the_autoencoder(small_autoencoder, count):
    images = torch.rand(count, 1, 28, 28)
    latents = small_autoencoder.encode(images)
    assert latents.shape == (count, 16) and latents.dtype == torch.float32
    decoded = small_autoencoder(images)
    assert decoded.shape == images.shape
    assert not count or (decoded.min() >= 0 and decoded.max() <= 1)


def test_encode_and_decode_are_differentiable(small_autoencoder):
    images = torch.rand(2, 1, 28, 28, requires_grad=True)
    small_autoencoder.decode(small_autoencoder.encode(images)).sum().backward()
    assert images.grad.abs().sum() > 0


def test_denoise_once_is_differentiable_in_the_latent(small_model):
    latents = torch.randn(2, 16, requires_grad=True)
    clean, _ = small_model.denoise_once(torch.randn(2, 1, 28, 28), 0.5, latents)
    clean.sum().backward()
    assert latents.grad.abs().sum() > 0


def test_normalised_latents_draw_the_same_pictures(small_autoencoder, sample):
    digits = sample.subset(slice(0, 200))
    before = core.in_batches(small_autoencoder, digits.images)
    core.normalise_latents(small_autoencoder, digits)
    latents = core.encode_all(small_autoencoder, digits)
    torch.testing.assert_close(latents.mean(0), torch.zeros(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.std(0), torch.ones(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(core.in_batches(small_autoencoder, digits.images), before, atol=1e-4, rtol=1e-3)


def test_add_noise_is_the_equation_and_takes_a_time_for_each(small_model):
    images, times = torch.rand(3, 1, 28, 28), torch.tensor([0.0, 0.5, 1.0])
    noisy, noise = small_model.add_noise(images, times, seeded())
    torch.testing.assert_close(noisy[0], 2 * images[0] - 1)
    half = math.sqrt(0.5)
    torch.testing.assert_close(noisy[1], half * (2 * images[1] - 1) + half * noise[1])
    torch.testing.assert_close(noisy[2], noise[2], atol=1e-5, rtol=1e-5)


def test_same_seed_same_picture(small_model):
    latents = torch.randn(3, 16)
    for eta in (0.0, 1.0):
        first, again, other = (small_model.generate(latents, 4, eta=eta, generator=seeded(seed)) for seed in (5, 5, 6))
        assert torch.equal(first, again) and not torch.equal(first, other)


def test_nothing_of_the_callers_is_changed(small_model):
    images, latents = torch.rand(2, 1, 28, 28), torch.randn(2, 16)
    kept = images.clone(), latents.clone()
    state = torch.get_rng_state()
    noisy, _ = small_model.add_noise(images, 0.7, seeded())
    small_model.denoise_with_latent(noisy, latents, 0.7, 3, eta=1.0, generator=seeded())
    assert torch.equal(images, kept[0]) and torch.equal(latents, kept[1])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture(scope="module")
def shipped():
    return core.SimpleAutoencoder.from_pretrained(device="cpu"), core.DiffusionModel.from_pretrained(device="cpu")


def test_inverted_digits_are_drawn_again_nearly_exactly(shipped):
    autoencoder, model = shipped
    digits = core.load_sample("test").subset(core.spread(1000, 20))
    latents = core.encode_all(autoencoder, digits)
    error = {}
    for steps, corrections, spacing in ((20, 0, "uniform"), (20, 3, "quadratic"), (100, 0, "uniform")):
        x_T = model.invert(digits.images, latents, steps, corrections, spacing)
        drawn = model.generate(latents, steps, x_T=x_T, spacing=spacing)
        error[steps, corrections] = (drawn - digits.images).square().mean().item()
    random = (model.generate(latents, 20, generator=seeded()) - digits.images).square().mean().item()
    assert error[20, 3] < 1e-6 < error[100, 0] < 2e-5 < error[20, 0] < random
    assert not x_T.requires_grad
    x_T = model.invert(digits.images, latents, 1, corrections=5)  # a quarter turn in one step: nothing to correct by
    assert (model.generate(latents, 1, x_T=x_T) - digits.images).square().mean() < 0.002


def test_the_same_x_T_draws_the_same_digit(small_model):
    latents, x_T = torch.randn(3, 16), torch.randn(3, 1, 28, 28)
    drawn = small_model.generate(latents, 4, x_T=x_T)
    assert torch.equal(drawn, small_model.generate(latents, 4, x_T=x_T))
    assert torch.equal(drawn, small_model.denoise_with_latent(x_T, latents, 1.0, 4))
    assert not torch.equal(drawn, small_model.generate(latents, 4, x_T=x_T, spacing="quadratic"))


def test_bad_arguments_of_inversion(small_model):
    images, latents = torch.rand(2, 1, 28, 28), torch.randn(2, 16)
    with pytest.raises(ValueError, match="expected a spacing from"):
        small_model.invert(images, latents, spacing="cubic")
    with pytest.raises(ValueError, match="corrections to be a whole number of 0 or more"):
        small_model.invert(images, latents, corrections=-1)
    with pytest.raises(ValueError, match=r"expected latents \(2, 16\)"):
        small_model.invert(images, latents[:1])
    with pytest.raises(ValueError, match=r"expected latents \(1, 16\)"):
        small_model.generate(latents, x_T=torch.randn(1, 1, 28, 28))
    with pytest.raises(ValueError, match="expected noisy images"):
        small_model.generate(latents, x_T=torch.randn(2, 1, 32, 32))


def test_denoising_from_time_zero_gives_the_picture_back(small_model):
    images = torch.rand(2, 1, 28, 28)
    noisy, _ = small_model.add_noise(images, 0.0)
    torch.testing.assert_close(small_model.denoise_with_latent(noisy, torch.randn(2, 16), 0.0, 3), images)


def test_no_images_give_no_images(small_model):
    noisy, _ = small_model.add_noise(torch.zeros(0, 1, 28, 28))
    for images in (
        small_model.denoise_with_latent(noisy, torch.zeros(0, 16)),
        small_model.generate(torch.zeros(0, 16)),
    ):
        assert images.shape == (0, 1, 28, 28)


def test_results_can_enter_the_callers_autograd(small_model):
    weight = torch.ones(1, requires_grad=True)
    (small_model.generate(torch.randn(1, 16), 2) * weight).sum().backward()
    assert weight.grad is not None


GOOD = torch.rand(2, 1, 28, 28)
BAD_IMAGES = [
    (GOOD[0, 0], ValueError, r"got \(28, 28\): add the batch and channel dimensions with image\[None, None\]"),
    (GOOD[:, 0], ValueError, r"got \(2, 28, 28\): add the missing dimension"),
    (GOOD.expand(2, 3, 28, 28), ValueError, r"got \(2, 3, 28, 28\): make them grey"),
    (torch.rand(2, 1, 32, 32), ValueError, r"got \(2, 1, 32, 32\): resize"),
    (GOOD[None], ValueError, "four dimensions"),
    ((GOOD * 255).byte(), ValueError, "got uint8: convert with"),
    (GOOD.double(), ValueError, "got float64: convert with"),
    (GOOD / 0 * 0, ValueError, "NaN or infinity"),
    (GOOD.numpy(), TypeError, "got ndarray"),
]


@pytest.mark.parametrize(("images", "error", "message"), BAD_IMAGES)
def test_bad_images(small_autoencoder, small_model, images, error, message):
    doors = (
        small_autoencoder.encode,
        small_model.add_noise,
        lambda noisy: small_model.denoise_with_latent(noisy, torch.randn(2, 16)),
    )
    for door in doors:
        with pytest.raises(error, match=message):
            door(images)


BAD_LATENTS = [
    (torch.randn(2, 17), ValueError, r"expected latents .*16\).*got \(2, 17\)"),
    (torch.randn(16), ValueError, r"got \(16,\)"),
    (torch.randn(2, 16).half(), ValueError, "got float16"),
    (torch.full((2, 16), math.nan), ValueError, "NaN"),
    ([[0.0] * 16] * 2, TypeError, "got list"),
]


@pytest.mark.parametrize(("latents", "error", "message"), BAD_LATENTS)
def test_bad_latents(small_autoencoder, small_model, latents, error, message):
    noisy, _ = small_model.add_noise(GOOD)
    doors = (
        small_autoencoder.decode,
        small_model.generate,
        lambda codes: small_model.denoise_with_latent(noisy, codes),
        lambda codes: small_model.denoise_once(noisy, 0.5, codes),
    )
    for door in doors:
        with pytest.raises(error, match=message):
            door(latents)


def test_one_latent_for_two_images(small_model):
    with pytest.raises(ValueError, match=r"expected latents \(2, 16\).*got \(1, 16\): give one latent for each"):
        small_model.denoise_with_latent(GOOD, torch.randn(1, 16))


@pytest.mark.parametrize("time", [-0.1, 1.1, math.nan, torch.tensor([0.5, 2.0]), torch.rand(3), "late", None])
def test_bad_times(small_model, time):
    with pytest.raises(ValueError, match=r"diffusion_time in \[0, 1\]"):
        small_model.add_noise(GOOD, time)


@pytest.mark.parametrize("steps", [0, -1, 2.5, True, "20"])
def test_bad_steps(small_model, steps):
    with pytest.raises(ValueError, match="num_steps to be a whole number of 1 or more"):
        small_model.generate(torch.randn(1, 16), num_steps=steps)


@pytest.mark.parametrize("eta", [-0.1, 1.5, math.nan, "1"])
def test_bad_eta(small_model, eta):
    with pytest.raises(ValueError, match="eta to be a number from 0 to 1"):
        small_model.generate(torch.randn(1, 16), eta=eta)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "tpu", "meta", 3.5])
def test_unknown_device(name):
    with pytest.raises(ValueError, match="expected a device from"):
        core.DiffusionModel(device=name)


def test_devices():
    assert core.choose_device("cpu") == torch.device("cpu")
    assert core.choose_device() == core.choose_device("auto")
    assert core.has_fast_bfloat16(torch.device("cpu")) is False
