import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffae_core as core


@settings(max_examples=25, deadline=None)
@given(
    widths=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    block_depth=st.integers(1, 3),
    latent_dim=st.integers(1, 40),
    image_size=st.sampled_from([12, 20, 28, 32]),
    time_embedding_dim=st.sampled_from([2, 8, 32]),
    feature_embedding_dim=st.sampled_from([4, 12, 64]),
    count=st.integers(1, 3),
)
def test_velocity_has_the_images_shape(widths, image_size, latent_dim, count, **sizes):
    network = core.ConditionalUNet(widths=tuple(widths), image_size=image_size, latent_dim=latent_dim, **sizes)
    x = torch.randn(count, 1, image_size, image_size)
    out = network(x, torch.rand(count), torch.randn(count, latent_dim))
    assert out.shape == x.shape and out.isfinite().all()


@pytest.mark.parametrize("part", ["image", "time", "latent"])
def test_each_input_matters(small_model, part):
    torch.manual_seed(1)
    first = [torch.randn(2, 1, 28, 28), torch.full((2,), 0.3), torch.randn(2, 16)]
    second = list(first)
    which = ["image", "time", "latent"].index(part)
    second[which] = first[which] + 0.5
    assert (small_model.network(*first) - small_model.network(*second)).abs().max() > 1e-4


def test_images_of_a_batch_do_not_mix(small_model):
    x, level, latents = torch.randn(3, 1, 28, 28), torch.rand(3), torch.randn(3, 16)
    together = small_model.network(x, level, latents)
    alone = small_model.network(x[1:2], level[1:2], latents[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"time_embedding_dim": 31}, "multiple of 2, got 31"),
        ({"feature_embedding_dim": 6}, "multiple of 4, got 6"),
        ({"image_size": 30}, "multiple of 4, got 30"),
        ({"widths": ()}, "one resolution or more"),
        ({"widths": (8, 0)}, "each of widths"),
        ({"widths": (8, 8, 8), "image_size": 8}, "image_size above 8 for 3 widths, got 8"),
        ({"block_depth": 0}, "block_depth"),
        ({"latent_dim": 2.5}, "latent_dim"),
    ],
)
def test_impossible_sizes(size, message):
    with pytest.raises(ValueError, match=message):
        core.ConditionalUNet(**size)


def test_time_embedding_tells_nearby_levels_apart():
    embedding = core.TimeEmbedding(32)(torch.tensor([0.5, 0.501, 0.9]))
    assert embedding.shape == (3, 32) and embedding.abs().max() <= 1
    near, far = (embedding[0] - embedding[1]).norm(), (embedding[0] - embedding[2]).norm()
    assert 0.01 < near < far
