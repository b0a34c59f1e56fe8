"""The sampler with denoisers whose answers are known, for pictures (N, 1, 8, 8) and latents (N, D) alike."""

import math

import pytest
import torch

import diffae_core as core

SCHEDULE = core.CosineSchedule()
SHAPES = [(4, 1, 8, 8), (4, 16)]


def perfect_denoiser(clean):
    """Knows the one clean image; the noise follows from it."""
    return lambda x_t, times, latents: core.schedule.from_clean(x_t, clean, *SCHEDULE.rates(times, x_t.ndim))


def gaussian_denoiser(x_t, times, latents):
    """The best guess where clean pixels are standard normal: x_t is, too, at every time."""
    signal, noise_rate = SCHEDULE.rates(times, x_t.ndim)
    return signal * x_t, noise_rate * x_t


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
@pytest.mark.parametrize("num_steps", [1, 2, 7, 100])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_perfect_denoiser_is_exact_at_any_number_of_steps(num_steps, eta, spacing, shape):
    clean, x_T = torch.rand(shape) * 2 - 1, torch.randn(shape)
    found = core.ddim_sample(perfect_denoiser(clean), x_T, core.step_times(num_steps, spacing), eta=eta)
    torch.testing.assert_close(found, clean, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_starting_in_the_middle_with_a_time_for_each_row(shape):
    clean, noise = torch.randn(2, *shape)
    start = torch.tensor([0.0, 0.3, 0.7, 1.0])
    noisy = core.schedule.noisy_image(clean, noise, *SCHEDULE.rates(start, len(shape)))
    times = core.step_times(5, start=start)
    assert times.shape == (6, 4) and torch.equal(times[0], start) and not times[-1].any()
    torch.testing.assert_close(core.ddim_sample(perfect_denoiser(clean), noisy, times), clean, atol=1e-4, rtol=1e-4)
    alone = core.ddim_sample(perfect_denoiser(clean[[2]]), noisy[[2]], core.step_times(5, start=0.7))
    torch.testing.assert_close(core.ddim_sample(perfect_denoiser(clean), noisy, times)[[2]], alone)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_step_yields_what_the_paper_says(shape):
    """Equation 12 of arXiv 2010.02502, written out again in numbers; the last value is ddim_sample's."""
    times, x = core.step_times(4, "quadratic"), torch.randn(shape, generator=core.seeded(1))
    settings = {"eta": 0.5, "latents": torch.ones(4, 2)}
    denoiser = lambda x_t, times, latents: (x_t.tanh() + latents.mean(), x_t / 2)  # noqa: E731
    steps = list(core.ddim_steps(denoiser, x, times, generator=core.seeded(7), **settings))
    generator, alpha = core.seeded(7), [math.cos(time * math.pi / 2) ** 2 for time in times.tolist()]
    for step, (x_next, clean) in enumerate(steps):
        now, following = max(alpha[step], 1e-15), alpha[step + 1]
        sigma = 0.5 * math.sqrt((1 - following) / (1 - now) * (1 - now / following))
        wanted = following**0.5 * (x.tanh() + 1) + math.sqrt(max(1 - following - sigma**2, 0)) * x / 2
        wanted = wanted + sigma * torch.randn(shape, generator=generator)
        torch.testing.assert_close(clean, x.tanh() + 1)
        torch.testing.assert_close(x_next, wanted, atol=1e-5, rtol=1e-5)
        x = x_next
    x_T = torch.randn(shape, generator=core.seeded(1))
    assert len(steps) == 4
    assert torch.equal(x, core.ddim_sample(denoiser, x_T, times, generator=core.seeded(7), **settings))


def test_eta_one_keeps_the_right_variance():
    """With the best denoiser of a Gaussian any eta ends with variance 1; eta 1 forgets where it started from."""
    generator = core.seeded(0)
    x_T = torch.randn(20_000, 2, generator=generator)
    for eta in (0.0, 1.0):
        found = core.ddim_sample(gaussian_denoiser, x_T, core.step_times(200), eta=eta, generator=generator)
        assert abs(found.var().item() - 1) < 0.03
        likeness = torch.corrcoef(torch.stack([x_T.flatten(), found.flatten()]))[0, 1].item()
        assert likeness > 0.99 if eta == 0 else likeness < 0.1


@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
@pytest.mark.parametrize("num_steps", [1, 2, 7, 100])
def test_every_spacing_falls_from_one_to_zero(spacing, num_steps):
    times = core.step_times(num_steps, spacing)
    assert times.shape == (num_steps + 1,) and times[0] == 1 and times[-1] == 0 and (times.diff() < 0).all()


def test_a_grid_begins_where_it_is_told():
    assert torch.equal(core.step_times(2, start=torch.tensor(0.5)), torch.tensor([0.5, 0.25, 0]))
    assert torch.equal(core.step_times(2, start=torch.tensor([1, 1])), torch.tensor([[1, 1], [0.5, 0.5], [0, 0]]))


def test_spacings_are_what_they_are_called():
    assert core.step_times(4).tolist() == [1, 0.75, 0.5, 0.25, 0]
    assert core.step_times(4, "quadratic").tolist() == [1, 0.5625, 0.25, 0.0625, 0]
    assert core.step_times(2, start=0.5).tolist() == [0.5, 0.25, 0]
    with pytest.raises(ValueError, match="expected spacing to be one of .*got 'cubic'"):
        core.step_times(4, "cubic")
    with pytest.raises(ValueError, match="num_steps to be a whole number of 1 or more, got 0"):
        core.step_times(0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_precision_and_what_is_handed_to_the_denoiser_are_kept(dtype):
    x, labels, seen = torch.randn(4, 1, 8, 8, dtype=dtype), torch.arange(4), set()

    def denoiser(x_t, times, latents):
        seen.add((x_t.dtype, times.dtype, times.shape, latents is labels))
        return x_t / 2, x_t / 2

    assert core.ddim_sample(denoiser, x, core.step_times(3), labels, eta=0.5).dtype == dtype
    assert core.ddim_invert(denoiser, x, core.step_times(3), labels, corrections=1).dtype == dtype
    assert seen == {(dtype, dtype, (4,), True)}


def test_gradients_go_through_all_steps():
    x = torch.randn(2, 3, requires_grad=True)
    core.ddim_sample(gaussian_denoiser, x, core.step_times(5), eta=0.5).sum().backward()
    assert x.grad.isfinite().all() and (x.grad > 0).all()


def there_and_back(num_steps, corrections, spacing="uniform"):
    """The error of inverting a Gaussian's best denoiser and sampling again."""
    clean, times = torch.randn(4, 1, 8, 8, generator=core.seeded(0)), core.step_times(num_steps, spacing)
    x_T = core.ddim_invert(gaussian_denoiser, clean, times, corrections=corrections)
    return (core.ddim_sample(gaussian_denoiser, x_T, times) - clean).abs().max().item(), x_T, clean


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
