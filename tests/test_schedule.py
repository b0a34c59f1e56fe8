import torch
from hypothesis import given
from hypothesis import strategies as st

import diffae_core as core

times = st.lists(st.floats(0, 1), min_size=1, max_size=8).map(torch.tensor)


@given(times)
def test_rates_are_a_point_on_the_circle(time):
    signal, noise = core.CosineSchedule().rates(time)
    assert signal.shape == noise.shape == (len(time), 1, 1, 1)
    torch.testing.assert_close(signal**2 + noise**2, torch.ones_like(signal))


def test_rates_are_monotone_from_clean_to_noise():
    signal, noise = core.CosineSchedule().rates(torch.linspace(0, 1, 101))
    assert (signal.diff(dim=0) < 0).all() and (noise.diff(dim=0) > 0).all()
    assert (signal[0], noise[0]) == (1, 0)
    assert signal[-1].abs() < 1e-6 and noise[-1] == 1


@given(st.floats(0.05, 0.95), st.integers(0, 1000))
def test_conversions_invert_each_other(time, seed):
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 3, 1, 4, 4, generator=generator)
    rates = core.CosineSchedule().rates(torch.full((3,), time))
    x_t = core.noisy_image(clean, noise, *rates)
    v = core.velocity(clean, noise, *rates)
    for found in (
        core.from_velocity(x_t, v, *rates),
        core.from_noise(x_t, noise, *rates),
        core.from_clean(x_t, clean, *rates),
    ):
        torch.testing.assert_close(found[0], clean, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found[1], noise, atol=1e-4, rtol=1e-4)


def test_velocity_is_exact_where_the_other_views_divide_by_nothing():
    clean, noise = torch.randn(2, 2, 1, 4, 4)
    for time in (0.0, 1.0):
        rates = core.CosineSchedule().rates(torch.full((2,), time))
        v = core.velocity(clean, noise, *rates)
        found_clean, found_noise = core.from_velocity(core.noisy_image(clean, noise, *rates), v, *rates)
        torch.testing.assert_close(found_clean, clean)
        torch.testing.assert_close(found_noise, noise)
