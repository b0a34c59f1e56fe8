import pytest
import torch

import diffae_core as core

SCHEDULE = core.CosineSchedule()


def perfect_denoiser(clean):
    """Knows the one clean image; the noise follows from it."""
    return lambda x_t, times, latents: core.from_clean(x_t, clean, *SCHEDULE.rates(times))


def gaussian_denoiser(x_t, times, latents):
    """The best guess where clean pixels are standard normal: x_t is, too, at every time."""
    signal, noise_rate = SCHEDULE.rates(times)
    return signal * x_t, noise_rate * x_t


@pytest.mark.parametrize("num_steps", [1, 2, 7, 100])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_perfect_denoiser_is_exact_at_any_number_of_steps(num_steps, eta):
    clean = torch.rand(4, 1, 8, 8) * 2 - 1
    x_T = torch.randn(4, 1, 8, 8)
    found = core.ddim_sample(perfect_denoiser(clean), x_T, torch.zeros(4, 2), torch.ones(4), num_steps, eta)
    torch.testing.assert_close(found, clean, atol=1e-5, rtol=1e-5)


def test_starting_in_the_middle_with_a_time_for_each_image():
    clean, noise = torch.randn(2, 4, 1, 8, 8)
    start = torch.tensor([0.0, 0.3, 0.7, 1.0])
    noisy = core.noisy_image(clean, noise, *SCHEDULE.rates(start))
    found = core.ddim_sample(perfect_denoiser(clean), noisy, torch.zeros(4, 2), start, 5)
    torch.testing.assert_close(found, clean, atol=1e-4, rtol=1e-4)


def test_eta_one_keeps_the_right_variance():
    """With the best denoiser of a Gaussian any eta ends with variance 1; eta 1 forgets where it started from."""
    generator = torch.Generator().manual_seed(0)
    x_T = torch.randn(64, 1, 28, 28, generator=generator)
    arguments = (gaussian_denoiser, x_T, torch.zeros(64, 2), torch.ones(64))
    for eta in (0.0, 1.0):
        found = core.ddim_sample(*arguments, num_steps=200, eta=eta, generator=generator)
        assert abs(found.var().item() - 1) < 0.03
        likeness = torch.corrcoef(torch.stack([x_T.flatten(), found.flatten()]))[0, 1].item()
        assert likeness > 0.99 if eta == 0 else likeness < 0.1


def test_fresh_noise_of_a_step_has_the_papers_sigma():
    """One step of eta 1 against eta 0, from a denoiser that guesses zeros: what is left over is sigma times noise."""

    def zero_denoiser(x_t, times, latents):
        return torch.zeros_like(x_t), torch.zeros_like(x_t)

    seen = []
    core.ddim_sample(
        zero_denoiser,
        torch.zeros(64, 1, 28, 28),
        torch.zeros(64, 2),
        torch.full((64,), 0.8),
        num_steps=2,
        eta=1.0,
        generator=torch.Generator().manual_seed(0),
        callback=lambda step, x_t, clean: seen.append(x_t),
    )
    (signal, noise), (signal_next, noise_next) = (SCHEDULE.rates(torch.tensor([t])) for t in (0.8, 0.4))
    sigma = (noise_next / noise) * (1 - signal**2 / signal_next**2).sqrt()
    assert abs(seen[0].std() / sigma - 1).item() < 0.02
    assert seen[1].abs().max() == 0


def test_callback_sees_every_step():
    steps = []
    clean = torch.zeros(1, 1, 8, 8)
    core.ddim_sample(
        perfect_denoiser(clean),
        torch.randn(1, 1, 8, 8),
        torch.zeros(1, 2),
        torch.ones(1),
        num_steps=4,
        callback=lambda step, x_t, x_0: steps.append((step, x_t.shape, x_0.shape)),
    )
    assert steps == [(step, clean.shape, clean.shape) for step in (1, 2, 3, 4)]


@pytest.mark.parametrize("spacing", ["uniform", "quadratic", "log-snr"])
@pytest.mark.parametrize("num_steps", [1, 2, 7, 100])
def test_every_spacing_falls_from_one_to_zero(spacing, num_steps):
    times = core.step_times(num_steps, spacing)
    assert len(times) == num_steps + 1 and times[0] == 1 and times[-1] == 0
    assert all(now > following for now, following in zip(times, times[1:]))


def test_spacings_are_what_they_are_called():
    assert core.step_times(4, "uniform") == [1, 0.75, 0.5, 0.25, 0]
    assert core.step_times(4, "quadratic") == [1, 0.5625, 0.25, 0.0625, 0]
    signal, noise_rate = SCHEDULE.rates(torch.tensor(core.step_times(9, "log-snr")[1:-1]))
    steps = (signal / noise_rate).log().flatten().diff()
    torch.testing.assert_close(steps, steps[:1].expand(7), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="expected a spacing from .*got 'cubic'"):
        core.step_times(4, "cubic")
    with pytest.raises(ValueError, match="num_steps to be a whole number of 1 or more, got 0"):
        core.step_times(0)


@pytest.mark.parametrize("spacing", ["uniform", "quadratic", "log-snr"])
def test_a_perfect_denoiser_is_exact_at_every_spacing(spacing):
    clean = torch.rand(2, 1, 8, 8) * 2 - 1
    arguments = (torch.randn(2, 1, 8, 8), torch.zeros(2, 2), torch.ones(2), 6)
    found = core.ddim_sample(perfect_denoiser(clean), *arguments, spacing=spacing)
    torch.testing.assert_close(found, clean, atol=1e-5, rtol=1e-5)


def there_and_back(num_steps, corrections, spacing="uniform"):
    """The error of inverting a Gaussian's best denoiser and walking forward again."""
    clean = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    nothing = torch.zeros(4, 2)
    x_T = core.ddim_invert(gaussian_denoiser, clean, nothing, num_steps, corrections, spacing=spacing)
    back = core.ddim_sample(gaussian_denoiser, x_T, nothing, torch.ones(4), num_steps, spacing=spacing)
    return (back - clean).abs().max().item(), x_T, clean


@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
def test_corrected_inversion_of_a_gaussian_is_exact(spacing):
    assert there_and_back(10, 12, spacing)[0] < 1e-5
    assert there_and_back(10, 0, spacing)[0] > 0.1


def test_plain_inversion_gets_better_with_steps_and_comes_to_the_known_noise():
    """For a Gaussian the exact path stands still: x_T is the picture itself."""
    errors = [there_and_back(num_steps, 0)[0] for num_steps in (10, 100, 1000)]
    assert errors[0] > 5 * errors[1] > 25 * errors[2]
    _, x_T, clean = there_and_back(1000, 0)
    torch.testing.assert_close(x_T, clean, atol=0.01, rtol=0.01)
