import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffae_core as core

SCHEDULE = core.CosineSchedule()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8).map(torch.tensor), st.integers(1, 4))
def test_rates_are_a_point_on_the_circle(times, ndim):
    signal, noise = SCHEDULE.rates(times, ndim)
    assert signal.shape == noise.shape == (len(times), *[1] * (ndim - 1))
    torch.testing.assert_close(signal**2 + noise**2, torch.ones_like(signal))


def test_rates_are_monotone_from_clean_to_noise():
    signal, noise = SCHEDULE.rates(torch.linspace(0, 1, 101))
    assert (signal.diff() < 0).all() and (noise.diff() > 0).all()
    assert (signal[0], noise[0], noise[-1]) == (1, 0, 1) and signal[-1].abs() < 1e-6


@given(st.floats(0.05, 0.95), st.integers(0, 1000))
def test_conversions_invert_each_other(time, seed):
    clean, noise = torch.randn(2, 3, 1, 4, 4, generator=core.seeded(seed))
    rates = SCHEDULE.rates(torch.full((3,), time), ndim=4)
    x_t, v = core.schedule.noisy_image(clean, noise, *rates), core.schedule.velocity(clean, noise, *rates)
    views = (core.schedule.from_velocity, v), (core.schedule.from_noise, noise), (core.schedule.from_clean, clean)
    for convert, view in views:
        torch.testing.assert_close(convert(x_t, view, *rates), (clean, noise), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("time", [0.0, 1.0])
def test_velocity_is_exact_where_the_other_views_divide_by_nothing(time):
    clean, noise = torch.randn(2, 2, 1, 4, 4)
    rates = SCHEDULE.rates(torch.full((2,), time), ndim=4)
    x_t, v = core.schedule.noisy_image(clean, noise, *rates), core.schedule.velocity(clean, noise, *rates)
    torch.testing.assert_close(core.schedule.from_velocity(x_t, v, *rates), (clean, noise))
