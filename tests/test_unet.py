import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffae_core as core
from diffae_core.unet import UNKNOWN


@settings(max_examples=25)
@given(
    widths=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    block_depth=st.integers(1, 3),
    latent_dim=st.integers(1, 40),
    image_size=st.sampled_from([12, 20, 28, 32]),
    time_embedding_dim=st.sampled_from([2, 8, 32]),
    feature_embedding_dim=st.sampled_from([4, 12, 64]),
    count=st.integers(0, 3),
)
def test_velocity_has_the_images_shape(widths, image_size, latent_dim, count, **sizes):
    network = core.ConditionalUNet(widths=tuple(widths), image_size=image_size, latent_dim=latent_dim, **sizes)
    x = torch.randn(count, 1, image_size, image_size)
    out = network(x, torch.rand(count), torch.randn(count, latent_dim), torch.rand(count))
    assert out.shape == x.shape and out.isfinite().all()


def inputs(count=3):
    image, latents = torch.randn(count, 1, 28, 28), torch.randn(count, 16)
    return [image, torch.rand(count), latents, torch.tensor([UNKNOWN, 0.0, 2.0])[:count]]


@pytest.mark.parametrize("part", range(4), ids=["image", "time", "latent", "latent noise"])
def test_each_input_matters_to_its_own_image_alone(small_model, part):
    first = inputs()
    second = [values.clone() for values in first]
    second[part][2] += 0.5
    moved = (small_model.network(*first) - small_model.network(*second)).abs().amax(dim=(1, 2, 3))
    assert moved[2] > 1e-4 and moved[:2].max() < 1e-6


def test_a_noise_that_is_not_told_is_not_a_noise_of_zero(small_model):
    values = [value[:1].expand(3, *value.shape[1:]) for value in inputs()[:3]]
    untold, zero, other = small_model.network(*values, torch.tensor([UNKNOWN, 0.0, UNKNOWN]))
    assert (untold - zero).abs().max() > 1e-4
    torch.testing.assert_close(untold, other, atol=1e-5, rtol=1e-4)


def test_latents_that_were_read_before_give_the_same_velocity(small_model):
    x, noise_rate, latents, latent_noise = inputs()
    whole = small_model.network(x, noise_rate, latents, latent_noise)
    assert torch.equal(small_model.network(x, noise_rate, small_model.network.read(latents), latent_noise), whole)


def test_images_of_a_batch_do_not_mix(small_model):
    values = inputs()
    alone = small_model.network(*(value[1:2] for value in values))
    torch.testing.assert_close(small_model.network(*values)[1:2], alone, atol=1e-5, rtol=1e-4)


def test_every_weight_has_a_gradient(small_model):
    small_model.network(*inputs()).square().sum().backward()
    weights = {name: weight for name, weight in small_model.network.named_parameters() if name.endswith("weight")}
    assert [name for name, weight in weights.items() if not weight.grad.abs().sum() > 0] == []


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"time_embedding_dim": 31}, "time_embedding_dim .* a multiple of 2, got 31"),
        ({"feature_embedding_dim": 6}, "feature_embedding_dim .* a multiple of 4, got 6"),
        ({"image_size": 30}, "image_size .* a multiple of 4, got 30"),
        ({"widths": ()}, "the number of widths to be a whole number of 1 or more"),
        ({"widths": (8, 0)}, "each of widths"),
        ({"widths": 64}, r"expected widths, one number for each resolution, got 64: give e\.g\. \(32, 64, 128\)"),
        ({"widths": (8, 8, 8), "image_size": 8}, "image_size to be a whole number of 9 or more.*got 8"),
        ({"block_depth": 0}, "block_depth"),
        ({"latent_dim": 2.5}, "latent_dim"),
    ],
)
def test_impossible_sizes(size, message):
    for kind in (core.ConditionalUNet, core.DiffusionModel):
        with pytest.raises(ValueError, match=message):
            kind(**size)


def test_all_parts_are_made_on_the_default_device():
    with torch.device("meta"):
        unet = core.ConditionalUNet(8, 8, (8, 8), 1, 8, 28)
    assert {part.device.type for part in [*unet.parameters(), *unet.buffers()]} == {"meta"}


def test_time_embedding_tells_nearby_levels_apart():
    embedding = core.unet.TimeEmbedding(32)(torch.tensor([0.5, 0.501, 0.9]))
    assert embedding.shape == (3, 32) and embedding.abs().max() <= 1
    near, far = (embedding[0] - embedding[1]).norm(), (embedding[0] - embedding[2]).norm()
    assert 0.01 < near < far
