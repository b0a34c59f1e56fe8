import math

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

import diffae_core as core
from diffae_core.autoencoder import batch_normalised


@pytest.mark.parametrize("count", [0, 1, 5])
def test_shapes_and_ranges(small_autoencoder, count):
    images = torch.rand(count, 1, 28, 28)
    latents = small_autoencoder.encode(images)
    assert latents.shape == (count, 16) and latents.dtype == torch.float32
    decoded = small_autoencoder(images)
    assert decoded.shape == images.shape and ((decoded >= 0) & (decoded <= 1)).all()


def test_encode_and_decode_are_differentiable(small_autoencoder):
    images = torch.rand(2, 1, 28, 28, requires_grad=True)
    small_autoencoder(images).sum().backward()
    assert images.grad.abs().sum() > 0


def test_encode_dataset_keeps_order_types_and_training_mode(small_autoencoder, held_out):
    digits, random_state = held_out.subset(slice(0, 23)), torch.get_rng_state()
    found = small_autoencoder.encode_dataset(digits, batch_size=5)
    pairs = small_autoencoder.encode_dataset([*digits], batch_size=5)  # as of torchvision's MNIST
    assert torch.equal(torch.get_rng_state(), random_state), "the caller's random numbers were used"
    assert isinstance(found, TensorDataset) and torch.equal(found.tensors[1], digits.labels)
    with torch.no_grad():
        torch.testing.assert_close(found.tensors[0], small_autoencoder.encode(digits.images), atol=1e-5, rtol=1e-5)
    for same, tensor, dtype in zip(pairs.tensors, found.tensors, (torch.float32, torch.int64)):
        assert torch.equal(same, tensor) and tensor.dtype == dtype and not tensor.requires_grad
    arrays = small_autoencoder.encode_dataset(digits, batch_size=5, as_numpy=True)
    assert all((array == tensor.numpy()).all() for array, tensor in zip(arrays, found.tensors))
    pictures = [
        (Image.fromarray(picture), int(label)) for picture, label in zip(digits.pixels[:, 0].numpy(), digits.labels)
    ]
    of_pictures = small_autoencoder.encode_dataset(pictures, batch_size=5)  # as of torchvision's MNIST, untransformed
    assert all(torch.equal(same, tensor) for same, tensor in zip(of_pictures.tensors, pairs.tensors))
    narrow = TensorDataset(digits.images, digits.labels.to(torch.int16))
    with torch.device("meta"):
        elsewhere = small_autoencoder.encode_dataset(narrow, batch_size=5)
    assert all(torch.equal(same, tensor) for same, tensor in zip(elsewhere.tensors, pairs.tensors))
    with pytest.raises(TypeError, match=r"got a DataLoader: give its \.dataset"):
        small_autoencoder.encode_dataset(DataLoader(narrow))
    small_autoencoder.train()
    empty = small_autoencoder.encode_dataset(digits.subset(slice(0, 0)))
    assert empty.tensors[0].shape == (0, 16) and small_autoencoder.training


@pytest.mark.parametrize("label", ["seven", 0.5, torch.tensor([1, 0]) > 0, None])
def test_a_dataset_without_whole_number_labels_is_refused(small_autoencoder, label):
    image = torch.rand(1, 28, 28)
    dataset = [image] * 3 if label is None else [(image, label)] * 3
    with pytest.raises(TypeError, match="expected pairs of an image and a whole number"):
        small_autoencoder.encode_dataset(dataset, batch_size=2)
    assert not small_autoencoder.training


def test_a_dark_digit_is_one_like_others(small_autoencoder, sample):
    pixels = sample.pixels[:4].clone()
    pixels[3] //= 20
    dark = core.Digits(pixels, sample.labels[:4])
    latents = small_autoencoder.encode_dataset(dark, batch_size=1).tensors[0]
    assert torch.allclose(latents, small_autoencoder.encode_dataset(dark).tensors[0], atol=1e-5)


def test_under_autocast_each_model_takes_what_the_other_gives(small_autoencoder, small_model, held_out):
    head = core.BayesianLastLayer(small_autoencoder.encoder, 16)
    with torch.autocast("cpu", torch.bfloat16):
        latents = small_autoencoder.encode(held_out.images[:2])
        pictures = [small_autoencoder.decode(latents), small_model.generate(latents, 2)]
        head.sample_predict(pictures[0].detach(), 2)
    assert all(values.dtype == torch.float32 for values in [latents, *pictures])


def test_normalising_the_latents_is_what_training_assumed(small_autoencoder, sample):
    """Normalised over the whole set at once, as each batch is in training; but for the N - 1 of torch's std."""
    digits = sample.subset(slice(0, 500))
    small_autoencoder.encoder[-1].weight.data.mul_(20)  # a variance far above batch_norm's epsilon
    before = small_autoencoder.encode_dataset(digits).tensors[0]
    small_autoencoder.normalise_latents(digits)
    after = small_autoencoder.encode_dataset(digits).tensors[0]
    wanted = batch_normalised(before) * math.sqrt(499 / 500)
    torch.testing.assert_close(after, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after.mean(0), torch.zeros(16), atol=1e-4, rtol=0)
    torch.testing.assert_close(after.std(0), torch.ones(16), atol=1e-4, rtol=0)


def test_one_digit_has_no_standard_deviation(small_autoencoder, sample):
    before = [weight.clone() for weight in small_autoencoder.parameters()]
    with pytest.raises(ValueError, match="the number of digits .* 2 or more, got 1"):
        small_autoencoder.normalise_latents(sample.spaced(1))
    for digits, batch_size in ((sample.spaced(1), 64), (sample.spaced(8), 1)):
        config = core.TrainingConfig(epochs=1, batch_size=batch_size)
        with pytest.raises(ValueError, match="digits of a batch, .* 2 or more, got 1"):
            core.train_autoencoder(small_autoencoder, digits, config)
    assert all(torch.equal(weight, same) for weight, same in zip(small_autoencoder.parameters(), before))


def test_with_noise_on_the_latent_the_decoder_learns_an_average(sample):
    """Of two digits, as far apart in the latent as the noise can't tell: the decoder shows what lies between them."""
    two = sample.subset([int((sample.labels == label).nonzero()[0]) for label in (0, 1)])
    digits, error = two.subset(torch.arange(2).repeat(8)), {}
    for noise in (0.0, 30.0):
        torch.manual_seed(0)
        model = core.SimpleAutoencoder(latent_dim=4, device="cpu")
        config = core.TrainingConfig(epochs=200, batch_size=16, learning_rate=1e-2, ema_decay=0.9)
        for _ in core.train_autoencoder(model, digits, config, latent_noise=noise):
            pass
        decoded = core.in_batches(model, two.images)
        error[noise] = [(decoded - wanted).square().mean() for wanted in (two.images, two.images.mean(0, keepdim=True))]
    assert error[0.0][0] < error[0.0][1] / 5
    assert error[30.0][1] < error[30.0][0] / 5


def test_latents_of_the_shipped_one_are_normalised(autoencoder, sample):
    latents = autoencoder.encode_dataset(sample).tensors[0]
    assert latents.mean(0).abs().max() < 0.2 and (latents.std(0) - 1).abs().max() < 0.2


def test_the_encoder_is_a_plain_module_for_other_peoples_heads(autoencoder, held_out):
    head = torch.nn.Sequential(autoencoder.encoder, torch.nn.Linear(autoencoder.latent_dim, 10))
    assert head(held_out.images[:4]).shape == (4, 10)
