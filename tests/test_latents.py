import pytest
import torch

import diffae_core as core


def test_class_means_are_means():
    latents = torch.arange(20.0).reshape(20, 1)
    labels = torch.arange(20) % 10
    assert core.class_means(latents, labels).flatten().tolist() == [label + 5.0 for label in range(10)]
    with pytest.raises(ValueError, match=r"none of \[9\]"):
        core.class_means(latents[:9], labels[:9])
    with pytest.raises(ValueError, match=r"expected labels \(20,\).* got \(9,\)"):
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


def test_the_arc_keeps_the_length():
    a, b = torch.nn.functional.normalize(torch.randn(2, 5, 784, generator=torch.Generator().manual_seed(0)), dim=-1)
    for share in (0.1, 0.5, 0.8):
        torch.testing.assert_close(core.slerp(a, b, share).norm(dim=1), torch.ones(5))


def test_a_planted_direction_is_found():
    """Ten classes that differ along one axis each, in noise: the classifier's directions are these axes."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4000) % 10
    latents = torch.randn(4000, 16, generator=generator)
    latents[torch.arange(4000), labels] += 3
    directions = core.class_directions(latents, labels)
    assert directions.shape == (10, 16) and directions.abs().argmax(dim=1).tolist() == list(range(10))
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(10))
    with pytest.raises(ValueError, match="none of"):
        core.class_directions(latents[:5], labels[:5])


def test_an_edit_goes_as_far_as_it_says():
    latents, direction = torch.zeros(3, 256), torch.randn(256)
    moved = core.edit(latents, direction, -0.5)
    torch.testing.assert_close(moved.norm(dim=1), torch.full((3,), 0.5 * 16))
    torch.testing.assert_close(moved, core.edit(latents, 7 * direction, -0.5))
    assert torch.nn.functional.cosine_similarity(moved, direction[None])[0].item() == pytest.approx(-1)


@pytest.mark.parametrize("move", ["both", "latent", "noise"])
def test_interpolation_begins_at_one_digit_and_ends_at_the_other(move):
    generator = torch.Generator().manual_seed(0)
    a, b = ((torch.randn(1, 8, generator=generator), torch.randn(1, 1, 28, 28, generator=generator)) for _ in "ab")
    z, x_T = core.interpolate(a, b, 5, move)
    assert z.shape == (5, 8) and x_T.shape == (5, 1, 28, 28)
    torch.testing.assert_close(z[[0]], a[0])
    torch.testing.assert_close(z[[-1]], a[0] if move == "noise" else b[0])
    torch.testing.assert_close(x_T[[-1]], a[1] if move == "latent" else b[1])
    torch.testing.assert_close(z[2], a[0][0] if move == "noise" else (a[0] + b[0])[0] / 2)


def test_bad_interpolations():
    code = torch.zeros(1, 8), torch.ones(1, 1, 28, 28)
    with pytest.raises(ValueError, match='"both", "latent" or "noise", got \'z\''):
        core.interpolate(code, code, 5, "z")
    with pytest.raises(ValueError, match="steps to be a whole number of 2 or more"):
        core.interpolate(code, code, 1)


@pytest.mark.parametrize(
    ("direction", "message"),
    [
        (torch.ones(5), r"a direction \(8,\) or \(3, 8\) for latents \(3, 8\), got \(5,\)"),
        (torch.ones(3, 1), r"got \(3, 1\)"),
        (torch.zeros(8), "directions with a length"),
        (torch.full((8,), float("nan")), "of finite floating-point numbers, got NaN"),
    ],
)
def test_bad_edits(direction, message):
    with pytest.raises(ValueError, match=message):
        core.edit(torch.zeros(3, 8), direction, 1.0)


def test_bad_strengths_and_latents():
    with pytest.raises(ValueError, match="expected strength to be a number"):
        core.edit(torch.zeros(3, 8), torch.ones(8), float("nan"))
    with pytest.raises(TypeError, match="expected latents .* got list"):
        core.edit([0.0], torch.ones(8), 1.0)


def test_codes_of_different_digits_counts_are_refused():
    one, two = ((torch.zeros(n, 8), torch.ones(n, 1, 28, 28)) for n in (1, 2))
    with pytest.raises(ValueError, match=r"of one shape.*got \(1, 8\) and \(2, 8\)"):
        core.blend(one, two, 0.5)
    with pytest.raises(ValueError, match="one digit each, got 2"):
        core.interpolate(two, two, 5)


def test_labels_of_no_digit_are_refused():
    with pytest.raises(ValueError, match=r"from 0 to 9, got \[10\]"):
        core.class_means(torch.zeros(11, 4), torch.arange(11))


def test_latents_with_a_gradient_have_directions_too():
    labels = torch.arange(100) % 10
    latents = torch.randn(100, 4, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    assert not core.class_directions(latents, labels).requires_grad
