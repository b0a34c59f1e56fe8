import pytest
import torch

import diffae_core as core


def test_class_means_are_means():
    latents = torch.arange(20.0).reshape(20, 1)
    labels = torch.arange(20) % 10
    assert core.class_means(latents, labels).flatten().tolist() == [label + 5.0 for label in range(10)]
    with pytest.raises(ValueError, match=r"none of \[9\]"):
        core.class_means(latents[:9], labels[:9])
    with pytest.raises(ValueError, match="20 latents and 9 labels"):
        core.class_means(latents, labels[:9])


def test_principal_directions_find_the_axes_and_their_deviations():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(20_000, 3, generator=generator) * torch.tensor([1.0, 5.0, 2.0])
    first, second = core.principal_directions(latents, 2)
    assert first.abs().argmax() == 1 and first.norm().item() == pytest.approx(5, rel=0.02)
    assert second.abs().argmax() == 2 and second.norm().item() == pytest.approx(2, rel=0.02)
    with pytest.raises(ValueError, match="count of 3 or less"):
        core.principal_directions(latents, 4)


def test_paths_begin_and_end_where_they_should():
    a, b = torch.randn(2, 3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for path in (core.lerp, core.slerp):
        torch.testing.assert_close(path(a, b, 0.0), a, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(path(a, b, 1.0), b, atol=1e-4, rtol=1e-4)


def test_the_arc_keeps_the_variance_and_the_line_does_not():
    a, b = torch.randn(2, 3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert abs(core.slerp(a, b, 0.5).var() - 1) < 0.1
    assert abs(core.lerp(a, b, 0.5).var() - 0.5) < 0.1
    torch.testing.assert_close(core.slerp(a, a, 0.3), a)
