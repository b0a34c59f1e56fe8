import math

import pytest
import torch

import diffae_core as core


def test_one_latent_has_no_principal_direction():
    with pytest.raises(ValueError, match="the number of latents to be a whole number of 2 or more, got 1"):
        core.principal_directions(torch.randn(1, 4))


def test_class_means_are_means():
    latents, labels = torch.arange(20.0).reshape(20, 1), torch.arange(20) % 10
    assert core.class_means(latents, labels).flatten().tolist() == [label + 5.0 for label in range(10)]
    with pytest.raises(ValueError, match=r"none of \[0, 8\]: renumber"):
        core.class_means(latents[[*range(1, 8), 9]], labels[[*range(1, 8), 9]])
    for function in (core.class_means, core.class_directions):
        with pytest.raises(ValueError, match=r"expected labels \(20,\).* got \(9,\)"):
            function(latents, labels[:9])
        with pytest.raises(ValueError, match="whole numbers"):
            function(latents, labels.float())


def test_means_of_nothing_are_refused_and_labels_of_16_bits_are_labels():
    with pytest.raises(ValueError, match="the number of latents"):
        core.class_means(torch.zeros(0, 8), torch.zeros(0, dtype=torch.long))
    labels = torch.tensor([0, 0, 1, 1])
    z = torch.arange(8.0).reshape(4, 2)
    assert torch.equal(core.class_means(z, labels.to(torch.uint16)), core.class_means(z, labels))


def test_principal_directions_find_the_axes_and_their_deviations():
    latents = torch.randn(20_000, 3, generator=core.seeded(0)) * torch.tensor([1.0, 5.0, 2.0])
    first, second = core.principal_directions(latents, 2)
    assert first.abs().argmax() == 1 and first.norm().item() == pytest.approx(5, rel=0.02)
    assert second.abs().argmax() == 2 and second.norm().item() == pytest.approx(2, rel=0.02)
    with pytest.raises(ValueError, match="count of 3 or less"):
        core.principal_directions(latents, 4)


@pytest.mark.parametrize("classes", [2, 10])
def test_a_planted_direction_is_found(classes):
    """Classes that differ along one axis each, in noise: the classifier's directions are these axes."""
    labels = torch.arange(4000) % classes
    latents = torch.randn(4000, 16, generator=core.seeded(0))
    latents[torch.arange(4000), labels] += 3
    directions = core.class_directions(latents.requires_grad_(), labels)
    assert directions.shape == (classes, 16) and not directions.requires_grad
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(classes))
    assert directions[torch.arange(classes), torch.arange(classes)].min() > 0.6
    with pytest.raises(ValueError, match="the number of classes with an example to be a whole number of 2 or more"):
        core.class_directions(latents[:5], torch.zeros(5, dtype=torch.int64))


def test_a_class_without_an_example_has_no_direction():
    """EMNIST's letters are 1 to 26; nothing is 0."""
    labels = torch.arange(400) % 3 + 1
    latents = torch.randn(400, 8) + 3 * torch.nn.functional.one_hot(labels, 8)
    directions = core.class_directions(latents[labels != 2], labels[labels != 2])
    assert directions.norm(dim=1).round().tolist() == [0, 1, 0, 1]
    assert torch.equal(core.edit(latents, directions[0], 2.0), latents)


def test_a_turned_noise_keeps_its_length_and_forgets_at_a_right_angle():
    z_T = 3 * torch.randn(5, 256, generator=core.seeded(0))
    torch.testing.assert_close(core.turn(z_T, 0.0), z_T)
    for angle in (0.3, 1.0, math.pi / 2):
        turned = core.turn(z_T, angle, core.seeded(1))
        torch.testing.assert_close(turned.norm(dim=1), z_T.norm(dim=1))
        cosine = torch.nn.functional.cosine_similarity(turned, z_T)
        torch.testing.assert_close(cosine, torch.full((5,), math.cos(angle)), atol=1e-5, rtol=1e-4)
    other = core.turn(-2 * z_T, math.pi / 2, core.seeded(1))
    torch.testing.assert_close(other, 2 * turned, atol=1e-4, rtol=1e-4)  # nothing of z_T is left but its length
    for move in (core.turn, lambda z, share: core.slerp(z, z, share)):
        with pytest.raises(ValueError, match=r"got \(256,\): add \[None\]"):
            move(z_T[0], 0.5)


def test_what_has_no_other_direction_is_turned_without_nan():
    assert core.turn(torch.zeros(2, 4), 0.8, core.seeded(0)).eq(0).all()
    with pytest.raises(ValueError, match="parallel noise"):
        core.turn(torch.ones(3, 1), 0.8)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        with pytest.raises(ValueError, match="parallel noise: use another seed"):
            core.turn(torch.randn(8, 256, generator=core.seeded(3)).to(dtype), 0.8, core.seeded(3))
    assert core.turn(torch.randn(2, 16).half(), 0.8).dtype == torch.float16
    with pytest.raises(TypeError, match="generator"):
        core.turn(torch.ones(3, 4), 0.8, 0)


def test_labels_of_few_bits_are_labels():
    latents, labels = torch.randn(8, 3, generator=core.seeded(0)), torch.arange(8) % 2
    for move in (core.class_means, core.class_directions):
        assert torch.equal(move(latents, labels.to(torch.uint8)), move(latents, labels))


def test_an_edit_goes_as_far_as_it_says():
    latents, direction = torch.zeros(3, 256), torch.randn(256, dtype=torch.float64)
    moved = core.edit(latents, direction, -0.5)
    torch.testing.assert_close(moved.norm(dim=1), torch.full((3,), 0.5 * 16))
    torch.testing.assert_close(moved, core.edit(latents, 7 * direction, -0.5))
    assert torch.nn.functional.cosine_similarity(moved, direction[None].float())[0].item() == pytest.approx(-1)
    several = core.edit(latents, torch.eye(256)[:3], 2.0)
    torch.testing.assert_close(several, 32 * torch.eye(256)[:3])


def test_an_edit_of_whole_numbers_is_not_rounded():
    moved = core.edit(torch.zeros(1, 4, dtype=torch.long), torch.tensor([1.0, 0, 0, 0]), 0.25)
    assert torch.equal(moved, torch.tensor([[0.5, 0, 0, 0]]))


def test_paths_begin_and_end_where_they_should():
    a, b = torch.randn(2, 3, 1, 28, 28, generator=core.seeded(0))
    for path in (core.lerp, core.slerp):
        torch.testing.assert_close(path(a, b, 0.0), a, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(path(a, b, 1.0), b, atol=1e-4, rtol=1e-4)


def test_a_column_of_shares_gives_a_point_on_the_path_for_each():
    a, b = torch.randn(2, 1, 8)
    assert torch.equal(core.lerp(a, b, torch.linspace(0, 1, 9)[:, None])[3], core.lerp(a, b, 3 / 8)[0])
    a, b = torch.randn(2, 1, 1, 28, 28)
    arc = core.slerp(a, b, torch.linspace(0, 1, 9)[:, None, None, None])
    assert arc.shape == (9, 1, 28, 28)
    torch.testing.assert_close(arc[[3]], core.slerp(a, b, 3 / 8))


def test_the_arc_keeps_length_and_variance_and_the_line_does_not():
    a, b = torch.randn(2, 5, 1, 28, 28, generator=core.seeded(0))
    assert abs(core.slerp(a, b, 0.5).var() - 1) < 0.1 and abs(core.lerp(a, b, 0.5).var() - 0.5) < 0.1
    torch.testing.assert_close(core.slerp(a, a, 0.3), a)
    a, b = torch.nn.functional.normalize(torch.stack([a, b]).flatten(2), dim=-1)
    for share in (0.1, 0.5, 0.8):
        torch.testing.assert_close(core.slerp(a, b, share).norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("move", [core.lerp, core.slerp, lambda a, b, share: core.edit(a, b[0], share)])
def test_a_share_keeps_its_gradient(move):
    share = torch.tensor(0.3, requires_grad=True)
    move(torch.randn(3, 8), torch.randn(3, 8), share).sum().backward()
    assert share.grad.isfinite() and share.grad != 0
